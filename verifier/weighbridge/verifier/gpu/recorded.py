"""Recorded GPU evidence from files, in the shapes in which NVIDIA and others ship it.

A report is raw SPDM bytes or their hexadecimal text; a chain is a PEM bundle, leaf first. The evidence of several
devices is the JSON that NVIDIA's tools write: ``[{"arch", "nonce", "evidence", "certificate"}, …]`` with the report and
the PEM bundle in base64, or what its service is sent: ``{"nonce", "arch", "evidence_list": […]}``. A place is a path,
``-`` for standard input, or ``ARCHIVE!MEMBER`` for a member of a zip file such as a wheel, so that data can be read out
of a package without installing it.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier import certs
from weighbridge.verifier.files import standard_input

__all__ = ["RecordedDevice", "load_bytes", "load_chain", "load_evidence", "load_report", "parse_evidence"]

# Two digits per byte, and white space.
_TEXT_MAX: Final = 4 * limits.GPU_REPORT_MAX
_BINARY_START: Final = b"\x11\xe0"
_WHITE: Final = b" \t\r\n"
_REPORT: Final = "A report begins with the bytes 11 e0, or is a text file that begins with these digits."
_ANSWER: Final = "weighbridge verify nras verifies such answers."
_JSON: Final = "Devices in NVIDIA's JSON are for weighbridge verify gpu, without --chain."
# A report and a chain per device, in base64 and the chain in PEM besides.
_EVIDENCE_MAX: Final = limits.GPUS_MAX * 2 * (limits.GPU_REPORT_MAX + 2 * limits.GPU_CHAIN_MAX)


@dataclass(frozen=True, slots=True)
class RecordedDevice:
    """One device's evidence in a file. Nothing is verified, nor is report or chain parsed yet.

    Attributes:
        report: as the device returned it.
        chain: DER, leaf first.
        claimed_arch: such as ``HOPPER`` or ``LS10``: the file's word; certificates say what it is.
        claimed_nonce: the file's word for what was asked; whoever verifies says what he asked for.
    """

    report: bytes
    chain: tuple[bytes, ...]
    claimed_arch: str | None
    claimed_nonce: bytes | None


def load_report(place: str) -> bytes:
    """The report's bytes at ``place``; not parsed yet.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``NOT_HEX``, ``TRUNCATED`` where there is nothing.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    data = load_bytes(place, limit=_TEXT_MAX)
    if not data.strip(_WHITE):
        raise MalformedEvidence(Code.TRUNCATED, "the file is empty", where=place, hint=_REPORT)
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
            hint=_JSON if data.lstrip(_WHITE)[:1] in (b"[", b"{") else _REPORT,
        ) from error


def load_chain(place: str) -> tuple[bytes, ...]:
    """The DER certificates of the PEM bundle at ``place``, in its order; not parsed yet.

    Raises:
        MalformedEvidence: see :func:`weighbridge.verifier.certs.pem_certificates`.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    data = load_bytes(place, limit=2 * limits.GPU_CHAIN_CERTS_MAX * limits.CERT_MAX)
    try:
        return certs.pem_certificates(data, what="chain")
    except MalformedEvidence as error:
        raise error.in_file(place, what="a chain", hint="name the PEM file with the device's certificates") from error


def load_evidence(place: str) -> tuple[RecordedDevice, ...]:
    """The devices in the JSON document at ``place``, in its order; at least one.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``FIELD_TYPE``, ``FIELD_RANGE``, ``FIELD_MISSING``, and what the decoders of
            JSON, base64, hexadecimal and PEM raise.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    return parse_evidence(load_bytes(place, limit=_EVIDENCE_MAX))


def parse_evidence(data: bytes) -> tuple[RecordedDevice, ...]:
    """As :func:`load_evidence`, from the document's bytes."""
    document = strict.json_decode(data, what="evidence", limit=_EVIDENCE_MAX)
    shared: dict[str, strict.JsonValue] = {}
    if isinstance(document, list) and document and isinstance(document[0], list) and document[0][:1] == ["JWT"]:
        raise MalformedEvidence(
            Code.FIELD_TYPE, "an answer of NVIDIA's attestation service", where="evidence[0]", hint=_ANSWER
        )
    if isinstance(document, dict):
        shared = {key: document[key] for key in ("arch", "nonce") if key in document}
        document = document.get("evidence_list")
    if not isinstance(document, list) or not 1 <= len(document) <= limits.GPUS_MAX:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not a list of devices", where="evidence", expected=f"1..{limits.GPUS_MAX} devices"
        )
    return tuple(_device(item, shared, f"evidence[{number}]") for number, item in enumerate(document))


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


def _device(item: strict.JsonValue, shared: dict[str, strict.JsonValue], where: str) -> RecordedDevice:
    if not isinstance(item, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "a device is not an object", where=where)
    fields = shared | item
    report = strict.base64_decode(_text(fields, "evidence", where), what=f"{where}.evidence")
    bundle = strict.base64_decode(_text(fields, "certificate", where), what=f"{where}.certificate")
    nonce = (
        strict.hex_decode(_text(fields, "nonce", where).lower(), what=f"{where}.nonce") if "nonce" in fields else None
    )
    return RecordedDevice(
        report=report,
        chain=certs.pem_certificates(bundle, what=f"{where}.certificate"),
        claimed_arch=_text(fields, "arch", where) if "arch" in fields else None,
        claimed_nonce=nonce,
    )


def _text(fields: dict[str, strict.JsonValue], name: str, where: str) -> str:
    if name not in fields:
        raise MalformedEvidence(Code.FIELD_MISSING, "a field is missing", where=f"{where}.{name}")
    value = fields[name]
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"{where}.{name}", expected="text")
    return value


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
