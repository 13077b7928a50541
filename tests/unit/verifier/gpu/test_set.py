"""Exactly the enrolled devices, each once."""

from __future__ import annotations

import pytest

from gpu_support import AT, NONCE, emulated
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.verifier.gpu import ChainCache, verify_gpus

DEVICES, BELIEVED = emulated(8)
STRANGERS, STRANGE = emulated(1)
EVIDENCE = [device.attest(NONCE) for device in DEVICES]
ENROLLED = frozenset(device.identity for device in DEVICES)


def refusal(evidence: list[GpuEvidence], expected: frozenset[bytes] | None = ENROLLED) -> Code:
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        verify_gpus(evidence, nonce=NONCE, anchors=BELIEVED, at=AT, expected=expected)
    return caught.value.code


@pytest.mark.parametrize("cache", [None, ChainCache()])
def test_all_of_them_in_any_order(cache: ChainCache | None) -> None:
    """A14: sorted by identity, whatever the order they came in."""
    for evidence in (EVIDENCE, EVIDENCE[::-1]):
        verified = verify_gpus(evidence, nonce=NONCE, anchors=BELIEVED, at=AT, expected=ENROLLED, cache=cache)
        assert [report.identity for report in verified] == sorted(ENROLLED)


def test_identities_are_learnt_at_enrolment() -> None:
    verified = verify_gpus(EVIDENCE, nonce=NONCE, anchors=BELIEVED, at=AT, expected=None)
    assert {report.identity for report in verified} == ENROLLED


@pytest.mark.parametrize("expected", [None, frozenset[bytes](), ENROLLED])
def test_no_evidence_at_all(expected: frozenset[bytes] | None) -> None:
    """A09, A10: an empty list satisfies no rule, not even one that expects nothing."""
    assert refusal([], expected) == Code.GPU_MISSING


def test_one_missing() -> None:
    """A09, A12: seven of eight."""
    assert refusal(EVIDENCE[1:]) == Code.GPU_MISSING


def test_one_too_many() -> None:
    """A08, A12: nine of eight, the ninth genuine and not enrolled."""
    assert refusal(EVIDENCE, frozenset(sorted(ENROLLED)[1:])) == Code.GPU_UNEXPECTED


def test_one_exchanged() -> None:
    """A13: swapped between windows for another genuine one."""
    assert refusal(EVIDENCE[:7], ENROLLED - {DEVICES[0].identity}) == Code.GPU_UNEXPECTED


@pytest.mark.parametrize("expected", [None, ENROLLED])
def test_one_counted_twice(expected: frozenset[bytes] | None) -> None:
    """A11: also with a fresh signature and a fresh responder nonce."""
    assert refusal([*EVIDENCE, EVIDENCE[0]], expected) == Code.GPU_DUPLICATE
    assert refusal([*EVIDENCE[:7], DEVICES[0].attest(NONCE)], expected) == Code.GPU_DUPLICATE


def test_one_of_another_vendor() -> None:
    """A08."""
    assert refusal([*EVIDENCE[:7], STRANGERS[0].attest(NONCE)]) == Code.CHAIN_UNTRUSTED


def test_one_with_another_devices_chain() -> None:
    """A25."""
    assert refusal([*EVIDENCE[:7], GpuEvidence(EVIDENCE[7].report, EVIDENCE[0].chain)]) == Code.GPU_SIG


def test_one_signed_for_another_nonce() -> None:
    """A06, A08: a genuine report of the right device, made for something else."""
    assert refusal([*EVIDENCE[:7], DEVICES[7].attest(bytes(range(32)))]) == Code.GPU_NONCE


def test_one_malformed() -> None:
    assert refusal([*EVIDENCE[:7], GpuEvidence(b"", EVIDENCE[7].chain)]) == Code.TRUNCATED
