"""Replicas of one verifier, each `weighbridge serve` in its own process, and attesters that take whichever is there.

Hosts seal as fast as they are answered; their intervals lie in the past, one behind the other.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

from cryptography.hazmat.primitives.serialization import Encoding

from support.gated import Loop, until
from support.world import FakeClock, Host, gpu_anchor, manifest, reference_for, requirements
from weighbridge.attester.client import GrpcTransport
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.keys import ensure_keys, load_channel
from weighbridge.proto.enrolment import EnrolmentChallenge
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.proto.terms import SignedTerms
from weighbridge.verifier import pki
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.core import Opened, Verifier
from weighbridge.verifier.deployment import Deployment
from weighbridge.verifier.keys import VerifierKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from weighbridge.attester.client import Answer, Line
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.database import PostgresAddress

__all__ = ["Attester", "Fleet", "Replica"]

PROGRAM: Final = Path(sys.executable).parent / "weighbridge"
ORIGIN: Final = "ledger.example/replicas"
_BEHIND: Final = timedelta(hours=1)
# Nobody's window is late while a replica starts again.
_LATENESS_NS: Final = 600_000_000_000
_PATIENCE_S: Final = 40.0


class Replica:
    """One process that serves, and serves again at the same port when it is started again."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet, self._name = fleet, name
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; :meth:`ready` waits until it listens."""
        directory = self._fleet.directory
        told = directory / f"{self._name}.port"
        told.unlink(missing_ok=True)
        with (directory / f"{self._name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PROGRAM, "serve", self._fleet.state, "--policy", "insecure_development",
                    "--requirements", directory / "requirements.json", "--reference", directory / "reference.json",
                    "--anchors", directory / "anchors.json", "--listen", f"127.0.0.1:{self.port}", "--port-file", told,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def ready(self) -> None:
        """Wait until it listens."""
        told = self._fleet.directory / f"{self._name}.port"
        until(lambda: told.exists() or self._process is None or self._process.poll() is not None, within=_PATIENCE_S)
        assert told.exists(), self.log
        self.port = int(told.read_text())

    def kill(self) -> None:
        """As a machine that is gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """In good order; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(_PATIENCE_S)

    def end(self) -> None:
        """It does not run any more."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._fleet.directory / f"{self._name}.log").read_text()


@dataclass
class Attester:
    """A host, and its line to whichever replica answers. One thread uses it."""

    fleet: Fleet
    host: Host
    transports: Callable[[Replica], GrpcTransport]
    turn: int
    recorded: int = 0
    outcomes: list[str] = field(default_factory=list)
    _line: Line | None = None

    def enrol(self) -> None:
        """Open a session, and load the model."""
        line = self._line = self.connect(self.fleet.replicas[self.turn % 2])
        run, key = self.fleet.loop.run, self.fleet.keys.signing.public_key()

        class Remote:
            def open(self, data: bytes, *, peer: bytes = b"") -> EnrolmentChallenge:  # noqa: ARG002 - the channel says it
                return EnrolmentChallenge.parse(run(line.open(data)))

            def prove(self, data: bytes, *, peer: bytes = b"") -> Opened:  # noqa: ARG002 - as above
                opened = run(line.prove(data))
                return Opened(SignedTerms.open(opened.terms, key), opened.challenge, None)

        self.host.enrol(cast("Verifier", Remote()))
        self.host.log.load(self.host.model)

    def connect(self, replica: Replica) -> Line:
        """A new line to ``replica``."""
        return self.fleet.loop.run(self.transports(replica).connect())

    def window(self) -> None:
        """Seal the next window, and deliver it: until some replica says that it is recorded."""
        host = self.host
        sealed = host.seal()
        end = time.monotonic() + _PATIENCE_S
        while not self._delivered(sealed):
            assert time.monotonic() < end, "nobody takes the window"
            time.sleep(0.05)
        host.advance(sealed)
        self.recorded += 1

    def _delivered(self, sealed: SealedWindow) -> bool:
        try:
            if self._line is None:
                self.turn += 1
                line = self.connect(self.fleet.replicas[self.turn % 2])
                self._line = line
                resumed = self.fleet.loop.run(line.resume(self.host.session))
                self.host.challenge = resumed.challenge
                if resumed.next_seq == self.host.seq + 1:
                    self.outcomes.append("unheard")
                    return True
                assert resumed.next_seq == self.host.seq
            answer = self.fleet.loop.run(self._line.window(sealed.evidence))
        except EnvironmentFault:
            self.cut()
            return False
        except NotAuthentic as error:
            if error.code is not Code.WINDOW_DUPLICATE:
                raise
            # It is there, from before the line was cut: asked again, the replica says how it goes on.
            self.cut()
            return False
        verdict: dict[str, Any] = json.loads(answer.verdict)
        self.outcomes.append(verdict["outcome"])
        self.host.challenge = answer.challenge or b""
        return True

    def send(self, line: Line, sealed: SealedWindow) -> Answer:
        """Take up the session on another line, and send a window there."""

        async def work() -> Answer:
            await line.resume(self.host.session)
            return await line.window(sealed.evidence)

        return self.fleet.loop.run(work())

    def close(self) -> None:
        """End the session in good order."""
        if self._line is None:
            self._line = self.connect(self.fleet.replicas[self.turn % 2])
            self.fleet.loop.run(self._line.resume(self.host.session))
        self.fleet.loop.run(self._line.close_session(self.host.session))
        self.cut()

    def cut(self) -> None:
        """Let the line go."""
        if self._line is not None:
            self.fleet.loop.run(self._line.disconnect())
            self._line = None


