"""What an enrolment proves, what it refuses, and what it finds: each comparison differs in either direction.

Openings and proofs are an honest host's, whose devices sign for real; what is demanded of it differs.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from unittest import mock

import pytest

from corpus.weights import OTHER
from fakes.boot_logs import STRICT_LINE, Boot
from fakes.rims import anchors_of
from fakes.soft_tpm import EMULATED
from support.forge import random_bytes
from support.world import LOG_PCR, NOON, FakeClock, Host, gpu_anchor, manifest, requirements
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric
from weighbridge.proto import measurement_log
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.verifier.enrolment import (
    Candidate,
    LedgeredLog,
    VerifiedEnrolment,
    check_ledgered,
    verify_opening,
    verify_proof,
)
from weighbridge.verifier.tpm.credential import make_credential
from weighbridge.verifier.tpm.provenance import Activation

if TYPE_CHECKING:
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.requirements import Requirements

SHA256: Final = HashAlgorithm.SHA256
SECRET: Final = random_bytes("the credential's secret")
LOW, HIGH = bytes(32), b"\xff" * 32
BOTH = pytest.mark.parametrize("value", [LOW, HIGH], ids=["low", "high"])
WITH_BOOT: Final = {
    "evidence": ["boot", "gpu", "telemetry", "tpm", "workload"],
    "pcrs": [*range(10), 11, 12, 13, 14, LOG_PCR],
    "boot_pcrs": [*range(10), 11, 12, 13, 14],
}


@dataclass(frozen=True)
class Stand:
    """A host that was sent a challenge, and by whose keys it is judged."""

    host: Host
    anchors: TrustAnchors
    wanted: Requirements
    candidate: Candidate
    challenge: EnrolmentChallenge

    @classmethod
    def of(cls, host: Host, wanted: Requirements, anchors: TrustAnchors) -> Stand:
        """What :class:`~weighbridge.verifier.enroller.Enroller` sends to ``host``."""
        candidate = verify_opening(
            host.opening(), requirements=wanted, anchors=anchors, collateral=Collateral(), peer=host.peer, at=NOON
        )
        assert isinstance(candidate.ak, Activation)
        credential = make_credential(candidate.ak.ek, candidate.ak.ak.public.name, SECRET)
        challenge = EnrolmentChallenge(
            session=random_bytes("session")[:16],
            challenge=random_bytes("challenge"),
            credential=(credential.id_object, credential.encrypted_secret),
            bank=wanted.bank,
            pcrs=wanted.pcrs,
            boot_pcrs=wanted.boot_pcrs,
            log_pcr=wanted.log_pcr,
            evidence=wanted.evidence,
        )
        return cls(host, anchors, wanted, candidate, challenge)

    @classmethod
    def make(cls, boot: Boot | None = None, **changes: object) -> Stand:
        """An honest host that was started often, and has loaded its model and then another one."""
        host = Host.make(manifest(), clock=FakeClock())
        host.tpm.reset_count = 5000
        host.boots(boot)
        host.log.load(host.model)
        host.log.load(OTHER)
        anchors = host.tpm.authority.anchors(EMULATED).with_anchors([gpu_anchor(host.gpus)])
        return cls.of(host, requirements(**changes), anchors)

    def proof(self) -> EnrolmentProof:
        return self.host.proof(self.challenge)

    def prove(self, proof: EnrolmentProof | None = None) -> VerifiedEnrolment:
        return verify_proof(
            self.proof() if proof is None else proof,
            candidate=self.candidate,
            secret=SECRET,
            challenge=self.challenge,
            requirements=self.wanted,
            anchors=self.anchors,
            at=NOON,
        )

    def refusal(self, proof: EnrolmentProof | None = None) -> NotAuthentic:
        with pytest.raises(NotAuthentic) as refusal:
            self.prove(proof)
        return refusal.value


@pytest.fixture(scope="module")
def stand() -> Stand:
    """Without logs of the boot."""
    return Stand.make()


def test_an_honest_host_is_enrolled(stand: Stand) -> None:
    found = stand.prove()
    assert (len(found.gpus), len(found.log.records), found.findings) == (2, 2, ())
    assert (found.boot, found.runtime, found.log_from_reset) == (None, None, True)
    assert set(found.manifests) == {stand.host.model.digest, OTHER.digest}


def test_only_a_proof_makes_what_is_verified(stand: Stand) -> None:
    found = stand.prove()
    with pytest.raises(TypeError, match="is made by"):
        replace(found, seal=mock.ANY)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(found)
    assert repr(found).endswith(", findings=())")


# -- for whom ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "others", "code", "argument"),
    [
        ("tenant", ("a", "z"), Code.WINDOW_TENANT, "--tenant"),
        ("audience", ("a", "z"), Code.WINDOW_AUDIENCE, "--audience"),
        ("peer", (LOW, HIGH), Code.WINDOW_PEER, ""),
    ],
)
def test_an_opening_is_for_this_verifier_whichever_way_it_differs(
    stand: Stand, field: str, others: tuple[object, object], code: Code, argument: str
) -> None:
    for other in others:
        opening = replace(stand.host.opening(), **{field: other})  # type: ignore[arg-type]  # a test names fields
        with pytest.raises(NotAuthentic) as refusal:
            verify_opening(
                opening,
                requirements=stand.wanted,
                anchors=stand.anchors,
                collateral=Collateral(),
                peer=stand.host.peer,
                at=NOON,
            )
        assert (refusal.value.code, refusal.value.where) == (code, f"opening.{field}")
        assert argument in refusal.value.hint


@BOTH
def test_a_proof_is_for_its_session(stand: Stand, value: bytes) -> None:
    assert stand.refusal(replace(stand.proof(), session=value[:16])).code is Code.WINDOW_SESSION


# -- how many devices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpus", "code"), [(1, Code.GPU_UNEXPECTED), (3, Code.GPU_MISSING)])
def test_as_many_gpus_as_are_demanded(stand: Stand, gpus: int, code: Code) -> None:
    error = replace(stand, wanted=requirements(gpus=gpus)).refusal()
    assert (error.code, error.expected, error.got) == (code, str(gpus), "2")


@pytest.mark.parametrize(
    ("gpus", "switches", "code"),
    [
        (2, 1, None),
        (3, 1, Code.GPU_MISSING),
        (1, 1, Code.GPU_UNEXPECTED),
        (2, 2, Code.GPU_MISSING),
    ],
)
def test_gpus_and_switches_are_counted_apart(stand: Stand, gpus: int, switches: int, code: Code | None) -> None:
    fabric = EmulatedFabric.create(gpus=2, switches=1)
    host = replace(stand.host, gpus=fabric)  # type: ignore[arg-type]  # another source of GPUs
    anchors = stand.anchors.with_anchors(anchors_of(*fabric.vendors).anchors)
    there = Stand.of(host, requirements(gpus=gpus, switches=switches), anchors)
    if code is None:
        assert sorted(gpu.kind for gpu in there.prove().gpus) == ["gpu", "gpu", "switch"]
    else:
        assert there.refusal().code is code


# -- what booted -------------------------------------------------------------------------------------------------------


def booted(*, systemd: bool) -> Boot:
    """A machine whose boot extends the measurement log's register, or leaves it as it was."""
    boot = Boot((SHA256, HashAlgorithm.SHA384))
    if systemd:
        boot.uki(STRICT_LINE)
    else:
        boot.grub()
    boot.kernel({"/usr/bin/python3": b"interpreter"})
    return boot


