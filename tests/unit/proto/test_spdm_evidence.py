"""GPU evidence as sent, and the digest that the quote covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import NONCE, emulated
from weighbridge.proto import cbor, limits
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spdm import evidence
from weighbridge.proto.spdm.evidence import GpuEvidence

DEVICES, _ = emulated(3)
SENT = [device.attest(NONCE) for device in DEVICES]

REFUSED: list[tuple[object, Code]] = [
    ({}, Code.FIELD_TYPE),
    ([b""], Code.FIELD_TYPE),
    ([[b"", [b"", b""], 0]], Code.TOO_LARGE),
    ([[b""]], Code.FIELD_RANGE),
    ([["", [b"", b""]]], Code.FIELD_TYPE),
    ([[b"", b""]], Code.FIELD_TYPE),
    ([[b"", [b"", 1]]], Code.FIELD_TYPE),
    ([[b"", []]], Code.FIELD_RANGE),
    ([[b"", [b""]]], Code.FIELD_RANGE),
    ([[b"", [b""] * 9]], Code.TOO_LARGE),
    ([[bytes(limits.GPU_REPORT_MAX + 1), [b"", b""]]], Code.TOO_LARGE),
    ([[b"", [b"", bytes(limits.GPU_CHAIN_MAX + 1)]]], Code.TOO_LARGE),
    ([[b"", [b"", b""]]] * (limits.GPUS_MAX + 1), Code.TOO_LARGE),
]


def refusal(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        evidence.parse(data)
    return caught.value.code


def test_round_trip() -> None:
    data = evidence.encode(SENT)
    assert list(evidence.parse(data)) == SENT
    assert evidence.encode(evidence.parse(data)) == data


def test_identity_is_the_brom_key() -> None:
    assert [item.claimed_identity for item in SENT] == [device.identity for device in DEVICES]


def test_binding_is_as_specified_and_ignores_order() -> None:
    """A14: devices are matched by identity, not by index."""
    rows = sorted(
        [device.identity, sha256(item.report), sha256(b"".join(item.chain))]
        for device, item in zip(DEVICES, SENT, strict=True)
    )
    assert evidence.gpus_binding(SENT) == D("gpus", [list(row) for row in rows])
    assert evidence.gpus_binding(SENT[::-1]) == evidence.gpus_binding(SENT)
    assert evidence.rows_binding(rows[::-1]) == evidence.gpus_binding(SENT)


def test_absent_none_and_fewer_differ() -> None:
    """A09, A79: leaving evidence out changes what the quote covers."""
    assert evidence.gpus_binding(None) == D("gpus", None)
    assert evidence.gpus_binding([]) == D("gpus", [])
    assert len({evidence.gpus_binding(item) for item in (None, [], SENT[:1], SENT[:2], SENT)}) == 5


@pytest.mark.parametrize(("value", "code"), REFUSED)
def test_refused(value: object, code: Code) -> None:
    """A70."""
    assert refusal(cbor.encode(value)) == code


def test_identity_of_junk_is_malformed() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        evidence.gpus_binding([GpuEvidence(b"", (b"", b"junk"))])
    assert caught.value.code == Code.CERT_MALFORMED


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_malformed(data: bytes) -> None:
    try:
        parsed = evidence.parse(data)
    except MalformedEvidence:
        return
    assert evidence.encode(parsed) == data


@given(st.integers(0, 4000), st.integers(1, 255))
def test_any_change_is_parsed_or_malformed(offset: int, change: int) -> None:
    data = bytearray(evidence.encode(SENT[:1]))
    data[offset] ^= change
    try:
        evidence.gpus_binding(evidence.parse(bytes(data)))
    except MalformedEvidence:
        return
