"""The verifier as a service, over real gRPC and mutual TLS, with the attester's own transport at the other end."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest import mock

import grpc
import grpc.aio
import hypothesis.strategies as st
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given, settings

from support.service import Authority, Raw, Remote, Served
from support.spots import left, stock
from support.world import World, requirements
from weighbridge.attester.client import Answer
from weighbridge.proto import limits
from weighbridge.proto.enrolment import Opening
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.proto.v1 import attestation_pb2 as pb
from weighbridge.proto.window import Evidence
from weighbridge.verifier import attestation_service
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, Prepared
    from weighbridge.verifier.core import Judged, Settled

NOWHERE = bytes(16)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path)
    yield made
    made.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def served(world: World, authority: Authority) -> Iterator[Served]:
    with Served(world, authority) as running:
        yield running


def code_of(action: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as caught:
        action()
    return caught.value.code


def state_of(world: World, session: bytes) -> tuple[SessionState, int]:
    with world.store.transaction() as tx:
        row = tx.session(session)
    assert row is not None
    return row.state, row.next_seq


# -- the way through ---------------------------------------------------------------------------------------------------


def test_a_session_from_opening_to_closing(world: World, served: Served) -> None:
    remote = served.join(world.host)
    assert [remote.window(world.host)["outcome"] for _ in range(3)] == ["affirmed"] * 3
    summary = remote.close(world.host.session)
    assert (summary["state"], summary["windows"]) == ("closed", 3)
    assert state_of(world, world.host.session) == (SessionState.CLOSED, 3)
    assert code_of(lambda: remote.window(world.host)) is Code.SESSION_UNKNOWN
    assert code_of(lambda: remote.resume(world.host.session)) is Code.SESSION_STATE


def test_spot_challenges_come_with_the_challenges(tmp_path: Path, authority: Authority) -> None:
    world = World.make(tmp_path, wanted=requirements(spot_every=2))
    stock(world)
    with Served(world, authority) as served:
        channel = authority.admit("attester")
        world.host.peer = channel.peer
        remote = served.connect(channel)
        remote.enrol(world.host)
        assert world.host.spot is not None
        assert [remote.window(world.host)["outcome"] for _ in range(3)] == ["affirmed"] * 3
        assert left(world) == (6, 2)
        remote.window(world.host)
        remote.cut()
        again = served.connect(channel)
        resumed = served.run(again.line.resume(world.host.session))
        assert resumed.spot is not None
        world.host.challenge, world.host.spot = resumed.challenge, resumed.spot.encode()
        assert again.window(world.host)["outcome"] == "affirmed"
        # What was asked a moment ago still stands.
        assert left(world) == (5, 3)
    world.close()


def test_a_cut_stream_is_resumed(world: World, served: Served) -> None:
    """What was sealed under the old challenge is held; the answer to it makes the next window fresh again."""
    channel = served.authority.admit("attester")
    world.host.peer = channel.peer
    remote = served.connect(channel)
    remote.enrol(world.host)
    assert remote.window(world.host)["outcome"] == "affirmed"
    remote.cut()
    world.clock.advance(1)
    spooled = world.host.seal()
    world.host.advance(spooled)
    again = served.connect(channel)
    seq, world.host.challenge = again.resume(world.host.session)
    assert seq == 1
    assert json.loads(again.send(spooled.evidence).verdict)["outcome"] == "held"
    assert code_of(lambda: again.send(spooled.evidence)) is Code.WINDOW_DUPLICATE
    _, world.host.challenge = again.resume(world.host.session)
    assert again.window(world.host)["outcome"] == "affirmed"
    assert again.close(world.host.session)["windows"] == 3


def test_windows_that_wait_are_settled_together(world: World, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer goes to the one that asked, and the failure of one, or a fault of the disk, is told as ever."""
    monkeypatch.setattr(attestation_service, "_TURN", 60.0)
    hosts = [world.host, world.another_host("second"), world.another_host("third")]
    remotes = [served.join(host, f"attester-{number}") for number, host in enumerate(hosts)]
    turns: list[int] = []
    settle, judge, go = world.verifier.settle, world.verifier.judge, threading.Event()

    def noted(judged: Sequence[Judged]) -> tuple[Settled, ...]:
        turns.append(len(judged))
        return settle(judged)

    def waiting(session: bytes, data: bytes, *, peer: bytes, beside: Sequence[Judged] = ()) -> Judged:
        assert go.wait(10)
        return judge(session, data, peer=peer, beside=beside)

    monkeypatch.setattr(world.verifier, "settle", noted)
    monkeypatch.setattr(world.verifier, "judge", waiting)

    def send(windows: list[bytes]) -> list[str]:
        """What comes of each: the outcome, or the code of a refusal."""

        async def send_all() -> list[Answer | BaseException]:
            go.clear()
            pairs = zip(remotes, windows, strict=True)
            tasks = [asyncio.ensure_future(remote.line.window(data)) for remote, data in pairs]
            # The first is under way when the others arrive.
            await asyncio.sleep(0.2)
            go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

        told: list[str] = []
        for host, answer in zip(hosts, served.run(send_all()), strict=True):
            if isinstance(answer, Answer):
                verdict = json.loads(answer.verdict)
                assert verdict["session"] == host.session.hex()
                host.challenge = answer.challenge or b""
                told.append(verdict["outcome"])
            else:
                assert isinstance(answer, WeighbridgeError)
                told.append(answer.code)
        return told

    world.clock.advance(1)
    sealed = [host.seal() for host in hosts]
    assert send([window.evidence for window in sealed]) == ["affirmed"] * 3
    assert sum(turns) == 3
    assert max(turns) >= 2
    for host, window in zip(hosts, sealed, strict=True):
        host.advance(window)
    world.clock.advance(1)
    sealed = [host.seal() for host in hosts]
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with monkeypatch.context() as patch:
        patch.setattr(world.verifier, "settle", mock.Mock(side_effect=full))
        told = send([b"junk", *(window.evidence for window in sealed[1:])])
        assert told == [Code.NOT_CBOR, Code.DISK_FULL, Code.DISK_FULL]
    assert send([window.evidence for window in sealed]) == ["affirmed"] * 3
    for host, window in zip(hosts, sealed, strict=True):
        host.advance(window)
    world.clock.advance(1)
    sealed = [host.seal() for host in hosts]
    # Where something is wrong with several, each is judged by itself.
    with monkeypatch.context() as patch:
        patch.setattr(world.verifier, "judge_all", mock.Mock(side_effect=KeyError("a defect")))
        assert send([window.evidence for window in sealed]) == ["affirmed"] * 3


