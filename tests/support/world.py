"""A whole world in one process: a verifier with its stores, and a host whose TPM and GPUs sign for real.

Nothing here is a mock of ours: the verifier is the product's, the host uses the product's sealing. Only the devices
are emulated, and they sign under roots of their own. A test changes one thing and looks at the verdict's code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric import ec

from fakes.soft_tpm import SoftTpm, derive_key
from support.models import plain, safetensors
from support.sensors import Sensors
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.sealing import Carried, Observed, SealedWindow, Sealer
from weighbridge.attester.spot import read_answer
from weighbridge.attester.telemetry.emulated import NAME
from weighbridge.policy import policy_set
from weighbridge.policy.engine import Limits
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.values.reference import CHECKS, Reference
from weighbridge.proto import binding, measurement_log, strict
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.digest import sha256
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
from weighbridge.proto.manifest import Manifest, encode_manifests
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spot import SpotChallenge
from weighbridge.proto.telemetry import Telemetry
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.window import Interval
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.archive import Archive
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.certs import load_certificate
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.core import Answer, Verifier
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.leadership import FileLeadership
from weighbridge.verifier.ledger.content import ContentStore
from weighbridge.verifier.ledger.contents import Contents
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.published import Published
from weighbridge.verifier.requirements import RUNTIME_PCR, Requirements
from weighbridge.verifier.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from fakes.boot_logs import Boot
    from weighbridge.attester.telemetry.interface import TelemetrySource
    from weighbridge.policy.engine import Prepared
    from weighbridge.proto.endorsement import Endorsement
    from weighbridge.proto.measurement_log import Event, Record
    from weighbridge.proto.spot import SpotAnswer
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.terms import SignedTerms
    from weighbridge.verifier.bench import Bench
    from weighbridge.verifier.files import Files
    from weighbridge.verifier.leadership import Leadership

NOON = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
LOG_PCR = 15
PERIOD_NS = 1_000_000_000
EMULATED = "insecure-emulated"
PEER = sha256(b"the attester's channel key")
CNF = sha256(b"the serving key")
WORK = WorkSummary(root=sha256(b"leaf"), requests=1, tokens_in=64, tokens_out=0, batch_max=1)


class FakeClock:
    """Receipt time under the test's control."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def manifest(name: str = "tiny", *, weights: bytes = b"weights") -> Manifest:
    """The manifest of a model of one tensor."""
    return Manifest.build(
        name, [plain("config.json", b"{}"), safetensors("model.safetensors", {"layer.weight": weights})]
    )


def requirements(**changes: object) -> Requirements:
    """What the verifier of these tests demands."""
    document: dict[str, object] = {
        "schema": "weighbridge/requirements/v1",
        "tenant": "tenant-a",
        "audience": "relying-party",
        "evidence": ["gpu", "telemetry", "tpm", "workload"],
        "gpus": 2,
        "pcrs": [0, 1, 2, 3, 4, 5, 6, 7, LOG_PCR],
        "boot_pcrs": [0, 1, 2, 3, 4, 5, 6, 7],
        "log_pcr": LOG_PCR,
        "period_ns": PERIOD_NS,
        "gpu_every": 1,
        "lateness_ns": 1_000_000_000,
        "spot_every": 0,
    }
    return Requirements.parse(strict.json_encode({**document, **changes}))


