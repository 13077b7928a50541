"""Proves that exactly the expected devices answered, each once.

The procedure of :func:`verifying_gpus`, which yields around each signature (:mod:`.side_by_side`):

1. there is evidence: an empty list would satisfy every rule that says "each device";
2. each report parses, each chain and report verifies for the one nonce, and each device is of a kind that is accepted:
   an NVSwitch is no GPU;
3. no two have the same identity: one device counted twice is one device;
4. at least one of them is a GPU: switches alone compute nothing;
5. where devices are enrolled, none is missing and none is extra. Devices are matched by identity, never by order. An
   identity is of one kind for good, so that exactly as many GPUs and as many switches answer as are enrolled;
6. where GPUs are in protected-PCIe mode, they and their switches are all there (:mod:`.topology`).

Not excluded: an enrolled device that is somewhere else and answers over a live relay. Binding is not co-location.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.spdm import report as spdm
from weighbridge.verifier.gpu.chain import GPUS, verify_chain
from weighbridge.verifier.gpu.report import VerifiedGpuReport, verifying_report
from weighbridge.verifier.gpu.topology import check_topology
from weighbridge.verifier.side_by_side import at_once

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.spdm.evidence import GpuEvidence
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.gpu.chain import ChainCache, Kind
    from weighbridge.verifier.side_by_side import Steps

__all__ = ["verify_gpus", "verifying_gpus"]


def verifying_gpus(
    evidence: Sequence[GpuEvidence],
    *,
    nonce: bytes,
    anchors: TrustAnchors,
    at: datetime,
    expected: frozenset[bytes] | None,
    cache: ChainCache | None = None,
    accept: frozenset[Kind] = GPUS,
) -> Steps[tuple[VerifiedGpuReport, ...]]:
    """The verified reports, sorted by identity, by the procedure in the module's docstring.

    Args:
        evidence: as sent, in any order; untrusted.
        nonce: the one nonce that every device was to sign, 32 bytes.
        anchors: see :func:`verify_chain`.
        at: aware.
        expected: identities of the enrolled devices; ``None`` at enrolment only, where they are learnt.
        cache: saves repeated work on unchanged chains; changes no answer.
        accept: the kinds of device that may be among the evidence; who accepts switches counts by :attr:`kind`.

    Raises:
        MalformedEvidence: for a report or chain that does not parse, and ``TRAILING_BYTES``.
        NotAuthentic: ``GPU_MISSING``, ``GPU_DUPLICATE``, ``GPU_UNEXPECTED``, or what :func:`verify_chain`,
            :func:`verifying_report` and :func:`check_topology` raise.
    """
    # 1.
    if not evidence:
        raise NotAuthentic(Code.GPU_MISSING, "no GPU evidence", where="gpus", expected="at least one device", got=0)
    verified: dict[bytes, VerifiedGpuReport] = {}
    for number, item in enumerate(evidence):
        # 2.
        parsed = spdm.parse(item.report)
        chain = (verify_chain if cache is None else cache.verify_chain)(item.chain, anchors, at=at, accept=accept)
        result = yield from verifying_report(parsed, chain, nonce=nonce)
        # 3.
        if result.identity in verified:
            raise NotAuthentic(
                Code.GPU_DUPLICATE, "one device is presented twice", where=f"gpus[{number}]", got=result.identity
            )
        verified[result.identity] = result
    # 4.
    if all(report.kind != "gpu" for report in verified.values()):
        raise NotAuthentic(
            Code.GPU_MISSING, "switches attested and no GPU", where="gpus", expected="at least one GPU", got=0
        )
    # 5.
    if expected is not None:
        _check_expected(frozenset(verified), expected)
    # 6.
    check_topology(tuple(verified.values()))
    return tuple(verified[identity] for identity in sorted(verified))


verify_gpus: Final = at_once(verifying_gpus)
"""The same at once."""


def _check_expected(present: frozenset[bytes], expected: frozenset[bytes]) -> None:
    missing, extra = sorted(expected - present), sorted(present - expected)
    if extra:
        raise NotAuthentic(
            Code.GPU_UNEXPECTED,
            f"{len(extra)} of {len(present)} devices are not enrolled in this session",
            where="gpus",
            expected=", ".join(identity.hex()[:16] for identity in sorted(expected)) or "none",
            got=extra[0],
            hint="A GPU was exchanged or added; devices are enrolled when a session opens." if missing else "",
        )
    if missing:
        raise NotAuthentic(
            Code.GPU_MISSING,
            f"{len(missing)} of {len(expected)} enrolled devices did not answer",
            where="gpus",
            expected=missing[0],
        )
