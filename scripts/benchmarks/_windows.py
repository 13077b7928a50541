"""Windows to be measured: honest ones, with everything a window of the default length carries.

A verifier under the production policy and a host whose TPM and GPUs sign for real, in one process: the world of the
tests. Windows of 10 s, telemetry at 10 Hz, GPU reports in every other window.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

# For the line below: the world is the tests'.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.baseline_owners import BaselineOwner
from support.baselines import put_in_force, signed_set
from support.world import World, requirements
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.sealing import Observed, SealedWindow
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import sha256
from weighbridge.proto.telemetry import Telemetry
from weighbridge.proto.window import Interval
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier import weights
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.case import make_case
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.gpu_appraisal import appraise_gpus
from weighbridge.verifier.host_appraisal import appraise_host
from weighbridge.verifier.policy_input import Known, policy_input
from weighbridge.verifier.procedure import authenticate, verify_window
from weighbridge.verifier.published import Published
from weighbridge.verifier.replay import replay_enrolment, replay_telemetry, replay_window
from weighbridge.verifier.session import Position, SessionState
from weighbridge.verifier.telemetry.appraisal import NOTHING, Presented, TelemetryAppraisal, presented_by, traces_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Prepared
    from weighbridge.proto.spdm.evidence import GpuEvidence
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.gpu.chain import VerifiedGpuChain
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled
    from weighbridge.verifier.telemetry.history import Trace

__all__ = ["PERIOD_NS", "Case", "Line"]

PERIOD_NS: Final = 10_000_000_000
_SECOND_NS: Final = 1_000_000_000
_TOKENS: Final = 2_000  # in a second
_BATCH: Final = 8
_OWNER: Final = BaselineOwner()
# One for all, as a verifier has it: what it reads it remembers.
_PUBLISHED: Final = Published.nothing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One window as it arrives, and all that its judgement depends on. It can be judged again and again."""

    raw: bytes
    enrolled: Enrolled
    position: Position
    at: datetime
    chains: ChainCache
    world: World
    appraiser: Appraiser

    def verify(self) -> VerifiedWindow:
        """The whole procedure of :mod:`weighbridge.verifier.procedure`."""
        window = authenticate(self.raw, enrolled=self.enrolled, peer=self.enrolled.terms.peer)
        return verify_window(
            window,
            enrolled=self.enrolled,
            position=self.position,
            held=False,
            spot=None,
            anchors=self.world.anchors,
            at=self.at,
            chains=self.chains,
        )

    def chain(self, sent: GpuEvidence) -> VerifiedGpuChain:
        """A GPU's certificate chain, verified when its session was opened."""
        return self.chains.verify_chain(sent.chain, self.world.anchors, at=self.at)

    def appraise(self, verified: VerifiedWindow) -> Verdict:
        """The verdict on it, which must be good: a refusal costs something else."""
        return _affirmed(self._appraise(verified, self.world.prepared))

    def asked(self, verified: VerifiedWindow) -> PolicyInput:
        """What the policy is asked about it: compared with everything that is known, and laid out."""
        document = make_case(verified, self._known(), published=_PUBLISHED, at=self.at).document
        if document is None:
            raise RuntimeError("an invariant refuses the window")
        return document

    def layout(self, verified: VerifiedWindow) -> Callable[[], PolicyInput]:
        """What lays the document out, once everything has been compared."""
        known = self._known()
        terms = self.enrolled.terms
        weighed = weights.appraise(
            verified.log,
            declared=terms.declared,
            measured={**self.position.manifests, **verified.manifests},
            references=known.manifests,
            window=verified.header.seq,
        )
        host = appraise_host(verified, self.enrolled, known.reference, at=self.at)
        gpus = appraise_gpus(
            verified.gpus or self.position.gpus,
            published=_PUBLISHED,
            reference=known.reference,
            cc_state=verified.header.cc_state,
            reported=verified.gpus is not None,
            at=self.at,
        )
        return lambda: policy_input(verified, known, weighed=weighed, host=host, gpus=gpus, at=self.at)

    def presented(self, verified: VerifiedWindow) -> tuple[Presented, ...]:
        """What it has of each GPU, joined, and the profile that this is compared with."""
        return presented_by(verified, enrolled=self.enrolled, baselines=self.world.baselines, at=self.at)

    def traces(self, verified: VerifiedWindow, presented: Sequence[Presented]) -> tuple[Trace, ...]:
        """What of its samples is looked up in the verifier's memory."""
        return traces_of(verified, self.position.telemetry, enrolled=self.enrolled, presented=presented)

    def compare(self, verified: VerifiedWindow, presented: Sequence[Presented]) -> TelemetryAppraisal:
        """What its samples say, by the baselines in force."""
        return self._physical(self._appraiser(self.world.prepared), verified, presented)

    def _known(self) -> Known:
        return Known(
            self.enrolled,
            self.position,
            SessionState.RUNNING,
            self.world.reference,
            self.world.models,
            TelemetryAppraisal("no_baseline", (), self.position.telemetry),
        )

    def _appraise(self, verified: VerifiedWindow, policy: Prepared) -> Verdict:
        appraiser = self._appraiser(policy)
        return appraiser.appraise(
            verified,
            enrolled=self.enrolled,
            position=self.position,
            state=SessionState.RUNNING,
            physical=self._physical(appraiser, verified),
            at=self.at,
        )

    def _appraiser(self, policy: Prepared) -> Appraiser:
        return self.appraiser if policy is self.appraiser.policy else replace(self.appraiser, policy=policy)

    def _physical(
        self, appraiser: Appraiser, verified: VerifiedWindow, presented: Sequence[Presented] | None = None
    ) -> TelemetryAppraisal:
        return appraiser.physical(
            verified,
            enrolled=self.enrolled,
            position=self.position,
            history=NOTHING,
            at=self.at,
            presented=presented,
        )


