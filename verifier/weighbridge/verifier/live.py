"""The sessions that are under way, as this process remembers them; the store and the ledger say how they stand.

Other processes may judge windows of the same sessions. So what is remembered is compared with the session's row each
time, and brought up to it by the windows that are missing here; all of a session can be made from the ledger.

What is remembered is bounded: of more sessions than that, those are forgotten whose turn was longest ago, and made
again when they come: from where they stood lately, which the store has (:mod:`.kept_position`), at the price of a few
windows. If that is not there, or does not fit, a session is replayed whole, and figures say so.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, final

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied, WeighbridgeError
from weighbridge.verifier import kept_position
from weighbridge.verifier.challenge import CHANCE, Chance
from weighbridge.verifier.observed import UNOBSERVED, Observer, Restored
from weighbridge.verifier.restoring import Live, Restorer, require_peer
from weighbridge.verifier.service_limits import REMEMBERED
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.standings import Kept
from weighbridge.verifier.steps import Advance, Behind, Ending, shut_of, write_advances, write_end
from weighbridge.verifier.traces import Question
from weighbridge.verifier.transaction import Conflict, Issued

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.bench import Benches
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.standings import Standings
    from weighbridge.verifier.stood import Stood
    from weighbridge.verifier.store import Store, Transaction
    from weighbridge.verifier.telemetry.appraisal import TelemetryAppraisal
    from weighbridge.verifier.telemetry.history import History, Trace
    from weighbridge.verifier.traces import Beside

__all__ = ["Done", "Live", "LiveSessions", "Recalled"]

Done = Behind | Conflict | None
"""Where a session stands behind a step, what the store has against that, or nothing: it has ended."""


class Recalled(NamedTuple):
    """What the memory of GPUs says, and how much of the ledger the store knew of then, or before.

    As long as that is the same, so is the memory.
    """

    history: History
    known: int


@final
class LiveSessions:
    """Finds sessions that have not ended, moves them on, and ends them; remembers the last ``remembered`` of them."""

    def __init__(
        self,
        *,
        archive: Archive,
        store: Store,
        benches: Benches,
        keys: VerifierKeys,
        standings: Standings,
        chance: Chance = CHANCE,
        observer: Observer = UNOBSERVED,
        remembered: int = REMEMBERED,
    ) -> None:
        self._archive = archive
        self._observer = observer
        self._most = remembered
        self._chance = chance
        self._store = store
        self._standings = standings
        self._restorer = Restorer(archive=archive, benches=benches, keys=keys)
        kept_position.prepare()
        # Whoever's turn was longest ago comes first.
        self._live: OrderedDict[bytes, Live] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._live)

    def find(self, session: bytes, *, peer: bytes) -> Live:
        """The session, which has not ended, as it stands now, for the peer that it belongs to.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``; ``WINDOW_PEER`` for another peer's.
            PolicyDenied: ``SESSION_FAILED`` or ``SESSION_STATE``: it has ended, which is final.
            WeighbridgeError: its records do not make the session that its row tells of.
        """
        (found,) = self.find_all([(session, peer)])
        if isinstance(found, WeighbridgeError):
            raise found
        return found

    def find_all(self, named: Sequence[tuple[bytes, bytes]]) -> list[Live | WeighbridgeError]:
        """Each of some sessions, for the peer beside it, or the error as which :meth:`find` raises.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        stood = self._store.look(lambda tx: tx.stood.of([session for session, _ in named]))
        found: list[Live | WeighbridgeError] = []
        for session, peer in named:
            live = self._live.get(session)
            try:
                if live is not None:
                    require_peer(live.enrolled, peer)
                found.append(self._as_it_stands(session, stood.get(session), peer))
            except WeighbridgeError as error:
                found.append(error)
        return found

    def restore(self, session: bytes) -> Live:
        """The session as it stands now, whosever it is: for whoever finishes what was begun.

        Raises:
            WeighbridgeError: as :meth:`find`.
        """
        with self._store.reading() as tx:
            stood = tx.stood.one(session)
        return self._as_it_stands(session, stood, None)

    def add(self, live: Live, *, interrupted: Sequence[bytes]) -> None:
        """Take up a session that has just been enrolled, in place of those that it interrupted."""
        self._forget(interrupted)
        self._remember(live)
        self._standings.changed([live.terms.session, *interrupted])

    def forget_ended(self) -> None:
        """Forget sessions that other processes have ended.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        with self._store.reading() as tx:
            stood = tx.stood.of(list(self._live))
        self._forget([session for session in self._live if session not in stood or stood[session].state.final])

    def carry_out(self, step: Advance | Ending, *, known: int | None = None) -> None:
        """Let the store know of one recorded judgement, in a turn and a transaction of its own; as :meth:`write`.

        Raises:
            EnvironmentFault: the store cannot be written. The session stands where it stood, and whoever has the next
                turn finds in the ledger what the store does not know of (:mod:`.recovery`).
        """
        # The disk may fail: whoever asks meanwhile is not told that this gate is open.
        why, live = shut_of(step), step.live
        kept = {} if why is None else {live.terms.session: Kept(why, live.position.seq)}
        with self._standings.withholding(kept):
            with self._store.transaction() as tx:
                done = self.write(tx, [step], known=known)
            _ = self.moved([step], done)

    def write(self, tx: Transaction, steps: Sequence[Advance | Ending], *, known: int | None = None) -> Sequence[Done]:
        """Let the store know of recorded judgements, each of another session, in a turn: true once ``tx`` is durable.

        Args:
            tx: a transaction.
            steps: what they come to.
            known: as in :meth:`settle`.

        Returns:
            What :meth:`moved` is to be given once the transaction is durable. What the store has against one of them
            concerns that session alone: it stands where it stood.
        """
        done: Sequence[Done]
        try:
            with tx.part():
                done = self._written(tx, steps)
        except Conflict:
            # It concerns one of them, or some: each by itself then.
            done = [self._written_alone(tx, step) for step in steps]
        self._keep(tx, steps, done)
        # If power fails before this is durable, whoever has the next turn begins where it was (:mod:`.recovery`).
        self.settle(tx, known)
        return done

    def moved(self, steps: Sequence[Advance | Ending], done: Sequence[Done]) -> tuple[Issued | Conflict | None, ...]:
        """Remember what :meth:`write` has written, which is durable now.

        Returns:
            For each step the challenge for the session's next window, or nothing where it has ended; or what the store
            has against it.
        """
        results: list[Issued | Conflict | None] = []
        for step, result in zip(steps, done, strict=True):
            if isinstance(result, Behind) and isinstance(step, Advance):
                step.live.sources = _sources(step)
                step.live.position, step.live.state, step.live.issued = result
                results.append(result[2])
            else:
                # Ended; or the store knows better, and the session is made anew from that.
                self._forget([step.live.terms.session])
                results.append(None if isinstance(result, Behind) else result)
        self._standings.changed(frozenset(step.live.terms.session for step in steps))
        return tuple(results)

    def settle(self, tx: Transaction, known: int | None = None) -> None:
        """Let the store know of everything in the ledger once ``tx`` is durable, or of the first ``known`` entries.

        Called in a turn, which began when it knew of everything.
        """
        tree = self._archive.ledger.reader().checkpoint
        tx.progress.settle(tree.size if known is None else known, tree)

    def _written(self, tx: Transaction, steps: Sequence[Advance | Ending]) -> list[Done]:
        for step in steps:
            if isinstance(step, Ending):
                self._write_end(tx, step)
        advances = [step for step in steps if isinstance(step, Advance)]
        behind = iter(self.advance(tx, advances) if advances else ())
        return [None if isinstance(step, Ending) else next(behind) for step in steps]

    def _written_alone(self, tx: Transaction, step: Advance | Ending) -> Done:
        try:
            with tx.part():
                (done,) = self._written(tx, [step])
        except Conflict as conflict:
            return conflict
        return done

    @staticmethod
    def _write_end(tx: Transaction, step: Ending) -> None:
        write_end(tx, step)

    @staticmethod
    def _keep(tx: Transaction, steps: Sequence[Advance | Ending], done: Sequence[Done]) -> None:
        """Keep where sessions stand behind these steps, now and then; and no longer what was kept of those that ended.

        Lost with power, it is as if none had been due.
        """
        contents: dict[bytes, bytes] = {}
        for step, result in zip(steps, done, strict=True):
            if isinstance(step, Advance) and isinstance(result, Behind):
                session = step.live.terms.session
                if (content := kept_position.keep(session, result[0], _sources(step))) is not None:
                    contents[session] = content
        tx.positions.keep(contents)
        tx.positions.forget([step.live.terms.session for step in steps if isinstance(step, Ending)])

    def advance(self, tx: Transaction, steps: Sequence[Advance]) -> list[Behind]:
        """See :func:`.write_advances`."""
        return write_advances(tx, steps, root=self._chance.dated(self._archive.ledger.root))

    def recall_all(
        self, asked: Sequence[tuple[Live, Sequence[Trace], Sequence[tuple[bytes, bytes]]]], beside: Sequence[Beside]
    ) -> list[Recalled]:
        """What is remembered of GPUs that concerns the next window of each of some sessions.

        Args:
            asked: each session; what its window brings; the GPUs that this is the first to judge by a profile, with
                that one's digest. Each is taken to be carried out before the next.
            beside: what windows bring that will have been carried out before all of them.
        """
        questions = [Question(live.terms.session, live.position.seq, traces, wanted) for live, traces, wanted in asked]
        # Of different times, if something is recorded meanwhile: then it is asked again in the turn.
        histories = self._store.look(lambda tx: tx.traces.recall_all(questions, beside=beside))
        return [Recalled(history, live.known) for history, (live, _, _) in zip(histories, asked, strict=True)]

    def replay(self, live: Live, record: Record, evidence: bytes) -> tuple[VerifiedWindow, TelemetryAppraisal]:
        """See :meth:`.Restorer.replay`."""
        return self._restorer.replay(live, record, evidence)

    def _as_it_stands(self, session: bytes, stood: Stood | None, peer: bytes | None) -> Live:
        live = self._live.get(session)
        if live is not None:
            self._live.move_to_end(session)
        if live is None or live.stood != stood:
            if stood is not None and stood.state.final:
                # Before anything is replayed: what has ended costs nobody anything.
                self._forget([session])
                raise _ended(stood.state, session)
            live = self._follow(session, live, peer)
        # What the row may know beyond that is asked about again in the turn.
        live.known = -1 if stood is None else stood.known
        return live

    def _follow(self, session: bytes, live: Live | None, peer: bytes | None) -> Live:
        """The session brought up to its row: from where it is remembered or was kept, if the row goes on from there."""
        if live is not None:
            return self._extended(session, live, peer)
        kept = self._leap(session, peer)
        if kept is None:
            return self._extended(session, None, peer, Restored.WHOLE)
        if isinstance(kept, Live):
            try:
                return self._extended(session, kept, peer, Restored.KEPT)
            except WeighbridgeError as error:
                if isinstance(error, EnvironmentFault) and error.code is not Code.STATE_CORRUPT:
                    raise
                # What was kept may be what is wrong.
                self._forget([session])
        return self._extended(session, None, peer, Restored.UNFIT)

    def _leap(self, session: bytes, peer: bytes | None) -> Live | Restored | None:
        """The session where it stood when that was kept; ``UNFIT`` if that fits nothing, nothing if none was kept.

        Raises:
            EnvironmentFault: what it is made of cannot be read now.
            WeighbridgeError: as :meth:`.Restorer.begin`.
        """
        with self._store.reading() as tx:
            content, row, issued = tx.positions.kept(session), tx.session(session), tx.challenges.last(session)
        if content is None or row is None or row.state.final or issued is None:
            return None
        live = self._restorer.begin(row, issued, peer=peer)
        try:
            kept = kept_position.decode(content)
            with self._store.reading() as tx:
                last = tx.window_index(session, kept.seq - 1)
            if last is None or kept.seq > row.next_seq:
                return Restored.UNFIT
            self._restorer.leap(live, kept, last)
        except EnvironmentFault:
            # This machine's, or its storage's: to replay it whole would ask for more of the same.
            raise
        except WeighbridgeError:
            return Restored.UNFIT
        return live

    def _extended(
        self, session: bytes, live: Live | None, peer: bytes | None, restored: Restored | None = None
    ) -> Live:
        """``live`` brought up to its row, by all of its windows where it is none; how it was ``restored`` is told."""
        first = 0 if live is None else live.position.seq
        with self._store.reading() as tx:
            row, issued = tx.session(session), tx.challenges.last(session)
            indices = tx.window_indices(session, first=first)
        if row is None or issued is None:
            self._forget([session])
            raise NotAuthentic(Code.SESSION_UNKNOWN, "no such session", where="session", got=session)
        if row.state.final:
            self._forget([session])
            raise _ended(row.state, session)
        if live is not None and row.next_seq < first:
            # The store knows less than was remembered: it counts.
            self._forget([session])
            return self._follow(session, None, peer)
        if live is None:
            live = self._restorer.begin(row, issued, peer=peer)
        try:
            self._restorer.extend(live, indices, row, issued)
        except EnvironmentFault:
            # It may be what was remembered that is wrong.
            self._forget([session])
            raise
        if restored is not None:
            self._observer.restored(restored, len(indices))
        self._remember(live)
        return live

    def _remember(self, live: Live) -> None:
        """Remember ``live``, and forget whose turn was longest ago where there are too many.

        Whoever holds a session that is forgotten here goes on with it: the store says whether it still stands there.
        """
        self._live[live.terms.session] = live
        self._live.move_to_end(live.terms.session)
        while len(self._live) > self._most:
            _ = self._live.popitem(last=False)

    def _forget(self, sessions: Collection[bytes]) -> None:
        for session in list(sessions):
            self._live.pop(session, None)


def _sources(step: Advance) -> kept_position.Sources:
    """Of which windows the position behind ``step`` is made."""
    return step.live.sources.after(step.verified, index=step.index, before=step.live.position)


def _ended(state: SessionState, session: bytes) -> PolicyDenied:
    if state is SessionState.FAILED:
        return PolicyDenied(Code.SESSION_FAILED, "the session has failed, which is final", where=session.hex())
    return PolicyDenied(Code.SESSION_STATE, f"the session is {state.value}", where=session.hex())
