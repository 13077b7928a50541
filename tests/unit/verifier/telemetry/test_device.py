"""One GPU's word, window by window: what decides it, what stays, and what comes again after one unit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weighbridge.attester.telemetry.emulated import EmulatedTelemetry
from weighbridge.proto.digest import sha256
from weighbridge.proto.profile import Deviation
from weighbridge.proto.recording import RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.telemetry import Channel, Source, Telemetry
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.telemetry.device import Brought, follow
from weighbridge.verifier.telemetry.history import Copy
from weighbridge.verifier.telemetry.samples.fingerprints import COPIED
from weighbridge.verifier.telemetry.samples.series import Sampled
from weighbridge.verifier.telemetry.samples.work import DeclaredWork
from weighbridge.verifier.telemetry.state import DeviceState, worst
from weighbridge.verifier.telemetry.study.fitting import Settings, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.state import DeviceAppraisal, Word

GPU: Final = sha256(b"a GPU")
SET: Final = sha256(b"a set")
SECOND: Final = 1_000_000_000
START: Final = 1_780_315_200 * SECOND
TOKENS: Final = 64
RATE: Final = 10
SCOPE: Final = Scope(gpu_model="H100", driver="550", engine="emulated", workload="tests")


def work_of(seconds: int) -> WorkSummary:
    return WorkSummary(root=sha256(b"leaf"), requests=seconds, tokens_in=TOKENS * seconds, tokens_out=0, batch_max=1)


def played(run: int, seconds: int) -> Source:
    """The GPU's sensors for as long."""
    source = EmulatedTelemetry(7, [GPU], run=run)
    (made,) = source.window(start_wall_ns=START, duration_ns=seconds * SECOND, work=work_of(seconds))
    return made


def cut(source: Source, first: int, last: int) -> Source:
    """Seconds ``first`` to ``last``, as one window."""
    part = slice(first * RATE, last * RATE)
    begin = source.offsets[part][0]
    return replace(
        source,
        start_wall_ns=source.start_wall_ns + begin,
        offsets=tuple(offset - begin for offset in source.offsets[part]),
        channels={
            name: replace(channel, values=None if channel.values is None else channel.values[part])
            for name, channel in source.channels.items()
        },
    )


def without(source: Source, first: int, count: int) -> Source:
    """With a gap of ``count`` samples."""
    keep = [index for index in range(len(source.offsets)) if not first <= index < first + count]
    return replace(
        source,
        offsets=tuple(source.offsets[index] for index in keep),
        channels={
            name: replace(
                channel, values=None if channel.values is None else tuple(channel.values[index] for index in keep)
            )
            for name, channel in source.channels.items()
        },
    )


@pytest.fixture(scope="module")
def profile() -> Profile:
    windows = [
        (run, [cut(whole, first, first + 10) for first in range(0, 60, 10)])
        for run, whole in ((run, played(run, 60)) for run in range(1000, 1012))
    ]
    runs = [
        Recording(
            origin="emulated",
            label=f"run {run}",
            scope=SCOPE,
            windows=tuple(
                RecordedWindow(
                    telemetry=Telemetry(session=bytes(16), seq=seq, sources=(source,)).encode(),
                    work=work_of(10),
                    start_ns=source.start_wall_ns,
                    end_ns=source.start_wall_ns + 10 * SECOND,
                )
                for seq, source in enumerate(sources)
            ),
        )
        for run, sources in windows
    ]
    return fit(runs, GPU, Settings())


class Line:
    """One GPU in a session: hands its windows on, one after the other."""

    def __init__(self, profile: Profile | None) -> None:
        self.profile = profile
        self.baseline: bytes | None = None if profile is None else SET
        self.foreign = "" if profile else "no baseline is in force"
        self.state = DeviceState()
        self.seq = 0
        self.said: list[DeviceAppraisal] = []

    def brings(
        self, source: Source | None, seconds: int, *, at: int | None = None, copy: Copy | None = None
    ) -> DeviceAppraisal:
        start = START if at is None else START + at * SECOND
        if source is not None and at is None:
            start = source.start_wall_ns
        brought = Brought(
            device=GPU,
            sampled=Sampled.of(source),
            work=DeclaredWork.of(work_of(seconds), seconds * SECOND),
            interval=(start, start + seconds * SECOND),
            seq=self.seq,
            copy=copy,
            profile=self.profile,
            baseline=self.baseline,
            foreign=self.foreign,
        )
        self.state, said = follow(self.state, brought)
        self.seq += 1
        self.said.append(said)
        return said

    def all_of(self, source: Source, lengths: Sequence[int]) -> list[Word]:
        first = 0
        words: list[Word] = []
        for length in lengths:
            words.append(self.brings(cut(source, first, first + length), length).verdict)
            first += length
        return words


