"""One SPDM 1.1 measurement report: the GET_MEASUREMENTS request followed by the MEASUREMENTS response (DSP0274 1.1).

======== ==== =====================================================================================
offset   size content, little-endian
======== ==== =====================================================================================
0        4    request: version 0x11, GET_MEASUREMENTS 0xE0, signature requested 0x01, all blocks 0xFF
4        32   **nonce** of the requester
36       1    slot
37       4    response: version 0x11, MEASUREMENTS 0x60, 0, 0
41       1    number of blocks
42       3    length L of the measurement record
45       L    blocks: index u8, specification 0x01, size u16 = n + 3, type u8, n u16, value
45+L     32   nonce of the responder
77+L     2    length n of the opaque data
79+L     n    opaque data
79+L+n   96   ECDSA P-384 signature over everything before it, r then s, big-endian
======== ==== =====================================================================================

The signature stands right after the opaque data. Whatever follows it is signed by nobody: it is kept in
:attr:`Report.trailing`, hashed by nothing, and refused where a report decides something.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spdm import opaque
from weighbridge.proto.spdm.opaque import OpaqueData, OpaqueType

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FWID_SIZE", "SIGNATURE_SIZE", "MeasurementBlock", "Measurements", "Report", "Status", "parse"]

SIGNATURE_SIZE: Final = 96
FWID_SIZE: Final = 48
_HEADER_SIZE: Final = 45
_RESPONSE_OFFSET: Final = 37
_REQUEST: Final = bytes([0x11, 0xE0, 0x01, 0xFF])
_RESPONSE: Final = bytes([0x11, 0x60, 0x00, 0x00])
_SLOT_MAX: Final = 7
# Index, specification, size of what follows, type, size of the value; the last two count in the first size.
_BLOCK: Final = struct.Struct("<BBHBH")
_VALUE_HEADER: Final = 3
# Records that are remembered, each at most as long as a report and of 256 blocks.
_RECORDS_MAX: Final = 256
# Texts that are remembered, each at most as long as a report's opaque data.
_TEXTS_MAX: Final = 256
_DMTF: Final = 0x01
_CLAUSE: Final = "DSP0274 1.1, MEASUREMENTS response"

# GPU_INFO's first word: the chip's architecture and implementation.
_CHIPS: Final = {0x180: "GH100", 0x1A0: "GB100"}
_FEATURES: Final = {0: "SPT", 1: "MPT", 2: "PPCIE"}
# A GPU's version and chip numbers are two 32-bit words; an NVSwitch has other sizes under the same types.
_WORDS: Final = 8

Status = Literal["disabled", "enabled", "unrecognised"]


@dataclass(frozen=True, slots=True)
class MeasurementBlock:
    """One measurement: ``index`` from 1 as in SPDM (reference values count from 0), ``type`` DMTF's value type."""

    index: int
    type: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Measurements:
    """A measurement record, parsed. Two are the same if their bytes are: a report's are the same object then.

    Attributes:
        record: the exact bytes.
        blocks: indices strictly ascending.
        digest: SHA-256 over the bytes.
        values: the blocks' values by index, counted from 0 as manifests do.
    """

    record: bytes
    blocks: tuple[MeasurementBlock, ...] = field(compare=False)
    digest: bytes = field(compare=False)
    values: Mapping[int, bytes] = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A well-formed report. Every field is claimed until the signature over :attr:`signed` is verified.

    What the signature covers is kept in three pieces: of the record, by far the largest, all reports have the same
    object that have the same bytes (:func:`parse`), and sessions keep their reports.

    Attributes:
        head: the bytes before the record, from offset 0.
        tail: the bytes between the record and the signature.
        signature: r then s, big-endian, 96 bytes.
        trailing: what follows the signature; unsigned.
        slot: the certificate slot named in the request.
        measurements: the measurement record.
        responder_nonce: 32 bytes chosen by the device.
        opaque: the vendor's data.
    """

    head: bytes
    tail: bytes
    signature: bytes
    trailing: bytes
    slot: int
    measurements: Measurements
    responder_nonce: bytes
    opaque: OpaqueData

    @property
    def record(self) -> bytes:
        """The measurement record's exact bytes."""
        return self.measurements.record

    @property
    def blocks(self) -> tuple[MeasurementBlock, ...]:
        """The record, parsed; indices strictly ascending."""
        return self.measurements.blocks

    @property
    def signed(self) -> bytes:
        """The exact bytes that the signature covers, from offset 0."""
        return self.head + self.record + self.tail

    @property
    def raw(self) -> bytes:
        """The bytes that were parsed."""
        return self.signed + self.signature + self.trailing

    @property
    def nonce(self) -> bytes:
        """The requester's nonce, from the signed bytes [4:36]; no other copy of it counts."""
        return self.head[4:36]

    @property
    def measurements_digest(self) -> bytes:
        """SHA-256 over the measurement record: one reference value for all blocks while there is no RIM."""
        return self.measurements.digest

    @property
    def driver_version(self) -> str | None:
        """Such as ``550.90.07``."""
        return self._text(OpaqueType.DRIVER_VERSION)

    @property
    def vbios_version(self) -> str | None:
        """Such as ``96.00.9F.00.01``: on a GPU two words, of which the second's lowest byte comes last."""
        value = self.opaque.get(OpaqueType.VBIOS_VERSION)
        if value is None or len(value) != _WORDS:
            return self._text(OpaqueType.VBIOS_VERSION)
        return _vbios(value)

    @property
    def chip(self) -> str | None:
        """Such as ``GH100``; ``None`` for a device that is not known here. An H200 is a GH100 too."""
        named = self._text(OpaqueType.CHIP_INFO)
        if named is not None:
            return named
        info = self.opaque.get(OpaqueType.GPU_INFO)
        return _CHIPS.get(int.from_bytes(info, "little")) if info is not None and len(info) == _WORDS else None

    @property
    def project(self) -> str | None:
        """The board's project, such as ``1010`` or ``G520``."""
        return self._text(OpaqueType.PROJECT)

    @property
    def project_sku(self) -> str | None:
        """Such as ``0200``."""
        return self._text(OpaqueType.PROJECT_SKU)

    @property
    def chip_sku(self) -> str | None:
        """Such as ``882``."""
        return self._text(OpaqueType.CHIP_SKU)

    @property
    def fwid(self) -> bytes | None:
        """Digest of the firmware that made the attestation key, 48 bytes if well-formed; old drivers report none."""
        return self.opaque.get(OpaqueType.FWID)

    @property
    def protected_pcie(self) -> Status | None:
        """Whether the GPU says it is in protected-PCIe mode. No field of a report says that confidential mode is on."""
        return self._status(OpaqueType.PROTECTED_PCIE_STATUS)

    @property
    def nvdec0(self) -> Status | None:
        """Whether the video decoder is enabled; while disabled, RIM index 35 is not compared."""
        return self._status(OpaqueType.NVDEC0_STATUS)

    @property
    def feature(self) -> str | None:
        """``SPT`` (single GPU pass-through), ``MPT`` (several) or ``PPCIE``; newer drivers only."""
        value = self.opaque.get(OpaqueType.FEATURE_FLAG)
        if value is None:
            return None
        return _FEATURES.get(int.from_bytes(value, "little"), f"0x{value.hex()}")

    def _text(self, kind: OpaqueType) -> str | None:
        value = self.opaque.get(kind)
        return None if value is None else _shown(value)

    def _status(self, kind: OpaqueType) -> Status | None:
        match self.opaque.get(kind):
            case None:
                return None
            case b"\x55":
                return "disabled"
            case b"\xaa":
                return "enabled"
            case _:
                return "unrecognised"


