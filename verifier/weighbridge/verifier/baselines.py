"""The baselines in force, and which of their profiles a GPU is compared with. Pure: no time, file or key of its own.

A profile is chosen for a GPU, by its identity, and the model that its session declares:

1. Of the sets that are valid at the receipt time, those with a profile of this GPU, this model and, where the caller
   knows it, this driver.
2. Of these the set that was issued last, whoever's.
3. Its profile, if it is the only one that fits. Where an owner has signed several, for more than one workload or
   channel, nobody could say which one counts: none does.

Two owners never have a profile for the same GPU and model at the same time: whoever takes sets in force refuses the
second (:mod:`.baseline_watch`). Else a newer owner's lenient baseline would displace a strict one unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, final

from weighbridge.proto import strict
from weighbridge.proto.baseline import SignedBaselineSet
from weighbridge.proto.errors import Code, LedgerInconsistent
from weighbridge.verifier.telemetry.past import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from weighbridge.policy.values.baselines import NamedBaseline
    from weighbridge.proto.baseline import BaselineSet, Profile
    from weighbridge.verifier.baseline_set import VerifiedBaselineSet

__all__ = ["Baselines"]


@dataclass(frozen=True, slots=True)
class _InForce:
    """One set: which it is, when it was issued, its profiles by GPU, its file."""

    named: NamedBaseline
    digest: bytes
    issued_ns: int
    profiles: Mapping[bytes, tuple[Profile, ...]] = field(repr=False)
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, named: NamedBaseline, digest: bytes, content: BaselineSet, data: bytes) -> Self:
        profiles: dict[bytes, tuple[Profile, ...]] = {}
        for profile in content.profiles:
            if profile.device is not None:
                profiles[profile.device] = (*profiles.get(profile.device, ()), profile)
        return cls(named, digest, content.issued_ns, profiles, data)


@final
class Baselines:
    """Sets of profiles, each with the times between which its owner vouches for it."""

    __slots__ = ("_others", "_sets")

    def __init__(self, sets: Iterable[VerifiedBaselineSet] = ()) -> None:
        self._others = False
        self._sets = _in_order(_InForce.of(item.named, item.digest, item.content, item.data) for item in sets)

    @classmethod
    def recorded(cls, named: Iterable[NamedBaseline], file: Callable[[bytes], bytes | None]) -> Self:
        """The sets that recorded reference values name.

        That their owners signed them, and when their keys were believed, is the word of whoever recorded the values:
        no signature is checked. Never to be used on files that a relying party is handed beside them.

        Args:
            named: of the reference values.
            file: the signed file of a digest; ``None`` where it is left out, because it is said to name none of the
                GPUs that are asked for. Whether it names one, the caller finds by what was recorded.

        Raises:
            MalformedEvidence: a file is no set.
            LedgerInconsistent: ``BUNDLE_VERDICT``: a file is another one than the values name.
            WeighbridgeError: what ``file`` raises.
        """
        made = cls()
        found = [_recorded(name, file) for name in named]
        made._sets = _in_order(item for item in found if item is not None)
        made._others = None in found
        return made

    @property
    def files(self) -> Mapping[bytes, bytes]:
        """The signed files by digest: what is kept, so that a verdict can be made again."""
        return {item.digest: item.data for item in self._sets}

    def profile(self, device: bytes, digest: bytes) -> Profile | None:
        """The profile of this GPU with this digest, whether it would be chosen or not."""
        found = (profile for item in self._sets for profile in item.profiles.get(device, ()))
        return next((profile for profile in found if digest_of(profile) == digest), None)

    def choose(
        self, device: bytes, model: bytes, at: datetime, *, driver: str | None = None
    ) -> tuple[Profile, bytes] | None:
        """The profile that a GPU is compared with, and the digest of the set that it is in.

        Args:
            device: the GPU's identity, 32 bytes.
            model: digest of the manifest that the session declares.
            at: the verifier's receipt time.
            driver: its version; ``None``: not compared.
        """
        found = self._find(device, model, at, driver)
        return None if isinstance(found, str) else found

    def why_none(self, device: bytes, model: bytes, at: datetime, *, driver: str | None = None) -> str:
        """Why :meth:`choose` has nothing for these, in plain words; empty where it has."""
        found = self._find(device, model, at, driver)
        return found if isinstance(found, str) else ""

    def _find(self, device: bytes, model: bytes, at: datetime, driver: str | None) -> tuple[Profile, bytes] | str:
        if not self._sets and not self._others:
            return "no baseline is in force"
        why, best = "no baseline names this GPU", 0
        for item in self._sets:
            of_device = item.profiles.get(device, ())
            of_model = [profile for profile in of_device if profile.scope.model == model]
            fit = [profile for profile in of_model if driver is None or profile.scope.driver == driver]
            which = f"{item.named.owner}, {item.named.name}, number {item.named.number}"
            if fit and item.named.valid(at):
                if len(fit) == 1:
                    return fit[0], item.digest
                return f"{which} has {len(fit)} profiles of this GPU and model, and nothing says which counts"
            # What is told is what came closest.
            for close, holds, words in (
                (3, fit, _not_valid(item.named, at)),
                (2, of_model, f"{which} is of driver {', '.join(sorted({each.scope.driver for each in of_model}))}"),
                (1, of_device, f"{which} names this GPU, with another model"),
            ):
                if holds:
                    why, best = (words, close) if close > best else (why, best)
                    break
        return why


def _in_order(sets: Iterable[_InForce]) -> tuple[_InForce, ...]:
    """The one issued last first."""
    return tuple(sorted(sets, key=lambda item: (-item.issued_ns, -item.named.number, item.digest)))


def _recorded(named: NamedBaseline, file: Callable[[bytes], bytes | None]) -> _InForce | None:
    digest = strict.hex_decode(named.digest, what="baseline.digest")
    if (data := file(digest)) is None:
        return None
    signed = SignedBaselineSet.parse(data)
    claimed = signed.claimed
    if (claimed.owner, claimed.name, claimed.number, signed.digest) != (named.owner, named.name, named.number, digest):
        raise LedgerInconsistent(
            Code.BUNDLE_VERDICT,
            "the baseline set is not the one that the reference values name",
            where=f"{named.owner}, {named.name}, number {named.number}",
            expected=digest,
            got=signed.digest,
        )
    return _InForce.of(named, digest, claimed, data)


def _not_valid(named: NamedBaseline, at: datetime) -> str:
    which = f"{named.owner}, {named.name}, number {named.number}"
    if at < named.not_before:
        return f"{which} is not valid before {strict.time_encode(named.not_before)}"
    return f"{which} was valid until {strict.time_encode(named.not_after)}"
