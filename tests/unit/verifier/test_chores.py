"""What runs beside the answers: whoever cannot be told anything ends nothing, and what has failed ends the service."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, NoReturn
from unittest import mock

import pytest

from support.service import GENEROUS, Authority, Served
from support.world import World
from weighbridge.verifier import notices, service
from weighbridge.verifier.parties_watch import PartiesWatch
from weighbridge.verifier.service import Options

if TYPE_CHECKING:
    from pathlib import Path

    from support.world import Engines


def write(path: Path, *names: str) -> None:
    parties = [{"name": name, "key": name * 64, "tenants": ["t"], "audiences": ["x"]} for name in names]
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"schema": "weighbridge/relying-parties/v1", "relying_parties": parties}))
    new.rename(path)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("I/O operation on closed file")])
def test_nobody_reads_what_is_noted(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", mock.Mock(write=mock.Mock(side_effect=error)))
    notices.note("a line")
    notices.warn("a line")


def test_a_chore_that_fails_ends_the_service(
    tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: str) -> NoReturn:
        raise ZeroDivisionError("nobody is told")

    monkeypatch.setattr(service, "_PARTIES_PERIOD", 0.02)
    path = tmp_path / "parties.json"
    write(path, "a", "b")
    ending = asyncio.Event()
    world = World.make(tmp_path, engines=engines)
    authority = Authority(tmp_path / "authority")
    options = Options(bounds=GENEROUS, draining=ending.set)
    try:
        with (  # noqa: PT012 - it is leaving the block that raises
            pytest.raises(ZeroDivisionError),
            Served(world, authority, parties=PartiesWatch(path, report=fail), options=options) as served,
        ):
            write(path, "a")
            served.run(asyncio.wait_for(ending.wait(), 10))
    finally:
        world.close()
    assert "the service ends, for a part of it has failed: ZeroDivisionError" in capsys.readouterr().err
