"""Windows that are judged together: of each comes what would come of it by itself, behind those before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self
from unittest import mock

import pytest

from support.world import PERIOD_NS, World, manifest
from weighbridge.attester.telemetry.emulated import EmulatedTelemetry
from weighbridge.policy.engine import Decision, decide_all
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.core import Judged, Sent
from weighbridge.verifier.observed import ObservedPolicy, Stage
from weighbridge.verifier.telemetry.history import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from support.world import Engines, Host
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Prepared
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.core import Answer

# Idle samples are too much alike to be told apart.
WORK = WorkSummary(root=bytes(32), requests=40, tokens_in=4000, tokens_out=4000, batch_max=40)


@pytest.fixture
def world(tmp_path: Path, engines: Engines) -> Iterator[World]:
    made = World.make(tmp_path, engines=engines)
    made.host.work = WORK
    made.open_session()
    yield made
    made.close()


def more(world: World, count: int) -> list[Host]:
    """The world's host, and others."""
    hosts = [world.host, *(world.another_host(f"host {number}") for number in range(1, count))]
    for host in hosts[1:]:
        host.work = WORK
        world.open_session(host)
    return hosts


def sent(host: Host, window: SealedWindow) -> Sent:
    return Sent(host.session, window.evidence, host.peer)


def backwards(source: Source) -> Source:
    """The same samples, but that the energy counter falls."""
    energy = source.channels["energy"]
    assert energy.values is not None
    return replace(source, channels={**source.channels, "energy": replace(energy, values=energy.values[::-1])})


def one_by_one(world: World, windows: Sequence[Sent]) -> list[Judged | WeighbridgeError]:
    made: list[Judged | WeighbridgeError] = []
    for session, data, peer in windows:
        try:
            beside = [item for item in made if isinstance(item, Judged)]
            made.append(world.verifier.judge(session, data, peer=peer, beside=beside))
        except WeighbridgeError as error:
            made.append(error)
    return made


def said(made: Sequence[Judged | WeighbridgeError]) -> list[object]:
    """What is recorded of each, or the code of its refusal."""
    return [item.record.encode() if isinstance(item, Judged) else item.code for item in made]


def answered(world: World, hosts: Sequence[Host], windows: Sequence[SealedWindow]) -> list[Answer]:
    """They are judged together, and settled."""
    made = world.verifier.judge_all([sent(host, window) for host, window in zip(hosts, windows, strict=True)])
    answers = [settled() for settled in world.verifier.settle([item for item in made if isinstance(item, Judged)])]
    for host, window, answer in zip(hosts, windows, answers, strict=True):
        host.advance(window)
        host.challenge = answer.challenge or b""
    return answers


def test_whatever_they_are_each_comes_to_the_same(world: World) -> None:
    hosts = more(world, 6)
    # Verified, and refused by an invariant: no policy is asked.
    hosts[4].log.load(manifest("other"))
    world.clock.advance(1)
    windows = [sent(host, host.seal()) for host in hosts]
    windows[1] = windows[1]._replace(data=b"junk")
    # Authentic, and refused by verification: a judgement.
    windows[2] = sent(hosts[2], hosts[2].seal(replace(hosts[2].observe(), prev=bytes(32))))
    windows[3] = windows[3]._replace(peer=sha256(b"another channel"))
    windows.insert(5, windows[0]._replace(session=bytes(16)))
    apart, junk = said(one_by_one(world, windows)), dict(world.verifier._judge.junk)
    world.verifier._judge.junk.clear()
    made = world.verifier.judge_all(windows)
    assert said(made) == apart
    assert [item for item in apart if isinstance(item, Code)] == [
        Code.NOT_CBOR,
        Code.WINDOW_PEER,
        Code.SESSION_UNKNOWN,
    ]
    assert world.verifier._judge.junk == junk == {Code.NOT_CBOR: 1}
    judged = [item for item in made if isinstance(item, Judged)]
    answers = [settled().verdict for settled in world.verifier.settle(judged)]
    assert [verdict.outcome for verdict in answers] == ["affirmed", "denied", "denied", "affirmed"]


