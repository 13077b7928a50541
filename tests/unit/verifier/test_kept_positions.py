"""Sessions restored from where they stood lately: the same as replayed whole, whatever they carry."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal
from unittest import mock

import pytest

from corpus import boot
from corpus.telemetry import baselined
from support.spots import stock
from support.world import World, manifest, requirements
from weighbridge.proto import cbor
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, PolicyDenied
from weighbridge.verifier import kept_position, replay
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.observed import UNOBSERVED, Restored
from weighbridge.verifier.plain import form_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    from corpus.arena import Arena
    from support.world import Engines
    from weighbridge.verifier.kept_position import KeptPosition, Sources
    from weighbridge.verifier.live import Live
    from weighbridge.verifier.session import Position

EVERY: Final = 4


class Told:
    """An observer that remembers what it was told of sessions that were restored."""

    took = UNOBSERVED.took
    judged = UNOBSERVED.judged
    refused = UNOBSERVED.refused
    removed = UNOBSERVED.removed

    def __init__(self) -> None:
        self.restored_by: list[tuple[Restored, int]] = []

    def restored(self, how: Restored, windows: int) -> None:
        self.restored_by.append((how, windows))


@contextmanager
def restarted(world: World, *, remembered: int = 8) -> Generator[Told]:
    """The verifier as it comes up again, with what it tells."""
    told = Told()
    with mock.patch("support.world.Verifier") as made:
        made.side_effect = lambda **options: Verifier(**options, observer=told, remembered=remembered)
        world.restart()
    yield told


def position(world: World) -> tuple[Position, list[object]]:
    """Where the session stands, of a verifier that has just been started; reports are told by what identifies them."""
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    gpus = [(gpu.identity, gpu.nonce, gpu.measurements_digest) for gpu in live.position.gpus]
    return replace(live.position, gpus=()), [gpus, live.sources, live.state]


def whole(world: World) -> tuple[Position, list[object]]:
    """The same, with nothing that was kept."""
    with mock.patch("weighbridge.verifier.positions.Positions.kept", return_value=None), restarted(world):
        return position(world)


def busy(arena: Arena) -> World:
    """Samples by a baseline, GPU reports in every third window, spot checks in every other one."""
    world = baselined(arena, windows=0, wanted=requirements(gpu_every=3, spot_every=2))
    stock(world, 30)
    world.open_session()
    return world


def reading(arena: Arena) -> World:
    """Logs of the boot, and the kernel's list, which grows."""
    world = boot._world(arena, boot._booted())
    world.open_session()
    return world


