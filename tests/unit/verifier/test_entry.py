"""Where the command lines begin: whoever interrupts them at once is answered, and sees no traceback."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier import cli, entry

if TYPE_CHECKING:
    from typing import Never


def interrupted(_: object = None) -> Never:
    raise KeyboardInterrupt


def test_the_command_line_is_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["weighbridge", "--version"])
    assert entry.main() == 0
    assert capsys.readouterr().out.startswith("weighbridge ")


def test_an_interrupt_while_it_is_loaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    loading = ModuleType("weighbridge.verifier.cli")
    vars(loading)["__getattr__"] = interrupted
    monkeypatch.setitem(sys.modules, loading.__name__, loading)
    assert entry.main() == ExitCode.ENVIRONMENT
    assert capsys.readouterr() == ("", "weighbridge: interrupted\n")


@pytest.mark.parametrize("part", ["parser", "_has_output", "metadata"])
def test_an_interrupt_while_the_grammar_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    if part == "metadata":
        monkeypatch.setattr("weighbridge.verifier.cli.metadata.version", interrupted)
    else:
        monkeypatch.setattr(cli, part, interrupted)
    assert cli.main(["anchors", "list"]) == ExitCode.ENVIRONMENT
    assert capsys.readouterr() == ("", "weighbridge: interrupted\n")


def test_an_interrupt_of_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("weighbridge.verifier.commands.anchors.load_anchors", interrupted)
    assert cli.main(["anchors", "list"]) == ExitCode.ENVIRONMENT
    assert capsys.readouterr() == ("", "weighbridge: interrupted\n")
