"""Puts together what the file, the environment and the command line say, and remembers where each value comes from.

The command line wins over the environment, and that over the file. A list is replaced, never added to. What one of them
says of a section leaves the section's other keys as they are. Tenants stand in the file alone: what one of them says
itself, neither the environment nor the command line says for all, since one of the two would lose without a word.

The environment's name of a key is ``WEIGHBRIDGE_<SECTION>_<KEY>``; texts and paths stand there as they are, numbers,
truth values and lists as in TOML. A name that begins with a section's but is no key's is refused: it would be a setting
that does nothing. Others are left alone: the tests' own, and those that Kubernetes makes of a service's name.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from pydantic import BaseModel, ValidationError

from weighbridge.policy import policy_set
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, WeighbridgeError
from weighbridge.verifier.settings.kinds import About, Relative
from weighbridge.verifier.settings.model import Judging, Settings, Tenant
from weighbridge.verifier.settings.positions import lines_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.fields import FieldInfo

__all__ = ["CONFIG_MAX", "PREFIX", "Given", "Loaded", "Origin", "about", "gather", "keys_of", "load", "variable"]

CONFIG_MAX: Final = 128 * 1024
"""Bytes of a file: some hundred a tenant."""
# The library's parser takes a time that grows with the square of the parts of a name with dots, which is on one line.
_LINE_MAX: Final = 4096
PREFIX: Final = "WEIGHBRIDGE_"
_TENANTS: Final = "tenants"
_JUDGING: Final = "judging"
_OWN: Final = "requirements"
# A word that is nearer than this is taken for a slip.
_NEAR: Final = 0.6
_NEARER: Final = 0.85
# Environment variables that Kubernetes makes for a service called `weighbridge-http` and the like.
_KUBERNETES: Final = re.compile(
    r".*_(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)", re.DOTALL
)
_HINT: Final = "`weighbridge config keys` lists all keys"
# What may hold a secret by mistake is not repeated.
_UNTOLD: Final = frozenset({("store", "url"), ("ledger", "storage"), ("http", "url")})
_USER: Final = "@"

Key = tuple[str, str]
Given = tuple[str, object]
"""An option's name, and what it says."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from."""

    kind: Literal["default", "file", "environment", "option"]
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        """For people."""
        if self.kind == "default":
            return "default"
        return self.name if self.line is None else f"{self.name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Values, and where those come from that are no defaults, by section (or ``tenants``, number) and key."""

    settings: Settings
    origins: Mapping[tuple[str | int, ...], Origin]

    def origin(self, *place: str | int) -> Origin:
        """Where the value of a key comes from."""
        return self.origins.get(place, Origin("default"))


def keys_of(model: type[BaseModel] = Settings) -> dict[Key, FieldInfo]:
    """All keys of all sections, but those of tenants, which are those of ``judging``."""
    found: dict[Key, FieldInfo] = {}
    for section, field in model.model_fields.items():
        if section == _TENANTS:
            continue
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            raise TypeError(f"{section} is no section")
        found |= {(section, name): key for name, key in inner.model_fields.items()}
    return found


def about(field: FieldInfo) -> About:
    """What tables say of a key.

    Raises:
        TypeError: nothing is said.
    """
    found = next((item for item in field.metadata if isinstance(item, About)), None)
    if found is None or not field.description:
        raise TypeError("a key that nothing is said of")
    return found


def variable(key: Key) -> str:
    """The environment's name of ``key``."""
    return PREFIX + "_".join(key).upper()


def load(file: Path | None, environment: Mapping[str, str], options: Mapping[Key, Given]) -> Loaded:
    """What all three say together.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: the first of what is wrong, and how much more is.
    """
    loaded, faults = gather(file, environment, options)
    if loaded is not None and not faults:
        return loaded
    first = faults[0]
    if len(faults) == 1 or not isinstance(first, MalformedEvidence):
        raise first
    raise MalformedEvidence(
        first.code,
        f"{first.message} (and {len(faults) - 1} more: `weighbridge config check`)",
        where=first.where,
        expected=first.expected,
        got=first.got,
        hint=first.hint,
    )


def gather(
    file: Path | None, environment: Mapping[str, str], options: Mapping[Key, Given]
) -> tuple[Loaded | None, tuple[WeighbridgeError, ...]]:
    """The same, with all that is wrong. Where something is, there are no values.

    Args:
        file: the file; ``None``: there is none.
        environment: that of the process.
        options: what the command line says, by key.
    """
    layers = _Layers()
    try:
        if file is not None:
            layers.add_file(file)
        layers.add_environment(environment)
    except WeighbridgeError as error:
        return None, (error,)
    layers.add_options(options)
    return layers.result()


