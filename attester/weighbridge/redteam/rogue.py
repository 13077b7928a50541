"""A dishonest attester: the product's parts without its precautions, one step at a time.

Whatever it sends is signed by devices that are genuine for whoever trusts their makers. It is honest until it is made
to do something else: every attack has windows before it that a verifier must affirm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self, cast

from weighbridge.attester.clock import SystemClock
from weighbridge.attester.enrolling import Prover, enrol
from weighbridge.attester.offload import Inline
from weighbridge.attester.sealing import Carried, Observed, Sealer
from weighbridge.attester.spot import read_answer
from weighbridge.attester.telemetry.emulated import EmulatedTelemetry
from weighbridge.proto import cose, measurement_log
from weighbridge.proto.digest import sha256
from weighbridge.proto.measurement_log import ModelLoad
from weighbridge.proto.telemetry import Telemetry
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.window import WINDOW_TYP, Evidence, Interval
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.attester.client import Answer, Line
    from weighbridge.attester.enrolling import Enrolment, Identity
    from weighbridge.attester.gpu.interface import GpuSource
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.attester.tpm.interface import TpmDevice
    from weighbridge.attester.trust import TrustedVerifiers
    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.measurement_log import Record
    from weighbridge.proto.spot import SpotChallenge
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.terms import SignedTerms

__all__ = ["LOG_PCR", "ForgetfulLog", "Rogue"]

LOG_PCR: Final = 15
# What devices are said to have been sampled for in a window. Less time than that passes between two of them here: what
# lies behind a window's end by no more than this is taken for a clock that runs a little late.
_SAMPLED_NS: Final = 1_000_000_000
_LEAST_NS: Final = 1_000_000
_SEED: Final = 7


@dataclass
class ForgetfulLog:
    """A measurement log that is kept nowhere and can leave out what was extended.

    ``start`` is what it claims of the register before its first record: whatever it finds there.
    """

    tpm: TpmDevice
    pcr: int = LOG_PCR
    entries: list[Record] = field(default_factory=list["Record"])
    known: dict[bytes, Manifest] = field(default_factory=dict[bytes, "Manifest"])
    start: dict[HashAlgorithm, bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Look at the register."""
        self.start = {
            bank: self.tpm.read_pcrs(PcrSelection.of(bank, [self.pcr]))[self.pcr] for bank in self.tpm.active_banks()
        }

    def load(self, model: Manifest) -> None:
        """Extend the register by a load, and remember it."""
        self.known[model.digest] = model
        record = measurement_log.make_record(
            ModelLoad(model.digest, model.name),
            recnum=len(self.entries),
            pcr=self.pcr,
            algs=self.tpm.active_banks(),
        )
        self.extend(record)
        self.entries.append(record)

    def extend(self, record: Record) -> None:
        """Extend every active bank by ``record``."""
        self.tpm.extend(self.pcr, {HashAlgorithm(alg): value for alg, value in record.digests})

    def records(self, first: int = 0) -> tuple[Record, ...]:
        """What it admits to."""
        return tuple(self.entries[first:])

    def manifest(self, digest: bytes) -> Manifest:
        """The manifest that a record names."""
        return self.known[digest]


