"""A verifier and a host as their operators have them: the installed commands in processes of their own, on a real TPM
implementation, with everything they write in directories of their own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.models import write_model
from support.options import changed
from support.ports import free_port
from support.world import reference_for, requirements
from weighbridge.attester import cli as attester_cli
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.keys import ensure_keys
from weighbridge.attester.tpm.emulator import PLATFORM, Manufactured, Swtpm, manufacture
from weighbridge.attester.weights import measure
from weighbridge.proto import note
from weighbridge.verifier import cli as verifier_cli
from weighbridge.verifier import pki
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors
from weighbridge.verifier.deployment import Deployment
from weighbridge.verifier.keys import VerifierKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from types import TracebackType

BIN: Final = Path(sys.executable).parent
PATIENCE_S: Final = 60.0
ORIGIN: Final = "ledger.example/test"

_SERVER: Final = """
import sys
from weighbridge.attester.workload.client import WorkloadClient, WorkloadError, commit, new_salt
with WorkloadClient.connect(ticks=True) as attester:
    attester.load(sys.argv[1], name="tiny")
    try:
        while True:
            seq = attester.next_tick()
            attester.done(commit(new_salt(), b"q", b"a"), tokens_in=3, tokens_out=4, batch=1)
            attester.ticked(seq)
    except WorkloadError:
        pass
"""


@dataclass(frozen=True)
class Done:
    """A finished command."""

    status: int
    out: str
    err: str


def run(
    *command: object, env: Mapping[str, str] | None = None, stdin: bytes = b"", timeout: float = PATIENCE_S
) -> Done:
    """Run a command to its end; ``weighbridge`` and ``weighbridge-attester`` are the installed ones."""
    done = subprocess.run(
        _argv(command), input=stdin, capture_output=True, check=False, timeout=timeout, env=_environment(env)
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def here(program: str, *arguments: object) -> Done:
    """What :func:`run` gives, without a process: for commands that only look at what others have left."""
    main = {"weighbridge": verifier_cli.main, "weighbridge-attester": attester_cli.main}[program]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return Done(status, out.getvalue(), err.getvalue())


def _argv(command: Sequence[object]) -> list[str]:
    name, *rest = map(str, command)
    return [str(BIN / name) if name.startswith("weighbridge") else name, *rest]


def _environment(changes: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(changes or {})}


class Running:
    """A command that runs until it is stopped, and what it has printed: ``lines`` of standard output as JSON."""

    def __init__(self, *command: object, env: Mapping[str, str] | None = None) -> None:
        self.lines: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            _argv(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=_environment(env), start_new_session=True,
        )  # fmt: skip
        self._readers = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._finish()

    def until(self, seen: Callable[[Self], object], what: str, *, timeout: float = PATIENCE_S) -> None:
        """Wait until ``seen`` is true of what was printed."""
        with self._news:
            self._news.wait_for(lambda: seen(self) or self.process.poll() is not None, timeout)
        assert seen(self), f"{what}: exit {self.process.poll()}\n{self.lines}\n{self.errors}"

    def until_windows(self, status: str, count: int) -> None:
        """Wait for ``count`` windows of that ``status`` in all."""
        self.until(lambda _: len(self.windows(status)) >= count, f"{count} windows {status}")

    def windows(self, status: str) -> list[int]:
        """The numbers of the windows that were reported with ``status``, in the order of the reports."""
        return [line["seq"] for line in list(self.lines) if line.get("status") == status]

    def notices(self) -> list[str]:
        """The kinds of the notices so far."""
        return [line["kind"] for line in list(self.lines) if line["schema"] == "weighbridge/attester-notice/v1"]

    def terminate(self) -> Done:
        """Ask it to end, and wait for it."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def kill(self) -> None:
        """SIGKILL: as when power fails."""
        self.process.kill()
        self._finish()

    def end(self, *, timeout: float = PATIENCE_S) -> Done:
        """Wait until it has ended by itself."""
        self.process.wait(timeout)
        self._finish()
        out = "".join(json.dumps(line) + "\n" for line in self.lines)
        return Done(self.process.returncode, out, "".join(f"{line}\n" for line in self.errors))

    def _finish(self) -> None:
        self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            document = json.loads(line) if line.startswith(b"{") else {"schema": "", "text": line.decode()}
            with self._news:
                self.lines.append(document)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.errors.append(line.decode().rstrip("\n"))
                self._news.notify_all()


