"""Delivery over a line that fails in every way: in order, each window until it is answered, and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fakes.virtual_time import VirtualClock
from weighbridge.attester.client import Answer, Opened, Resumed
from weighbridge.attester.courier import Backoff, Courier
from weighbridge.attester.offload import Inline, Worker
from weighbridge.attester.refusal import Throttled, VerdictNotice
from weighbridge.attester.sealing import SealedWindow
from weighbridge.attester.spool import Spool, Spools
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, MalformedEvidence, PolicyDenied
from weighbridge.proto.spot import SpotChallenge, SpotRange

pytestmark = pytest.mark.asyncio

SESSION = bytes(16)
SECOND = 1_000_000_000


def fault(code: Code = Code.PEER_UNREACHABLE) -> EnvironmentFault:
    return EnvironmentFault(code, "on purpose", where="line", hint="wait")


def challenge(seq: int) -> bytes:
    return sha256(b"challenge %d" % seq)


def verdict(seq: int, outcome: str = "held") -> bytes:
    return strict.json_encode(
        {
            "schema": "weighbridge/verdict/v1",
            "seq": seq,
            "outcome": outcome,
            "received_at": "2026-06-01T12:00:00Z",
            "denials": [],
        }
    )


class ScriptedVerifier:
    """Records windows by number; ``before`` and ``after`` a recording the test may raise."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.attempts: list[int] = []
        self.connects = 0
        self.refuse_connects = 0
        self.before: Callable[[int], None] = lambda _: None
        self.after: Callable[[int], None] = lambda _: None
        self.edit: Callable[[Answer], Answer] = lambda answer: answer
        self.next_seq: int | None = None
        self.spot: SpotChallenge | None = None
        self.credit = 1
        self.resumes = 0
        # Most windows that were under way at once.
        self.most = 0

    async def connect(self) -> ScriptedLine:
        self.connects += 1
        if self.refuse_connects:
            self.refuse_connects -= 1
            raise fault()
        return ScriptedLine(self)


class ScriptedLine:
    def __init__(self, verifier: ScriptedVerifier) -> None:
        self._verifier = verifier
        self._sent: deque[bytes] = deque()
        # What a window was refused with: so are those behind it, until the session is resumed.
        self._refused: Exception | None = None
        self.broken = asyncio.Event()

    async def open(self, opening: bytes) -> bytes:
        raise AssertionError(opening)

    async def prove(self, proof: bytes) -> Opened:
        raise AssertionError(proof)

    async def resume(self, session: bytes) -> Resumed:
        assert session == SESSION
        assert not self._sent
        self._refused = None
        self._verifier.resumes += 1
        following = len(self._verifier.recorded) if self._verifier.next_seq is None else self._verifier.next_seq
        return Resumed(following, challenge(following), self._verifier.spot, self._verifier.credit)

    async def window(self, evidence: bytes) -> Answer:
        raise AssertionError(evidence)

    async def send_window(self, evidence: bytes) -> None:
        self._sent.append(evidence)
        self._verifier.most = max(self._verifier.most, len(self._sent))
        assert len(self._sent) <= self._verifier.credit

    async def next_answer(self) -> Answer:
        seq = self._sent.popleft()[0]
        if self._refused is not None:
            raise self._refused
        self._verifier.attempts.append(seq)
        try:
            self._verifier.before(seq)
        except EnvironmentFault as refused:
            self._refused = refused
            raise
        self._verifier.recorded.append(seq)
        self._verifier.after(seq)
        return self._verifier.edit(Answer(seq, verdict(seq), None, challenge(seq + 1)))

    async def close_session(self, session: bytes) -> bytes:
        raise AssertionError(session)

    async def lost(self) -> EnvironmentFault:
        await self.broken.wait()
        return fault()

    async def disconnect(self) -> None:
        self.broken.set()


