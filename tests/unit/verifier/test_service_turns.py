"""Windows of one turn: how many are judged together, and who is asked about by himself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.proto.v1 import attestation_pb2
from weighbridge.verifier import attestation_service
from weighbridge.verifier.attestation_service import AttestationService
from weighbridge.verifier.attester_stream import Requested, Stream
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.hearing import Sent
from weighbridge.verifier.peers import Peers
from weighbridge.verifier.quotas import Quotas
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.service_limits import Limits
from weighbridge.verifier.settling import Judged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REFUSED = NotAuthentic(Code.WINDOW_SEQ, "windows before this one are missing")
HOMELESS = NotAuthentic(Code.SESSION_UNKNOWN, "this stream has no session")


class Slow:
    """A verifier that takes its time for each window, notes how many it is given at once, and refuses all of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.now = 0.0, 0.0
        self.together: list[int] = []
        monkeypatch.setattr(attestation_service, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.verifier = mock.create_autospec(Verifier)
        self.verifier.judge_all.side_effect = self.judge_all
        self.verifier.settle.return_value = ()

    def judge_all(self, sent: Sequence[Sent], *, beside: object) -> list[NotAuthentic]:
        assert beside == []
        self.together.append(len(sent))
        self.now += self.seconds * len(sent)
        return [REFUSED] * len(sent)

    def judge(self, window: bytes, beside: object) -> None:
        """What a stream does with a single window."""
        (error,) = self.judge_all([Sent(b"", window, b"")], beside=beside)
        raise error


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(monkeypatch)


@pytest.fixture
def service(slow: Slow) -> Iterator[AttestationService]:
    made = AttestationService(slow.verifier, Peers(RelyingParties.none()), Quotas(Limits()))
    yield made
    made._thread.shutdown()


def requested(slow: Slow, window: bytes, *, at_home: bool = True) -> Requested:
    def sent(data: bytes) -> Sent:
        if not at_home:
            raise HOMELESS
        return Sent(b"", data, b"")

    stream = SimpleNamespace(sent=sent, judge=slow.judge)
    return Requested(cast("Stream", stream), attestation_pb2.AttestRequest(window=window))


def test_of_windows_that_take_long_fewer_are_judged_together(slow: Slow, service: AttestationService) -> None:
    """As many as a turn has time for: each has to wait for all beside it, and an engine's deadline is for them all."""
    windows = [requested(slow, b"window")] * 40
    slow.seconds = 0.005
    assert len(service._turn(windows)) == 16
    slow.seconds = 0.1
    slow.together.clear()
    assert [len(service._turn(windows)) for _ in range(4)] == [16, 2, 3, 2]
    slow.seconds = 0.9
    assert [len(service._turn(windows)) for _ in range(3)] == [3, 1, 1]
    assert slow.together == [16, 2, 3, 2, 3, 1, 1]
    slow.seconds = 0.0
    slow.together.clear()
    while len(slow.together) < 40:
        service._turn(windows)
    assert slow.together[:4] == [1, 2, 3, 4]
    assert max(slow.together) == 16


def test_that_the_database_is_back_is_said_once(
    slow: Slow, service: AttestationService, capsys: pytest.CaptureFixture[str]
) -> None:
    """When something has been recorded again: not before, and not of every window."""
    judged = mock.create_autospec(Judged, instance=True)
    verdict = SimpleNamespace(seq=0, encode=lambda: b"")
    answer = SimpleNamespace(verdict=verdict, token=b"", challenge=b"", spot=b"")
    slow.verifier.judge_all.side_effect = None
    slow.verifier.judge_all.return_value = [judged] * 2
    told = [lambda: answer] * 2
    gone = EnvironmentFault(Code.STATE_UNREACHABLE, "the line to the database was cut")
    slow.verifier.settle.side_effect = [told, gone, gone, told, told]
    said = []
    for _ in range(5):
        service._turn([requested(slow, b"window")] * 2)
        said.append(capsys.readouterr().err)
    assert [bool(line) for line in said] == [False, True, False, True, False]
    assert "nothing was judged" in said[1]
    assert said[3] == "weighbridge: windows are recorded again, after STATE_UNREACHABLE\n"


def test_a_window_of_a_stream_without_a_session_is_refused_by_itself(slow: Slow, service: AttestationService) -> None:
    windows = [requested(slow, b"one"), requested(slow, b"two", at_home=False), requested(slow, b"three")]
    codes = [response.refusal.error for response in service._turn(windows)]
    assert [Code.SESSION_UNKNOWN.encode() in code for code in codes] == [False, True, False]
    assert slow.together == [2]
