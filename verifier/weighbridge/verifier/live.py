"""The sessions that are under way, in memory; all of each can be re-made from the ledger (:mod:`.replay`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.replay import replay_enrolment, replay_window
from weighbridge.verifier.session import Enrolled, Position, SessionState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.gpu.chain import ChainCache
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.store import Issued, SessionRow, Store, SubjectKind

__all__ = ["Live", "LiveSessions", "subjects_of"]


@dataclass(slots=True)
class Live:
    """One session: what was proven, where its chain stands, and the challenge that is outstanding."""

    enrolled: Enrolled
    position: Position
    state: SessionState
    issued: Issued

    @property
    def terms(self) -> Terms:
        """The session's terms."""
        return self.enrolled.terms


@final
class LiveSessions:
    """Finds sessions that have not ended, and ends them."""

    def __init__(
        self, *, archive: Archive, store: Store, anchors: TrustAnchors, keys: VerifierKeys, chains: ChainCache
    ) -> None:
        self._archive = archive
        self._store = store
        self._anchors = anchors
        self._keys = keys
        self._chains = chains
        self._live: dict[bytes, Live] = {}

    def find(self, session: bytes, *, peer: bytes) -> Live:
        """The session, which has not ended, for the peer that it belongs to.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``; ``WINDOW_PEER`` for another peer's.
            PolicyDenied: ``SESSION_FAILED`` or ``SESSION_STATE``: it has ended, which is final.
            WeighbridgeError: its records do not make the session that its row tells of.
        """
        live = self._live.get(session)
        if live is None:
            live = self._live[session] = self._restore(session, peer)
        _require_peer(live.enrolled, peer)
        return live

    def add(self, live: Live, *, interrupted: Iterable[bytes]) -> None:
        """Take up a session that has just been enrolled, in place of those that it interrupted."""
        for old in interrupted:
            self._live.pop(old, None)
        self._live[live.terms.session] = live

    def end(self, live: Live, state: SessionState, *, at: datetime, code: Code | None = None) -> None:
        """End a session durably; a failure, named by ``code``, sticks to its AK and GPUs."""
        terms = live.terms
        with self._store.transaction() as tx:
            if code is not None:
                tx.fail_subjects(subjects_of(terms), code=code, session=terms.session, at_ns=nanoseconds(at))
            tx.set_state(terms.session, state)
        live.state = state
        del self._live[terms.session]

    def _restore(self, session: bytes, peer: bytes) -> Live:
        """Re-make a session from its records: the same procedures as when its evidence arrived."""
        with self._store.transaction() as tx:
            row = tx.session(session)
            indices = tx.window_indices(session)
            issued = tx.last_challenge(session)
        if row is None or issued is None:
            raise NotAuthentic(Code.SESSION_UNKNOWN, "no such session", where="session", got=session)
        # Before anything is replayed: what has ended costs nobody anything.
        _require_running(row)
        record = self._archive.records.record(row.enrolment_index)
        replayed = replay_enrolment(
            record,
            self._archive.records.evidence(record),
            anchors=self._anchors,
            verifier_key=self._keys.signing.public_key(),
        )
        enrolled, position = replayed.enrolled, replayed.position
        # A stranger must not make us replay a long session by naming it.
        _require_peer(enrolled, peer)
        for index in indices:
            record = self._archive.records.record(index)
            evidence = self._archive.records.evidence(record)
            verified = replay_window(
                record, evidence, enrolled=enrolled, position=position, anchors=self._anchors, chains=self._chains
            )
            position = position.after(verified)
        if (position.seq, position.prev) != (row.next_seq, row.prev):
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                "the session's row and its records disagree",
                where=session.hex(),
                expected=row.next_seq,
            )
        return Live(enrolled, position, row.state, issued)


def subjects_of(terms: Terms) -> list[tuple[SubjectKind, bytes]]:
    """To whom a failure of the session sticks."""
    return [("ak", terms.ak), *(("gpu", gpu) for gpu in terms.gpus)]


def _require_peer(enrolled: Enrolled, peer: bytes) -> None:
    if enrolled.terms.peer != peer:
        raise NotAuthentic(
            Code.WINDOW_PEER, "another peer's session", where="channel", expected=enrolled.terms.peer, got=peer
        )


def _require_running(row: SessionRow) -> None:
    if row.state is SessionState.FAILED:
        raise PolicyDenied(Code.SESSION_FAILED, "the session has failed, which is final", where=row.id.hex())
    if row.state.final:
        raise PolicyDenied(Code.SESSION_STATE, f"the session is {row.state.value}", where=row.id.hex())
