"""Reaching a TPM: every way in which there is none ends in one line with a hint, within seconds."""

from __future__ import annotations

import os
import pty
import socket
import tempfile
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from weighbridge.attester.tpm import transport
from weighbridge.attester.tpm.transport import DeviceChannel, SocketChannel, check_device, connect, emulator_path
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.wire import u16, u32

OK = u16(0x8001) + u32(10) + u32(0)


def answer(rc: int) -> bytes:
    return u16(0x8001) + u32(10) + u32(rc)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a unix socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="wb-") as name:
        yield Path(name)


class Server:
    """Listens as an emulator does and gives ``answers`` to the first commands, then closes; ``None`` is silence."""

    def __init__(self, path: Path, *answers: bytes | None) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._done = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client:
            for each in self._answers:
                if each is None:
                    self._done.wait()
                    return
                client.recv(4096)
                client.sendall(each)


@pytest.mark.parametrize("tcti", ["", "swtpm", "swtpm:", "swtpm:path=", "device:", "mssim:host=localhost", "tabrmd:"])
def test_other_ways_are_not_known(tcti: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        emulator_path(tcti)
    assert caught.value.code is Code.TPM_ABSENT


def test_known_ways() -> None:
    assert emulator_path("swtpm:path=/run/s") == Path("/run/s")
    assert emulator_path("device:/dev/tpmrm0") is None


def test_devices_that_are_none(folder: Path) -> None:
    (folder / "file").touch()
    for name in ("absent", "file"):
        with pytest.raises(EnvironmentFault) as caught:
            check_device(f"device:{folder / name}")
        assert caught.value.code is Code.TPM_ABSENT
    check_device("device:/dev/null")


@pytest.mark.parametrize(
    ("number", "code", "hint"),
    [(16, Code.TPM_BUSY, "tpmrm0"), (13, Code.TPM_ABSENT, "tss"), (2, Code.TPM_ABSENT, "firmware")],
    ids=["EBUSY", "EACCES", "ENOENT"],
)
def test_why_a_device_cannot_be_opened(number: int, code: Code, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(EnvironmentFault) as caught:
        check_device("device:/dev/tpm0")
    assert caught.value.code is code
    assert hint in caught.value.hint


@pytest.mark.parametrize(("mode", "hint"), [(0o660, "usermod -aG root USER"), (0o600, "use /dev/tpmrm0")])
def test_who_may_use_it(folder: Path, mode: int, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tpm0").touch(mode=mode)
    (folder / "tpm0").chmod(mode)
    os.chown(folder / "tpm0", -1, 0)

    def refuse(*_: object) -> int:
        raise OSError(13, os.strerror(13))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(EnvironmentFault) as caught:
        check_device(f"device:{folder / 'tpm0'}")
    assert hint in caught.value.hint


class Device:
    """A character device as the kernel's: what is written to it is answered by ``answers``, in pieces as given."""

    def __init__(self, *answers: tuple[bytes, ...]) -> None:
        self._ours, theirs = pty.openpty()
        tty.setraw(theirs)
        self._theirs = theirs
        self.path = Path(os.ttyname(theirs))
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        os.close(self._ours)
        os.close(self._theirs)

    def _serve(self) -> None:
        for pieces in self._answers:
            os.read(self._ours, 4096)
            for piece in pieces:
                os.write(self._ours, piece)
                time.sleep(0.01)


def test_a_device_is_asked_and_answers() -> None:
    with Device((OK,), (OK[:4], OK[4:]), (answer(0x922),)) as device:
        channel = connect(f"device:{device.path}")
        assert not channel.emulated
        for expected in (OK, OK, answer(0x922)):
            channel.transmit(b"command")
            assert channel.receive() == expected
        with pytest.raises(RuntimeError, match="emulator"):
            channel.startup()
        channel.close()
        channel.close()


def test_a_device_that_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_DEVICE_PATIENCE", 0.05)
    with Device((b"",), (OK[:5],)) as device:
        channel = DeviceChannel(device.path)
        for _ in range(2):
            channel.transmit(b"command")
            with pytest.raises(EnvironmentFault) as caught:
                channel.receive()
            assert caught.value.code is Code.TPM_BUSY
            assert "journalctl" in caught.value.hint
        channel.close()


def test_a_device_that_goes_away() -> None:
    device = Device()
    channel = DeviceChannel(device.path)
    with device:
        pass
    for operation in (lambda: channel.transmit(b"command"), channel.receive):
        with pytest.raises(EnvironmentFault) as caught:
            operation()
        assert caught.value.code is Code.TPM_ABSENT
    channel.close()


def test_half_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = DeviceChannel(Path("/dev/null"))
    monkeypatch.setattr(os, "write", lambda *_: 3)
    with pytest.raises(EnvironmentFault) as caught:
        channel.transmit(b"command")
    assert caught.value.code is Code.TPM_FAILED
    channel.close()


def test_a_device_that_fails_when_it_is_read() -> None:
    """A driver that lost its TPM says so on reading: here nobody may read at address 0."""
    channel = DeviceChannel(Path("/dev/null"))
    os.close(channel._descriptor)
    channel._descriptor = os.open("/proc/self/mem", os.O_RDWR)
    with pytest.raises(EnvironmentFault) as caught:
        channel.receive()
    assert caught.value.code is Code.TPM_ABSENT
    channel.close()


def test_a_device_that_is_no_tpm() -> None:
    channel = DeviceChannel(Path("/dev/null"))
    channel.transmit(b"command")
    with pytest.raises(EnvironmentFault) as caught:
        channel.receive()
    assert caught.value.code is Code.TPM_ABSENT
    channel.close()


def test_no_emulator(folder: Path) -> None:
    for path in (folder / "absent", folder / "no" / "folder"):
        with pytest.raises(EnvironmentFault) as caught:
            SocketChannel(path)
        assert caught.value.code is Code.TPM_ABSENT


def test_a_second_client_of_ours_is_told_at_once(folder: Path) -> None:
    with Server(folder / "s", OK, None), SocketChannel(folder / "s"):
        with pytest.raises(EnvironmentFault) as caught:
            SocketChannel(folder / "s")
        assert caught.value.code is Code.TPM_BUSY
        assert "another attester" in caught.value.message


def test_anybody_elses_client_makes_it_silent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_FIRST_PATIENCE", 0.05)
    with Server(folder / "s", None), pytest.raises(EnvironmentFault) as caught:
        SocketChannel(folder / "s")
    assert caught.value.code is Code.TPM_BUSY
    assert "one client at a time" in caught.value.hint


def test_silence_later_on_ends_the_connection(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late answer would be taken for that to the next command."""
    monkeypatch.setattr(transport, "_PATIENCE", 0.05)
    with Server(folder / "s", OK, None), SocketChannel(folder / "s") as channel:
        channel.transmit(b"command")
        with pytest.raises(EnvironmentFault) as caught:
            channel.receive()
        assert caught.value.code is Code.TPM_BUSY
        with pytest.raises(EnvironmentFault) as caught:
            channel.transmit(b"command")
        assert caught.value.code is Code.TPM_ABSENT


def test_a_full_socket_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_PATIENCE", 0.05)
    with Server(folder / "s", OK, None), SocketChannel(folder / "s") as channel:
        with pytest.raises(EnvironmentFault) as caught:
            channel.transmit(bytes(4 * 1024 * 1024))
        assert caught.value.code is Code.TPM_BUSY


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (answer(0x101), Code.TPM_FAILED),
        (u16(0x8001) + u32(9) + u32(0), Code.TPM_FAILED),
        (u16(0x8001) + u32(0xFFFFFFFF) + u32(0), Code.TPM_FAILED),
        (OK[:5], Code.TPM_ABSENT),
    ],
    ids=["failure", "short", "huge", "cut"],
)
def test_answers_that_are_none(folder: Path, first: bytes, code: Code) -> None:
    with Server(folder / "s", first), pytest.raises(EnvironmentFault) as caught:
        SocketChannel(folder / "s")
    assert caught.value.code is code


def test_started_already_is_fine(folder: Path) -> None:
    with Server(folder / "s", answer(0x100), answer(0) + b"", None), SocketChannel(folder / "s") as channel:
        channel.transmit(b"command")
        assert channel.receive() == OK


def test_a_dead_emulator(folder: Path) -> None:
    with Server(folder / "s", OK) as server, SocketChannel(folder / "s") as channel:
        server._thread.join()
        with pytest.raises(EnvironmentFault) as caught:
            channel.shutdown()
        assert caught.value.code is Code.TPM_ABSENT
        channel.close()
        channel.close()
