"""Stands between a client and an emulator: answers some commands in the TPM's place, slips others in."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Self

from weighbridge.proto.tpm.wire import u16, u32

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_HEADER = 10


class TpmProxy:
    """Serves one client at ``path``.

    ``inject(code, rc, times)``: the next such commands are answered with ``rc``. ``precede(code, command, times)``:
    before each of the next such commands the TPM is given ``command``, as if by another client. ``restless()`` gives
    a command before every command. :meth:`give` has the TPM carry out a command of another client's, at once.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.seen: list[int] = []
        self._target = target
        self._faults: dict[int, list[int]] = {}
        self._slipped_in: dict[int, list[bytes]] = {}
        self.restless: Callable[[], bytes] | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._upstream: socket.socket | None = None
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._serve)

    @property
    def tcti(self) -> str:
        return f"swtpm:path={self.path}"

    def inject(self, code: int, rc: int, times: int) -> None:
        self._faults[code] = [rc] * times

    def precede(self, code: int, command: bytes, times: int) -> None:
        self._slipped_in[code] = [command] * times

    def give(self, command: bytes) -> None:
        with self._turn:
            if self._upstream is not None:
                self._upstream.sendall(command)
                _message(self._upstream)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.socket(socket.AF_UNIX) as target:
            target.connect(str(self._target))
            self._upstream = target
            while command := _message(client):
                code = int.from_bytes(command[6:10])
                self.seen.append(code)
                faults = self._faults.get(code)
                if faults:
                    client.sendall(u16(0x8001) + u32(_HEADER) + u32(faults.pop()))
                    continue
                with self._turn:
                    if self.restless is not None:
                        target.sendall(self.restless())
                        _message(target)
                    if self._slipped_in.get(code):
                        target.sendall(self._slipped_in[code].pop())
                        _message(target)
                    target.sendall(command)
                    answer = _message(target)
                client.sendall(answer)
            with self._turn:
                self._upstream = None


def _message(source: socket.socket) -> bytes:
    header = source.recv(_HEADER, socket.MSG_WAITALL)
    size = int.from_bytes(header[2:6]) - _HEADER if header else 0
    return header + (source.recv(size, socket.MSG_WAITALL) if size else b"")