class Desk:
    """A spool, a courier for it, and what it said."""

    def __init__(self, tmp_path: Path) -> None:
        spools = Spools(tmp_path / "spool")
        self.spool: Spool = spools.create(SESSION, b"terms", prev=bytes(32), challenge=challenge(0))
        self.verifier = ScriptedVerifier()
        self.clock = VirtualClock()
        self.answers: list[int] = []
        self.lines: list[str] = []
        self.unheard: list[int] = []
        self.courier = Courier(
            self.spool,
            self.verifier,
            None,
            clock=self.clock,
            offload=Inline(),
            rng=random.Random(3),
            on_answer=self._answered,
            on_line=lambda error: self.lines.append("up" if error is None else error.code),
            on_unheard=self.unheard.append,
            backoff=Backoff(first=1.0, most=8.0),
        )

    def seal(self, count: int) -> None:
        for _ in range(count):
            seq = self.spool.next_seq
            self.spool.begin(b"header")
            self.spool.commit(
                SealedWindow(seq=seq, evidence=bytes([seq]), digest=sha256(bytes([seq])), qualifying_data=bytes(32))
            )
            self.courier.notify()

    async def deliver(self) -> None:
        """Run until everything is settled or the courier gives up."""
        time = asyncio.ensure_future(self.clock.run())
        running = asyncio.ensure_future(self.courier.run())
        try:
            async with asyncio.timeout(10):
                while not running.done() and (self.spool.backlog or not self.verifier.recorded):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0)
        finally:
            time.cancel()
            if not running.done():
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
            await self.courier.disconnect()
        if not running.cancelled():
            running.result()

    async def _answered(self, notice: VerdictNotice, answer: Answer) -> None:
        assert notice.seq == answer.seq
        self.answers.append(answer.seq)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_windows_are_delivered_in_order_and_the_last_challenge_is_kept(desk: Desk) -> None:
    desk.seal(4)
    await desk.deliver()
    assert desk.verifier.recorded == desk.answers == [0, 1, 2, 3]
    assert desk.spool.progress.challenge == challenge(4)
    assert desk.lines == ["up"]


async def test_a_window_of_which_nothing_is_said_ends_no_session(desk: Desk) -> None:
    desk.verifier.edit = lambda answer: replace(answer, verdict=verdict(answer.seq, "indeterminate"))
    desk.seal(3)
    await desk.deliver()
    assert desk.answers == [0, 1, 2]
    assert desk.spool.backlog == 0


async def test_what_an_answer_asks_is_kept_with_its_challenge(desk: Desk) -> None:
    asked = SpotChallenge(id=bytes(16), manifest=bytes(32), key=bytes(32), ranges=(SpotRange("a", 0, 1),))
    desk.verifier.edit = lambda answer: replace(answer, spot=asked if answer.seq == 1 else None)
    desk.seal(2)
    await desk.deliver()
    assert (desk.spool.progress.seq, desk.spool.progress.spot) == (2, asked)
    desk.verifier.spot = replace(asked, id=bytes(range(16)))
    await desk.courier.deliver_once()
    assert (desk.spool.progress.seq, desk.spool.progress.spot) == (2, desk.verifier.spot)


def once(number: int, raised: Exception) -> Callable[[int], None]:
    left = [raised]

    def act(seq: int) -> None:
        if seq == number and left:
            raise left.pop()

    return act


async def test_a_line_cut_before_a_window_was_recorded(desk: Desk) -> None:
    desk.seal(3)
    desk.verifier.before = once(1, fault())
    await desk.deliver()
    assert desk.verifier.attempts == [0, 1, 1, 2]
    assert desk.verifier.recorded == desk.answers == [0, 1, 2]
    assert desk.lines == ["up", Code.PEER_UNREACHABLE, "up"]


async def test_a_line_cut_after_a_window_was_recorded(desk: Desk) -> None:
    desk.seal(3)
    desk.verifier.after = once(1, fault())
    await desk.deliver()
    assert desk.verifier.attempts == desk.verifier.recorded == [0, 1, 2]
    assert (desk.answers, desk.unheard) == ([0, 2], [1])


@pytest.mark.parametrize("code", [Code.DISK_FULL, Code.CLOCK_STEPPED, Code.PEER_REFUSED])
async def test_a_fault_of_the_verifiers_machine_is_waited_for(desk: Desk, code: Code) -> None:
    desk.seal(2)
    desk.verifier.before = once(0, fault(code))
    await desk.deliver()
    assert desk.verifier.recorded == [0, 1]
    assert desk.lines == [code, "up"]


async def test_a_verifier_that_resumes_and_takes_nothing_is_no_line(desk: Desk) -> None:
    """One cut is told, and one end of it, however often the session was resumed in vain."""
    desk.seal(2)
    refusals = iter([fault(Code.DISK_FULL)] * 5)

    def before(_: int) -> None:
        for refusal in refusals:
            raise refusal

    desk.verifier.before = before
    await desk.deliver()
    assert desk.verifier.recorded == [0, 1]
    assert desk.verifier.connects == 6
    assert (desk.lines, desk.unheard) == ([Code.DISK_FULL, "up"], [])


async def test_delays_grow_and_end(desk: Desk) -> None:
    desk.seal(1)
    desk.verifier.refuse_connects = 7
    await desk.deliver()
    assert desk.verifier.connects == 8
    # Any length up to 1, 2, 4, 8, 8, 8, 8 s.
    assert 39 * SECOND / 4 <= desk.clock.elapsed_ns <= 39 * SECOND
    assert desk.lines == [Code.PEER_UNREACHABLE, "up"]


