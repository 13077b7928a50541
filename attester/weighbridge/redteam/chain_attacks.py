"""Windows that are good by themselves and are not where they belong: every signature is right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from weighbridge.proto.errors import Code
from weighbridge.redteam.attack import Attack, Seen, answered, honest

if TYPE_CHECKING:
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.attester.tpm.interface import TpmDevice
    from weighbridge.proto.tpm.evidence import QuoteEvidence
    from weighbridge.proto.tpm.pcr import PcrSelection
    from weighbridge.redteam.field import Field, Guest
    from weighbridge.redteam.rogue import Rogue

__all__ = ["CHAIN_ATTACKS"]


async def _replay(field: Field) -> Seen:
    guest = await field.guest()
    sealed = await _next(guest)
    seen = await answered(guest.rogue.send(sealed.evidence))
    await guest.unharmed(seen)
    return seen


async def _old_quote(field: Field) -> Seen:
    guest = await field.guest()
    quoting = _Remembering(guest.rogue.tpm)
    sealer = guest.rogue.sealer(tpm=cast("TpmDevice", quoting))
    await honest(guest.rogue.window(by=sealer))
    quoting.frozen = True
    return await answered(guest.rogue.window(by=sealer))


async def _fork(field: Field) -> Seen:
    guest = await field.guest()
    other = guest.rogue.seal()
    await guest.settle(1)
    return await answered(guest.rogue.send(other.evidence))


async def _gap(field: Field) -> Seen:
    guest = await field.guest()
    rogue = guest.rogue
    observed = rogue.observe()
    left_out = rogue.seal(observed)
    later = _behind(rogue, left_out, observed.interval.wall_end_ns)
    seen = await answered(rogue.send(later.evidence))
    await guest.unharmed(seen)
    return seen


async def _reorder(field: Field) -> Seen:
    guest = await field.guest()
    rogue = guest.rogue
    first = rogue.seal()
    exchanged = rogue.seal(replace(rogue.observe(), prev=first.next_prev))
    return await answered(rogue.send(exchanged.evidence))


async def _late(field: Field) -> Seen:
    """Two windows under one challenge: the second was sealed before anybody had asked for it."""
    guest = await field.guest()
    rogue = guest.rogue
    observed = rogue.observe()
    first = rogue.seal(observed)
    rogue.advance(first, observed)
    observed = rogue.observe()
    ahead = rogue.seal(observed)
    rogue.advance(ahead, observed)
    await honest(rogue.send(first.evidence))
    seen = await answered(rogue.send(ahead.evidence))
    await guest.unharmed(seen)
    return seen


CHAIN_ATTACKS: Final = (
    Attack(
        name="replay",
        rows=("A55",),
        does="sends a window that is recorded once more",
        expected=(Code.WINDOW_DUPLICATE,),
        play=_replay,
    ),
    Attack(
        name="replay-quote",
        rows=("A01", "A56"),
        does="shows the quote of the last window for the next one, under a header that is new and signed",
        expected=(Code.TPM_NONCE,),
        play=_old_quote,
    ),
    Attack(
        name="fork",
        rows=("A55", "A50"),
        does="sends another window in the place of one that is recorded",
        expected=(Code.WINDOW_FORK,),
        play=_fork,
    ),
    Attack(
        name="gap",
        rows=("A55",),
        does="leaves a window out and sends the one behind it",
        expected=(Code.WINDOW_SEQ,),
        play=_gap,
    ),
    Attack(
        name="reorder",
        rows=("A55",),
        does="gives a window the place of the one before it",
        expected=(Code.WINDOW_PREV,),
        play=_reorder,
    ),
    Attack(
        name="late",
        rows=("A76",),
        does="delivers a window that was sealed ahead, under the challenge of the one before",
        expected=(Code.WINDOW_HELD,),
        play=_late,
    ),
)


async def _next(guest: Guest) -> SealedWindow:
    """An honest window that was affirmed."""
    rogue = guest.rogue
    observed = rogue.observe()
    sealed = rogue.seal(observed)
    await honest(rogue.send(sealed.evidence))
    rogue.advance(sealed, observed)
    return sealed


def _behind(rogue: Rogue, before: SealedWindow, wall_ns: int) -> SealedWindow:
    """The window behind ``before``, sealed without ``before`` being sent; the session stays where it is."""
    kept = rogue.prev, rogue.seq, rogue.wall_ns
    rogue.prev, rogue.seq, rogue.wall_ns = before.next_prev, rogue.seq + 1, wall_ns
    try:
        return rogue.seal()
    finally:
        rogue.prev, rogue.seq, rogue.wall_ns = kept


@dataclass
class _Remembering:
    """The part of a TPM that sealing uses, which shows its last quote again once it is ``frozen``."""

    tpm: TpmDevice
    frozen: bool = False
    last: QuoteEvidence | None = None

    def quote(self, selection: PcrSelection, qualifying_data: bytes) -> QuoteEvidence:
        """See :meth:`TpmDevice.quote`."""
        if not self.frozen or self.last is None:
            self.last = self.tpm.quote(selection, qualifying_data)
        return self.last

    def sign(self, data: bytes) -> bytes:
        """See :meth:`TpmDevice.sign`."""
        return self.tpm.sign(data)
