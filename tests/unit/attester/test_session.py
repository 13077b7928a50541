"""Whole sessions in one process: the product's attester and verifier, devices that sign for real, virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import math
import os
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fakes.inference_peer import InferencePeer
from fakes.models import flip_bit, write_model
from fakes.soft_tpm import derive_key
from fakes.verifier_line import VerifierTransport
from fakes.virtual_time import VirtualClock
from support.contents import contents
from support.spots import left
from support.world import LOG_PCR, PERIOD_NS, World, requirements
from weighbridge.attester.configuration import Devices, SessionConfig, Surroundings
from weighbridge.attester.courier import Backoff
from weighbridge.attester.durable import write_fault
from weighbridge.attester.inference import Launch
from weighbridge.attester.keys import ServingKey
from weighbridge.attester.losses import Losses, Lost
from weighbridge.attester.offload import Inline
from weighbridge.attester.refusal import Throttled
from weighbridge.attester.report import Notice, SessionSummary, WindowReport
from weighbridge.attester.session import AttesterSession
from weighbridge.attester.spool import DEFAULT_MAX_BYTES
from weighbridge.attester.spool_files import FILE_MAX, DiskStorage, SpoolStorage
from weighbridge.attester.spot import ModelDirectories, make_pool
from weighbridge.attester.telemetry.emulated import EmulatedTelemetry
from weighbridge.attester.trust import TrustedVerifiers, VerifierAnchor
from weighbridge.attester.weights import measure
from weighbridge.proto import strict
from weighbridge.proto.cc_state import CcState
from weighbridge.proto.enrolment import Opening
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.telemetry import Telemetry
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm.constants import digest
from weighbridge.proto.window import Evidence, Header
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.requirements import Requirements
from weighbridge.verifier.session import SessionState

pytestmark = pytest.mark.asyncio


class Watcher:
    """Keeps what the session says, and calls back so that a test can act at a given window."""

    def __init__(self) -> None:
        self.windows: list[WindowReport] = []
        self.notices: list[Notice] = []
        self.on_window: Callable[[WindowReport], None] = lambda _: None
        self.on_notice: Callable[[Notice], None] = lambda _: None

    def window(self, report: WindowReport) -> None:
        self.windows.append(report)
        self.on_window(report)

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.on_notice(notice)

    @property
    def fates(self) -> list[tuple[int, str]]:
        return [(report.seq, report.status) for report in self.windows]

    @property
    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]


class Scene:
    """One host, one verifier, one clock; sessions are run on it."""

    def __init__(self, tmp_path: Path, world: World) -> None:
        self.state = tmp_path / "state"
        self.model = tmp_path / "model"
        self.world = world
        self.clock = VirtualClock()
        self.transport = VerifierTransport(world, self.clock, world.host.peer)
        self.watcher = Watcher()
        self.peer: InferencePeer | None = None
        self.storage: SpoolStorage | None = None
        self.session: AttesterSession | None = None
        host = world.host
        key = world.keys.signing.public_key()
        self.trusted = TrustedVerifiers((VerifierAnchor(key, "verifier", None, None),))
        self.devices = Devices(tpm=host.tpm, gpus=host.gpus, telemetry=EmulatedTelemetry(1, host.gpus.identities()))
        self.config = SessionConfig(
            state=self.state,
            tenant="tenant-a",
            audience="relying-party",
            model=measure(self.model, name="tiny"),
            serving=ServingKey(tmp_path / "serving.key", tmp_path / "serving.pem", host.cnf),
            peer=host.peer,
            version="0.1.0",
        )

    async def run(
        self,
        *,
        peer: bool = True,
        windows: int | None = 4,
        command: tuple[str, ...] = (),
        log_pcr: int = LOG_PCR,
        spool_bytes: int = DEFAULT_MAX_BYTES,
    ) -> SessionSummary:
        """Run one session to its end."""
        self.session = AttesterSession(
            replace(self.config, windows=windows, command=command, log_pcr=log_pcr, spool_bytes=spool_bytes),
            self.devices,
            self.transport,
            trusted=self.trusted,
            surroundings=Surroundings(
                clock=self.clock,
                rng=random.Random(7),
                offload=Inline(),
                backoff=Backoff(first=0.4, most=0.4),
                storage=self.storage,
            ),
            observer=self.watcher,
        )
        helpers = [asyncio.ensure_future(self.clock.run())]
        if peer:
            self.peer = InferencePeer(self.state / "workload.sock", self.model)
            helpers.append(asyncio.ensure_future(self.peer.run()))
        try:
            async with asyncio.timeout(30):
                return await self.session.run()
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    @property
    def token_file(self) -> Path:
        return self.state / "token"

    def spooled(self) -> list[Path]:
        return sorted((self.state / "spool").rglob("window-*"))

    def recorded(self) -> list[Header]:
        """The headers of the windows that the verifier recorded, in order, of all sessions."""
        found: list[Header] = []
        for content in contents(self.world.directory / "content").values():
            with contextlib.suppress(Exception):
                found.append(Header.parse(Evidence.parse(content).signed_header().payload))
        return sorted(found, key=lambda header: (header.interval.wall_start_ns, header.seq))


def make_world(directory: Path, model: Manifest, wanted: Requirements | None = None) -> World:
    """A verifier that declares ``model``."""
    directory.mkdir()
    names = {model.digest.hex(): model.name}
    world = World.make(directory, reference=lambda made: replace(made, models=names), wanted=wanted)
    world.models = {model.digest: model}
    world.restart()
    return world


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    write_model(tmp_path / "model")
    world = make_world(tmp_path / "verifier", measure(tmp_path / "model", name="tiny"))
    yield Scene(tmp_path, world)
    world.close()


async def test_an_honest_session_is_admitted_window_by_window(scene: Scene) -> None:
    tokens: list[bytes] = []
    scene.watcher.on_window = lambda _: tokens.append(scene.token_file.read_bytes())
    summary = await scene.run()
    assert scene.watcher.fates == [(seq, "affirmed") for seq in range(4)]
    assert len(set(tokens)) == 4
    assert (summary.sealed, summary.affirmed, summary.held, summary.lost, summary.backlog) == (4, 4, 0, 0, 0)
    assert summary.verifier is not None
    assert summary.verifier["state"] == "closed"
    assert not scene.token_file.exists()
    assert scene.spooled() == []
    assert list((scene.state / "spool").iterdir()) == []
    assert scene.watcher.kinds == ["loaded", "enrolled"]
    # Whoever watches sees the power of each GPU in each window.
    for report in scene.watcher.windows:
        assert [len(seen.shape) for seen in report.power] == [10, 10]
        assert all(seen.watts is not None and seen.watts > 100 for seen in report.power)


async def test_windows_are_cut_on_a_grid_and_miss_nothing(scene: Scene) -> None:
    """Intervals follow one another exactly, and each holds the work that its tick asked for."""
    await scene.run(windows=5)
    headers = scene.recorded()
    assert [header.seq for header in headers] == list(range(5))
    for before, after in itertools.pairwise(headers):
        assert after.interval.wall_start_ns == before.interval.wall_end_ns
        assert after.interval.wall_end_ns - after.interval.wall_start_ns == PERIOD_NS
    assert [(h.work.requests, h.work.tokens_in, h.work.tokens_out) for h in headers] == [(2, 20, 10)] * 5
    assert scene.peer is not None
    assert scene.peer.ticks == [0, 1, 2, 3, 4, 5]


async def test_the_telemetry_of_a_window_is_that_of_its_samples(scene: Scene) -> None:
    await scene.run(windows=3)
    for content in contents(scene.world.directory / "content").values():
        try:
            evidence = Evidence.parse(content)
        except Exception:  # noqa: BLE001, S112 - records lie there as well
            continue
        sources = Telemetry.parse(evidence.telemetry).sources
        assert [len(source.offsets) for source in sources] == [10, 10]


async def test_a_cut_line_makes_held_windows_and_then_fresh_ones(scene: Scene) -> None:
    """A76: what is sealed without the verifier is delivered in order, opens nothing, and nothing is lost."""

    def act(report: WindowReport) -> None:
        if (report.seq, report.status) == (2, "affirmed"):
            scene.transport.cut()
        if (report.seq, report.status) == (5, "spooled"):
            assert not scene.token_file.exists()
            scene.transport.restore()

    scene.watcher.on_window = act
    summary = await scene.run(windows=10)
    fates = scene.watcher.fates
    assert fates[:3] == [(seq, "affirmed") for seq in range(3)]
    assert [seq for seq, fate in fates if fate == "held"] == [3, 4, 5]
    assert [seq for seq, fate in fates if fate == "affirmed"] == [0, 1, 2, 6, 7, 8, 9]
    assert (summary.sealed, summary.affirmed, summary.held) == (10, 7, 3)
    assert scene.watcher.kinds == ["loaded", "enrolled", "line-cut", "line-restored"]
    assert [header.seq for header in scene.recorded()] == list(range(10))


async def test_an_answer_that_is_lost_is_not_a_window_that_is_lost(scene: Scene) -> None:
    """The verifier recorded the window, the line was cut before the answer: it is not sent, nor counted, again."""

    def cut(number: int) -> None:
        if number == 2:
            scene.transport.cut()
            asyncio.get_running_loop().call_soon(scene.transport.restore)

    scene.transport.on_window = cut
    summary = await scene.run(windows=6)
    assert [header.seq for header in scene.recorded()] == list(range(6))
    assert summary.affirmed == 5
    assert scene.spooled() == []


async def test_a_line_that_breaks_while_idle_is_replaced_before_the_next_window(scene: Scene) -> None:
    """The verifier restarts between two windows: the next one is fresh, not held."""

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            scene.transport.cut()
            scene.world.restart()
            scene.transport.restore()

    scene.watcher.on_window = act
    await scene.run(windows=4)
    assert scene.watcher.fates == [(seq, "affirmed") for seq in range(4)]
    assert scene.watcher.kinds[-2:] == ["line-cut", "line-restored"]


async def test_the_token_goes_when_it_expires(scene: Scene) -> None:
    seen: list[bool] = []

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            scene.transport.cut()
        if report.status == "spooled":
            seen.append(scene.token_file.exists())

    scene.watcher.on_window = act
    await scene.run(windows=7)
    assert seen[0] is True
    assert seen[-1] is False
    assert len(scene.spooled()) == 5


async def test_a_restarted_attester_delivers_and_enrols_anew(scene: Scene) -> None:
    """A process that dies leaves its spool; the next one delivers it and its session ends as interrupted."""

    def act(report: WindowReport) -> None:
        if (report.seq, report.status) == (1, "affirmed"):
            scene.transport.cut()

    scene.watcher.on_window = act
    running = asyncio.ensure_future(scene.run(windows=None))
    while len(scene.spooled()) < 3:  # noqa: ASYNC110 - a file system sets no event
        await asyncio.sleep(0.001)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    left = len(scene.spooled())
    assert left >= 3
    scene.transport.restore()
    scene.watcher = Watcher()
    began = scene.clock.wall_ns()
    summary = await scene.run(windows=2)
    assert scene.watcher.kinds[:2] == ["delivering", "delivered"]
    # Nobody sealed between the two sessions.
    headers = scene.recorded()
    (lost,) = Losses.open(scene.state / "spool" / "losses", DiskStorage()).spans
    assert (lost.reason, lost.from_ns, lost.windows) == ("no-session", headers[-3].interval.wall_end_ns, 0)
    assert began <= lost.until_ns <= headers[-2].interval.wall_start_ns
    assert scene.watcher.kinds.count("lost") == 1
    assert [fate for _, fate in scene.watcher.fates] == ["held"] * left + ["affirmed"] * 2
    assert (summary.affirmed, summary.held) == (2, 0)
    assert scene.spooled() == []
    assert len({header.session for header in scene.recorded()}) == 2


async def test_without_a_verifier_nothing_begins_and_nothing_is_lost(scene: Scene) -> None:
    scene.transport.cut()
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run(peer=False)
    assert caught.value.code is Code.PEER_UNREACHABLE


async def test_a_session_that_no_verifier_knows_is_set_aside(scene: Scene, tmp_path: Path) -> None:
    scene.watcher.on_window = lambda _: scene.transport.cut()
    await scene.run(windows=3)
    left = [path.name for path in scene.spooled()]
    assert left
    other = make_world(tmp_path / "other", scene.config.model)
    try:
        scene.transport = VerifierTransport(other, scene.clock, scene.world.host.peer)
        other.anchors = scene.world.anchors
        other.restart()
        scene.trusted = TrustedVerifiers((VerifierAnchor(other.keys.signing.public_key(), "other", None, None),))
        scene.watcher = Watcher()
        await scene.run(windows=1)
    finally:
        other.close()
    assert scene.watcher.kinds[:2] == ["delivering", "set-aside"]
    kept = [path for path in scene.spooled() if path.parent.name.endswith(".refused")]
    assert [path.name for path in kept] == left


async def test_another_model_loaded_as_well_is_denied(scene: Scene, tmp_path: Path) -> None:
    other = write_model(tmp_path / "undeclared", seed=2)

    def act(report: WindowReport) -> None:
        if report.seq == 1 and scene.peer is not None:
            tasks.append(asyncio.ensure_future(scene.peer.load(other)))

    tasks: list[asyncio.Future[Any]] = []
    scene.watcher.on_window = act
    with pytest.raises(PolicyDenied) as caught:
        await scene.run(windows=None)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert caught.value.code in {Code.MODEL_UNDECLARED, Code.WEIGHTS_MISMATCH}
    last = scene.watcher.windows[-1]
    assert last.status == "denied"
    assert Code.MODEL_UNDECLARED in {denial.code for denial in last.denials}
    assert not scene.token_file.exists()
    assert scene.spooled() == []


async def in_window(scene: Scene, seq: int, act: Callable[[InferencePeer], Awaitable[object]]) -> PolicyDenied | None:
    """Run five windows, and ``act`` after the answer to window ``seq``; how the session was refused, if it was."""

    def begin(report: WindowReport) -> None:
        if report.seq == seq and scene.peer is not None:
            tasks.append(asyncio.ensure_future(act(scene.peer)))

    tasks: list[asyncio.Future[object]] = []
    scene.watcher.on_window = begin
    try:
        await scene.run(windows=5)
    except PolicyDenied as error:
        return error
    finally:
        await asyncio.gather(*tasks)
    return None


async def test_reloading_and_unloading_are_in_the_window_in_which_they_happen(scene: Scene) -> None:
    """The header states the log, the register is quoted, and the verifier replays one to the other."""

    async def act(peer: InferencePeer) -> None:
        reply = await peer.load(scene.model, "tiny")
        assert (await peer.ask({"type": "unload", "recnum": reply["recnum"]}))["type"] == "unloaded"

    assert await in_window(scene, 1, act) is None
    headers = scene.recorded()
    # Start and load before the session; two more records in one of the windows after window 1.
    assert [header.log_length for header in headers[:2]] == [2, 2]
    assert headers[-1].log_length == 4
    assert len({header.log_head for header in headers}) == len({header.log_length for header in headers}) > 1


async def test_a_reload_of_changed_files_is_refused_at_its_window_by_file_and_tensor(scene: Scene) -> None:
    """A54: the same directory, other bytes."""

    async def act(peer: InferencePeer) -> None:
        flip_bit(scene.model / "model.safetensors", (scene.model / "model.safetensors").stat().st_size - 1)
        await peer.load(scene.model, "tiny")

    refused = await in_window(scene, 1, act)
    assert refused is not None
    last = scene.watcher.windows[-1]
    assert last.seq > 1
    assert {denial.code for denial in last.denials} == {Code.WEIGHTS_MISMATCH, Code.MODEL_UNDECLARED}
    assert "model.safetensors, tensor layer.0.bias" in last.denials[0].message


async def test_what_the_guard_refuses_is_refused_at_its_window_by_file_and_tensor(scene: Scene) -> None:
    """A53: measured right, exchanged before it was loaded, and the server goes on all the same."""
    (entry,) = (file for file in scene.config.model.files if file.path == "model.safetensors")
    part = next(part for part in entry.tensors if part.name == "layer.0.weight")

    async def act(peer: InferencePeer) -> None:
        place = await peer.ask({"type": "handing", "file": str(scene.model / entry.path), "recnum": None})
        asked = {"recnum": place["recnum"], "path": place["path"]}
        ranges = [[part.offset, part.size, "00" * 32]]
        assert (await peer.ask({"type": "ranges", **asked, "ranges": ranges}))["wrong"] == 0

    refused = await in_window(scene, 1, act)
    assert refused is not None
    assert refused.code is Code.LOAD_MISMATCH
    last = scene.watcher.windows[-1]
    assert last.seq > 1
    assert {denial.code for denial in last.denials} == {Code.LOAD_MISMATCH}
    assert "model.safetensors, tensor layer.0.weight" in last.denials[0].message


GUARDED = """
import sys, time
from pathlib import Path
from weighbridge.attester.loading import guarded_safetensors
from weighbridge.attester.workload.client import WorkloadClient
model = Path(sys.argv[1])
with WorkloadClient.connect() as attester:
    load = attester.load(model, name="tiny", guarded=True)
    time.sleep(0.2)
    guarded_safetensors(model / "model.safetensors", attester, load)
    time.sleep(60)