COPY: Final = Copy(device=GPU, original=GPU, session=bytes([1] * 16), seq=3, matches=4)


def test_until_a_unit_is_full_nothing_is_said_and_then_each_window_has_its_word(profile: Profile) -> None:
    line = Line(profile)
    words = line.all_of(played(1, 25), [2] * 12)
    assert words == ["unusable"] * 4 + ["in_baseline"] * 8
    assert [said.why for said in line.said[:5]] == [f"{s}.0 of 10 s sampled" for s in (2, 4, 6, 8)] + [""]
    last = line.said[-1]
    assert (last.units, last.first_seq, last.last_seq, last.baseline) == (2, 5, 9, SET.hex())
    assert last.findings == ()
    seen = {deviation.units: deviation.milliwatts for deviation in profile.deviations}
    assert line.said[0].smallest_deviation_mw is None
    assert line.said[5].smallest_deviation_mw == seen[1]
    assert last.smallest_deviation_mw == seen[2]
    assert (seen[1] or 0) > (seen[2] or 0) > (seen[6] or 0) > 0
    assert abs(last.residual_mw or 0) < 5_000 < (last.explained_mw or 0)
    first = line.said[0]
    assert (first.units, first.score, first.p_ppb, first.residual_mw, first.first_seq) == (0, None, None, None, None)


def test_hidden_work_is_out_of_the_baseline_and_stays_so(profile: Profile) -> None:
    line, source = Line(profile), EmulatedTelemetry(7, [GPU], run=1)
    for seq, hidden in enumerate([0] * 2 + [2000] * 6 + [0] * 4):
        work = work_of(10)
        (window,) = source.window(
            start_wall_ns=START + seq * 10 * SECOND,
            duration_ns=10 * SECOND,
            work=replace(work, tokens_in=work.tokens_in + 10 * hidden),
        )
        line.brings(window, 10)
    words = [said.verdict for said in line.said]
    assert words[:2] == ["in_baseline"] * 2
    alarm = words.index("out_of_baseline")
    assert 2 <= alarm < 8
    assert words[alarm:] == ["out_of_baseline"] * len(words[alarm:])
    said = line.said[alarm]
    assert said.findings == ()
    assert "genuine sessions" in said.why
    assert f"in window {alarm}," in said.why
    assert (said.residual_mw or 0) > (said.smallest_deviation_mw or 0) > 0
    assert {later.why for later in line.said[alarm:]} == {said.why}
    assert abs(line.said[-1].residual_mw or 0) < (said.smallest_deviation_mw or 0) * 3