@dataclass
class SoftLog:
    """A measurement log in memory over a TPM, for :class:`Sealer`."""

    tpm: SoftTpm
    pcr: int = LOG_PCR
    entries: list[Record] = field(default_factory=list)
    known: dict[bytes, Manifest] = field(default_factory=dict)
    start: dict[HashAlgorithm, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.begins()

    def begins(self) -> None:
        """The register holds what it holds before the first record."""
        self.start = {bank: self.tpm.pcrs[bank][self.pcr] for bank in self.tpm.banks}

    def append(self, event: Event, *, hide: bool = False) -> None:
        record = measurement_log.make_record(event, recnum=len(self.entries), pcr=self.pcr, algs=self.tpm.banks)
        self.tpm.extend(self.pcr, dict(record.digests))
        if not hide:
            self.entries.append(record)

    def load(self, model: Manifest, *, hide: bool = False) -> None:
        self.known[model.digest] = model
        self.append(measurement_log.ModelLoad(model.digest, model.name), hide=hide)

    def records(self, first: int = 0) -> tuple[Record, ...]:
        return tuple(self.entries[first:])

    def manifest(self, digest: bytes) -> Manifest:
        return self.known[digest]

    def loaded(self) -> list[Manifest]:
        """The manifests of what its records say is loaded, each once."""
        return [
            self.known[digest]
            for digest in dict.fromkeys(item.manifest for item in measurement_log.loaded(self.entries))
        ]


@dataclass
class KernelList:
    """The kernel's list as :class:`Sealer` reads it; in tests it never runs ahead of a quote."""

    boot: Boot

    def since(self, offset: int, quoted: bytes, bank: HashAlgorithm) -> bytes:
        assert self.boot.values[bank, RUNTIME_PCR] == quoted
        return b"".join(self.boot.runtime)[offset:]


@dataclass
class Host:
    """An attester's host. Everything it says can be changed by a test before it is sent."""

    tpm: SoftTpm
    gpus: EmulatedGpus
    log: SoftLog
    model: Manifest
    adapters: tuple[Manifest, ...] = ()
    peer: bytes = PEER
    cnf: bytes = CNF
    tenant: str = "tenant-a"
    audience: str = "relying-party"
    session: bytes = b""
    terms: SignedTerms | None = None
    challenge: bytes = b""
    # What came with the challenge, and where the model's files lie, if anywhere.
    spot: bytes | None = None
    directory: Path | None = None
    prev: bytes = b""
    seq: int = 0
    wall_ns: int = 0
    telemetry: TelemetrySource | None = None
    # What it serves in each window, and declares.
    work: WorkSummary = WORK
    # What its sensors read in each window, by session and number.
    sampled: dict[tuple[bytes, int], tuple[Source, ...]] = field(default_factory=dict)
    sealer: Sealer | None = None
    # What the sampler calls itself; the emulated one's word is never taken by a production policy.
    source: str = "emulated"
    # Those of all its sessions: a new one takes the place of the old in the TPM.
    telemetry_keys: list[ec.EllipticCurvePublicKey] = field(default_factory=list)
    # Whether the verifier is expected to know the AK already: no endorsement key is shown then.
    pinned: bool = False
    # Another reason to believe the AK than the TPM's own, and what helps to judge it.
    endorsement: Endorsement | None = None
    collateral: Collateral = field(default_factory=Collateral)
    # Encoded logs of the boot, where they are demanded.
    boot_logs: bytes | None = None
    # What the machine did before the attester started.
    boot: Boot | None = None

    @classmethod
    def make(
        cls, model: Manifest, *, tpm: SoftTpm | None = None, gpus: EmulatedGpus | None = None, clock: FakeClock
    ) -> Self:
        device = tpm or SoftTpm()
        return cls(
            device, gpus or EmulatedGpus.create(2), SoftLog(device), model, wall_ns=nanoseconds(clock.at) - PERIOD_NS
        )

    def opening(self) -> Opening:
        return Opening(
            tenant=self.tenant,
            audience=self.audience,
            ak=self.tpm.attestation_key(),
            parent=self.tpm.attestation_parent(),
            endorsement=None if self.pinned else self.endorsement or self.tpm.endorsement(),
            collateral=self.collateral,
            cnf=self.cnf,
            peer=self.peer,
            kem=None,
            model=self.model.digest,
            adapters=tuple(sorted(adapter.digest for adapter in self.adapters)),
        )

    def proof(self, challenge: EnrolmentChallenge) -> EnrolmentProof:
        secret = b"" if challenge.credential is None else self.tpm.activate_credential(*challenge.credential)
        bank = HashAlgorithm(challenge.bank)
        boot = PcrSelection.of(bank, challenge.boot_pcrs)
        qualifying_data = binding.enrolment_qualifying_data(challenge.challenge, self.cnf, self.peer)
        telemetry_key = self.tpm.create_telemetry_key(unique=challenge.challenge, boot=boot)
        attest, signature = self.tpm.certify_telemetry_key(qualifying_data)
        quote = self.tpm.quote(PcrSelection.of(bank, challenge.pcrs), qualifying_data)
        return EnrolmentProof(
            session=challenge.session,
            secret=secret,
            telemetry_key=telemetry_key,
            certify_attest=attest,
            certify_signature=signature,
            quote=quote.encode(),
            gpus=gpu_evidence.encode(self.gpus.attest(binding.gpu_nonce(qualifying_data))),
            log=measurement_log.encode_records(self.log.records()),
            manifests=encode_manifests(self.log.loaded()),
            boot=self.logs_of_boot() if self.boot_logs is None else self.boot_logs,
        )

    def boots(self, boot: Boot | None) -> None:
        """The machine was started, and its TPM has in it what ``boot`` extended."""
        self.boot = boot
        if boot is not None:
            for (bank, pcr), value in boot.values.items():
                self.tpm.pcrs[bank][pcr] = value
            self.log.begins()

    def runs(self, path: str, content: bytes) -> None:
        """The kernel measures a file."""
        assert self.boot is not None
        self.boot.measure(path, content)
        self._extended()

    def violates(self, path: str) -> None:
        """The kernel cannot say what it measured."""
        assert self.boot is not None
        self.boot.violate(path)
        self._extended()

    def _extended(self) -> None:
        assert self.boot is not None
        for bank in self.boot.banks:
            self.tpm.pcrs[bank][RUNTIME_PCR] = self.boot.values[bank, RUNTIME_PCR]

    def logs_of_boot(self) -> bytes | None:
        """The logs of the boot, for an enrolment."""
        if self.boot is None:
            return None
        return self.boot.logs().encode()

    def enrol(self, verifier: Verifier) -> None:
        """Open a session with ``verifier``, as an honest attester does."""
        challenge = verifier.open(self.opening().encode(), peer=self.peer)
        opened = verifier.prove(self.proof(challenge).encode(), peer=self.peer)
        terms = opened.terms.terms
        self.session, self.terms, self.challenge = terms.session, opened.terms, opened.challenge
        self.spot = opened.spot
        assert self.tpm.telemetry_key is not None
        self.telemetry_keys.append(self.tpm.telemetry_key.public_key())
        self.prev, self.seq = terms.prev, 0
        self.telemetry = Sensors(terms.gpus, run=len(self.telemetry_keys), machine=self.tpm.seed)
        self.sealer = Sealer(
            opened.terms,
            tpm=self.tpm,
            gpus=self.gpus,
            log=self.log,
            carried=Carried(
                records=len(self.log.entries),
                manifests=frozenset(manifest.digest for manifest in self.log.loaded()),
                reset_count=self.tpm.reset_count,
                runtime=0 if self.boot is None else len(b"".join(self.boot.runtime)),
            ),
            declared=(self.model, *self.adapters),
            runtime=None if self.boot is None else KernelList(self.boot),
        )

    def observe(self) -> Observed:
        """What the next window is about."""
        assert self.telemetry is not None
        start, end = self.wall_ns, self.wall_ns + PERIOD_NS
        work = self.work
        if (self.session, self.seq) not in self.sampled:
            # Sensors are read once a window, whatever is made of it: devices go on from one to the next.
            sources = self.telemetry.window(start_wall_ns=start, duration_ns=PERIOD_NS, work=work)
            self.sampled[self.session, self.seq] = tuple(sources)
        named = tuple(
            replace(item, name=self.source) if item.name == NAME else item
            for item in self.sampled[self.session, self.seq]
        )
        data = Telemetry(session=self.session, seq=self.seq, sources=named).encode()
        tpm_start = self.tpm.read_clock().clock
        interval = Interval(
            tpm_start_ms=tpm_start, tpm_end_ms=self.tpm.read_clock().clock, wall_start_ns=start, wall_end_ns=end
        )
        return Observed(
            seq=self.seq,
            prev=self.prev,
            challenge=self.challenge,
            interval=interval,
            telemetry=data,
            work=work,
            spot=self.answer(),
        )

    def answer(self) -> SpotAnswer | None:
        """The answer to what came with the challenge, from the files on disk, as the product reads them."""
        if self.spot is None:
            return None
        assert self.directory is not None
        return read_answer(SpotChallenge.parse(self.spot), self.directory)

    def seal(self, observed: Observed | None = None) -> SealedWindow:
        """The next window, honestly; nothing of the host's chain moves before :meth:`advance`."""
        assert self.sealer is not None
        return self.sealer.seal(observed or self.observe(), begin=lambda _: None)

    def advance(self, sealed: SealedWindow) -> None:
        """The window is behind the host, whether it was answered or not."""
        self.prev, self.seq = sealed.next_prev, self.seq + 1
        # It was for that window; the challenge may have to serve again.
        self.spot = None
        self.wall_ns += PERIOD_NS


# A busy machine gives the engine's process no second: what is judged here is not its speed.
PATIENT = Limits(decide_seconds=20.0)


class Engines:
    """Policies as prepared, shared by many worlds: preparing one starts a process."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[bytes, bytes], Prepared] = {}

    def load(self, policy: policy_set.PolicySet) -> Prepared:
        """``policy``, loaded once."""
        key = policy.digest, policy.reference_digest
        if key not in self._prepared:
            self._prepared[key] = RegorusEngine().load(policy, PATIENT, spares=0)
        return self._prepared[key]

    def close(self) -> None:
        """Stop all of them."""
        for prepared in self._prepared.values():
            prepared.close()


@dataclass
class World:
    """A verifier, its stores in a directory, and one host."""

    directory: Path
    clock: FakeClock
    keys: VerifierKeys
    ledger: Ledger
    leadership: Leadership
    store: Store
    anchors: TrustAnchors
    reference: Reference
    models: dict[bytes, Manifest]
    wanted: Requirements
    policy: policy_set.Shipped
    prepared: Prepared
    engines: Engines | None
    verifier: Verifier
    host: Host
    files: Files | None = None
    contents: Callable[[], Contents] | None = None
    sent: bytes = b""
    published: Published = field(default_factory=Published.nothing)
    own_files: dict[bytes, policy_set.PolicyFiles] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=Baselines)

    @classmethod
    def make(
        cls,
        directory: Path,
        *,
        policy: policy_set.Shipped = "insecure_development",
        platforms: tuple[str, str] = (EMULATED, EMULATED),
        wanted: Requirements | None = None,
        extra_anchors: Sequence[Anchor] = (),
        unchecked: bool = True,
        source: str = "emulated",
        gpus: EmulatedGpus | None = None,
        anchors: TrustAnchors | None = None,
        reference: Callable[[Reference], Reference] = lambda made: made,
        engines: Engines | None = None,
        tpm: SoftTpm | None = None,
        boot: Boot | None = None,
    ) -> Self:
        """A world whose anchors name the emulated roots, under the platform names given for TPM and GPU.

        ``source`` is what the sampler calls itself; ``anchors`` replaces the anchors that would be made, ``reference``
        changes the reference values that would; ``engines`` outlive the world; ``boot`` is what the host did before its
        attester started.
        """
        clock = FakeClock()
        model = manifest()
        host = Host.make(model, clock=clock, gpus=gpus, tpm=tpm)
        host.boots(boot)
        host.source = source
        if anchors is None:
            anchors = TrustAnchors(
                (
                    *host.tpm.authority.anchors(platforms[0]).anchors,
                    gpu_anchor(host.gpus, platform=platforms[1]),
                    *extra_anchors,
                )
            )
        keys = VerifierKeys.create(directory / "keys")
        ledger = Ledger.create(directory / "ledger", origin="ledger.example/test", key=keys.ledger)
        store = Store.create_or_open(directory / "sessions.sqlite")
        values = reference(reference_for(host.gpus, [model], unchecked=unchecked))
        own = engines or Engines()
        prepared = own.load(policy_set.shipped(policy, reference=values))
        world = cls(
            directory=directory,
            clock=clock,
            keys=keys,
            ledger=ledger,
            leadership=FileLeadership(directory / "turns"),
            store=store,
            anchors=anchors,
            reference=values,
            models={model.digest: model},
            wanted=wanted or requirements(),
            policy=policy,
            prepared=prepared,
            engines=None if engines else own,
            verifier=None,  # type: ignore[arg-type]  # built on the next line
            host=host,
        )
        world.verifier = world.restart()
        return world

    @property
    def archive(self) -> Archive:
        """The verifier's records, as it reads and writes them."""
        contents = self.contents() if self.contents else ContentStore(self.directory / "content", files=self.files)
        return Archive(contents, self.ledger, self.leadership)

    @property
    def appraiser(self) -> Appraiser:
        """What judges: the policy, and what it judges by."""
        policy = policy_set.shipped(self.policy, reference=self.reference)
        files = {policy.digest: policy.files, **self.own_files}
        return Appraiser(self.prepared, self.reference, self.models, self.published, files, baselines=self.baselines)

    def restart(self, appraiser: Appraiser | None = None, *, others: Sequence[Bench] = ()) -> Verifier:
        """The verifier as it comes up again over the same stores: nothing in memory survives."""
        self.verifier = Verifier(
            requirements=self.wanted,
            anchors=self.anchors,
            appraiser=appraiser or self.appraiser,
            keys=self.keys,
            archive=self.archive,
            store=self.store,
            clock=self.clock,
            issuer="ledger.example/test",
            others=others,
        )
        return self.verifier

    def publish(self, *items: CollateralItem, believing: Iterable[Anchor] = ()) -> None:
        """The verifier comes up again with this collateral, and with these anchors beside its own."""
        self.anchors = TrustAnchors((*self.anchors.anchors, *believing))
        self.published = Published(Collateral.of(*items), self.anchors)
        self.restart()

    def judge_by(self, engines: Engines, reference: Reference) -> None:
        """The verifier comes up again with other reference values."""
        self.reference = reference
        self.prepared = engines.load(policy_set.shipped(self.policy, reference=reference))
        self.restart()

    def close(self) -> None:
        if self.engines is not None:
            self.engines.close()
        self.store.close()
        self.ledger.close()
        self.leadership.close()

    def open_session(self, host: Host | None = None) -> None:
        """Enrol a host, then load the declared model through the measured loader."""
        who = host or self.host
        who.enrol(self.verifier)
        if who.model.digest not in {model.manifest for model in measurement_log.loaded(who.log.entries)}:
            who.log.load(who.model)

    def window(self, observed: Observed | None = None, *, edit: Callable[[bytes], bytes] | None = None) -> Answer:
        """The host seals its next window a period later and sends it; ``edit`` changes the bytes on the way."""
        self.clock.advance(1)
        sealed = self.host.seal(observed)
        data = sealed.evidence if edit is None else edit(sealed.evidence)
        return self.deliver(sealed, data)

    def deliver(self, sealed: SealedWindow, data: bytes | None = None, *, host: Host | None = None) -> Answer:
        """A sealed window arrives now, as it is or as ``data``; the host goes on with the answer."""
        who = host or self.host
        answer = self.send(sealed.evidence if data is None else data, host=who)
        who.advance(sealed)
        if answer.challenge is not None:
            who.challenge, who.spot = answer.challenge, answer.spot
        return answer

    def send(self, data: bytes, *, host: Host | None = None, peer: bytes | None = None) -> Answer:
        """Any bytes arrive now over a host's channel, or over another one."""
        who = host or self.host
        self.sent = data
        return self.verifier.window(who.session, data, peer=peer or who.peer)

    def another_host(self, name: str, *, gpus: EmulatedGpus | None = None, peer: bytes | None = None) -> Host:
        """A second host as genuine as the first: its own TPM and GPUs, made by the same vendors."""
        vendor = self.host.gpus.vendor
        devices = gpus or EmulatedGpus(vendor, [EmulatedH100.make(vendor) for _ in self.host.gpus.devices])
        host = Host.make(self.host.model, tpm=SoftTpm(name), gpus=devices, clock=self.clock)
        host.peer, host.source = peer or sha256(f"the channel key of {name}".encode()), self.host.source
        return host


def gpu_anchor(gpus: EmulatedGpus, *, platform: str = EMULATED) -> Anchor:
    """The anchor that trusts the root of emulated GPUs, under a platform name."""
    root = load_certificate(gpus.vendor.root_certificate, what="root")
    return Anchor.from_certificate("nvidia-device-root", root, platform=platform, source="a test")


def reference_for(gpus: EmulatedGpus, models: Sequence[Manifest], *, unchecked: bool = True) -> Reference:
    """Reference values that accept these GPUs' measurements and these models."""
    accepted: dict[str, tuple[str, ...]] = {}
    for item in gpus.attest(sha256(b"reference")):
        report = spdm.parse(item.report)
        key = f"GH100/{report.driver_version}/{report.vbios_version}"
        accepted[key] = tuple(sorted({*accepted.get(key, ()), report.measurements_digest.hex()}))
    reasons = dict.fromkeys(CHECKS, "accepted in this test, for the test's sake") if unchecked else {}
    return Reference(
        models={model.digest.hex(): model.name for model in models}, gpu_measurements=accepted, unchecked=reasons
    )


def software_key(seed: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 key that is in no TPM."""
    return derive_key(seed)
