"""`weighbridge policy replay` as people run it: several processes, a line at a terminal, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from support.recorded import STRICT, record
from support.site import BIN, run
from weighbridge.proto.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.recorded import Recorded
    from support.world import Engines

# Enough to be still at it when somebody has seen the line.
MANY = 1600


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Recorded]:
    directory = quick_dir / "replayed-by-processes"
    directory.mkdir()
    recorded = record(directory, engines)
    (directory / "new.rego").write_text(STRICT)
    yield recorded
    recorded.world.close()
    shutil.rmtree(directory)


def test_several_processes_find_what_one_finds(made: Recorded) -> None:
    """Also while the verifier has the directory open."""
    command = ("weighbridge", "policy", "replay", made.state, "--policy", made.state / "new.rego", "--json")
    one, several = (run(*command, "--jobs", jobs) for jobs in (1, 3))
    assert one.status == several.status == ExitCode.DENIED
    assert (one.out, one.err) == (several.out, several.err)
    document = json.loads(one.out)
    assert (document["windows"], document["sessions"], one.err) == (10, 5, "")


def test_a_person_sees_how_far_it_is_and_can_stop_it(made: Recorded) -> None:
    bundle = made.bundle("affirmed")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            # A shell that starts tests in the background has them, and all that they start, ignore this signal.
            "env", "--default-signal=INT",
            str(BIN / "weighbridge"), "policy", "replay", *[str(bundle)] * MANY, "--policy", "insecure_development",
            "--anchors", str(made.state / "anchors.json"), "--jobs", "2",
        ],
        stdout=subprocess.PIPE, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        seen = b""
        while b"/s  " not in seen:
            seen += os.read(ours, 4096)
        # As a terminal does: to every process of the group.
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        # The last of them has let go of the terminal.
        with contextlib.suppress(OSError):
            while more := os.read(ours, 4096):
                seen += more
    finally:
        process.kill()
        os.close(ours)
    assert process.returncode == ExitCode.ENVIRONMENT
    assert " windows  " in seen.decode()
    assert "would change" in seen.decode()
    assert b"Traceback" not in seen
    lines = out.decode().splitlines()
    assert lines[0].startswith("INTERRUPTED: of the first ")
    assert lines[0].endswith(" windows, 0 would be judged otherwise by insecure_development")
    # Nobody is left. Python's own helper for processes goes when it sees that they have gone.
    deadline = time.monotonic() + 30
    while _is_there(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_there(process.pid)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
