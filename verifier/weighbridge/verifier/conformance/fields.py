"""How steps write bytes, digests and times, and how they are read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from weighbridge.proto import strict
from weighbridge.verifier.documents import Document

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Base64", "File", "Hex", "Time", "digits", "moment_of", "octets"]

Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class File(Document):
    """A file: its name, or its path among others with which it is handed out, and its bytes."""

    name: str
    content: Base64


def octets(text: str) -> bytes:
    """What ``text``, base64, stands for."""
    return strict.base64_decode(text, what="case")


def digits(text: str) -> bytes:
    """What ``text``, hexadecimal, stands for."""
    return strict.hex_decode(text, what="case")


def moment_of(text: str) -> datetime:
    """The time that ``text`` says."""
    return strict.time_decode(text, what="case")
