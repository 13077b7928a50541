"""The red team against a verifier that serves: one that is whole, ones with a fault, and those that it cannot reach."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.service import Authority, Served
from support.world import World, reference_for
from weighbridge.proto.errors import Code, NotAuthentic, WeighbridgeError
from weighbridge.redteam.kit import Kit
from weighbridge.redteam.playing import ATTACKS
from weighbridge.verifier import cli, procedure
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.service import Options

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from weighbridge.policy.policy_set import Shipped
    from weighbridge.verifier.core import Judged

# Of a verifier's own options, that it has been told which it is.
AUDIENCE = ("--tenant", "tenant-a", "--audience", "relying-party")


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Deployment:
    """A verifier that lets the red team's hosts in, with the limits that it has by default."""

    directory: Path
    world: World
    served: Served

    def play(self, *options: str | Path, admitted: Sequence[str | Path] = ()) -> tuple[int, dict[str, Any], str]:
        """Exit status, document and standard error of the command, for whom the verifier's own state admits hosts."""
        return self.served.run(
            self._play([*map(str, admitted or ("--state", self.directory / "state")), *map(str, options)])
        )

    async def _play(self, options: list[str]) -> tuple[int, dict[str, Any], str]:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("weighbridge"), "redteam", "--target", f"127.0.0.1:{self.served.port}",
            "--kit", self.directory / "kit", *AUDIENCE, "--json", *options,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        document = json.loads(out)
        assert "attacks" in document, document
        return process.returncode, document, err.decode()


@contextmanager
def deployed(directory: Path, policy: Shipped = "insecure_development") -> Generator[Deployment]:
    kit = Kit.create(directory / "kit")
    gpus = kit.gpus(2)
    world = World.make(directory, anchors=kit.anchors(), gpus=gpus, policy=policy)
    world.clock = RealClock()  # type: ignore[assignment] # it is not moved here
    world.models = {kit.manifest.digest: kit.manifest}
    assert world.engines is not None
    world.judge_by(world.engines, reference_for(gpus, [kit.manifest]))
    state = directory / "state"
    state.mkdir()
    (state / "anchors.json").write_bytes(_anchors(world))
    try:
        with Served(world, Authority(state / "tls"), options=Options()) as served:
            yield Deployment(directory, world, served)
    finally:
        world.close()


def _anchors(world: World) -> bytes:
    always = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
    made = world.keys.anchors(
        name="a test", origin="ledger.example/test", platform="weighbridge", not_before=always[0], not_after=always[1]
    )
    return TrustAnchors(made).encode()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("redteam")) as made:
        yield made


def only(document: dict[str, Any]) -> tuple[str, list[str]]:
    (attack,) = document["attacks"]
    return attack["status"], attack["codes"]


def test_all_are_refused_by_the_check_that_is_meant(deployment: Deployment) -> None:
    report = deployment.directory / "report.md"
    status, document, err = deployment.play("--report", report)
    assert [
        (row["name"], row["status"], row["message"]) for row in document["attacks"] if row["status"] != "refused"
    ] == []
    assert (status, document["exit"], err) == (0, 0, "")
    assert [row["name"] for row in document["attacks"]] == [attack.name for attack in ATTACKS]
    for row in document["attacks"]:
        assert set(row["codes"]) & set(row["expected"])
        assert f"| {row['name']} | {', '.join(row['rows']) or 'none'} | {row['does']} | refused |" in report.read_text()
    _left_behind(deployment, document["left_behind"])


def _left_behind(deployment: Deployment, told: dict[str, Any]) -> None:
    """What it says that it has left is what there is."""
    with deployment.world.store.reading() as tx:
        # Other tests play here, too.
        listed = [row for row in tx.sessions() if row.id.hex() in told["sessions"]]
    assert len(listed) == len(told["sessions"])
    assert {row.state.value for row in listed} == {"closed", "failed"}
    assert sum(row.state.value == "failed" for row in listed) == len(told["failed_attestation_keys"])


