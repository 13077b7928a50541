"""Several processes on one port and one state: killed under load, no window is lost, none doubled, sessions go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from cryptography.hazmat.primitives.serialization import Encoding

from fakes.soft_tpm import SoftTpm
from support.site import ORIGIN, Running, here, run
from support.world import EMULATED, PERIOD_NS, FakeClock, Host, gpu_anchor, manifest, reference_for, requirements
from weighbridge.attester.client import GrpcTransport, Line, Timeouts
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.keys import ensure_keys, load_channel
from weighbridge.proto.enrolment import EnrolmentChallenge
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.proto.terms import SignedTerms
from weighbridge.verifier import pki
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.core import Opened
from weighbridge.verifier.deployment import Deployment
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.record import Leaf
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.core import Verifier

HOSTS = 4
WINDOWS = 5


@dataclass
class Ground:
    """A verifier's state, with what it judges by, and hosts that it admits."""

    directory: Path
    hosts: list[Host] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @classmethod
    def make(cls, directory: Path, *, hosts: int) -> Self:
        place = cls(directory)
        Deployment.create(place.state, origin=ORIGIN, hosts=("localhost", "127.0.0.1"), at=datetime.now(UTC))
        vendor = EmulatedGpus.create(1).vendor
        for number in range(hosts):
            gpus = EmulatedGpus(vendor, [EmulatedH100.make(vendor) for _ in range(2)])
            host = Host.make(manifest(), tpm=SoftTpm(f"host {number}"), gpus=gpus, clock=FakeClock(datetime.now(UTC)))
            own = directory / f"host {number}"
            ensure_keys(own, names=["localhost"], at=datetime.now(UTC))
            certificate = pki.issue_client(
                place.state / "tls", (own / "channel.csr").read_bytes(), at=datetime.now(UTC)
            )
            (own / "channel.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
            host.peer, host.directory = load_channel(own).peer, own
            place.hosts.append(host)
        first = place.hosts[0]
        roots = TrustAnchors((*first.tpm.authority.anchors(EMULATED).anchors, gpu_anchor(first.gpus)))
        (directory / "roots.json").write_bytes(roots.encode())
        (directory / "requirements.json").write_bytes(requirements().encode())
        (directory / "reference.json").write_bytes(reference_for(first.gpus, [first.model]).to_json())
        return place

    def serve_command(self, *options: object) -> list[object]:
        return [
            *("weighbridge", "serve", self.state, "--requirements", self.directory / "requirements.json"),
            *("--policy", "insecure_development", "--reference", self.directory / "reference.json"),
            *("--anchors", self.directory / "roots.json", *options),
        ]


@dataclass
class Attester:
    """One host's attester: sends a window a second, and when its line is cut resumes with whoever answers."""

    host: Host
    target: str
    place: Ground
    line: Line | None = None
    # How often each window was answered with a verdict, and what happened else.
    answered: Counter[int] = field(default_factory=Counter)
    cuts: int = 0

    async def connect(self) -> Line:
        assert self.host.directory is not None
        authority = (self.place.state / "tls" / "ca.pem").read_bytes()
        transport = GrpcTransport(
            self.target,
            authority=authority,
            channel=load_channel(self.host.directory),
            timeouts=Timeouts(connect=5, answer=20),
        )
        while True:
            try:
                self.line = await transport.connect()
            except EnvironmentFault:
                await asyncio.sleep(0.1)
            else:
                return self.line

    async def enrol(self) -> None:
        line, loop = await self.connect(), asyncio.get_running_loop()
        key = VerifierKeys.open(self.place.state / "keys").signing.public_key()

        class Far:
            """Stands where the host expects a verifier."""

            def open(self, data: bytes, *, peer: bytes) -> EnrolmentChallenge:  # noqa: ARG002 - the channel says it
                return EnrolmentChallenge.parse(asyncio.run_coroutine_threadsafe(line.open(data), loop).result())

            def prove(self, data: bytes, *, peer: bytes) -> Opened:  # noqa: ARG002 - the channel says it
                opened = asyncio.run_coroutine_threadsafe(line.prove(data), loop).result()
                return Opened(SignedTerms.open(opened.terms, key), opened.challenge, None)

        self.host.wall_ns = time.time_ns() - PERIOD_NS
        await asyncio.to_thread(self.host.enrol, cast("Verifier", Far()))
        self.host.log.load(self.host.model)

    async def run(self, windows: int) -> None:
        while self.host.seq < windows:
            await asyncio.sleep(max(0.0, (self.host.wall_ns + PERIOD_NS - time.time_ns()) / 1e9))
            sealed, seq = self.host.seal(), self.host.seq
            while self.host.seq == seq:
                try:
                    assert self.line is not None
                    answer = await self.line.window(sealed.evidence)
                    assert json.loads(answer.verdict)["outcome"] in {"affirmed", "held"}
                    self.answered[seq] += 1
                    self.host.advance(sealed)
                    self.host.challenge = answer.challenge or b""
                except (EnvironmentFault, NotAuthentic) as error:
                    assert isinstance(error, EnvironmentFault) or error.code is Code.WINDOW_DUPLICATE  # noqa: PT017 - ends
                    await self.again(seq, sealed)

    async def again(self, seq: int, sealed: SealedWindow) -> None:
        """The line is cut, or the verifier has the window already: ask where the session stands."""
        self.cuts += 1
        if self.line is not None:
            await self.line.disconnect()
        with contextlib.suppress(EnvironmentFault):
            resumed = await (await self.connect()).resume(self.host.session)
            assert resumed.next_seq in {seq, seq + 1}
            if resumed.next_seq == seq + 1:
                self.host.advance(sealed)
            self.host.challenge = resumed.challenge


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()]


