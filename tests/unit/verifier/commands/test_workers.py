"""The parent of workers: starts them, starts them again, ends with them; and a worker's line to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from support.configured import configured
from support.site import run
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.verifier.commands import workers
from weighbridge.verifier.commands.workers import Supervisor, Worker
from weighbridge.verifier.settings.model import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A worker of a few lines: says that it listens, writes its number and process down, and waits.
LISTENS = """
import os, socket, sys
number, line, port = sys.argv[-1].removeprefix("--worker=").split(":")
with open(os.environ["TOLD"], "a") as told:
    told.write(f"{number} {port} {os.getpid()}\\n")
line = socket.socket(fileno=int(line))
line.send(b"\\n")
"""
WAITS = "import signal\nsignal.sigwait([signal.SIGTERM])\n"
BLOCKS = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
STUBBORN = "signal.pause()\n"


class Parent:
    """A supervisor of two workers that run a script, and what it says."""

    def __init__(self, script: str, told: Path, monkeypatch: pytest.MonkeyPatch, *, drain: float = 5) -> None:
        monkeypatch.setenv("TOLD", str(told))
        monkeypatch.setattr(workers, "_FIRST_DELAY_S", 0.05)
        monkeypatch.setattr(workers, "_GRACE_S", 0.0)
        self.notes: list[str] = []
        self._told = told
        command = [sys.executable, "-ISc", script]
        self._supervisor = Supervisor(command, count=2, port=4711, drain=drain, note=self.notes.append)

    @property
    def told(self) -> list[list[int]]:
        """Number, port and process of each worker that was started, in their order."""
        lines = self._told.read_text("ascii").splitlines() if self._told.exists() else []
        return [[int(word) for word in line.split()] for line in lines]

    def run(self, act: Callable[[], object]) -> int:
        """Run until all have ended; ``act`` is called once all listen, in a thread of its own."""

        async def main() -> int:
            acted: list[asyncio.Future[object]] = []
            loop = asyncio.get_running_loop()
            status = await self._supervisor.run(started=lambda: acted.append(loop.run_in_executor(None, act)))
            await asyncio.gather(*acted)
            return status

        return asyncio.run(asyncio.wait_for(main(), 30))

    def until(self, count: int) -> None:
        """Wait until so many workers have been started."""
        while len(self.told) < count:
            time.sleep(0.01)


def end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = Parent(BLOCKS + LISTENS + WAITS, tmp_path / "told", monkeypatch)

    def act() -> None:
        (number, _, process) = parent.told[0]
        os.kill(process, signal.SIGKILL)
        parent.until(3)
        assert parent.told[2][0] == number
        end()

    assert parent.run(act) == 0
    assert sorted(line[:2] for line in parent.told[:2]) == [[0, 4711], [1, 4711]]
    (note,) = parent.notes
    assert note.endswith("has ended (signal 9); another one starts in 0.05 s")


def test_what_keeps_all_from_listening_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, time\nif sys.argv[-1].startswith('--worker=0'): sys.exit(3)\ntime.sleep(60)\n"
    parent = Parent(script, tmp_path / "told", monkeypatch)
    assert parent.run(lambda: pytest.fail("nobody listens")) == 3
    assert parent.notes == []


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = Parent(BLOCKS + LISTENS + STUBBORN, tmp_path / "told", monkeypatch, drain=0.1)
    assert parent.run(end) == 0
    assert sum("does not end, and is killed" in note for note in parent.notes) == 2


def test_a_worker_notices_that_its_parent_is_gone() -> None:
    own, its = socket.socketpair()
    worker = Worker.parse(f"3:{os.dup(its.fileno())}:4711")
    its.close()
    assert (worker.number, worker.port) == (3, 4711)

    async def watch() -> bytes:
        gone = asyncio.Event()
        worker.watch(gone.set)
        worker.listening()
        word = own.recv(10)
        assert not gone.is_set()
        own.close()
        await asyncio.wait_for(gone.wait(), 10)
        # To nobody: nothing happens.
        worker.listening()
        return word

    assert asyncio.run(watch()) == b"\n"
    worker.close()


@pytest.mark.parametrize("text", ["", "0", "0:1", "0:1:2:3", "a:3:4", "0:-1:5", "0:65000:5", "0:1000000:5"])
def test_nobody_else_is_a_worker(text: str) -> None:
    with pytest.raises(ValueError, match="for workers alone"):
        Worker.parse(text)


@pytest.mark.parametrize("section", ["http", "relying_parties"])
def test_another_port_that_is_taken_is_told_before_any_worker_starts(section: str) -> None:
    """Also one that its owner would share."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings.model_validate({"serve": {"workers": 2}, section: {"listen": place}})
        with pytest.raises(EnvironmentFault) as caught:
            workers.run_workers(settings, note=pytest.fail)
    assert (caught.value.code, caught.value.where) == (Code.PORT_UNAVAILABLE, place)


def test_a_port_is_reserved_for_workers_alone() -> None:
    with workers._reserve("127.0.0.1", 0, where="here") as held:
        port: int = held.getsockname()[1]
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(("127.0.0.1", port))
            listening.listen()
            with pytest.raises(EnvironmentFault) as caught:
                workers._reserve("127.0.0.1", port, where="here")
            assert caught.value.code is Code.PORT_UNAVAILABLE


def test_what_is_wrong_with_the_state_is_told_once(tmp_path: Path) -> None:
    """By the parent, before there is a worker."""
    made = configured(tmp_path / "one")
    made.write(made.file.read_text().replace("[serve]", "[serve]\nworkers = 2"))
    (made.state / "keys" / "signing.pem").chmod(0o644)
    done = run("weighbridge", "serve", "--config", made.file)
    assert (done.status, done.err.count("KEY_EXPOSED")) == (ExitCode.ENVIRONMENT, 1)
