"""The cache of measurements: resumes, misses whatever changed, and is never an error."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.gguf import real
from fakes.models import flip_bit, write_model
from weighbridge.attester.weights import cache as cache_module
from weighbridge.attester.weights import measure
from weighbridge.attester.weights.cache import Cache, default_path
from weighbridge.attester.weights.directory import walk
from weighbridge.proto.errors import EnvironmentFault
from weighbridge.proto.manifest import Manifest


def later() -> int:
    """A clock by which everything written by now has settled."""
    return time.time_ns() + 10**10


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


class Run:
    """A measurement with a cache, and what it read and said."""

    def __init__(self, model: Path, path: Path, clock: Callable[[], int] = later, algorithm: str = "sha256") -> None:
        self.notices: list[str] = []
        self.read = 0
        self.model, self.path, self.clock, self.algorithm = model, path, clock, algorithm

    def __call__(self) -> Manifest:
        def progress(_done: int, total: int) -> None:
            self.read = total

        with Cache(self.path, notice=self.notices.append, clock=self.clock) as cache:
            return measure(self.model, cache=cache, algorithm=self.algorithm, progress=progress)  # type: ignore[arg-type]


def run(model: Path, path: Path, clock: Callable[[], int] = later, algorithm: str = "sha256") -> tuple[Manifest, int]:
    """The manifest, and the bytes that were read for it."""
    measurement = Run(model, path, clock, algorithm)
    manifest = measurement()
    assert measurement.notices == []
    return manifest, measurement.read


def test_second_measurement_reads_nothing_and_is_the_same(model: Path, tmp_path: Path) -> None:
    (model / "extra" / "model.gguf").write_bytes(real().data())
    (model / "empty").touch()
    first, read = run(model, tmp_path / "cache")
    assert read == first.size
    second, read = run(model, tmp_path / "cache")
    assert (second, read) == (first, 0)
    assert second == measure(model)


def test_changed_file_is_read_again_and_only_that(model: Path, tmp_path: Path) -> None:
    """Same size and name: what changes is the time, which no one can set back for the inode."""
    run(model, tmp_path / "cache")
    weights = model / "model.safetensors"
    times = weights.stat()
    flip_bit(weights, -1)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    manifest, read = run(model, tmp_path / "cache")
    assert read == weights.stat().st_size
    assert manifest == measure(model)


def test_other_file_of_the_same_times_is_read_again(model: Path, tmp_path: Path) -> None:
    config = model / "config.json"
    os.utime(config, (1, 1))
    run(model, tmp_path / "cache")
    content = config.read_bytes()
    config.rename(model.parent / "old")
    config.write_bytes(content.replace(b"1", b"2"))
    os.utime(config, (1, 1))
    manifest, read = run(model, tmp_path / "cache")
    assert read == len(content)
    assert manifest == measure(model)


def test_file_just_written_is_not_kept(model: Path, tmp_path: Path) -> None:
    """A second change might fall into the same tick of the clock."""
    _, read = run(model, tmp_path / "cache", clock=time.time_ns)
    _, again = run(model, tmp_path / "cache", clock=time.time_ns)
    assert read == again > 0


def test_file_of_the_future_is_not_kept(model: Path, tmp_path: Path) -> None:
    future = time.time() + 10**6
    os.utime(model / "config.json", (future, future))
    run(model, tmp_path / "cache")
    _, read = run(model, tmp_path / "cache")
    assert read == (model / "config.json").stat().st_size


def test_algorithms_are_kept_apart(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "cache")
    manifest, read = run(model, tmp_path / "cache", algorithm="blake3")
    assert read == manifest.size
    assert manifest == measure(model, algorithm="blake3")


def test_one_file_under_two_names_is_laid_out_by_its_name(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "cache")
    os.link(model / "model.safetensors", model / "weights.bin")
    run(model, tmp_path / "cache")
    manifest, _ = run(model, tmp_path / "cache")
    assert {file.path: file.kind for file in manifest.files}["weights.bin"] == "plain"
    assert manifest == measure(model)


def test_interrupted_measurement_goes_on_where_it_was(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for index in range(10):
        (model / f"{index}").write_bytes(bytes(3_000_000))

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    notices: list[str] = []
    with pytest.raises(KeyboardInterrupt), Cache(tmp_path / "cache", notice=notices.append, clock=later) as cache:
        measure(model, cache=cache, progress=interrupt)
    manifest, read = run(model, tmp_path / "cache")
    assert read <= 21_000_000
    assert manifest == measure(model)


def test_killed_measurement_keeps_what_was_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_FLUSH_INTERVAL_S", -1)
    killed = Cache(tmp_path / "cache", notice=pytest.fail, clock=later)
    measure(model, cache=killed)
    _, read = run(model, tmp_path / "cache")
    assert read == 0
    killed.close()


def test_file_that_changes_meanwhile_is_refused_though_the_cache_knows_it(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "cache")
    (model / "new.bin").write_bytes(b"new")

    def change(_done: int, _total: int) -> None:
        (model / "config.json").write_text("changed\n")

    with (
        Cache(tmp_path / "cache", notice=pytest.fail, clock=later) as cache,
        pytest.raises(EnvironmentFault, match="WEIGHTS_CHANGED"),
    ):
        measure(model, cache=cache, progress=change)


def write_text(path: Path) -> None:
    path.write_text("the notes of the user, more than a hundred bytes of them\n" * 20)


def write_other_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE entries (id INTEGER)")
    database.close()


def write_newer(path: Path) -> None:
    run(path.parent / "model", path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def cut(path: Path) -> None:
    run(path.parent / "model", path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("spoil", [write_text, write_other_database, write_newer, cut, Path.mkdir])
def test_what_is_no_cache_is_set_aside_and_left_alone(
    model: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    path = tmp_path / "cache"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    measurement = Run(model, path)
    assert measurement() == measure(model)
    (notice,) = measurement.notices
    assert str(path) in notice
    assert (path.read_bytes() if path.is_file() else None) == before


def test_place_that_cannot_be_written_is_a_notice(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    measurement = Run(model, tmp_path / "file" / "cache")
    assert measurement() == measure(model)
    assert len(measurement.notices) == 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET value = x'00'",
        "UPDATE entries SET value = 'text', sha256 = 'text'",
        "UPDATE entries SET value = NULL",
        "UPDATE entries SET sha256 = x'00'",
        # Each by itself is as it was written.
        "UPDATE entries SET value = (SELECT value FROM entries LIMIT 1), sha256 = (SELECT sha256 FROM entries LIMIT 1)",
    ],
)
def test_entry_that_lost_bits_is_no_entry(model: Path, tmp_path: Path, change: str) -> None:
    run(model, tmp_path / "cache")
    with sqlite3.connect(tmp_path / "cache") as database:
        database.execute(change)
    database.close()
    manifest, read = run(model, tmp_path / "cache")
    assert manifest == measure(model)
    assert read > 0


def test_entry_of_no_manifest_is_no_entry(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(model, tmp_path / "cache")
    monkeypatch.setattr(cache_module, "_check", lambda _key, _value: b"same")
    with sqlite3.connect(tmp_path / "cache") as database:
        database.execute("UPDATE entries SET value = x'00', sha256 = x'73616d65'")
    database.close()
    manifest, read = run(model, tmp_path / "cache")
    assert read == manifest.size


def test_table_that_is_gone_meanwhile_is_a_notice(model: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    with Cache(tmp_path / "cache", notice=notices.append, clock=later) as cache:
        assert cache.get(walk(model)[0], "sha256") is None
        with sqlite3.connect(tmp_path / "cache") as database:
            database.execute("DROP TABLE entries")
        database.close()
        assert measure(model, cache=cache) == measure(model)
    assert len(notices) == 1


def test_table_that_is_gone_at_the_end_is_a_notice(model: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    with Cache(tmp_path / "cache", notice=notices.append, clock=later) as cache:
        measure(model, cache=cache)
        with sqlite3.connect(tmp_path / "cache") as database:
            database.execute("DROP TABLE entries")
        database.close()
    assert len(notices) == 1


def test_other_measurement_that_holds_the_lock_costs_a_notice_at_most(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_LOCK_WAIT_S", 0.01)
    run(model, tmp_path / "cache", algorithm="blake3")
    database = sqlite3.connect(tmp_path / "cache", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    measurement = Run(model, tmp_path / "cache")
    assert measurement() == measure(model)
    database.execute("ROLLBACK")
    database.close()
    assert len(measurement.notices) == 1


def test_cache_is_bounded(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_ENTRIES_MAX", 2)
    run(model, tmp_path / "cache")
    assert count(tmp_path / "cache") == 2
    monkeypatch.setattr(cache_module, "_BYTES_MAX", 1)
    run(model, tmp_path / "cache")
    assert count(tmp_path / "cache") == 0


def count(path: Path) -> int:
    database = sqlite3.connect(path)
    (number,) = database.execute("SELECT count(*) FROM entries").fetchone()
    database.close()
    return int(number)


def test_only_its_owner_can_read_or_write_it(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "made" / "cache"
    run(model, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_closed_cache_knows_nothing_and_keeps_nothing(model: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", notice=pytest.fail, clock=later)
    manifest = measure(model, cache=cache)
    cache.close()
    cache.close()
    file = walk(model)[0]
    assert cache.get(file, "sha256") is None
    cache.put(file, "sha256", manifest.files[0])


def test_no_session_knows_of_a_cache() -> None:
    """What measures for a session has none to pass: not even its module is loaded."""
    code = (
        "import sys, weighbridge.attester.workload.server, weighbridge.attester.session;"
        "sys.exit('weighbridge.attester.weights.cache' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_small_files_may_be_left_out(model: Path, tmp_path: Path) -> None:
    smallest = (model / "model.safetensors").stat().st_size
    for size, kept in ((smallest + 1, False), (smallest, True)):
        with Cache(tmp_path / "cache", notice=pytest.fail, smallest=size, clock=later) as cache:
            measure(model, cache=cache)
        assert (tmp_path / "cache").exists() == kept
    assert count(tmp_path / "cache") == 1


def test_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert default_path() is None


@pytest.mark.parametrize(("value", "base"), [("/x", "/x"), ("", "~/.cache"), ("relative", "~/.cache")])
def test_default_place_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, value: str, base: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert default_path() == Path(base).expanduser() / "weighbridge" / "measurements.sqlite"
