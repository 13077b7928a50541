"""Relying parties over real gRPC and mutual TLS: they are told how sessions stand, and nobody else is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self
from unittest import mock

import grpc
import grpc.aio
import pytest

from support.service import GENEROUS, Authority, Served
from support.world import World, manifest
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, NotAuthentic, WeighbridgeError
from weighbridge.proto.v1 import results_pb2, results_pb2_grpc
from weighbridge.verifier import result_service
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.relying_parties import RelyingParties, RelyingParty
from weighbridge.verifier.result import Serialisation, jwks, verify
from weighbridge.verifier.result.key_store import ANNOUNCED_MIN, TokenKeyStore
from weighbridge.verifier.result.trusted import TrustedKey
from weighbridge.verifier.result_client import Answered, Credentials, ResultClient
from weighbridge.verifier.service import Options
from weighbridge.verifier.standings import Standings
from weighbridge.verifier.store import Store
from weighbridge.verifier.told import GateState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from support.service import Remote
    from weighbridge.attester.keys import ChannelKey

PROGRAM = Path(sys.executable).parent / "weighbridge"
AUDIENCE = "https://gate.example"


@dataclass
class Site:
    """A verifier with one attester and relying parties; ``elsewhere`` is their own authority."""

    world: World
    authority: Authority
    elsewhere: Authority
    served: Served
    gate: ChannelKey
    outsider: ChannelKey
    stranger: ChannelKey
    remote: Remote

    @property
    def session(self) -> bytes:
        return self.world.host.session

    def client(self, channel: ChannelKey) -> ResultClient:
        credentials = Credentials(self.authority.certificate, channel.key, channel.certificate)
        return ResultClient(f"localhost:{self.served.port}", credentials)

    def get(
        self,
        session: bytes | None = None,
        *,
        by: ChannelKey | None = None,
        audience: str | None = None,
        serialisation: Serialisation = Serialisation.EAR_04,
    ) -> Answered:
        async def ask() -> Answered:
            async with self.client(by or self.gate) as client:
                return await client.get(
                    self.session if session is None else session, audience=audience, serialisation=serialisation
                )

        return self.served.run(ask())

    def refused(
        self, session: bytes | None = None, *, by: ChannelKey | None = None, audience: str | None = None
    ) -> WeighbridgeError:
        with pytest.raises(WeighbridgeError) as caught:
            self.get(session, by=by, audience=audience)
        return caught.value


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    world = World.make(tmp_path)
    authority, elsewhere = Authority(tmp_path / "authority"), Authority(tmp_path / "elsewhere")
    # One certified by the attesters' authority, one by its own; both are listed. The stranger is not.
    gate, outsider, stranger = elsewhere.admit("gate"), authority.admit("outsider"), elsewhere.admit("stranger")
    parties = RelyingParties(
        relying_parties=(
            RelyingParty(
                name="gate", key=gate.peer.hex(), tenants=("tenant-a",), audiences=(AUDIENCE, "relying-party")
            ),
            RelyingParty(name="outsider", key=outsider.peer.hex(), tenants=("tenant-b",), audiences=("b",)),
        )
    )
    authority.tls = authority.tls.with_authorities(elsewhere.tls.client_ca)
    options = Options(bounds=replace(GENEROUS, peer=replace(GENEROUS.peer, calls=2)))
    with Served(world, authority, parties=parties, options=options) as served:
        remote = served.join(world.host)
        yield Site(world, authority, elsewhere, served, gate, outsider, stranger, remote)
    world.close()


# -- asking once -------------------------------------------------------------------------------------------------------


def test_a_relying_party_is_told_and_given_a_token(site: Site) -> None:
    waiting = site.get()
    assert (waiting.told.state, waiting.told.code, waiting.token) == (GateState.WAITING, Code.RESULT_ABSENT, None)
    site.remote.window(site.world.host)
    answered = site.get()
    assert (answered.told.state, answered.told.seq) == (GateState.OPEN, 0)
    assert answered.token is not None
    key, now = site.world.keys.signing.public_key(), site.world.clock.now()
    token = verify(answered.token.decode(), key, audience=AUDIENCE, at=now)
    assert (token.session, token.seq) == (site.session, 0)
    assert nanoseconds(token.expires) == answered.told.expires_ns
    # Expiry by the verifier's clock, exactly.
    site.world.clock.at = token.expires - timedelta(microseconds=1)
    assert site.get().told.is_open
    site.world.clock.at = token.expires
    closed = site.get()
    assert (closed.told.state, closed.told.code, closed.token) == (GateState.CLOSED, Code.TOKEN_EXPIRED, None)


@pytest.mark.parametrize("serialisation", list(Serialisation))
def test_each_serialisation_can_be_asked_for(site: Site, serialisation: Serialisation) -> None:
    from weighbridge.verifier.result import verify_any  # noqa: PLC0415 - only here
    from weighbridge.verifier.result.trusted import TrustedKeys  # noqa: PLC0415

    site.remote.window(site.world.host)
    answered = site.get(serialisation=serialisation, audience="relying-party")
    assert answered.token is not None
    keys = TrustedKeys.of(site.world.keys.signing.public_key())
    result = verify_any(answered.token, keys, audiences={"relying-party"}, at=site.world.clock.now())
    assert (result.session, result.serialisation) == (site.session, serialisation)


def test_a_denied_window_closes_at_once_and_says_why(site: Site) -> None:
    site.remote.window(site.world.host)
    site.world.host.log.load(manifest("other", weights=b"other"))
    assert site.remote.window(site.world.host)["outcome"] == "denied"
    answered = site.get()
    assert (answered.told.state, answered.told.code, answered.token) == (GateState.ENDED, Code.WEIGHTS_MISMATCH, None)
    assert answered.told.seq == 1


def test_a_relying_party_is_told_the_keys_for_tokens_and_nobody_else_is(site: Site) -> None:
    async def ask(channel: ChannelKey) -> bytes:
        async with site.client(channel) as client:
            return await client.token_keys()

    keys = TokenKeyStore(site.world.keys)
    now = site.world.clock.now()
    made = keys.new(at=now, not_before=now + ANNOUNCED_MIN, not_after=now + timedelta(days=1))
    told = jwks.read(site.served.run(ask(site.gate)), [TrustedKey(site.world.keys.signing.public_key())])
    assert {key.kid for key in told} == {made.trusted.kid, site.world.keys.thumbprint}
    keys.retire(made.trusted.kid, at=now, distrust=True)
    assert json.loads(site.served.run(ask(site.gate))) == keys.jwks(now)
    for channel in (site.stranger, site.authority.admit("another attester")):
        with pytest.raises(NotAuthentic) as refusal:
            site.served.run(ask(channel))
        assert refusal.value.code is Code.RELYING_PARTY_UNKNOWN


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_whoever_is_not_listed_is_refused_and_learns_nothing(site: Site) -> None:
    attester = site.authority.admit("another attester")
    for channel in (site.stranger, attester):
        assert site.refused(by=channel).code is Code.RELYING_PARTY_UNKNOWN
        assert site.refused(bytes(16), by=channel).code is Code.RELYING_PARTY_UNKNOWN
        assert site.refused(by=channel, audience="b").code is Code.RELYING_PARTY_UNKNOWN


def test_an_attester_cannot_read_even_its_own_session(site: Site) -> None:
    own = site.authority.admit("attester")
    assert own.peer == site.world.host.peer
    assert site.refused(by=own).code is Code.RELYING_PARTY_UNKNOWN


def test_other_tenants_and_unknown_sessions_are_refused_alike(site: Site) -> None:
    """A66: nobody learns whether another tenant has such a session."""
    known, unknown = site.refused(by=site.outsider), site.refused(bytes(16), by=site.outsider)
    assert {known.code, unknown.code, site.refused(bytes(16)).code} == {Code.SESSION_UNKNOWN}
    assert str(known).replace(site.session.hex(), "") == str(unknown).replace(bytes(16).hex(), "")


def test_an_audience_that_is_not_listed_is_refused(site: Site) -> None:
    error = site.refused(audience="b")
    assert (error.code, error.exit_code) == (Code.RESULT_AUDIENCE, ExitCode.DENIED)
    assert "--relying-parties" in error.hint


def test_a_relying_party_cannot_attest(site: Site) -> None:
    """Neither one that is listed, nor a stranger whom the relying parties' authority has certified."""
    for channel in (site.gate, site.outsider, site.stranger):

        async def attest(channel: ChannelKey = channel) -> None:
            line = await site.served.transport(channel).connect()
            try:
                await line.open(b"")
            finally:
                await line.disconnect()

        with pytest.raises(EnvironmentFault) as caught:
            site.served.run(attest())
        assert caught.value.code is Code.PEER_REFUSED
        assert Code.PEER_ROLE in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (results_pb2.GetResultRequest(), grpc.StatusCode.INVALID_ARGUMENT, Code.FIELD_RANGE),
        (results_pb2.GetResultRequest(session=bytes(15)), grpc.StatusCode.INVALID_ARGUMENT, Code.FIELD_RANGE),
        (
            # A serialisation of a later version.
            results_pb2.GetResultRequest.FromString(b"\x0a\x10" + bytes(16) + b"\x18\x09"),
            grpc.StatusCode.INVALID_ARGUMENT,
            Code.FIELD_RANGE,
        ),
        (
            results_pb2.GetResultRequest(session=bytes(16), audience=""),
            grpc.StatusCode.PERMISSION_DENIED,
            Code.RESULT_AUDIENCE,
        ),
        (results_pb2.GetResultRequest(session=bytes(16)), grpc.StatusCode.NOT_FOUND, Code.SESSION_UNKNOWN),
        (results_pb2.WatchResultsRequest(), grpc.StatusCode.INVALID_ARGUMENT, Code.FIELD_RANGE),
        (results_pb2.WatchResultsRequest(sessions=[bytes(16)] * 2), grpc.StatusCode.INVALID_ARGUMENT, Code.FIELD_RANGE),
        (results_pb2.WatchResultsRequest(sessions=[bytes(16)]), grpc.StatusCode.NOT_FOUND, Code.SESSION_UNKNOWN),
        (
            results_pb2.WatchResultsRequest(sessions=[number.to_bytes(16) for number in range(1025)]),
            grpc.StatusCode.INVALID_ARGUMENT,
            Code.FIELD_RANGE,
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_a_status_with_its_document(
    site: Site,
    request_: results_pb2.GetResultRequest | results_pb2.WatchResultsRequest,
    status: grpc.StatusCode,
    code: Code,
) -> None:
    stub = results_pb2_grpc.ResultServiceStub(site.served.dial(site.gate))

    async def ask() -> object:
        if isinstance(request_, results_pb2.GetResultRequest):
            return await stub.GetResult(request_)
        return [response async for response in stub.WatchResults(request_)]

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        site.served.run(ask())
    error = caught.value
    assert error.code() is status
    document = json.loads(error.details() or "")
    assert document["code"] == code
    assert set(document) == {"code", "message", "where", "expected", "got", "clause", "hint", "exit_code"}


def test_a_defect_is_told_without_detail(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        mock.patch.object(Standings, "of", side_effect=ZeroDivisionError("secret")),
        pytest.raises(EnvironmentFault) as caught,
    ):
        site.get()
    assert "secret" not in str(caught.value)
    assert "secret" in capfd.readouterr().err


# -- watching ----------------------------------------------------------------------------------------------------------


class Watcher:
    """A watch that a test reads from, item by item."""

    def __init__(self, site: Site, *sessions: bytes) -> None:
        self._site = site
        self._client = site.client(site.gate)
        self._told: AsyncGenerator[Answered | None] | None = None
        self._sessions = sessions or (site.session,)

    def __enter__(self) -> Self:
        self._site.served.run(self._client.__aenter__())
        self._told = self._client.watch(self._sessions)
        return self

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            if self._told is not None:
                await self._told.aclose()
            await self._client.__aexit__(None, None, None)

        self._site.served.run(close())

    def next(self, patience: float = 5) -> Answered | None:
        async def read() -> Answered | None:
            assert self._told is not None
            async with asyncio.timeout(patience):
                return await anext(self._told)

        return self._site.served.run(read())

    def state(self, patience: float = 5) -> GateState:
        answered = self.next(patience)
        assert answered is not None
        return answered.told.state


def test_changes_are_told_within_a_quarter_of_a_second(site: Site) -> None:
    with Watcher(site) as watcher:
        assert watcher.state() is GateState.WAITING
        for seq in range(3):
            site.remote.window(site.world.host)
            # The window's answer has arrived; from here on nothing is to be waited for.
            began = time.monotonic()
            answered = watcher.next()
            assert time.monotonic() - began < 0.25
            assert answered is not None
            assert (answered.told.state, answered.told.seq) == (GateState.OPEN, seq)
            assert answered.token is not None
        began = time.monotonic()
        site.remote.close(site.session)
        assert watcher.state() is GateState.ENDED
        assert time.monotonic() - began < 0.5


def test_expiry_is_told_as_a_change(site: Site) -> None:
    with Watcher(site) as watcher:
        assert watcher.state() is GateState.WAITING
        site.remote.window(site.world.host)
        assert watcher.state() is GateState.OPEN
        site.world.clock.advance(60)
        answered = watcher.next()
        assert answered is not None
        assert (answered.told.state, answered.told.code) == (GateState.CLOSED, Code.TOKEN_EXPIRED)
        site.remote.window(site.world.host)
        # It came too late to be fresh, and changes nothing; the next one opens.
        site.remote.window(site.world.host)
        assert watcher.state() is GateState.OPEN


def test_a_heartbeat_says_that_nothing_has_changed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_service, "_HEARTBEAT_S", 0.2)
    with Watcher(site) as watcher:
        assert watcher.state() is GateState.WAITING
        began = time.monotonic()
        assert [watcher.next(), watcher.next()] == [None, None]
        assert 0.3 < time.monotonic() - began < 2


