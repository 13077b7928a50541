"""Short commands are quick: what they do not need is not loaded."""

from __future__ import annotations

import subprocess
import sys

from weighbridge.verifier import cli

_LOADED = "import sys; from weighbridge.verifier import cli; cli.parser({words!r}); print(*sys.modules)"


def modules(*words: str) -> set[str]:
    code = _LOADED.format(words=list(words))
    return set(subprocess.run([sys.executable, "-Ic", code], check=True, capture_output=True, text=True).stdout.split())


def test_a_command_loads_its_own_code_alone() -> None:
    loaded = modules("model", "show", "policy.json")
    assert "weighbridge.verifier.commands.model" in loaded
    assert not {"weighbridge.verifier.commands.policy", "weighbridge.verifier.appraisal", "numpy"} & loaded


def test_so_do_the_verbs_of_a_group() -> None:
    loaded = modules("policy", "docs")
    assert "weighbridge.verifier.commands.policy_docs" in loaded
    assert "weighbridge.verifier.commands.policy_replay" not in loaded


def test_by_default_all_is_there() -> None:
    """A command whose grammar is not filled would take no arguments."""
    for words, run in (
        (["policy", "docs", "--json"], "_run"),
        (["inspect", "gpu", "report.bin"], "run_inspect"),
        (["ledger", "audit", "ledger", "--key", "key"], "run_audit"),
    ):
        for grammar in (cli.parser(), cli.parser(words)):
            assert grammar.parse_args(words).run.__name__ == run
