"""docs/operations.md is true: its commands, run one after the other in an empty directory, lead where it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from integration.test_operating import commands
from support import object_storage
from support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.object_storage import ObjectStorage
    from support.postgres import Server

_PART: Final = "\n## Replicas\n"
_PORT: Final = re.compile(r"(?<=127\.0\.0\.1:)\d{4}\b")
_LIMIT_S: Final = 120


def test_one_machine(document: str, tmp_path: Path) -> None:
    said = run(document.split(_PART, maxsplit=1)[0], tmp_path, {})
    for line in (
        "gate-eu-1 listed",
        "0 failed, 2 warnings",
        '{"ready":true,"reasons":[]}',
        '{"status":"ok"}',
        '"issuer": "ledger.example/windows"',
        '{"active":false}',
        "admitted peer ",
        "announced ",
        "stopped; the ledger has ",
    ):
        assert line in said
    assert "weighbridge_" in (tmp_path / "metrics.txt").read_text()
    assert '"kid"' in (tmp_path / "jwks.json").read_text()


def test_replicas(document: str, tmp_path: Path, postgres: Server, storage: ObjectStorage) -> None:
    requirements = next(text for text in commands(document) if text.startswith("cat >requirements.json"))
    reference = next(text for text in commands(document) if text.startswith("cat >reference.json"))
    environment = {
        **storage.environment(),
        "BUCKET": f"s3://private/operations-{os.getpid()}",
        "DATABASE": postgres.database().url,
    }
    before = "\n".join(f"```console\n$ {text}\n```\n" for text in (requirements, reference))
    said = run(before + document.split(_PART)[1], tmp_path, environment)
    assert said.count('{"ready":true,"reasons":[]}') >= 3
    assert "no sessions" in said


@pytest.fixture
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    if not object_storage.PROGRAM.exists():
        pytest.skip(object_storage.ABSENT)
    with object_storage.running(tmp_path_factory.mktemp("storage")) as running:
        yield running


@pytest.fixture
def document(root: Path) -> str:
    return (root / "docs" / "operations.md").read_text(encoding="utf-8")


def run(document: str, directory: Path, environment: Mapping[str, str]) -> str:
    """What the commands of ``document`` print, with other ports than there."""
    given = "\n".join(commands(document))
    ports = dict.fromkeys(_PORT.findall(given))
    numbers = dict(zip(ports, free_ports(len(ports)), strict=True))
    given = _PORT.sub(lambda found: str(numbers[found[0]]), given)
    # However it ends, its jobs end with it.
    script = f"set -eu -o pipefail -m\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{given}\n"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=directory,
            env={**os.environ, **environment, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"not done after {_LIMIT_S} s: {late.stdout!r} {late.stderr!r}")
    logs = "".join(path.read_text() for path in sorted(directory.glob("*.log")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return done.stdout