def port_of(verifier: Running, file: Path) -> int:
    verifier.until(lambda it: any("listening on" in line for line in it.errors), "all workers listen")
    return int(file.read_text("ascii"))


def check_recorded(place: Ground, attesters: Sequence[Attester]) -> None:
    """Each window is in its chain once, and in the ledger once; whatever was answered is among them."""
    with Deployment.open(place.state) as opened:
        ledger = opened.archive.ledger
        assert audit(place.state / "ledger", ledger.key, ledger.key.name).size == ledger.size
        reader = ledger.reader()
        leaves = [Leaf.parse(reader.entry(index)) for index in range(ledger.size)]
        found = Counter((leaf.session, leaf.seq) for leaf in leaves if leaf.kind == "window")
        assert set(found.values()) == {1}
        for attester in attesters:
            with opened.store.reading() as tx:
                row, indices = tx.session(attester.host.session), tx.window_indices(attester.host.session)
            assert row is not None
            assert (row.state, row.next_seq) == (SessionState.RUNNING, attester.host.seq)
            assert [leaves[index].seq for index in indices] == list(range(attester.host.seq))
            assert set(attester.answered.values()) == {1}


def test_workers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    place = Ground.make(tmp_path, hosts=HOSTS)
    file = tmp_path / "port"
    with Running(*place.serve_command("--workers", 2, "--port-file", file)) as verifier:
        port = port_of(verifier, file)
        parent = verifier.process.pid
        before = children(parent)
        assert len(before) == 2
        attesters = [Attester(host, f"localhost:{port}", place) for host in place.hosts]

        async def load() -> None:
            for attester in attesters:
                await attester.enrol()
            tasks = [asyncio.create_task(attester.run(WINDOWS)) for attester in attesters]
            for number, pid in enumerate(before):
                await asyncio.sleep(1.2 + number)
                os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*tasks)
            for attester in attesters:
                assert attester.line is not None
                await attester.line.disconnect()

        asyncio.run(load())
        verifier.until(lambda it: sum("another one starts" in line for line in it.errors) == 2, "both started again")
        assert not set(before) & set(children(parent))
        assert sum(attester.cuts for attester in attesters) >= HOSTS
        # Nobody else's verifier gets among them, and commands that write do so beside them.
        other = run(*place.serve_command("--workers", 2, "--listen", f"127.0.0.1:{port}"))
        assert (other.status, "PORT_UNAVAILABLE" in other.err) == (8, True), other.err
        nobody = here("weighbridge", "clear", place.state, "ak", "00" * 32, "--reason", "a test")
        assert (nobody.status, "SESSION_UNKNOWN" in nobody.err) == (6, True), nobody.err
        done = verifier.terminate()
        assert (done.status, "stopped; the ledger has" in done.out) == (0, True), done.err
    check_recorded(place, attesters)
