"""A ledger in a bucket: every request lost, late, or the last of its process; and two writers in each other's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import hypothesis
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from fakes.buckets import FaultyObjects, Lost, MemoryObjects, bucket, shown
from weighbridge.proto import merkle, note, tlog
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.ledger import Ledger, LedgerReader, audit
from weighbridge.verifier.ledger.bucket import NOTE, TILE, Object, Objects, Patience, Served
from weighbridge.verifier.ledger.committed_head import CommittedHead
from weighbridge.verifier.ledger.source import BucketSource

ORIGIN = "ledger.example/windows"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOTE_KEY = note.NoteKey(ORIGIN, KEY.public_key().public_bytes_raw())
# Sizes before the append that is interrupted: nothing, within a tile, and one where it completes a tile.
STARTS = (0, 3, 250)


def batch(tag: str, count: int = 10) -> list[bytes]:
    return [f"{tag} {number}".encode() for number in range(count)]


def created(objects: Objects, start: int = 0) -> Ledger:
    ledger = Ledger.create(bucket(objects), origin=ORIGIN, key=KEY)
    if start:
        ledger.append(batch("before", start))
    # Appends are published behind: whoever asks what is, waits for it.
    shown(ledger)
    return ledger


def opened(objects: Objects) -> Ledger:
    return Ledger.open(bucket(objects), origin=ORIGIN, key=KEY)


class Watched(MemoryObjects):
    """A bucket that notes each checkpoint it was given, and refuses what no ledger does."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[bytes] = []

    def create(self, name: str, data: bytes, served: Served) -> str:
        if name == "checkpoint":
            self.shown.append(data)
        return super().create(name, data, served)

    def replace(self, name: str, data: bytes, served: Served, *, tag: str) -> str:
        assert name in {"checkpoint", "writer/head"} or name.startswith("writer/probe"), "a tile is written once"
        made = super().replace(name, data, served, tag=tag)
        if name == "checkpoint":
            self.shown.append(data)
        return made

    def check(self, *promised: tuple[int, list[bytes]]) -> int:
        """The whole tree holds, extends every checkpoint that anybody saw, and has all that was promised."""
        source = BucketSource(bucket(self))
        for earlier in set(self.shown):
            audit(source, NOTE_KEY, ORIGIN, earlier=earlier)
        sizes = [tlog.open_checkpoint(shown, NOTE_KEY, origin=ORIGIN).size for shown in self.shown]
        assert sizes == sorted(sizes), "the checkpoint went back"
        reader = LedgerReader.open(source, key=NOTE_KEY, origin=ORIGIN)
        for first, entries in promised:
            assert [reader.entry(first + at) for at in range(len(entries))] == entries
        return reader.checkpoint.size


def test_what_a_public_bucket_serves() -> None:
    """The objects of tlog-tiles, tiles for ever, the checkpoint not at all, and partial tiles until they are full."""
    objects = Watched()
    with created(objects, 250) as ledger:
        ledger.append(batch("x"))
    public = {name: served for name, served in objects.served.items() if name in objects.objects}
    assert {name for name in public if not name.startswith("writer/")} == {
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/4",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/4",
    }
    assert public["checkpoint"] == NOTE
    assert public["checkpoint"].cache_control == "no-cache"
    assert {served for name, served in public.items() if name.startswith("tile/")} == {TILE}
    assert "no-store" in public["writer/head"].cache_control
    objects.check((0, batch("before", 250)), (250, batch("x")))


@pytest.mark.parametrize("how", Lost)
@pytest.mark.parametrize("start", STARTS)
def test_every_request_lost(start: int, how: Lost) -> None:
    """Reported as this machine's; going on works, starting again works, and what arrives late changes nothing."""
    at = 0
    while True:
        at += 1
        objects = Watched()
        faulty = FaultyObjects(objects, how=how)
        ledger = created(faulty, start)
        faulty.arm(at)
        try:
            ledger.append(batch("broken"))
        except EnvironmentFault as error:
            assert error.code is Code.STORAGE_UNREACHABLE  # noqa: PT017 - or what is published behind it is lost
        shown(ledger)
        if faulty.count < at:
            break
        assert objects.check() in {start, start + 10}
        if at % 2:
            ledger.close()
            ledger = opened(faulty)
        else:
            ledger.settle()
        # Late requests come between any two steps of whoever goes on.
        if at % 3 == 0:
            faulty.arrive()
        first = ledger.append(batch("after"))
        arrived = faulty.arrive()
        second = ledger.append(batch("later"))
        shown(ledger)
        assert not any(arrived) or how is not Lost.LATE or at > 1, "a head that came late was taken"
        objects.check((first.first_index, batch("after")), (second.first_index, batch("later")))
        ledger.close()
    # The head, two tiles and the checkpoint are the least.
    assert at >= 5


