"""An author's files: found by their names in the files and directories that he gives.

=====================  =================================================================================================
``*_test.rego``        test modules: never part of a policy nor of its digest
``*.rego``             the policy's modules
``data.json``          the author's own data, which rules read as ``data.author``
``reference.json``     reference values to try the policy with: a relying party's are its own, and not the author's
``*.golden.json``      recorded inputs with what is expected of them
``foreign/``           policies written for other verifiers, and their values (:mod:`weighbridge.policy.adapters`)
=====================  =================================================================================================

In a directory everything below it is found, but for what is hidden. Nothing is read here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy import policy_set
from weighbridge.policy.adapters.module import FOLDER
from weighbridge.policy.policy_set import DATA, DATA_MAX, MODULES_MAX, SOURCE_MAX, AuthorData, PolicyModule, PolicySet
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weighbridge.policy.values.reference import Reference

__all__ = ["GOLDEN", "GOLDEN_MAX", "REFERENCE", "TESTS", "Sources", "collect"]

TESTS: Final = "_test.rego"
"""How the name of a test module ends."""
GOLDEN: Final = ".golden.json"
"""How the name of a recorded input ends."""
REFERENCE: Final = "reference.json"
"""The name of the reference values that a policy is tried with."""
GOLDEN_MAX: Final = 10_000
_MODULE: Final = ".rego"
_FOREIGN: Final = FOLDER.rstrip("/")
_ENTRIES_MAX: Final = 100_000
# Golden inputs have a directory of their own in the policy's.
_BESIDE: Final = 2
_HINT: Final = "begin one: weighbridge policy init DIRECTORY --scenario NAME"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where an author's files are, each kind in the order of its paths."""

    modules: tuple[Path, ...] = ()
    tests: tuple[Path, ...] = ()
    golden: tuple[Path, ...] = ()
    data: Path | None = None
    reference: Path | None = None
    foreign: tuple[tuple[str, Path], ...] = ()

    def policy(self, reference: Reference) -> PolicySet:
        """The policy of these modules and data, with ``reference`` as its reference values.

        Raises:
            PolicyDenied: ``POLICY_INVALID``, as :func:`weighbridge.policy.policy_set.load`.
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        made = policy_set.load(self.modules, reference=reference)
        if self.data is not None:
            made = replace(made, data=AuthorData(_read(self.data, DATA_MAX)))
        foreign = [(name, _read(path, DATA_MAX)) for name, path in self.foreign]
        return policy_set.with_files(made, foreign) if foreign else made

    def test_modules(self) -> tuple[PolicyModule, ...]:
        """The test modules, by their file names.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: two of one name, or one that breaks a bound.
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        found: dict[str, PolicyModule] = {}
        for path in self.tests:
            if path.name in found:
                raise _twice(path)
            found[path.name] = PolicyModule(path.name, _read(path, SOURCE_MAX))
        return tuple(found.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        single = (path for path in (self.data, self.reference) if path is not None)
        return (*self.modules, *self.tests, *self.golden, *single, *(path for _, path in self.foreign))


def collect(paths: Iterable[Path]) -> Sources:
    """What is at ``paths``. Where only tests are named, the policy beside them, or one level up, is meant.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: there is no policy, there are two data files, or far too many files.
        EnvironmentFault: ``FILE_UNREADABLE``: a path does not exist.
    """
    listed = list(paths)
    found = _collect(listed)
    for above in range(_BESIDE):
        if found.modules or not (found.tests or found.golden):
            break
        beside = _collect({path.absolute().parents[above] for path in listed if not path.is_dir()})
        found = replace(
            found,
            modules=beside.modules,
            data=found.data or beside.data,
            reference=found.reference or beside.reference,
            foreign=found.foreign or beside.foreign,
        )
    if not found.modules:
        where = ", ".join(str(path) for path in listed[:3])
        raise PolicyDenied(Code.POLICY_INVALID, "there is no policy here", where=where, hint=_HINT)
    return found


def _collect(paths: Iterable[Path]) -> Sources:
    paths = list(paths)
    kinds: dict[str, dict[Path, None]] = {kind: {} for kind in ("modules", "tests", "golden", "data", "reference")}
    for path in paths:
        for file in _below(path):
            kinds[_kind(file)][file] = None
    if len(kinds["tests"]) >= MODULES_MAX or len(kinds["golden"]) > GOLDEN_MAX:
        raise PolicyDenied(
            Code.POLICY_INVALID,
            "there are too many files",
            expected=f"<= {MODULES_MAX - 1} test modules, <= {GOLDEN_MAX} recorded inputs",
            hint="name fewer of them",
        )
    return Sources(
        tuple(kinds["modules"]),
        tuple(kinds["tests"]),
        tuple(kinds["golden"]),
        _only(kinds["data"]),
        _only(kinds["reference"]),
        tuple(found for path in paths if path.is_dir() for found in _foreign(path)),
    )


def _kind(path: Path) -> str:
    if path.name.endswith(TESTS):
        return "tests"
    if path.name.endswith(GOLDEN):
        return "golden"
    return {DATA: "data", REFERENCE: "reference"}.get(path.name, "modules")


def _below(path: Path) -> Iterator[Path]:
    """``path`` itself, or the author's files below it, in order of their paths."""
    if not path.is_dir():
        if not path.exists():
            raise EnvironmentFault(Code.FILE_UNREADABLE, "no such file or directory", where=str(path))
        yield path
        return
    pending, left = [path], _ENTRIES_MAX
    while pending:
        for entry in _entries(pending.pop()):
            left -= 1
            if left < 0:
                raise PolicyDenied(
                    Code.POLICY_INVALID, "there are too many files", where=str(path), hint="name the policy's directory"
                )
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and not entry.is_symlink():
                if entry != path / _FOREIGN:
                    pending.append(entry)
            elif entry.name in (DATA, REFERENCE) or entry.name.endswith((_MODULE, GOLDEN)):
                yield entry


def _foreign(path: Path) -> Iterator[tuple[str, Path]]:
    """The files below ``path/foreign`` by the names that they have in a policy."""
    folder = path / _FOREIGN
    if folder.is_dir() and not folder.is_symlink():
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix in (_MODULE, ".json"):
                yield file.relative_to(path).as_posix(), file


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, f"cannot list the directory: {error.strerror}", where=str(directory)
        ) from error


def _only(paths: dict[Path, None]) -> Path | None:
    found = list(paths)
    if len(found) > 1:
        raise _twice(found[1])
    return found[0] if found else None


def _twice(path: Path) -> PolicyDenied:
    return PolicyDenied(
        Code.POLICY_INVALID, "two files have the same name", where=str(path), hint="name one policy, or rename one"
    )


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, f"cannot read it: {(error.strerror or '').lower()}", where=str(path)
        ) from error
