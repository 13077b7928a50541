"""A log under watch: what is believed of it, what is refused, and that what is refused moves nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.logs import KEY, ORIGIN, PRIVATE, SECOND, START, Host, append, honest, served, write
from weighbridge.proto import limits, merkle, note, tlog
from weighbridge.proto.errors import (
    Code,
    EnvironmentFault,
    LedgerInconsistent,
    MalformedEvidence,
    NotAuthentic,
    WeighbridgeError,
)
from weighbridge.verifier.ledger.chains import Chains, Followed
from weighbridge.verifier.ledger.heads import ForkEvidence, Relation
from weighbridge.verifier.ledger.locked import LockedFile
from weighbridge.verifier.ledger.monitor import Look, Monitor
from weighbridge.verifier.ledger.source import open_source
from weighbridge.verifier.ledger.watched import Watched, load
from weighbridge.verifier.record import NO_DIGEST

SILENCE = 300 * SECOND
NOW = START + 60 * SECOND


@dataclass
class Watcher:
    """A monitor and what it remembers, in memory."""

    where: str
    key: note.NoteKey = KEY
    stall_ns: int | None = None
    seen: Watched | None = None
    kept: dict[str, bytes] = field(default_factory=dict)
    read: list[tuple[int, int]] = field(default_factory=list)

    def look(self, now_ns: int = NOW) -> Look:
        with contextlib.closing(open_source(self.where)) as source:
            monitor = Monitor(
                source,
                self.key,
                silence_ns=SILENCE,
                stall_ns=self.stall_ns,
                keep=self._keep,
                reading=lambda count, total: self.read.append((count, total)),
            )
            look = monitor.look(self.seen, now_ns=now_ns)
        self.seen = look.watched
        return look

    def refused(self) -> WeighbridgeError:
        """What a look ends with; it leaves no trace in what is remembered."""
        before = None if self.seen is None else self.seen.encode()
        with pytest.raises(WeighbridgeError) as refusal:
            self.look()
        assert before == (None if self.seen is None else self.seen.encode())
        return refusal.value

    def _keep(self, name: str, data: bytes) -> Path:
        self.kept[name] = data
        return Path(name)


def watching(directory: Path) -> Watcher:
    """Somebody who has seen the log as it is."""
    watcher = Watcher(str(directory))
    watcher.look()
    return watcher


def filler(count: int, *, first: int = 0) -> list[bytes]:
    """Entries that say nothing."""
    return [Host(at_ns=NOW + number).leaf("junk").encode() for number in range(first, first + count)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "log", honest("first"), filler(300))


def opened(data: bytes) -> tlog.VerifiedCheckpoint:
    return tlog.open_checkpoint(data, KEY, origin=ORIGIN)


def signed(size: int, root: bytes, *, origin: str = ORIGIN, key: Ed25519PrivateKey = PRIVATE) -> bytes:
    return note.sign(
        tlog.Checkpoint(origin, size, root).encode(),
        key=note.NoteKey(origin, key.public_key().public_bytes_raw()),
        signer=key.sign,
    )


# -- what is believed --------------------------------------------------------------------------------------------------


def test_a_log_that_grows(directory: Path) -> None:
    watcher = Watcher(str(directory))
    first = watcher.look()
    assert (first.before, first.watched.tree.size, first.is_news, first.events) == (0, 305, True, ())
    assert first.watched.tree.root == opened((directory / "checkpoint").read_bytes()).root
    assert watcher.read == [(256, 305), (49, 305)]
    assert watcher.look().is_news is False
    append(directory, honest("second", at_ns=NOW))
    append(directory, filler(500, first=30 * SECOND))
    second = watcher.look()
    assert (second.before, second.watched.tree.size, second.events) == (305, 810, ())


def test_new_entries_alone_are_read(directory: Path) -> None:
    """Not even a tile: what was remembered of the tree is enough."""
    with served(directory) as server:
        watcher = Watcher(server.address)
        watcher.look()
        server.asked.clear()
        append(directory, filler(1, first=300))
        watcher.look()
        assert server.asked == ["/log/checkpoint", "/log/tile/entries/001.p/50"]


def test_a_server_shows_what_a_directory_does(directory: Path) -> None:
    with served(directory) as server:
        shown = [Watcher(where).look().watched.encode() for where in (server.address, str(directory))]
        assert shown[0] == shown[1]


def test_a_partial_bundle_that_has_become_full(directory: Path) -> None:
    """The checkpoint was read before, the bundle after the writer had tidied up."""
    earlier = (directory / "checkpoint").read_bytes()
    append(directory, filler(300))
    (directory / "checkpoint").write_bytes(earlier)
    assert watching(directory).seen is not None


@settings(max_examples=6, deadline=None)
@given(batches=st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_any_growth_is_followed(tmp_path_factory: pytest.TempPathFactory, batches: list[int]) -> None:
    directory = write(tmp_path_factory.mktemp("log") / "l")
    watcher = Watcher(str(directory))
    for batch in batches:
        if batch:
            append(directory, filler(batch))
        watcher.look()
        assert watcher.seen is not None
        assert Watched.parse(watcher.seen.encode(), KEY, silence_ns=SILENCE).encode() == watcher.seen.encode()
    assert watcher.seen is not None
    assert watcher.seen.tree.size == sum(batches)


def test_what_leaves_tell_is_told_once(directory: Path) -> None:
    host = Host("gap", at_ns=NOW)
    entries = [host.enrol(), *host.windows(3)]
    watcher = watching(directory)
    append(directory, [*entries[:2], entries[3], b"no leaf"])
    assert [event.kind for event in watcher.look(host.at_ns).events] == ["gap", "unreadable"]
    assert watcher.look(host.at_ns).events == ()
    (silent,) = watcher.look(host.at_ns + SILENCE + SECOND).events
    assert (silent.kind, silent.session) == ("silent", host.session)


def test_a_log_that_stands_still(directory: Path) -> None:
    watcher = Watcher(str(directory), stall_ns=60 * SECOND)
    watcher.look()
    assert watcher.look(NOW + 60 * SECOND).events == ()
    look = watcher.look(NOW + 61 * SECOND)
    assert ([event.kind for event in look.events], look.is_news) == (["stalled"], True)
    assert watcher.look(NOW + 90 * SECOND).events == ()
    append(directory, filler(1))
    watcher.look(NOW + 100 * SECOND)
    assert [event.kind for event in watcher.look(NOW + 200 * SECOND).events] == ["stalled"]


# -- two histories -----------------------------------------------------------------------------------------------------


def relation_of(evidence: bytes) -> Relation:
    """What the evidence shows to somebody who has the key and nothing else."""
    parsed = ForkEvidence.parse(evidence)
    assert parsed.encode() == evidence
    return parsed.relation(opened(parsed.first), opened(parsed.second))


@pytest.mark.parametrize("more", [0, 1, 400], ids=["same size", "larger", "much larger"])
def test_a_fork(directory: Path, tmp_path: Path, more: int) -> None:
    """A71: the same key signs another history: entry 7 is another one."""
    watcher = watching(directory)
    entries = [*honest("first"), *filler(300)]
    entries[7] = Host("another").enrol()
    watcher.where = str(write(tmp_path / "other", [*entries, *filler(more)]))
    error = watcher.refused()
    assert (type(error), error.code) == (LedgerInconsistent, Code.LEDGER_FORK)
    ((name, evidence),) = watcher.kept.items()
    assert name.startswith("fork-")
    assert relation_of(evidence).word == "forked"
    # Seen again, it is refused again, and kept once.
    assert watcher.refused().code is Code.LEDGER_FORK
    assert watcher.kept == {name: evidence}


def test_a_fork_that_is_smaller(directory: Path, tmp_path: Path) -> None:
    """Whose history is the larger one does not matter, as long as its tiles can still be had."""
    watcher = watching(directory)
    other = write(tmp_path / "other", filler(100))
    (directory / "checkpoint").write_bytes((other / "checkpoint").read_bytes())
    assert watcher.refused().code is Code.LEDGER_FORK
    (evidence,) = watcher.kept.values()
    assert relation_of(evidence).word == "forked"


def test_a_fork_whose_tiles_are_withheld(directory: Path, tmp_path: Path) -> None:
    """Nobody can show that it is one; nobody accepts it either, and both heads are kept."""
    watcher = watching(directory)
    other = write(tmp_path / "other", filler(400))
    shutil.rmtree(other / "tile/0")
    watcher.where = str(other)
    error = watcher.refused()
    assert (type(error), error.code) == (LedgerInconsistent, Code.LEDGER_INCONSISTENT)
    ((name, evidence),) = watcher.kept.items()
    assert name.startswith("unshown-")
    assert relation_of(evidence).word == "open"


def test_rollback(directory: Path) -> None:
    """An earlier state is the same history: no fork, and no news either."""
    earlier = (directory / "checkpoint").read_bytes()
    append(directory, filler(5))
    watcher = watching(directory)
    (directory / "checkpoint").write_bytes(earlier)
    error = watcher.refused()
    assert (type(error), error.code) == (LedgerInconsistent, Code.LEDGER_ROLLBACK)
    assert "an earlier state of the same tree" in error.message
    assert watcher.kept == {}


def test_a_log_that_was_begun_anew(directory: Path, tmp_path: Path) -> None:
    watcher = watching(directory)
    watcher.where = str(write(tmp_path / "new"))
    assert watcher.refused().code is Code.LEDGER_ROLLBACK


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_entries_altered_in_a_tree_that_only_grew(directory: Path) -> None:
    """The hash tiles tell it from a fork."""
    watcher = watching(directory)
    append(directory, filler(3))
    file = directory / "tile/entries/001.p/52"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    error = watcher.refused()
    assert (error.code, watcher.kept) == (Code.LEDGER_INCONSISTENT, {})
    assert "which has only grown" in error.message


def test_the_first_look_demands_the_signed_root_too(directory: Path) -> None:
    file = directory / "tile/entries/000"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    error = Watcher(str(directory)).refused()
    assert (error.code, error.message) == (Code.LEDGER_INCONSISTENT, "the entries do not lead to the signed root")


def refusals() -> dict[str, tuple[Callable[[Path], object], type[WeighbridgeError], Code]]:
    other = Ed25519PrivateKey.generate()
    checkpoint = "checkpoint"
    bundle = "tile/entries/001.p/50"
    return {
        "no checkpoint": (lambda log: (log / checkpoint).unlink(), EnvironmentFault, Code.FILE_UNREADABLE),
        "a directory": (_directory_instead, EnvironmentFault, Code.FILE_UNREADABLE),
        "empty": (lambda log: (log / checkpoint).write_bytes(b""), MalformedEvidence, Code.LEDGER_MALFORMED),
        "huge": (
            lambda log: (log / checkpoint).write_bytes(bytes(limits.CHECKPOINT_MAX + 1)),
            MalformedEvidence,
            Code.TOO_LARGE,
        ),
        "another key": (
            lambda log: (log / checkpoint).write_bytes(signed(400, bytes(32), key=other)),
            NotAuthentic,
            Code.LEDGER_SIGNATURE,
        ),
        "another log": (
            lambda log: (log / checkpoint).write_bytes(signed(400, bytes(32), origin="ledger.example/other")),
            NotAuthentic,
            Code.LEDGER_SIGNATURE,
        ),
        "no entries": (lambda log: (log / bundle).unlink(), LedgerInconsistent, Code.LEDGER_INCONSISTENT),
        "entries cut short": (
            lambda log: (log / bundle).write_bytes((log / bundle).read_bytes()[:-1]),
            LedgerInconsistent,
            Code.LEDGER_MALFORMED,
        ),
        "entries too large": (
            lambda log: _sparse(log / bundle, tlog.BUNDLE_MAX + 1),
            LedgerInconsistent,
            Code.LEDGER_MALFORMED,
        ),
    }


def _directory_instead(log: Path) -> None:
    (log / "checkpoint").unlink()
    (log / "checkpoint").mkdir()


def _sparse(file: Path, size: int) -> None:
    with file.open("wb") as stream:
        stream.truncate(size)


@pytest.mark.parametrize("name", refusals())
def test_refusals(directory: Path, name: str) -> None:
    watcher = watching(directory)
    append(directory, filler(1))
    damage, kind, code = refusals()[name]
    damage(directory)
    error = watcher.refused()
    assert (type(error), error.code) == (kind, code)


def test_a_pipe_is_no_file(directory: Path) -> None:
    """Opening it would wait for ever."""
    (directory / "checkpoint").unlink()
    os.mkfifo(directory / "checkpoint")
    assert Watcher(str(directory)).refused().code is Code.FILE_UNREADABLE


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watched]:
    """A log, and what somebody remembers of it as it was before it grew."""
    directory = write(tmp_path_factory.mktemp("grown") / "log", honest("first"), filler(20))
    seen = watching(directory).seen
    assert seen is not None
    append(directory, filler(250))
    return directory, seen


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_alteration_of_any_file_is_accepted(
    grown: tuple[Path, Watched], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is done to the files: what is remembered afterwards is the signed tree, or what it was before."""
    directory, seen = grown
    root = opened((directory / "checkpoint").read_bytes()).root
    copy = tmp_path_factory.mktemp("copy") / "log"
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("writer"))
    files = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    file = copy / data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    match data.draw(st.sampled_from(["flip", "cut", "extend", "swap", "remove"])):
        case "flip":
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        case "extend":
            content += data.draw(st.binary(min_size=1, max_size=40))
        case "swap":
            content = bytearray((copy / data.draw(st.sampled_from(files))).read_bytes())
        case _:
            content = bytearray()
    if content:
        file.write_bytes(content)
    else:
        file.unlink()
    for before in (seen, None):
        watcher = Watcher(str(copy), seen=before)
        try:
            watcher.look()
        except WeighbridgeError:
            assert watcher.seen is before
        else:
            assert watcher.seen is not None
            assert watcher.seen.tree.root == root


