"""What a policy is asked about one verified window: the invariants first, then the one total document.

Decides nothing and needs no policy: the same case is put to the policy in force when the window arrives
(:mod:`.appraisal`), and to any other one later (:mod:`.recorded`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.policy.engine import Denial
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.verifier import acceptance, weights
from weighbridge.verifier.gpu_appraisal import appraise_gpus
from weighbridge.verifier.host_appraisal import appraise_host
from weighbridge.verifier.policy_input import Known, policy_input

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.policy.document import AttesterCode, PolicyInput
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.published import Published

__all__ = ["Case", "denial_of", "make_case"]


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be decided of a window, or why nothing is.

    Attributes:
        document: what policies see; ``None`` where an invariant refused, and no policy sees past that.
        denials: why, all that was found at once; empty where there is a document.
        attester_code: what is shown of the measuring code.
    """

    document: PolicyInput | None
    denials: tuple[Denial, ...]
    attester_code: AttesterCode


def make_case(window: VerifiedWindow, known: Known, *, published: Published, at: datetime) -> Case:
    """The case of ``window``, received ``at``. Never raises for what the evidence contains.

    Args:
        window: verified.
        known: what was known before it, and what it is compared with.
        published: what makers of hardware had published.
        at: the verifier's receipt time.
    """
    terms, seq = known.enrolled.terms, window.header.seq
    weighed = weights.appraise(
        window.log,
        declared=terms.declared,
        measured={**known.position.manifests, **window.manifests},
        references=known.manifests,
        window=seq,
    )
    host = appraise_host(window, known.enrolled, known.reference, at=at)
    models = {*terms.declared, *(item.manifest for item in weighed.loaded)}
    revoked = acceptance.denials(known.reference, models, at=at, window=seq)
    expired = acceptance.host_denials(host.expired, at=at, window=seq)
    if denials := (*weighed.denials, *revoked, *expired):
        return Case(None, denials, host.attester_code)
    try:
        gpus = appraise_gpus(
            window.gpus or known.position.gpus,
            published=published,
            reference=known.reference,
            cc_state=window.header.cc_state,
            reported=window.gpus is not None,
            at=at,
        )
        document = policy_input(window, known, weighed=weighed, host=host, gpus=gpus, at=at)
    except WeighbridgeError as error:
        return Case(None, (denial_of(error, seq),), host.attester_code)
    return Case(document, (), host.attester_code)


def denial_of(error: WeighbridgeError, seq: int | None) -> Denial:
    """The refusal of window ``seq`` for ``error``."""
    return Denial(
        code=error.code,
        message=f"{error.message} ({error.where})" if error.where else error.message,
        window=seq,
        device=None,
        expected=error.expected,
        got=error.got,
        hint=error.hint or None,
    )
