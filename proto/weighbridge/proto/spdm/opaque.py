"""NVIDIA's opaque data inside an SPDM measurement report: which driver, VBIOS, board and mode the device reports.

Two formats are in the field:

- ``tlv``: entries ``type u16, size u16, data``, little-endian (drivers up to CUDA 13.4);
- ``NVDAOD``: the magic ``NVDAOD``, profile u16 (must be 0), version ``major, minor, patch, pad``, then entries
  ``type u16, value type u16, size u16, data`` (CUDA 13.5 and later). A major version above 2 is refused.

Unknown types are kept. A type may occur once. Whether a value means what its name says depends on the device: on a
GPU type 6 holds eight bytes, on an NVSwitch text, and type 22 there the switch's own PDI; so values stay bytes here and
are read by the report's accessors and by the verifier.

>>> parse(encode_tlv([(3, b"545.00")]), where="example").get(OpaqueType.DRIVER_VERSION)
b'545.00'
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final, Literal

from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["OpaqueData", "OpaqueField", "OpaqueFormat", "OpaqueType", "encode_nvdaod", "encode_tlv", "parse"]

OpaqueFormat = Literal["tlv", "NVDAOD"]

_MAGIC: Final = b"NVDAOD"
_PREAMBLE_SIZE: Final = 12
_MAJOR_MAX: Final = 2
_TLV_HEADER: Final = 4
_NVDAOD_HEADER: Final = 6
_FIELDS_MAX: Final = 256
# Data that are remembered, each at most as long as a report.
_KNOWN_MAX: Final = 256


class OpaqueType(IntEnum):
    """Type numbers with the names that NVIDIA gives them."""

    CERT_ISSUER_NAME = 1
    CERT_AUTHORITY_KEY_IDENTIFIER = 2
    DRIVER_VERSION = 3
    GPU_INFO = 4
    SKU = 5
    VBIOS_VERSION = 6
    MANUFACTURER_ID = 7
    TAMPER_DETECTION = 8
    SMC = 9
    VPR = 10
    NVDEC0_STATUS = 11
    MSRSCNT = 12
    CPRINFO = 13
    BOARD_ID = 14
    CHIP_SKU = 15
    CHIP_SKU_MOD = 16
    PROJECT = 17
    PROJECT_SKU = 18
    PROJECT_SKU_MOD = 19
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    SWITCH_PDI = 22
    FLOORSWEPT_PORTS = 23
    POSITION_ID = 24
    LOCK_SWITCH_STATUS = 25
    SWITCH_GPU_PDIS = 26
    GPU_LINK_CONN = 32
    SYS_ENABLE_STATUS = 33
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36
    FSP_UCODE_SVN = 37
    NVLE_STATUS = 38
    INVALID = 255


_NAMES: Final[dict[int, str]] = {member.value: member.name for member in OpaqueType}


@dataclass(frozen=True, slots=True)
class OpaqueField:
    """One entry. ``kind`` is the DMTF value type of an ``NVDAOD`` entry and ``None`` in the older format."""

    type: int
    kind: int | None
    value: bytes

    @property
    def name(self) -> str:
        """NVIDIA's name of the type, or ``TYPE_n`` for one that has none here."""
        return _NAMES.get(self.type, f"TYPE_{self.type}")

    @property
    def is_named(self) -> bool:
        """Whether the type has a name here."""
        return self.type in _NAMES


@dataclass(frozen=True, slots=True)
class OpaqueData:
    """All entries in the order of the report. Says nothing of truth before the report's signature is verified."""

    format: OpaqueFormat
    version: tuple[int, int, int] | None
    fields: tuple[OpaqueField, ...]
    _values: dict[int, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find values by their types once: no type comes twice, and the same data are asked for every report."""
        object.__setattr__(self, "_values", {item.type: item.value for item in self.fields})

    def get(self, kind: OpaqueType) -> bytes | None:
        """The value of type ``kind``, or ``None`` when the report has none."""
        return self._values.get(kind)


@lru_cache(maxsize=_KNOWN_MAX)
def parse(data: bytes, *, where: str) -> OpaqueData:
    """Parse opaque data, all of it; the same object for the same bytes, which a device repeats in each report.

    Raises:
        MalformedEvidence: ``TRUNCATED``, ``DUPLICATE_KEY``, ``VERSION_UNSUPPORTED`` or ``TOO_LARGE``.
    """
    if not data.startswith(_MAGIC):
        return OpaqueData("tlv", None, _entries(data, where, header=_TLV_HEADER, start=0))
    if len(data) < _PREAMBLE_SIZE:
        raise MalformedEvidence(Code.TRUNCATED, "opaque data ends inside its preamble", where=where, got=data)
    profile = int.from_bytes(data[6:8], "little")
    major, minor, patch = data[8], data[9], data[10]
    if profile or major > _MAJOR_MAX:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED,
            "unknown profile or major version of opaque data",
            where=where,
            expected=f"profile 0, version <= {_MAJOR_MAX}",
            got=f"profile {profile}, version {major}.{minor}.{patch}",
        )
    return OpaqueData(
        "NVDAOD", (major, minor, patch), _entries(data, where, header=_NVDAOD_HEADER, start=_PREAMBLE_SIZE)
    )


def encode_tlv(fields: list[tuple[int, bytes]]) -> bytes:
    """The older format's bytes: for the emulated device and for tests."""
    return b"".join(number.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value for number, value in fields)


def encode_nvdaod(fields: list[tuple[int, int, bytes]]) -> bytes:
    """The newer format's bytes, version 2.0.0, from type, value type and value: for emulated devices and for tests."""
    entries = (
        b"".join(part.to_bytes(2, "little") for part in (number, kind, len(value))) + value
        for number, kind, value in fields
    )
    return _MAGIC + bytes([0, 0, _MAJOR_MAX, 0, 0, 0]) + b"".join(entries)


def _entries(data: bytes, where: str, *, header: int, start: int) -> tuple[OpaqueField, ...]:
    fields: list[OpaqueField] = []
    seen: set[int] = set()
    offset = start
    while offset < len(data):
        place = f"{where}[{offset}]"
        body = offset + header
        if body > len(data):
            raise MalformedEvidence(Code.TRUNCATED, "opaque entry ends inside its header", where=place)
        number = int.from_bytes(data[offset : offset + 2], "little")
        kind = int.from_bytes(data[offset + 2 : offset + 4], "little") if header == _NVDAOD_HEADER else None
        size = int.from_bytes(data[body - 2 : body], "little")
        if body + size > len(data):
            raise MalformedEvidence(
                Code.TRUNCATED,
                "opaque entry is longer than what is left",
                where=place,
                expected=size,
                got=len(data) - body,
            )
        if number in seen:
            raise MalformedEvidence(Code.DUPLICATE_KEY, "opaque data repeats a type", where=place, got=number)
        if len(fields) == _FIELDS_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE, "too many opaque entries", where=place, expected=f"<= {_FIELDS_MAX}"
            )
        seen.add(number)
        fields.append(OpaqueField(number, kind, data[body : body + size]))
        offset = body + size
    return tuple(fields)