class Ended(Exception):
    """The process is gone."""


@pytest.mark.parametrize("how", [Lost.NEVER, Lost.AT_ONCE])
@pytest.mark.parametrize("start", STARTS)
def test_the_process_ends_anywhere(start: int, how: Lost) -> None:
    """Whatever a bucket is found with, it opens and is one history; the append is in it whole, or not at all."""
    at = 0
    while True:
        at += 1
        objects = Watched()
        mortal = FaultyObjects(objects, how=how, error=Ended)
        ledger = created(mortal, start)
        mortal.arm(at)
        promised = [(start, batch("cut"))]
        try:
            ledger.append(batch("cut"))
        except Ended:
            promised = []
        ledger.close()
        objects.check()
        with opened(objects) as again:
            assert again.size in {start, start + 10}
            after = again.append(batch("after"))
        objects.check(*promised, (after.first_index, batch("after")))
        if mortal.count < at:
            break
    assert at >= 5


class Paused(MemoryObjects):
    """One writer's way to a bucket: before its writing request number ``at`` it waits until the other is through."""

    def __init__(self, shared: Objects) -> None:
        super().__init__()
        self._shared = shared
        self.at = self.count = 0
        self.waits, self.goes_on = threading.Event(), threading.Event()

    def _wait(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.waits.set()
            assert self.goes_on.wait(10)

    def get(self, name: str, *, limit: int, unless: str | None = None) -> Object | None:
        return self._shared.get(name, limit=limit, unless=unless)

    def create(self, name: str, data: bytes, served: Served) -> str:
        self._wait()
        return self._shared.create(name, data, served)

    def replace(self, name: str, data: bytes, served: Served, *, tag: str) -> str:
        self._wait()
        return self._shared.replace(name, data, served, tag=tag)

    def names(self, prefix: str, *, after: str, limit: int) -> Sequence[str]:
        return self._shared.names(prefix, after=after, limit=limit)

    def delete(self, names: Sequence[str]) -> None:
        self._shared.delete(names)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("step", range(1, 7))
def test_a_paused_writer_changes_nothing_of_who_led_meanwhile(start: int, step: int) -> None:
    """At each of its requests a writer is paused; another one leads twice; then the first goes on as if it led."""
    objects = Watched()
    way = Paused(objects)
    first = created(way, start)
    second = opened(objects)
    way.count, way.at = 0, step
    outcome: list[object] = []

    def append() -> None:
        try:
            outcome.append(first.append(batch("paused")).first_index)
            shown(first)
        except EnvironmentFault as error:
            outcome.append(error.code)

    thread = threading.Thread(target=append)
    thread.start()
    while thread.is_alive() and not way.waits.wait(0.01):
        pass
    if way.waits.is_set():
        second.take_up()
        led = [second.append(batch("led"))]
        led.append(second.append(batch("led again")))
        shown(second)
        # One of these overtakes the checkpoint of the other, too.
        assert step == 1 or led[0].first_index == start + 10
        expected = Code.LEDGER_LOCKED if step == 1 else start
        between = objects.objects["checkpoint"]
        way.goes_on.set()
        thread.join()
        assert outcome == [expected]
        assert objects.objects["checkpoint"] == between
        promised = [(led[0].first_index, batch("led")), (led[1].first_index, batch("led again"))]
    else:
        thread.join()
        promised = []
        assert outcome == [start]
    if outcome == [start]:
        promised.append((start, batch("paused")))
    objects.check(*promised)
    # The one that was overtaken takes up what was written, and goes on.
    way.at = 0
    first.take_up()
    after = first.append(batch("after"))
    shown(first)
    objects.check(*promised, (after.first_index, batch("after")))


def test_of_two_appends_on_one_head_one_counts() -> None:
    objects = Watched()
    one, other = created(objects), opened(objects)
    one.append(batch("one"))
    with pytest.raises(EnvironmentFault) as caught:
        other.append(batch("other"))
    assert caught.value.code is Code.LEDGER_LOCKED
    other.take_up()
    assert other.append(batch("other")).first_index == 10
    shown(other)
    objects.check((0, batch("one")), (10, batch("other")))


def test_many_writers_at_once() -> None:
    """Every append that was told to have succeeded is in the ledger, once, and nothing else is."""
    objects = Watched()
    created(objects).close()
    appended: list[tuple[int, list[bytes]]] = []

    def work(number: int) -> None:
        with opened(objects) as ledger:
            for turn in range(12):
                entries = batch(f"writer {number} turn {turn}", 1 + turn % 3)
                while True:
                    try:
                        ledger.take_up()
                        appended.append((ledger.append(entries).first_index, entries))
                        break
                    except EnvironmentFault as error:
                        assert error.code is Code.LEDGER_LOCKED  # noqa: PT017 - overtaken, again and again

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    appended.sort()
    flat = [entry for _, entries in appended for entry in entries]
    assert objects.check(*appended) == len(flat) == 4 * 24
    with opened(objects) as ledger:
        assert ledger.root == merkle.root([merkle.leaf_hash(entry) for entry in flat])


def test_requests_of_an_append() -> None:
    """What is paid for: whether somebody else has appended; head; then, waited for by nobody, tiles and checkpoint."""
    objects = Watched()
    ledger = created(objects, 10)
    objects.requests.clear()
    ledger.take_up()
    ledger.append(batch("x", 1))
    ledger.close()
    kinds = [request.split()[0] for request in objects.requests]
    assert kinds == ["get", "replace", "create", "create", "replace"]


def test_entries_that_are_read_next_are_read_together() -> None:
    objects = Watched()
    ledger = created(objects, 600)
    ledger.append([b"last"])
    ledger.close()
    with opened(objects) as ledger:
        objects.requests.clear()
        ledger.ahead([0, 1, 300, 600])
        assert sorted(objects.requests) == [
            f"get tile/{kind}/00{number}" for kind in ("0", "entries") for number in (0, 1)
        ]
        objects.requests.clear()
        assert [ledger.entry(index) for index in (1, 300, 600)] == [b"before 1", b"before 300", b"last"]
        assert not [request for request in objects.requests if "entries" in request]


def test_nothing_is_written_over() -> None:
    """Where something that this ledger did not write has the name of a tile, it stays, and nothing goes on from it."""
    objects = Watched()
    with created(objects, 3) as ledger:
        objects.objects["tile/0/000.p/4"] = b"somebody else's"
        assert ledger.append([b"x"]).size == 4
        assert shown(ledger) == 3
        with pytest.raises(LedgerInconsistent) as caught:
            ledger.append([b"y"])
        assert caught.value.code is Code.LEDGER_INCONSISTENT
        assert "tile/0/000.p/4" in caught.value.where
        assert objects.objects["tile/0/000.p/4"] == b"somebody else's"
        # Once the other is gone, what was committed is published, and the ledger goes on.
        del objects.objects["tile/0/000.p/4"]
        assert ledger.append([b"y"]).size == 5
    objects.check((3, [b"x", b"y"]))


def test_what_was_not_published_is_when_the_head_is_looked_at_again() -> None:
    """Nobody need append for it; and an append waits for it, without failing by what has failed before."""
    objects = Watched()
    faulty = FaultyObjects(objects)
    with created(faulty, 3) as ledger:
        for again in (ledger.take_up, lambda: ledger.append([b"y"])):
            faulty.arm(2)
            size = ledger.append([b"x"]).size
            assert shown(ledger) == size - 1
            again()
            assert shown(ledger) == ledger.size
    objects.check()


def test_what_was_not_published_is_without_anybody_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighbridge.verifier.ledger.bucket_storage._AGAIN", 0.01)
    objects = Watched()
    faulty = FaultyObjects(objects)
    with created(faulty, 3) as ledger:
        faulty.arm(2)
        ledger.append([b"x"])
        until = time.monotonic() + 10
        while len(objects.shown) < 3:
            assert time.monotonic() < until
            time.sleep(0.005)
    assert objects.check((3, [b"x"])) == 4


def test_what_another_process_has_committed_is_read_before_it_is_published() -> None:
    """And whoever reads it does not take it for what its own next append goes on from."""
    objects = Watched()
    faulty = FaultyObjects(objects)
    ledger, other = created(faulty, 250), opened(objects)
    faulty.arm(2)
    ledger.append(batch("x"))
    assert shown(ledger) == 250
    assert other.published().entry(259) == b"x 9"
    assert other.published().entry(0) == b"before 0"
    with pytest.raises(EnvironmentFault) as caught:
        other.append(batch("y"))
    assert caught.value.code is Code.LEDGER_LOCKED
    other.take_up()
    assert other.append(batch("y")).first_index == 260
    assert shown(other) == 270
    objects.check((250, batch("x")), (260, batch("y")))


def test_a_ledger_is_created_once_and_opened_where_there_is_one() -> None:
    objects = Watched()
    with pytest.raises(EnvironmentFault) as caught:
        opened(objects)
    assert caught.value.code is Code.FILE_UNREADABLE
    created(objects, 3).close()
    for gone in ((), ("writer/head",), ("checkpoint",)):
        for name in gone:
            del objects.objects[name]
        with pytest.raises(EnvironmentFault) as caught:
            created(objects)
        assert caught.value.code is Code.FILE_UNWRITABLE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data[:-1], Code.LEDGER_MALFORMED),
        (lambda data: b"x" + data, Code.LEDGER_MALFORMED),
        (lambda data: data.replace(b"\n2\n", b"\n3\n"), Code.LEDGER_SIGNATURE),
    ],
)
def test_a_head_that_was_altered(change: Callable[[bytes], bytes], code: Code) -> None:
    objects = Watched()
    created(objects, 2).close()
    objects.objects["writer/head"] = change(objects.objects["writer/head"])
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of two classes, told by the code
        opened(objects)
    assert getattr(caught.value, "code", None) is code


