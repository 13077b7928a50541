"""A driver as a process: it is given one line for each case, and answers one line, within a time."""

from __future__ import annotations

import os
import select
import subprocess
import time
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["Driver", "NoAnswer"]

_LINE_MAX: Final = 4 * 1024 * 1024
_READ: Final = 65_536


class NoAnswer(Exception):
    """Why a driver has not answered a case."""


class _Ended(NoAnswer):
    """It ended without a word. ``in_order``: with exit status 0, as one that is started for one line each time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        try:
            status = f"exit status {process.wait(1)}"
        except subprocess.TimeoutExpired:
            status = "its output is closed"
        super().__init__(f"the driver has ended: {status}")
        self.in_order = process.returncode == 0


@final
class Driver:
    """Starts ``command`` when it is needed, and again after it has died or was too slow. Use with ``with``.

    Args:
        command: its words.
        timeout: seconds for one case.
    """

    def __init__(self, command: Sequence[str], *, timeout: float) -> None:
        self._command = list(command)
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it: its input ends, and it has the time of one case to end as well; none where the run was broken off."""
        process = self._process
        if process is None:
            return
        if kind is not None:
            self._abandon(process)
            return
        self._process = None
        assert process.stdin is not None  # noqa: S101 - it was opened so
        process.stdin.close()
        try:
            _ = process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            _ = process.wait()
        _close(process)

    def ask(self, line: bytes) -> bytes:
        """The driver's line for the case ``line``.

        One that answered an earlier case and has ended in order behind it, with this one unanswered, is started again.

        Raises:
            NoAnswer: it ended, or has not answered in time; the next case is given to a new one.
            EnvironmentFault: ``TOOL_MISSING``: it cannot be started.
        """
        has_answered = self._process is not None
        process = self._started()
        try:
            return self._exchange(process, line + b"\n")
        except NoAnswer as error:
            self._abandon(process)
            if has_answered and isinstance(error, _Ended) and error.in_order:
                return self.ask(line)
            raise

    def _exchange(self, process: subprocess.Popen[bytes], data: bytes) -> bytes:
        assert process.stdin is not None  # noqa: S101 - they were opened so
        assert process.stdout is not None  # noqa: S101
        into, out, sent, got = process.stdin.fileno(), process.stdout.fileno(), 0, bytearray()
        deadline = time.monotonic() + self._timeout
        while not got.endswith(b"\n"):
            left = deadline - time.monotonic()
            ready = select.select([out], [into] if sent < len(data) else [], [], max(0.0, left))
            if left <= 0 or not (ready[0] or ready[1]):
                raise NoAnswer(f"no answer within {self._timeout:g} s")
            if ready[1]:
                try:
                    sent += os.write(into, data[sent : sent + _READ])
                except BrokenPipeError as error:
                    raise _Ended(process) from error
            if ready[0]:
                more = os.read(out, _READ)
                got += more
                if not more and not got:
                    raise _Ended(process)
                if not more:
                    raise NoAnswer("it ended in the middle of its answer")
                if len(got) > _LINE_MAX:
                    raise NoAnswer(f"its answer has more than {_LINE_MAX} bytes")
        if got.count(b"\n") != 1 or sent < len(data):
            raise NoAnswer("it answered more than one line, or before it had read the case")
        return bytes(got)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - the command that the caller names
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            except OSError as error:
                raise EnvironmentFault(
                    Code.TOOL_MISSING,
                    f"the driver cannot be started: {(error.strerror or type(error).__name__).lower()}",
                    where=self._command[0],
                    hint="name a program and its arguments, quoted as for a shell",
                ) from error
            assert self._process.stdin is not None  # noqa: S101
            os.set_blocking(self._process.stdin.fileno(), False)
        return self._process

    def _abandon(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        process.kill()
        _ = process.wait()
        _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None and not stream.closed:
            stream.close()