@pytest.mark.parametrize("make", [busy, reading])
def test_from_where_it_stood_is_as_from_the_first_window(
    arena: Arena, make: Callable[[Arena], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_position, "KEPT_EVERY", 1)
    world = make(arena)
    for number in range(14):
        if number == 7:
            late = world.host.seal()
            world.clock.advance(30)
            assert world.deliver(late).verdict.held
            world.host.wall_ns += 29_000_000_000
        if make is reading and number in {3, 9}:
            world.host.runs(f"/usr/bin/tool-{number}", b"%d" % number)
        if number == 5:
            world.host.log.load(world.host.model)
        world.window()
        if make is reading and number in {3, 9}:
            # What this very window brought is called fresh, and so is all that the session has brought since.
            continue
        with restarted(world) as told:
            leapt = position(world)
        assert told.restored_by == [(Restored.KEPT, 0)]
        assert leapt == whole(world)
    leapt, read = whole(world), kept_position.decode(kept(world)[0])
    assert bool(read.profiles) == (make is busy)
    # A profile that is in force no more, and a window without the reports for which it is named.
    changes = [replace(read, profiles={device: bytes(32) for device in read.profiles})] if make is busy else []
    if read.sources.reports != read.sources.last:
        changes.append(replace(read, sources=replace(read.sources, reports=read.sources.last)))
    for changed in changes:
        keep(world, kept_position._form_digest() + cbor.encode(kept_position._form().write(changed)))
        with restarted(world) as told:
            assert position(world) == leapt
        assert told.restored_by == [(Restored.UNFIT, read.seq)]
    assert len(changes) == (2 if make is busy else 0)


@pytest.fixture
def world(tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Ten windows into a session, of which positions are kept after every fourth."""
    monkeypatch.setattr(kept_position, "KEPT_EVERY", EVERY)
    made = World.make(tmp_path, engines=engines)
    made.open_session()
    for _ in range(10):
        assert made.window().verdict.opens
    yield made
    made.close()


def kept(world: World) -> list[bytes]:
    with closing(sqlite3.connect(world.directory / "sessions.sqlite")) as raw:
        return [row[0] for row in raw.execute("SELECT content FROM positions ORDER BY session")]


def keep(world: World, content: bytes, *, digest: bytes | None = None) -> None:
    with closing(sqlite3.connect(world.directory / "sessions.sqlite")) as raw, raw:
        raw.execute("UPDATE positions SET content = ?, digest = ?", (content, digest or sha256(content)))


def test_no_more_windows_are_replayed_than_have_come_since(world: World) -> None:
    since = (10 + world.host.session[0]) % EVERY
    with (
        restarted(world) as told,
        mock.patch("weighbridge.verifier.restoring.replay_window", wraps=replay.replay_window) as replayed,
    ):
        world.host.challenge = world.verifier.resume(world.host.session, peer=world.host.peer).challenge
        assert world.window().verdict.opens
    assert told.restored_by == [(Restored.KEPT, since)]
    assert replayed.call_count == since


def other_session(content: bytes) -> bytes:
    return content.replace(kept_position.decode(content).session, bytes(16))


def other_window(content: bytes) -> bytes:
    return content.replace(kept_position.decode(content).window, bytes(32))


def with_sources(content: bytes, change: Callable[[Sources], Sources]) -> bytes:
    read = kept_position.decode(content)
    return content[:32] + cbor.encode(kept_position._form().write(replace(read, sources=change(read.sources))))


def other_entry(content: bytes) -> bytes:
    return with_sources(content, lambda sources: replace(sources, last=(sources.last or 0) - 1))


def without_the_log(content: bytes) -> bytes:
    return with_sources(content, lambda sources: replace(sources, grew=()))


def without_reports(content: bytes) -> bytes:
    return with_sources(content, lambda sources: replace(sources, reports=0))


def other_version(content: bytes) -> bytes:
    return bytes(32) + content[32:]


def shorter(content: bytes) -> bytes:
    return content[:-1]


def test_what_does_not_fit_is_not_used(world: World) -> None:
    (content,) = kept(world)
    right = whole(world)
    changes = (other_session, other_window, other_entry, other_version, without_the_log, without_reports, shorter)
    for change in changes:
        changed = change(content)
        assert changed != content
        keep(world, changed)
        with restarted(world) as told:
            assert position(world) == right
        assert told.restored_by == [(Restored.UNFIT, 10)]
    # Another number, as well-formed as the one that was there: only the digest tells.
    keep(world, content[:-1] + bytes([content[-1] ^ 1]), digest=sha256(content))
    with restarted(world) as told:
        assert position(world) == right
    assert told.restored_by == [(Restored.UNFIT, 10)]
    # What leads elsewhere than the row, as in a store that was put together of two copies.
    keep(world, content)
    with mock.patch("weighbridge.verifier.restoring.Restorer.leap", autospec=True) as leap:

        def astray(_: object, live: Live, kept: KeptPosition, _last: int) -> None:
            live.position = replace(live.position, seq=kept.seq, prev=bytes(32))

        leap.side_effect = astray
        with restarted(world) as told:
            assert position(world) == right
    assert told.restored_by == [(Restored.UNFIT, 10)]


def test_what_is_too_large_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kept(world)
    for name, most in (("_GREW_MAX", 0), ("_INTEGERS_MAX", 0), ("_KEPT_MAX", 64)):
        with monkeypatch.context() as patched:
            patched.setattr(kept_position, name, most)
            for _ in range(EVERY):
                assert world.window().verdict.opens
        assert kept(world) == before
    assert len(world.verifier._sessions.find(world.host.session, peer=world.host.peer).sources.grew) == 1


def test_storage_that_fails_is_no_reason_to_replay_it_all(world: World) -> None:
    fault = EnvironmentFault(Code.STORAGE_UNREACHABLE, "a test")
    for failing in ("Restorer.leap", "Restorer.extend"):
        with restarted(world) as told, mock.patch(f"weighbridge.verifier.restoring.{failing}", side_effect=fault):
            with pytest.raises(EnvironmentFault) as caught:
                position(world)
            assert (caught.value.code, told.restored_by) == (Code.STORAGE_UNREACHABLE, [])


def test_of_what_has_ended_nothing_is_kept_nor_remembered(world: World) -> None:
    assert len(kept(world)) == 1
    other = world.another_host("another")
    world.open_session(other)
    for _ in range(EVERY):
        world.clock.advance(1)
        world.deliver(other.seal(), host=other)
    assert (len(kept(world)), len(world.verifier._sessions)) == (2, 2)
    world.verifier.close(other.session, peer=other.peer)
    assert (len(kept(world)), len(world.verifier._sessions)) == (1, 1)
    # An attester that enrols again ends its session before, and one that is refused its own.
    world.open_session()
    assert (len(kept(world)), len(world.verifier._sessions)) == (0, 1)
    for _ in range(EVERY):
        world.window()
    assert len(kept(world)) == 1
    world.host.log.load(manifest("other", weights=b"others"))
    assert world.window().verdict.outcome == "denied"
    assert (len(kept(world)), len(world.verifier._sessions)) == (0, 0)
    with pytest.raises(PolicyDenied):
        world.verifier.resume(world.host.session, peer=world.host.peer)


def test_memory_is_bounded_and_every_session_goes_on(world: World) -> None:
    hosts = [world.host, *(world.another_host(f"host {number}") for number in range(2))]
    for host in hosts[1:]:
        world.open_session(host)
    with restarted(world, remembered=2) as told:
        for _ in range(2 * EVERY):
            for host in hosts:
                world.clock.advance(0.1)
                assert world.deliver(host.seal(), host=host).verdict.outcome in {"affirmed", "held"}
                assert len(world.verifier._sessions) <= 2
    # Each comes when it has just been forgotten: a few windows are replayed, and never all.
    assert len(told.restored_by) == 3 * 2 * EVERY
    assert max(windows for _, windows in told.restored_by) < EVERY


def test_several_at_once_are_settled_beyond_the_bound(world: World) -> None:
    other = world.another_host("another")
    world.open_session(other)
    with restarted(world, remembered=1):
        for _ in range(2):
            world.clock.advance(1)
            sealed = {host.session: (host, host.seal()) for host in (world.host, other)}
            judged = [
                world.verifier.judge(session, one.evidence, peer=host.peer) for session, (host, one) in sealed.items()
            ]
            for item, settled in zip(judged, world.verifier.settle(judged), strict=True):
                answer, (host, one) = settled(), sealed[item.session]
                assert answer.verdict.opens
                host.advance(one)
                assert answer.challenge is not None
                host.challenge = answer.challenge
            assert len(world.verifier._sessions) == 1


# -- forms ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    size: int
    word: Literal["one", "two"]

    def __post_init__(self) -> None:
        if self.size == 13:
            raise ValueError("unlucky")


@dataclass(frozen=True)
class Outer:
    pair: tuple[int, bool]
    inner: tuple[Inner, ...]
    named: Mapping[bytes, str]
    perhaps: Inner | None = None


def names() -> dict[str, object]:
    from collections.abc import Mapping as Named  # noqa: PLC0415 - here it is for type checkers

    return {"Mapping": Named}


@pytest.mark.parametrize("size", [0, -1, 2**63 - 1, 2**63, -(2**63) - 1, 2**200, -(2**200)])
def test_values_come_back(size: int) -> None:
    form = form_of(Outer, names())
    value = Outer((size, True), (Inner(1, "one"), Inner(size, "two")), {b"b": "x", b"a": "y"})
    written = cbor.encode(form.write(value))
    read = form.read(cbor.decode(written, limit=2**16, what="test"))
    assert read == value
    assert list(read.named) == [b"b", b"a"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [[1, 1], [], [], None],
        [[1], [], [], None],
        [[True, True], [], [], None],
        [[b"\1", True], [], [], None],
        [[1, True], [[1, "three"]], [], None],
        [[1, True], [[13, "one"]], [], None],
        [[1, True], [], [b"a", "x", b"a", "y"], None],
        [[1, True], [], [b"a", 1], None],
        [[1, True], [], [b"a"], None],
        [[1, True], [], [], []],
    ],
)
def test_nothing_else_is_read(value: cbor.CborValue) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        form_of(Outer, names()).read(value)
    assert caught.value.code in {Code.FIELD_TYPE, Code.FIELD_RANGE, Code.DUPLICATE_KEY}


def test_what_has_no_form() -> None:
    with pytest.raises(TypeError):
        form_of(float)
