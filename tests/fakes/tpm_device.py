"""A TPM emulator behind a character device, as the kernel shows a real one."""

from __future__ import annotations

import os
import pty
import select
import socket
import threading
import tty
from pathlib import Path
from typing import Self


class TpmBehindDevice:
    """Carries commands from a device to the emulator at ``target``."""

    def __init__(self, target: Path) -> None:
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        self._target = target
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    @property
    def tcti(self) -> str:
        return f"device:{os.ttyname(self._theirs)}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        os.close(self._ours)
        os.close(self._theirs)

    def _serve(self) -> None:
        with socket.socket(socket.AF_UNIX) as emulator:
            emulator.connect(str(self._target))
            while not self._done.is_set():
                if not select.select([self._ours], [], [], 0.01)[0]:
                    continue
                command = os.read(self._ours, 4096)
                while len(command) < int.from_bytes(command[2:6]):
                    command += os.read(self._ours, 4096)
                emulator.sendall(command)
                header = emulator.recv(10, socket.MSG_WAITALL)
                size = int.from_bytes(header[2:6]) - 10
                os.write(self._ours, header + (emulator.recv(size, socket.MSG_WAITALL) if size else b""))
