"""The running session: cuts a window at every boundary, seals it, spools it, and leaves the sending to the courier.

Boundaries lie on a fixed grid of the monotonic clock, so that nothing drifts. Cutting is quick and takes what was
reported and sampled up to that moment; whatever comes while the window is sealed belongs to the next one. A host that
falls behind by whole windows makes one long window of them.

Where there is no room for a window it is not sealed: the next one that is says by its interval what is missing. What is
lost is told when it begins and when it ends, and kept among the :mod:`.losses`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from weighbridge.attester.clock import WallTimeline
from weighbridge.attester.report import Notice, WindowReport
from weighbridge.attester.room import Room
from weighbridge.attester.sealing import Observed, Sealer
from weighbridge.attester.telemetry.bounds import within
from weighbridge.attester.telemetry.power_seen import PowerSeen, power_seen
from weighbridge.attester.waiting import first_of
from weighbridge.attester.wording import counted
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.proto.telemetry import Telemetry
from weighbridge.proto.window import Interval

if TYPE_CHECKING:
    from weighbridge.attester.clock import Clock
    from weighbridge.attester.configuration import Devices
    from weighbridge.attester.courier import Courier
    from weighbridge.attester.enrolling import Enrolment
    from weighbridge.attester.inference import InferenceServer
    from weighbridge.attester.losses import Losses
    from weighbridge.attester.offload import Offload
    from weighbridge.attester.report import Observer
    from weighbridge.attester.spool import FullReason, Spool
    from weighbridge.attester.spool_files import Progress
    from weighbridge.attester.spot import SpotReader
    from weighbridge.attester.token_file import TokenFile
    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.attester.workload.server import WorkloadServer
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.spot import SpotAnswer
    from weighbridge.proto.telemetry import Source
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
# What is remembered of windows until their answers come, after days without a verifier: 400 bytes, and some KiB.
_WORK_KEPT: Final = 4096
_POWER_KEPT: Final = 64
_Value = TypeVar("_Value")
_Fate = Literal["sealed", "late", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowParts:
    """What the loop works with. ``delivery`` runs ``courier``; ``limit`` is the number of windows, ``None`` for no end.

    ``work`` and ``power`` receive what each sealed window was about by its number, until it is reported; ``declared``
    are the declared manifests; ``losses`` is where it is noted what was not sealed.
    """

    enrolment: Enrolment
    spool: Spool
    losses: Losses
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
    sources: tuple[Source, ...]
    work: WorkSummary
    power: tuple[PowerSeen, ...]


class WindowLoop:
    """Made once, run once.

    Attributes:
        sealed: windows sealed.
        lost: windows not sealed because there was no room for them.
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
        self._room = Room(parts.spool, parts.losses, parts.observer, period_ns=self._terms.period_ns)
        # The window that waits in memory for room.
        self._late: _Cut | None = None
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
            EnvironmentFault: ``CLOCK_STEPPED``, ``FILE_UNWRITABLE``, ``BASELINE_UNEXPLAINED``, a TPM or GPU code.
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
                boundary = self._caught_up(start + period)
                ending = await self._until(boundary)
                # Once more: most of the time it waits, and whoever is stopped is stopped there.
                boundary = self._caught_up(boundary)
                end = min(boundary, parts.clock.monotonic_ns()) if ending else boundary
                if ending and (end - start < _SHORTEST_NS or not self._declared_loaded()):
                    break
                await self._seal(await self._cut(end - start, last=ending))
                start = end
            await self._last_chance()
        finally:
            self._end_tick()

    def _caught_up(self, boundary: int) -> int:
        """The last boundary that has passed, if ``boundary`` has: a host that fell behind makes one window of many."""
        period = self._terms.period_ns
        return boundary + max(0, (self._parts.clock.monotonic_ns() - boundary) // period) * period

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
                Notice(
                    "work-late", f"{counted(late, 'server')} did not report what was served in time; it counts later"
                )
            )
        wall_start, wall_end = self._timeline.cut()
        work = parts.workload.take()
        if not last:
            self._begin_tick(parts.spool.next_seq + 1)
        tpm_end = (await parts.offload(parts.devices.tpm.read_clock)).clock
        sources = await parts.offload(lambda: self._sources((wall_start, wall_end), duration_ns, work))
        interval = Interval(
            tpm_start_ms=self._tpm_start, tpm_end_ms=tpm_end, wall_start_ns=wall_start, wall_end_ns=wall_end
        )
        return _Cut(interval, sources, work, power_seen(sources))

    def _sources(self, wall: tuple[int, int], duration_ns: int, work: WorkSummary) -> tuple[Source, ...]:
        source = self._parts.devices.telemetry
        if source is None:
            return ()
        start, end = wall
        read = source.window(start_wall_ns=start, duration_ns=duration_ns, work=work)
        return tuple([within(one, start_wall_ns=start, end_wall_ns=end) for one in read])

    async def _seal(self, cut: _Cut) -> None:
        parts = self._parts
        if parts.courier.connected:
            # An answer that is on its way brings the challenge under which this window opens a gate.
            patience = parts.clock.monotonic_ns() + self._terms.period_ns // _PATIENCE_SHARE
            await first_of(parts.courier.settled(), parts.clock.sleep_until(patience), watched=parts.delivery)
        self._check_delivery()
        fate, seq = await parts.offload(lambda: self._seal_and_spool(cut))
        if self._spot_failure is not None:
            parts.observer.notice(Notice("spot-failed", f"window {seq}: {self._spot_failure}"))
            self._spot_failure = None
        match fate:
            case "spool-full" | "disk-full":
                self._tpm_start = cut.interval.tpm_end_ms
                self.lost += 1
                self._room.tell()
                self._report(seq, "lost", cut)
            case "sealed" | "late":
                self.sealed += 1
                # Nobody has read the window yet: its answer comes later than this.
                _remember(parts.work, seq, cut.work, _WORK_KEPT)
                _remember(parts.power, seq, cut.power, _POWER_KEPT)
                self._room.found()
                self._room.tell_filling()
                self._late = cut if fate == "late" else None
                if self._late is not None:
                    self._room.tell_late(seq)
                if not parts.courier.connected:
                    self._report(seq, "spooled", cut)
            case "ended":
                return
        parts.courier.notify()

    def _seal_and_spool(self, cut: _Cut) -> tuple[_Fate | FullReason, int]:
        """What became of the window, or why there was no room for it, and its number, or that of the next one."""
        spool, progress = self._parts.spool, self._parts.spool.progress
        challenge = progress.challenge
        if challenge is None:
            return "ended", spool.next_seq
        full = spool.full()
        # Only now is it known: what waited in memory may have taken a number.
        seq = spool.next_seq
        if full is not None:
            return self._note(full, cut), seq
        telemetry = Telemetry(session=self._terms.session, seq=seq, sources=cut.sources)
        observed = Observed(
            seq=seq,
            prev=spool.prev,
            challenge=challenge,
            interval=cut.interval,
            telemetry=telemetry.encode(),
            work=cut.work,
            spot=self._spot(progress),
        )
        try:
            sealed = self._sealer.seal(observed, begin=spool.begin)
        except EnvironmentFault as fault:
            if fault.code is not Code.DISK_FULL:
                raise
            # Of all that sealing does, the header alone is written. Nothing was signed over it.
            return self._note("disk-full", cut), seq
        kept = spool.commit(sealed)
        # Not before the quote: the next interval starts after it.
        self._tpm_start = self._parts.devices.tpm.read_clock().clock
        self._parts.losses.flush()
        return "sealed" if kept else "late", seq

    def _note(self, full: FullReason, cut: _Cut) -> FullReason:
        self._room.note(full, cut.interval)
        return full

    async def _last_chance(self) -> None:
        """The session ends: what waits in memory is written now, or never."""
        parts, cut = self._parts, self._late
        if cut is not None and parts.spool.late:
            await parts.offload(parts.spool.full)
            if parts.spool.late:
                self.sealed -= 1
                self.lost += 1
                await parts.offload(lambda: self._note("disk-full", cut))
                self._room.tell()
            parts.courier.notify()
        self._room.found()

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


def _remember(kept: dict[int, _Value], seq: int, value: _Value, most: int) -> None:
    """Put ``value`` among the newest ``most``."""
    kept[seq] = value
    while len(kept) > most:
        del kept[next(iter(kept))]


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
