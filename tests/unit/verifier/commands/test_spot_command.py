"""`weighbridge spot import | list`: an owner's pool comes in, counts come out, and no secret does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.spot import PoolEntry, SpotChallenge, SpotExpectation, SpotPool, SpotRange
from weighbridge.verifier.cli import main
from weighbridge.verifier.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]


def pool(model: str, *numbers: int) -> SpotPool:
    digest = sha256(model.encode())
    ranges = (SpotRange("model.safetensors", 0, 1),)
    challenges = [
        SpotChallenge(id=bytes([number]) * 16, manifest=digest, key=sha256(bytes([number])), ranges=ranges)
        for number in numbers
    ]
    return SpotPool(
        digest,
        model,
        tuple(PoolEntry(SpotExpectation(item, item.answer([b"x"]).mac), ("w",)) for item in challenges),
    )


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["spot", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Deployment.create(tmp_path / "state", origin="ledger.example/a", hosts=("localhost",), at=datetime.now(UTC))
    return tmp_path / "state"


def put(directory: Path, made: SpotPool) -> Path:
    path = directory / f"{made.name}.json"
    path.write_bytes(made.to_json())
    return path


def document_of(out: str) -> dict[str, Any]:
    value = strict.json_decode(out.encode(), what="it")
    assert isinstance(value, dict)
    return value


def test_a_pool_is_imported_once(run: Run, state: Path, tmp_path: Path) -> None:
    assert run("list", state) == (0, "no spot challenges\n", "")
    tiny = put(tmp_path, pool("tiny", 1, 2, 3))
    said = "3 new challenges about tiny; 0 were known already\nnow delete the pool\n"
    assert run("import", state, tiny) == (0, said, "")
    status, out, _ = run("import", state, put(tmp_path, pool("tiny", 3, 4)), "--json")
    assert (status, document_of(out)) == (
        ExitCode.AFFIRMED,
        {
            "schema": "weighbridge/spot-import/v1",
            "manifest": sha256(b"tiny").hex(),
            "new": 1,
            "known": 1,
        },
    )


def test_what_is_left_is_listed_by_model(run: Run, state: Path, tmp_path: Path) -> None:
    for made in (pool("tiny", 1, 2), pool("large", 3)):
        assert run("import", state, put(tmp_path, made))[0] == 0
    digests = {name: sha256(name.encode()).hex() for name in ("large", "tiny")}
    status, out, err = run("list", state)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "     1 left       0 spent  large",
        f"  {digests['large']}",
        "     2 left       0 spent  tiny",
        f"  {digests['tiny']}",
    ]
    _, out, _ = run("list", state, "--json")
    assert document_of(out) == {
        "schema": "weighbridge/spots/v1",
        "models": [
            {"manifest": digests["large"], "name": "large", "left": 1, "spent": 0},
            {"manifest": digests["tiny"], "name": "tiny", "left": 2, "spent": 0},
        ],
    }


def test_no_secret_is_printed(run: Run, state: Path, tmp_path: Path) -> None:
    made = pool("tiny", 1)
    path = put(tmp_path, made)
    said = "".join(
        text
        for command in (("import", state, path), ("import", state, path, "--json"), ("list", state, "--json"))
        for text in run(*command)[1:]
    )
    challenge = made.entries[0].expectation.challenge
    for secret in (challenge.id, challenge.key, made.entries[0].expectation.mac):
        assert secret.hex() not in said


def test_it_works_while_the_verifier_serves(run: Run, state: Path, tmp_path: Path) -> None:
    with Deployment.open(state) as opened:
        assert run("import", state, put(tmp_path, pool("tiny", 1)))[0] == 0
        assert run("list", state)[0] == 0
        with opened.store.transaction() as tx:
            assert [count.left for count in tx.spots.counts()] == [1]


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", ExitCode.MALFORMED, "NOT_JSON"),
        (b"{}", ExitCode.MALFORMED, "FIELD_MISSING"),
        (pool("tiny", 1, 1).to_json(), ExitCode.MALFORMED, "DUPLICATE_KEY"),
        (None, ExitCode.ENVIRONMENT, "FILE_UNREADABLE"),
    ],
)
def test_what_is_no_pool_changes_nothing(
    run: Run,
    state: Path,
    tmp_path: Path,
    data: bytes | None,
    status: ExitCode,
    code: str,
) -> None:
    path = tmp_path / "pool.json"
    if data is not None:
        path.write_bytes(data)
    got, out, err = run("import", state, path)
    assert (got, out) == (status, "")
    assert err.startswith(f"weighbridge: error: {code}: ")
    assert (f"at {path}: pool" in err, "spot-pool -o" in err) == (status == ExitCode.MALFORMED,) * 2
    assert run("list", state)[1] == "no spot challenges\n"


@pytest.mark.parametrize("verb", ["import", "list"])
def test_there_is_no_verifier_here(run: Run, tmp_path: Path, verb: str) -> None:
    more = [put(tmp_path, pool("tiny", 1))] if verb == "import" else []
    (tmp_path / "empty").mkdir()
    status, out, err = run(verb, tmp_path / "empty", *more)
    assert (status, out) == (ExitCode.ENVIRONMENT, "")
    assert err.startswith("weighbridge: error: FILE_UNREADABLE: no verifier's state here")
    assert list((tmp_path / "empty").iterdir()) == []
