"""The inference server's side of the workload socket. Standard library only: this one file can be copied elsewhere.

A server connects, has each model measured *before* it loads it, and reports each request once it is answered::

    with WorkloadClient.connect() as attester:
        model = attester.load(directory, name="minilm")      # measured, logged, extended: load the files now
        ...
        salt = new_salt()
        attester.done(commit(salt, request, response), tokens_in=12, tokens_out=0, batch=1, prefill_ns=3_100_000)

What a guard in the server hashed before it handed it to a framework goes over the same connection; the guard itself is
:mod:`weighbridge.attester.loading`.

Protocol: a Unix stream socket; each message is one JSON object on one line of at most 64 KiB, UTF-8.

======================================================  ======================================================
server to attester                                      attester to server
======================================================  ======================================================
``{type: hello, protocol, ticks: bool}``                ``{type: welcome, protocol}``
``{type: load, directory, name, guarded: bool}``        ``{type: loaded, digest, recnum}``
``{type: handing, file, recnum or null}``               ``{type: handing, recnum, path, kind, size, algorithm}``
``{type: ranges, recnum, path, ranges: list}``         ``{type: ranges, wrong: index or null}``
``{type: handed, recnum, path, changed}``               ``{type: handed, whole: bool}``
``{type: unload, recnum}``                              ``{type: unloaded, recnum}``
``{type: done, commitment, counts…}``                   nothing
``{type: ticked, seq}``                                 ``{type: tick, seq}``, unasked, if ``ticks`` was true
anything else                                           ``{type: error, code, message}``
======================================================  ======================================================

A load that is ``guarded`` counts as begun only when all of its files that have weights were handed over. ``handing``
finds the file among the models that are loaded; ``ranges`` says what was read of it, each range ``[offset, size,
digest]``, and the answer which of them is the first that is not what was measured; ``handed`` ends it, ``changed``
being null or why the file could not be read.

The counts of ``done`` are ``tokens_in``, ``tokens_out``, ``batch``, ``prefill_ns`` and ``decode_ns``.

A tick says that window ``seq`` has begun; ``ticked`` answers it once all that the server does for that window by itself
is reported. A server without such work asks for no ticks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast, final

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType

__all__ = [
    "ENVIRONMENT",
    "LINE_MAX",
    "PROTOCOL",
    "Handover",
    "LoadedModel",
    "WorkloadClient",
    "WorkloadError",
    "commit",
    "new_salt",
    "socket_address",
]

ENVIRONMENT: Final = "WEIGHBRIDGE_WORKLOAD"
PROTOCOL: Final = "weighbridge/workload/v1"
LINE_MAX: Final = 64 * 1024
SALT_SIZE: Final = 32
# With a path of 4096 bytes, each escaped, less than a line.
_RANGES_MAX: Final = 256
# sockaddr_un.sun_path has 108 bytes, with its final NUL (unix(7)).
_PATH_MAX: Final = 107

# Measuring a model of hundreds of gigabytes takes minutes.
_REPLY_TIMEOUT_S: Final = 3600.0

_Message = dict[str, object]


@final
class WorkloadError(Exception):
    """The attester refused, or is gone. ``code`` is its stable reason, or ``PEER_UNREACHABLE``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code: str = code
        self.message: str = message


@final
@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What the attester logged: the manifest's digest in lower-case hex, and the number of the log's record."""

    digest: str
    recnum: int


@final
@dataclass(frozen=True, slots=True)
class Handover:
    """A file that a guard is about to read, as it was measured: whose, its format, its bytes, its digests' kind."""

    recnum: int
    path: str
    kind: str
    size: int
    algorithm: str


