"""What is refused when more comes than can be judged: as much as keeps what is judged from being late.

No quota says how much a verifier can judge: that depends on its processors, its disk, its policy. What waits for its
thread does: its place in the queue, by how long others took lately, is a time. Whoever would wait for longer than that
is refused at once with ``RATE_LIMITED``, unjudged, and told when to come again. A window that waited for a minute would
be held, would have cost as much as a fresh one, and would have had everybody else's held as well.

Who is refused is not drawn anew each time: then every session would have a window too many, and none would be fresh.
Each peer has a patience of its own between one and two times the service's, by a secret of the process: the same ones
are refused for as long as it lasts, and nobody chooses to be another. Openings go before all windows: who has a session
keeps it. What gives something back (the end of a session, and a proof whose opening was paid for) is never refused.

Values and one secret; no IO, no state, no clock.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, final

from weighbridge.verifier.quotas import Limited

__all__ = ["Shedding"]

_KEPT: Final = frozenset({"proof", "close"})
# So that those who were refused together do not come again together.
_SPREAD: Final = 1.0
_LONGEST_S: Final = 60.0


@final
class Shedding:
    """Says what is too much.

    Args:
        patience: seconds that the least patient peer's window may have to wait for its turn.
    """

    __slots__ = ("_patience", "_secret")

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._secret = secrets.token_bytes(16)

    def check(self, kind: str | None, peer: bytes, *, delay: float) -> None:
        """Require that a request is worth waiting for.

        Args:
            kind: of the request: the name of its field.
            peer: whose it is.
            delay: seconds that it would wait for its turn.

        Raises:
            Limited: it is to come again.
        """
        if kind in _KEPT:
            return
        place = hmac.digest(self._secret, peer, hashlib.sha256)[0] / 255
        most = self._patience * (0.5 if kind == "opening" else 1 + place)
        if delay > most:
            raise Limited(
                "the service has more than it can judge in time",
                scope="total",
                expected=f"a turn within {most:.1f} s",
                retry_after=min(delay * (1 + _SPREAD * place), _LONGEST_S),
            )