def test_samples_in_common_count_only_if_the_first_goes_on(world: World) -> None:
    """One recording from two hosts; the counter of the first runs backwards, which ends its session."""
    one, two = more(world, 2)
    world.clock.advance(1)
    # What a first window brings of a loaded model is sealed once.
    answered(world, [one, two], [one.seal(), two.seal()])
    world.clock.advance(1)
    ours, theirs = one.gpus.identities(), two.gpus.identities()
    # A hundred readings: enough of a window to be known by itself.
    sensors = EmulatedTelemetry(1, ours, period_ns=PERIOD_NS // 100)
    read = sensors.window(start_wall_ns=one.wall_ns, duration_ns=PERIOD_NS, work=WORK)
    names = dict(zip(ours, theirs, strict=True))
    one.sampled[one.session, 1] = tuple(read)
    two.sampled[two.session, 1] = tuple(
        replace(source, device=None if source.device is None else names[source.device]) for source in read
    )
    windows = [sent(one, one.seal()), sent(two, two.seal())]
    _, copy = world.verifier.judge_all(windows)
    assert isinstance(copy, Judged)
    assert {denial.code for denial in copy.verdict.denials} == {Code.TELEMETRY_IMPLAUSIBLE}
    assert said(one_by_one(world, windows)) == said(world.verifier.judge_all(windows))
    one.sampled[one.session, 1] = tuple(map(backwards, read))
    windows[0] = sent(one, one.seal())
    gone, alone = world.verifier.judge_all(windows)
    assert isinstance(gone, Judged)
    assert isinstance(alone, Judged)
    assert (gone.goes_on, bool(gone.traces)) == (False, True)
    assert alone.asked is not None
    assert alone.asked.recalled.history.copies == ()
    assert said(one_by_one(world, windows)) == said([gone, alone])


@dataclass
class Counted:
    """A policy that is told to fail at one session, and counts how often it is asked, and about how many."""

    inner: Prepared
    asked: list[int]
    failing: bytes = b""

    def decide(self, document: PolicyInput) -> Decision:
        (decided,) = self.decide_all([document])
        if isinstance(decided, WeighbridgeError):
            raise decided
        return decided

    def decide_all(self, documents: Sequence[PolicyInput]) -> list[Decision | WeighbridgeError]:
        self.asked.append(len(documents))
        fault = EnvironmentFault(Code.COMMAND_FAILED, "no process can be started")
        decided = decide_all(self.inner, documents)
        return [
            fault if document.session.id == self.failing.hex() else one
            for document, one in zip(documents, decided, strict=True)
        ]

    def close(self) -> None:
        """It is closed with all others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See :meth:`close`."""


def test_the_policy_is_asked_once_and_a_fault_is_one_windows(world: World) -> None:
    hosts = more(world, 3)
    policy, observer = Counted(world.prepared, []), mock.Mock()
    world.prepared = ObservedPolicy(policy, observer)
    world.restart()
    world.clock.advance(1)
    windows = [host.seal() for host in hosts]
    policy.failing = hosts[1].session
    first, fault, last = world.verifier.judge_all(
        [sent(host, window) for host, window in zip(hosts, windows, strict=True)]
    )
    assert policy.asked == [3]
    assert [call.args[0] for call in observer.took.call_args_list] == [Stage.POLICY] * 3
    assert isinstance(fault, EnvironmentFault)
    assert [item.verdict.outcome for item in (first, last) if isinstance(item, Judged)] == ["affirmed", "affirmed"]
    # Nothing was recorded of any of them, so that all may come again.
    policy.failing = b""
    assert [answer.verdict.outcome for answer in answered(world, hosts, windows)] == ["affirmed"] * 3


def test_an_older_entry_of_the_ledger_is_asked_about_once_for_all(world: World) -> None:
    """Between judging and recording another window was recorded: what GPUs are remembered by is looked up again."""
    hosts = more(world, 4)
    world.clock.advance(1)
    windows = [host.seal() for host in hosts]
    made = [
        item
        for item in world.verifier.judge_all([sent(host, one) for host, one in zip(hosts, windows, strict=True)][1:])
        if isinstance(item, Judged)
    ]
    known = world.ledger.size
    assert world.verifier._judge.holding(made, known) == [True] * 3
    answered(world, hosts[:1], windows[:1])
    assert world.verifier._judge.holding(made, world.ledger.size) == [True] * 3
    asked = made[0].asked
    assert asked is not None
    reading = Reading(device=bytes(32), session=bytes(16), seq=0, wall_ns=0, energy_mj=0)
    recalled = asked.recalled._replace(history=replace(asked.recalled.history, readings=(reading,)))
    stale = [replace(made[0], asked=replace(asked, recalled=recalled))]
    assert world.verifier._judge.holding([*stale, *made[1:]], world.ledger.size) == [False, True, True]
    assert [settled().verdict.outcome for settled in world.verifier.settle(made)] == ["affirmed"] * 3
