"""What arguments may look like. One that does not is a mistake in the command: exit 2, before anything is touched."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.proto import hosts, limits, note, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_files import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FIRST",
    "LAST",
    "date",
    "decimal",
    "digest",
    "host",
    "listen",
    "name",
    "number",
    "origin",
    "output",
    "reason",
    "session",
    "tenant",
    "time",
]

_T = TypeVar("_T")
_SESSION_SIZE: Final = 16
_REASON_MAX: Final = 1000
_TENANT_MAX: Final = 64
# Nanoseconds since 1970 have 63 bits.
FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2261, 12, 31, 23, 59, 59, tzinfo=UTC)


def time(text: str) -> datetime:
    """``now``, or a UTC time such as 2026-01-31T12:00:00Z."""
    if text == "now":
        return datetime.now(UTC)
    return _checked(lambda: strict.time_decode(text, what="the time"))


def session(text: str) -> bytes:
    """A session's identifier: 32 hexadecimal digits."""
    return _checked(lambda: strict.hex_decode(text.lower(), what="the session", size=_SESSION_SIZE))


def digest(text: str) -> bytes:
    """A digest, or the identity of a key or device, which is one: 64 hexadecimal digits."""
    return _checked(lambda: strict.hex_decode(text.lower(), what="the digest", size=limits.DIGEST_SIZE))


def name(text: str) -> str:
    """An owner's or an issuer's name: printable characters."""
    return _checked(lambda: _name(text))


def tenant(text: str) -> str:
    """A tenant's name: printable characters."""
    found = name(text)
    if len(found.encode()) > _TENANT_MAX:
        raise argparse.ArgumentTypeError(f"a tenant's name has at most {_TENANT_MAX} bytes")
    return found


def number(text: str) -> int:
    """Of a signed set: a positive integer."""
    found = decimal(text, what="the number", limit=2**53 - 1)
    if found == 0:
        raise argparse.ArgumentTypeError("numbers begin with 1")
    return found


def decimal(text: str, *, what: str, limit: int) -> int:
    """A number from 0 to ``limit``."""
    return _checked(lambda: strict.decimal(text, what=what, limit=limit))


def date(text: str) -> datetime:
    """A time that a signed set can say."""
    at = time(text)
    if not FIRST <= at <= LAST:
        raise argparse.ArgumentTypeError(f"not between {FIRST:%Y} and {LAST:%Y}")
    return at


def listen(text: str) -> tuple[str, int]:
    """``HOST:PORT``."""
    return _checked(lambda: hosts.host_port(text, what="the address"))


def host(text: str) -> str:
    """A DNS name or an IP address."""
    return _checked(lambda: hosts.host_name(text, what="the host"))


def origin(text: str) -> str:
    """A ledger's name."""
    if not note.is_key_name(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a ledger's name: 1 to 255 ASCII characters without space and plus, "
            "such as ledger.example/windows"
        )
    return text


def output(text: str) -> Path:
    """A file to write."""
    if text == "-":
        raise argparse.ArgumentTypeError("name a file: standard output is for the summary")
    return Path(text)


def reason(text: str) -> str:
    """Why somebody does what stays on record."""
    if not text.strip() or len(text) > _REASON_MAX:
        raise argparse.ArgumentTypeError(f"say why, in 1 to {_REASON_MAX} characters")
    return text


def _name(text: str) -> str:
    check_name(text, where="NAME")
    if len(text.encode()) > limits.NAME_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, f"a name has at most {limits.NAME_MAX} bytes")
    return text


def _checked(parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except MalformedEvidence as error:
        expected = "" if error.expected is None else f", expected {error.expected}"
        got = "" if error.got is None else f", got {error.got!r}"
        raise argparse.ArgumentTypeError(f"{error.message}{expected}{got}") from error