@dataclass
class Rogue:
    """One session of a dishonest attester. ``model`` is where its model's files lie, for spot checks."""

    tpm: TpmDevice
    gpus: GpuSource
    log: ForgetfulLog
    line: Line
    enrolment: Enrolment
    telemetry: EmulatedTelemetry
    model: Path | None
    challenge: bytes
    spot: SpotChallenge | None
    prev: bytes
    wall_ns: int
    seq: int = 0
    # Answers that were verdicts: each is a leaf of the ledger.
    judged: int = 0
    _sealer: Sealer | None = None
    # Sensors are read once for a window, however often it is sealed: devices go on from one to the next.
    _sampled: dict[int, tuple[Source, ...]] = field(default_factory=dict[int, "tuple[Source, ...]"])

    @classmethod
    async def open(
        cls,
        line: Line,
        identity: Identity,
        *,
        tpm: TpmDevice,
        gpus: GpuSource,
        log: ForgetfulLog,
        trusted: TrustedVerifiers,
        model: Path | None,
    ) -> Self:
        """Enrol over ``line`` as the real attester does.

        Raises:
            WeighbridgeError: as :func:`~weighbridge.attester.enrolling.enrol`.
        """
        prover = Prover(tpm, gpus, cast("MeasurementLog", log), Inline(), ())
        enrolment = await enrol(line, identity, prover=prover, trusted=trusted, clock=SystemClock())
        terms = enrolment.terms.terms
        rogue = cls(
            tpm=tpm,
            gpus=gpus,
            log=log,
            line=line,
            enrolment=enrolment,
            # Each session is another run of these devices: the same samples again would be a replay.
            telemetry=EmulatedTelemetry(_SEED, terms.gpus, run=int.from_bytes(terms.session[:4], "big")),
            model=model,
            challenge=enrolment.challenge,
            spot=enrolment.spot,
            prev=terms.prev,
            wall_ns=time.time_ns(),
        )
        rogue.reseal()
        return rogue

    @property
    def terms(self) -> SignedTerms:
        """The session's terms."""
        return self.enrolment.terms

    @property
    def session(self) -> bytes:
        """The session's identifier, 16 bytes."""
        return self.terms.terms.session

    # -- what happens on the host --------------------------------------------------------------------------------------

    def reseal(self) -> None:
        """Begin sealing with the devices as they now are."""
        self._sealer = self.sealer()

    def sealer(
        self, *, terms: SignedTerms | None = None, tpm: TpmDevice | None = None, gpus: GpuSource | None = None
    ) -> Sealer:
        """What seals by these terms and on these devices, and by the session's own where nothing is said."""
        return Sealer(
            terms or self.terms,
            tpm=tpm or self.tpm,
            gpus=gpus or self.gpus,
            log=self.log,
            carried=Carried(
                records=len(self.log.entries),
                manifests=frozenset(self.log.known),
                reset_count=self.tpm.read_clock().reset_count,
            ),
            declared=(),
        )

    def new_telemetry_key(self) -> bytes:
        """Make a telemetry key as at enrolment, in whatever TPM there is now; its thumbprint."""
        terms = self.terms.terms
        public = self.tpm.create_telemetry_key(
            unique=bytes(32), boot=PcrSelection.of(HashAlgorithm(terms.bank), terms.boot_pcrs)
        )
        return sha256(tpm_public.parse(public).spki())

    def replay_log(self) -> None:
        """Extend the register by every record again, to the value it had."""
        for record in self.log.entries:
            self.log.extend(record)

    # -- windows -------------------------------------------------------------------------------------------------------

    def observe(self) -> Observed:
        """What the next window is about, as of now."""
        end = max(time.time_ns(), self.wall_ns + _LEAST_NS)
        if self.seq not in self._sampled:
            work = replace(WorkSummary.empty(), tokens_in=128)
            sampled = self.telemetry.window(start_wall_ns=self.wall_ns, duration_ns=_SAMPLED_NS, work=work)
            self._sampled[self.seq] = tuple(sampled)
        start_ms = self.tpm.read_clock().clock
        answered = self.spot is not None and self.model is not None
        return Observed(
            seq=self.seq,
            prev=self.prev,
            challenge=self.challenge,
            interval=Interval(
                tpm_start_ms=start_ms,
                tpm_end_ms=self.tpm.read_clock().clock,
                wall_start_ns=self.wall_ns,
                wall_end_ns=end,
            ),
            telemetry=Telemetry(session=self.session, seq=self.seq, sources=self._sampled[self.seq]).encode(),
            work=WorkSummary.empty(),
            spot=read_answer(self.spot, self.model) if answered and self.spot and self.model else None,
        )

    def seal(self, observed: Observed | None = None, *, by: Sealer | None = None) -> SealedWindow:
        """A window, sealed now; nothing of the session moves before :meth:`advance`.

        Args:
            observed: what it is about; by default what an honest host would say.
            by: what seals it; by default the session's own sealer.
        """
        sealer = by or self._sealer
        if sealer is None:
            raise RuntimeError("nothing to seal with")
        return sealer.seal(observed or self.observe(), begin=lambda _: None)

    def advance(self, sealed: SealedWindow, observed: Observed) -> None:
        """The window is behind the host, whether it was answered or not."""
        self.prev, self.seq, self.wall_ns = sealed.next_prev, self.seq + 1, observed.interval.wall_end_ns

    async def send(self, evidence: bytes) -> Answer:
        """Send any bytes as a window, and go on with the challenge that comes back.

        Raises:
            WeighbridgeError: when the verifier cannot even attribute it.
        """
        answer = await self.line.window(evidence)
        self.judged += 1
        if answer.challenge is not None:
            self.challenge, self.spot = answer.challenge, answer.spot
        return answer

    async def window(self, *, signer: bytes | None = None, by: Sealer | None = None) -> Answer:
        """Seal the next window now and send it.

        Args:
            signer: name this key as the one that signed, instead of the session's.
            by: what seals it; by default the session's own sealer.

        Raises:
            WeighbridgeError: when the verifier cannot even attribute it.
        """
        observed = self.observe()
        sealed = self.seal(observed, by=by)
        evidence = sealed.evidence if signer is None else self._resigned(sealed.evidence, signer)
        answer = await self.send(evidence)
        self.advance(sealed, observed)
        return answer

    def _resigned(self, sealed: bytes, signer: bytes) -> bytes:
        evidence = Evidence.parse(sealed)
        header = evidence.signed_header().payload
        return replace(evidence, window=cose.sign(header, kid=signer, typ=WINDOW_TYP, signer=self.tpm.sign)).encode()
