"""The verification of one window, written once. This is the page to read first.

:func:`authenticating` (a failure is junk: counted, never latched, since anybody could have sent it):

1.  The bytes are bounded and the evidence collection is well-formed.
2.  The header is inside a COSE_Sign1 by the session's telemetry key, which the AK certified at enrolment and which no
    TPM reset survives (RFC 9052 §4.4; TPM 2.0 Part 1 §14.4).
3.  It came over the channel of the key that the terms name.

:func:`verifying` (the window is authentic, so a failure fails the session):

4.  The header is for this session: profile, tenant, session, audience, terms, model, keys (``docs/protocol.md`` §5).
5.  It continues the chain: ``seq`` and ``prev``.
6.  Its interval follows the last one by both clocks, and does not lie in the future.
7.  The telemetry is the one that was signed, of this session and time, of each enrolled GPU, and of no other device.
8.  The measurement log continues without a gap and has the head and length that were signed.
9.  GPU reports are there exactly when the terms demand them; each is signed under a trusted chain over
    ``D("gpu", H_k)``; the devices are exactly the enrolled ones, matched by identity.
10. What vouches for the AK has not ended; the quote is signed by it over ``D("tpm", H_k, G_k, P_k)`` and selects
    exactly the terms' PCRs. Where no GPU report is due, what vouched for the latest ones has not ended either.
11. The TPM has not been reset, its clock went on, its firmware is the same.
12. The log replays to the quoted register; the boot PCRs are those of the enrolment. Where it is demanded, the
    kernel's list of measured files goes on from the last window's and leads to the quoted PCR 10.
13. Every manifest that a new record names is there or came before, and none came that no new record names: nothing
    signs the manifests but the digests in the log.
14. Where a spot challenge came with the window's own challenge, the header answers exactly it, as its owner computed
    from the model's bytes; where none came, it answers nothing. An answer that is late is absent here.

Steps that belong to the caller: whether the challenge was issued, is outstanding and in time (that decides *fresh* or
*held*, :mod:`weighbridge.verifier.core`) and which spot challenge came with it; duplicates and forks against the
record; then appraisal: weights, policy. Where a step yields, the same is done of other windows (:mod:`.side_by_side`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from weighbridge.proto import binding, cose, measurement_log
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.window import Evidence, Header
from weighbridge.verifier import weights
from weighbridge.verifier.gpu.set import verifying_gpus
from weighbridge.verifier.requirements import RUNTIME_PCR
from weighbridge.verifier.side_by_side import at_once
from weighbridge.verifier.spot_answer import check_answer
from weighbridge.verifier.tpm.continuity import check_continuity
from weighbridge.verifier.tpm.quote import verify_quote
from weighbridge.verifier.window_claims import (
    check_chain,
    check_header,
    check_interval,
    check_telemetry,
    check_tpm_interval,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.spot import SpotExpectation
    from weighbridge.proto.telemetry import Telemetry
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.boot.runtime import RuntimeLog
    from weighbridge.verifier.gpu.chain import ChainCache
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.session import Enrolled, Position
    from weighbridge.verifier.side_by_side import Steps
    from weighbridge.verifier.tpm.ak import VerifiedAk
    from weighbridge.verifier.tpm.quote import VerifiedQuote
    from weighbridge.verifier.weights import LogState

__all__ = [
    "AuthenticWindow",
    "Signatures",
    "VerifiedWindow",
    "authenticate",
    "fork",
    "verify_signatures",
    "verify_window",
]

_SEAL: Final = object()
_KEY_HINT: Final = "a TPM reset destroys the telemetry key, however its counters are restored: open a new session"


@final
@dataclass(frozen=True, slots=True)
class AuthenticWindow:
    """A window that the session's telemetry key signed. Its claims are the host's; nothing else is verified yet."""

    evidence: Evidence
    header: Header
    header_bytes: bytes
    digest: bytes
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("AuthenticWindow is made by authenticate only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("AuthenticWindow cannot be pickled")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedWindow:
    """A window whose every signature and binding holds, and which continues its session's chain.

    ``spot`` is the identifier of the spot challenge that it answered; ``None`` when it was asked none. ``chains`` are
    as in :class:`Signatures`: what windows have in common.
    """

    header: Header
    digest: bytes
    qualifying_data: bytes
    held: bool
    quote: VerifiedQuote
    gpus: tuple[VerifiedGpuReport, ...] | None
    telemetry: Telemetry
    log: LogState
    runtime: RuntimeLog | None
    manifests: Mapping[bytes, Manifest]
    spot: bytes | None
    chains: tuple[bytes, ...]
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedWindow is made by verify_window only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedWindow cannot be pickled")


@dataclass(frozen=True, slots=True)
class Signatures:
    """What steps 9 and 10 proved of a window: its devices' reports, and the quote over all of it.

    ``chains`` are the devices' certificate chains as they are encoded in the evidence, in the order sent.
    """

    gpus: tuple[VerifiedGpuReport, ...] | None
    quote: VerifiedQuote
    qualifying_data: bytes
    chains: tuple[bytes, ...]


def authenticating(raw: bytes, *, enrolled: Enrolled, peer: bytes) -> Steps[AuthenticWindow]:
    """Steps 1 to 3.

    Args:
        raw: untrusted.
        enrolled: the session that the channel belongs to.
        peer: SHA-256 of the SubjectPublicKeyInfo of the peer's TLS certificate, from the transport.

    Raises:
        MalformedEvidence: not well-formed.
        NotAuthentic: ``TELEMETRY_KEY_MISMATCH``, ``COSE_SIGNATURE`` or ``WINDOW_PEER``.
    """
    # 1.
    evidence = Evidence.parse(raw)
    signed = evidence.signed_header()
    # 2. The key is fixed by the session, not chosen by the message.
    key = enrolled.telemetry_key
    if signed.claimed_kid != key.thumbprint:
        raise NotAuthentic(
            Code.TELEMETRY_KEY_MISMATCH,
            "the header is signed by another key than the session's telemetry key",
            where="window.protected",
            expected=key.thumbprint,
            got=signed.claimed_kid,
            hint=_KEY_HINT,
        )
    yield
    try:
        header_bytes = cose.verify(signed, key.key)
    except NotAuthentic as error:
        error.hint = _KEY_HINT
        raise
    yield
    # 3. Compared before the header is looked at: the channel is part of who speaks.
    if peer != enrolled.terms.peer:
        raise NotAuthentic(
            Code.WINDOW_PEER,
            "the window came over another peer's channel",
            where="channel",
            expected=enrolled.terms.peer,
            got=peer,
        )
    header = Header.parse(header_bytes)
    return AuthenticWindow(evidence, header, header_bytes, binding.window_digest(header_bytes), _SEAL)


def fork(window: AuthenticWindow, recorded: bytes | None) -> NotAuthentic:
    """The error of a window whose number another one has, with the digest ``recorded``."""
    return NotAuthentic(
        Code.WINDOW_FORK,
        "two windows with one number, both signed by the session's key",
        where=f"window {window.header.seq}",
        expected=recorded,
        got=window.digest,
    )


def verifying(
    window: AuthenticWindow,
    *,
    enrolled: Enrolled,
    position: Position,
    held: bool,
    spot: SpotExpectation | None,
    anchors: TrustAnchors,
    at: datetime,
    chains: ChainCache | None = None,
) -> Steps[VerifiedWindow]:
    """Steps 4 to 14.

    Args:
        window: authenticated for this session.
        enrolled: what was proven at enrolment.
        position: where the chain stands.
        held: whether the caller found the challenge stale; such a window is verified like any other.
        spot: what the window was asked together with the challenge under which it is sealed, if that is its own.
        anchors: whose keys are believed.
        at: the verifier's receipt time; certificates must be valid then.
        chains: saves repeated work on unchanged certificate chains; changes no answer.

    Raises:
        MalformedEvidence: a part is not well-formed.
        NotAuthentic: a signature, chain, nonce or binding does not hold; the code names the step.
    """
    header, evidence, terms = window.header, window.evidence, enrolled.terms
    # 4.
    check_header(header, enrolled)
    # 5.
    check_chain(header, position)
    # 6.
    check_interval(header, position, at)
    # 7.
    samples = check_telemetry(evidence.telemetry, header, enrolled)
    yield
    # 8.
    records = measurement_log.parse_records(evidence.log)
    log = position.log.extended(records, bank=HashAlgorithm(terms.bank), pcr=terms.log_pcr)
    if (len(log.records), log.head) != (header.log_length, header.log_head):
        raise NotAuthentic(
            Code.LOG_HEAD, "the log is not the one that was signed", where="log", expected=header.log_head, got=log.head
        )
    # 9. and 10.
    signed = yield from verifying_signatures(window, enrolled=enrolled, anchors=anchors, at=at, chains=chains)
    gpus, quote = signed.gpus, signed.quote
    if gpus is None:
        _check_latest(position.gpus, at)
    # 11.
    check_continuity(first=enrolled.quote, previous=position.quote, current=quote)
    check_tpm_interval(header, position, quote)
    # 12.
    if quote.pcrs[terms.log_pcr] != log.register:
        raise NotAuthentic(
            Code.LOG_REPLAY,
            "the log does not replay to the quoted register",
            where=f"pcr {terms.log_pcr}",
            expected=quote.pcrs[terms.log_pcr],
            got=log.register,
            hint="something was extended that the log does not name",
        )
    for register in terms.boot_pcrs:
        if quote.pcrs[register] != enrolled.quote.pcrs[register]:
            raise NotAuthentic(
                Code.TPM_PCR_VALUES,
                "a boot register changed since enrolment",
                where=f"pcr {register}",
                expected=enrolled.quote.pcrs[register],
                got=quote.pcrs[register],
            )
    runtime = _continue_runtime(evidence.runtime, position, terms, quote)
    # 13.
    manifests = weights.open_manifests(evidence.manifests)
    weights.check_manifests(manifests, named={model.manifest for model in log.fresh}, known=position.manifests)
    # 14.
    check_answer(header.spot, spot)
    return VerifiedWindow(
        seal=_SEAL,
        header=header,
        digest=window.digest,
        qualifying_data=signed.qualifying_data,
        held=held,
        quote=quote,
        gpus=gpus,
        telemetry=samples,
        log=log,
        runtime=runtime,
        manifests=manifests,
        spot=None if spot is None else spot.challenge.id,
        chains=signed.chains,
    )


def verifying_signatures(
    window: AuthenticWindow,
    *,
    enrolled: Enrolled,
    anchors: TrustAnchors,
    at: datetime,
    chains: ChainCache | None = None,
) -> Steps[Signatures]:
    """Steps 9 and 10, which take nothing of the windows before.

    Raises:
        MalformedEvidence, NotAuthentic: as :func:`verifying`.
    """
    header, evidence, terms = window.header, window.evidence, enrolled.terms
    # 9.
    if (evidence.gpus is not None) != terms.gpu_due(header.seq):
        code = Code.EVIDENCE_ABSENT if evidence.gpus is None else Code.EVIDENCE_UNEXPECTED
        raise NotAuthentic(code, "GPU reports are not where the terms demand them", where=f"window {header.seq}")
    reports = None if evidence.gpus is None else gpu_evidence.parse(evidence.gpus)
    gpus = None
    if reports is not None:
        nonce = binding.gpu_nonce(window.digest)
        gpus = yield from verifying_gpus(
            reports,
            nonce=nonce,
            anchors=anchors,
            at=at,
            expected=frozenset(terms.gpus),
            cache=chains,
            accept=frozenset(gpu.kind for gpu in enrolled.gpus),
        )
    # 10.
    _check_vouched(enrolled.ak, at)
    rows = None if gpus is None else [report.binding_row for report in gpus]
    qualifying_data = binding.qualifying_data(window.digest, gpu_evidence.rows_binding(rows), None)
    selection = PcrSelection.of(HashAlgorithm(terms.bank), terms.pcrs)
    quote_evidence = QuoteEvidence.parse(evidence.quote)
    yield
    quote = verify_quote(quote_evidence, enrolled.ak, qualifying_data=qualifying_data, selection=selection)
    yield
    return Signatures(gpus, quote, qualifying_data, gpu_evidence.chains_of(reports or ()))


# For whoever has one window alone.
authenticate: Final = at_once(authenticating)
verify_window: Final = at_once(verifying)
verify_signatures: Final = at_once(verifying_signatures)


def _check_vouched(ak: VerifiedAk, at: datetime) -> None:
    """A session can outlive the certificates by which its AK was believed when it was enrolled: not as a proof."""
    if at > ak.not_after:
        message = "what vouches for the attestation key has ended since enrolment"
        raise _ended(message, where=f"ak, under anchor {ak.anchor}", until=ak.not_after, at=at)


def _check_latest(reports: Sequence[VerifiedGpuReport], at: datetime) -> None:
    """A window rests on the latest reports until the next ones, by whose chains it is judged then."""
    for report in reports:
        chain = report.chain
        if at > chain.not_after:
            where = f"gpu {chain.identity.hex()[:16]}, under anchor {chain.anchor.name}"
            raise _ended("what vouches for a GPU has ended since its report", where=where, until=chain.not_after, at=at)


def _ended(message: str, *, where: str, until: datetime, at: datetime) -> NotAuthentic:
    return NotAuthentic(
        Code.CHAIN_EXPIRED,
        message,
        where=where,
        expected=f"until {until.isoformat()}",
        got=at.isoformat(),
        hint="renew the certificate, or the anchor at the verifier, and open a new session: nothing sticks to it",
    )


def _continue_runtime(data: bytes | None, position: Position, terms: Terms, quote: VerifiedQuote) -> RuntimeLog | None:
    """The kernel's list with what came in this window; it is there exactly if the terms demand it."""
    if (data is not None) != ("runtime" in terms.evidence) or (data is None) != (position.runtime is None):
        code = Code.EVIDENCE_ABSENT if data is None else Code.EVIDENCE_UNEXPECTED
        raise NotAuthentic(code, "the kernel's list of measured files is not where it is demanded", where="runtime")
    if data is None or position.runtime is None:
        return None
    return position.runtime.extended(data, quoted=quote.pcrs[RUNTIME_PCR], bank=quote.bank)
