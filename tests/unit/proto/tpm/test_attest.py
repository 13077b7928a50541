"""TPMS_ATTEST: any bytes give a value or a refusal; each field is read where the TPM puts it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import SoftTpm
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tpm import attest
from weighbridge.proto.tpm.attest import CertifyInfo, ClockInfo, QuoteInfo
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection

SELECTION = PcrSelection.of(HashAlgorithm.SHA256, [0, 15])
TPM = SoftTpm()
QUOTE = TPM.quote(SELECTION, b"q" * 32).attest
TPM.create_telemetry_key(unique=bytes(32), boot=SELECTION)
CERTIFICATION, _ = TPM.certify_telemetry_key(b"c" * 32)


def test_reads_every_field_of_a_quote() -> None:
    fields = {"clock": 7, "reset_count": 2, "restart_count": 3, "safe": 0, "firmware": 9, "qualified_signer": b"s"}
    with TPM.forging(**fields, digest=b"d" * 32) as tpm:
        raw = tpm.quote(SELECTION, b"q" * 32).attest
    parsed = attest.parse(raw)
    assert parsed.raw == raw
    assert parsed.clock_info == ClockInfo(clock=7, reset_count=2, restart_count=3, safe=False)
    assert (parsed.firmware_version, parsed.qualified_signer, parsed.extra_data) == (9, b"s", b"q" * 32)
    assert parsed.attested == QuoteInfo(SELECTION, b"d" * 32)


def test_reads_a_certification() -> None:
    with TPM.forging(name=b"n" * 34, qualified_name=b"q" * 34) as tpm:
        raw, _ = tpm.certify_telemetry_key(b"c" * 32)
    assert attest.parse(raw).attested == CertifyInfo(b"n" * 34, b"q" * 34)


@given(st.binary(max_size=200) | st.binary(max_size=150).map(lambda tail: QUOTE[:6] + tail))
def test_parse_is_total(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert attest.parse(data).raw == data


@given(st.sampled_from([QUOTE, CERTIFICATION]), st.data())
def test_mutations_are_values_or_refused(valid: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(valid) - 1))
    byte = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedEvidence):
        attest.parse(valid[:place] + bytes([byte]) + valid[place + 1 :])


@pytest.mark.parametrize("valid", [QUOTE, CERTIFICATION], ids=["quote", "certify"])
def test_every_truncation_and_any_tail_is_refused(valid: bytes) -> None:
    """A28."""
    for end in range(len(valid)):
        with pytest.raises(MalformedEvidence):
            attest.parse(valid[:end])
    with pytest.raises(MalformedEvidence) as caught:
        attest.parse(valid + b"\0")
    assert caught.value.code is Code.TRAILING_BYTES


def test_wrong_magic() -> None:
    """A46: what a restricted key signs of other origin cannot start like this (CVE-2024-29038)."""
    with TPM.forging(magic=0xFF544348) as tpm, pytest.raises(MalformedEvidence) as caught:
        attest.parse(tpm.quote(SELECTION, b"q" * 32).attest)
    assert caught.value.code is Code.TPM_MAGIC


@pytest.mark.parametrize("kind", [0x8014, 0x8015, 0x8016, 0x8019, 0x801A, 0x801C, 0, 0xFFFF])
def test_other_attestations(kind: int) -> None:
    """A46: GetTime, NV_Certify, CertifyCreation, audit digests, and no attestation at all."""
    with TPM.forging(kind=kind) as tpm, pytest.raises(MalformedEvidence) as caught:
        attest.parse(tpm.quote(SELECTION, b"q" * 32).attest)
    assert caught.value.code is Code.TPM_ATTEST_TYPE


def test_safe_is_yes_or_no() -> None:
    with TPM.forging(safe=2) as tpm, pytest.raises(MalformedEvidence) as caught:
        attest.parse(tpm.quote(SELECTION, b"q" * 32).attest)
    assert caught.value.code is Code.TPM_STRUCTURE