"""


async def test_a_session_begins_when_the_guard_has_handed_over_all(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "guarded.py").write_text(GUARDED)
    command = (sys.executable, str(tmp_path / "guarded.py"), str(scene.model))
    await scene.run(peer=False, windows=2, command=command)
    assert scene.watcher.fates == [(0, "affirmed"), (1, "affirmed")]
    # Start, load, handed over: in the log before the first window, and in its header.
    assert [header.log_length for header in scene.recorded()] == [3, 3]


async def test_an_undeclared_model_is_refused_at_enrolment(scene: Scene) -> None:
    """One bit of one tensor: the attester says so by measuring, the verifier refuses."""
    write_model(scene.model.parent / "changed", seed=3)
    scene.model = scene.model.parent / "changed"
    with pytest.raises(PolicyDenied):
        await scene.run()
    assert scene.watcher.windows == []
    assert list((scene.state / "spool").iterdir()) == []


@pytest.mark.parametrize("skew_ns", [-3 * PERIOD_NS, 10 * PERIOD_NS])
async def test_a_clock_that_steps_ends_the_session_before_a_false_window_exists(scene: Scene, skew_ns: int) -> None:
    """A55: no overlapping interval is ever sealed; nor one in the future, for which the AK would be remembered."""

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            scene.clock.skew_ns = skew_ns

    scene.watcher.on_window = act
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run()
    assert caught.value.code is Code.CLOCK_STEPPED
    assert "time service" in caught.value.hint
    assert scene.watcher.fates == [(0, "affirmed"), (1, "affirmed")]
    scene.clock.skew_ns = 0
    scene.watcher = Watcher()
    await scene.run(windows=1)
    assert scene.watcher.fates == [(0, "affirmed")]


async def test_a_small_step_back_makes_a_short_interval(scene: Scene) -> None:
    def act(report: WindowReport) -> None:
        if report.seq == 1:
            scene.clock.skew_ns = -PERIOD_NS // 4

    scene.watcher.on_window = act
    await scene.run()
    assert scene.watcher.fates == [(seq, "affirmed") for seq in range(4)]
    lengths = [header.interval.wall_end_ns - header.interval.wall_start_ns for header in scene.recorded()]
    assert lengths == [PERIOD_NS, PERIOD_NS, PERIOD_NS * 3 // 4, PERIOD_NS]


async def test_a_host_that_stood_still_brands_itself_with_nothing(tmp_path: Path) -> None:
    """Stopped for longer than windows of 5 s are: the next has no samples of another time than its own."""
    write_model(tmp_path / "model")
    model = measure(tmp_path / "model", name="tiny")
    scene = Scene(
        tmp_path,
        make_world(tmp_path / "verifier", model, requirements(period_ns=5 * PERIOD_NS, lateness_ns=30 * PERIOD_NS)),
    )

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            scene.clock.elapsed_ns += 8 * PERIOD_NS

    scene.watcher.on_window = act
    await scene.run()
    assert scene.watcher.fates == [(seq, "affirmed") for seq in range(4)]
    lengths = [header.interval.wall_end_ns - header.interval.wall_start_ns for header in scene.recorded()]
    assert lengths == [length * PERIOD_NS for length in (5, 5, 8, 2)]
    scene.world.close()


@pytest.mark.parametrize(("behind_s", "told"), [(1, []), (40, ["clock"])])
async def test_a_clock_that_lags_is_told_once_with_what_becomes_of_it(
    scene: Scene, behind_s: int, told: list[str]
) -> None:
    scene.clock.skew_ns = -behind_s * 1_000_000_000
    await scene.run()
    notices = [notice for notice in scene.watcher.notices if notice.kind == "clock"]
    assert [notice.kind for notice in notices] == told
    for notice in notices:
        assert f"{behind_s}.0 s behind the verifier's" in notice.message
        assert "indeterminate" in notice.message
        assert "NTP" in notice.message


class FailingDisk:
    """A disk on which no write succeeds from number ``at`` on, for ``lasts`` writes."""

    def __init__(self, at: int, number: int, *, lasts: float = math.inf) -> None:
        self._disk = DiskStorage()
        self._number = number
        self._at, self._until = at, at + lasts
        self.writes = 0

    def write(self, path: Path, data: bytes) -> None:
        self.writes += 1
        if self._at < self.writes <= self._until:
            raise write_fault(path, OSError(self._number, os.strerror(self._number)))
        self._disk.write(path, data)

    def remove(self, path: Path) -> None:
        self._disk.remove(path)

    def space(self, path: Path) -> tuple[int, int]:
        return self._disk.space(path)


@pytest.mark.parametrize("at", [0, 1])
async def test_a_session_is_not_begun_on_a_full_disk(scene: Scene, at: int) -> None:
    scene.storage = FailingDisk(at, errno.ENOSPC)
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run(windows=None)
    assert caught.value.code is Code.DISK_FULL
    assert caught.value.hint
    assert scene.recorded() == []


@pytest.mark.parametrize("at", range(5, 12))
async def test_a_disk_that_is_full_for_a_while_is_waited_for(scene: Scene, at: int) -> None:
    """Whatever could not be written: the chain goes on, and what is not in it is said."""
    scene.storage = FailingDisk(at, errno.ENOSPC, lasts=5)
    summary = await scene.run(windows=8)
    headers = scene.recorded()
    assert [header.seq for header in headers] == list(range(8))
    assert (summary.sealed, summary.backlog) == (8, 0)
    gaps = [after.interval.wall_start_ns - before.interval.wall_end_ns for before, after in itertools.pairwise(headers)]
    assert sum(gaps) == summary.lost * PERIOD_NS > 0
    assert {lost.reason for lost in summary.losses} == {"disk-full"}
    assert sum(lost.windows for lost in summary.losses) == summary.lost
    spans = [(lost.from_ns, lost.until_ns) for lost in summary.losses]
    assert spans == [
        (before.interval.wall_end_ns, after.interval.wall_start_ns)
        for before, after in itertools.pairwise(headers)
        if after.interval.wall_start_ns > before.interval.wall_end_ns
    ]
    assert scene.watcher.kinds.count("lost") == len(spans)
    assert "disk-full" in scene.watcher.kinds


async def test_a_window_for_which_there_is_no_space_to_the_end_is_lost_and_said(scene: Scene) -> None:
    def act(_: WindowReport) -> None:
        if scene.session is not None and [fate for _, fate in scene.watcher.fates].count("lost") == 2:
            scene.session.stop()

    scene.watcher.on_window = act
    # The session's two files, header and window 0, progress, header; and no space for window 1.
    scene.storage = FailingDisk(6, errno.ENOSPC)
    summary = await scene.run(windows=None)
    assert (summary.sealed, summary.lost, summary.verifier is not None) == (1, 3, True)
    assert [header.seq for header in scene.recorded()] == [0]
    assert sum(lost.windows for lost in summary.losses) == 3


class SlowDisk(FailingDisk):
    """Each write takes so long that no sealing ends within its window."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(0, errno.EIO, lasts=0)
        self._clock = clock

    def write(self, path: Path, data: bytes) -> None:
        super().write(path, data)
        if path.parent.name != "spool" and self.writes > 2:
            self._clock.elapsed_ns += PERIOD_NS * 2 // 3


