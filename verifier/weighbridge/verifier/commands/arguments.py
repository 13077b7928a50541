"""What arguments may look like. One that does not is a mistake in the command: exit 2, before anything is touched."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.proto import hosts, limits, note, strict
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["digest", "host", "listen", "origin", "output", "reason", "session", "time"]

_T = TypeVar("_T")
_SESSION_SIZE: Final = 16
_REASON_MAX: Final = 1000


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


def _checked(parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except MalformedEvidence as error:
        got = "" if error.got is None else f", got {error.got!r}"
        raise argparse.ArgumentTypeError(f"{error.message}{got}") from error