def parse(data: bytes) -> Report:
    """Parse a report of an NVIDIA GPU or switch.

    Not checked: signature, nonce, whose device it is, whether any value is the right one. Trailing bytes are kept,
    not refused: see :attr:`Report.trailing`.

    Args:
        data: untrusted.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``TRUNCATED``, ``GPU_REPORT_MALFORMED`` or a code of
            :func:`weighbridge.proto.spdm.opaque.parse`.
    """
    if len(data) > limits.GPU_REPORT_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "report is too large",
            where="report",
            expected=f"<= {limits.GPU_REPORT_MAX} bytes",
            got=f"{len(data)} bytes",
        )
    header = _take(data, 0, _HEADER_SIZE)
    _check_header(header)
    measurements = _measured(_take(data, _HEADER_SIZE, int.from_bytes(header[42:45], "little")), header[41])
    offset = _HEADER_SIZE + len(measurements.record)
    responder_nonce = _take(data, offset, 32)
    opaque_size = int.from_bytes(_take(data, offset + 32, 2), "little")
    opaque_data = _take(data, offset + 34, opaque_size)
    end = offset + 34 + opaque_size
    return Report(
        head=header,
        tail=data[offset:end],
        signature=_take(data, end, SIGNATURE_SIZE),
        trailing=data[end + SIGNATURE_SIZE :],
        slot=header[36],
        measurements=measurements,
        responder_nonce=responder_nonce,
        opaque=opaque.parse(opaque_data, where="report.opaque"),
    )