def test_what_cannot_be_stays_for_the_session_with_what_it_was(profile: Profile) -> None:
    whole = played(1, 60)
    line = Line(profile)
    assert line.all_of(whole, [10]) == ["in_baseline"]
    power = whole.channels["power"]
    assert power.values is not None
    halved = tuple(None if value is None else value // 2 for value in power.values)
    lying = replace(whole, channels={**whole.channels, "power": replace(power, values=halved)})
    assert line.brings(cut(lying, 10, 20), 10).verdict == "implausible"
    first = line.said[-1]
    assert "energy" in {finding.channel for finding in first.findings}
    for start in (20, 30, 40, 50):
        said = line.brings(cut(whole, start, start + 10), 10)
        assert (said.verdict, said.why) == ("implausible", first.why)
        assert set(first.findings) <= set(said.findings)


def test_a_copy_cannot_be(profile: Profile) -> None:
    line = Line(profile)
    said = line.brings(cut(played(1, 10), 0, 10), 10, copy=COPY)
    assert said.verdict == "implausible"
    assert [finding.check for finding in said.findings] == ["replay"]
    assert COPY.session.hex() in said.why
    assert "window 3" in said.why
    assert line.brings(None, 10, at=10).verdict == "implausible"


def test_a_gap_is_unusable_until_the_next_unit_is_full(profile: Profile) -> None:
    line, whole = Line(profile), played(1, 40)
    assert line.all_of(whole, [5, 5]) == ["unusable", "in_baseline"]
    said = line.brings(without(cut(whole, 10, 15), 20, 5), 5)
    assert said.verdict == "unusable"
    assert "gap" in said.why
    assert {finding.verdict for finding in said.findings} == {"unusable"}
    assert [line.brings(cut(whole, start, start + 5), 5).verdict for start in (15, 20, 25)] == [
        "unusable",
        "in_baseline",
        "in_baseline",
    ]


def test_whoever_loses_the_samples_of_every_second_unit_is_believed_less_and_less(profile: Profile) -> None:
    # What ran in a unit that is never scored nobody knows, and its windows go by the unit before it.
    line, whole = Line(profile), played(1, 120)
    words = line.all_of(whole, [10])
    for start in range(10, 120, 10):
        part = cut(whole, start, start + 10)
        words.append(line.brings(without(part, 90, 5) if start % 20 else part, 10).verdict)
    assert words == ["in_baseline", "unusable"] * 2 + ["unusable"] * 8
    assert line.state.lapses == 2
    assert line.said[-2].why == "1 of 2 units in a row, as samples were lost so often"


def test_units_that_are_scored_make_good_what_was_lost(profile: Profile) -> None:
    line, whole = Line(profile), played(1, 10)
    line.brings(whole, 10)
    line.state = replace(line.state, usable=False, row=19, lapses=20)
    assert line.brings(cut(played(1, 20), 10, 20), 10).verdict == "in_baseline"
    assert (line.state.row, line.state.lapses) == (20, 19)


def test_a_unit_that_was_not_compared_opens_nothing_later(profile: Profile) -> None:
    line, whole = Line(profile), played(1, 40)
    assert line.all_of(whole, [5]) == ["unusable"]
    line.foreign = "the baseline is for a power limit of 600 W, and the GPU's is 700 W"
    assert line.brings(cut(whole, 5, 10), 5).verdict == "no_baseline"
    line.foreign = ""
    said = line.brings(cut(whole, 10, 15), 5)
    assert (said.verdict, said.units) == ("unusable", 0)


def test_a_window_without_samples_is_unusable(profile: Profile) -> None:
    line, whole = Line(profile), played(1, 40)
    assert line.all_of(whole, [10]) == ["in_baseline"]
    assert line.brings(None, 10, at=10).verdict == "unusable"
    assert line.brings(cut(whole, 20, 30), 10).verdict == "in_baseline"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda item: replace(item, period_ns=1_000_000_000), ""),
        (lambda item: replace(item, channels={}), "power"),
        (lambda item: replace(item, channels={"power": Channel("mW", None)}), "power"),
        (lambda item: replace(item, offsets=(), channels={}), "no sample"),
        (lambda item: replace(item, channels={**item.channels, "power": Channel("mW", (-1,) * 100)}), "power"),
        (lambda item: replace(item, channels={**item.channels, "power": Channel("mW", (2**62,) * 100)}), "power"),
        (lambda item: replace(item, channels={**item.channels, "power": Channel("W", (400,) * 100)}), "power"),
    ],
)
def test_samples_that_no_profile_can_score_say_nothing(
    profile: Profile, edit: Callable[[Source], Source], why: str
) -> None:
    line = Line(profile)
    said = line.brings(edit(cut(played(1, 10), 0, 10)), 10)
    assert said.verdict == "unusable"
    assert why in said.why


def test_work_that_the_baseline_has_not_seen_says_nothing(profile: Profile) -> None:
    line = Line(profile)
    source = cut(played(1, 10), 0, 10)
    work = DeclaredWork.of(replace(work_of(10), tokens_in=10_000_000), 10 * SECOND)
    brought = Brought(
        device=GPU,
        sampled=Sampled.of(source),
        work=work,
        interval=(START, START + 10 * SECOND),
        seq=0,
        copy=None,
        profile=profile,
        baseline=SET,
        foreign="",
    )
    state, said = follow(line.state, brought)
    assert said.verdict == "unusable"
    assert "declared work" in said.why
    assert state.evidence.units == 0


def test_without_a_profile_physics_is_judged_all_the_same() -> None:
    line, whole = Line(None), played(1, 20)
    said = line.brings(cut(whole, 0, 10), 10)
    assert (said.verdict, said.why, said.baseline, said.units) == ("no_baseline", "no baseline is in force", None, 0)
    assert (said.score, said.threshold, said.smallest_deviation_mw) == (None, None, None)
    assert line.brings(cut(whole, 10, 20), 10, copy=COPY).verdict == "implausible"


def test_a_profile_of_another_stack_is_none(profile: Profile) -> None:
    line = Line(profile)
    line.foreign = "the baseline is for VBIOS 1, and the GPU reports 2"
    said = line.brings(cut(played(1, 10), 0, 10), 10)
    assert (said.verdict, said.why, said.threshold) == ("no_baseline", line.foreign, None)


def test_another_profile_begins_anew_and_what_was_contradicted_stays(profile: Profile) -> None:
    line, whole = Line(profile), played(1, 40)
    assert line.all_of(whole, [10]) == ["in_baseline"]
    line.profile = replace(profile, deviations=(Deviation(1, 1),))
    said = line.brings(cut(whole, 10, 15), 5)
    assert (said.verdict, said.why, said.units) == ("unusable", "5.0 of 10 s sampled", 1)
    said = line.brings(cut(whole, 15, 20), 5)
    assert (said.verdict, said.units, said.smallest_deviation_mw) == ("in_baseline", 2, 1)
    line.state = replace(line.state, contradicted="it was")
    line.profile = profile
    assert line.brings(cut(whole, 20, 30), 10).verdict == "out_of_baseline"