async def test_a_disk_that_is_slower_than_windows_makes_them_longer_and_loses_none(scene: Scene) -> None:
    scene.storage = SlowDisk(scene.clock)
    summary = await scene.run(windows=6)
    headers = scene.recorded()
    assert (summary.sealed, summary.lost, [header.seq for header in headers]) == (6, 0, list(range(6)))
    for before, after in itertools.pairwise(headers):
        assert after.interval.wall_start_ns == before.interval.wall_end_ns
    assert max(header.interval.wall_end_ns - header.interval.wall_start_ns for header in headers) > PERIOD_NS


@pytest.mark.parametrize("at", [0, 1, 5, 6, 7])
@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
async def test_a_disk_that_fails_ends_the_session_and_loses_nothing(scene: Scene, at: int, number: int) -> None:
    scene.storage = FailingDisk(at, number)
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run(windows=None)
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert caught.value.hint
    scene.storage = None
    recorded = {header.seq for header in scene.recorded()}
    scene.watcher = Watcher()
    await scene.run(windows=1)
    assert (0, "affirmed") in scene.watcher.fates
    assert recorded <= {header.seq for header in scene.recorded()}
    assert scene.spooled() == []


async def test_a_full_spool_says_what_is_lost_and_the_chain_goes_on(scene: Scene) -> None:
    """Bounded: the oldest are kept, later windows are not sealed, and a gap in the intervals shows it."""

    def act(report: WindowReport) -> None:
        if (report.seq, report.status) == (0, "affirmed"):
            scene.transport.cut()
        if [fate for _, fate in scene.watcher.fates].count("lost") == 2:
            scene.transport.restore()

    scene.watcher.on_window = act
    summary = await scene.run(windows=6, spool_bytes=FILE_MAX + 30_000)
    fates = [fate for _, fate in scene.watcher.fates]
    assert summary.lost == fates.count("lost") >= 2
    headers = scene.recorded()
    assert [header.seq for header in headers] == list(range(6))
    gaps = [after.interval.wall_start_ns - before.interval.wall_end_ns for before, after in itertools.pairwise(headers)]
    assert max(gaps) == summary.lost * PERIOD_NS
    assert fates[-1] == "affirmed"
    # The same in words, in the summary, and kept for whoever asks later.
    at = gaps.index(max(gaps))
    (lost,) = summary.losses
    assert lost == Lost(
        "spool-full",
        headers[0].session,
        headers[at].interval.wall_end_ns,
        headers[at + 1].interval.wall_start_ns,
        summary.lost,
    )
    begun, over = (notice.message for notice in scene.watcher.notices if notice.kind in {"spool-full", "lost"})
    assert "the oldest are kept" in begun
    assert str(lost) in over
    assert Losses.open(scene.state / "spool" / "losses", DiskStorage()).spans == (lost,)
    # A verifier's account of it: the policy sees time that no window covers.
    warned = [str(report.verdict) for report in scene.watcher.windows if report.seq == at + 1 and report.verdict]
    assert f"the {max(gaps) // 1_000_000_000} s before it are uncovered" in warned[0]


