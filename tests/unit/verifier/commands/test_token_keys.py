"""``weighbridge token keys | jwks``, and ``verify token`` by what they print."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from support.result_tokens import AUDIENCE, issued
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.cli import main
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.result import Serialisation
from weighbridge.verifier.result.claims import Confirmation
from weighbridge.verifier.result.key_store import TokenKeyStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
AT: Final = ("--at", "2026-06-01T12:00:00Z")


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def command(*arguments: str | Path) -> Done:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return command


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of a verifier's directory, what these commands read."""
    keys = VerifierKeys.create(tmp_path / "keys")
    until = NOW + timedelta(days=3650)
    anchors = keys.anchors(name="v", origin="ledger.example/v", platform="weighbridge", not_before=NOW, not_after=until)
    (tmp_path / "anchors.json").write_bytes(TrustAnchors(anchors).encode())
    return tmp_path


def test_a_key_from_its_announcement_to_its_retirement(run: Callable[..., Done], state: Path) -> None:
    identity = VerifierKeys.open(state / "keys").thumbprint.hex()
    assert run("token", "keys", "list", state, *AT).out == "no key is current: the identity signs\n"
    made = run("token", "keys", "new", state, *AT)
    assert made.out.splitlines()[1:] == [
        "  signs    2026-06-01T13:00:00Z to 2026-08-30T13:00:00Z",
        "  publish  the key set before it does: weighbridge token jwks",
    ]
    kid = made.out.split()[1]
    later = ("--at", "2026-06-01T14:00:00Z")
    assert run("token", "keys", "list", state, *AT).out.startswith(f"announced  {kid}  2026-06-01T13:00:00Z to ")
    listed = run("token", "keys", "list", state, *later, "--json").document
    assert (listed["schema"], listed["signs"]) == ("weighbridge/token-keys/v1", kid)
    assert listed["keys"] == [
        {
            "kid": kid,
            "state": "current",
            "not_before": "2026-06-01T13:00:00Z",
            "not_after": "2026-08-30T13:00:00Z",
            "retired": None,
        }
    ]
    retired = run("token", "keys", "retire", state, kid, *later)
    assert retired.out == f"retired {kid}, its tokens are good until they expire\n  signs    {identity} from now on\n"
    assert run("token", "keys", "list", state, *later).out.splitlines() == [
        f"retired    {kid}  2026-06-01T13:00:00Z to 2026-08-30T13:00:00Z, signs no more since 2026-06-01T14:00:00Z",
        "no key is current: the identity signs",
    ]
    lost = run("token", "keys", "retire", state, kid, "--distrust", *later)
    assert "publish that now; relying parties that are offline believe it until 2026-08-30T13:00:00Z" in lost.out
    assert len(run("token", "jwks", state, *later).document["keys"]) == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--from", "2026-06-01T12:14:59Z"), "--from 2026-06-01T12:15:01Z"),
        (("--from", "2261-12-01T00:00:00Z"), "choose an earlier --from"),
        (("--days", "0"), "one day at least"),
        (("--days", "401"), "401"),
    ],
)
def test_when_a_key_may_sign(run: Callable[..., Done], state: Path, more: tuple[str, ...], says: str) -> None:
    done = run("token", "keys", "new", state, *AT, *more)
    assert (done.status, done.out) == (ExitCode.USAGE, "")
    assert says in done.err
    assert run("token", "keys", "list", state, *AT, "--json").document["keys"] == []


def test_what_is_not_there(run: Callable[..., Done], state: Path) -> None:
    done = run("token", "keys", "retire", state, "00" * 32, *AT)
    assert (done.status, done.err.split(":")[2]) == (ExitCode.ENVIRONMENT, " FILE_UNREADABLE")
    assert "weighbridge token keys list" in done.err
    assert run("token", "jwks", state / "absent").status == ExitCode.ENVIRONMENT


@pytest.fixture
def fetched(run: Callable[..., Done], state: Path) -> Path:
    """The key set, as a relying party has fetched it when a new key had been announced."""
    run("token", "keys", "new", state, "--at", "2026-06-01T10:00:00Z", "--from", "2026-06-01T11:00:00Z")
    (state / "jwks.json").write_text(run("token", "jwks", state, *AT).out)
    return state


