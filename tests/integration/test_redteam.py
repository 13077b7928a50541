"""The red team against a verifier that serves: one that is whole, ones with a fault, and those that it cannot reach."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from support.service import Authority, Served
from support.world import World, reference_for
from weighbridge.proto.errors import Code, NotAuthentic, WeighbridgeError
from weighbridge.redteam.kit import Kit
from weighbridge.redteam.playing import ATTACKS, Played
from weighbridge.redteam.telling import Told
from weighbridge.verifier import cli, procedure
from weighbridge.verifier.anchors import TrustAnchors, load
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.gate.checking import Gate
from weighbridge.verifier.gate.configuration import GateFile
from weighbridge.verifier.gate.instant import SystemClocks
from weighbridge.verifier.gate.place import Place
from weighbridge.verifier.gate.routing import Router
from weighbridge.verifier.gate.serving import serve as serve_gate
from weighbridge.verifier.gate.source import GrpcSource
from weighbridge.verifier.gate.verifiers import Verifiers
from weighbridge.verifier.gate.watcher import Watcher
from weighbridge.verifier.relying_parties import BearerToken, RelyingParties, RelyingParty, new_token, token_digest
from weighbridge.verifier.result_client import Bearer
from weighbridge.verifier.result_source import ResultSource
from weighbridge.verifier.service import Options

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from weighbridge.policy.policy_set import Shipped
    from weighbridge.redteam.field import Target
    from weighbridge.verifier.core import Judged
    from weighbridge.verifier.result_source import Asked, Result

# Of a verifier's own options, that it has been told which it is.
AUDIENCE = ("--tenant", "tenant-a", "--audience", "relying-party")
GATED = "model.example/v1"


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Deployment:
    """A verifier that lets the red team's hosts in, with the limits that it has by default."""

    directory: Path
    world: World
    served: Served
    gate: int

    @property
    def ports(self) -> list[str | Path]:
        """What the attacks on relying parties' port and on a gate take."""
        assert self.served.listening is not None
        return [
            "--relying-party", f"localhost:{self.served.listening.bearer}",
            "--token-file", self.directory / "gate.token",
            "--stranger-token-file", self.directory / "stranger.token",
            "--gate", f"127.0.0.1:{self.gate}", "--gate-request", GATED,
        ]  # fmt: skip

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
    tokens = {name: new_token() for name in ("gate", "stranger")}
    for name, token in tokens.items():
        (directory / f"{name}.token").write_text(f"{token}\n")
    try:
        with Served(
            world,
            Authority(state / "tls"),
            parties=_parties(tokens),
            options=Options(bearer=("127.0.0.1", 0)),
        ) as served:
            gate = GateTask(served, kit, (state / "anchors.json").read_bytes(), tokens["gate"])
            yield Deployment(directory, world, served, gate.port)
            gate.stop()
    finally:
        world.close()


def _parties(tokens: dict[str, str]) -> RelyingParties:
    """One that may ask about the red team's tenant, and one of another."""
    tenants = {"gate": "tenant-a", "stranger": "tenant-b"}
    return RelyingParties(
        relying_parties=tuple(
            RelyingParty(
                name=name,
                tokens=(BearerToken(token_sha256=token_digest(token).hex(), not_after="2099-01-01T00:00:00Z"),),
                tenants=(tenants[name],),
                audiences=("relying-party",),
            )
            for name, token in tokens.items()
        )
    )


class GateTask:
    """A gate in the server's own loop, which is told over the port for tokens, and answers as Envoy asks."""

    def __init__(self, served: Served, kit: Kit, anchors: bytes, token: str) -> None:
        self._served = served
        self.port = served.run(self._start(kit, anchors, Bearer(served.authority.certificate, token)))

    async def _start(self, kit: Kit, anchors: bytes, bearer: Bearer) -> int:
        assert self._served.listening is not None
        session = {
            "name": "redteam", "session": "any", "tenant": "tenant-a", "model": kit.manifest.digest.hex(),
            "adapters": [], "cnf": {"unchecked": "no server stands behind these hosts"},
        }  # fmt: skip
        file = {
            "schema": "weighbridge/gates/v1", "audience": "relying-party", "accept": "warning", "sessions": [session],
            "routes": [{"name": "chat", "hosts": ["model.example"], "path": "/v1", "sessions": ["redteam"]}],
        }  # fmt: skip
        gate = Gate(GateFile.parse(json.dumps(file).encode()), Verifiers.of(load(anchors), None), SystemClocks())
        source = GrpcSource(f"localhost:{self._served.listening.bearer}", bearer)
        self._stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(
            serve_gate(
                gate,
                Watcher(gate, source, report=lambda _: None),
                envoy=Place("127.0.0.1"),
                http=None,
                tls=None,
                started=lambda listening: started.set_result(listening.envoy),
                stop=self._stop,
            )
        )
        port: int = await started
        return port

    def stop(self) -> None:
        async def end() -> None:
            self._stop.set()
            await self._task

        self._served.run(end())


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
    status, document, err = deployment.play(*deployment.ports, "--report", report)
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


def test_a_relying_party_that_is_told_of_others_tenants_is_found(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ResultSource.result

    def result(self: ResultSource, session: bytes, asked: Asked) -> Result:
        tenant = self.standings.of(session).tenant
        return told(self, session, replace(asked, party=asked.party.model_copy(update={"tenants": (tenant,)})))

    monkeypatch.setattr(ResultSource, "result", result)
    status, document, _ = deployment.play(*deployment.ports, "--attack", "party-other-tenant")
    assert (status, *only(document)) == (5, "ADMITTED", [])


def test_a_gate_without_routes_is_found(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Router, "placed", lambda self, *_: self.named("chat"))
    status, document, _ = deployment.play(*deployment.ports, "--attack", "gate-off-route")
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
        (["--target", "localhost:1", "--relying-party", "localhost:2"], "all of them or none"),
        (
            ["--target", "localhost:1", "--gate", "192.0.2.1:2", "--gate-request", "a/b"],
            "192.0.2.1 is not this machine",
        ),
        (["--target", "localhost:1", "--gate", "localhost:2"], "--gate and --gate-request: both or neither"),
        (["--target", "localhost:1", "--gate-request", "model.example"], "a host and a path without a query"),
        (["--target", "localhost:1", "--attack", "gate-ended"], "gate-ended takes --gate"),
    ],
)
def test_what_is_asked_first(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    admitted = ["--attester", "one"] if "--state" in options or "--verifier-ca" in options else ["--state", "STATE"]
    assert cli.main(["redteam", *options, *admitted, "--kit", "KIT", *AUDIENCE]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("failed", "said"), [(1, "1 attestation key and its"), (2, "2 attestation keys and their")])
def test_what_is_left_behind_is_counted_in_words(failed: int, said: str) -> None:
    named = {"address": "localhost:1", "tenant": "tenant-a", "audience": "relying-party"}
    target = cast("Target", SimpleNamespace(**named, relying_party=None, gate=None))
    told = Told(target, Played((), (), (bytes(32),) * failed, 1, 1), datetime.now(UTC), 1)
    line = f"remembered as failed: {said} GPUs, which were made for this run and are not used again\n"
    assert told.text().endswith(line)
    assert told.report().endswith(line)


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