@pytest.mark.parametrize("credit", [1, 4, 100])
async def test_as_many_windows_are_under_way_as_there_is_credit_for(desk: Desk, credit: int) -> None:
    desk.verifier.credit = credit
    desk.seal(30)
    await desk.deliver()
    assert desk.verifier.recorded == desk.answers == list(range(30))
    assert desk.verifier.most == min(credit, 30)


@pytest.mark.parametrize("credit", [1, 4])
async def test_a_line_that_is_cut_with_windows_under_way_sends_them_again(desk: Desk, credit: int) -> None:
    """What had no answer is sent again, unless the verifier has it."""
    desk.verifier.credit = credit
    desk.seal(10)
    desk.verifier.before = once(3, fault())
    desk.verifier.after = once(6, fault())
    await desk.deliver()
    assert desk.verifier.attempts == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]
    assert desk.verifier.recorded == list(range(10))
    assert (desk.answers, desk.unheard) == ([0, 1, 2, 3, 4, 5, 7, 8, 9], [1])


def throttled(seconds: int) -> Throttled:
    return Throttled(fault(Code.RATE_LIMITED), retry_after_ns=seconds * SECOND)


@pytest.mark.parametrize("credit", [1, 4])
async def test_a_verifier_that_wants_to_be_asked_later_is_asked_later_over_the_same_line(
    desk: Desk, credit: int
) -> None:
    desk.verifier.credit = credit
    desk.seal(6)
    desk.verifier.before = once(2, throttled(70))
    await desk.deliver()
    assert desk.verifier.recorded == desk.answers == list(range(6))
    assert 70 * SECOND <= desk.clock.elapsed_ns <= 71 * SECOND
    assert (desk.verifier.connects, desk.verifier.resumes) == (1, 2)
    assert desk.lines == ["up", Code.RATE_LIMITED, "up"]


async def test_whoever_gets_on_does_not_wait_longer_each_time(desk: Desk) -> None:
    """A line that is cut after every window: each attempt is the first again."""
    desk.seal(20)
    cut = {seq: once(seq, fault()) for seq in range(1, 20)}
    desk.verifier.before = lambda seq: cut[seq](seq) if seq in cut else None
    await desk.deliver()
    assert desk.verifier.recorded == list(range(20))
    assert desk.clock.elapsed_ns <= 19 * SECOND


async def test_the_same_seed_gives_the_same_delays() -> None:
    backoff = Backoff()
    delays = [[backoff.delay_ns(attempt, random.Random(5)) for attempt in range(40)] for _ in range(2)]
    assert delays[0] == delays[1]
    assert max(delays[0]) <= backoff.most * SECOND


async def test_a_denied_window_ends_delivery_after_it_is_recorded(desk: Desk) -> None:
    desk.seal(3)
    desk.verifier.edit = lambda answer: (
        Answer(answer.seq, verdict(answer.seq, "denied"), None, None) if answer.seq == 1 else answer
    )
    with pytest.raises(PolicyDenied):
        await desk.deliver()
    assert desk.answers == [0, 1]
    assert desk.spool.backlog == 1
    assert desk.spool.progress.challenge is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda answer: Answer(answer.seq + 1, answer.verdict, None, answer.challenge),
        lambda answer: Answer(answer.seq, verdict(answer.seq + 1), None, answer.challenge),
        lambda answer: Answer(answer.seq, b"", None, answer.challenge),
    ],
)
async def test_an_answer_to_something_else(desk: Desk, edit: Callable[[Answer], Answer]) -> None:
    desk.seal(1)
    desk.verifier.edit = edit
    with pytest.raises(MalformedEvidence):
        await desk.deliver()
    assert desk.spool.backlog == 1


async def test_a_verifier_that_lost_what_it_had_recorded_is_not_followed(desk: Desk) -> None:
    desk.seal(2)
    await desk.deliver()
    desk.verifier.next_seq = 1
    desk.seal(1)
    with pytest.raises(LedgerInconsistent) as caught:
        await desk.deliver()
    assert caught.value.code is Code.WINDOW_SEQ
    assert desk.spool.backlog == 1


async def test_one_attempt_for_an_earlier_session(desk: Desk) -> None:
    desk.seal(2)
    desk.verifier.refuse_connects = 1
    with pytest.raises(EnvironmentFault):
        await desk.courier.deliver_once()
    assert desk.spool.backlog == 2
    await desk.courier.deliver_once()
    assert desk.answers == [0, 1]


async def test_work_is_done_in_order_in_one_thread() -> None:
    done: list[int] = []

    def note(number: int) -> int:
        done.append(number)
        return number

    with Worker() as worker:
        results = await asyncio.gather(*(worker(partial(note, number)) for number in range(20)))
    assert results == done == list(range(20))
