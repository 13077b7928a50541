"""Exactly the enrolled devices, each once."""

from __future__ import annotations

import pytest

from gpu_support import AT, NONCE, emulated, emulated_anchors
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric, EmulatedSwitch
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.verifier.gpu import GPUS, GPUS_AND_SWITCHES, ChainCache, Kind, verify_gpus

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


FABRIC = EmulatedFabric.create(gpus=2, switches=2)
WIRED = FABRIC.attest(NONCE)
FABRIC_BELIEVED = emulated_anchors(*FABRIC.vendors)


def fabric_refusal(evidence: list[GpuEvidence], accept: frozenset[Kind] = GPUS_AND_SWITCHES) -> Code:
    with pytest.raises(NotAuthentic) as caught:
        verify_gpus(evidence, nonce=NONCE, anchors=FABRIC_BELIEVED, at=AT, expected=None, accept=accept)
    return caught.value.code


def test_switches_beside_gpus() -> None:
    """Enrolled by identity as GPUs are, and told apart by their certificates."""
    expected = frozenset(FABRIC.identities())
    verified = verify_gpus(
        WIRED[::-1], nonce=NONCE, anchors=FABRIC_BELIEVED, at=AT, expected=expected, accept=GPUS_AND_SWITCHES
    )
    assert [report.identity for report in verified] == sorted(expected)
    kinds = {report.identity: report.kind for report in verified}
    assert {kinds[gpu.identity] for gpu in FABRIC.gpus} == {"gpu"}
    assert {kinds[switch.identity] for switch in FABRIC.switches} == {"switch"}


def test_switch_where_gpus_are_expected() -> None:
    """A15."""
    assert fabric_refusal(WIRED, GPUS) == Code.GPU_ARCH
    assert fabric_refusal(WIRED[2:]) == Code.GPU_MISSING


def test_switch_twice_or_left_out() -> None:
    """A11, A12."""
    assert fabric_refusal([*WIRED, WIRED[3]]) == Code.GPU_DUPLICATE
    assert fabric_refusal(WIRED[:3]) == Code.GPU_TOPOLOGY
    assert fabric_refusal(WIRED[1:]) == Code.GPU_TOPOLOGY


def test_switch_in_place_of_an_enrolled_gpu() -> None:
    """A13, A15: an identity is of one kind for good."""
    stranger = EmulatedSwitch.make(FABRIC.vendors[1]).attest(NONCE)
    with pytest.raises(NotAuthentic) as caught:
        verify_gpus(
            [*WIRED[1:], stranger],
            nonce=NONCE,
            anchors=FABRIC_BELIEVED,
            at=AT,
            expected=frozenset(FABRIC.identities()),
            accept=GPUS_AND_SWITCHES,
        )
    assert caught.value.code == Code.GPU_UNEXPECTED


def test_one_malformed() -> None:
    assert refusal([*EVIDENCE[:7], GpuEvidence(b"", EVIDENCE[7].chain)]) == Code.TRUNCATED
