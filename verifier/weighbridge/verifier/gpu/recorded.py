"""Recorded GPU evidence from files, in the shapes in which NVIDIA and others ship it.

A report is raw SPDM bytes or their hexadecimal text; a chain is a PEM bundle, leaf first. A place is a path, ``-`` for
standard input, or ``ARCHIVE!MEMBER`` for a member of a zip file such as a wheel, so that data can be read out of a
package without installing it.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier import certs
from weighbridge.verifier.files import standard_input

__all__ = ["load_bytes", "load_chain", "load_report"]

# Two digits per byte, and white space.
_TEXT_MAX: Final = 4 * limits.GPU_REPORT_MAX
_BINARY_START: Final = b"\x11\xe0"
_WHITE: Final = b" \t\r\n"


def load_report(place: str) -> bytes:
    """The report's bytes at ``place``; not parsed yet.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``NOT_HEX``.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    data = load_bytes(place, limit=_TEXT_MAX)
    if data.startswith(_BINARY_START):
        return data
    try:
        text = data.translate(None, _WHITE).decode("ascii").lower()
        return strict.hex_decode(text, what="report")
    except (UnicodeDecodeError, MalformedEvidence) as error:
        raise MalformedEvidence(
            Code.NOT_HEX,
            "neither an SPDM report nor the hexadecimal text of one",
            where=place,
            got=data[:16],
            hint="A report begins with the bytes 11 e0, or is a text file that begins with these digits.",
        ) from error


def load_chain(place: str) -> tuple[bytes, ...]:
    """The DER certificates of the PEM bundle at ``place``, in its order; not parsed yet.

    Raises:
        MalformedEvidence: see :func:`weighbridge.verifier.certs.pem_certificates`.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    data = load_bytes(place, limit=2 * limits.GPU_CHAIN_CERTS_MAX * limits.CERT_MAX)
    return certs.pem_certificates(data, what="chain")


def load_bytes(place: str, *, limit: int) -> bytes:
    """What is at ``place``, at most ``limit`` bytes.

    Raises:
        MalformedEvidence: ``TOO_LARGE``.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    archive, mark, member = place.partition("!")
    try:
        if place == "-":
            return _bounded(standard_input(), limit, place)
        if mark and not Path(place).exists():
            with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
                return _bounded(file, limit, place)
        with Path(place).open("rb") as file:
            return _bounded(file, limit, place)
    except OSError as error:
        raise _unreadable(place, error.strerror or str(error)) from error
    # RuntimeError: the member is encrypted; NotImplementedError: compressed in a way that is not known here.
    except (KeyError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(place, str(error)) from error


def _bounded(file: IO[bytes], limit: int, place: str) -> bytes:
    data = file.read(limit + 1)
    if len(data) > limit:
        raise MalformedEvidence(Code.TOO_LARGE, "file is too large", where=place, expected=f"<= {limit} bytes")
    return data


def _unreadable(place: str, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.FILE_UNREADABLE,
        f"cannot be read: {reason}",
        where=place,
        hint="Name a file, - for standard input, or ARCHIVE!MEMBER for a member of a wheel or zip file.",
    )
