"""Opens a session: who this host is, proven by its TPM and its GPUs, answered by the verifier's signed terms.

The attester's half of ``docs/protocol.md`` §4:

1.  The opening names the AK, the certified EK, both TLS keys and the declared model.
2.  The challenge is answered: the credential is activated; a new telemetry key is certified, bound to the boot PCRs;
    the PCRs are quoted; every GPU signs a report. All of it over ``D("enrolment", challenge, cnf, peer)``.
3.  The terms must be signed by a verifier that is believed, and must be about this host, this session and what was
    asked: an attester does not let itself be bound to terms that it did not propose.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from weighbridge.attester.sealing import Carried, quoted_value, runtime_entries, unexplained
from weighbridge.proto import measurement_log
from weighbridge.proto.binding import enrolment_qualifying_data, gpu_nonce
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import sha256
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.proto.manifest import encode_manifests
from weighbridge.proto.manifest_diff import unlike
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.tpm import attest as tpm_attest
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.attester.boot import BootFiles
    from weighbridge.attester.client import Line
    from weighbridge.attester.clock import Clock
    from weighbridge.attester.gpu.interface import GpuSource
    from weighbridge.attester.offload import Offload
    from weighbridge.attester.sealing import RuntimeView
    from weighbridge.attester.tpm.interface import TpmDevice
    from weighbridge.attester.trust import TrustedVerifiers
    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.proto.boot import BootLogs
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.measurement_log import Record
    from weighbridge.proto.spot import SpotChallenge
    from weighbridge.proto.terms import SignedTerms
    from weighbridge.proto.tpm.evidence import QuoteEvidence

__all__ = ["Enrolment", "Identity", "Prover", "enrol"]

_ATTEMPTS: Final = 8
_UNIQUE_SIZE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks for a session, and for what. ``cnf``, ``peer`` and ``model`` are 32 bytes.

    ``pinned`` says that the verifier knows the AK by itself: then no EK is shown and none is needed.
    """

    tenant: str
    audience: str
    cnf: bytes
    peer: bytes
    model: bytes
    adapters: tuple[bytes, ...] = ()
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """An open session: its terms, the first window's challenge and spot check, and what the proof already carried.

    ``credit`` is how many windows may be under way.
    """

    terms: SignedTerms
    challenge: bytes
    spot: SpotChallenge | None
    carried: Carried
    credit: int = 1


@dataclass(frozen=True, slots=True)
class _Proof:
    proof: EnrolmentProof
    telemetry_key: bytes
    carried: Carried


async def enrol(
    line: Line,
    identity: Identity,
    *,
    prover: Prover,
    trusted: TrustedVerifiers,
    clock: Clock,
) -> Enrolment:
    """Open a session over ``line``.

    Args:
        line: connected, with no session on it.
        identity: who asks.
        prover: the hardware that proves it.
        trusted: whose terms are accepted.
        clock: for the validity of the verifier's key.

    Raises:
        EnvironmentFault: ``PEER_UNREACHABLE``, a TPM or GPU code, ``TPM_PCR_SELECTION`` when the verifier wants the log
            in another register, or ``BASELINE_UNEXPLAINED`` when something else extended it.
        NotAuthentic: the terms are not by a believed verifier, or not what was asked for.
        WeighbridgeError: what the verifier refuses with.
    """
    # 1.
    opening = await prover.offload(lambda: prover.opening(identity))
    challenge = EnrolmentChallenge.parse(await line.open(opening.encode()))
    # 2.
    made = await prover.offload(lambda: prover.prove(challenge, identity))
    opened = await line.prove(made.proof.encode())
    # 3.
    at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=clock.wall_ns() // 1000)
    terms = trusted.open_terms(opened.terms, at=at)
    _check_terms(terms, challenge, identity, ak=opening.ak, telemetry_key=made.telemetry_key, gpus=prover.identities())
    return Enrolment(
        terms=terms,
        challenge=opened.challenge,
        spot=opened.spot,
        carried=made.carried,
        credit=opened.credit,
    )


