"""Where a case of the corpus is built and judged: fresh worlds at a fixed time, and what came of it.

A case is a function from an :class:`Arena` to what the product answered, or it raises as the product raised. What the
corpus knows of a case beside its bytes is in its manifest (:mod:`corpus.manifests`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from support.world import NOON, World
from weighbridge.attester.sealing import SealedWindow
from weighbridge.proto import cose
from weighbridge.proto.errors import MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm import signature as tpm_signature
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.window import Evidence
from weighbridge.proto.x509 import load_certificate
from weighbridge.verifier.bundle import BundleVerdict
from weighbridge.verifier.conformance.result import Result, accepted, enrolled, of_answer, of_bundle, of_error
from weighbridge.verifier.core import Answer, Opened, Resumed
from weighbridge.verifier.result_token import ResultToken

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from fakes.boot_logs import Boot
    from fakes.soft_tpm import SoftTpm
    from support.world import Engines, Host
    from weighbridge.attester.gpu.emulated import EmulatedGpus
    from weighbridge.policy.policy_set import Shipped
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.enrolment import EnrolmentProof
    from weighbridge.proto.tpm.public import Public
    from weighbridge.verifier.anchors import Anchor, TrustAnchors
    from weighbridge.verifier.requirements import Requirements

Signatures = Literal["good", "broken", "none"]
Shown = Answer | Opened | Resumed | ResultToken | BundleVerdict | None


class Options(TypedDict, total=False):
    """What :meth:`support.world.World.make` can be asked for."""

    policy: Shipped
    platforms: tuple[str, str]
    wanted: Requirements | None
    extra_anchors: list[Anchor]
    unchecked: bool
    source: str
    gpus: EmulatedGpus | None
    anchors: TrustAnchors | None
    reference: Callable[[Reference], Reference]
    tpm: SoftTpm | None
    boot: Boot | None


class Arena:
    """Makes worlds for one case, closes them, and remembers what was sent last."""

    def __init__(self, directory: Path, engines: Engines) -> None:
        self._directory = directory
        self.engines = engines
        self.worlds: list[World] = []
        self.hosts: list[Host] = []
        self.proof: EnrolmentProof | None = None

    @property
    def at(self) -> datetime:
        """The verifier's time at which the case was judged."""
        return self.worlds[-1].clock.at if self.worlds else NOON

    def world(self, **options: Unpack[Options]) -> World:
        """A world without a session."""
        directory = self._directory / f"world-{len(self.worlds)}"
        directory.mkdir()
        world = World.make(directory, engines=self.engines, **options)
        self.worlds.append(world)
        self.hosts.append(world.host)
        return world

    def settled(self, windows: int = 2, **options: Unpack[Options]) -> World:
        """A world whose session has seen ``windows`` good windows."""
        world = self.world(**options)
        world.open_session()
        for _ in range(windows):
            answer = world.window()
            assert answer.verdict.opens, answer.verdict.denials
        return world

    def another_host(self, world: World, name: str = "another", *, gpus: EmulatedGpus | None = None) -> Host:
        """A second genuine host, not enrolled yet."""
        host = world.another_host(name, gpus=gpus)
        self.hosts.append(host)
        return host

    def submit(
        self,
        world: World,
        window: SealedWindow | bytes,
        *,
        host: Host | None = None,
        peer: bytes | None = None,
        after: float = 1,
    ) -> Answer:
        """Have ``window`` judged ``after`` seconds from now; the host's chain stays where it is."""
        data = window.evidence if isinstance(window, SealedWindow) else window
        world.clock.advance(after)
        return world.send(data, host=host, peer=peer)

    def enrol(
        self,
        world: World,
        host: Host | None = None,
        *,
        edit: Callable[[EnrolmentProof], EnrolmentProof] = lambda proof: proof,
        peer: bytes | None = None,
        after: float = 0,
    ) -> Opened:
        """Open a session by hand, with the proof changed on its way."""
        who = host or world.host
        challenge = world.verifier.open(who.opening().encode(), peer=who.peer)
        self.proof = edit(who.proof(challenge))
        world.clock.advance(after)
        world.sent = b""
        return world.verifier.prove(self.proof.encode(), peer=peer or who.peer)

    def forget(self) -> None:
        """What was sent so far is not what the case is about."""
        for world in self.worlds:
            world.sent = b""

    def signatures(self) -> Signatures:
        """Whether every signature in what was sent last is by the key that it names."""
        sent = self.worlds[-1].sent if self.worlds else b""
        try:
            evidence = Evidence.parse(sent) if sent else None
        except MalformedEvidence:
            return "none"
        try:
            if evidence is not None:
                self._check_header(evidence)
                self._check_quote(evidence.quote)
                _check_reports(evidence.gpus)
            elif self.proof is not None:
                self._check_quote(self.proof.quote)
                self._check_attest(self.proof.certify_attest, self.proof.certify_signature)
                _check_reports(self.proof.gpus)
            else:
                return "none"
        except (InvalidSignature, MalformedEvidence, NotAuthentic):
            return "broken"
        return "good"

    def _check_header(self, evidence: Evidence) -> None:
        signed = evidence.signed_header()
        now = [host.tpm.telemetry_key for host in self.hosts if host.tpm.telemetry_key is not None]
        keys = [*(key for host in self.hosts for key in host.telemetry_keys), *(key.public_key() for key in now)]
        known = {cose.thumbprint(key): key for key in keys}
        if signed.claimed_kid not in known:
            raise InvalidSignature
        cose.verify(signed, known[signed.claimed_kid])

    def _check_quote(self, data: bytes) -> None:
        quote = QuoteEvidence.parse(data)
        self._check_attest(quote.attest, quote.signature)

    def _check_attest(self, attest: bytes, signature: bytes) -> None:
        parsed = tpm_signature.parse(signature)
        if not any(_verifies(parsed, host, attest) for host in self.hosts):
            raise InvalidSignature

    def close(self) -> None:
        """Let go of all worlds."""
        for world in self.worlds:
            world.close()


def _verifies(signature: tpm_signature.Signature, host: Host, attest: bytes) -> bool:
    try:
        tpm_signature.verify(signature, ak_of(host), attest)
    except NotAuthentic:
        return False
    return True


def ak_of(host: Host) -> Public:
    """The public area of a host's attestation key."""
    return tpm_public.parse(host.tpm.attestation_key())


def _check_reports(data: bytes | None) -> None:
    for item in () if data is None else gpu_evidence.parse(data):
        report = spdm.parse(item.report)
        key = load_certificate(item.chain[0], "leaf").public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        half = len(report.signature) // 2
        r, s = int.from_bytes(report.signature[:half]), int.from_bytes(report.signature[half:])
        key.verify(encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))


def judged(case: Callable[[Arena], Shown], arena: Arena) -> Result:
    """Build and judge one case."""
    try:
        shown = case(arena)
    except WeighbridgeError as error:
        return of_error(error)
    match shown:
        case Answer():
            return of_answer(shown)
        case BundleVerdict():
            return of_bundle(shown)
        case Opened():
            return enrolled()
        case Resumed() | ResultToken() | None:
            return accepted()
