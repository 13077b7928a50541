"""Hosts that send windows over real gRPC and mutual TLS: each with its own TPM, GPUs and line, and all of it signed.

Readings of sensors are made beforehand; whatever hangs on a challenge (header, GPU report, quote, signature) is made
while the line waits, as a host would.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

from _served import Served
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fakes.soft_tpm import SoftTpm
from support.world import FakeClock, Host
from weighbridge.attester.client import GrpcTransport, Line, Timeouts
from weighbridge.attester.keys import ChannelKey
from weighbridge.attester.refusal import Throttled
from weighbridge.attester.sealing import Observed
from weighbridge.attester.telemetry.emulated import EmulatedTelemetry
from weighbridge.proto import cose, telemetry
from weighbridge.proto.digest import sha256
from weighbridge.proto.enrolment import EnrolmentChallenge
from weighbridge.proto.terms import SignedTerms
from weighbridge.proto.window import Interval
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier import pki
from weighbridge.verifier.answers import Opened
from weighbridge.verifier.keys import VerifierKeys

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from weighbridge.attester.client import Answer
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.core import Verifier

__all__ = ["Attester", "Fleet"]

_SECOND_NS: Final = 1_000_000_000
_SAMPLES: Final = 100  # in a window
_TOKENS: Final = 2_000  # in a second
_AT_ONCE: Final = 8
_CONNECT: Final = 30.0
_ANSWER: Final = 60.0


@dataclass
class Attester:
    """One host and its line."""

    host: Host
    line: Line
    served: Served
    sensors: EmulatedTelemetry
    readings: deque[bytes] = field(default_factory=deque)
    made: int = 0
    sealed: SealedWindow | None = None
    last: bytes = b""

    def prepare(self, count: int) -> None:
        """Read the sensors for as many windows as that, beyond those that wait to be sent."""
        host, period = self.host, self.served.period_ns
        while len(self.readings) < count:
            seq = host.seq + len(self.readings) + (self.sealed is not None)
            start = host.wall_ns + period * (len(self.readings) + (self.sealed is not None))
            read = self.sensors.window(start_wall_ns=start, duration_ns=period, work=_work(period))
            named = tuple(replace(source, name=host.source) for source in read)
            self.readings.append(telemetry.Telemetry(session=host.session, seq=seq, sources=named).encode())

    def seal(self) -> None:
        """The next window, signed; it can be sent."""
        if self.sealed is not None:
            return
        self.prepare(1)
        host, period = self.host, self.served.period_ns
        if host.sealer is None:
            raise RuntimeError("no session")
        began = host.tpm.read_clock().clock
        interval = Interval(
            tpm_start_ms=began,
            tpm_end_ms=host.tpm.read_clock().clock,
            wall_start_ns=host.wall_ns,
            wall_end_ns=host.wall_ns + period,
        )
        observed = Observed(
            seq=host.seq,
            prev=host.prev,
            challenge=host.challenge,
            interval=interval,
            telemetry=self.readings.popleft(),
            work=_work(period),
            spot=None,
        )
        self.sealed = host.sealer.seal(observed, begin=lambda _: None)

    async def send(self) -> None:
        """Send the window that is sealed, at the time at which it ends by the verifier's clock."""
        sealed, host = self.sealed, self.host
        if sealed is None:
            raise RuntimeError("nothing is sealed")
        self.served.clock.reach(host.wall_ns + self.served.period_ns)
        answer: Answer = await self.line.window(sealed.evidence)
        if answer.token is None or answer.challenge is None:
            raise RuntimeError(f"the window was not affirmed: {answer.verdict.decode()}")
        self.last, self.sealed = sealed.evidence, None
        host.prev, host.seq, host.challenge = sealed.next_prev, host.seq + 1, answer.challenge
        host.wall_ns += self.served.period_ns

    async def deliver(self) -> None:
        """As :meth:`send`, over and over until it is taken: where all together are more than can be judged."""
        while True:
            try:
                return await self.send()
            except Throttled as throttled:
                await asyncio.sleep(throttled.retry_after_ns / _SECOND_NS)


