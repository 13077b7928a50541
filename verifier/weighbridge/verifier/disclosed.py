"""A window that is shown without those before it: what its own bytes prove, and what one cannot see.

The procedure of :func:`verify_alone`, with the steps of :mod:`.procedure`:

1. steps 1 to 4: well-formed, signed by the session's telemetry key, a header of this session;
2. the record is of this window: its number and H, and, of a fresh one, the challenge whose preimage is recorded;
3. step 7, the samples; steps 9 and 10, GPU reports and quote; step 14, the spot check;
4. where the window before is shown as well, the header continues it.

Not checked, because it takes the windows before: both clocks (6, 11), the measurement log and the kernel's list
(8, 12, 13), what became of a GPU's record, and so the verdict, which is the verifier's recorded word here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.proto import binding
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence, NotAuthentic
from weighbridge.proto.merkle import leaf_hash, verify_inclusion
from weighbridge.verifier.clock import moment
from weighbridge.verifier.procedure import authenticate, verify_signatures
from weighbridge.verifier.spot_answer import check_answer
from weighbridge.verifier.window_claims import check_header, check_telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.proto.window import Header
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle_format import ShownRequest
    from weighbridge.verifier.gpu.chain import ChainCache
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.session import Enrolled

__all__ = ["AloneWindow", "check_requests", "verify_alone"]


@dataclass(frozen=True, slots=True)
class AloneWindow:
    """What :func:`verify_alone` proved. Its place in the session's chain is the ledger's word.

    Attributes:
        header: of the window.
        samples: the telemetry as it was sent.
        reports: how many devices signed.
        link: what the header of the next window names.
    """

    header: Header
    samples: bytes
    reports: int
    link: bytes


def verify_alone(
    evidence: bytes,
    record: Record,
    *,
    enrolled: Enrolled,
    anchors: TrustAnchors,
    before: AloneWindow | None,
    chains: ChainCache,
) -> AloneWindow:
    """Verify what can be of a window by itself: the module's procedure.

    Args:
        evidence: untrusted, with the digest that the record names.
        record: of the window, committed to by a trusted ledger.
        enrolled: what was proven at enrolment.
        anchors: whose keys are believed.
        before: the window before, where that is shown as well.
        chains: saves repeated work on unchanged certificate chains.

    Raises:
        MalformedEvidence, NotAuthentic: as the procedure in :mod:`weighbridge.verifier.procedure`.
        LedgerInconsistent: ``LEDGER_INCONSISTENT`` when the record is of another window.
    """
    # 1.
    window = authenticate(evidence, enrolled=enrolled, peer=enrolled.terms.peer)
    header = window.header
    check_header(header, enrolled)
    # 2.
    if (header.seq, window.digest) != (record.seq, record.window):
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "the record is of another window",
            where=f"window {header.seq}",
            expected=record.window,
            got=window.digest,
        )
    if not record.held and record.preimage is not None:
        preimage = record.preimage
        expected = binding.challenge(preimage.ledger_root, record.session, header.seq, preimage.random)
        if header.challenge != expected:
            raise NotAuthentic(
                Code.CHALLENGE_UNKNOWN,
                "recorded as fresh, but the challenge is not the recorded one",
                where=f"window {header.seq}",
                expected=expected,
                got=header.challenge,
            )
    # 3.
    check_telemetry(window.evidence.telemetry, header, enrolled)
    signed = verify_signatures(window, enrolled=enrolled, anchors=anchors, at=moment(record.received_ns), chains=chains)
    check_answer(header.spot, record.spot)
    # 4.
    if before is not None and before.header.seq + 1 == header.seq and header.prev != before.link:
        raise NotAuthentic(
            Code.WINDOW_PREV,
            "the window continues another chain",
            where="header.prev",
            expected=before.link,
            got=header.prev,
        )
    return AloneWindow(
        header,
        window.evidence.telemetry,
        0 if signed.gpus is None else len(signed.gpus),
        binding.link(window.digest, signed.qualifying_data),
    )


def check_requests(requests: Sequence[ShownRequest], headers: Mapping[int, Header]) -> None:
    """Require that each of ``requests`` is one of those that its window's header counts.

    Not checked: that anything was computed, or by what: a header counts what the host says.

    Args:
        requests: untrusted.
        headers: verified, by the windows' numbers.

    Raises:
        MalformedEvidence: ``BUNDLE_MALFORMED``: one is there twice, or they are out of order.
        NotAuthentic: ``BUNDLE_REQUEST``.
    """
    places = [(item.seq, item.index) for item in requests]
    if places != sorted(set(places)):
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "requests are repeated or out of order", where="bundle.requests")
    for item in requests:
        where = f"request {item.index} of window {item.seq}"
        header = headers.get(item.seq)
        if header is None:
            raise NotAuthentic(Code.BUNDLE_REQUEST, "the window that counts it is not shown", where=where)
        leaf = leaf_hash(D("work", item.salt, item.request, item.response))
        try:
            verify_inclusion(leaf, item.proof, index=item.index, size=header.work.requests, root=header.work.root)
        except LedgerInconsistent as error:
            raise NotAuthentic(
                Code.BUNDLE_REQUEST, "not a request that the window counts", where=where, expected=header.work.root
            ) from error
