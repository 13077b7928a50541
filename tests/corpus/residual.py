"""Rows A60 and A62: what power looks like can contradict what else is proven, and can make up for none of it.

Cases that are admitted document a ceiling: what hides below what a baseline sees is admitted, and the verdict says what
it does not prove.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from corpus.gpu import answered
from corpus.policy import without
from corpus.telemetry import SERVING, UNIT, admitted_though, answers, baselined
from corpus.weights import OTHER
from support.cutting import cut, joined, read, times
from support.measured import HIDDEN
from support.sensors import Sensors, Undeclared, reading
from support.world import PERIOD_NS, requirements
from weighbridge.attester.gpu.emulated import Forgery as Misreport
from weighbridge.proto.errors import Code
from weighbridge.proto.measurement_log import ModelUnload
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.core import Answer

_MOST: Final = 12 * UNIT
# Beside 2000 tokens a second that are declared: a fifth more, in batches that have room for it.
_IN_SPARE_SLOTS: Final = 400
# As many tokens a second as nobody overlooks.
_ALL_OUT: Final = 60_000
_HALF_NS: Final = PERIOD_NS // 2
_THREE_NS: Final = PERIOD_NS * 3 // 10
_UNIT_NS: Final = UNIT * PERIOD_NS
_MINUTE: Final = 6


class _OneOfThem:
    """Sensors of GPUs of which one does hidden work."""

    def __init__(self, one: bytes, devices: Sequence[bytes], *, tokens: int) -> None:
        self._one, self._there = one, Sensors(devices, run=1)
        self._here = Undeclared(Sensors(devices, run=1), tokens=tokens)

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`Sensors.window`."""
        pairs = zip(
            self._here.window(start_wall_ns=start_wall_ns, duration_ns=duration_ns, work=work),
            self._there.window(start_wall_ns=start_wall_ns, duration_ns=duration_ns, work=work),
            strict=True,
        )
        return [here if here.device == self._one else there for here, there in pairs]

    def close(self) -> None:
        """Nothing to stop."""


def _in_baseline(arena: Arena) -> World:
    """A session whose last window was admitted."""
    world = baselined(arena, work=SERVING)
    admitted_though(world.window())
    return world


def _though_in_baseline(answer: Answer) -> Answer:
    """``answer`` is a denial that the record has no part in."""
    assert answer.verdict.telemetry == "in_baseline"
    assert not any(denial.code.startswith("TELEMETRY") for denial in answer.verdict.denials)
    return answer


def _hidden(arena: Arena, tokens: int) -> World:
    """A session whose GPUs compute more than it declares, from its beginning."""
    world = baselined(arena, windows=0, work=SERVING)
    world.open_session()
    assert world.host.telemetry is not None
    world.host.telemetry = Undeclared(world.host.telemetry, tokens=tokens)
    return world


def _named(answer: Answer, devices: set[bytes]) -> Answer:
    """``answer`` denies for these GPUs, and says in which windows, and by which channel."""
    denials = [denial for denial in answer.verdict.denials if denial.device is not None]
    assert {denial.device for denial in denials} == {device.hex() for device in devices}
    for denial in denials:
        assert denial.code == Code.TELEMETRY_OUT_OF_BASELINE
        assert f"to {answer.verdict.seq}, power" in denial.message, denial.message
        assert "in windows " in denial.message
    return answer


# -- A60 ---------------------------------------------------------------------------------------------------------------


def case_001_in_baseline_with_a_second_model(arena: Arena) -> Answer:
    world = _in_baseline(arena)
    world.host.log.load(OTHER)
    return _though_in_baseline(world.window())


def case_002_in_baseline_with_the_model_exchanged(arena: Arena) -> Answer:
    world = _in_baseline(arena)
    world.host.log.append(ModelUnload(load=0))
    world.host.log.load(OTHER)
    return _though_in_baseline(world.window())


def case_003_in_baseline_with_code_that_nothing_proves(arena: Arena) -> Answer:
    """The relying party stops accepting that what measures is unproven."""
    world = _in_baseline(arena)
    world.judge_by(arena.engines, without(world.reference, "attester_code"))
    world.host.challenge = world.verifier.resume(world.host.session, peer=world.host.peer).challenge
    return _though_in_baseline(world.window())


def case_004_in_baseline_with_other_firmware_on_a_gpu(arena: Arena) -> Answer:
    misreport = Misreport(measurements={3: bytes(48)})
    return answered(
        arena, _in_baseline(arena), lambda world, nonce: world.host.gpus.devices[1].attest(nonce, forgery=misreport)
    )


def case_005_right_weights_and_hidden_work(arena: Arena) -> Answer:
    world = _hidden(arena, HIDDEN)
    return _named(answers(world, _MOST)[-1], set(world.host.gpus.identities()))


def case_006_right_weights_and_some_hidden_work(arena: Arena) -> Answer:
    """Three times what is declared: a few watts where batches have room, and enough of them over a minute."""
    world = _hidden(arena, 2 * SERVING.tokens_out)
    return _named(answers(world, _MOST)[-1], set(world.host.gpus.identities()))


def case_007_hidden_work_on_one_gpu(arena: Arena) -> Answer:
    world = _hidden(arena, 0)
    devices = world.host.gpus.identities()
    world.host.telemetry = _OneOfThem(min(devices), devices, tokens=HIDDEN)
    return _named(answers(world, _MOST)[-1], {min(devices)})