async def test_a_host_that_falls_behind_makes_one_long_window(scene: Scene) -> None:
    """Sealing that takes longer than whole windows: the grid stays, the windows in between are one."""
    device = scene.world.host.gpus
    slow = [False]

    class Slow:
        def identities(self) -> tuple[bytes, ...]:
            return device.identities()

        def attest(self, nonce: bytes) -> Sequence[GpuEvidence]:
            if slow[0]:
                slow[0] = False
                scene.clock.elapsed_ns += PERIOD_NS * 5 // 2
            return device.attest(nonce)

        def cc_state(self) -> CcState | None:
            return device.cc_state()

        def close(self) -> None: ...

    scene.devices = replace(scene.devices, gpus=Slow())

    def act(report: WindowReport) -> None:
        if report.seq == 0:
            slow[0] = True

    scene.watcher.on_window = act
    await scene.run(windows=5)
    lengths = [header.interval.wall_end_ns - header.interval.wall_start_ns for header in scene.recorded()]
    assert lengths[0:2] == [PERIOD_NS, PERIOD_NS]
    assert sum(lengths) % PERIOD_NS == PERIOD_NS // 2 or sum(lengths) % PERIOD_NS == 0
    assert max(lengths) >= 2 * PERIOD_NS


async def test_a_tpm_reset_ends_the_session(scene: Scene) -> None:
    """The telemetry key is gone: nothing more can be sealed, whatever the PCRs hold afterwards."""

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            scene.world.host.tpm.reset()

    scene.watcher.on_window = act
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run()
    assert caught.value.code is Code.TPM_RESET
    assert [fate for _, fate in scene.watcher.fates] == ["affirmed"] * 2


