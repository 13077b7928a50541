"""A dishonest attester for the acts in which hardware is tampered with: the product's parts without its precautions.

Whatever it sends is signed by an emulated TPM and emulated GPUs that are genuine for this demonstration.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, cast

from stage import AUDIENCE, PERIOD_NS, TENANT

from weighbridge.attester.client import GrpcTransport
from weighbridge.attester.clock import SystemClock
from weighbridge.attester.enrolling import Identity, Prover, enrol
from weighbridge.attester.gpu.emulated import EmulatedGpus, Firmware
from weighbridge.attester.keys import load_channel, load_serving
from weighbridge.attester.offload import Inline
from weighbridge.attester.sealing import Carried, Observed, Sealer
from weighbridge.attester.spot import read_answer
from weighbridge.attester.telemetry.emulated import EmulatedTelemetry
from weighbridge.attester.tpm.device import Tpm
from weighbridge.attester.trust import TrustedVerifiers
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

    from stage import Host, Stage

    from weighbridge.attester.client import Answer, Line
    from weighbridge.attester.enrolling import Enrolment
    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.measurement_log import Record
    from weighbridge.proto.spot import SpotChallenge

__all__ = ["ForgetfulLog", "Rogue"]

_LOG_PCR = 15
# As reports count, from 1: the manifest's index 22, one of the driver's.
_CHANGED = 23


@dataclass
class ForgetfulLog:
    """A measurement log that is kept nowhere and can leave out what was extended.

    ``start`` is what it claims of the register before its first record: whatever it finds there.
    """

    tpm: Tpm
    pcr: int = _LOG_PCR
    entries: list[Record] = field(default_factory=list)
    known: dict[bytes, Manifest] = field(default_factory=dict)
    start: dict[HashAlgorithm, bytes] = field(init=False)

    def __post_init__(self) -> None:
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


class _ChangedDriver(Firmware):
    """The same versions and the same firmware, but for one measurement of the driver's."""

    def measurement(self, index: int) -> bytes:
        """See :meth:`Firmware.measurement`."""
        return hashlib.sha384(b"a changed driver").digest() if index == _CHANGED else Firmware.measurement(self, index)


@dataclass
class Rogue:
    """One session of a dishonest attester, step by step."""

    tpm: Tpm
    gpus: EmulatedGpus
    log: ForgetfulLog
    line: Line
    enrolment: Enrolment
    telemetry: EmulatedTelemetry
    model: Path
    challenge: bytes
    spot: SpotChallenge | None
    prev: bytes
    wall_ns: int
    seq: int = 0
    sealer: Sealer | None = None

    @classmethod
    async def open(cls, stage: Stage, host: Host, *, tpm: Tpm, log: ForgetfulLog) -> Self:
        """Enrol as the real attester does.

        Raises:
            WeighbridgeError: what the verifier refuses with.
        """
        gpus = EmulatedGpus.open(host.gpus, 2)
        channel = load_channel(host.state)
        transport = GrpcTransport(
            f"127.0.0.1:{stage.port}", authority=(stage.state / "tls" / "ca.pem").read_bytes(), channel=channel
        )
        identity = Identity(
            tenant=TENANT,
            audience=AUDIENCE,
            cnf=load_serving(host.state).cnf,
            peer=channel.peer,
            model=stage.manifest.digest,
        )
        trusted = TrustedVerifiers.load((stage.state / "anchors.json").read_bytes())
        line = await transport.connect()
        try:
            prover = Prover(tpm, gpus, cast("MeasurementLog", log), Inline(), ())
            enrolment = await enrol(line, identity, prover=prover, trusted=trusted, clock=SystemClock())
        except BaseException:
            await line.disconnect()
            raise
        terms = enrolment.terms.terms
        rogue = cls(
            tpm=tpm,
            gpus=gpus,
            log=log,
            line=line,
            enrolment=enrolment,
            # Each session is another run of these devices: the same samples again would be a replay.
            telemetry=EmulatedTelemetry(7, terms.gpus, run=int.from_bytes(terms.session[:4], "big")),
            model=stage.model,
            challenge=enrolment.challenge,
            spot=enrolment.spot,
            prev=terms.prev,
            wall_ns=time.time_ns(),
        )
        rogue.reseal()
        return rogue

    @property
    def session(self) -> str:
        """The session's identifier, as hex."""
        return self.enrolment.terms.terms.session.hex()

    def reseal(self) -> None:
        """Begin sealing with the devices as they now are."""
        self.sealer = Sealer(
            self.enrolment.terms,
            tpm=self.tpm,
            gpus=self.gpus,
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
        terms = self.enrolment.terms.terms
        public = self.tpm.create_telemetry_key(
            unique=bytes(32), boot=PcrSelection.of(HashAlgorithm(terms.bank), terms.boot_pcrs)
        )
        return sha256(tpm_public.parse(public).spki())

    def replay_log(self) -> None:
        """Extend the register by every record again, to the value it had."""
        for record in self.log.entries:
            self.log.extend(record)

    def swap_gpu(self, number: int, host: Host) -> None:
        """Put another genuine device of the same vendor in the place of one that is enrolled."""
        spare = EmulatedGpus.open(host.gpus, 3).devices[2]
        devices = list(self.gpus.devices)
        devices[number] = spare
        self.gpus = EmulatedGpus(self.gpus.vendor, devices)

    def change_driver(self, number: int) -> None:
        """Have a GPU sign what it measured of a changed driver."""
        devices = list(self.gpus.devices)
        devices[number] = replace(devices[number], firmware=_ChangedDriver())
        self.gpus = EmulatedGpus(self.gpus.vendor, devices)

    async def window(self, *, signer: bytes | None = None) -> Answer:
        """Seal the next window now and send it.

        Args:
            signer: name this key as the one that signed, instead of the session's.

        Raises:
            WeighbridgeError: when the verifier cannot even attribute it.
        """
        if self.sealer is None:
            raise RuntimeError("nothing to seal with")
        end = max(time.time_ns(), self.wall_ns + 1_000_000)
        work = replace(WorkSummary.empty(), tokens_in=128)
        sources = self.telemetry.window(start_wall_ns=self.wall_ns, duration_ns=PERIOD_NS, work=work)
        session = self.enrolment.terms.terms.session
        start_ms = self.tpm.read_clock().clock
        observed = Observed(
            seq=self.seq,
            prev=self.prev,
            challenge=self.challenge,
            interval=Interval(
                tpm_start_ms=start_ms,
                tpm_end_ms=self.tpm.read_clock().clock,
                wall_start_ns=self.wall_ns,
                wall_end_ns=end,
            ),
            telemetry=Telemetry(session=session, seq=self.seq, sources=tuple(sources)).encode(),
            work=WorkSummary.empty(),
            spot=None if self.spot is None else read_answer(self.spot, self.model),
        )
        sealed = self.sealer.seal(observed, begin=lambda _: None)
        answer = await self.line.window(sealed.evidence if signer is None else self._resign(sealed.evidence, signer))
        self.prev, self.seq, self.wall_ns = sealed.next_prev, self.seq + 1, end
        if answer.challenge is not None:
            self.challenge, self.spot = answer.challenge, answer.spot
        return answer

    def _resign(self, sealed: bytes, signer: bytes) -> bytes:
        evidence = Evidence.parse(sealed)
        header = evidence.signed_header().payload
        return replace(evidence, window=cose.sign(header, kid=signer, typ=WINDOW_TYP, signer=self.tpm.sign)).encode()
