"""What values look like, and what is said of a key beside its value: the parts that :mod:`.model` is put together from.

Paths are resolved when a value gets here: :mod:`.layers` knows what they are relative to.
"""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

from weighbridge.proto import hosts
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.verifier.commands.engines import EngineChoice, engine
from weighbridge.verifier.ledger.s3 import S3Address

__all__ = [
    "NUMBER",
    "SECONDS",
    "About",
    "Listen",
    "PathOf",
    "Paths",
    "Place",
    "Relative",
    "Texts",
    "as_tuple",
    "checked_engine",
    "many_files",
    "number",
    "one_file",
    "public_url",
    "seconds",
    "some_anchors",
    "storage_url",
    "store_url",
]

_MANY: Final = 256
_TEXT_MAX: Final = 4096
_YEAR_S: Final = 366 * 24 * 3600.0


class Relative(Enum):
    """Which part of a text is a path, to be read from where the text stands."""

    PATH = "path"
    POLICY = "a shipped policy's name, or a path"
    ANCHORS = "shipped, or a path"
    FOREIGN = "PROFILE:path"
    ENGINE = "an engine's name, which may have a path in it"


@dataclass(frozen=True, slots=True)
class About:
    """What tables say of a key beside its default.

    Attributes:
        shape: its type, for people.
        option: of ``serve``, that says the same.
        relative: which part of it is a path.
    """

    shape: str
    option: str = ""
    relative: Relative | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it is written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def at(self, port: int) -> Place:
        """The same host with a port that was bound."""
        return replace(self, port=port)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _path(value: object) -> object:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a text: a path")  # noqa: TRY004 - pydantic's own way to refuse
    if not value or "\x00" in value:
        raise ValueError("must be a path, and not empty")
    return Path(value)


def _place(value: object) -> object:
    if isinstance(value, Place):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a text: HOST:PORT")  # noqa: TRY004 - as above
    try:
        return Place(*hosts.host_port(value, what="the address"))
    except MalformedEvidence as error:
        raise ValueError(f"{error.message}, such as 0.0.0.0:8443 or [::]:8443") from error


def checked_engine(value: object) -> object:
    """An engine by its name; whether it is there, nothing here knows."""
    if isinstance(value, EngineChoice):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a text: an engine's name")  # noqa: TRY004 - as above
    try:
        return engine(value)
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error)) from error


def as_tuple(value: object) -> object:
    """What TOML has as an array, as it is kept."""
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - the items are validated next


def some_anchors(value: object) -> object:
    """Anchors, of which there are always some: without any, nobody is believed."""
    if value in ([], ()):
        raise ValueError("no anchors, no attester: say `shipped`, or name a file")
    return value


def store_url(value: object) -> object:
    """A database without a secret in its name, and nothing else."""
    if not isinstance(value, str):
        raise ValueError("must be a text: postgresql://…")  # noqa: TRY004 - as above
    try:
        parts = urlsplit(value)
        password = parts.password
    except ValueError as error:
        raise ValueError("not a URL") from error
    if parts.scheme != "postgresql":
        raise ValueError("must begin with postgresql://; without a URL sessions are in STATE/sessions.sqlite")
    if password is not None or "password" in parts.query.lower():
        raise ValueError("a password does not belong here: use PGPASSFILE, PGPASSWORD or a service file")
    return value


def storage_url(value: object) -> object:
    """A bucket and a prefix in it."""
    if not isinstance(value, str):
        raise ValueError("must be s3://BUCKET or s3://BUCKET/PREFIX; without it the ledger is in STATE/ledger")  # noqa: TRY004 - as above
    return str(S3Address.parse(value))


def public_url(value: object) -> object:
    """Where others reach the HTTP listener, without a slash at the end."""
    if not isinstance(value, str):
        raise ValueError("must be a text: https://…")  # noqa: TRY004 - as above
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError("not a URL") from error
    if (
        parts.scheme not in {"https", "http"}
        or not parts.hostname
        or port == 0
        or parts.query
        or parts.fragment
        or "@" in value
    ):
        raise ValueError("must be http(s)://HOST[:PORT], without query and user")
    return value.rstrip("/")


PathOf = Annotated[Path, BeforeValidator(_path)]
_Text = Annotated[str, Field(min_length=1, max_length=_TEXT_MAX)]
Paths = Annotated[tuple[PathOf, ...], BeforeValidator(as_tuple), Field(max_length=_MANY)]
Texts = Annotated[tuple[_Text, ...], BeforeValidator(as_tuple), Field(max_length=_MANY)]
Listen = Annotated[Place, BeforeValidator(_place)]


def one_file(option: str = "") -> About:
    """Said of a key that is a path; ``option`` says the same on the command line."""
    return About("path", option, Relative.PATH)


def many_files(option: str = "") -> About:
    """Said of a key that is a list of paths."""
    return About("list of paths", option, Relative.PATH)


def number(what: str) -> FieldInfo:
    """A key that is a number from 1 on."""
    found: FieldInfo = Field(ge=1, le=2**53 - 1, description=what)
    return found


def seconds(what: str) -> FieldInfo:
    """A key that is a time."""
    found: FieldInfo = Field(gt=0, le=_YEAR_S, allow_inf_nan=False, description=what)
    return found


NUMBER: Final = About("number")
SECONDS: Final = About("seconds")