def test_tiles_of_a_head_that_was_altered_are_not_published() -> None:
    objects = Watched()
    created(objects, 2).close()
    head = CommittedHead.parse(objects.objects["writer/head"])
    files = {name: data[:-1] + b"!" for name, data in head.files.items()}
    objects.objects = {"writer/head": CommittedHead(head.note, files, bytes(16)).encode()}
    with pytest.raises(LedgerInconsistent):
        opened(objects)
    assert list(objects.objects) == ["writer/head"]


def test_a_ledger_put_back_is_refused() -> None:
    objects = Watched()
    ledger = created(objects, 2)
    before = dict(objects.objects)
    ledger.append([b"x"])
    objects.objects = before
    with pytest.raises(LedgerInconsistent) as caught:
        ledger.take_up()
    assert caught.value.code is Code.LEDGER_ROLLBACK


class Careless(MemoryObjects):
    """A service that does not know one of the two conditions."""

    def __init__(self, *, without: str) -> None:
        super().__init__()
        self._without = without

    def create(self, name: str, data: bytes, served: Served) -> str:
        if self._without == "If-None-Match":
            self.objects.pop(name, None)
        return super().create(name, data, served)

    def replace(self, name: str, data: bytes, served: Served, *, tag: str) -> str:
        if self._without == "If-Match":
            self.objects.pop(name, None)
            return super().create(name, data, served)
        return super().replace(name, data, served, tag=tag)