def test_changes_by_another_process_are_found(site: Site) -> None:
    with Watcher(site) as watcher:
        assert watcher.state() is GateState.WAITING
        with mock.patch.object(Standings, "changed"):
            site.remote.window(site.world.host)
            began = time.monotonic()
            assert watcher.state() is GateState.OPEN
            assert time.monotonic() - began < 1.5


def test_a_store_that_cannot_be_read_ends_the_watch(site: Site) -> None:
    """A heartbeat would say that all stands as it was told."""
    broken = EnvironmentFault(Code.STATE_CORRUPT, "the state is damaged")
    with Watcher(site) as watcher:
        assert watcher.state() is GateState.WAITING
        with mock.patch.object(Standings, "versions", side_effect=broken), pytest.raises(EnvironmentFault) as caught:
            watcher.next()
        assert caught.value.code is Code.STATE_CORRUPT


def test_a_watch_ends_in_good_order_after_its_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_service, "_WATCH_S", 0.1)
    with Watcher(site) as watcher:
        assert watcher.state() is GateState.WAITING
        with pytest.raises(StopAsyncIteration):
            watcher.next()


def test_watches_of_one_relying_party_are_bounded(site: Site) -> None:
    with Watcher(site) as watcher, Watcher(site) as another:
        assert watcher.state() is another.state() is GateState.WAITING
        error = site.refused()
        assert (error.code, error.exit_code) == (Code.RATE_LIMITED, ExitCode.ENVIRONMENT)
    # What has ended makes room.
    for _ in range(50):
        try:
            site.get()
            break
        except EnvironmentFault:
            time.sleep(0.02)
    assert site.get().told.state is GateState.WAITING


