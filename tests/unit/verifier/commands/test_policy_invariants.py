"""`weighbridge policy invariants`: what no policy can switch off, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from weighbridge.proto import strict
from weighbridge.verifier.cli import main
from weighbridge.verifier.invariants import GROUPS, INVARIANTS

if TYPE_CHECKING:
    import pytest


def test_people_read_groups_codes_and_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "invariants"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("No policy sees past a broken one of these, and none can switch one off.\n\nbinding and")
    assert "├─ chain: the window is the next one, and continues the chain of those before it\n" in out
    assert "│  ├─ else      WINDOW_SEQ, WINDOW_PREV\n" in out
    assert "│  └─ enforced  weighbridge.verifier.procedure, step 5\n" in out
    assert [line for line in out.splitlines() if line in GROUPS] == list(GROUPS)
    assert max(map(len, out.splitlines())) <= 100


def test_programs_read_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "invariants", "--json"]) == 0
    document = cast("dict[str, Any]", strict.json_decode(capsys.readouterr().out.encode(), what="it"))
    assert document["schema"] == "weighbridge/policy-invariants/v1"
    assert [item["name"] for item in document["invariants"]] == [item.name for item in INVARIANTS]
    chain = next(item for item in document["invariants"] if item["name"] == "chain")
    assert chain["codes"] == ["WINDOW_SEQ", "WINDOW_PREV"]
    assert chain["enforced"] == [{"module": "weighbridge.verifier.procedure", "steps": [5]}]
