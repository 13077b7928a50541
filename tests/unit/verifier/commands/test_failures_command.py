"""``weighbridge failures list | clear``: what sticks is seen, and forgiven by its code; nothing else is."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import sqlalchemy as sa

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.verifier import clearing
from weighbridge.verifier.archive import Archive
from weighbridge.verifier.cli import main
from weighbridge.verifier.commands.state import open_store
from weighbridge.verifier.database import PostgresAddress
from weighbridge.verifier.deployment import Deployment
from weighbridge.verifier.failures import Which
from weighbridge.verifier.pruning import Batch
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weighbridge.verifier.database import Address
    from weighbridge.verifier.store import SubjectKind

SESSION = bytes([7] * 16)
AK, FIRST, SECOND, EARLY, OTHER = (sha256(name) for name in (b"ak", b"gpu 0", b"gpu 1", b"early", b"other"))
UNKNOWN = Code.CHALLENGE_UNKNOWN
SECOND_NS = 1_000_000_000


@pytest.fixture
def state(store_address: Address, tmp_path: Path) -> Path:
    """A verifier of which one host failed in its session, a GPU at its enrolment, and another one of something else."""
    at = tmp_path / "verifier"
    store = store_address if isinstance(store_address, PostgresAddress) else None
    Deployment.create(at, origin="ledger.example/test", hosts=("localhost",), at=datetime.now(UTC), store=store)
    with closing(open_store(at)) as opened, opened.transaction() as tx:
        tx.open_session(
            session=SESSION,
            tenant="acme",
            ak=AK,
            gpus=(FIRST, SECOND),
            prev=sha256(b"genesis"),
            enrolment_index=0,
            state=SessionState.ENROLLED,
            opened_ns=SECOND_NS,
        )
    fail(at, [("ak", AK), ("gpu", FIRST), ("gpu", SECOND)], UNKNOWN, at_ns=10 * SECOND_NS, session=SESSION)
    fail(at, [("gpu", EARLY)], UNKNOWN, at_ns=20 * SECOND_NS)
    fail(at, [("gpu", OTHER)], Code.WINDOW_PREV, at_ns=10 * SECOND_NS)
    return at


def fail(
    state: Path, whom: list[tuple[SubjectKind, bytes]], code: Code, *, at_ns: int, session: bytes | None = None
) -> None:
    with closing(open_store(state)) as store, store.transaction() as tx:
        tx.subjects.fail(whom, code=code, session=session, at_ns=at_ns)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    def command(verb: str, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
        status = main(["failures", verb, *map(str, arguments), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return command


def told(document: dict[str, Any], name: str = "failures") -> set[tuple[str, str]]:
    return {(row["kind"], row["identity"]) for row in document[name]}


def left(run: Callable[..., tuple[int, dict[str, Any]]], state: Path) -> set[tuple[str, str]]:
    return told(run("list", state)[1])


def test_what_sticks_is_listed_and_cleared_by_its_code(
    run: Callable[..., tuple[int, dict[str, Any]]], state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ak, gpus = ("ak", AK.hex()), [("gpu", one.hex()) for one in (FIRST, SECOND)]
    early, other = ("gpu", EARLY.hex()), ("gpu", OTHER.hex())
    status, document = run("list", state)
    assert (status, told(document), document["left_out"]) == (ExitCode.AFFIRMED, {ak, *gpus, early, other}, 0)
    assert document["codes"] == [
        {
            "code": "CHALLENGE_UNKNOWN",
            "aks": 1,
            "gpus": 3,
            "first_at": "1970-01-01T00:00:10Z",
            "last_at": "1970-01-01T00:00:20Z",
        },
        {
            "code": "WINDOW_PREV",
            "aks": 0,
            "gpus": 1,
            "first_at": "1970-01-01T00:00:10Z",
            "last_at": "1970-01-01T00:00:10Z",
        },
    ]
    # A time is from then on, and before then: what failed at the very second is in the first and not in the second.
    for arguments, expected in (
        (["--kind", "ak"], {ak}),
        (["--code", "WINDOW_PREV"], {other}),
        (["--tenant", "acme"], {ak, *gpus}),
        (["--since", "1970-01-01T00:00:20Z"], {early}),
        (["--before", "1970-01-01T00:00:20Z"], {ak, *gpus, other}),
    ):
        assert told(run("list", state, *arguments)[1]) == expected
    _, few = run("list", state, "--limit", "1")
    assert (told(few), few["left_out"]) == ({early}, 4)
    assert main(["failures", "list", str(state), "--tenant", "acme"]) == ExitCode.AFFIRMED
    assert capsys.readouterr().out.splitlines()[1] == (
        f"  ak   {AK.hex()[:16]}…  CHALLENGE_UNKNOWN  since 1970-01-01T00:00:10Z  session {SESSION.hex()}  acme"
    )

    named = ["--code", "CHALLENGE_UNKNOWN", "--before", "1970-01-01T00:00:20Z", "--reason", "store restored"]
    status, would = run("clear", state, *named, "--dry-run")
    assert (status, would["count"], told(would, "cleared")) == (ExitCode.AFFIRMED, 3, {ak, *gpus})
    assert left(run, state) == {ak, *gpus, early, other}
    status, did = run("clear", state, *named)
    assert (status, did["count"], told(did, "cleared")) == (ExitCode.AFFIRMED, 3, {ak, *gpus})
    assert left(run, state) == {early, other}
    for again in (named, [*named, "--dry-run"]):
        status, refused = run("clear", state, *again)
        assert (status, refused["code"]) == (ExitCode.INDETERMINATE, "SESSION_UNKNOWN")

    # Each is in the ledger, and in the store, for itself.
    with Deployment.open(state) as opened:
        for row in did["cleared"]:
            record = opened.archive.records.record(row["ledger_index"])
            assert record.kind == "clearing"
            assert json.loads(record.verdict) == {
                "schema": "weighbridge/clearing/v1",
                "kind": row["kind"],
                "identity": row["identity"],
                "code": "CHALLENGE_UNKNOWN",
                "reason": "store restored",
                "forgotten": [],
            }
        assert opened.archive.ledger.size == 3
        with opened.store.reading() as tx:
            rows = tx._connection.execute(sa.text("SELECT kind, failed_ns, reason FROM clearances")).all()
        assert sorted(map(tuple, rows)) == [(kind, 10 * SECOND_NS, "store restored") for kind in ("ak", "gpu", "gpu")]


def test_what_fails_anew_meanwhile_is_not_cleared(state: Path) -> None:
    """It takes two turns: between them a host that was forgiven fails again, and a GPU that comes in the second one."""
    many = [sha256(b"many %d" % number) for number in range(Batch().most + 2)]
    fail(state, [("gpu", one) for one in many], UNKNOWN, at_ns=15 * SECOND_NS)
    anew: list[tuple[SubjectKind, bytes]] = [("ak", AK), ("gpu", bytes([255] * 32))]
    with Deployment.open(state) as opened:
        turns: list[int] = []
        for some in clearing.clear_all(
            opened.archive, opened.store, Which(code=UNKNOWN), reason="a test", at=datetime.now(UTC)
        ):
            if not turns:
                assert ("ak", AK) in {(one.failure.kind, one.failure.identity) for one in some}
                fail(state, anew, UNKNOWN, at_ns=21 * SECOND_NS)
            turns.append(len(some))
        assert (len(turns), sum(turns)) == (2, len(many) + 4)
        with opened.store.reading() as tx:
            still = {(one.kind, one.identity) for one in tx.failures.latest(Which(), most=100)}
    assert still == {*anew, ("gpu", OTHER)}


def test_what_stops_between_two_turns_is_told(run: Callable[..., tuple[int, dict[str, Any]]], state: Path) -> None:
    """Another's long turn: what was done is done, and the same command does the rest."""
    turn = Archive.turn
    held = EnvironmentFault(Code.LEDGER_LOCKED, "another process has held the ledger", where="ledger")
    # To open the directory takes one as well.
    turns = [None, None, held]

    def last_fails(archive: Archive) -> AbstractContextManager[None]:
        if (fault := turns.pop(0)) is not None:
            raise fault
        return turn(archive)

    arguments = ["--code", "CHALLENGE_UNKNOWN", "--reason", "a test"]
    with mock.patch.object(Archive, "turn", last_fails), mock.patch.object(Batch, "took"):
        fail(state, [("gpu", sha256(b"%d" % number)) for number in range(Batch().most)], UNKNOWN, at_ns=1)
        status, document = run("clear", state, *arguments)
    assert (status, document["count"]) == (ExitCode.ENVIRONMENT, Batch().most)
    status, document = run("clear", state, *arguments)
    assert (status, document["count"]) == (ExitCode.AFFIRMED, 4)
    assert left(run, state) == {("gpu", OTHER.hex())}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reason", "all of them"], "--code"),
        (["--reason", "all of them", "--since", "1970-01-01T00:00:00Z"], "--code"),
        (["--code", "CHALLENGE_UNKNOWN"], "--reason"),
        (["--code", "CHALLENGE_UNKNOWN", "--reason", " "], "say why"),
        (["--code", "CHALLENGE_UNKOWN", "--reason", "misspelled"], "is no code"),
        (["--code", "CHALLENGE_UNKNOWN", "--reason", "x", "--since", "yesterday"], "--since"),
        (["--code", "CHALLENGE_UNKNOWN", "--reason", "x", "--all"], "--all"),
    ],
)
def test_nothing_is_cleared_without_a_code_and_a_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert main(["failures", "clear", str(tmp_path), *arguments]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_no_code_no_clearing() -> None:
    """Whoever calls it is held to it as well."""
    unused: Any = None
    for which, reason in ((Which(tenant="acme"), "a test"), (Which(code=UNKNOWN), "\n")):
        with pytest.raises(ValueError, match="cleared"):
            next(clearing.clear_all(unused, unused, which, reason=reason, at=datetime.now(UTC)))