class Line:
    """A session that goes on: seals window after window and has them judged."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.open_session()

    @classmethod
    def open(cls, directory: Path, *, gpus: int) -> Self:
        """A verifier under ``directory`` and a host with as many GPUs, enrolled."""
        directory.mkdir()
        world = World.make(
            directory,
            policy="production",
            platforms=("tpm", "nvidia"),
            source="nvml",
            wanted=requirements(gpus=gpus, period_ns=PERIOD_NS, gpu_every=2),
            gpus=EmulatedGpus.create(gpus),
        )
        line = cls(world)
        # The first window shows the model being loaded, as no later one does.
        line.deliver(line.seal())
        return line

    def baseline(self) -> None:
        """From here on samples are compared with a baseline of the very GPUs, and each window fills a unit of it."""
        world = self.world
        if world.engines is None:
            raise RuntimeError("the world's policy engine is another's")
        signed = signed_set(world.host.gpus, world.host.model.digest, _OWNER, work=_work(seconds=1))
        put_in_force(world, world.engines, signed, _OWNER)

    def close(self) -> None:
        """End it."""
        self.world.close()

    def seal(self) -> SealedWindow:
        """The next window, a period later."""
        self.world.clock.advance(PERIOD_NS / _SECOND_NS)
        return self.world.host.seal(self.observe())

    def seal_next(self, *, report: bool) -> SealedWindow:
        """The next window with GPU reports, or the next without; those before it are sealed and judged as well."""
        while self._terms().gpu_due(self.world.host.seq) != report:
            self.deliver(self.seal())
        return self.seal()

    def deliver(self, sealed: SealedWindow) -> None:
        """Have it judged and recorded, and go on behind it."""
        end = self.world.host.wall_ns + PERIOD_NS
        _affirmed(self.world.deliver(sealed).verdict)
        self.world.host.wall_ns = end

    def case(self, *, report: bool) -> Case:
        """The next window with GPU reports in it, or without, as a case; the session goes on behind it."""
        world = self.world
        sealed = self.seal_next(report=report)
        enrolled, position, chains = self._replayed()
        case = Case(
            raw=sealed.evidence,
            enrolled=enrolled,
            position=position,
            at=world.clock.now(),
            chains=chains,
            world=world,
            # Made once, as a verifier does: it names the reference values, and remembers what it has read.
            appraiser=Appraiser(world.prepared, world.reference, world.models, _PUBLISHED, baselines=world.baselines),
        )
        self.deliver(sealed)
        return case

    def _terms(self) -> Terms:
        if self.world.host.terms is None:
            raise RuntimeError("no session")
        return self.world.host.terms.terms

    def _replayed(self) -> tuple[Enrolled, Position, ChainCache]:
        """Where the session stands, from its records."""
        world = self.world
        records, key = world.archive.records, world.keys.signing.public_key()
        record = records.record(0)
        replayed = replay_enrolment(
            record, records.evidence(record), anchors=world.anchors, verifier_key=key, collateral=Collateral()
        )
        enrolled, position, chains = replayed.enrolled, replayed.position, ChainCache()
        for index in range(1, world.ledger.size):
            record = records.record(index)
            window = replay_window(
                record,
                records.evidence(record),
                enrolled=enrolled,
                position=position,
                anchors=world.anchors,
                chains=chains,
            )
            physical = replay_telemetry(record, window, enrolled=enrolled, position=position, baselines=world.baselines)
            position = position.after(window, obliged=record.obliges_spot_check, telemetry=physical.state)
        return enrolled, position, chains

    def observe(self) -> Observed:
        """What the host's next window is about."""
        host = self.world.host
        if host.telemetry is None:
            raise RuntimeError("no session")
        start = host.wall_ns
        work = _work(seconds=PERIOD_NS // _SECOND_NS)
        sources = host.telemetry.window(start_wall_ns=start, duration_ns=PERIOD_NS, work=work)
        named = tuple(replace(item, name=host.source) for item in sources)
        began = host.tpm.read_clock().clock
        return Observed(
            seq=host.seq,
            prev=host.prev,
            challenge=host.challenge,
            interval=Interval(
                tpm_start_ms=began,
                tpm_end_ms=host.tpm.read_clock().clock,
                wall_start_ns=start,
                wall_end_ns=start + PERIOD_NS,
            ),
            telemetry=Telemetry(session=host.session, seq=host.seq, sources=named).encode(),
            work=work,
            spot=None,
        )


def _affirmed(verdict: Verdict) -> Verdict:
    if not verdict.opens:
        raise RuntimeError(f"the window was not affirmed: {verdict.encode().decode()}")
    return verdict


def _work(*, seconds: int) -> WorkSummary:
    """What is declared for as long."""
    return WorkSummary(
        root=sha256(b"leaf"), requests=6 * seconds, tokens_in=_TOKENS * seconds, tokens_out=0, batch_max=_BATCH
    )
