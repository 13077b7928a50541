"""Spool and courier under everything that can go wrong, in any order: every window that was sealed reaches the verifier
once, in order, or is stated as lost; and the disk holds no more than it may.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.virtual_time import VirtualClock
from weighbridge.attester import client
from weighbridge.attester.client import Answer, Resumed
from weighbridge.attester.courier import Backoff, Courier
from weighbridge.attester.durable import write_fault
from weighbridge.attester.losses import Losses, Lost
from weighbridge.attester.offload import Inline
from weighbridge.attester.refusal import Throttled, VerdictNotice
from weighbridge.attester.sealing import SealedWindow
from weighbridge.attester.spool import Spool, Spools
from weighbridge.attester.spool_files import FILE_MAX, window_files
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault

MOST = FILE_MAX + 16_000
PERIOD = 10_000_000_000


class Crash(BaseException):
    """The process is gone: nothing of it catches this."""


class Disk:
    """Files without syncs. Fails, or takes the process along, at an operation, before or after its effect."""

    def __init__(self) -> None:
        # Writes until it is full; ``None`` as long as there is space.
        self.full_in: int | None = None
        self.crash_in = 0
        self.after_effect = False

    def write(self, path: Path, data: bytes) -> None:
        if self.full_in == 0:
            raise write_fault(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        self.full_in = None if self.full_in is None else self.full_in - 1
        self._around(lambda: path.write_bytes(data))

    def remove(self, path: Path) -> None:
        self._around(lambda: path.unlink(missing_ok=True))

    def space(self, path: Path) -> tuple[int, int]:
        assert path.is_dir()
        return 1 << 40, 1 << 39

    def _around(self, operation: object) -> None:
        assert callable(operation)
        crash, self.crash_in = self.crash_in == 1, max(0, self.crash_in - 1)
        if crash and not self.after_effect:
            raise Crash
        operation()
        if crash:
            raise Crash


@dataclass
class Line:
    """To a verifier that records by session, and is cut, or wants to be asked later, after so many windows."""

    recorded: dict[bytes, list[bytes]]
    credit: int
    answers: int
    hear_last: bool
    throttle: bool
    sent: deque[bytes] = field(default_factory=deque)
    session: bytes = b""

    async def connect(self) -> client.Line:
        self.sent.clear()
        return self

    async def resume(self, session: bytes) -> Resumed:
        self.session = session
        seq = len(self.recorded.setdefault(session, []))
        return Resumed(seq, sha256(b"%d" % seq), None, self.credit)

    async def send_window(self, evidence: bytes) -> None:
        self.sent.append(evidence)
        assert len(self.sent) <= self.credit

    async def next_answer(self) -> Answer:
        evidence = self.sent.popleft()
        if not self.answers and self.throttle:
            raise Throttled(EnvironmentFault(Code.RATE_LIMITED, "later"), retry_after_ns=PERIOD)
        seq = len(self.recorded[self.session])
        if self.answers or self.hear_last:
            self.recorded[self.session].append(evidence)
        if not self.answers:
            raise EnvironmentFault(Code.PEER_UNREACHABLE, "cut", where="line")
        self.answers -= 1
        document = {
            "schema": "weighbridge/verdict/v1",
            "seq": seq,
            "outcome": "held",
            "received_at": "2026-06-01T12:00:00Z",
            "denials": [],
        }
        return Answer(seq, strict.json_encode(document), None, sha256(b"%d" % (seq + 1)))

    async def disconnect(self) -> None:
        self.sent.clear()

    async def open(self, opening: bytes) -> bytes:
        raise AssertionError(opening)

    async def prove(self, proof: bytes) -> client.Opened:
        raise AssertionError(proof)

    async def window(self, evidence: bytes) -> Answer:
        raise AssertionError(evidence)

    async def close_session(self, session: bytes) -> bytes:
        raise AssertionError(session)

    async def lost(self) -> EnvironmentFault:
        raise AssertionError


def expect(fault: EnvironmentFault, *codes: Code) -> None:
    assert fault.code in codes


class Host(RuleBasedStateMachine):
    @initialize()
    def boot(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="spool-machine-"))
        self.disk = Disk()
        self.recorded: dict[bytes, list[bytes]] = {}
        # What was sealed and is promised to be kept, by session.
        self.sealed: dict[bytes, list[bytes]] = {}
        self.at = 0
        self.unsealed = 0
        self.late: SealedWindow | None = None
        self.spools = Spools(self.root, max_bytes=MOST, storage=self.disk)
        self.spool: Spool | None = None
        self.number = 0
        self.enrol()

    def enrol(self) -> None:
        self.number += 1
        session = self.number.to_bytes(16, "big")
        with contextlib.suppress(EnvironmentFault):
            self.spool = self.spools.create(session, b"terms", prev=bytes(32), challenge=bytes(32))
            self.sealed[session] = []

    @rule(size=st.integers(50, 400), times=st.sampled_from([1, 3, 25]))
    @precondition(lambda self: self.spool is not None)
    def seal(self, size: int, times: int) -> None:
        for _ in range(times):
            if self.spool is None:
                return
            start, self.at = self.at, self.at + PERIOD
            try:
                if not self.seal_one(self.spool, size):
                    self.unsealed += 1
                    self.spools.losses.note(Lost("spool-full", self.spool.session, start, self.at, 1))
            except Crash:
                self.crashed()

    def seal_one(self, spool: Spool, size: int) -> bool:
        full = spool.full()
        self.settle_late(spool)
        if full is not None:
            return False
        seq = spool.next_seq
        evidence = b"%d %d " % (self.number, seq) + bytes(size)
        window = SealedWindow(seq=seq, evidence=evidence, digest=sha256(evidence), qualifying_data=bytes(32))
        try:
            spool.begin(b"header")
        except EnvironmentFault as fault:
            expect(fault, Code.DISK_FULL)
            return False
        self.late = window
        spool.commit(window)
        self.settle_late(spool)
        return True

    def settle_late(self, spool: Spool) -> None:
        if self.late is not None and not spool.late:
            self.sealed[spool.session].append(self.late.evidence)
            self.late = None

    @rule(
        credit=st.integers(1, 5),
        answers=st.sampled_from([0, 1, 5, 16, 17, 20, 1000]),
        hear_last=st.booleans(),
        throttle=st.booleans(),
    )
    def deliver(self, credit: int, answers: int, hear_last: bool, throttle: bool) -> None:
        if self.spool is None:
            return
        line = Line(self.recorded, credit, answers, hear_last, throttle)
        try:
            asyncio.run(self.courier(self.spool, line).deliver_once())
        except EnvironmentFault as fault:
            expect(fault, Code.PEER_UNREACHABLE, Code.RATE_LIMITED)
        except Crash:
            self.crashed()

    def courier(self, spool: Spool, line: Line) -> Courier:
        async def heard(notice: VerdictNotice, answer: Answer) -> None:
            assert notice.seq == answer.seq

        return Courier(
            spool,
            line,
            None,
            clock=VirtualClock(),
            offload=Inline(),
            rng=random.Random(1),
            on_answer=heard,
            on_line=lambda _: None,
            backoff=Backoff(),
        )

    @rule(what=st.sampled_from(["crash", "crash", "fill", "fill", "free", "kill"]), soon=st.integers(0, 40))
    def trouble(self, what: str, soon: int) -> None:
        match what:
            case "crash":
                self.disk.crash_in, self.disk.after_effect = 1 + soon // 2, soon % 2 == 0
            case "fill":
                self.disk.full_in = soon // 4
            case "free":
                self.disk.full_in = None
            case _:
                self.crashed()

    def crashed(self) -> None:
        """The process is gone; what it had in memory is. The next one finds the rest, delivers it and enrols anew."""
        self.disk.crash_in = 0
        late, self.late = self.late, None
        self.spool = None
        full, self.disk.full_in = self.disk.full_in, None
        self.spools = Spools(self.root, max_bytes=MOST, storage=self.disk)
        for spool in self.spools.pending():
            session = spool.session
            if late is not None and spool.next_seq == late.seq + 1 == len(self.sealed[session]) + 1:
                # It reached the disk before the process ended.
                self.sealed[session].append(late.evidence)
            asyncio.run(self.courier(spool, Line(self.recorded, 3, 10_000, True, False)).deliver_once())
            assert spool.backlog == 0
            self.spools.remove(spool)
        # While the disk takes nothing, losses are in the log alone.
        assert self.noted() <= self.unsealed
        self.unsealed = self.noted()
        self.disk.full_in = full
        self.enrol()

    def noted(self) -> int:
        losses = Losses.open(self.root / "losses", self.disk)
        return sum(lost.windows for lost in losses.spans) + losses.forgotten_windows

    @invariant()
    def recorded_once_and_in_order(self) -> None:
        for session, windows in getattr(self, "recorded", {}).items():
            assert windows == self.sealed[session][: len(windows)]

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "root"):
            assert sum(size for path in self.root.iterdir() if path.is_dir() for _, size in window_files(path)) <= MOST

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        self.disk.full_in = None
        self.disk.crash_in = 0
        self.spools.losses.flush()
        assert self.noted() == self.unsealed
        self.crashed()
        for session, windows in self.sealed.items():
            assert self.recorded.get(session, []) == windows
        shutil.rmtree(self.root)


TestHost = Host.TestCase
TestHost.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
