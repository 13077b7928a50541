"""The running session: cuts a window at every boundary, seals it, spools it, and leaves the sending to the courier.

Boundaries lie on a fixed grid of the monotonic clock, so that nothing drifts. Cutting is quick and takes what was
reported and sampled up to that moment; whatever comes while the window is sealed belongs to the next one. A host that
falls behind by whole windows makes one long window of them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from weighbridge.attester.clock import WallTimeline
from weighbridge.attester.report import Notice, WindowReport
from weighbridge.attester.sealing import Observed, Sealer
from weighbridge.attester.telemetry.power_seen import PowerSeen, power_seen
from weighbridge.attester.waiting import first_of
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.telemetry import Telemetry
from weighbridge.proto.window import Interval

if TYPE_CHECKING:
    from weighbridge.attester.clock import Clock
    from weighbridge.attester.configuration import Devices
    from weighbridge.attester.courier import Courier
    from weighbridge.attester.enrolling import Enrolment
    from weighbridge.attester.inference import InferenceServer
    from weighbridge.attester.offload import Offload
    from weighbridge.attester.report import Observer
    from weighbridge.attester.spool import Spool
    from weighbridge.attester.spool_files import Progress
    from weighbridge.attester.spot import SpotReader
    from weighbridge.attester.token_file import TokenFile
    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.attester.workload.server import WorkloadServer
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.spot import SpotAnswer
    from weighbridge.proto.workload import WorkSummary

__all__ = ["WindowLoop", "WindowParts"]

_SECOND_NS: Final = 1_000_000_000
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Servers get four fifths of a window to report their own work in; sealing waits half of one for an answer.
_TICK_SHARE: Final = 0.8
_PATIENCE_SHARE: Final = 2
# What remains of a window when the session ends is sealed unless it is shorter than this.
_SHORTEST_NS: Final = 10_000_000
# A clock that is kept by a time service lags by milliseconds. Verifiers bear with more: they say nothing of a window
# whose samples end two windows and 5 s, or more, before it came.
_BEHIND_NS: Final = 2 * _SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowParts:
    """What the loop works with. ``delivery`` runs ``courier``; ``limit`` is the number of windows, ``None`` for no end.

    ``work`` and ``power`` receive what each sealed window was about by its number, until it is reported; ``declared``
    are the declared manifests.
    """

    enrolment: Enrolment
    spool: Spool
    devices: Devices
    log: MeasurementLog
    workload: WorkloadServer
    courier: Courier
    delivery: asyncio.Task[None]
    server: InferenceServer | None
    token: TokenFile
    clock: Clock
    offload: Offload
    observer: Observer
    stop: asyncio.Event
    limit: int | None
    work: dict[int, WorkSummary]
    power: dict[int, tuple[PowerSeen, ...]]
    declared: tuple[Manifest, ...]
    spots: SpotReader


@dataclass(frozen=True, slots=True)
class _Cut:
    """A window that has ended and is not sealed yet."""

    interval: Interval
    telemetry: bytes
    work: WorkSummary
    power: tuple[PowerSeen, ...]


class WindowLoop:
    """Made once, run once.

    Attributes:
        sealed: windows sealed.
        lost: windows not sealed because the spool was full.
    """

    def __init__(self, parts: WindowParts) -> None:
        self.sealed = 0
        self.lost = 0
        self._parts = parts
        self._terms = parts.enrolment.terms.terms
        self._tpm_start = 0
        self._tick: asyncio.Task[int] | None = None
        self._spot_failure: WeighbridgeError | None = None
        self._lags = False
        self._timeline = WallTimeline(parts.clock, verifier_ns=self._terms.issued_ns)
        self._sealer = Sealer(
            parts.enrolment.terms,
            tpm=parts.devices.tpm,
            gpus=parts.devices.gpus,
            log=parts.log,
            carried=parts.enrolment.carried,
            declared=parts.declared,
            runtime=parts.devices.runtime,
        )

    def heard(self, received: datetime) -> None:
        """An answer came, to a window that the verifier ``received`` then, by its clock."""
        self._timeline.heard((received - _EPOCH) // _MICROSECOND * 1000)
        self._tell_lag()

    async def run(self) -> None:
        """Cut and seal until the session is stopped, its server ends, or the limit is reached.

        Raises:
            EnvironmentFault: ``CLOCK_STEPPED``, ``DISK_FULL``, ``BASELINE_UNEXPLAINED``, a TPM or GPU code.
            WeighbridgeError: what the courier raises.
        """
        parts, period = self._parts, self._terms.period_ns
        self._tell_lag()
        start = parts.clock.monotonic_ns()
        self._tpm_start = (await parts.offload(parts.devices.tpm.read_clock)).clock
        # What was served before belongs to no window.
        parts.workload.take()
        self._begin_tick(parts.spool.next_seq)
        try:
            ending = False
            while not ending and (parts.limit is None or self.sealed < parts.limit):
                boundary = start + period
                # A host that fell behind by whole windows makes one of them.
                boundary += max(0, (parts.clock.monotonic_ns() - boundary) // period) * period
                ending = await self._until(boundary)
                end = min(boundary, parts.clock.monotonic_ns()) if ending else boundary
                if ending and (end - start < _SHORTEST_NS or not self._declared_loaded()):
                    break
                await self._seal(await self._cut(end - start, last=ending))
                start = end
        finally:
            self._end_tick()

    def _tell_lag(self) -> None:
        """Say once that the clock lags, and again when it does so after it did not. One that leads ends the session."""
        behind = self._timeline.behind_ns()
        lagged, self._lags = self._lags, behind > _BEHIND_NS
        if self._lags and not lagged:
            self._parts.observer.notice(
                Notice(
                    "clock",
                    f"this host's clock is {behind / _SECOND_NS:.1f} s behind the verifier's. Samples are dated by it, "
                    "and the verifier says nothing of old ones: windows come out indeterminate, and no gate opens. Set "
                    "it (chrony, NTP), then start again",
                )
            )

    async def _until(self, boundary: int) -> bool:
        """Wait for ``boundary``; whether the session ends before it."""
        parts = self._parts
        server = parts.server
        while True:
            now = parts.clock.monotonic_ns()
            remaining = parts.token.remaining_ns()
            target = boundary if remaining is None else min(boundary, now + remaining)
            ended = [] if server is None else [server.ended()]
            await first_of(parts.clock.sleep_until(target), _wait(parts.stop), *ended, watched=parts.delivery)
            self._check_delivery()
            await parts.offload(parts.token.remove_expired)
            if parts.stop.is_set() or (server is not None and not server.running):
                return True
            if parts.clock.monotonic_ns() >= boundary:
                return False

    async def _cut(self, duration_ns: int, *, last: bool) -> _Cut:
        """End the window: its interval, its work, its samples. The next begins here."""
        parts = self._parts
        if last:
            self._end_tick()
        elif self._tick is not None and (late := await self._tick):
            parts.observer.notice(
                Notice("work-late", f"{late} servers did not report their own work in time; it counts later")
            )
        wall_start, wall_end = self._timeline.cut()
        work = parts.workload.take()
        if not last:
            self._begin_tick(parts.spool.next_seq + 1)
        tpm_end = (await parts.offload(parts.devices.tpm.read_clock)).clock
        telemetry, power = await parts.offload(lambda: self._telemetry(wall_start, duration_ns, work))
        interval = Interval(
            tpm_start_ms=self._tpm_start, tpm_end_ms=tpm_end, wall_start_ns=wall_start, wall_end_ns=wall_end
        )
        return _Cut(interval, telemetry, work, power)

    def _telemetry(self, wall_start: int, duration_ns: int, work: WorkSummary) -> tuple[bytes, tuple[PowerSeen, ...]]:
        source = self._parts.devices.telemetry
        read = [] if source is None else source.window(start_wall_ns=wall_start, duration_ns=duration_ns, work=work)
        telemetry = Telemetry(session=self._terms.session, seq=self._parts.spool.next_seq, sources=tuple(read))
        return telemetry.encode(), power_seen(read)

    async def _seal(self, cut: _Cut) -> None:
        parts = self._parts
        if parts.courier.connected:
            # An answer that is on its way brings the challenge under which this window opens a gate.
            patience = parts.clock.monotonic_ns() + self._terms.period_ns // _PATIENCE_SHARE
            await first_of(parts.courier.settled(), parts.clock.sleep_until(patience), watched=parts.delivery)
        self._check_delivery()
        seq = parts.spool.next_seq
        parts.work[seq], parts.power[seq] = cut.work, cut.power
        sealed = await parts.offload(lambda: self._seal_and_spool(cut))
        if self._spot_failure is not None:
            parts.observer.notice(Notice("spot-failed", f"window {seq}: {self._spot_failure}"))
            self._spot_failure = None
        if not sealed:
            del parts.work[seq], parts.power[seq]
            self.lost += 1
            self._tpm_start = cut.interval.tpm_end_ms
            self._report(seq, "lost", cut)
            return
        self.sealed += 1
        if not parts.courier.connected:
            self._report(seq, "spooled", cut)
        parts.courier.notify()

    def _seal_and_spool(self, cut: _Cut) -> bool:
        """Whether there was room for the window."""
        spool, progress = self._parts.spool, self._parts.spool.progress
        challenge = progress.challenge
        if challenge is None or not spool.has_room:
            return False
        observed = Observed(
            seq=spool.next_seq,
            prev=spool.prev,
            challenge=challenge,
            interval=cut.interval,
            telemetry=cut.telemetry,
            work=cut.work,
            spot=self._spot(progress),
        )
        spool.commit(self._sealer.seal(observed, begin=spool.begin))
        # Not before the quote: the next interval starts after it.
        self._tpm_start = self._parts.devices.tpm.read_clock().clock
        return True

    def _spot(self, progress: Progress) -> SpotAnswer | None:
        """The answer to what came with the challenge, in the window that both are for; a later one answers nothing."""
        if progress.spot is None or progress.seq != self._parts.spool.next_seq:
            return None
        try:
            return self._parts.spots.answer(progress.spot)
        except WeighbridgeError as error:
            # Told, and left out: what that means is for the verifier to say.
            self._spot_failure = error
            return None

    def _report(self, seq: int, status: str, cut: _Cut) -> None:
        self._parts.observer.window(
            WindowReport(
                session=self._terms.session,
                seq=seq,
                status="lost" if status == "lost" else "spooled",
                work=cut.work,
                denials=(),
                token_expires=None,
                backlog=self._parts.spool.backlog,
                verdict=None,
                power=cut.power,
            )
        )

    def _declared_loaded(self) -> bool:
        return any(model.manifest == self._terms.model for model in self._parts.log.loaded())

    def _check_delivery(self) -> None:
        if self._parts.delivery.done():
            self._parts.delivery.result()

    def _begin_tick(self, seq: int) -> None:
        timeout = self._terms.period_ns * _TICK_SHARE / _SECOND_NS
        self._tick = asyncio.create_task(self._parts.workload.tick(seq, timeout=timeout))

    def _end_tick(self) -> None:
        tick, self._tick = self._tick, None
        if tick is not None:
            tick.cancel()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
