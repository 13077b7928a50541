"""``--policy NAME``: what comes with Weighbridge is found by its name, and whoever misspells it is told the names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from weighbridge.policy.policy_set import LIBRARY, SHIPPED
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.commands.outcome import load_policy
from weighbridge.verifier.commands.policy_evidence import policy_named

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = Reference({}, {}, {})


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_by_its_name(name: str) -> None:
    for found in (load_policy([name], REFERENCE), policy_named([name], REFERENCE)):
        assert [module.name for module in found.modules] == [LIBRARY, f"weighbridge/{name}.rego"]


@pytest.mark.parametrize("names", [["prodution"], ["lib"], ["production", "audit_only"]])
def test_another_name_is_a_file_that_is_not_there(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for find in (load_policy, policy_named):
        with pytest.raises(EnvironmentFault) as caught:
            _ = find(names, REFERENCE)
        assert caught.value.code is Code.FILE_UNREADABLE
        assert all(name in (caught.value.hint or "") for name in SHIPPED)
