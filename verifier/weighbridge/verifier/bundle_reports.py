"""What a session's devices signed in one window of a bundle, or at its enrolment, and over which nonce.

The procedure of :func:`recorded_reports`, for which no policy is needed:

1. all records are in a trusted ledger and of one session, in order, and the enrolment is verified again: steps 2 to 5
   of :mod:`.bundle`;
2. every window up to the one that is asked for is verified again at its recorded receipt time, since each continues
   the one before; so are its reports, over the nonce that is made of its header;
3. the window has reports: the terms demand them every so many windows.

Left to the caller: policies and verdicts (a window that a policy denied is as authentic as another), and what comes
after that window, of which nothing is shown but that the ledger has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, final

from weighbridge.proto import binding, strict
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence
from weighbridge.verifier.bundle_proof import check_ending, evidence_of, open_bundle
from weighbridge.verifier.clock import moment
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.published import Published
from weighbridge.verifier.replay import replay_window

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle_format import Bundle
    from weighbridge.verifier.bundle_proof import OpenedBundle
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.record import Record

__all__ = ["RecordedReports", "recorded_reports"]

_SEAL = object()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedReports:
    """What the devices of a session signed once. Made by :func:`recorded_reports` only.

    Attributes:
        session: 16 bytes.
        seq: the window's number; ``None`` for the enrolment.
        received: when the verifier received it, by its own word.
        outcome: what the verifier then answered, by its own word: ``affirmed``, ``held``, ``denied``, or ``enrolled``.
            Not judged again.
        hashed: what the nonce is made of, 32 bytes: the window's digest ``H_k``, or the enrolment's qualifying data.
        nonce: ``D("gpu", hashed)``, which every report is signed over.
        devices: the reports of all enrolled devices.
        published: what makers had published by the record, to hold the reports against at ``received``.
    """

    session: bytes
    seq: int | None
    received: datetime
    outcome: str
    hashed: bytes
    nonce: bytes
    devices: tuple[VerifiedGpuReport, ...]
    published: Published
    seal: object = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("RecordedReports is made by recorded_reports only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("RecordedReports cannot be pickled")


def recorded_reports(bundle: Bundle, *, anchors: TrustAnchors, seq: int | None) -> RecordedReports:
    """What was signed in window ``seq`` of ``bundle``, by the procedure in the module's docstring.

    Args:
        bundle: parsed, untrusted.
        anchors: whose keys are believed: ledger, verifier, EK and GPU roots.
        seq: the window's number; ``None`` for the enrolment.

    Raises:
        MalformedEvidence: a part is not well-formed; ``BUNDLE_MALFORMED`` where there is no such window.
        NotAuthentic: a signature or binding does not hold, up to that window.
        LedgerInconsistent: as :func:`weighbridge.verifier.bundle_proof.open_bundle`.
        Indeterminate: ``EVIDENCE_ABSENT`` where no device signed anything then.
    """
    # 1.
    opened = open_bundle(bundle, anchors)
    enrolled = opened.replayed.enrolled
    if seq is None:
        # Enrolment demands reports of at least one device.
        record, outcome = opened.enrolment, "enrolled"
        devices, hashed = enrolled.gpus, enrolled.quote.qualifying_data
    else:
        # 2.
        window, record = _window(opened, seq, anchors)
        # 3.
        if window.gpus is None:
            raise Indeterminate(
                Code.EVIDENCE_ABSENT,
                "no device signed a nonce then",
                where=f"window {seq}",
                hint=f"the terms demand reports every {enrolled.terms.gpu_every} windows, from window 0 on",
            )
        outcome, devices, hashed = _outcome(record), window.gpus, window.digest
    return RecordedReports(
        seal=_SEAL,
        session=enrolled.terms.session,
        seq=seq,
        received=moment(record.received_ns),
        outcome=outcome,
        hashed=hashed,
        nonce=binding.gpu_nonce(hashed),
        devices=devices,
        published=Published(bundle.collateral_named(record.collateral), anchors),
    )


def _window(opened: OpenedBundle, seq: int, anchors: TrustAnchors) -> tuple[VerifiedWindow, Record]:
    """Window ``seq`` and its record, once every window before it is verified."""
    enrolled, position = opened.replayed.enrolled, opened.replayed.position
    chains, digests = ChainCache(), list[bytes]()
    for number, record, entry in opened.windows[: seq + 1]:
        evidence = evidence_of(entry)
        check_ending(record, evidence, enrolled, digests)
        window = replay_window(record, evidence, enrolled=enrolled, position=position, anchors=anchors, chains=chains)
        if number == seq:
            return window, record
        position = position.after(window, obliged=record.obliges_spot_check, telemetry=position.telemetry)
        digests.append(window.digest)
    raise MalformedEvidence(
        Code.BUNDLE_MALFORMED,
        f"the bundle has no window {seq}",
        where="bundle.entries",
        expected=f"0 to {len(opened.windows) - 1}" if opened.windows else "the enrolment alone",
        got=seq,
    )


def _outcome(record: Record) -> str:
    document = strict.json_decode(record.verdict, what="verdict")
    outcome = document.get("outcome") if isinstance(document, dict) else None
    return outcome if isinstance(outcome, str) else "not told"