def test_a_fault_of_the_disk_closes_what_was_told_to_be_open(site: Site) -> None:
    with Watcher(site) as watcher:
        assert watcher.state() is GateState.WAITING
        site.remote.window(site.world.host)
        assert watcher.state() is GateState.OPEN
        site.world.host.log.load(manifest("other", weights=b"other"))
        full = EnvironmentFault(Code.DISK_FULL, "no space left")
        with mock.patch.object(LiveSessions, "_write_end", side_effect=full):
            with pytest.raises(EnvironmentFault):
                site.remote.window(site.world.host)
            answered = watcher.next()
        assert answered is not None
        assert (answered.told.state, answered.told.code) == (GateState.CLOSED, Code.WEIGHTS_MISMATCH)


def test_reading_waits_for_no_writer(site: Site) -> None:
    site.remote.window(site.world.host)
    other = Store.create_or_open(site.world.directory / "sessions.sqlite")
    with other.transaction():
        assert site.get().told.is_open
    other.close()


# -- the command -------------------------------------------------------------------------------------------------------


def run(site: Site, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "gate.key").write_bytes(site.gate.key)
    (tmp_path / "gate.pem").write_bytes(site.gate.certificate)
    command = [
        str(PROGRAM), "result", site.session.hex(),
        "--verifier", f"localhost:{site.served.port}", "--verifier-ca", str(site.authority.tls.client_ca),
        "--key", str(tmp_path / "gate.key"), "--certificate", str(tmp_path / "gate.pem"), *arguments,
    ]  # fmt: skip

    async def call() -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            lambda: subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        )

    return site.served.run(call())