def extend_as_systemd(scene: Scene) -> None:
    """A file system with ``x-systemd.pcrfs`` is mounted: systemd measures it into the log's register."""
    tpm = scene.world.host.tpm
    tpm.extend(LOG_PCR, {bank: digest(bank, b"file-system:/data") for bank in tpm.banks})


async def test_a_register_that_somebody_else_extends_ends_the_session_and_sticks_to_nobody(scene: Scene) -> None:
    """The window that a verifier would have refused is never sent; after a reboot the host is as good as new."""

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            extend_as_systemd(scene)

    scene.watcher.on_window = act
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run()
    assert (caught.value.code, caught.value.where) == (Code.BASELINE_UNEXPLAINED, "window 2")
    assert "nothing of it was sent" in caught.value.hint
    assert scene.watcher.fates == [(0, "affirmed"), (1, "affirmed")]
    assert (len(scene.recorded()), scene.spooled(), scene.token_file.exists()) == (2, [], False)
    # Started again without a reboot, it says so at once, and asks no verifier.
    lines = scene.transport.connects
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run()
    assert (caught.value.code, scene.transport.connects) == (Code.STATE_CORRUPT, lines)
    scene.watcher.windows.clear()
    scene.watcher.on_window = lambda _: None
    scene.world.host.tpm.reset()
    scene.world.host.tpm.safe = True
    await scene.run(windows=2)
    assert scene.watcher.fates == [(0, "affirmed"), (1, "affirmed")]


