"""Fixtures that every test may use: where the data is that the repository does not carry, and how hypothesis runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer

    from corpus.arena import Arena
    from support.postgres import Server
    from support.sharing import Sharing
    from support.world import Engines
    from weighbridge.verifier.database import Address

ROOT = Path(__file__).resolve().parent.parent

# What is printed does not depend on where the tests are started: those that share the work are told of 80 columns.
os.environ["COLUMNS"] = "100"

# Continuous integration repeats the same examples, so that a red run is red again; at a desk every run tries new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True, database=None)
hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def pytest_plugin_registered(plugin_name: str) -> None:
    """Where several processes share the tests and coverage is asked for, modules count themselves what runs.

    Called for each plugin once this file is loaded, before the folders' own conftest files import what is counted.
    """
    if plugin_name == "_cov" and "PYTEST_XDIST_WORKER" in os.environ:
        from support import probes  # noqa: PLC0415 - coverage's weight, for those who need it

        probes.install()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Sharing | None:
    """How several processes share the tests."""
    if config.getoption("dist") != "loadscope":
        return None
    from support.sharing import Sharing as Made  # noqa: PLC0415 - only where they are shared

    return Made(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def vectors_dir() -> Path:
    """Captured evidence of real hardware, which is not ours to publish; see `tests/vectors/README.md`."""
    return _folder_named_by("WEIGHBRIDGE_VECTORS", "captured evidence")


@pytest.fixture(scope="session")
def telemetry_dir() -> Path:
    """Power traces of real machines, which are not ours to publish; see `tests/vectors/README.md`."""
    return _folder_named_by("WEIGHBRIDGE_TELEMETRY", "power traces")


@pytest.fixture(scope="session")
def opa_library() -> Path:
    """The folder in which OPA's library is unpacked."""
    folder = ROOT / ".peers" / "opa"
    if not folder.is_dir():
        pytest.skip("no OPA: run scripts/setup --peers")
    return folder


@pytest.fixture(scope="session")
def nvidia_wheel() -> Path:
    """NVIDIA's own verifier as a zip file: its reference data is read out of it, its code is never imported."""
    found = sorted((ROOT / ".data" / "wheels").glob("nv_local_gpu_verifier-2.7.3-*.whl"))
    if not found:
        pytest.fail("no reference wheel under .data/wheels: run scripts/setup")
    return found[0]


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Prepared policies for all worlds of this run."""
    from support.world import Engines as Shared  # noqa: PLC0415 - the verifier's whole weight, for those who need it

    shared = Shared()
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def quick_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, where there is one: half of a world's time is waiting for the disk."""
    memory = Path("/dev/shm")  # noqa: S108 - only the base of a private directory
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(prefix="weighbridge-", dir=base) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL of our own, running; whoever stops it starts it again."""
    from support import postgres as made  # noqa: PLC0415 - as above

    if made.programs() is None:
        pytest.skip("no PostgreSQL: run scripts/setup --peers")
    memory = Path("/dev/shm")  # noqa: S108 - only the base of a private directory
    server = made.Server.make(memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir()))
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """Where a store may be made, for tests of what holds of both kinds."""
    from weighbridge.verifier.database import SqliteAddress  # noqa: PLC0415 - as above

    if request.param == "sqlite":
        return SqliteAddress(tmp_path / "state.db")
    server: Server = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def arena(quick_dir: Path, engines: Engines) -> Iterator[Arena]:
    """Where worlds are made, and closed at the end."""
    from corpus.arena import Arena as Made  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        made = Made(Path(directory), engines)
        yield made
        made.close()


def _folder_named_by(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the folder with {what}")
    folder = Path(value)
    if not folder.is_dir():
        pytest.skip(f"{variable} names {value}, which is no folder: it should hold {what}")
    return folder
