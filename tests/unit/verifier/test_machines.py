"""Session, ledger and challenges under any sequence of what can happen to them, each beside a model of a few lines."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corpus.arena import Arena
from fakes.broken_files import Broken, FaultyFiles
from support.forge import claim, seal
from support.world import NOON
from weighbridge.proto import merkle, note
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.verifier.challenge import issue
from weighbridge.verifier.database import SqliteAddress
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.ledger import Ledger, LedgerReader, audit
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.store import Conflict, Store
from weighbridge.verifier.transaction import Move

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.world import Engines, World
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.store import Issued, SessionRow

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - only the base of a private directory
FEW: Final = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="weighbridge-", dir=MEMORY if MEMORY.is_dir() else None)


# -- a session ---------------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    """What is known of the host's newest session."""

    windows: int = 0
    state: SessionState = SessionState.ENROLLED
    sent: list[SealedWindow] = field(default_factory=list)


class Session(RuleBasedStateMachine):
    """A whole verifier and one host. A session that failed or ended admits nothing, whoever restarts."""

    engines: Engines

    @initialize()
    def begins(self) -> None:
        self.folder = folder()
        self.arena = Arena(Path(self.folder.name), self.engines)
        self.world: World = self.arena.world()
        self.world.open_session()
        self.expected, self.ledgered = Expected(), 0
        self.has_failed = False

    def row(self) -> SessionRow:
        with self.world.store.transaction() as tx:
            found = tx.session(self.world.host.session)
        assert found is not None
        return found

    def is_live(self) -> bool:
        return not self.expected.state.final

    def refused(self, data: bytes) -> Code:
        """The code of what is refused without a judgement, or denied."""
        before = self.row()
        try:
            answer = self.world.send(data)
        except WeighbridgeError as error:
            assert self.row() == before
            return error.code
        assert answer.verdict.outcome == "denied"
        self.expected.state, self.has_failed = SessionState.FAILED, True
        return Code(answer.verdict.denials[0].code)

    @precondition(is_live)
    @rule(late=st.booleans())
    def window(self, *, late: bool) -> None:
        sealed = self.world.host.seal()
        self.world.clock.advance(30 if late else 1)
        answer = self.world.deliver(sealed)
        assert answer.verdict.outcome == ("held" if late else "affirmed")
        assert answer.verdict.opens is not late
        if late:
            self.world.host.wall_ns += 29_000_000_000
        self.expected.windows += 1
        if not late:
            self.expected.state = SessionState.RUNNING
        elif self.expected.state is SessionState.ENROLLED:
            self.expected.state = SessionState.MEASURED
        self.expected.sent.append(sealed)

    @precondition(lambda self: self.is_live() and self.expected.sent)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        sealed = data.draw(st.sampled_from(self.expected.sent))
        assert self.refused(sealed.evidence) is Code.WINDOW_DUPLICATE

    @precondition(is_live)
    @rule(place=st.floats(0, 0.999), bit=st.integers(0, 7))
    def junk(self, place: float, bit: int) -> None:
        """In the header, before anybody is believed: it changes nothing."""
        # Not by the host's own sealer: that would not send its log once more.
        evidence = seal(self.world.host).evidence
        damaged = bytearray(evidence[: len(evidence) // 2])
        damaged[int(place * len(damaged))] ^= 1 << bit
        self.refused(bytes(damaged))
        assert self.is_live()

    @precondition(is_live)
    @rule()
    def forgery(self) -> None:
        self.world.clock.advance(1)
        assert self.refused(seal(self.world.host, claim(prev=bytes(32))).evidence) is Code.WINDOW_PREV

    @precondition(lambda self: not self.is_live())
    @rule()
    def window_after_the_end(self) -> None:
        self.world.clock.advance(1)
        ended = {
            SessionState.FAILED: Code.SESSION_FAILED,
            SessionState.CLOSED: Code.SESSION_STATE,
        }
        assert self.refused(self.world.host.seal().evidence) is ended[self.expected.state]

    @precondition(is_live)
    @rule(seconds=st.integers(1, 600))
    def resumed(self, seconds: int) -> None:
        self.world.clock.advance(seconds)
        self.world.host.wall_ns += seconds * 10**9
        resumed = self.world.verifier.resume(self.world.host.session, peer=self.world.host.peer)
        assert resumed.next_seq == self.expected.windows
        self.world.host.challenge = resumed.challenge

    @rule()
    def verifier_restarts(self) -> None:
        self.world.restart()

    @precondition(is_live)
    @rule()
    def closes(self) -> None:
        self.world.verifier.close(self.world.host.session, peer=self.world.host.peer)
        self.expected.state = SessionState.CLOSED

    @rule()
    def enrols_again(self) -> None:
        """The old session is over; a failure sticks to TPM and GPUs."""
        before = self.world.host.session
        if self.has_failed:
            with pytest.raises(WeighbridgeError) as refusal:
                self.world.open_session()
            assert refusal.value.code is Code.SUBJECT_FAILED
            self.world.host.session = before
            return
        old, state = before, self.expected.state
        self.world.open_session()
        with self.world.store.transaction() as tx:
            row = tx.session(old)
        assert row is not None
        assert row.state is (state if state.final else SessionState.INTERRUPTED)
        self.expected = Expected()

    @invariant()
    def is_as_expected(self) -> None:
        row = self.row()
        assert (row.next_seq, row.state) == (self.expected.windows, self.expected.state)
        assert self.world.ledger.size >= self.ledgered
        self.ledgered = self.world.ledger.size

    def teardown(self) -> None:
        if hasattr(self, "arena"):
            self.arena.close()
            self.folder.cleanup()


def test_session(engines: Engines) -> None:
    """A55, A72, A78: nothing leads out of an end, and nothing that was refused moves a session."""
    machine = type("Session", (Session,), {"engines": engines})
    _run(machine, examples=4, steps=12)


# -- a ledger ----------------------------------------------------------------------------------------------------------

ORIGIN: Final = "ledger.example/windows"
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOTE_KEY: Final = note.NoteKey(ORIGIN, KEY.public_key().public_bytes_raw())


class History(RuleBasedStateMachine):
    """One writer over a disk that fails at any write. What was shown once is the beginning of all that comes."""

    @initialize()
    def begins(self) -> None:
        self.folder = folder()
        self.directory = Path(self.folder.name) / "ledger"
        self.files = FaultyFiles()
        self.ledger = Ledger.create(self.directory, origin=ORIGIN, key=KEY, files=self.files)
        self.entries: list[bytes] = []
        self.shown = [self.ledger.checkpoint()]

    @rule(count=st.sampled_from([1, 2, 255]))
    def append(self, count: int) -> None:
        batch = self._batch(count)
        appended = self.ledger.append(batch)
        assert appended.first_index == len(self.entries)
        self.entries += batch
        assert appended.size == len(self.entries)
        self.shown.append(appended.checkpoint_note)

    @rule(count=st.sampled_from([1, 3]), at=st.integers(1, 12), how=st.sampled_from(Broken))
    def append_to_a_failing_disk(self, count: int, at: int, how: Broken) -> None:
        """It may have been a commit; the disk says which, and the writer goes on from there."""
        batch = self._batch(count)
        self.files._how = how
        self.files.arm(at)
        try:
            self.ledger.append(batch)
        except EnvironmentFault as fault:
            assert fault.code is Code.DISK_FULL  # noqa: PT017 - the disk has room where its fault lies behind the end
        self.files.arm(0)
        self.ledger.settle()
        assert self.ledger.size in {len(self.entries), len(self.entries) + count}
        if self.ledger.size > len(self.entries):
            self.entries += batch

    @rule()
    def open_again(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.directory, origin=ORIGIN, key=KEY, files=self.files)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.entries) - 1))
        reader = LedgerReader.open(self.directory, key=NOTE_KEY, origin=ORIGIN)
        assert reader.entry(index) == self.entries[index]

    @rule(data=st.data())
    def audited_by_who_saw_it_before(self, data: st.DataObject) -> None:
        audit(self.directory, NOTE_KEY, ORIGIN, earlier=data.draw(st.sampled_from(self.shown)))

    @invariant()
    def is_the_tree_of_its_entries(self) -> None:
        assert self.ledger.size == len(self.entries)
        if len(self.entries) <= 600:
            assert self.ledger.root == merkle.root([merkle.leaf_hash(entry) for entry in self.entries])

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()

    def _batch(self, count: int) -> list[bytes]:
        return [b"entry %d" % (len(self.entries) + number) for number in range(count)]


