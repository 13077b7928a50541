"""A set of policy modules with its reference values: what is hashed, bounded and handed to an engine.

Author modules are all in package ``weighbridge.policy``; the shipped library, package ``weighbridge.lib``, is always
part of the set and of its digest. No module can be in any other package, so none can add to the library, to another
author's rules or to ``data.reference``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Literal, get_args

from weighbridge.policy.adapters.module import FOLDER, VALUES, ForeignModule
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits, strict
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, PolicyDenied

__all__ = [
    "BRACKETS_MAX",
    "COLUMNS_MAX",
    "DATA",
    "DATA_MAX",
    "LIBRARY",
    "LINES_MAX",
    "MODULES_MAX",
    "SHIPPED",
    "SOURCE_MAX",
    "AuthorData",
    "PolicyFiles",
    "PolicyModule",
    "PolicySet",
    "Shipped",
    "authored",
    "load",
    "recorded",
    "shipped",
    "shipped_name",
    "with_files",
]

# The engine's parser takes time exponential in the nesting of literals: 0.25 s at 16, 17 s at 22.
BRACKETS_MAX: Final = 12
COLUMNS_MAX: Final = 512
LINES_MAX: Final = 5_000
SOURCE_MAX: Final = 256 * 1024
MODULES_MAX: Final = 64
DATA_MAX: Final = 1024 * 1024
DATA: Final = "data.json"
"""The name of the author's own data among a policy's files."""

LIBRARY: Final = "weighbridge/lib.rego"
PolicyFiles = tuple[tuple[str, bytes], ...]
"""Name and exact bytes of each of a policy's files."""
Shipped = Literal["production", "azure_snp_h100", "bare_metal_tpm_h100", "audit_only", "insecure_development"]
SHIPPED: Final[tuple[Shipped, ...]] = get_args(Shipped)
"""The policies that come with Weighbridge, by name."""


# In this order: raw text, text, comment, bracket. A quote that opens nothing is matched alone and refused.
_TOKEN: Final = re.compile(r'`[^`]*`|"(?:[^"\\\n]|\\.)*"|#[^\n]*|[\[({]|[\])}]|[`"]')
_TEXT_HINT: Final = "a module is text in UTF-8, with tabs and line feeds: save it as such, or name another file"
# Also what no engine minds and an editor does: a line's end that is none, and text that is shown in another order than
# it stands (CVE-2021-42574), so that whoever reviews the policy reads another one.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class PolicyModule:
    """One Rego module: its name in messages and digests, and the exact bytes as read.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: too large, too many or too long lines, not UTF-8, control characters, an open
            quote, or brackets nested too deeply: everything that is checked before any parser sees it.
    """

    name: str
    text: bytes

    def __post_init__(self) -> None:
        if len(self.text) > SOURCE_MAX:
            raise _invalid("the module is too large", self.name, 1, expected=f"<= {SOURCE_MAX} bytes")
        try:
            source = self.text.decode()
        except UnicodeDecodeError as error:
            at = self.text[: error.start].count(b"\n") + 1
            raise _invalid("the module is not UTF-8", self.name, at, hint=_TEXT_HINT) from error
        if found := _CONTROL.search(source):
            at = _line(source, found.start())
            raise _invalid("the module holds a control character", self.name, at, hint=_TEXT_HINT)
        lines = source.split("\n")
        if len(lines) > LINES_MAX:
            raise _invalid("the module has too many lines", self.name, LINES_MAX, expected=f"<= {LINES_MAX}")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS_MAX:
                raise _invalid("the line is too long", self.name, number, expected=f"<= {COLUMNS_MAX} characters")
        _check_brackets(self.name, source)


def _check_brackets(name: str, source: str) -> None:
    depth = 0
    for token in _TOKEN.finditer(source):
        text = token.group()
        if text in ("`", '"'):
            raise _invalid("a quote is not closed", name, _line(source, token.start()), hint="close it in its line")
        if text in ("[", "(", "{"):
            depth += 1
            if depth > BRACKETS_MAX:
                raise _invalid(
                    "brackets are nested too deeply",
                    name,
                    _line(source, token.start()),
                    expected=f"<= {BRACKETS_MAX}",
                    hint="move the inner part into a rule or a function of its own",
                )
        elif text in ("]", ")", "}"):
            depth -= 1


def _line(source: str, offset: int) -> int:
    return source.count("\n", 0, offset) + 1


def _invalid(message: str, name: str, line: int, *, expected: str | None = None, hint: str = "") -> PolicyDenied:
    return PolicyDenied(Code.POLICY_INVALID, message, where=f"{name}:{line}", expected=expected, hint=hint)