def test_two_attesters_at_once(world: World, served: Served) -> None:
    """Each answer goes to the one that asked."""
    other = world.another_host("other")
    remotes = [served.join(world.host, "one"), served.join(other, "other")]
    hosts = [world.host, other]

    async def both(sealed: list[bytes]) -> list[bytes]:
        answers = await asyncio.gather(
            *(remote.line.window(data) for remote, data in zip(remotes, sealed, strict=True))
        )
        for host, answer in zip(hosts, answers, strict=True):
            assert answer.challenge is not None
            host.challenge = answer.challenge
        return [answer.verdict for answer in answers]

    for _ in range(3):
        world.clock.advance(1)
        sealed = [host.seal() for host in hosts]
        verdicts = [json.loads(data) for data in served.run(both([item.evidence for item in sealed]))]
        assert [verdict["outcome"] for verdict in verdicts] == ["affirmed", "affirmed"]
        assert [bytes.fromhex(verdict["session"]) for verdict in verdicts] == [host.session for host in hosts]
        for host, item in zip(hosts, sealed, strict=True):
            host.advance(item)


def test_health_and_reflection(served: Served) -> None:
    channel = served.dial(served.authority.admit("operator"))

    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    reflect = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def ask() -> tuple[int, set[str]]:
        health = await check(health_pb2.HealthCheckRequest())
        questions = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="weighbridge.proto.v1.AttestationService"),
        ]
        listed, described = [answer async for answer in reflect(iter(questions))]
        (file,) = described.file_descriptor_response.file_descriptor_proto
        assert descriptor_pb2.FileDescriptorProto.FromString(file).package == "weighbridge.proto.v1"
        return health.status, {service.name for service in listed.list_services_response.service}

    status, names = served.run(ask())
    assert status == health_pb2.HealthCheckResponse.SERVING
    assert names == {
        "weighbridge.proto.v1.AttestationService",
        "weighbridge.proto.v1.ResultService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


# -- who may talk ------------------------------------------------------------------------------------------------------


def unavailable(served: Served, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        Raw(served, channel).ask(pb.AttestRequest(window=b"x"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_without_a_certificate_there_is_no_stream(world: World, served: Served) -> None:
    unavailable(served, served.dial(None))
    unavailable(served, served.dial(None, plain=True))
    assert world.ledger.size == 0


def test_a_certificate_of_another_authority(tmp_path: Path, served: Served) -> None:
    """Either side refuses the other's."""
    stranger = Authority(tmp_path / "stranger")
    foreign, admitted = stranger.admit("attester"), served.authority.admit("attester")
    unavailable(served, served.dial(foreign))
    for transport in (served.transport(foreign), served.transport(admitted, authority=stranger)):
        with pytest.raises(EnvironmentFault) as caught:
            served.run(transport.connect())
        assert caught.value.code is Code.PEER_UNREACHABLE
        assert "authority" in caught.value.hint


def test_an_admitted_peer_speaks_for_itself_only(world: World, served: Served) -> None:
    """A74: opening, proof, session and windows of one attester, over the channel of another that is admitted too."""
    honest = served.join(world.host)
    assert honest.window(world.host)["outcome"] == "affirmed"
    relay = served.connect(served.authority.admit("relay"))
    # An opening that names the victim's key.
    assert code_of(lambda: relay.open(world.host.opening().encode())) is Code.WINDOW_PEER
    # The victim's proof, to a challenge that the victim asked for.
    challenge = honest.open(world.host.opening().encode())
    proof = world.host.proof(challenge).encode()
    assert code_of(lambda: relay.prove(proof)) is Code.WINDOW_PEER
    # The victim's session.
    assert code_of(lambda: relay.resume(world.host.session)) is Code.WINDOW_PEER
    # The victim's window, in no session and in the relay's own.
    world.clock.advance(1)
    sealed = world.host.seal()
    assert code_of(lambda: relay.send(sealed.evidence)) is Code.SESSION_UNKNOWN
    other = world.another_host("relay", peer=served.authority.admit("relay").peer)
    relay.enrol(other)
    assert code_of(lambda: relay.send(sealed.evidence)) is Code.TELEMETRY_KEY_MISMATCH
    assert code_of(lambda: relay.close(world.host.session)) is Code.WINDOW_SESSION
    # None of it touched either session.
    assert relay.window(other)["outcome"] == "affirmed"
    assert state_of(world, world.host.session) == (SessionState.RUNNING, 1)


def test_a_verifier_in_the_middle(world: World, served: Served) -> None:
    """A68, A74: an admitted attester lets an honest one answer its challenge, under its own channel key."""
    channel = served.authority.admit("middle")
    middle = served.connect(channel)
    honest = world.host
    forged = replace(Opening.parse(honest.opening().encode()), peer=channel.peer)
    challenge = middle.open(forged.encode())
    assert code_of(lambda: middle.prove(honest.proof(challenge).encode())) is Code.TPM_NONCE


def test_evidence_is_for_one_verifier(tmp_path: Path, world: World, served: Served) -> None:
    """A74: what one verifier was sent convinces no other, though it believes the same roots and knows the same host."""
    remote = served.join(world.host)
    world.clock.advance(1)
    sealed = world.host.seal()
    elsewhere = World.make(_made(tmp_path / "elsewhere"), gpus=world.host.gpus, anchors=world.anchors)
    try:
        with Served(elsewhere, served.authority) as second:
            theirs = second.connect(served.authority.admit("attester"))
            assert code_of(lambda: theirs.resume(world.host.session)) is Code.SESSION_UNKNOWN
            assert code_of(lambda: theirs.send(sealed.evidence)) is Code.SESSION_UNKNOWN
            session, terms = world.host.session, world.host.terms
            theirs.enrol(world.host)
            assert (world.host.session, world.host.terms) != (session, terms)
            assert code_of(lambda: theirs.send(sealed.evidence)) is Code.TELEMETRY_KEY_MISMATCH
            assert theirs.window(world.host)["outcome"] == "affirmed"
    finally:
        elsewhere.close()
    assert json.loads(remote.send(sealed.evidence).verdict)["outcome"] == "affirmed"


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


# -- out of turn, out of form ------------------------------------------------------------------------------------------


def request(**fields: object) -> pb.AttestRequest:
    return pb.AttestRequest(**fields)  # type: ignore[arg-type]  # one field each, of its own type


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        (request(window=b"\xa0"), Code.SESSION_UNKNOWN, 4),
        (request(close=pb.Close(session=NOWHERE)), Code.SESSION_UNKNOWN, 4),
        (request(close=pb.Close()), Code.FIELD_RANGE, 3),
        (request(resume=pb.Resume(session=NOWHERE)), Code.SESSION_UNKNOWN, 4),
        (request(resume=pb.Resume(session=b"short")), Code.FIELD_RANGE, 3),
        (request(resume=pb.Resume()), Code.FIELD_RANGE, 3),
        (request(opening=b""), Code.NOT_CBOR, 3),
        (request(proof=b""), Code.NOT_CBOR, 3),
        (pb.AttestRequest(), Code.FIELD_MISSING, 3),
        # Field 15, bytes "new": what a later version might send.
        (pb.AttestRequest.FromString(b"\x7a\x03new"), Code.FIELD_MISSING, 3),
    ],
)
def test_refusals_carry_code_and_class(served: Served, message: pb.AttestRequest, code: Code, status: int) -> None:
    stream = served.raw(served.authority.admit("attester"))
    assert stream.refused(message) == (code.value, status)
    # The stream goes on.
    assert stream.refused(pb.AttestRequest()) == (Code.FIELD_MISSING.value, 3)


def test_a_proof_without_an_opening(world: World, served: Served) -> None:
    remote = served.join(world.host)
    challenge = remote.open(world.host.opening().encode())
    proof = world.host.proof(replace(challenge, session=NOWHERE)).encode()
    assert code_of(lambda: remote.prove(proof)) is Code.CHALLENGE_UNKNOWN


def test_a_message_that_is_too_large(world: World, served: Served) -> None:
    """It ends its stream before it is read; the session is resumed on another."""
    remote = served.join(world.host)
    channel = served.authority.admit("attester")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        served.raw(channel).ask(pb.AttestRequest(window=bytes(limits.MESSAGE_MAX + 1)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Within the bound of a message, beyond that of a window.
    assert code_of(lambda: remote.send(bytes(limits.EVIDENCE_MAX + 1))) is Code.TOO_LARGE
    assert remote.window(world.host)["outcome"] == "affirmed"


def test_garbage_in_every_field_changes_nothing(world: World, served: Served) -> None:
    """A70: any bytes in any field, also pieces of the real thing, are refused as malformed or not authentic.

    Bits are flipped where the session's key signs: what it did sign, over its own channel, is judged, and may fail it.
    """
    remote = served.join(world.host)
    assert remote.window(world.host)["outcome"] == "affirmed"
    raw = served.raw(served.authority.admit("attester"))
    resume = pb.AttestRequest(resume=pb.Resume(session=world.host.session))
    opening, sealed = world.host.opening().encode(), world.host.seal().evidence
    signed = Evidence.parse(sealed).window
    assert sealed.count(signed) == 1

    def damaged(whole: bytes, part: bytes) -> st.SearchStrategy[bytes]:
        cut = st.integers(0, len(whole) - 1).map(lambda at: whole[:at])
        flipped = st.integers(0, 8 * len(part) - 1).map(
            lambda bit: whole.replace(part, (int.from_bytes(part) ^ (1 << bit)).to_bytes(len(part)))
        )
        return st.one_of(st.binary(max_size=300), cut, flipped)

    requests = st.one_of(
        damaged(opening, opening).map(lambda data: pb.AttestRequest(opening=data)),
        st.binary(max_size=300).map(lambda data: pb.AttestRequest(proof=data)),
        damaged(sealed, signed).map(lambda data: pb.AttestRequest(window=data)),
        st.binary(max_size=40).map(lambda data: pb.AttestRequest(resume=pb.Resume(session=data))),
        st.binary(max_size=40).map(lambda data: pb.AttestRequest(close=pb.Close(session=data))),
    )

    @settings(max_examples=100)
    @given(requests)
    def refused(message: pb.AttestRequest) -> None:
        assert raw.ask(resume).WhichOneof("response") == "resumed"
        response = raw.ask(message)
        # An opening with a flipped bit where nothing is signed yet may be answered; nothing else is.
        if response.WhichOneof("response") == "challenge":
            assert message.HasField("opening")
            return
        code, status = json.loads(response.refusal.error)["code"], response.refusal.exit_code
        assert code in Code.__members__
        assert status in {3, 4, 5}

    refused()
    assert state_of(world, world.host.session) == (SessionState.RUNNING, 1)
    _, world.host.challenge = remote.resume(world.host.session)
    assert remote.window(world.host)["outcome"] == "affirmed"


def test_junk_is_counted_once_and_recorded_once(world: World, served: Served) -> None:
    remote = served.join(world.host)
    for _ in range(3):
        assert code_of(lambda: remote.send(b"junk")) is Code.NOT_CBOR
    assert code_of(lambda: remote.resume(NOWHERE)) is Code.SESSION_UNKNOWN
    raw = served.raw(served.authority.admit("other"))
    assert raw.refused(pb.AttestRequest()) == ("FIELD_MISSING", 3)
    before = world.ledger.size
    served.stop()
    assert world.ledger.size == before + 1
    record = world.archive.records.record(before)
    assert record.kind == "junk"
    assert json.loads(record.verdict)["counts"] == {"FIELD_MISSING": 1, "NOT_CBOR": 3, "SESSION_UNKNOWN": 1}


# -- the end of the server ---------------------------------------------------------------------------------------------


class Slow:
    """A policy that decides when it is told to."""

    def __init__(self, inner: Prepared) -> None:
        self._inner = inner
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def decide(self, document: PolicyInput) -> Decision:
        self.begun.set()
        assert self.go_on.wait(10)
        return self._inner.decide(document)


def test_stopping_finishes_the_judgement_in_progress(world: World, authority: Authority) -> None:
    """The window under judgement is recorded and its answer arrives; whoever only waits learns that the line is cut."""
    slow = Slow(world.prepared)
    world.prepared = slow  # type: ignore[assignment]  # what the verifier needs of it
    world.restart()
    with Served(world, authority) as served:
        remote = served.join(world.host)
        idle: Remote = served.connect(authority.admit("idle"))
        world.clock.advance(1)
        sealed = world.host.seal()

        async def stop_while_judging() -> tuple[bytes, Code]:
            loop = asyncio.get_running_loop()
            lost = asyncio.create_task(idle.line.lost())
            answer = asyncio.create_task(remote.line.window(sealed.evidence))
            await loop.run_in_executor(None, slow.begun.wait)
            served.ask_to_stop()
            await asyncio.sleep(0.2)
            assert not answer.done()
            slow.go_on.set()
            return (await answer).verdict, (await lost).code

        verdict, code = served.run(stop_while_judging())
        assert json.loads(verdict)["outcome"] == "affirmed"
        assert code is Code.PEER_UNREACHABLE
    assert state_of(world, world.host.session) == (SessionState.RUNNING, 1)
    key = world.ledger.key
    assert audit(world.directory / "ledger", key, key.name).size == 2


def test_a_restarted_server_knows_its_sessions(world: World, authority: Authority) -> None:
    """Everything in memory is re-made from the records: the session goes on where it stood."""
    with Served(world, authority) as served:
        remote = served.join(world.host)
        assert [remote.window(world.host)["outcome"] for _ in range(2)] == ["affirmed", "affirmed"]
    world.restart()
    channel = authority.admit("attester")
    with Served(world, authority) as served:
        remote = served.connect(channel)
        seq, world.host.challenge = remote.resume(world.host.session)
        assert seq == 2
        assert remote.window(world.host)["outcome"] == "affirmed"
        assert remote.close(world.host.session)["windows"] == 3


def test_a_defect_of_ours_is_a_refusal(world: World, authority: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def decide(self, document: PolicyInput) -> Decision:
            raise KeyError(document.window.seq)

    world.prepared = Broken()  # type: ignore[assignment]  # what the verifier needs of it
    world.restart()
    with Served(world, authority) as served:
        remote = served.join(world.host)
        raw = served.raw(authority.admit("attester"))
        world.clock.advance(1)
        raw.ask(pb.AttestRequest(resume=pb.Resume(session=world.host.session)))
        # Held, since resuming gave out another challenge; judged all the same.
        assert raw.refused(pb.AttestRequest(window=world.host.seal().evidence)) == (None, 1)
        # To the operator in full, to the peer not.
        assert "KeyError: 0" in capfd.readouterr().err
        assert code_of(lambda: remote.send(b"junk")) is Code.NOT_CBOR
    assert state_of(world, world.host.session) == (SessionState.ENROLLED, 0)