def test_ledger() -> None:
    """A61, A64: one history, whatever fails."""
    _run(History, examples=6, steps=10)


# -- challenges --------------------------------------------------------------------------------------------------------

SESSIONS: Final = tuple(sha256(b"session %d" % number)[:16] for number in range(3))
GENESIS: Final = sha256(b"genesis")


class Challenges(RuleBasedStateMachine):
    """The store of challenges: one that was handed out is found in its session alone, and no restart loses it."""

    @initialize()
    def begins(self) -> None:
        self.folder = folder()
        self.address = SqliteAddress(Path(self.folder.name) / "state.db")
        Store.create(self.address)
        self.store = Store.open(self.address)
        self.handed: dict[bytes, list[Issued]] = {}
        self.next: dict[bytes, int] = {}
        self.ended: set[bytes] = set()
        self.count = 0

    @precondition(lambda self: len(self.handed) < len(SESSIONS))
    @rule()
    def open_session(self) -> None:
        session = SESSIONS[len(self.handed)]
        with self.store.transaction() as tx:
            interrupted = tx.open_session(
                session=session,
                tenant="tenant",
                ak=sha256(session),
                gpus=(sha256(b"gpu of " + session),),
                prev=GENESIS,
                enrolment_index=self._number(),
                state=SessionState.ENROLLED,
                opened_ns=1,
            )
        assert interrupted == ()
        self.handed[session], self.next[session] = [], 0

    @precondition(lambda self: self.handed.keys() - self.ended)
    @rule(data=st.data())
    def hand_out(self, data: st.DataObject) -> None:
        session = self._one(data, self.handed.keys() - self.ended)
        issued = self._issued(session, self.next[session])
        with self.store.transaction() as tx:
            tx.challenges.issue([(session, issued)])
        self.handed[session].append(issued)

    @precondition(lambda self: any(self.handed.values()))
    @rule(data=st.data())
    def hand_out_twice(self, data: st.DataObject) -> None:
        session = self._one(data, [name for name, handed in self.handed.items() if handed])
        self._conflicts(session, data.draw(st.sampled_from(self.handed[session])))

    @rule()
    def hand_out_to_nobody(self) -> None:
        self._conflicts(bytes(16), self._issued(bytes(16), 0))

    @precondition(lambda self: self.handed.keys() - self.ended)
    @rule(data=st.data())
    def window_is_recorded(self, data: st.DataObject) -> None:
        session = self._one(data, self.handed.keys() - self.ended)
        seq = self.next[session]
        with self.store.transaction() as tx:
            move = Move(
                session=session,
                ak=sha256(session),
                before=SessionState.RUNNING if seq else SessionState.ENROLLED,
                seq=seq,
                prev=self._link(session, seq),
                after=SessionState.RUNNING,
                head=self._link(session, seq + 1),
                window=sha256(session + seq.to_bytes(4)),
                index=self._number(),
                held=False,
                received_ns=2,
                log=LedgeredLog(0, 0, GENESIS),
            )
            tx.advance([move])
        self.next[session] = seq + 1

    @precondition(lambda self: self.handed.keys() - self.ended)
    @rule(data=st.data(), state=st.sampled_from([SessionState.FAILED, SessionState.CLOSED, SessionState.INTERRUPTED]))
    def session_ends(self, data: st.DataObject, state: SessionState) -> None:
        session = self._one(data, self.handed.keys() - self.ended)
        with self.store.transaction() as tx:
            tx.set_state(session, state, at_ns=3_000)
        self.ended.add(session)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.address)

    @invariant()
    def each_is_found_where_it_belongs(self) -> None:
        with self.store.transaction() as tx:
            for session, handed in self.handed.items():
                assert tx.challenges.last(session) == (handed[-1] if handed else None)
                for other in self.handed:
                    for issued in handed[-3:]:
                        assert tx.challenges.of(other, issued.digest) == (issued if other == session else None)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def _conflicts(self, session: bytes, issued: Issued) -> None:
        try:
            with self.store.transaction() as tx:
                tx.challenges.issue([(session, issued)])
        except Conflict:
            return
        raise AssertionError("a challenge was handed out twice, or to nobody")

    def _issued(self, session: bytes, seq: int) -> Issued:
        number = self._number()
        at = NOON + timedelta(seconds=number)
        return issue(merkle.EMPTY_ROOT, session, seq, random=sha256(b"random %d" % number), at=at)

    def _number(self) -> int:
        self.count += 1
        return self.count

    @staticmethod
    def _link(session: bytes, seq: int) -> bytes:
        return GENESIS if seq == 0 else sha256(session + b"link %d" % seq)

    @staticmethod
    def _one(data: st.DataObject, sessions: Iterable[bytes]) -> bytes:
        chosen: bytes = data.draw(st.sampled_from(sorted(sessions)))
        return chosen


def test_challenges() -> None:
    """A03, A05: each for one window of one session, and only while that goes on."""
    _run(Challenges, examples=8, steps=12)


def _run(machine: type[RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    case = machine.TestCase
    case.settings = settings(max_examples=examples, stateful_step_count=steps, **FEW)  # type: ignore[arg-type] # as named
    case().runTest()