@pytest.mark.parametrize("systemd", [False, True])
def test_a_log_goes_on_from_what_the_boot_left(*, systemd: bool) -> None:
    """The kernel's list came along with the boot's logs; nobody demanded it, and nothing is said of it."""
    found = Stand.make(booted(systemd=systemd), **WITH_BOOT).prove()
    assert found.boot is not None
    assert (found.findings, found.runtime, found.log_from_reset) == ((), None, not systemd)


def test_the_logs_of_the_boot_are_where_they_are_demanded_and_nowhere_else(stand: Stand) -> None:
    assert stand.refusal(replace(stand.proof(), boot=BootLogs().encode())).code is Code.EVIDENCE_UNEXPECTED
    there = Stand.make(booted(systemd=False), **WITH_BOOT)
    assert there.refusal(replace(there.proof(), boot=None)).code is Code.EVIDENCE_ABSENT


def test_the_kernels_list_is_there_where_it_is_demanded() -> None:
    evidence = ["boot", "gpu", "runtime", "telemetry", "tpm", "workload"]
    there = Stand.make(booted(systemd=False), **{**WITH_BOOT, "evidence": evidence, "pcrs": list(range(16))})
    found = there.prove()
    assert found.runtime is not None
    assert found.runtime.count == 2
    logs = replace(BootLogs.parse(there.proof().boot or b""), runtime=None)
    error = there.refusal(replace(there.proof(), boot=logs.encode()))
    assert (error.code, "ima_policy" in error.hint) == (Code.EVIDENCE_ABSENT, True)


# -- what was loaded ---------------------------------------------------------------------------------------------------


@BOTH
def test_a_log_that_does_not_lead_to_the_quoted_register_is_a_finding(stand: Stand, value: bytes) -> None:
    registers = stand.host.tpm.pcrs[SHA256]
    honest, registers[LOG_PCR] = registers[LOG_PCR], value
    proof = stand.proof()
    registers[LOG_PCR] = honest
    found = stand.prove(proof)
    assert [(item.code, item.expected, item.got) for item in found.findings] == [
        (Code.BASELINE_UNEXPLAINED, value.hex(), found.log.register.hex())
    ]
    assert len(found.log.records) == 2


def test_a_log_with_a_gap_counts_for_nothing(stand: Stand) -> None:
    first = stand.host.log.entries.pop(0)
    proof = stand.proof()
    stand.host.log.entries.insert(0, first)
    found = stand.prove(proof)
    assert ([item.code for item in found.findings], found.log.records) == ([Code.BASELINE_UNEXPLAINED], ())


def test_a_log_goes_on_from_what_was_ledgered_in_this_boot(stand: Stand) -> None:
    found = stand.prove()
    log, boot = found.log, found.quote.reset_count
    first = measurement_log.head(log.records[:1])

    def denied(boots_later: int, length: int, head: bytes) -> bool:
        findings = check_ledgered(log, found.quote, LedgeredLog(boot + boots_later, length, head))
        assert all((item.code, item.expected) == (Code.BASELINE_UNEXPLAINED, head.hex()) for item in findings)
        return bool(findings)

    assert check_ledgered(log, found.quote, None) == ()
    for length, head in ((0, LOW), (1, first), (2, log.head)):
        assert not denied(0, length, head)
    # Shorter than it was, or another one.
    for length, head in ((3, log.head), (1, LOW), (1, HIGH), (2, first)):
        assert denied(0, length, head)
        # Another boot began another log, whatever the number of it.
        assert not denied(-1, length, head)
        assert not denied(1, length, head)