@contextlib.contextmanager
def socket_address(path: str) -> Generator[str]:
    """A name for the Unix socket at ``path`` that the kernel takes, for as long as the context lasts.

    Raises:
        OSError: its directory cannot be opened.
    """
    if len(os.fsencode(path)) <= _PATH_MAX:
        yield path
        return
    # A longer path is gone along up to its directory; the rest is short.
    place = Path(path)
    directory = os.open(place.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{place.name}"
    finally:
        os.close(directory)


def new_salt() -> bytes:
    """32 random bytes: one draw per request, given to the requester and kept from everybody else."""
    return secrets.token_bytes(SALT_SIZE)


def commit(salt: bytes, request: bytes, response: bytes) -> bytes:
    """The 32-byte commitment to a request and its response, as :func:`weighbridge.proto.workload.commit` defines it.

    Written out, since this file stands alone: SHA-256 over the CBOR array of the label and three byte strings.
    """
    if len(salt) != SALT_SIZE:
        raise ValueError(f"salt must be {SALT_SIZE} bytes")
    label = b"weighbridge/v1/work"
    encoded = bytes([0x84, 0x60 | len(label)]) + label
    for part in (salt, hashlib.sha256(request).digest(), hashlib.sha256(response).digest()):
        encoded += bytes([0x58, len(part)]) + part
    return hashlib.sha256(encoded).digest()


class WorkloadClient:
    """A connection to the attester. Safe to use from several threads.

    Every method raises :class:`WorkloadError` when the attester refuses or is gone. A server that cannot report should
    stop serving: its counts would not match the gate's.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Not for callers: use :meth:`connect`."""
        self._connection = connection
        self._sending = threading.Lock()
        self._asking = threading.Lock()
        self._replies: queue.Queue[_Message | None] = queue.Queue()
        self._ticks: queue.Queue[int | None] = queue.Queue()
        self._failure: WorkloadError | None = None
        self._reader = threading.Thread(target=self._read, name="weighbridge-workload", daemon=True)

    @classmethod
    def connect(cls, path: str | None = None, *, ticks: bool = False) -> Self:
        """Connect to the socket at ``path``, by default the one named in the environment.

        Args:
            path: the Unix socket; ``None`` for ``$WEIGHBRIDGE_WORKLOAD``.
            ticks: whether the attester shall say when windows begin.
        """
        where = path if path is not None else os.environ.get(ENVIRONMENT)
        if not where:
            raise WorkloadError("PEER_UNREACHABLE", f"no path given and ${ENVIRONMENT} is not set")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_address(where) as address:
                connection.connect(address)
        except OSError as error:
            connection.close()
            raise WorkloadError("PEER_UNREACHABLE", f"no attester at {where}: {error.strerror or error}") from error
        client = cls(connection)
        client._reader.start()
        try:
            client._ask({"type": "hello", "protocol": PROTOCOL, "ticks": ticks}, "welcome")
        except WorkloadError:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. The attester goes on counting what was loaded as loaded."""
        with contextlib.suppress(OSError):  # the peer was first
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def load(self, directory: str | os.PathLike[str], *, name: str | None = None, guarded: bool = False) -> LoadedModel:
        """Have the model in ``directory`` measured and logged. On return, and not before, load its files.

        Args:
            directory: the model's directory, as the attester sees it.
            name: the model's name; the directory's own by default.
            guarded: a guard will hand over every file that has weights; the session waits for that.
        """
        place = str(Path(directory).absolute())
        reply = self._ask({"type": "load", "directory": place, "name": name, "guarded": guarded}, "loaded")
        return LoadedModel(str(reply["digest"]), cast(int, reply["recnum"]))

    def handing(self, file: str | os.PathLike[str], *, recnum: int | None = None) -> Handover:
        """Say that a guard is about to read ``file``, of the load of ``recnum`` or of the newest that has it.

        The file must lie in a directory that was measured, under the path that it has there, and be in the manifest.
        """
        reply = self._ask({"type": "handing", "file": str(Path(file).absolute()), "recnum": recnum}, "handing")
        place = cast(int, reply["recnum"]), str(reply["path"]), str(reply["kind"])
        return Handover(*place, cast(int, reply["size"]), str(reply["algorithm"]))

    def first_mismatch(self, handover: Handover, ranges: Sequence[tuple[int, int, bytes]]) -> int | None:
        """Have what was read compared with what was measured; the index of the first range that is something else.

        ``None``: all are what was measured; on return, and not before, let the framework have them. Otherwise the
        attester has logged the mismatch, and the framework must not.

        Args:
            handover: of :meth:`handing`.
            ranges: offset in the file, bytes, and their digest: tensors, or the file's header.
        """
        for first in range(0, len(ranges), _RANGES_MAX):
            rows = [[offset, size, digest.hex()] for offset, size, digest in ranges[first : first + _RANGES_MAX]]
            message: _Message = {"type": "ranges", "recnum": handover.recnum, "path": handover.path, "ranges": rows}
            wrong = cast("int | None", self._ask(message, "ranges")["wrong"])
            if wrong is not None:
                return first + wrong
        return None

    def handed(self, handover: Handover, *, changed: str | None = None) -> bool:
        """Say that a guard is done with a file, or why it gave up; whether all of the file was handed over."""
        message: _Message = {"type": "handed", "recnum": handover.recnum, "path": handover.path, "changed": changed}
        return bool(self._ask(message, "handed")["whole"])

    def unload(self, recnum: int) -> None:
        """Say that the model that record ``recnum`` loaded is no longer served."""
        self._ask({"type": "unload", "recnum": recnum}, "unloaded")

    def done(
        self,
        commitment: bytes,
        *,
        tokens_in: int,
        tokens_out: int,
        batch: int,
        prefill_ns: int = 0,
        decode_ns: int = 0,
    ) -> None:
        """Report one answered request: counted in the window in which the report arrives.

        Args:
            commitment: of :func:`commit`, 32 bytes.
            tokens_in: tokens of the prompt.
            tokens_out: tokens generated.
            batch: requests that shared the accelerator with this one, itself included; at least 1.
            prefill_ns: time from when work on the prompt began to the first token, 0 where it is not measured.
            decode_ns: time from the first token to the last, likewise.
        """
        counts = {"tokens_in": tokens_in, "tokens_out": tokens_out, "prefill_ns": prefill_ns, "decode_ns": decode_ns}
        if len(commitment) != hashlib.sha256().digest_size or min(counts.values()) < 0 or batch < 1:
            raise ValueError(
                "a commitment is 32 bytes, tokens and times are not negative, and a batch has at least one request"
            )
        self._send({"type": "done", "commitment": commitment.hex(), "batch": batch, **counts})

    def next_tick(self, timeout: float | None = None) -> int | None:
        """Wait for the next window to begin: its number, or ``None`` after ``timeout`` seconds without one."""
        if self._failure is not None and self._ticks.empty():
            raise self._failure
        try:
            seq = self._ticks.get(timeout=timeout)
        except queue.Empty:
            return None
        if seq is None:
            raise self._failure or WorkloadError("PEER_UNREACHABLE", "the attester closed the connection")
        return seq

    def ticked(self, seq: int) -> None:
        """Say that everything this server does by itself in window ``seq`` is reported."""
        self._send({"type": "ticked", "seq": seq})

    def _ask(self, message: _Message, expected: str) -> _Message:
        with self._asking:
            self._send(message)
            try:
                reply = self._replies.get(timeout=_REPLY_TIMEOUT_S)
            except queue.Empty:
                reply = None
        if reply is None:
            raise self._failure or WorkloadError("PEER_UNREACHABLE", "the attester does not answer")
        if reply.get("type") != expected:
            raise WorkloadError(str(reply.get("code", "PEER_REFUSED")), str(reply.get("message", "unexpected reply")))
        return reply

    def _send(self, message: _Message) -> None:
        if self._failure is not None:
            raise self._failure
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._sending:
                self._connection.sendall(line)
        except OSError as error:
            raise WorkloadError("PEER_UNREACHABLE", f"the attester is gone: {error.strerror}") from error

    def _read(self) -> None:
        reason = "the attester closed the connection"
        try:
            with self._connection.makefile("rb") as stream:
                while line := stream.readline(LINE_MAX + 1):
                    # The attester is the trusted side of this socket.
                    message = cast(_Message, json.loads(line))  # noqa: TID251 - standard library only
                    if message.get("type") == "tick":
                        self._ticks.put(cast(int, message["seq"]))
                    else:
                        self._replies.put(message)
        except (OSError, ValueError, KeyError) as error:
            reason = f"the connection broke: {error}"
        self._failure = WorkloadError("PEER_UNREACHABLE", reason)
        self._replies.put(None)
        self._ticks.put(None)