@dataclass(frozen=True, slots=True)
class _Source:
    """A file, and on which line each of its keys stands."""

    file: Path
    lines: Mapping[tuple[str | int, ...], int]

    def origin(self, *places: tuple[str | int, ...]) -> Origin:
        """Where the first of ``places`` is that has a line."""
        lines = (self.lines[place] for place in places if place in self.lines)
        return Origin("file", str(self.file), next(lines, None))


class _Layers:
    """The values so far, each with its origin; and what is wrong with names."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origins: dict[tuple[str | int, ...], Origin] = {}
        self._faults: list[WeighbridgeError] = []

    def add_file(self, file: Path) -> None:
        data = _read(file)
        try:
            text = data.decode("utf-8")
            document = _parsed(text)
        # ValueError: also a number of more digits than Python reads; RecursionError: brackets in brackets.
        except (ValueError, RecursionError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise MalformedEvidence(
                Code.NOT_TOML, f"not TOML: {what}", where=str(file), hint="docs/configuration.md has examples"
            ) from error
        source = _Source(file, lines_of(text))
        for section, values in document.items():
            if section == _TENANTS and isinstance(values, list):
                items = cast("list[object]", values)
                self._values[_TENANTS] = [
                    self._add_table((_TENANTS, number), item, Judging, source) for number, item in enumerate(items)
                ]
                self._origins[_TENANTS,] = source.origin((_TENANTS,), (_TENANTS, 0))
            else:
                field = Settings.model_fields.get(section)
                model = field.annotation if field is not None else None
                self._values[section] = self._add_table((section,), values, model, source)

    def _add_table(self, place: tuple[str | int, ...], values: object, model: object, source: _Source) -> object:
        """The table's values, with paths made whole and origins remembered."""
        self._origins[place] = source.origin(place, place[:1])
        if not isinstance(values, dict):
            return values
        table = cast("dict[str, object]", values)
        fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
        for name in table:
            self._origins[*place, name] = source.origin((*place, name), place)
        base = source.file.parent
        return {
            name: _resolved(value, fields[name], base) if name in fields else value for name, value in table.items()
        }

    def add_environment(self, environment: Mapping[str, str]) -> None:
        keys = {variable(key): (key, field) for key, field in keys_of().items()}
        for name, text in sorted(environment.items()):
            if not name.startswith(PREFIX):
                continue
            if name in keys:
                key, field = keys[name]
                self._set(key, _from_text(text, field, name), Origin("environment", name))
            elif (fault := _unknown_variable(name, list(keys))) is not None:
                self._faults.append(fault)

    def add_options(self, options: Mapping[Key, Given]) -> None:
        for key, (option, value) in options.items():
            self._set(key, value, Origin("option", option))

    def _set(self, key: Key, value: object, origin: Origin) -> None:
        section, name = key
        table = self._values.setdefault(section, {})
        # What is no table stays, to be refused as such.
        if isinstance(table, dict):
            table[name] = value
            self._origins[key] = origin

    def _contradicted(self) -> list[WeighbridgeError]:
        """What the environment or the command line says for all, and a tenant in the file for itself."""
        found: list[WeighbridgeError] = []
        for place, origin in self._origins.items():
            # Requirements are refused beside tenants in any case.
            if place[:1] != (_JUDGING,) or origin.kind not in {"environment", "option"} or place[1:] == (_OWN,):
                continue
            own = ((*other, its) for *other, its in self._origins if other[:1] == [_TENANTS] and its == place[-1])
            found += [
                MalformedEvidence(
                    Code.FIELD_RANGE,
                    f"said for all tenants, and by tenants.{tenant[1]} for itself ({self._origins[tenant]})",
                    where=f"{origin}: {'.'.join(map(str, place))}",
                    hint="say it in the file alone, or leave it out of [[tenants]]",
                )
                for tenant in own
            ]
        return found

    def result(self) -> tuple[Loaded | None, tuple[WeighbridgeError, ...]]:
        self._faults += self._contradicted()
        try:
            settings = Settings.model_validate(self._values)
        except ValidationError as error:
            return None, (*self._faults, *map(self._fault, error.errors(include_url=False)))
        if self._faults:
            return None, tuple(self._faults)
        return Loaded(settings, self._origins), ()

    def _fault(self, error: Any) -> WeighbridgeError:  # noqa: ANN401 - pydantic's
        place: tuple[str | int, ...] = error["loc"]
        message: str = error["msg"].removeprefix("Value error, ")
        if not place and ": " in message:
            named, _, message = message.partition(": ")
            place = tuple(named.split("."))
        where = self._where(place)
        message = message[:1].lower() + message[1:].replace("a valid tuple", "a list")
        if error["type"] == "extra_forbidden":
            return _unknown_key(place, where)
        code = (
            Code.FIELD_TYPE
            if error["type"].endswith("_type") or message.startswith("must be a text")
            else Code.FIELD_RANGE
        )
        got = error.get("input")
        if isinstance(got, str) and (place[:2] in _UNTOLD or _USER in got):
            message = _without(got, message)
            got = None
        elif isinstance(got, str) and code is Code.FIELD_TYPE:
            got = f'"{got}"'  # a number in quotation marks is none
        return MalformedEvidence(
            code, message, where=where, got=got if isinstance(got, str | int | float) else None, hint=_HINT
        )

    def _where(self, place: tuple[str | int, ...]) -> str:
        dotted = ".".join(map(str, place))
        for size in range(len(place), 0, -1):
            if (origin := self._origins.get(place[:size])) is not None:
                return f"{origin}: {dotted}"
        return dotted


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(CONFIG_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EnvironmentFault(Code.FILE_UNREADABLE, reason.lower(), where=str(file)) from error
    if len(data) > CONFIG_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "file is too large", where=str(file), expected=f"<= {CONFIG_MAX} bytes")
    return data