# -- what is remembered ------------------------------------------------------------------------------------------------


def remembered(directory: Path) -> Watched:
    host = Host("open", at_ns=NOW)
    entries = [host.enrol(), *host.windows(2)]
    append(directory, [*entries, Host("not begun", at_ns=host.at_ns).enrol()])
    seen = watching(directory).seen
    assert seen is not None
    return seen


def test_what_is_remembered_is_read_back(directory: Path, tmp_path: Path) -> None:
    seen = remembered(directory)
    assert [followed.seq for followed in seen.chains.sessions.values()] == [2, 0]
    assert len(seen.chains.ended) == 1
    with LockedFile(tmp_path / "state") as file:
        assert load(file, KEY, silence_ns=SILENCE) is None
        file.replace(seen.encode())
        again = load(file, KEY, silence_ns=SILENCE)
    assert again is not None
    assert (again.tree, again.chains, again.grew_ns, again.stalled) == (
        seen.tree,
        seen.chains,
        seen.grew_ns,
        seen.stalled,
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_spelling_is_refused(grown: tuple[Path, Watched], data: st.DataObject) -> None:
    content = bytearray(grown[1].encode())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content.insert(at, data.draw(st.sampled_from(list(b' \n0"-'))))
    # A digit of a time may be another one; whatever is accepted has one spelling.
    with contextlib.suppress(WeighbridgeError):
        assert Watched.parse(bytes(content), KEY, silence_ns=SILENCE).encode() == content


@given(data=st.binary(max_size=200))
def test_parsing_raises_nothing_else(data: bytes) -> None:
    for parse in (lambda: Watched.parse(data, KEY, silence_ns=1), lambda: ForkEvidence.parse(data)):
        with pytest.raises(MalformedEvidence):
            parse()


def replaced(seen: Watched, old: str, new: str) -> bytes:
    text = seen.encode().decode()
    assert old in text
    return text.replace(old, new, 1).encode()


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"grew_ns":1', '"grew_ns":-1', Code.LEDGER_MALFORMED),
        ('"stalled":false', '"stalled":0', Code.LEDGER_MALFORMED),
        ('"tree":["', '"tree":["' + "00" * 32 + '","', Code.LEDGER_MALFORMED),
        (" - ", " 7 ", Code.LEDGER_MALFORMED),
        (" - ", " ", Code.LEDGER_MALFORMED),
        (" heard", " loud", Code.LEDGER_MALFORMED),
        ('"ended":["', '"ended":[7,"', Code.LEDGER_MALFORMED),
        ('"ended":["', '"ended":["' + "00" * 16 + '","', Code.LEDGER_MALFORMED),
        ('"ended":["', '"ended":["' + "00" * 16 + ' 9223372036854775808","', Code.FIELD_RANGE),
        ('"ended":["', '"ended":["' + "00" * 15 + ' 7","', Code.FIELD_RANGE),
        ("ledger-monitor/v1", "ledger-monitor/v2", Code.LEDGER_MALFORMED),
    ],
)
def test_refused_memories(directory: Path, tmp_path: Path, old: str, new: str, code: Code) -> None:
    with LockedFile(tmp_path / "state") as file:
        file.replace(replaced(remembered(directory), old, new))
        with pytest.raises(MalformedEvidence) as refusal:
            load(file, KEY, silence_ns=SILENCE)
    assert refusal.value.code is code
    assert "state" in refusal.value.where