def test_from_two_attesters_that_were_admitted(deployment: Deployment) -> None:
    state = deployment.directory / "state"
    options: list[str | Path] = ["--verifier-ca", state / "tls" / "ca.pem", "--verifier-key", state / "anchors.json"]
    for name in ("one", "another"):
        deployment.served.authority.admit(name)
        options += ["--attester", state / "tls" / name]
    status, document, _ = deployment.play("--attack", "relay", "--attack", "relay-enrolment", admitted=options)
    assert (status, [row["status"] for row in document["attacks"]]) == (0, ["refused"] * 2)


def test_a_check_that_is_off_is_found(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedure, "check_continuity", lambda **_: None)
    status, document, _ = deployment.play("--attack", "reset")
    assert (status, *only(document)) == (5, "ADMITTED", [])


def test_a_victim_that_pays_is_found(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that holds against a session what was no window of it."""
    fallen = False

    def judge(session: bytes, data: bytes, *, peer: bytes, beside: Sequence[Judged] = ()) -> Judged:
        nonlocal fallen
        if fallen:
            raise NotAuthentic(Code.SESSION_FAILED, "the session has failed", where="session")
        try:
            return Verifier.judge(deployment.world.verifier, session, data, peer=peer, beside=beside)
        except WeighbridgeError:
            fallen = True
            raise

    monkeypatch.setattr(deployment.world.verifier, "judge", judge)
    status, document, _ = deployment.play("--attack", "gap")
    assert (status, *only(document)) == (5, "HARMFUL", [])


def test_another_check_than_the_one_that_is_meant(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(session: bytes, data: bytes, *, peer: bytes, beside: Sequence[Judged] = ()) -> Judged:
        try:
            return Verifier.judge(deployment.world.verifier, session, data, peer=peer, beside=beside)
        except WeighbridgeError as error:
            raise NotAuthentic(Code.WINDOW_TENANT, "something else", where="window") from error

    monkeypatch.setattr(deployment.world.verifier, "judge", judge)
    status, document, _ = deployment.play("--attack", "gap")
    assert (status, *only(document)) == (6, "refused otherwise", ["WINDOW_TENANT"])


def test_production_refuses_the_hosts_themselves(tmp_path: Path) -> None:
    """Nothing is shown of what stands behind that, and the report says so; a flood is refused all the same."""
    with deployed(tmp_path, "production") as deployment:
        status, document, _ = deployment.play("--attack", "replay", "--attack", "flood-streams")
        replay, flood = document["attacks"]
        assert (status, replay["status"], flood["status"]) == (6, "not shown", "refused")
        assert replay["stage"] == "an honest window"
        assert "genuine" in replay["message"]


def test_nobody_there(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--kit", str(deployment.directory / "kit"), "--state", str(deployment.directory / "state"), *AUDIENCE]
    assert cli.main(["redteam", "--target", "127.0.0.1:1", *options]) == 8
    assert "PEER_UNREACHABLE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--target", "192.0.2.1:1"], "192.0.2.1 is not this machine"),
        (["--target", "verifier.example:1"], "verifier.example is not this machine"),
        (["--target", "[::1]:1", "--attack", "nothing"], "no attack is called nothing"),
        (["--target", "localhost:1", "--state", "given"], "by whom hosts are admitted"),
        (["--target", "localhost:1", "--verifier-ca", "x"], "takes --verifier-ca and --verifier-key"),
        (["--target", "localhost:1", "--gpus", "0"], "argument --gpus: one at least"),
    ],
)
def test_what_is_asked_first(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    admitted = ["--attester", "one"] if "--state" in options or "--verifier-ca" in options else ["--state", "STATE"]
    assert cli.main(["redteam", *options, *admitted, "--kit", "KIT", *AUDIENCE]) == 2
    assert told in capsys.readouterr().err


def test_the_document_lists_every_attack(root: Path) -> None:
    text = (root / "docs" / "redteam.md").read_text()
    listed = re.findall(r"^\| `([a-z-]+)` \| (none|[A0-9, ]+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    rows = (root / "tests" / "vectors" / "rows.txt").read_text()
    for attack in ATTACKS:
        assert all(re.search(rf"\b{row}\b", rows) for row in attack.rows)
    assert listed == [
        (
            attack.name,
            ", ".join(attack.rows) or "none",
            attack.does,
            ", ".join(f"`{code}`" for code in attack.expected),
        )
        for attack in ATTACKS
    ]