@dataclass(frozen=True, slots=True)
class AuthorData:
    """An author's own data, which rules read as ``data.author``: the exact bytes of a JSON object as read.

    ``name`` is the file's: :data:`DATA`, or that of the values that foreign policies ask for.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: larger than :data:`DATA_MAX`, or not strict JSON of one object.
    """

    text: bytes
    name: str = DATA

    def __post_init__(self) -> None:
        if len(self.text) > DATA_MAX:
            raise _invalid("the data are too large", self.name, 1, expected=f"<= {DATA_MAX} bytes")
        _ = self.content()

    def content(self) -> strict.JsonObject:
        """The object."""
        try:
            value = strict.json_decode(self.text, what=self.name)
        except MalformedEvidence as error:
            raise _invalid(f"the data are no strict JSON: {error.message}", self.name, 1) from error
        if not isinstance(value, dict):
            raise _invalid("the data are not a JSON object", self.name, 1)
        return value


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Modules, reference values, the author's own data; made by :func:`load` or :func:`shipped`. Bounded, not checked.

    Raises:
        ValueError: no module, too many, two of one name, or a library that is not the shipped one: misuse.
        PolicyDenied: ``POLICY_INVALID``: larger than ``limits.POLICY_MAX`` together.
    """

    modules: tuple[PolicyModule, ...]
    reference: Reference
    data: AuthorData | None = None
    foreign: tuple[ForeignModule, ...] = ()
    values: AuthorData | None = None

    def __post_init__(self) -> None:
        names = [module.name for module in self.modules]
        if len(set(names)) != len(names) or not 1 < len(names) <= MODULES_MAX or LIBRARY not in names:
            raise ValueError("a policy set is the library and at least one module, each of another name")
        if (size := sum(len(content) for _, content in self.files)) > limits.POLICY_MAX:
            raise PolicyDenied(
                Code.POLICY_INVALID,
                "the files are too large together",
                expected=f"<= {limits.POLICY_MAX} bytes",
                got=size,
            )

    @property
    def digest(self) -> bytes:
        """``D("policy", [[name, bytes] … sorted by name])``: changes with every byte of every file."""
        return D("policy", [[name, content] for name, content in sorted(self.files)])

    @property
    def files(self) -> PolicyFiles:
        """Name and exact bytes of the modules, of the author's data, and of policies written for other verifiers."""
        modules = ((module.name, module.text) for module in self.modules)
        foreign = ((module.name, module.text) for module in self.foreign)
        return (*modules, *foreign, *((data.name, data.text) for data in (self.data, self.values) if data is not None))

    @property
    def foreign_values(self) -> strict.JsonObject:
        """What ``query_reference_value`` gives to policies that were written for other verifiers."""
        return {} if self.values is None else self.values.content()

    def document(self) -> strict.JsonObject:
        """What policies read as ``data`` beside their rules: ``reference``, and ``author`` for the author's own."""
        return {"reference": self.reference.data(), "author": {} if self.data is None else self.data.content()}

    @property
    def reference_digest(self) -> bytes:
        """``D("reference", canonical JSON)`` of the reference values."""
        return self.reference.digest


def load(paths: Iterable[Path], *, reference: Reference) -> PolicySet:
    """Read an author's modules; each is named by its file name, so that the digest does not depend on the place.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: no module, two of one name, or one that breaks a bound.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    modules = {LIBRARY: _library()}
    for path in paths:
        if path.name in modules:
            raise PolicyDenied(Code.POLICY_INVALID, "two modules have the same file name", where=path.name)
        try:
            with path.open("rb") as file:
                text = file.read(SOURCE_MAX + 1)
        except OSError as error:
            raise EnvironmentFault(
                Code.FILE_UNREADABLE, f"cannot read the policy: {error.strerror}", where=str(path)
            ) from error
        modules[path.name] = PolicyModule(path.name, text)
    if not 1 < len(modules) <= MODULES_MAX:
        raise PolicyDenied(
            Code.POLICY_INVALID,
            "a policy has a wrong number of modules",
            expected=f"1 to {MODULES_MAX - 1}",
            got=len(modules) - 1,
        )
    return PolicySet(tuple(modules.values()), reference)


def recorded(files: Iterable[tuple[str, bytes]], *, reference: Reference) -> PolicySet:
    """The policy of which ``files`` are the :attr:`PolicySet.files`, the library as it then was among them.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: a file breaks a bound.
        ValueError: as :class:`PolicySet`.
    """
    listed = list(files)
    modules = tuple(
        PolicyModule(name, content)
        for name, content in listed
        if name not in {DATA, VALUES} and not name.startswith(FOLDER)
    )
    foreign = tuple(
        ForeignModule.of(name, content) for name, content in listed if name != VALUES and name.startswith(FOLDER)
    )
    data, values = ([AuthorData(content, own) for name, content in listed if name == own] for own in (DATA, VALUES))
    if len(data) > 1 or len(values) > 1 or len({module.name for module in foreign}) != len(foreign):
        raise ValueError("a policy has two files of one name")
    return PolicySet(modules, reference, data[0] if data else None, foreign, values[0] if values else None)


def authored(files: Iterable[tuple[str, bytes]], *, reference: Reference) -> PolicySet:
    """The policy of an author's ``files``, modules and :data:`DATA`, over the library of this installation.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: no module, two files of one name, or one that breaks a bound.
    """
    library = _library()
    try:
        return recorded([(library.name, library.text), *files], reference=reference)
    except ValueError as error:
        raise PolicyDenied(Code.POLICY_INVALID, f"the files are no policy: {error}") from error


def with_files(policy: PolicySet, files: Iterable[tuple[str, bytes]]) -> PolicySet:
    """``policy`` with more files.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: two files of one name, or one that breaks a bound.
    """
    try:
        return recorded([*policy.files, *files], reference=policy.reference)
    except ValueError as error:
        raise PolicyDenied(Code.POLICY_INVALID, f"the files are no policy: {error}") from error


def shipped_name(name: str) -> Shipped | None:
    """``name``, if it is the name of a policy that comes with Weighbridge."""
    return next((known for known in SHIPPED if known == name), None)


def shipped(name: Shipped, *, reference: Reference) -> PolicySet:
    """One of the policies that come with Weighbridge."""
    return PolicySet((_library(), PolicyModule(f"weighbridge/{name}.rego", _text(f"{name}.rego"))), reference)


def _library() -> PolicyModule:
    return PolicyModule(LIBRARY, _text("lib.rego"))


def _text(file: str) -> bytes:
    return resources.files("weighbridge.policy").joinpath("rego").joinpath(file).read_bytes()