def verify(run: Callable[..., Done], state: Path, token: bytes, *more: str | Path) -> Done:
    (state / "token").write_bytes(token)
    arguments = ("verify", "token", state / "token", "--audience", AUDIENCE, "--anchors", state / "anchors.json")
    return run(*arguments, *AT, *more)


@pytest.mark.parametrize("serialisation", list(Serialisation))
def test_every_serialisation_by_a_key_that_the_anchor_endorses(
    run: Callable[..., Done], fetched: Path, serialisation: Serialisation
) -> None:
    identity = VerifierKeys.open(fetched / "keys")
    key = TokenKeyStore(identity).signer(NOW)
    token = issued(serialisation, key=key)
    done = verify(run, fetched, token, "--jwks", fetched / "jwks.json")
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    assert done.out.startswith("AFFIRMING: session 000102030405060708090a0b0c0d0e0f, window 7\n")
    assert f"endorsed by {identity.thumbprint.hex()}\n" in done.out
    assert (f"  form     {serialisation.value}: " in done.out) is (serialisation is not Serialisation.EAR_04)
    document = verify(run, fetched, token, "--jwks", fetched / "jwks.json", "--json").document
    assert (document["serialisation"], document["verifier"]) == (serialisation.value, identity.thumbprint.hex())
    assert document["claims"]["aud"] == AUDIENCE
    # Not without the key set, nor where another one is wanted.
    assert "TOKEN_SIGNATURE" in verify(run, fetched, token).err
    other = next(one for one in Serialisation if one is not serialisation)
    refused = verify(run, fetched, token, "--jwks", fetched / "jwks.json", "--serialisation", other.value)
    assert (refused.status, refused.out) == (ExitCode.NOT_AUTHENTIC, "")


def test_a_key_set_of_somebody_else_adds_nothing(run: Callable[..., Done], fetched: Path, tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    stranger = VerifierKeys.create(tmp_path / "stranger" / "keys")
    (fetched / "theirs.json").write_bytes(strict.json_encode(TokenKeyStore(stranger).jwks(NOW)))
    token = issued(Serialisation.EAR_04, key=stranger.signing)
    done = verify(run, fetched, token, "--jwks", fetched / "theirs.json")
    assert (done.status, done.err.split(":")[2]) == (ExitCode.NOT_AUTHENTIC, " TOKEN_SIGNATURE")


def test_other_names_of_the_serving_key_are_shown(run: Callable[..., Done], fetched: Path) -> None:
    names = Confirmation(jkt=bytes(32), x5t_s256=bytes([1] * 32))
    token = issued(Serialisation.EAR_04, key=VerifierKeys.open(fetched / "keys").signing, confirmation=names)
    out = verify(run, fetched, token).out
    assert f"  jkt      {'00' * 32} (its thumbprint as a JWK)\n" in out
    assert f"  x5t#S256 {'01' * 32} (SHA-256 of its certificate)\n" in out


def test_an_identity_that_is_not_trusted_yet_endorses_nothing(run: Callable[..., Done], fetched: Path) -> None:
    early = NOW - timedelta(minutes=30)
    token = issued(
        Serialisation.EAR_04, key=TokenKeyStore(VerifierKeys.open(fetched / "keys")).signer(early), received=early
    )
    done = verify(run, fetched, token, "--jwks", fetched / "jwks.json", "--at", "2026-06-01T11:30:00Z")
    assert done.status == ExitCode.USAGE  # --at twice
    (fetched / "token").write_bytes(token)
    arguments = ("verify", "token", fetched / "token", "--audience", AUDIENCE, "--anchors", fetched / "anchors.json")
    done = run(*arguments, "--jwks", fetched / "jwks.json", "--at", "2026-06-01T11:30:00Z")
    assert (done.status, done.err.split(":")[2]) == (ExitCode.NOT_AUTHENTIC, " CHAIN_EXPIRED")