async def test_a_register_that_somebody_else_extended_is_not_enrolled(scene: Scene) -> None:
    def act(notice: Notice) -> None:
        if notice.kind == "loaded":
            extend_as_systemd(scene)

    scene.watcher.on_notice = act
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run()
    assert (caught.value.code, caught.value.where) == (Code.BASELINE_UNEXPLAINED, "enrolment")
    assert scene.watcher.kinds == ["loaded"]
    scene.watcher.on_notice = lambda _: None
    scene.world.host.tpm.reset()
    scene.world.host.tpm.safe = True
    await scene.run(windows=1)
    assert scene.watcher.fates == [(0, "affirmed")]


async def test_stop_seals_what_is_there_and_closes(scene: Scene) -> None:
    def act(report: WindowReport) -> None:
        if report.seq == 1 and scene.session is not None:
            asyncio.get_running_loop().call_later(0.01, scene.session.stop)

    scene.watcher.on_window = act
    summary = await scene.run(windows=None)
    assert summary.verifier is not None
    assert summary.affirmed == summary.sealed >= 2


async def test_stop_before_a_model_is_loaded(scene: Scene) -> None:
    running = asyncio.ensure_future(scene.run(peer=False))
    while scene.session is None or not (scene.state / "workload.sock").exists():  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0.001)
    scene.session.stop()
    with pytest.raises(EnvironmentFault) as caught:
        await running
    assert caught.value.code is Code.COMMAND_FAILED


async def test_a_session_runs_once(scene: Scene) -> None:
    await scene.run(windows=1)
    assert scene.session is not None
    with pytest.raises(RuntimeError, match="once"):
        await scene.session.run()


async def test_terms_by_another_verifier_are_not_accepted(scene: Scene) -> None:
    other = derive_key("another verifier").public_key()
    scene.trusted = TrustedVerifiers((VerifierAnchor(other, "another", None, None),))
    with pytest.raises(NotAuthentic) as caught:
        await scene.run()
    assert caught.value.code is Code.CHAIN_UNTRUSTED
    assert scene.watcher.windows == []


async def test_terms_that_were_not_asked_for_are_not_accepted(scene: Scene) -> None:
    """Whoever sits on the line adds a key to the opening that this host has not got: its terms would bind to it."""
    scene.transport.edit_opening = lambda opening: replace(Opening.parse(opening), kem=bytes(32)).encode()
    with pytest.raises(NotAuthentic) as caught:
        await scene.run()
    assert (caught.value.code, caught.value.where) == (Code.WINDOW_TERMS, "terms.kem")
    assert scene.watcher.windows == []
    assert list((scene.state / "spool").iterdir()) == []


async def test_the_pinned_key_is_enough_where_the_verifier_has_pinned_it(scene: Scene) -> None:
    spki = tpm_public.parse(scene.world.host.tpm.attestation_key()).spki()
    far = datetime(9999, 1, 1, tzinfo=UTC)
    pinned = Anchor("attestation-key", "ak", "insecure-emulated", spki, datetime(2020, 1, 1, tzinfo=UTC), far, "a test")
    gpus = scene.world.anchors.select("nvidia-device-root")
    scene.world.anchors = TrustAnchors((*gpus, pinned))
    scene.world.restart()
    scene.config = replace(scene.config, pinned=True)
    await scene.run(windows=2)
    assert [fate for _, fate in scene.watcher.fates] == ["affirmed"] * 2


async def test_two_attesters_do_not_share_a_state_directory(scene: Scene) -> None:
    found: list[BaseException] = []

    async def second() -> None:
        try:
            await Scene(scene.state.parent, scene.world).run(peer=False)
        except EnvironmentFault as error:
            found.append(error)

    tasks: list[asyncio.Future[None]] = []
    scene.watcher.on_window = lambda report: tasks.append(asyncio.ensure_future(second())) if report.seq == 0 else None
    await scene.run(windows=3)
    await asyncio.gather(*tasks)
    (error,) = found
    assert isinstance(error, EnvironmentFault)
    assert error.code is Code.STATE_LOCKED


async def test_a_spool_is_kept_while_the_verifier_is_away(scene: Scene) -> None:
    scene.watcher.on_window = lambda _: scene.transport.cut()
    await scene.run(windows=3)
    left = scene.spooled()
    assert left
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run(peer=False)
    assert caught.value.code is Code.PEER_UNREACHABLE
    assert scene.spooled() == left
    assert [notice.kind for notice in scene.watcher.notices[-2:]] == ["delivering", "no-session"]
    assert "nothing is sealed" in scene.watcher.notices[-1].message


async def test_a_verifier_that_is_away_at_the_start_is_waited_for_if_that_is_asked(scene: Scene) -> None:
    scene.config = replace(scene.config, patient=True)
    scene.transport.cut()

    def act(notice: Notice) -> None:
        if notice.kind == "waiting":
            asyncio.get_running_loop().call_later(0.05, scene.transport.restore)

    scene.watcher.on_notice = act
    summary = await scene.run(windows=2)
    assert summary.affirmed == 2
    assert scene.watcher.kinds == ["waiting", "loaded", "enrolled"]
    assert scene.transport.connects > 3


async def test_a_verifier_that_is_busy_with_others_is_asked_again(scene: Scene) -> None:
    """Ten thousand hosts enrol at once: those that are put off come later, by themselves."""
    busy = Throttled(EnvironmentFault(Code.RATE_LIMITED, "too many openings"), retry_after_ns=30_000_000_000)
    scene.transport.refuse_openings = [busy] * 3
    began = scene.clock.monotonic_ns()
    summary = await scene.run(windows=2)
    assert summary.affirmed == 2
    assert scene.watcher.kinds == ["loaded", "waiting", "enrolled"]
    assert scene.clock.monotonic_ns() - began >= 90_000_000_000


