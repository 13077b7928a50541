"""Finding a verifier: at several addresses, again and again, and later if it wants to be asked later."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest
import pytest_asyncio

from fakes.virtual_time import VirtualClock
from weighbridge.attester.client import Line
from weighbridge.attester.reaching import Reaching
from weighbridge.attester.refusal import Throttled, refusal_error
from weighbridge.attester.replicas import Replicas
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault

pytestmark = pytest.mark.asyncio

SECOND = 1_000_000_000


def fault(code: Code = Code.PEER_UNREACHABLE, where: str = "line") -> EnvironmentFault:
    return EnvironmentFault(code, "on purpose", where=where, hint="wait")


class Place:
    """One address, that counts who came."""

    def __init__(self, name: str, asked: list[str], raised: EnvironmentFault | None = None) -> None:
        self.name = name
        self.asked = asked
        self.raised = raised

    async def connect(self) -> Line:
        self.asked.append(self.name)
        if self.raised is not None:
            raise self.raised
        return cast("Line", self)


async def test_the_address_after_the_one_that_was_cut_comes_first() -> None:
    asked: list[str] = []
    places = [Place(name, asked) for name in "abc"]
    replicas = Replicas(places, random.Random(1))
    for _ in range(6):
        await replicas.connect()
    assert sorted(asked[:3]) == ["a", "b", "c"]
    assert asked[3:] == asked[:3]


async def test_each_attester_begins_with_another_address() -> None:
    first: Counter[str] = Counter()
    for seed in range(300):
        asked: list[str] = []
        await Replicas([Place(name, asked) for name in "abc"], random.Random(seed)).connect()
        first[asked[0]] += 1
    assert min(first.values()) > 70


async def test_one_address_that_answers_will_do() -> None:
    for seed in range(10):
        asked: list[str] = []
        places = [Place("a", asked, fault()), Place("b", asked), Place("c", asked, fault())]
        replicas = Replicas(places, random.Random(seed))
        for _ in range(3):
            await replicas.connect()
            assert asked[-1] == "b"
        assert len(asked) <= 9


async def test_no_address_answers() -> None:
    asked: list[str] = []
    replicas = Replicas([Place(name, asked, fault(where=name)) for name in "ab"], random.Random(1))
    with pytest.raises(EnvironmentFault, match="none of the verifier's 2 addresses") as caught:
        await replicas.connect()
    assert (caught.value.code, caught.value.where) == (Code.PEER_UNREACHABLE, asked[-1])
    with pytest.raises(ValueError, match="at least one"):
        Replicas([], random.Random(1))


async def test_whoever_is_not_let_in_does_not_try_the_others() -> None:
    asked: list[str] = []
    replicas = Replicas([Place(name, asked, fault(Code.PEER_REFUSED)) for name in "ab"], random.Random(1))
    with pytest.raises(EnvironmentFault) as caught:
        await replicas.connect()
    assert (caught.value.code, len(asked)) == (Code.PEER_REFUSED, 1)


@pytest_asyncio.fixture
async def clock() -> AsyncIterator[VirtualClock]:
    made = VirtualClock()
    time = asyncio.ensure_future(made.run())
    yield made
    time.cancel()


def reaching(clock: VirtualClock, told: list[Code], *, patient: bool, stop: asyncio.Event | None = None) -> Reaching:
    return Reaching(
        clock=clock,
        rng=random.Random(1),
        patient=patient,
        stop=stop or asyncio.Event(),
        tell=lambda fault: told.append(fault.code),
    )


def failing(*faults: EnvironmentFault) -> Callable[[], asyncio.Future[str]]:
    left = list(faults)

    async def ask() -> str:
        if left:
            raise left.pop(0)
        return "at last"

    return lambda: asyncio.ensure_future(ask())


async def test_a_verifier_that_is_away_is_waited_for_by_the_patient_alone(clock: VirtualClock) -> None:
    told: list[Code] = []
    assert await reaching(clock, told, patient=True)(failing(*[fault()] * 12)) == "at last"
    assert told == [Code.PEER_UNREACHABLE]
    # Up to 1, 2, 4, 8, 16 and then 30 s each.
    assert 60 * SECOND < clock.elapsed_ns < 241 * SECOND
    with pytest.raises(EnvironmentFault):
        await reaching(clock, told, patient=False)(failing(fault()))
    for code in (Code.PEER_REFUSED, Code.DISK_FULL):
        with pytest.raises(EnvironmentFault):
            await reaching(clock, told, patient=True)(failing(fault(code)))
    assert len(told) == 1


async def test_a_verifier_that_wants_to_be_asked_later_is_asked_later(clock: VirtualClock) -> None:
    told: list[Code] = []
    document = strict.json_encode({"code": "RATE_LIMITED", "message": "too many"})
    error = refusal_error(8, document, retry_after_ms=90_000)
    assert isinstance(error, Throttled)
    assert await reaching(clock, told, patient=False)(failing(error, error)) == "at last"
    assert told == [Code.RATE_LIMITED]
    assert 180 * SECOND <= clock.elapsed_ns <= 183 * SECOND
    longest = refusal_error(8, document, retry_after_ms=2**32 - 1)
    assert isinstance(longest, Throttled)
    assert longest.retry_after_ns == 600 * SECOND


async def test_waiting_ends_when_there_is_nothing_to_wait_for(clock: VirtualClock) -> None:
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(EnvironmentFault):
        await reaching(clock, [], patient=True, stop=stop)(failing(fault()))
