"""A bundle verified where there is no network at all: in a namespace that has none, and by the command as installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from corpus.arena import Arena
from corpus.bundle import believed, export

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import Engines

# Where a user may not make namespaces, nothing in the process may make a socket instead; its children are pipes' ends.
_GUARD: Final = """
import socket, sys
class Refused(socket.socket):
    def __init__(self, *arguments, **named):
        raise SystemExit("a socket was made")
socket.socket = socket.SocketType = Refused
try:
    socket.create_connection(("127.0.0.1", 1))
except SystemExit:
    pass
else:
    sys.exit("the guard guards nothing")
from weighbridge.verifier.cli import main
sys.exit(main(sys.argv[1:]))
"""
_PROGRAM: Final = str(Path(sys.executable).parent / "weighbridge")


@pytest.fixture(scope="module")
def files(quick_dir: Path, engines: Engines) -> Iterator[Path]:
    """A directory with ``session.wb`` and ``anchors.json``."""
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        arena = Arena(Path(directory), engines)
        world = arena.settled(3)
        world.verifier.close(world.host.session, peer=world.host.peer)
        (Path(directory) / "session.wb").write_bytes(export(world).encode())
        (Path(directory) / "anchors.json").write_bytes(believed(world).encode())
        arena.close()
        yield Path(directory)


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_no_network_is_needed(files: Path) -> None:
    verify = ["verify", "bundle", str(files / "session.wb"), "--anchors", str(files / "anchors.json")]
    empty = ["unshare", "--user", "--map-root-user", "--net"]
    interfaces = ran(*empty, "cat", "/proc/net/dev")
    if interfaces.returncode == 0:
        # Two lines of heading and the loopback, which is down.
        assert [line.split(":")[0].strip() for line in interfaces.stdout.splitlines()[2:]] == ["lo"]
        done = ran(*empty, _PROGRAM, *verify)
    else:
        done = ran(sys.executable, "-c", _GUARD, *verify)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ADMITTED: session ")


def test_the_guard_lets_it_through_as_well(files: Path) -> None:
    """What stands in for a namespace is not weaker because it never runs here."""
    arguments = ("verify", "bundle", str(files / "session.wb"), "--anchors", str(files / "anchors.json"), "--json")
    done = ran(sys.executable, "-c", _GUARD, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"outcome": "admitted"' in done.stdout