@pytest.mark.parametrize("name", ["progress", "window-0000000000000002", "window-0000000000000004"])
async def test_a_damaged_spool_is_set_aside_and_said(scene: Scene, name: str) -> None:
    """What lies before the damage is delivered, if its place is known; a new session begins all the same."""
    scene.watcher.on_window = lambda report: scene.transport.cut() if report.seq == 1 else None
    await scene.run(windows=5)
    first = scene.spooled()[0]
    assert [int(path.name[-16:]) for path in scene.spooled()] == [1, 2, 3, 4] or first.name.endswith("2")
    path = first.parent / name
    path.write_bytes(path.read_bytes()[:-1])
    scene.transport.restore()
    scene.watcher = Watcher()
    summary = await scene.run(windows=1)
    assert summary.affirmed == 1
    assert "set-aside" in scene.watcher.kinds
    (damaged,) = {path.parent for path in scene.spooled()}
    assert damaged.name == f"{first.parent.name}.damaged"
    before_damage = name == "window-0000000000000004"
    lost = Losses.open(scene.state / "spool" / "losses", DiskStorage()).spans[0]
    assert (lost.reason, lost.session) == ("damaged", strict.hex_decode(first.parent.name, what="session"))
    kept = len(list(damaged.glob("window-*")))
    assert lost.windows == kept
    recorded = [header.seq for header in scene.recorded() if header.session == lost.session]
    assert recorded == list(range(5 - kept))
    assert before_damage or len(recorded) <= 2


async def test_a_token_that_cannot_be_taken_away_is_said(scene: Scene) -> None:
    scene.token_file.mkdir(parents=True)
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run(peer=False)
    assert caught.value.code is Code.FILE_UNWRITABLE


async def test_what_a_launched_server_is_told(scene: Scene, tmp_path: Path) -> None:
    launch = Launch(command=("server",), workload=Path("/w"), serving=scene.config.serving, port_file=tmp_path / "port")
    told = {name: value for name, value in launch.environment().items() if name.startswith("WEIGHBRIDGE_")}
    assert told["WEIGHBRIDGE_WORKLOAD"] == "/w"
    assert told["WEIGHBRIDGE_TLS_KEY"] == str(scene.config.serving.key_file)
    assert told["WEIGHBRIDGE_TLS_CERT"] == str(scene.config.serving.certificate_file)
    assert told["WEIGHBRIDGE_PORT_FILE"] == str(tmp_path / "port")
    assert "WEIGHBRIDGE_PORT_FILE" not in replace(launch, port_file=None).environment()


async def test_the_log_in_another_register_is_said_before_anything_is_proven(scene: Scene) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run(log_pcr=14)
    assert caught.value.code is Code.TPM_PCR_SELECTION
    assert f"--log-pcr {LOG_PCR}" in caught.value.hint


SERVER = """
import sys
from weighbridge.attester.workload.client import WorkloadClient
with WorkloadClient.connect() as attester:
    attester.load(sys.argv[1], name="tiny")
    {then}
"""


@pytest.fixture
def server(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    def command(then: str) -> tuple[str, ...]:
        script = tmp_path / "server.py"
        script.write_text(SERVER.format(then=then))
        return (sys.executable, str(script), str(tmp_path / "model"))

    return command


async def test_the_session_ends_with_its_command(scene: Scene, server: Callable[[str], tuple[str, ...]]) -> None:
    summary = await scene.run(peer=False, windows=None, command=server("import time; time.sleep(0.4)"))
    assert summary.verifier is not None
    assert summary.verifier["state"] == "closed"
    assert {fate for _, fate in scene.watcher.fates} == {"affirmed"}


async def test_a_command_that_fails_is_said_after_the_session_is_closed(
    scene: Scene, server: Callable[[str], tuple[str, ...]]
) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run(peer=False, windows=None, command=server("import time; time.sleep(0.3); sys.exit(3)"))
    assert caught.value.code is Code.COMMAND_FAILED
    assert "status 3" in caught.value.message
    assert {fate for _, fate in scene.watcher.fates} == {"affirmed"}


async def test_what_a_stopped_command_had_loaded_is_logged_as_unloaded(
    scene: Scene, server: Callable[[str], tuple[str, ...]]
) -> None:
    command = server("import time; time.sleep(60)")
    await scene.run(peer=False, windows=2, command=command)
    scene.watcher = Watcher()
    await scene.run(peer=False, windows=2, command=command)
    assert [fate for _, fate in scene.watcher.fates] == ["affirmed"] * 2
    records = sorted((scene.state / "log").rglob("[0-9]*.cbor"))
    # start, load, unload, twice
    assert len(records) == 6


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ((sys.executable, "-c", "pass"), "before it loaded"),
        ((sys.executable, "-c", "raise SystemExit(4)"), "status 4"),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), "signal 9"),
        (("/nonexistent/server",), "status 127|cannot be started"),
    ],
)
async def test_a_command_that_never_loads(scene: Scene, command: tuple[str, ...], text: str) -> None:
    with pytest.raises(EnvironmentFault, match=text) as caught:
        await scene.run(peer=False, command=command)
    assert caught.value.code is Code.COMMAND_FAILED


# -- spot checks -------------------------------------------------------------------------------------------------------


def stock(scene: Scene, *, every: int = 2, count: int = 20) -> None:
    """The verifier demands spot checks and has some."""
    scene.world.wanted = requirements(spot_every=every)
    scene.world.restart()
    pool = make_pool(scene.config.model, scene.model, count=count, ranges=3, range_bytes=16)
    with scene.world.store.transaction() as tx:
        tx.spots.add(pool)


async def test_a_host_that_has_the_bytes_answers_where_it_is_asked(scene: Scene) -> None:
    stock(scene)
    await scene.run(windows=5)
    assert scene.watcher.fates == [(seq, "affirmed") for seq in range(5)]
    assert [header.spot is not None for header in scene.recorded()] == [True, False, True, False, True]
    assert scene.watcher.kinds == ["loaded", "enrolled"]
    assert left(scene.world) == (17, 3)
    # A restarted attester knows where to read.
    again = ModelDirectories(scene.state / "model-directories")
    assert again.find(scene.config.model.digest) == scene.model.resolve()


