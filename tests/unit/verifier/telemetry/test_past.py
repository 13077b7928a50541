"""What the record of a GPU has come to: it is read as it was written, and a session goes on from there."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.baseline_owners import made_up
from support.mutations import inputs
from weighbridge.proto import cbor
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.profile import FEATURES, Profile
from weighbridge.proto.telemetry import Channel, Source
from weighbridge.verifier.telemetry.begun import begun_of
from weighbridge.verifier.telemetry.detector.evidence import BETS, RICH, SessionEvidence
from weighbridge.verifier.telemetry.detector.metric import CLIP, SPAN
from weighbridge.verifier.telemetry.detector.scoring import UnitScore
from weighbridge.verifier.telemetry.device import Brought, follow, past_of
from weighbridge.verifier.telemetry.past import LAPSES_MAX, Past, digest_of, read_evidence, write_evidence
from weighbridge.verifier.telemetry.remains import NO_REMAINS, Remains
from weighbridge.verifier.telemetry.samples.series import Sampled
from weighbridge.verifier.telemetry.samples.units import NO_PIECES, UnitBuilder
from weighbridge.verifier.telemetry.samples.work import DeclaredWork
from weighbridge.verifier.telemetry.state import DeviceState

SECOND: Final = 1_000_000_000
GPU: Final = sha256(b"a GPU")
PROFILE: Final = made_up()
UNIT: Final = UnitScore(
    score=30_000,
    p_ppb=90_000_000,
    residual_mw=-5_000,
    explained_mw=100_000,
    uncertainty_mw=900,
    covered=True,
    leading=(),
    scaled=(-CLIP, CLIP, *range(FEATURES - 2)),
    level=-(10**12),
)


def evidence_of(units: int) -> SessionEvidence:
    runs = tuple(replace(run, scores=(30_000,) * SPAN) for run in made_up().runs)
    profile, evidence = replace(PROFILE, runs=runs), SessionEvidence.start()
    for _ in range(units):
        evidence = evidence.after(UNIT, profile)
    return evidence


def past(**changes: object) -> Past:
    made = Past(
        device=GPU,
        profile=digest_of(PROFILE),
        session=bytes(16),
        seq=7,
        evidence=evidence_of(2),
        row=2,
        lapses=0,
        remains=NO_REMAINS,
    )
    return replace(made, **changes)  # type: ignore[arg-type] # a test names fields


def begun(of: Past | None, profile: Profile = PROFILE, state: DeviceState | None = None) -> tuple[DeviceState, str]:
    """The state behind a window without samples, and its word."""
    brought = Brought(
        device=GPU,
        sampled=Sampled.of(None),
        work=DeclaredWork(duration_ns=SECOND),
        interval=(0, SECOND),
        seq=0,
        copy=None,
        profile=profile,
        baseline=GPU,
        foreign="",
        past=of,
    )
    following, said = follow(state or DeviceState(), brought)
    return following, said.verdict


@pytest.mark.parametrize("units", [0, 1, 2, SPAN - 1, SPAN, SPAN + 1])
def test_evidence_is_read_as_it_was_written_save_its_alarm(units: int) -> None:
    evidence = evidence_of(units)
    assert read_evidence(write_evidence(evidence), where="evidence") == replace(evidence, alarm=None)


def test_evidence_goes_on_as_if_there_had_been_one_session() -> None:
    cut = read_evidence(write_evidence(evidence_of(SPAN - 1)), where="evidence").after(UNIT, PROFILE)
    assert replace(cut, alarm=None) == replace(evidence_of(SPAN - 1).after(UNIT, PROFILE), alarm=None)


amounts = st.integers(-(2**62), 2**62)


@given(
    st.builds(
        Past,
        device=st.binary(min_size=32, max_size=32),
        profile=st.binary(min_size=32, max_size=32),
        session=st.binary(min_size=16, max_size=16),
        seq=st.integers(0, 2**53),
        evidence=st.integers(0, SPAN).map(lambda units: replace(evidence_of(units), alarm=None)),
        row=st.integers(0, 2**53),
        lapses=st.integers(0, LAPSES_MAX),
        remains=st.builds(Remains, st.integers(0, 2**53), amounts, amounts),
    )
)
def test_a_past_is_read_as_it_was_written(made: Past) -> None:
    value = cbor.decode(cbor.encode(made.to_cbor()), limit=20_000, what="past")
    assert Past.from_cbor(value, where="past") == made


@given(inputs(write_evidence(evidence_of(3)), write_evidence(SessionEvidence.start())))
def test_any_bytes_are_evidence_or_malformed(data: bytes) -> None:
    try:
        evidence = read_evidence(data, where="evidence")
    except MalformedEvidence:
        return
    assert write_evidence(evidence) == data


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        (0, -1, Code.FIELD_RANGE),
        (1, [[0] * FEATURES], Code.FIELD_RANGE),
        (1, [[0] * (FEATURES + 1)] * SPAN, Code.TOO_LARGE),
        (1, [[CLIP + 1, *[0] * FEATURES]], Code.FIELD_RANGE),
        (1, [[*[0] * FEATURES, 2**63]], Code.FIELD_RANGE),
        (2, [0] * (SPAN + 1), Code.TOO_LARGE),
        (3, -1, Code.FIELD_RANGE),
        (4, [b""] * (BETS - 1), Code.NOT_DETERMINISTIC),
        (4, [b"\0"] * BETS, Code.NOT_DETERMINISTIC),
        (4, [bytes(-(-RICH.bit_length() // 8) + 1)] * BETS, Code.FIELD_TYPE),
    ],
)
def test_evidence_out_of_range_is_refused(place: int, value: cbor.CborValue, code: Code) -> None:
    parts = cbor.read_array(cbor.decode(write_evidence(evidence_of(1)), limit=9_000, what="it"), where="it", limit=5)
    parts[place] = value
    with pytest.raises(MalformedEvidence) as refusal:
        read_evidence(cbor.encode(parts), where="evidence")
    assert refusal.value.code is code


def test_a_session_goes_on_where_the_one_before_has_ended() -> None:
    state, word = begun(past(lapses=3, remains=Remains(SECOND, 9, 5)))
    assert (state.evidence, state.row, state.lapses) == (evidence_of(2), 0, 3)
    assert state.remains == Remains(SECOND, 9, 5)
    # What it ends with is not looked at before it is as long as a unit, however far it is off.
    assert word == "unusable"
    assert past_of(state, GPU, session=bytes(16), seq=0) == past(row=0, seq=0, lapses=3, remains=Remains(SECOND, 9, 5))


def test_without_a_past_it_begins_anew_and_so_it_does_by_another_profile() -> None:
    assert begun(None)[0].evidence == SessionEvidence.start()
    state, _ = begun(past(remains=Remains(SECOND, 9, 5)))
    other = replace(PROFILE, evidence_ppm=PROFILE.evidence_ppm + 1)
    after, _ = begun(None, other, state)
    assert (after.evidence, after.remains, after.row) == (SessionEvidence.start(), NO_REMAINS, 0)
    # And back: what it had come to by the first one is known still.
    again, _ = begun(past(), PROFILE, after)
    assert again.evidence == evidence_of(2)


def test_nothing_has_come_of_a_gpu_that_no_profile_judges() -> None:
    assert past_of(DeviceState(), GPU, session=bytes(16), seq=0) is None


@pytest.mark.parametrize(
    ("drawn", "word"), [(1_570, "unusable"), (1_571, "out_of_baseline"), (430, "unusable"), (429, "out_of_baseline")]
)
def test_what_sessions_ended_with_is_looked_at_once_it_is_a_unit(drawn: int, word: str) -> None:
    limit = PROFILE.gross.limits[0]
    assert limit == 570
    state, said = begun(past(remains=Remains(PROFILE.unit_ns, drawn, 1_000)))
    assert said == word
    assert state.remains == NO_REMAINS
    assert state.evidence.alarm is None
    assert begun(past(remains=Remains(PROFILE.unit_ns - 1, drawn, 1_000)))[1] == "unusable"


def test_only_windows_that_could_be_affirmed_are_left_over() -> None:
    power = {PROFILE.channel: Channel("mW", (100_000, 300_000))}
    source = Source(
        device=GPU, name="nvml", start_wall_ns=0, period_ns=SECOND // 2, offsets=(0, SECOND // 2), channels=power
    )
    work = DeclaredWork(duration_ns=SECOND)
    builder = UnitBuilder(unit_ns=PROFILE.unit_ns, begun=NO_PIECES.and_(source, 0, work, channel=PROFILE.channel))
    state = DeviceState(builder=builder, profile=PROFILE, usable=True, remains=Remains(5, 6, 7))
    counted, seen = past_of(state, GPU, session=bytes(16), seq=0), begun_of(builder, PROFILE)
    assert counted is not None
    assert seen is not None
    # Milliwatts for a second are a thousand times as many microjoules.
    assert counted.remains == Remains(SECOND + 5, 200_000 * 1_000 + 6, seen.explained_mw * 1_000 + 7)
    unread = replace(source, channels={PROFILE.channel: Channel("mW", (None, None))})
    nothing = replace(builder, begun=NO_PIECES.and_(unread, 0, work, channel=PROFILE.channel))
    for other in (replace(state, usable=False), replace(state, builder=nothing)):
        passed_over = past_of(other, GPU, session=bytes(16), seq=0)
        assert passed_over is not None
        assert passed_over.remains == Remains(5, 6, 7)