def test_the_command_shows_standing_and_token(site: Site, tmp_path: Path) -> None:
    done = run(site, tmp_path)
    assert done.returncode == ExitCode.INDETERMINATE
    assert done.stdout.startswith(f"WAITING: session {site.session.hex()}: RESULT_ABSENT: ")
    site.remote.window(site.world.host)
    done = run(site, tmp_path, "--json", "--save-jwks", str(tmp_path / "jwks.json"))
    assert (done.returncode, done.stderr) == (0, "")
    saved = json.loads((tmp_path / "jwks.json").read_bytes())
    assert saved == TokenKeyStore(site.world.keys).jwks(site.world.clock.now())
    document = json.loads(done.stdout)
    answered = site.get()
    assert answered.told.expires_ns is not None
    assert document["schema"] == "weighbridge/result/v1"
    assert (document["state"], document["seq"]) == ("open", 0)
    assert document["token"].encode() == answered.token
    assert document["expires"] == moment(answered.told.expires_ns).isoformat().replace("+00:00", "Z")
    refused = run(site, tmp_path, "--audience", "b", "--json")
    assert refused.returncode == ExitCode.DENIED
    assert json.loads(refused.stdout)["code"] == Code.RESULT_AUDIENCE
    site.remote.close(site.session)
    watched = run(site, tmp_path, "--watch")
    assert watched.returncode == ExitCode.DENIED
    assert f"ENDED: session {site.session.hex()}: SESSION_STATE" in watched.stdout