async def test_weights_that_are_exchanged_after_measuring_end_the_session_at_the_next_check(scene: Scene) -> None:
    """A80: everything that was measured and stored still says what was declared; the bytes do not."""
    stock(scene, every=3)
    weights = scene.model / "model.safetensors"
    content = weights.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            # Every byte of every tensor, since a check asks for few of them.
            weights.write_bytes(content[:header] + bytes(byte ^ 0xFF for byte in content[header:]))

    scene.watcher.on_window = act
    with pytest.raises(PolicyDenied) as refused:
        await scene.run(windows=10)
    assert refused.value.code is Code.SPOT_WRONG
    assert scene.watcher.fates == [(0, "affirmed"), (1, "affirmed"), (2, "affirmed"), (3, "denied")]


async def test_weights_that_are_gone_are_told_and_end_the_session(scene: Scene) -> None:
    stock(scene)

    def act(report: WindowReport) -> None:
        if report.seq == 0:
            (scene.model / "model.safetensors").unlink()

    scene.watcher.on_window = act
    with pytest.raises(PolicyDenied) as refused:
        await scene.run(windows=10)
    assert refused.value.code is Code.SPOT_ABSENT
    (notice,) = (notice for notice in scene.watcher.notices if notice.kind == "spot-failed")
    assert "window 2: WEIGHTS_UNREADABLE" in notice.message
    assert "model.safetensors" in notice.message


async def test_what_is_sealed_without_the_verifier_answers_once(scene: Scene) -> None:
    """The first window without it still has a challenge of its own; those after it answer nothing."""
    stock(scene)

    def act(report: WindowReport) -> None:
        if (report.seq, report.status) == (1, "affirmed"):
            scene.transport.cut()
        if (report.seq, report.status) == (4, "spooled"):
            scene.transport.restore()

    scene.watcher.on_window = act
    summary = await scene.run(windows=9)
    fates = dict(scene.watcher.fates)
    assert [seq for seq, fate in fates.items() if fate == "held"] == [2, 3, 4]
    assert summary.affirmed == 6
    answered = [header.seq for header in scene.recorded() if header.spot is not None]
    assert answered[:2] == [0, 2]
    # The check that came too late is made good by the first fresh window that is asked.
    assert 6 in answered
    assert not {3, 4} & set(answered)


async def test_a_verifier_without_challenges_admits_and_warns(scene: Scene) -> None:
    stock(scene, every=1, count=1)
    await scene.run(windows=3)
    assert scene.watcher.fates == [(seq, "affirmed") for seq in range(3)]
    documents = [report.verdict for report in scene.watcher.windows]
    assert [[item["code"] for item in document["warnings"]] for document in documents] == [  # type: ignore[call-overload, index, union-attr]
        [],
        ["SPOT_POOL_EMPTY"],
        ["SPOT_POOL_EMPTY"],
    ]


class Failing:
    """A device whose calls fail while ``fault`` is set."""

    def __init__(self, device: object, name: str) -> None:
        self._device = device
        self._name = name
        self.fault: EnvironmentFault | None = None

    def __getattr__(self, name: str) -> object:
        if name == self._name and self.fault is not None:
            raise self.fault
        return getattr(self._device, name)


@pytest.mark.parametrize(
    ("device", "call", "code"),
    [
        pytest.param("tpm", "quote", Code.TPM_ABSENT, id="a TPM that dies"),
        pytest.param("gpus", "attest", Code.GPU_FAILED, id="a GPU that is lost"),
        pytest.param("gpus", "attest", Code.GPU_ABSENT, id="a driver that is unloaded"),
    ],
)
async def test_a_device_that_dies_ends_the_session_and_begins_another_when_it_is_back(
    scene: Scene, device: str, call: str, code: Code
) -> None:
    """What was sealed is delivered, nothing is sealed without the device, and no token outlives it."""
    failing: Any = Failing(getattr(scene.devices, device), call)
    scene.devices = replace(scene.devices, **{device: failing})

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            failing.fault = EnvironmentFault(code, "gone", where=device)

    scene.watcher.on_window = act
    with pytest.raises(EnvironmentFault) as caught:
        await scene.run()
    assert caught.value.code is code
    assert scene.watcher.fates == [(0, "affirmed"), (1, "affirmed")]
    assert (scene.spooled(), scene.token_file.exists()) == ([], False)
    (first,) = {header.session for header in scene.recorded()}
    # Back, as the same device: another session, under the same key, with nothing to clear.
    failing.fault = None
    scene.watcher = Watcher()
    summary = await scene.run(windows=2)
    assert (summary.affirmed, scene.watcher.fates) == (2, [(0, "affirmed"), (1, "affirmed")])
    headers = scene.recorded()
    assert [header.seq for header in headers if header.session == first] == [0, 1]
    assert len({header.session for header in headers}) == 2
    with scene.world.store.transaction() as tx:
        row = tx.session(first)
    assert row is not None
    assert row.state is SessionState.INTERRUPTED


async def test_a_host_that_is_paused_makes_one_long_window_and_opens_again(scene: Scene) -> None:
    """As by SIGSTOP, or as a machine that is stopped: both its clocks went on, and the token's time is over."""
    tokens: list[bool] = []

    def act(report: WindowReport) -> None:
        if report.seq == 1:
            scene.clock.elapsed_ns += 60 * PERIOD_NS
        tokens.append(scene.token_file.exists())

    scene.watcher.on_window = act
    summary = await scene.run(windows=5)
    assert (summary.sealed, summary.lost) == (5, 0)
    headers = scene.recorded()
    assert [header.seq for header in headers] == list(range(5))
    lengths = [(header.interval.wall_end_ns - header.interval.wall_start_ns) // PERIOD_NS for header in headers]
    assert lengths == [1, 1, 60, 1, 1]
    # Until the window that was sealed under the challenge of before is answered, nothing is open.
    assert scene.watcher.fates == [(0, "affirmed"), (1, "affirmed"), (2, "held"), (3, "affirmed"), (4, "affirmed")]
    assert tokens == [True, True, False, True, True]