@pytest.mark.parametrize("without", ["If-None-Match", "If-Match"])
def test_a_service_without_conditions_is_refused(without: str) -> None:
    objects = Careless(without=without)
    with pytest.raises(EnvironmentFault) as caught:
        created(objects)
    assert caught.value.code is Code.STORAGE_UNFIT
    assert without in caught.value.message
    assert not objects.objects


def test_a_request_is_tried_again_until_it_is_known_what_became_of_it() -> None:
    """A head whose first answer was lost is not taken for somebody else's when the second try finds it."""
    for how in (Lost.NEVER, Lost.AT_ONCE):
        objects = Watched()
        faulty = FaultyObjects(objects, how=how)
        with Ledger.create(bucket(faulty, patience=Patience(tries=3)), origin=ORIGIN, key=KEY) as ledger:
            for at in range(1, 5):
                faulty.arm(at)
                assert ledger.append([b"x"]).size == at
        objects.check((0, [b"x"] * 4))


def test_a_try_that_arrives_after_the_next_one_was_carried_out() -> None:
    objects = Watched()
    faulty = FaultyObjects(objects, how=Lost.LATE)
    with Ledger.create(bucket(faulty, patience=Patience(tries=3)), origin=ORIGIN, key=KEY) as ledger:
        faulty.arm(1)
        ledger.append([b"x"])
        assert faulty.arrive() == [False]
        assert ledger.append([b"y"]).size == 2
    objects.check((0, [b"x", b"y"]))


@hypothesis.given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(data: bytes) -> None:
    try:
        head = CommittedHead.parse(data)
    except MalformedEvidence:
        return
    assert head.encode() == data


@hypothesis.given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 7), st.binary(max_size=40)), max_size=3))
def test_heads_are_what_they_were(signed: bytes, tiles: list[tuple[int, bytes]]) -> None:
    files = {tlog.tile_path(level, 1234, 5): data for level, data in tiles}
    head = CommittedHead(signed, files, bytes(16))
    assert CommittedHead.parse(head.encode()) == head


def test_the_names_of_a_head_are_tiles() -> None:
    for name in ("checkpoint", "tile/../x", "tile/0/000/", "writer/head", "tile/9/000", "tile/0/000\n"):
        with pytest.raises(MalformedEvidence) as caught:
            CommittedHead.parse(CommittedHead(b"", {name: b""}, bytes(16)).encode())
        assert caught.value.code is Code.FIELD_RANGE
