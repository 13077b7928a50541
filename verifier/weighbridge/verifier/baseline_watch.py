"""Takes signed baseline sets in force: none that is older, none that moves unseen, and each change in the ledger.

A baseline is worth what the runs are worth that it was fitted to: whoever can bring in one of his own chooses what is
never seen again. So a set is taken by the procedure of :meth:`BaselineKeeper.take`:

1. Its owner has signed it (:mod:`.baseline_set`).
2. No other owner has a profile in force for one of its GPUs and models at the same time: ``BASELINE_CONFLICT``.
3. It is not older than one of its line that was seen before: ``REFERENCE_ROLLBACK``.
4. Each profile is within the bounds of :mod:`.telemetry.detector.drift` from those that it replaces, in power and in
   what it asks for: of the line's set before, of the line's *origin*, and of its owner's other sets in force. Or else
   the owner accepts the drift in the signed note, and the set is the line's new origin: ``BASELINE_DRIFT``. So no
   baseline is moved far in small steps either.
5. The file enters the content store, and a leaf of kind ``baseline`` the ledger: which set follows which.
6. The set is the newest of its line from now on.

If power fails between 5 and 6, the ledger tells of a change that had no effect; the set is taken again, and told again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict
from weighbridge.proto.baseline import SignedBaselineSet
from weighbridge.proto.errors import Code, Indeterminate, PolicyDenied
from weighbridge.verifier import baseline_set
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.record import Record
from weighbridge.verifier.telemetry.detector.drift import drift

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from weighbridge.proto.baseline import BaselineSet, Profile
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.baseline_set import VerifiedBaselineSet
    from weighbridge.verifier.owners import Newest
    from weighbridge.verifier.store import Store

__all__ = ["ACCEPT_DRIFT", "SCHEMA", "BaselineKeeper"]

SCHEMA: Final = "weighbridge/baseline/v1"
ACCEPT_DRIFT: Final = "accept_drift:"
"""How the note of a set begins whose owner knows that it is far from the one before; the reason follows."""
_REASON_MIN: Final = 10
_NO_SESSION: Final = bytes(16)


@final
class BaselineKeeper:
    """Takes sets. Used from one thread.

    Args:
        anchors: whose keys are believed: ``baseline-owner``.
        store: where the newest set of each line is remembered.
        archive: where the signed files and the changes are recorded.
    """

    def __init__(self, *, anchors: TrustAnchors, store: Store, archive: Archive) -> None:
        self._anchors = anchors
        self._store = store
        self._archive = archive

    def verify(self, data: bytes) -> VerifiedBaselineSet:
        """Step 1, by which the line of ``data`` is known.

        Raises:
            WeighbridgeError: as :func:`.baseline_set.verify`.
        """
        return baseline_set.verify(data, anchors=self._anchors)

    def take(self, verified: VerifiedBaselineSet, others: Sequence[VerifiedBaselineSet], *, at: datetime) -> None:
        """Steps 2 to 6.

        Args:
            verified: signed by its owner.
            others: the sets of other lines in force.
            at: the present, by the verifier's clock.

        Raises:
            PolicyDenied: ``BASELINE_CONFLICT``, ``REFERENCE_ROLLBACK`` or ``BASELINE_DRIFT``.
            EnvironmentFault: store or ledger cannot be written; nothing has changed.
        """
        # 2.
        for other in others:
            _check_owners(verified, other)
        accepted = _accepts(verified.content)
        # The turn first: whoever has one may wait for the store, and nobody who has the store waits for a turn.
        with self._archive.turn(), self._store.transaction() as tx:
            before = tx.owners.newest(verified.line)
            origin = verified.digest if before is None or accepted else before.origin
            # 3. and 6.
            tx.owners.see(verified, at_ns=nanoseconds(at), origin=origin)
            if before is not None and before.digest == verified.digest:
                return
            # 4.
            moved = _drift([*self._replaced(before, verified), *_of_owner(verified, others)], verified.content)
            if moved and not accepted:
                raise _drifted(verified, moved)
            # 5.
            _ = self._archive.keep_baseline(verified.data)
            _ = self._archive.commit(_note(verified, before, moved, at), None)

    def _replaced(self, before: Newest | None, verified: VerifiedBaselineSet) -> Iterator[Profile]:
        """The profiles of the set before and of the origin, as both were kept when they were taken."""
        for digest in () if before is None else dict.fromkeys((before.digest, before.origin or before.digest)):
            try:
                yield from SignedBaselineSet.parse(self._archive.records.baseline(digest)).claimed.profiles
            except Indeterminate as error:
                if not _accepts(verified.content):
                    raise _drifted(verified, ["the set before it is not in the content store any more"]) from error


def _of_owner(verified: VerifiedBaselineSet, others: Sequence[VerifiedBaselineSet]) -> Iterator[Profile]:
    for other in others:
        if other.line.owner == verified.line.owner:
            yield from other.content.profiles


def _check_owners(one: VerifiedBaselineSet, other: VerifiedBaselineSet) -> None:
    if one.line.owner == other.line.owner:
        return
    if one.named.not_before > other.named.not_after or other.named.not_before > one.named.not_after:
        return
    for device, model in sorted(_subjects(one.content) & _subjects(other.content)):
        raise PolicyDenied(
            Code.BASELINE_CONFLICT,
            "another owner has a baseline for the same GPU and model",
            where=str(one.line),
            expected=f"none of GPU {device.hex()[:16]} with model {model.hex()[:16]}",
            got=str(other.line),
            hint="let one of them sign for this GPU; take the other's file away first: --baseline",
        )


def _subjects(content: BaselineSet) -> set[tuple[bytes, bytes]]:
    """The GPUs and models that a window can be compared by."""
    return {
        (profile.device, profile.scope.model)
        for profile in content.profiles
        if profile.device is not None and profile.scope.model is not None
    }


def _drift(before: Iterable[Profile], content: BaselineSet) -> list[str]:
    """How far the profiles of ``content`` are from those of ``before`` that they replace, in words, a line each."""
    old = [profile for profile in before if profile.device is not None]
    found: list[str] = []
    for new in content.profiles:
        subject = [item for item in old if (item.device, item.scope.model) == (new.device, new.scope.model)]
        # Of another driver: the same GPU and model, which has moved with its stack.
        same = [item for item in subject if item.scope.driver == new.scope.driver] or subject
        # All of it: what the owner accepts, he accepts in full.
        if words := dict.fromkeys(words for item in same for words in drift(item, new)):
            found.append(f"GPU {(new.device or b'').hex()[:16]}: {'; '.join(words)}")
    return found


def _accepts(content: BaselineSet) -> bool:
    """Whether the owner writes into the signed content that he knows of a drift, and why it is meant."""
    note = content.note
    return note.startswith(ACCEPT_DRIFT) and len(note.removeprefix(ACCEPT_DRIFT).strip()) >= _REASON_MIN


def _drifted(verified: VerifiedBaselineSet, moved: Sequence[str]) -> PolicyDenied:
    more = f", and {len(moved) - 1} more" if len(moved) > 1 else ""
    return PolicyDenied(
        Code.BASELINE_DRIFT,
        f"the baseline has moved further than measuring again explains: {moved[0]}{more}",
        where=f"{verified.line}, number {verified.number}",
        hint="look at what changed; if it is meant, sign it again: weighbridge baseline fit --accept-drift REASON",
    )


def _note(verified: VerifiedBaselineSet, before: Newest | None, moved: Sequence[str], at: datetime) -> Record:
    content, named = verified.content, verified.named
    document: strict.JsonObject = {
        "schema": SCHEMA,
        "owner": content.owner,
        "name": content.name,
        "number": content.number,
        "replaces": None if before is None else before.digest.hex(),
        "digest": verified.digest.hex(),
        "not_before": strict.time_encode(named.not_before),
        "not_after": strict.time_encode(named.not_after),
        "profiles": [profile.digest.hex() for profile in content.profiles],
        "drift": list(moved),
        "note": content.note,
    }
    return Record.note(
        "baseline", session=_NO_SESSION, seq=None, received_ns=nanoseconds(at), verdict=strict.json_encode(document)
    )
