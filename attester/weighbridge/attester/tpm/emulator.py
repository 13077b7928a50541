"""A TPM without hardware: swtpm, a real TPM 2.0 implementation, under a certification authority of its own.

Everything it attests is of the platform ``insecure-emulated``: whoever runs it holds its state and its keys. No
shipped policy and no default anchor admits it.

:func:`manufacture` makes a TPM once, with an EK certificate from a local CA whose certificates can be written into
an anchors document. :class:`Swtpm` runs it, from a copy of that state or from a directory that lives on.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester.tpm.transport import SocketChannel
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.wire import u32

if TYPE_CHECKING:
    from typing import Self

__all__ = ["PLATFORM", "Manufactured", "Swtpm", "manufacture"]

PLATFORM: Final = "insecure-emulated"

_BANKS: Final = "sha256,sha384"
_MADE: Final = "made"
_HINT: Final = "apt-get install --no-install-recommends swtpm swtpm-tools"
_PATIENCE: Final = 60.0
_READY_PATIENCE: Final = 10.0
# Control commands of swtpm (swtpm_ioctls(3)): u32 code, then the body; the answer starts with a u32 result.
_CMD_GET_CAPABILITY: Final = u32(1)
_CMD_INIT: Final = u32(2)


@dataclass(frozen=True, slots=True)
class Manufactured:
    """A TPM as it left the factory, never switched on, and the authority that certified it.

    ``state`` is swtpm's state directory; ``root`` and ``intermediate`` are DER certificates: the second issued the
    EK's certificate, the first the second.
    """

    state: Path
    root: bytes
    intermediate: bytes


def manufacture(directory: Path) -> Manufactured:
    """A manufactured TPM in ``directory``: the one that is there, or a new one.

    A half-made one, from a run that was broken off, is thrown away. Takes about two seconds once.

    Args:
        directory: made if needed; its parent must exist.

    Raises:
        EnvironmentFault: ``TOOL_MISSING`` without swtpm, ``COMMAND_FAILED`` if it fails.
    """
    if not (directory / _MADE).exists():
        shutil.rmtree(directory, ignore_errors=True)
        _make(directory)
    return Manufactured(
        state=directory / "state",
        root=_der(directory / "ca" / "swtpm-localca-rootca-cert.pem"),
        intermediate=_der(directory / "ca" / "issuercert.pem"),
    )


def _make(directory: Path) -> None:
    setup, authority = _tool("swtpm_setup"), _tool("swtpm_localca")
    state, ca = directory / "state", directory / "ca"
    for folder in (directory, state, ca):
        folder.mkdir(mode=0o700)
    # Nothing under /var/lib, no account needed: every path is ours.
    (directory / "setup.conf").write_text(
        f"create_certs_tool = {authority}\n"
        f"create_certs_tool_config = {directory}/localca.conf\n"
        f"create_certs_tool_options = {directory}/localca.options\n"
        f"active_pcr_banks = {_BANKS}\n"
    )
    (directory / "localca.conf").write_text(
        f"statedir = {ca}\n"
        f"signingkey = {ca}/signkey.pem\n"
        f"issuercert = {ca}/issuercert.pem\n"
        f"certserial = {ca}/certserial\n"
    )
    (directory / "localca.options").write_text(
        "--platform-manufacturer Weighbridge\n--platform-version 1.0\n--platform-model insecure-emulated\n"
    )
    arguments = ["--tpm2", "--tpmstate", str(state), "--pcr-banks", _BANKS, "--config", str(directory / "setup.conf")]
    arguments += [
        "--createek",
        "--create-ek-cert",
        "--lock-nvram",
        "--overwrite",
        "--logfile",
        str(directory / "setup.log"),
    ]
    environment = {**os.environ, "HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    _run([setup, *arguments], environment=environment, log=directory / "setup.log")
    (directory / _MADE).touch()


def _run(arguments: list[str], *, environment: dict[str, str], log: Path) -> None:
    try:
        subprocess.run(  # noqa: S603 - the tool was found by name, its arguments are ours
            arguments,
            check=True,
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise EnvironmentFault(
            Code.COMMAND_FAILED,
            "manufacturing the emulated TPM failed",
            where=str(log),
            got=_last_line(log),
            hint=str(error),
        ) from error


@final
class Swtpm:
    """A running emulated TPM. A context manager: on leaving it is shut down.

    The process ends with the *thread* that started it: start it from one that lives as long as it is needed.

    Args:
        manufactured: the TPM.
        state: where its state lives on over several runs, filled from ``manufactured`` when it does not exist; by
            default a fresh copy that is deleted in the end.
    """

    def __init__(self, manufactured: Manufactured, *, state: Path | None = None) -> None:
        # Short: the path of a unix socket has at most 107 bytes. mkdtemp makes it for this user only.
        self._run = Path(tempfile.mkdtemp(prefix="weighbridge-tpm-"))
        self._state = self._run / "state" if state is None else state
        if not self._state.exists():
            shutil.copytree(manufactured.state, self._state)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def tcti(self) -> str:
        """How to reach it, for :meth:`weighbridge.attester.tpm.device.Tpm.open`."""
        return f"swtpm:path={self._socket}"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            EnvironmentFault: ``TOOL_MISSING``, ``TPM_FAILED``.
            RuntimeError: it runs already.
        """
        if self._process is not None:
            raise RuntimeError("already running")
        for path in (self._socket, self._control):
            path.unlink(missing_ok=True)
        arguments = [_tool("swtpm"), "socket", "--tpm2", "--tpmstate", f"dir={self._state}"]
        arguments += ["--server", f"type=unixio,path={self._socket}", "--ctrl", f"type=unixio,path={self._control}"]
        arguments += ["--flags", "not-need-init,startup-clear", "--log", f"file={self._log},level=1"]
        self._process = subprocess.Popen(  # noqa: S603 - the tool was found by name, its arguments are ours
            [*_die_with_parent(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Switch it off, after ``TPM2_Shutdown`` unless a client is still connected. Does nothing if it is off."""
        if self._process is not None and self._process.poll() is None:
            try:
                with SocketChannel(self._socket) as channel:
                    channel.shutdown()
            except EnvironmentFault:
                pass  # a client holds it: this is then a disorderly loss of power
        self.kill()

    def kill(self) -> None:
        """Cut its power: nothing is shut down. Does nothing if it is off."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def power_cycle(self) -> None:
        """Reset it without shutting it down, as by the machine's reset button; clients stay connected.

        Somebody has to send ``TPM2_Startup`` afterwards: a new client does, or ``Tpm.startup``.
        """
        self._ask(_CMD_INIT + u32(0), 4)

    def snapshot(self, directory: Path) -> None:
        """Copy the state as it is on disk now; ``directory`` must not exist."""
        shutil.copytree(self._state, directory)

    def restore(self, directory: Path) -> None:
        """Cut the power, put the state in ``directory`` in place of the present one, start again."""
        self.kill()
        shutil.rmtree(self._state)
        shutil.copytree(directory, self._state)
        self.start()

    def close(self) -> None:
        """Stop it and delete what is temporary."""
        self.stop()
        shutil.rmtree(self._run, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self._run / "s"

    @property
    def _control(self) -> Path:
        # libtss2's own connection derives this name from the other, and ours keeps to it.
        return self._run / "s.ctrl"

    @property
    def _log(self) -> Path:
        return self._run / "log"

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_PATIENCE
        while True:
            try:
                self._ask(_CMD_GET_CAPABILITY, 8)
            except OSError as error:
                ended = process.poll() is not None
                if ended or time.monotonic() > deadline:
                    self.kill()
                    message = "emulator ended at once" if ended else "emulator does not answer"
                    raise EnvironmentFault(
                        Code.TPM_FAILED, message, where=str(self._log), got=_last_line(self._log)
                    ) from error
                time.sleep(0.005)
            else:
                return

    def _ask(self, request: bytes, size: int) -> bytes:
        """One exchange on the control socket; the connection is made anew each time, as swtpm expects."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(str(self._control))
            control.sendall(request)
            answer = control.recv(size)
        if len(answer) != size:
            raise ConnectionResetError("the control socket was closed")
        if size == len(u32(0)) and answer != u32(0):
            raise EnvironmentFault(Code.TPM_FAILED, "emulator refuses to be reset", got=answer)
        return answer


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise EnvironmentFault(Code.TOOL_MISSING, f"{name} is not installed", where=name, hint=_HINT)
    return path


def _die_with_parent() -> list[str]:
    """A prefix that has the process killed with us, however we end: otherwise emulators pile up."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "TERM"]


def _der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    return lines[-1] if lines else "empty log"