@final
class Fleet:
    """Attesters of one verifier, in one event loop."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self._ca = served.state / "tls"
        self._key = VerifierKeys.open(served.state / "keys").signing.public_key()
        self._numbers = itertools.count()
        self.attesters: list[Attester] = []

    async def grow(self, count: int) -> None:
        """Enrol as many more hosts as are missing to ``count``, and have each send its first window."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one() -> Attester:
            async with limit:
                return await self._enrolled()

        async with asyncio.TaskGroup() as tasks:
            new = [tasks.create_task(one()) for _ in range(count - len(self.attesters))]
        self.attesters += [task.result() for task in new]

    def prepare(self, windows: int) -> None:
        """Read all sensors for as many windows as that."""
        for attester in self.attesters:
            attester.prepare(windows)

    def seal(self) -> None:
        """Everybody has the next window ready."""
        for attester in self.attesters:
            attester.seal()

    async def race(self, windows: int, *, hosts: int | None = None) -> float:
        """Windows a second when everybody, or so many ``hosts``, send each as soon as the one before is answered."""
        racing = self.attesters[:hosts]

        async def one(attester: Attester) -> None:
            for _ in range(windows):
                attester.seal()
                await attester.deliver()

        started = time.perf_counter()
        await _together(one(attester) for attester in racing)
        return windows * len(racing) / (time.perf_counter() - started)

    async def arrive(self, rate: float, windows: int) -> list[float]:
        """Everybody sends as many windows as that, all of them together ``rate`` a second, evenly; their seconds.

        They count from when a window was due: whoever still waits for an answer then is late, and that is counted too.
        """
        waited: list[float] = []
        began = time.perf_counter() + 0.05

        async def one(place: int, attester: Attester) -> None:
            for number in range(windows):
                attester.seal()
                due = began + (number * len(self.attesters) + place) / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await attester.deliver()
                waited.append(time.perf_counter() - due)

        await _together(one(place, attester) for place, attester in enumerate(self.attesters))
        return waited

    async def leave(self) -> None:
        """Cut all lines."""
        for attester in self.attesters:
            await attester.line.disconnect()

    async def _enrolled(self) -> Attester:
        served, number = self.served, next(self._numbers)
        channel = self._admit()
        transport = GrpcTransport(
            f"localhost:{served.port}",
            authority=(self._ca / "ca.pem").read_bytes(),
            channel=channel,
            timeouts=Timeouts(connect=_CONNECT, answer=_ANSWER),
        )
        line = await transport.connect()
        tpm = SoftTpm(f"tpm {number} of {secrets.token_hex(8)}", authority=served.makers.authority)
        # NOTE: asked of the verifier's clock, which is ahead of ours.
        clock = FakeClock(datetime.fromtimestamp(served.clock.now_ns() / _SECOND_NS, UTC))
        host = Host.make(served.makers.model, tpm=tpm, gpus=served.makers.gpus(served.gpus), clock=clock)
        host.peer, host.source = channel.peer, "nvml"
        remote = _Remote(line, asyncio.get_running_loop(), self._key)
        await asyncio.to_thread(host.enrol, remote.verifier)
        host.log.load(host.model)
        # So that the first window ends now: else everybody who enrols would set the clock forward for all others.
        host.wall_ns = served.clock.now_ns() - served.period_ns
        sensors = EmulatedTelemetry(number, host.gpus.identities(), period_ns=served.period_ns // _SAMPLES)
        attester = Attester(host, line, served, sensors)
        attester.seal()
        await attester.deliver()
        return attester

    def _admit(self) -> ChannelKey:
        """A channel key, certified."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        certificate = pki.issue_client(self._ca, request.public_bytes(Encoding.PEM), at=datetime.now(UTC))
        return ChannelKey(
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificate=certificate.public_bytes(Encoding.PEM),
            peer=cose.thumbprint(key.public_key()),
        )


@final
class _Remote:
    """A verifier at the other end of a line, for a host that enrols in a thread."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop, key: ec.EllipticCurvePublicKey) -> None:
        self._line, self._loop, self._key = line, loop, key

    @property
    def verifier(self) -> Verifier:
        """What hosts take for one."""
        return self  # type: ignore[return-value]  # they open and prove, and nothing else

    def open(self, data: bytes, *, peer: bytes) -> EnrolmentChallenge:
        """As :meth:`Verifier.open`."""
        del peer
        asked = asyncio.run_coroutine_threadsafe(self._line.open(data), self._loop).result()
        return EnrolmentChallenge.parse(asked)

    def prove(self, data: bytes, *, peer: bytes) -> Opened:
        """As :meth:`Verifier.prove`."""
        del peer
        opened = asyncio.run_coroutine_threadsafe(self._line.prove(data), self._loop).result()
        return Opened(SignedTerms.open(opened.terms, self._key), opened.challenge, None)


async def _together(work: Iterable[Coroutine[object, object, None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for one in work:
            tasks.create_task(one)


def _work(period_ns: int) -> WorkSummary:
    """What is declared for as long."""
    seconds = period_ns // _SECOND_NS
    return WorkSummary(
        root=sha256(b"leaf"), requests=6 * seconds, tokens_in=_TOKENS * seconds, tokens_out=0, batch_max=8
    )