@lru_cache(maxsize=_TEXTS_MAX)
def _shown(value: bytes) -> str:
    """A field as text, or its bytes in hex where it is none. Devices of one kind say the same."""
    trimmed = value.rstrip(b"\0 ")
    printable = trimmed.isascii() and trimmed.decode("ascii").isprintable()
    return trimmed.decode("ascii") if trimmed and printable else f"0x{value.hex()}"


@lru_cache(maxsize=_TEXTS_MAX)
def _vbios(value: bytes) -> str:
    return ".".join(f"{octet:02X}" for octet in (value[3], value[2], value[1], value[0], value[4]))


def _take(data: bytes, offset: int, size: int) -> bytes:
    piece = data[offset : offset + size]
    if len(piece) != size:
        raise MalformedEvidence(
            Code.TRUNCATED,
            "report ends inside a field",
            where=f"report[{offset}..{offset + size}]",
            expected=f"{size} bytes",
            got=f"{len(piece)} bytes",
        )
    return piece


def _check_header(header: bytes) -> None:
    if header[:4] != _REQUEST:
        raise _malformed(
            "not a request for all measurements, signed", "report[0..4]", expected=_REQUEST, got=header[:4]
        )
    if header[36] > _SLOT_MAX:
        raise _malformed("no such certificate slot", "report[36]", expected=f"<= {_SLOT_MAX}", got=header[36])
    if header[_RESPONSE_OFFSET:41] != _RESPONSE:
        raise _malformed("not a response with measurements", "report[37..41]", expected=_RESPONSE, got=header[37:41])


@lru_cache(maxsize=_RECORDS_MAX)
def _measured(record: bytes, count: int) -> Measurements:
    """What the record says, the same object for the same bytes.

    A device measures the same in report after report, and so do others of its firmware; sessions keep their reports.
    """
    blocks = _blocks(record, count)
    return Measurements(
        record, blocks, sha256(record), MappingProxyType({item.index - 1: item.value for item in blocks})
    )


def _blocks(record: bytes, count: int) -> tuple[MeasurementBlock, ...]:
    blocks: list[MeasurementBlock] = []
    end, offset, before = len(record), 0, -1
    while offset < end:
        start = offset + _BLOCK.size
        if start > end:
            raise _malformed_block("ends inside its header", len(blocks), expected=_BLOCK.size, got=end - offset)
        index, specification, outer, kind, size = _BLOCK.unpack(record[offset:start])
        offset = start + size
        # One comparison for what every block of every device satisfies; which one failed is worked out below.
        if specification != _DMTF or outer != size + _VALUE_HEADER or offset > end or index <= before:
            raise _block_fault(len(blocks), (index, before), specification, (outer, size))
        before = index
        blocks.append(MeasurementBlock(index, kind, record[start:offset]))
    if len(blocks) != count:
        raise _malformed("wrong number of measurement blocks", "report[41]", expected=count, got=len(blocks))
    return tuple(blocks)


def _block_fault(
    number: int, indices: tuple[int, int], specification: int, sizes: tuple[int, int]
) -> MalformedEvidence:
    index, before = indices
    if specification != _DMTF:
        return _malformed_block("has an unknown specification", number, expected=_DMTF, got=specification)
    if index <= before:
        return _malformed_block("does not ascend in its index", number, expected=f"> {before}", got=index)
    outer, size = sizes
    return _malformed_block("has sizes that disagree", number, expected=size + _VALUE_HEADER, got=outer)


def _malformed_block(message: str, number: int, *, expected: object, got: object) -> MalformedEvidence:
    return _malformed(f"measurement block {message}", f"report.block[{number}]", expected=expected, got=got)


def _malformed(message: str, where: str, *, expected: object = None, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(
        Code.GPU_REPORT_MALFORMED, message, where=where, expected=expected, got=got, clause=_CLAUSE
    )