@dataclass(frozen=True, slots=True)
class Prover:
    """The hardware and the log behind a proof; its methods block. ``gpus`` is ``None`` on a host without.

    ``declared`` are the declared manifests: of another that is loaded, tables travel of files that differ from theirs.
    ``boot`` are the logs of the boot, and ``runtime`` the kernel's list of measured files, ``None`` where they are kept
    back or not there; ``collateral`` is what helps to judge the TPM's endorsement.
    """

    tpm: TpmDevice
    gpus: GpuSource | None
    log: MeasurementLog
    offload: Offload
    declared: tuple[Manifest, ...]
    boot: BootFiles | None = None
    runtime: RuntimeView | None = None
    collateral: Collateral = field(default_factory=Collateral)

    def identities(self) -> tuple[bytes, ...]:
        """The GPUs' identities, ascending."""
        return () if self.gpus is None else self.gpus.identities()

    def opening(self, identity: Identity) -> Opening:
        """The first message."""
        return Opening(
            tenant=identity.tenant,
            audience=identity.audience,
            ak=self.tpm.attestation_key(),
            parent=self.tpm.attestation_parent(),
            endorsement=None if identity.pinned else self.tpm.endorsement(),
            collateral=self.collateral,
            cnf=identity.cnf,
            peer=identity.peer,
            kem=None,
            model=identity.model,
            adapters=identity.adapters,
        )

    def prove(self, challenge: EnrolmentChallenge, identity: Identity) -> _Proof:
        """The answer to ``challenge``.

        Raises:
            EnvironmentFault: as :func:`enrol`.
        """
        if challenge.log_pcr != self.log.pcr:
            raise EnvironmentFault(
                Code.TPM_PCR_SELECTION,
                "the verifier wants the measurement log in another register than this host keeps it in",
                where="challenge.log_pcr",
                expected=f"PCR {self.log.pcr}",
                got=f"PCR {challenge.log_pcr}",
                hint=f"start with --log-pcr {challenge.log_pcr}, in a new state directory and after a reboot",
            )
        secret = b"" if challenge.credential is None else self.tpm.activate_credential(*challenge.credential)
        bank = HashAlgorithm(challenge.bank)
        telemetry_key = self.tpm.create_telemetry_key(
            unique=secrets.token_bytes(_UNIQUE_SIZE), boot=PcrSelection.of(bank, challenge.boot_pcrs)
        )
        qualifying_data = enrolment_qualifying_data(challenge.challenge, identity.cnf, identity.peer)
        attest, signature = self.tpm.certify_telemetry_key(qualifying_data)
        reports = () if self.gpus is None else self.gpus.attest(gpu_nonce(qualifying_data))
        selection = PcrSelection.of(bank, challenge.pcrs)
        quote, records, boot = self._quote(selection, qualifying_data, with_boot="boot" in challenge.evidence)
        if boot is not None and "runtime" in challenge.evidence:
            boot = replace(boot, runtime=runtime_entries(self.runtime, 0, quote, selection))
        manifests = self._manifests(records)
        return _Proof(
            proof=EnrolmentProof(
                session=challenge.session,
                secret=secret,
                telemetry_key=telemetry_key,
                certify_attest=attest,
                certify_signature=signature,
                quote=quote.encode(),
                gpus=gpu_evidence.encode(reports),
                log=measurement_log.encode_records(records),
                manifests=encode_manifests(manifests),
                boot=None if boot is None else boot.encode(),
            ),
            telemetry_key=telemetry_key,
            carried=Carried(
                records=len(records),
                manifests=frozenset(manifest.digest for manifest in manifests),
                reset_count=tpm_attest.parse(quote.attest).clock_info.reset_count,
                runtime=0 if boot is None or boot.runtime is None else len(boot.runtime),
            ),
        )

    def _quote(
        self, selection: PcrSelection, qualifying_data: bytes, *, with_boot: bool
    ) -> tuple[QuoteEvidence, tuple[Record, ...], BootLogs | None]:
        """A quote, exactly the records that are in its register, and the logs of the boot as they were then."""
        for _ in range(_ATTEMPTS):
            records, boot = self.log.records(), self._boot_logs() if with_boot else None
            quote = self.tpm.quote(selection, qualifying_data)
            if len(self.log.records()) == len(records) and (boot is None or self._boot_logs() == boot):
                self._check_explained(quote, selection, records)
                return quote, records, boot
        raise EnvironmentFault(
            Code.TPM_FAILED,
            "models are loaded, or the boot goes on, faster than a quote can be made",
            hint="load models one after the other; start the attester when the boot is done",
        )

    def _check_explained(self, quote: QuoteEvidence, selection: PcrSelection, records: Sequence[Record]) -> None:
        """Require that ``records`` lead to the register, or a verifier would hold it against this host."""
        pcr, (bank, indices) = self.log.pcr, selection.one_bank()
        if pcr not in indices or bank not in self.log.start:
            raise EnvironmentFault(
                Code.TPM_PCR_SELECTION,
                "the verifier wants a quote without the measurement log's register",
                where="challenge.pcrs",
                expected=f"PCR {pcr} of an active bank",
                got=f"{bank.name}: {', '.join(map(str, indices))}",
            )
        expected, got = (
            measurement_log.replay(self.log.start[bank], records, bank, pcr=pcr),
            quoted_value(quote, selection, pcr),
        )
        if got != expected:
            raise unexplained(pcr, expected=expected, got=got, where="enrolment")

    def _boot_logs(self) -> BootLogs:
        if self.boot is None:
            raise EnvironmentFault(
                Code.EVIDENCE_ABSENT,
                "the verifier demands the logs of the boot, and they are kept back",
                where="challenge.evidence",
                hint="run without --boot-logs none",
            )
        return self.boot.read()

    def _manifests(self, records: Sequence[Record]) -> tuple[Manifest, ...]:
        loaded = dict.fromkeys(model.manifest for model in measurement_log.loaded(records))
        found = [self.log.manifest(digest) for digest in loaded]
        return tuple(manifest.telling(unlike(manifest, self.declared)) for manifest in found)


def _check_terms(
    signed: SignedTerms,
    challenge: EnrolmentChallenge,
    identity: Identity,
    *,
    ak: bytes,
    telemetry_key: bytes,
    gpus: tuple[bytes, ...],
) -> None:
    terms = signed.terms
    compared: tuple[tuple[str, object, object], ...] = (
        ("session", challenge.session, terms.session),
        ("tenant", identity.tenant, terms.tenant),
        ("audience", identity.audience, terms.audience),
        ("ak", sha256(tpm_public.parse(ak).spki()), terms.ak),
        ("telemetry_key", sha256(tpm_public.parse(telemetry_key).spki()), terms.telemetry_key),
        ("cnf", identity.cnf, terms.cnf),
        ("peer", identity.peer, terms.peer),
        ("kem", None, terms.kem),
        ("model", identity.model, terms.model),
        ("adapters", identity.adapters, terms.adapters),
        ("gpus", gpus, terms.gpus),
        ("bank", challenge.bank, terms.bank),
        ("pcrs", challenge.pcrs, terms.pcrs),
        ("boot_pcrs", challenge.boot_pcrs, terms.boot_pcrs),
        ("log_pcr", challenge.log_pcr, terms.log_pcr),
    )
    for name, asked, got in compared:
        if asked != got:
            raise NotAuthentic(
                Code.WINDOW_TERMS,
                "the terms are not what was asked for",
                where=f"terms.{name}",
                expected=asked,
                got=got,
            )