class Factory:
    """What is made once for many sites: a TPM, GPUs, a model, and the documents about them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: Manufactured = manufacture(root / "tpm")
        self.model = write_model(root / "model")
        manifest = measure(self.model, name="tiny")
        gpus = EmulatedGpus.open(root / "vendor", 2)
        self.manifest = self._write("manifest.json", manifest.to_json())
        self.server = self._write("server.py", _SERVER.encode())
        self.requirements = self._write("requirements.json", requirements().encode())
        self.reference = self._write("reference.json", reference_for(gpus, [manifest]).to_json())
        roots: dict[Purpose, bytes] = {
            "nvidia-device-root": gpus.vendor.root_certificate,
            "tpm-ek-root": self.made.root,
            "tpm-ek-intermediate": self.made.intermediate,
        }
        self.anchors = TrustAnchors(
            tuple(
                Anchor.from_certificate(
                    purpose, x509.load_der_x509_certificate(certificate), platform=PLATFORM, source="a test"
                )
                for purpose, certificate in roots.items()
            )
        )
        self.roots = self._write("roots.json", self.anchors.encode())

    @property
    def vendor(self) -> Path:
        return self.root / "vendor"

    def _write(self, name: str, data: bytes) -> Path:
        path = self.root / name
        path.write_bytes(data)
        return path


@dataclass
class Site:
    """One verifier and one host. A context manager: on leaving it, the TPM is switched off."""

    factory: Factory
    directory: Path
    verifier: Path = field(init=False)
    state: Path = field(init=False)
    port: int = field(init=False)
    tpm: Swtpm = field(init=False)

    def __post_init__(self) -> None:
        self.verifier, self.state = self.directory / "verifier", self.directory / "attester"
        self.port = free_port()
        self.tpm = Swtpm(self.factory.made)

    def __enter__(self) -> Self:
        self.tpm.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tpm.close()

    def prepare(self) -> Self:
        """Make the verifier's state and the host's keys, and admit the host."""
        self.prepare_verifier()
        self.prepare_attester()
        return self

    def prepare_verifier(self) -> None:
        Deployment.create(self.verifier, origin=ORIGIN, hosts=("localhost", "127.0.0.1"), at=datetime.now(UTC))

    def prepare_attester(self) -> None:
        ensure_keys(self.state, names=["localhost"], at=datetime.now(UTC))
        request = (self.state / "channel.csr").read_bytes()
        certificate = pki.issue_client(self.verifier / "tls", request, at=datetime.now(UTC))
        (self.state / "channel.pem").write_bytes(certificate.public_bytes(Encoding.PEM))

    def judging(self) -> list[object]:
        """The options that say how sessions are judged."""
        factory = self.factory
        return [
            "--policy", "insecure_development", "--reference", factory.reference, "--manifest", factory.manifest,
        ]  # fmt: skip

    def serve_command(self, *options: object) -> list[object]:
        return [
            "weighbridge", "serve", self.verifier, "--requirements", self.factory.requirements,
            *self.judging(), "--anchors", self.factory.roots, *options,
            *(() if "--listen" in options else ("--listen", f"127.0.0.1:{self.port}")),
        ]  # fmt: skip

    @contextlib.contextmanager
    def serving(self, *, env: Mapping[str, str] | None = None) -> Generator[Running]:
        """The verifier, from when it listens."""
        with Running(*self.serve_command(), env=env) as verifier:
            verifier.until(lambda it: any("listening on" in line for line in it.errors), "the verifier listens")
            yield verifier

    def attester_command(self, *options: object, server: Sequence[object] | None = None) -> list[object]:
        factory = self.factory
        command: list[object] = [
            "weighbridge-attester", "run", "--json", "--verifier", f"localhost:{self.port}",
            "--verifier-ca", self.verifier / "tls" / "ca.pem", "--verifier-key", self.verifier / "anchors.json",
            "--manifest", factory.manifest, "--state", self.state, "--tenant", "tenant-a",
            "--audience", "relying-party", "--tcti", self.tpm.tcti, "--gpu", "emulated:2",
            "--gpu-vendor", factory.vendor, "--seed", 1,
        ]  # fmt: skip
        return [*changed(command, *options), "--", *(server or [sys.executable, factory.server, factory.model])]

    def attesting(self, *options: object, env: Mapping[str, str] | None = None) -> Running:
        return Running(*self.attester_command(*options), env=env)

    def sessions(self) -> list[dict[str, Any]]:
        """What the verifier has recorded, as its operator sees it."""
        done = here("weighbridge", "sessions", self.verifier, "--json")
        assert done.status == 0, done.err
        listed: list[dict[str, Any]] = json.loads(done.out)["sessions"]
        return listed

    def check_recorded(self, session: str) -> dict[str, Any]:
        """The session's windows, after its bundle was exported and verified, and the ledger audited.

        Each window is in the chain once, in order, or the bundle would be refused.
        """
        bundle = self.directory / f"{session}.wb"
        done = here("weighbridge", "export", self.verifier, session, "-o", bundle, *self.judging())
        assert done.status == 0, done.err
        own = ["--anchors", self.factory.roots, "--anchors", self.verifier / "anchors.json"]
        verified = here("weighbridge", "verify", "bundle", bundle, *own, "--json")
        assert verified.status == 0, verified.err
        keys = VerifierKeys.open(self.verifier / "keys")
        key = note.NoteKey.from_spki(ORIGIN, keys.ledger_spki).vkey
        done = here("weighbridge", "ledger", "audit", self.verifier / "ledger", "--key", key)
        assert done.status == 0, done.err
        document: dict[str, Any] = json.loads(verified.out)
        return document
