"""Which sessions show a model: found in the store, a few new rows each time that one looks.

A session is of a model once a window of it was affirmed that shows it. Until then it is looked at again; after that no
more, for a session's model is in its terms and does not change. Of sessions that have ended nothing is found; whoever
is told of one is told of its end by the session itself.

What is remembered: a session's name and model for each session that was found and, as far as is known, has not ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from weighbridge.verifier.session import SessionState
from weighbridge.verifier.told import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.standings import Standings

__all__ = ["ModelSessions"]

# Rows that are read at once.
_PAGE: Final = 1024
# From so many entries back: another process may have been slower with an earlier one.
_OVERLAP: Final = 32
# All rows are looked at again after so many looks: sessions that have ended are forgotten.
_AGAIN: Final = 600


@final
class ModelSessions:
    """The sessions of each model. :meth:`find` is called by one thread at a time, :meth:`of` by another.

    Args:
        standings: of the verifier.
    """

    __slots__ = ("_after", "_found", "_looks", "_pending", "_standings")

    def __init__(self, standings: Standings) -> None:
        self._standings = standings
        self._found: dict[Model, frozenset[bytes]] = {}
        # Of which no affirmed window is known, and whose they are.
        self._pending: dict[bytes, str] = {}
        self._after = -1
        self._looks = 0

    def of(self, model: Model) -> frozenset[bytes]:
        """Those that were found by now."""
        return self._found.get(model, frozenset())

    def find(self) -> Mapping[Model, frozenset[bytes]]:
        """Look at what is new; all that there are.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        again = self._looks % _AGAIN == 0
        found: dict[Model, set[bytes]] = {} if again else {model: set(of) for model, of in self._found.items()}
        pending = {} if again else dict(self._pending)
        after = -1 if again else max(-1, self._after - _OVERLAP)
        last = self._after
        while True:
            rows = self._standings.begun(after=after, at_most=_PAGE)
            for row in rows:
                if row.model is None:
                    pending[row.session] = row.tenant
                else:
                    pending.pop(row.session, None)
                    found.setdefault(Model(row.tenant, row.model), set()).add(row.session)
                after = row.index
            last = max(last, after)
            if len(rows) < _PAGE:
                break
        self._ask_again(pending, found)
        # Nothing of it counts if the store could not be read.
        self._found = {model: frozenset(of) for model, of in found.items()}
        self._pending, self._after, self._looks = pending, last, self._looks + 1
        return self._found

    def _ask_again(self, pending: dict[bytes, str], found: dict[Model, set[bytes]]) -> None:
        """Whether windows of ``pending`` sessions were affirmed meanwhile."""
        for session, (state, affirmed, _, _) in self._standings.versions(tuple(pending)).items():
            if SessionState(state).final:
                del pending[session]
            elif affirmed is not None and (standing := self._standings.of(session)).affirmed is not None:
                del pending[session]
                found.setdefault(Model(standing.tenant, standing.affirmed.claims.model), set()).add(session)