def test_no_more_than_a_unit_is_pending(profile: Profile) -> None:
    line, whole = Line(profile), played(1, 60)
    for second in range(60):
        line.brings(cut(whole, second, second + 1), 1)
        builder = line.state.builder
        assert builder is not None
        assert sum(len(source.offsets) for source in builder.begun.sources) < 10 * RATE
        assert sum(len(power) for _, power in line.state.recent) <= COPIED - 1
        assert second < 6 or sum(len(power) for _, power in line.state.recent) == COPIED - 1


def hidden(line: Line, tokens: Sequence[int]) -> list[DeviceAppraisal]:
    """Windows of a second, with so many undeclared tokens in each."""
    source = EmulatedTelemetry(7, [GPU], run=1)
    said: list[DeviceAppraisal] = []
    for second, beside in enumerate(tokens):
        done = replace(work_of(1), tokens_in=TOKENS + beside)
        (window,) = source.window(start_wall_ns=START + second * SECOND, duration_ns=SECOND, work=done)
        said.append(line.brings(window, 1))
    return said


def test_half_a_unit_that_is_grossly_off_closes_the_gate_and_accuses_nobody(profile: Profile) -> None:
    line = Line(profile)
    said = hidden(line, [0] * 10 + [22_000] * 5)
    assert [one.verdict for one in said[9:]] == ["in_baseline"] * 5 + ["unusable"]
    assert said[-1].why.startswith("the unit that has begun draws ")
    assert said[-1].why.endswith(" % more than declared work explains: wait for its end")
    assert said[-1].findings == ()
    # Nothing has lapsed, and no evidence came of it.
    assert (line.state.usable, line.state.lapses, line.state.evidence.units) == (True, 0, 1)


def test_a_unit_that_began_badly_and_is_good_when_it_is_full_opens_it_again(profile: Profile) -> None:
    line = Line(profile)
    said = hidden(line, [0] * 10 + [4_500] * 5 + [0] * 6)
    words = [one.verdict for one in said[9:]]
    closed = words.count("unusable")
    assert words == ["in_baseline"] * 5 + ["unusable"] * closed + ["in_baseline"] * (7 - closed)
    assert 1 <= closed <= 5
    assert (said[-1].units, said[-1].why, line.state.lapses) == (2, "", 0)


def test_work_beyond_what_the_baseline_has_seen_excuses_no_unit_that_has_begun(profile: Profile) -> None:
    line, source = Line(profile), EmulatedTelemetry(7, [GPU], run=1)
    (window,) = source.window(start_wall_ns=START, duration_ns=10 * SECOND, work=work_of(10))
    assert line.brings(window, 10).verdict == "in_baseline"
    work = replace(work_of(5), tokens_in=5 * 20_000)
    (window,) = source.window(start_wall_ns=START + 10 * SECOND, duration_ns=5 * SECOND, work=work)
    brought = Brought(
        device=GPU,
        sampled=Sampled.of(window),
        work=DeclaredWork.of(work, 5 * SECOND),
        interval=(START + 10 * SECOND, START + 15 * SECOND),
        seq=1,
        copy=None,
        profile=profile,
        baseline=SET,
        foreign="",
    )
    _, said = follow(line.state, brought)
    assert said.verdict == "unusable"
    assert "wait for its end" in said.why


parts = st.lists(st.integers(1, 10), min_size=1, max_size=6)


def _filled(lengths: list[int], whole: int) -> list[int]:
    """As many of ``lengths`` as fit into ``whole``, and what is left."""
    kept: list[int] = []
    for length in lengths:
        if sum(kept) + length > whole:
            break
        kept.append(length)
    left = whole - sum(kept)
    return [*kept, left] if left else kept


@given(st.lists(parts.map(lambda lengths: _filled(lengths, 10)), min_size=3, max_size=3))
@settings(max_examples=20, deadline=None)
def test_the_same_samples_in_other_windows_give_the_same_units(profile: Profile, units: list[list[int]]) -> None:
    whole = played(1, 30)
    one, other = Line(profile), Line(profile)
    one.all_of(whole, [10] * 3)
    other.all_of(whole, [length for unit in units for length in unit])
    assert one.state.evidence == other.state.evidence
    assert (one.state.scored and one.state.scored.score) == (other.state.scored and other.state.scored.score)
    first, second = (replace(line.said[-1], first_seq=0, last_seq=0) for line in (one, other))
    assert first == second


@given(st.permutations(["in_baseline", "unusable", "no_baseline", "out_of_baseline", "implausible"]), st.integers(1, 5))
def test_the_worst_word_speaks(words: list[Word], count: int) -> None:
    order: list[Word] = ["implausible", "out_of_baseline", "no_baseline", "unusable", "in_baseline"]
    assert worst(tuple(words[:count])) == next(word for word in order if word in words[:count])
    assert worst(()) == "no_baseline"