def test_a_memory_of_another_log(directory: Path) -> None:
    other = note.NoteKey(ORIGIN, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    with pytest.raises(NotAuthentic) as refusal:
        Watched.parse(remembered(directory).encode(), other, silence_ns=SILENCE)
    assert refusal.value.code is Code.LEDGER_SIGNATURE


def test_a_memory_of_another_tree(directory: Path) -> None:
    seen = remembered(directory)
    tree = merkle.CompactRange(seen.tree.size, (bytes(32), *seen.tree.hashes[1:]))
    with pytest.raises(MalformedEvidence, match="another tree"):
        Watched.parse(Watched(seen.checkpoint, tree, seen.chains, 0, stalled=False).encode(), KEY, silence_ns=SILENCE)


def test_many_sessions_are_remembered(directory: Path) -> None:
    """A hundred thousand take 13 MB, without a bracket for each."""
    seen = watching(directory).seen
    assert seen is not None
    sessions = {
        number.to_bytes(16, "big"): Followed(7, bytes(31) + b"x", NO_DIGEST, START, silent=False)
        for number in range(20_000)
    }
    full = Watched(seen.checkpoint, seen.tree, Chains(SILENCE, sessions), START, stalled=False)
    data = full.encode()
    assert len(data) < 140 * len(sessions)
    assert Watched.parse(data, KEY, silence_ns=SILENCE).chains == full.chains


def test_one_monitor_at_a_time(tmp_path: Path) -> None:
    with LockedFile(tmp_path / "state"), pytest.raises(EnvironmentFault) as refusal, LockedFile(tmp_path / "state"):
        pass
    assert refusal.value.code is Code.STATE_LOCKED
    with pytest.raises(RuntimeError):
        LockedFile(tmp_path / "state").replace(b"")


def test_files_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as refusal, LockedFile(tmp_path / "nowhere/state"):
        pass
    assert refusal.value.code is Code.FILE_UNWRITABLE
    (tmp_path / "state").mkdir()
    with LockedFile(tmp_path / "state") as file:
        with pytest.raises(EnvironmentFault):
            file.read(limit=1)
        with pytest.raises(EnvironmentFault):
            file.replace(b"")
        kept = file.keep("large", b"12")
    with LockedFile(kept) as file, pytest.raises(MalformedEvidence) as large:
        file.read(limit=1)
    assert large.value.code is Code.TOO_LARGE
