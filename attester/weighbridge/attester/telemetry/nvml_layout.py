"""Numbers and structures of NVML that reading sensors needs (nvml.h of CUDA 13), and what its values mean.

Structures are made once and filled in by the driver again and again, so that a reading allocates nothing. Layouts are
checked against those of ``nvidia-ml-py`` by a test.
"""

from __future__ import annotations

import ctypes
import math
import struct
from typing import Final

from weighbridge.proto.telemetry import VALUE_MAX

__all__ = [
    "COUNTER_MODULUS",
    "GPM_METRICS",
    "MEMORY_TEMPERATURE",
    "PCIE_RX",
    "PCIE_TX",
    "POWER_AVERAGE",
    "POWER_INSTANT",
    "FIELD_PARTS",
    "FieldValue",
    "GpmMetrics",
    "GpmSupport",
    "fields_layout",
    "number_of",
    "share_ppm",
    "timestamp_ns",
    "usable",
]

MEMORY_TEMPERATURE: Final = 82
POWER_AVERAGE: Final = 185
POWER_INSTANT: Final = 186
PCIE_TX: Final = 197
PCIE_RX: Final = 198
# The PCIe counters are 32 bits wide, and begin anew behind that.
COUNTER_MODULUS: Final = 2**32
# nvmlGpmMetricId_t; values are percent.
GPM_METRICS: Final[dict[str, int]] = {
    "gpm_graphics": 1,
    "gpm_sm": 2,
    "gpm_sm_occupancy": 3,
    "gpm_integer": 4,
    "gpm_tensor": 5,
    "gpm_dram": 10,
    "gpm_fp64": 11,
    "gpm_fp32": 12,
    "gpm_fp16": 13,
}
# More than any version of nvml.h has; only as many are looked at as are asked for.
_GPM_METRICS_MAX: Final = 512
_PPM_PER_PERCENT: Final = 10_000
# What stands for "none": NVML_VALUE_NOT_AVAILABLE, and all ones in each width.
_SENTINELS: Final = frozenset({-1, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF})
# nvmlFieldValue_t: field, scope, timestamp in µs, latency, type, return code, value.
_FIELD: Final = "IIqqIiQ"
FIELD_PARTS: Final = len(_FIELD)
_DOUBLE, _SIGNED_64, _SIGNED_32, _UNSIGNED_16, _UNSIGNED_32 = 0, 4, 5, 6, 1


class FieldValue(ctypes.Structure):
    """nvmlFieldValue_t, whose union is read as 64 bits."""

    _fields_ = (
        ("fieldId", ctypes.c_uint32),
        ("scopeId", ctypes.c_uint32),
        ("timestamp", ctypes.c_int64),
        ("latencyUsec", ctypes.c_int64),
        ("valueType", ctypes.c_uint32),
        ("nvmlReturn", ctypes.c_int32),
        ("value", ctypes.c_uint64),
    )


class GpmSupport(ctypes.Structure):
    """nvmlGpmSupport_t, version 1."""

    _fields_ = (("version", ctypes.c_uint), ("isSupportedDevice", ctypes.c_uint))


class _GpmMetric(ctypes.Structure):
    """nvmlGpmMetric_t; the texts are the driver's."""

    _fields_ = (
        ("metricId", ctypes.c_uint),
        ("nvmlReturn", ctypes.c_int),
        ("value", ctypes.c_double),
        ("shortName", ctypes.c_void_p),
        ("longName", ctypes.c_void_p),
        ("unit", ctypes.c_void_p),
    )


class GpmMetrics(ctypes.Structure):
    """nvmlGpmMetricsGet_t, version 1; drivers look at no more metrics than ``numMetrics``."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("numMetrics", ctypes.c_uint),
        ("sample1", ctypes.c_void_p),
        ("sample2", ctypes.c_void_p),
        ("metrics", _GpmMetric * _GPM_METRICS_MAX),
    )


def fields_layout(count: int) -> struct.Struct:
    """What unpacks as many :class:`FieldValue` into :data:`FIELD_PARTS` numbers each."""
    return struct.Struct("=" + _FIELD * count)


def number_of(kind: int, bits: int) -> int | None:
    """The integer that 64 ``bits`` of NVML's type ``kind`` are (nvmlValueType_t); ``None`` for none that is usable."""
    if kind == _UNSIGNED_32:
        bits &= 0xFFFF_FFFF
    elif kind == _UNSIGNED_16:
        bits &= 0xFFFF
    elif kind == _SIGNED_32:
        bits = ctypes.c_int32(bits & 0xFFFF_FFFF).value
    elif kind == _SIGNED_64:
        bits = ctypes.c_int64(bits).value
    elif kind == _DOUBLE:
        (value,) = struct.unpack("=d", bits.to_bytes(8, "little"))
        if not math.isfinite(value) or abs(value) > VALUE_MAX:
            return None
        bits = round(value)
    return usable(bits)


def usable(value: int) -> int | None:
    """``value``, or ``None`` where it stands for "none" or is more than can be sent."""
    return None if value in _SENTINELS or abs(value) > VALUE_MAX else value


def timestamp_ns(microseconds: int | None) -> int | None:
    """The driver's timestamp in nanoseconds since 1970; ``None`` for none, and for what is no such time."""
    if microseconds is None or not 0 < microseconds * 1000 <= VALUE_MAX:
        return None
    return microseconds * 1000


def share_ppm(percent: float) -> int | None:
    """Parts per million; ``None`` for NaN, infinities, and what is no share (GPM gives them without any error)."""
    if not math.isfinite(percent) or not 0.0 <= percent <= 1000.0:  # noqa: PLR2004 - ten times all of it
        return None
    return round(percent * _PPM_PER_PERCENT)
