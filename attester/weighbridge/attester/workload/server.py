"""The attester's side of the workload socket: measures before a model is loaded, counts what was served.

Whatever a peer sends, the attester goes on: a message that is not understood is answered by an error line; a peer that
sends a line without end, or does not read, is disconnected. Memory per peer is bounded by one line each way.
Everything reported here is *the host's word*.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, assert_never

from weighbridge.attester.weights.directory import resolved
from weighbridge.attester.weights.protection import Measured, measure_protected
from weighbridge.attester.workload.client import LINE_MAX, PROTOCOL, socket_address
from weighbridge.attester.workload.handovers import Handovers
from weighbridge.attester.workload.messages import (
    Done,
    Handed,
    Handing,
    Hello,
    Load,
    Message,
    Ranges,
    Ticked,
    Unload,
    parse,
)
from weighbridge.attester.workload.window import WorkWindow
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, WeighbridgeError
from weighbridge.proto.measurement_log import ModelUnload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.workload import WorkSummary

__all__ = ["WorkloadServer"]

# One inference server, its workers, and an operator looking in.
_PEERS_MAX: Final = 16
# A peer that does not read its answers for this long is disconnected.
_DRAIN_TIMEOUT_S: Final = 5.0
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_PAUSE_S: Final = 1.0

_Reply = dict[str, str | int | bool | None]


class WorkloadServer:
    """Listens on a Unix socket that only this user can open; use as an asynchronous context manager.

    Args:
        path: where the socket is made; a socket left there by a process that died is replaced.
        log: where loads and unloads are recorded.
        declared: what is loaded under the name of one of these is measured by its algorithm, without the paths that
            it leaves out; any other model by SHA-256, and all of it.
        on_load: called, in the event loop, with each manifest after its load is recorded; if the load is guarded,
            after all of it was handed over.
        on_measured: called, in a thread, with the manifest's digest and the directory, once the load is recorded.
    """

    def __init__(
        self,
        path: Path,
        log: MeasurementLog,
        *,
        declared: Sequence[Manifest] = (),
        on_load: Callable[[Manifest], None] | None = None,
        on_measured: Callable[[bytes, Path], None] | None = None,
    ) -> None:
        self._path = path
        self._declared = {manifest.name: manifest for manifest in declared}
        self._log = log
        self._on_load = on_load
        self._on_measured = on_measured
        self._window = WorkWindow()
        self._handovers = Handovers(log)
        self._awaited: dict[int, _Awaited] = {}
        self._measuring = asyncio.Lock()
        self._peers: set[_Peer] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            EnvironmentFault: ``PORT_UNAVAILABLE`` when the socket cannot be made or another process serves it.
        """
        self._listener = _listen(self._path)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None  # noqa: S101 - entered before it is left
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def take(self) -> WorkSummary:
        """Close the current window of work, begin the next, and return what was reported in it."""
        return self._window.take()

    async def tick(self, seq: int, *, timeout: float) -> int:  # noqa: ASYNC109 - a fixed share of the window
        """Tell every server that asked for it that window ``seq`` begins; wait until each has reported its own work.

        Args:
            seq: the window's number.
            timeout: seconds to wait, less than the window's period.

        Returns:
            How many servers have not answered in time. Their work counts where it arrives: in a later window.
        """
        waiting = [peer.tick(seq) for peer in self._peers if peer.ticks]
        if not waiting:
            return 0
        answers = [asyncio.ensure_future(answer) for answer in waiting]
        try:
            answered, _ = await asyncio.wait(answers, timeout=timeout)
        finally:
            # Also when the session ends within a window and cancels this wait.
            for task in answers:
                task.cancel()
        return len(answers) - sum(1 for task in answered if not task.cancelled() and task.result())

    def _accept(self) -> None:
        # Not asyncio's own server: in Python 3.11 it loses a connection that arrives while it closes.
        if self._listener is None:
            return
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                loop.remove_reader(self._listener)
                loop.call_later(_ACCEPT_PAUSE_S, self._resume)
            return
        task = loop.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also when the task was cancelled before it ran.
        task.add_done_callback(lambda _: connection.close())

    def _resume(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_MAX)
        peer = _Peer(writer)
        if len(self._peers) >= _PEERS_MAX:
            with contextlib.suppress(OSError, TimeoutError):
                await peer.send(_error(Code.PEER_REFUSED, f"more than {_PEERS_MAX} connections"))
            await peer.close()
            return
        self._peers.add(peer)
        try:
            await self._converse(peer, reader)
        except (OSError, TimeoutError):
            pass  # the peer is gone or does not read; what it reported stands
        finally:
            self._peers.discard(peer)
            await peer.close()

    async def _converse(self, peer: _Peer, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await peer.send(_error(Code.TOO_LARGE, f"a line is longer than {LINE_MAX} bytes"))
                return
            try:
                reply = await self._handle(peer, parse(line[:-1]))
            except WeighbridgeError as error:
                reply = _error(error.code, str(error))
            if reply is not None:
                await peer.send(reply)

    async def _handle(self, peer: _Peer, message: Message) -> _Reply | None:
        if not peer.greeted and not isinstance(message, Hello):
            raise MalformedEvidence(Code.SESSION_STATE, "the first message is not hello", where="message.type")
        match message:
            case Hello(ticks):
                peer.greeted, peer.ticks = True, ticks
                return {"type": "welcome", "protocol": PROTOCOL}
            case Done():
                self._window.add(message)
            case Ticked(seq):
                peer.ticked(seq)
            case _:
                return await self._weigh(message)
        return None

    async def _weigh(self, message: Load | Handing | Ranges | Handed | Unload) -> _Reply:
        """What concerns the weights, and the log."""
        match message:
            case Load():
                return await self._load(message)
            case Handing(file, recnum):
                place = await asyncio.to_thread(self._handovers.find, file, recnum)
                reply: _Reply = {"type": "handing", "recnum": place.recnum, "path": place.path}
                return {**reply, "kind": place.kind, "size": place.size, "algorithm": place.algorithm}
            case Ranges(recnum, path, ranges):
                wrong = await asyncio.to_thread(self._handovers.compare, recnum, path, ranges)
                self._announce(recnum, refused=wrong is not None)
                return {"type": "ranges", "wrong": wrong}
            case Handed(recnum, path, changed):
                whole = await asyncio.to_thread(self._handovers.end, recnum, path, changed)
                self._announce(recnum, refused=changed is not None)
                return {"type": "handed", "whole": whole}
            case Unload(recnum):
                await asyncio.to_thread(self._log.append, ModelUnload(recnum))
                self._handovers.remove(recnum)
                self._awaited.pop(recnum, None)
                return {"type": "unloaded", "recnum": recnum}
            case _:
                assert_never(message)

    async def _load(self, message: Load) -> _Reply:
        directory = Path(message.directory)
        # One at a time: measuring takes every core it can get.
        async with self._measuring:
            measured = await asyncio.to_thread(self._measure, directory, message.name)
            manifest = measured.manifest
            record = await asyncio.to_thread(
                lambda: self._log.append_load(manifest, protection=measured.protection, root=measured.root)
            )
            await asyncio.to_thread(self._handovers.add, record.recnum, directory, manifest)
            if self._on_measured is not None:
                await asyncio.to_thread(self._on_measured, manifest.digest, directory)
        self._awaited[record.recnum] = _Awaited(manifest, complete=not message.guarded)
        self._announce(record.recnum)
        return {"type": "loaded", "digest": manifest.digest.hex(), "recnum": record.recnum}

    def _measure(self, directory: Path, name: str | None) -> Measured:
        declared = self._declared.get(resolved(directory).name if name is None else name)
        if declared is None:
            return measure_protected(directory, name=name)
        return measure_protected(directory, name=name, algorithm=declared.algorithm, ignore=declared.ignored)

    def _announce(self, recnum: int, *, refused: bool = False) -> None:
        """Say of each load that it is there, in their order, once all was handed over that a guard is to hand over.

        A load of which something was refused is there too: it is for the verifier to see, and to refuse.
        """
        load = self._awaited.get(recnum)
        if load is not None:
            load.complete = load.complete or refused or self._handovers.whole(recnum)
        while self._awaited:
            number = min(self._awaited)
            first = self._awaited[number]
            if not first.complete:
                return
            del self._awaited[number]
            if self._on_load is not None:
                self._on_load(first.manifest)


@dataclass(slots=True)
class _Awaited:
    """A load that was recorded and that nobody was told of yet."""

    manifest: Manifest
    complete: bool


class _Peer:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.greeted = False
        self.ticks = False

    async def send(self, message: _Reply) -> None:
        self._writer.write(strict.json_encode(message) + b"\n")
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            await self._writer.drain()

    async def tick(self, seq: int) -> bool:
        """Whether the peer answered."""
        answered = self._waiting.setdefault(seq, asyncio.get_running_loop().create_future())
        try:
            await self.send({"type": "tick", "seq": seq})
            await answered
        except (OSError, TimeoutError):
            self._writer.transport.abort()
            return False
        else:
            return True
        finally:
            self._waiting.pop(seq, None)

    def ticked(self, seq: int) -> None:
        answered = self._waiting.get(seq)
        if answered is not None and not answered.done():
            answered.set_result(None)

    async def close(self) -> None:
        for answered in self._waiting.values():
            answered.cancel()
        self._writer.close()
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # it is gone, or does not read
        finally:
            # Closing alone would wait for the peer to take what is still buffered.
            self._writer.transport.abort()


def _error(code: Code, message: str) -> _Reply:
    return {"type": "error", "code": code.value, "message": message}


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with socket_address(str(path)) as address:
            _remove_stale(path, address)
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(_PEERS_MAX)
    except OSError as error:
        listener.close()
        raise EnvironmentFault(
            Code.PORT_UNAVAILABLE,
            f"cannot listen: {error.strerror or error}",
            where=str(path),
            hint="is another attester running, or does the directory belong to somebody else?",
        ) from error
    return listener


def _remove_stale(path: Path, address: str) -> None:
    """Remove a socket that nobody listens on; leave anything else, so that binding fails."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            path.unlink()