def case_008_less_work_than_declared(arena: Arena) -> Answer:
    """GPUs that do nothing: whoever answers, it is not they."""
    world = baselined(arena, windows=0, work=SERVING)
    world.open_session()
    assert world.host.telemetry is not None
    world.host.telemetry = Undeclared(world.host.telemetry, tokens=-SERVING.tokens_out)
    return _named(answers(world, _MOST)[-1], set(world.host.gpus.identities()))


def case_009_hidden_work_declared_away(arena: Arena) -> Answer:
    """Five times the tokens are declared that the baseline's runs had: what it has not seen it says nothing of."""
    world = baselined(arena, windows=0, work=SERVING)
    world.host.work = replace(SERVING, tokens_out=5 * SERVING.tokens_out)
    world.open_session()
    found = answers(world, 2 * UNIT)
    assert not any(answer.verdict.opens for answer in found)
    return found[-1]


def case_012_hidden_work_in_windows_that_last_nothing(arena: Arena) -> Answer:
    """Three samples in a window of a nanosecond: no unit would seem to have begun."""
    world = baselined(arena, work=SERVING)
    nothing = WorkSummary.empty()
    found: list[Answer] = []
    for _ in range(2 * UNIT):
        sources = read(world, lasts_ns=_THREE_NS, done=replace(nothing, tokens_out=_ALL_OUT * 3 // 10))
        said = (_THREE_NS // 2, _THREE_NS // 2 + 1)
        found.append(cut(world, sources, work=nothing, lasts_ns=_THREE_NS, said=said))
    return _never_opened(found)


def case_013_work_at_a_rate_that_the_window_makes(arena: Arena) -> Answer:
    """Two fifths of the work are declared, for windows that are said to last two fifths of the time."""
    world = baselined(arena, windows=0, work=SERVING)
    world.open_session()
    found: list[Answer] = []
    for _ in range(3 * UNIT):
        sources = read(world, lasts_ns=_HALF_NS, done=times(SERVING, 500))
        said = (_HALF_NS * 3 // 10, _HALF_NS * 7 // 10)
        found.append(cut(world, sources, work=times(SERVING, 200), lasts_ns=_HALF_NS, said=said))
    return _never_opened(found)


def case_014_hidden_work_in_units_of_a_long_window(arena: Arena) -> Answer:
    """Windows of a minute, of which the last ten seconds are good, and one reading of each other unit beyond sense."""
    world = baselined(
        arena, windows=0, work=SERVING, wanted=requirements(period_ns=_MINUTE * _UNIT_NS, lateness_ns=5 * PERIOD_NS)
    )
    world.open_session()
    world.host.wall_ns += PERIOD_NS
    found = [_of_a_minute(world, hidden=0)]
    assert found[0].verdict.opens
    found += [_of_a_minute(world, hidden=_MINUTE - 1) for _ in range(2)]
    return _never_opened(found[1:])


def _of_a_minute(world: World, *, hidden: int) -> Answer:
    """A window of six units, with hidden work in as many of them, each with a reading that no sensor gives."""
    sources: list[Source] = []
    for number in range(_MINUTE):
        work = times(SERVING, UNIT * 1000)
        if number < hidden:
            work = replace(work, tokens_out=UNIT * _ALL_OUT)
        part = read(world, lasts_ns=_UNIT_NS, done=work, after_ns=number * _UNIT_NS)
        if number < hidden:
            part = [reading(source, temperature=lambda at, value: 999_000 if at == UNIT else value) for source in part]
        sources = joined(sources, part) if sources else part
    declared = times(SERVING, _MINUTE * UNIT * 1000)
    return cut(world, sources, work=declared, lasts_ns=_MINUTE * _UNIT_NS)


def case_015_samples_of_the_minute_before(arena: Arena) -> Answer:
    """What GPUs did in the seconds before a session is all that its windows show; what they do in it, none."""
    world = baselined(
        arena, windows=0, work=SERVING, wanted=requirements(period_ns=_UNIT_NS, lateness_ns=5 * PERIOD_NS)
    )
    world.clock.advance(25)
    world.open_session()
    found: list[Answer] = []
    for later in (1, 14, 10):
        sources = read(world, lasts_ns=_UNIT_NS, done=times(SERVING, UNIT * 1000))
        work = times(SERVING, UNIT * 1000)
        found.append(cut(world, sources, work=work, lasts_ns=_UNIT_NS, later_ns=later * PERIOD_NS))
    return _never_opened(found)


def _never_opened(found: Sequence[Answer]) -> Answer:
    """The last of these answers, none of which opens a gate."""
    assert not any(answer.verdict.opens or answer.token for answer in found)
    assert {answer.verdict.telemetry for answer in found} == {"unusable"}
    return found[-1]


# -- A62 ---------------------------------------------------------------------------------------------------------------


def case_010_shaped_to_the_same_power(arena: Arena) -> Answer:
    """A ceiling: whatever computes, it is kept to the power of what is declared, here in a batch's spare slots."""
    return admitted_though(answers(_hidden(arena, _IN_SPARE_SLOTS), 6 * UNIT)[-1])


def case_011_shaped_to_the_same_power_with_other_weights(arena: Arena) -> Answer:
    """As above; what was loaded speaks against it."""
    world = _hidden(arena, _IN_SPARE_SLOTS)
    admitted_though(answers(world, 6 * UNIT)[-1])
    world.host.log.load(OTHER)
    return _though_in_baseline(world.window())
