"""An author's newer policy judges a session that runs, from its next window on; an older one does not come back."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from support.authors import ADMITS
from support.site import Factory, Running, Site, here
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.bundle import Bundle

if TYPE_CHECKING:
    from pathlib import Path

WEIGHBRIDGE = "weighbridge"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("factory", "site"):
        (tmp_path / name).mkdir()
    return Site(Factory(tmp_path / "factory"), tmp_path / "site")


def test_a_policy_is_changed_while_a_session_runs(site: Site, tmp_path: Path) -> None:
    key, anchors, policy = tmp_path / "author.pem", tmp_path / "author.json", tmp_path / "gate.policy"
    rules = tmp_path / "gate.rego"

    def weighbridge(*arguments: object, status: ExitCode = ExitCode.AFFIRMED) -> str:
        done = here(WEIGHBRIDGE, *arguments)
        assert done.status == status, (done.out, done.err)
        return done.out

    def sign(number: int, text: bytes, *options: str) -> None:
        rules.write_bytes(text)
        weighbridge(
            "policy", "bundle", "sign", rules, "--owner", "Acme Safety", "--name", "gate", "--number", number,
            "--key", key, "-o", policy, "--without-tests", *options,
        )  # fmt: skip

    weighbridge("policy", "key", "Acme Safety", "-o", key, "--anchors", anchors)
    sign(7, ADMITS)
    first = policy.read_bytes()
    with site:
        site.prepare()
        command = site.serve_command("--policy-bundle", policy, "--anchors", anchors)
        place = command.index("--policy")
        command = [*command[:place], *command[place + 2 :]]
        # A verifier whose sessions nobody could judge does not begin.
        sign(7, ADMITS, "--tenant", "tenant-b")
        done = here(*map(str, command))
        assert (done.status, Code.POLICY_ABSENT in done.err) == (ExitCode.ENVIRONMENT, True), done.err
        policy.write_bytes(first)
        with Running(*command) as verifier:
            verifier.until(lambda it: any("listening on" in line for line in it.errors), "the verifier listens")
            assert any(line.startswith("policy bundle of Acme Safety, gate, number 7:") for line in verifier.errors)
            with site.attesting("--windows", 8) as attester:
                attester.until_windows("affirmed", 2)
                sign(8, ADMITS + b"# newer\n")
                verifier.until(lambda it: any("number 8:" in line for line in it.errors), "the newer one is in force")
                seen = len(attester.windows("affirmed"))
                attester.until_windows("affirmed", seen + 1)
                policy.write_bytes(first)
                verifier.until(lambda it: any(Code.POLICY_ROLLBACK in line for line in it.errors), "it is told of")
                told = len(verifier.errors)
                verifier.process.send_signal(signal.SIGHUP)
                verifier.until(lambda it: len(it.errors) > told, "SIGHUP has it read again")
                assert attester.end().status == ExitCode.AFFIRMED
            assert verifier.terminate().status == ExitCode.AFFIRMED
    (session,) = site.sessions()
    # Nobody has to name the policies that judged: the verifier's state has them.
    target = site.directory / "session.wb"
    weighbridge("export", site.verifier, session["session"], "-o", target, "--manifest", site.factory.manifest)
    assert len(Bundle.parse(target.read_bytes()).policies) == 2
    trusted = ("--anchors", site.factory.roots, "--anchors", site.verifier / "anchors.json")
    said = weighbridge("verify", "bundle", target, *trusted)
    assert "Acme Safety, gate, number 7\n" in said
    assert "Acme Safety, gate, number 8\n" in said
    windows = json.loads(weighbridge("verify", "bundle", target, *trusted, "--json"))["windows"]
    numbers = [window["policy"]["bundle"]["number"] for window in windows]
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1], len(set(numbers))) == (7, 8, 2)
