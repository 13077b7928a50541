"""Whether what owners accept is accepted at a window's receipt time: revocation and validity; no policy sees past them.

A model is revoked when any reference set in force says so, whoever's: to trust an owner's key is to heed its warnings,
too. It is accepted for good by the relying party's own document, and otherwise while a set that lists it is valid. One
that nobody lists is the policy's business (``REFERENCE_ABSENT``).

A host that only an expired host set accepts is refused, too.

These denials do not speak against the host (:data:`NOT_OF_THE_HOST`): the session ends, and nothing sticks to its
attestation key or its GPUs. Else an owner who signs a day late would have to have a whole fleet cleared. The same holds
where a certificate or an anchor has ended (``CHAIN_EXPIRED``), one in the verifier's own file included, and where it is
not known what is right: a maker's manifest or an OCSP response that ends overnight, or was never fetched, says nothing
of a device. Nor does a relying party that accepts a driver no more: a host that has updated it may come
again. Nor does evidence that is not there (``UNPROVEN``, ``TELEMETRY_NO_BASELINE``, ``TELEMETRY_UNUSABLE``), a model
that nobody knows, a policy that gives no answer, that is for another kind of machine, or that only observes, engines
that differ, or another verifier's policy that misses something: a slip in a new policy must not have a fleet cleared
either. Each is judged anew in every window, so that nothing is escaped by coming again; what the maker contradicts, or
has revoked, sticks. So does a physical record that cannot be, or is not that of its baseline: an alarm is for a person
to look at (:mod:`.clearing`), whose cause may well be harmless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.policy.engine import Denial
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from weighbridge.policy.values.host_sets import HostSet
    from weighbridge.policy.values.owner_sets import OwnerSet, RevokedValue
    from weighbridge.policy.values.reference import Reference

__all__ = ["NOT_OF_THE_HOST", "denials", "host_denials", "sticking"]

NOT_OF_THE_HOST: Final = frozenset(
    {
        Code.CHAIN_EXPIRED,
        Code.MODEL_REVOKED,
        Code.MODEL_EXPIRED,
        Code.HOST_SET_EXPIRED,
        Code.GPU_REFERENCE_ABSENT,
        Code.GPU_REVOCATION_UNKNOWN,
        Code.GPU_OUTDATED,
        Code.REFERENCE_ABSENT,
        Code.UNPROVEN,
        Code.TELEMETRY_NO_BASELINE,
        Code.TELEMETRY_UNUSABLE,
        Code.POLICY_UNDEFINED,
        Code.POLICY_ERROR,
        Code.POLICY_TIMEOUT,
        Code.POLICY_CRASHED,
        Code.POLICY_OUTPUT,
        Code.POLICY_DISAGREE,
        Code.POLICY_FOREIGN,
        Code.PLATFORM_CLASS,
        Code.AUDIT_ONLY,
    }
)
"""Codes that say nothing against the host on which the model ran."""
_TEXT_MAX: Final = 256


def denials(reference: Reference, manifests: Iterable[bytes], *, at: datetime, window: int) -> tuple[Denial, ...]:
    """What speaks against ``manifests``, at most one denial for each.

    Args:
        reference: the values in force.
        manifests: digests of the models that are declared, loaded, or were since the last window.
        at: the verifier's receipt time.
        window: the window's number, for the denials.
    """
    found: list[Denial] = []
    for manifest in sorted({item.hex() for item in manifests}):
        revoked = [(item, model) for item in reference.sets for model in item.revoked if model.manifest == manifest]
        if revoked:
            found.append(_revoked(*revoked[0], window=window))
        elif manifest not in reference.models:
            listing = [item for item in reference.sets if any(model.manifest == manifest for model in item.models)]
            if listing and not any(item.valid(at) for item in listing):
                found.append(_expired(manifest, listing, at=at, window=window))
    return tuple(found)


def host_denials(expired: HostSet | None, *, at: datetime, window: int) -> tuple[Denial, ...]:
    """What speaks against the host set that would accept the host if it were valid ``at`` the receipt, if any."""
    if expired is None:
        return ()
    return (
        Denial(
            code=Code.HOST_SET_EXPIRED,
            message=f"the set {expired.name} by which {expired.owner} accepts the host is not valid at the receipt",
            window=window,
            device=None,
            expected=f"{strict.time_encode(expired.not_before)}..{strict.time_encode(expired.not_after)}",
            got=strict.time_encode(at),
            hint=f"have {expired.owner} sign a newer set than number {expired.number}: weighbridge reference sign",
        ),
    )


def sticking(denials: Iterable[tuple[str, bool]]) -> str | None:
    """The first code that speaks against the host; ``None`` when none does.

    Args:
        denials: each one's code, and whether it sticks by whoever denied.
    """
    return next((code for code, sticks in denials if sticks and code not in NOT_OF_THE_HOST), None)


def _revoked(owner: OwnerSet, model: RevokedValue, *, window: int) -> Denial:
    return Denial(
        code=Code.MODEL_REVOKED,
        message=f"{owner.owner} has revoked the model: {shorten(model.reason, _TEXT_MAX)}",
        window=window,
        device=None,
        expected=None,
        got=model.manifest,
        hint=f"revoked {strict.time_encode(model.at)} in set {owner.number}: serve another model in a new session",
    )


def _expired(manifest: str, listing: Sequence[OwnerSet], *, at: datetime, window: int) -> Denial:
    last = max(listing, key=lambda item: item.not_after)
    return Denial(
        code=Code.MODEL_EXPIRED,
        message=f"the set by which {last.owner} accepts the model is not valid at the time of receipt",
        window=window,
        device=None,
        expected=f"{strict.time_encode(last.not_before)}..{strict.time_encode(last.not_after)}",
        got=strict.time_encode(at),
        hint=f"have {last.owner} sign a newer set than number {last.number}: model {manifest}",
    )