def _parsed(text: str) -> dict[str, object]:
    """The document; errors are told by the caller."""
    if any(len(line) > _LINE_MAX for line in text.split("\n")):
        raise ValueError(f"a line of more than {_LINE_MAX} characters")
    return tomllib.loads(text)


def _unknown_key(place: tuple[str | int, ...], where: str) -> MalformedEvidence:
    name = str(place[-1])
    match place:
        case (str(),):
            known, whose = list(Settings.model_fields), "sections"
        case (str(section), str()) if section in Settings.model_fields:
            known, whose = [key for own, key in keys_of() if own == section], f"keys of [{section}]"
        case _:
            known, whose = list(Tenant.model_fields), "keys of [[tenants]]"
    elsewhere = [".".join(key) for key in keys_of() if key[1] == name]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=_NEAR) or elsewhere[:1]
    hint = f"did you mean {near[0]}?" if near else f"the {whose} are {', '.join(known)}"
    return MalformedEvidence(Code.FIELD_UNKNOWN, "there is no such key", where=where, hint=hint)


def _unknown_variable(name: str, known: Sequence[str]) -> MalformedEvidence | None:
    """The refusal of a variable that looks like a setting and is none; ``None``: it is none of our business."""
    if _KUBERNETES.fullmatch(name):
        return None
    sections = [f"{PREFIX}{section.upper()}_" for section in Settings.model_fields]
    short = name.removeprefix(PREFIX)
    near = difflib.get_close_matches(short, [one.removeprefix(PREFIX) for one in known], n=1, cutoff=_NEARER)
    if not near and not any(name.startswith(section) for section in sections):
        return None
    if name.startswith(f"{PREFIX}{_TENANTS.upper()}_"):
        hint = "tenants stand in the file"
    else:
        hint = f"did you mean {PREFIX}{near[0]}?" if near else _HINT
    return MalformedEvidence(Code.FIELD_UNKNOWN, "no setting has this name", where=name, hint=hint)


def _without(value: str, message: str) -> str:
    """The message without ``value``, nor any part of it that names a user."""
    rest = message.replace(value, "…") if value else message
    return " ".join("…" if _USER in word else word for word in rest.split(" "))


def _from_text(text: str, field: FieldInfo, name: str) -> object:
    """The value that an environment variable says."""
    shape = about(field).shape
    if not (shape.startswith("list") or shape in {"number", "seconds", "true or false"}):
        return text
    try:
        document, cause = _parsed(f"value = {text}"), None
    except (ValueError, RecursionError) as error:
        document, cause = {}, error
    if set(document) != {"value"}:
        such = {"number": "4", "seconds": "2.5", "true or false": "true"}.get(shape, '["a", "b"]')
        raise MalformedEvidence(
            Code.NOT_TOML,
            f"not a {shape} as TOML has it",
            where=name,
            got=None if _USER in text else text,
            hint=f"such as {name}='{such}'",
        ) from cause
    return document["value"]


def _resolved(value: object, field: FieldInfo, base: Path) -> object:
    """``value`` of a file in the directory ``base``, with the paths in it made whole."""
    relative = about(field).relative
    if relative is None:
        return value
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [_joined(item, relative, base) for item in items]
    return _joined(value, relative, base)


def _joined(value: object, relative: Relative, base: Path) -> object:
    if not isinstance(value, str) or not value:
        return value
    match relative:
        case Relative.PATH:
            return str(base / value)
        case Relative.POLICY:
            return value if policy_set.shipped_name(value) is not None else str(base / value)
        case Relative.ANCHORS:
            return value if value == "shipped" else str(base / value)
        case Relative.FOREIGN:
            profile, colon, path = value.partition(":")
            return f"{profile}:{base / path}" if colon and path else value
        case Relative.ENGINE:
            head, cross, rest = value.rpartition("cross:")
            return head + cross + ",".join(_engine(part, base) for part in rest.split(","))


def _engine(name: str, base: Path) -> str:
    kind, colon, place = name.partition(":")
    is_path = kind == "opa-go" or "/" in place
    return f"{kind}:{base / place}" if colon and place and is_path else name