class Fleet:
    """Two replicas over one database and one directory, and some attesters. A context manager."""

    def __init__(self, directory: Path, store: PostgresAddress) -> None:
        self.directory, self.state = directory, directory / "state"
        self.loop = Loop()
        now = datetime.now(UTC)
        Deployment.create(self.state, origin=ORIGIN, hosts=("localhost", "127.0.0.1"), at=now, store=store)
        self.keys = VerifierKeys.open(self.state / "keys")
        self._clock = FakeClock(now - _BEHIND)
        self._model = manifest()
        self._first = Host.make(self._model, clock=self._clock)
        anchors = (*self._first.tpm.authority.anchors("insecure-emulated").anchors, gpu_anchor(self._first.gpus))
        documents = {
            "requirements.json": requirements(lateness_ns=_LATENESS_NS).encode(),
            "reference.json": reference_for(self._first.gpus, [self._model]).to_json(),
            "anchors.json": TrustAnchors(anchors).encode(),
        }
        for name, data in documents.items():
            (directory / name).write_bytes(data)
        self.replicas = (Replica(self, "a"), Replica(self, "b"))

    def __enter__(self) -> Self:
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            replica.ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for replica in self.replicas:
            replica.end()
        self.loop.close()

    def attester(self, number: int) -> Attester:
        """A new host with a session."""
        vendor = self._first.gpus.vendor
        gpus = EmulatedGpus(vendor, [EmulatedH100.make(vendor) for _ in self._first.gpus.devices])
        host = Host.make(self._model, tpm=type(self._first.tpm)(f"host {number}"), gpus=gpus, clock=self._clock)
        state = self.directory / f"host-{number}"
        ensure_keys(state, names=["localhost"], at=datetime.now(UTC))
        tls = self.state / "tls"
        certificate = pki.issue_client(tls, (state / "channel.csr").read_bytes(), at=datetime.now(UTC))
        (state / "channel.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        channel, authority = load_channel(state), (tls / "ca.pem").read_bytes()
        host.peer = channel.peer

        def transport(replica: Replica) -> GrpcTransport:
            return GrpcTransport(f"localhost:{replica.port}", authority=authority, channel=channel)

        made = Attester(self, host, transport, turn=number)
        made.enrol()
        return made

    @contextlib.contextmanager
    def load(self, attesters: list[Attester]) -> Generator[Callable[[int], None]]:
        """All of them send windows while the block lasts; what one of them fails with is raised at its end."""
        over = threading.Event()
        failures: list[BaseException] = []

        def work(attester: Attester) -> None:
            try:
                while not over.is_set():
                    attester.window()
            except BaseException as error:  # noqa: BLE001 - of whatever kind: it is raised below
                failures.append(error)
                over.set()

        threads = [threading.Thread(target=work, args=(attester,)) for attester in attesters]
        for thread in threads:
            thread.start()
        try:
            yield lambda more: self._more(attesters, more, failures)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]

    @staticmethod
    def _more(attesters: list[Attester], more: int, failures: list[BaseException]) -> None:
        """Wait until each has had ``more`` windows recorded than it has now."""
        wanted = [attester.recorded + more for attester in attesters]
        until(
            lambda: failures or all(item.recorded >= least for item, least in zip(attesters, wanted, strict=True)),
            within=_PATIENCE_S,
        )
