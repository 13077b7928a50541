"""Sessions whose samples are compared with a baseline: what opens a gate, what is remembered, what is made again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from corpus.bundle import Exported, believed, export
from corpus.telemetry import SERVING, UNIT, baselined, sensing
from support.sensors import Sensors
from support.world import PERIOD_NS, World, requirements
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.proto.telemetry import Channel
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.cli import main
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.record import Record
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.telemetry.history import NOTHING

if TYPE_CHECKING:
    from pathlib import Path

    from corpus.arena import Arena
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.core import Answer


SECOND = 1_000_000_000


@pytest.fixture
def world(arena: Arena) -> World:
    """Under the production policy, which demands a baseline; nothing is enrolled yet."""
    return baselined(arena, windows=0)


def run(world: World, windows: int) -> list[Verdict]:
    return [world.window().verdict for _ in range(windows)]


def record_of(world: World, answer: Answer) -> Record:
    return world.archive.records.record(answer.index)


def physical(verdict: Verdict) -> dict[str, Any]:
    document = json.loads(verdict.encode())["physical"]
    assert isinstance(document, dict)
    return document


def test_a_gate_opens_after_one_unit(world: World) -> None:
    world.open_session()
    before = world.ledger.size
    answers = [world.window() for _ in range(UNIT + 2)]
    assert [answer.verdict.outcome for answer in answers] == ["indeterminate"] * (UNIT - 1) + ["affirmed"] * 3
    for number, answer in enumerate(answers[: UNIT - 1], start=1):
        verdict = answer.verdict
        assert (verdict.opens, answer.token, verdict.telemetry) == (False, None, "unusable")
        assert {denial.code for denial in verdict.denials} == {Code.TELEMETRY_UNUSABLE}
        assert [device["why"] for device in physical(verdict)["devices"]] == [f"{number}.0 of 10 s sampled"] * 2
        assert record_of(world, answer).history == NOTHING
    assert all(answer.token for answer in answers[UNIT - 1 :])
    assert world.ledger.size == before + UNIT + 2
    device = physical(answers[-1].verdict)["devices"][0]
    assert (device["verdict"], device["why"], device["units"], device["last_seq"]) == ("in_baseline", "", 1, UNIT - 1)
    with world.store.transaction() as tx:
        row = tx.session(world.host.session)
    assert row is not None
    assert row.state is SessionState.RUNNING


def test_a_restart_changes_nothing(arena: Arena, world: World) -> None:
    world.open_session()
    said: list[str] = []
    for number in range(2 * UNIT + 1):
        if number in {1, 5, UNIT, UNIT + 4}:
            world.restart()
            resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
            world.host.challenge = resumed.challenge
        said.append(world.window().verdict.outcome)
    assert said == ["indeterminate"] * (UNIT - 1) + ["affirmed"] * (UNIT + 2)
    # The bundle is judged without any restart, and each verdict must come out as recorded, to the byte.
    bundle = Exported(arena.engines, world, export(world))
    again = bundle.verify()
    assert again.admitted
    assert again.same_policy
    assert [verdict.outcome for verdict in again.verdicts] == said


def test_a_bundle_says_what_is_not_known_yet(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.open_session()
    run(world, 3)
    (tmp_path / "bundle").write_bytes(export(world).encode())
    (tmp_path / "anchors.json").write_bytes(believed(world).encode())
    arguments = ["verify", "bundle", str(tmp_path / "bundle"), "--anchors", str(tmp_path / "anchors.json")]
    assert main(arguments) == ExitCode.INDETERMINATE
    said = capsys.readouterr().out
    assert said.startswith("INDETERMINATE: ")
    assert "3: 0 affirmed, 0 held, 3 indeterminate, 0 denied" in said
    assert "not yet    window 2: TELEMETRY_UNUSABLE" in said


def test_sensors_that_fail_close_the_gate_until_a_unit_is_full_again(world: World) -> None:
    world.open_session()
    run(world, UNIT)
    sensing(world, lambda source: replace(source, channels={**source.channels, "power": Channel("mW", None)}))
    verdicts = run(world, UNIT + 2)
    words = [verdict.outcome for verdict in verdicts]
    assert words[:UNIT] == ["indeterminate"] * UNIT
    assert words[UNIT:] == ["affirmed"] * 2
    assert "power" in physical(verdicts[0])["devices"][0]["why"]


def together(*sources: Source) -> tuple[Source, ...]:
    return tuple(sorted(sources, key=lambda item: (item.device or b"", item.name)))


def test_a_source_beside_the_baselines_own_is_not_asked(world: World) -> None:
    """By name it would be the first. It says throughout that nothing is computed."""
    world.open_session()

    def beside(source: Source) -> Source:
        power = source.channels["power"]
        flat = replace(power, values=(117_000,) * len(source.offsets))
        return replace(source, name="aaa", channels={**source.channels, "power": flat})

    said: list[Verdict] = []
    for _ in range(UNIT + 1):
        world.host.observe()
        key = world.host.session, world.host.seq
        own = world.host.sampled[key]
        world.host.sampled[key] = together(*own, *map(beside, own))
        said.append(world.window().verdict)
    assert [verdict.outcome for verdict in said] == ["indeterminate"] * (UNIT - 1) + ["affirmed"] * 2
    residuals = {device["residual_mw"] for device in physical(said[-1])["devices"]}
    assert residuals != {0}
    world.open_session()
    said = []
    for _ in range(UNIT + 1):
        sensing(world, lambda source: replace(source, name="aaa"))
        said.append(world.window().verdict)
    assert {verdict.telemetry for verdict in said} == {"unusable"}
    assert "sampled by aaa, and the baseline's runs by nvml" in physical(said[-1])["devices"][0]["why"]


def test_no_source_hides_that_the_judged_one_is_a_copy(arena: Arena) -> None:
    """What is looked up in the memory is what is judged, whatever comes before it by name."""
    world = baselined(arena, windows=0, work=SERVING)
    world.open_session()
    first = world.host.session
    run(world, 2 * UNIT)
    world.verifier.close(first, peer=world.host.peer)
    world.clock.advance(3600)
    world.host.wall_ns += 3600 * PERIOD_NS
    world.open_session()
    checks: set[str] = set()
    for seq in range(2 * UNIT):
        world.host.observe()
        key = world.host.session, world.host.seq
        fresh = world.host.sampled[key]
        again = (
            replace(old, start_wall_ns=new.start_wall_ns)
            for old, new in zip(world.host.sampled[first, seq], fresh, strict=True)
        )
        world.host.sampled[key] = together(*again, *(replace(item, name="aaa") for item in fresh))
        verdict = world.window().verdict
        checks |= {item["check"] for device in physical(verdict)["devices"] for item in device["findings"]}
        if verdict.outcome == "denied":
            break
    assert "replay" in checks


def test_what_cannot_be_fails_the_session_and_sticks(world: World) -> None:
    world.open_session()
    run(world, UNIT)

    def halved(source: Source) -> Source:
        power = source.channels["power"]
        assert power.values is not None
        values = tuple(None if value is None else value // 2 for value in power.values)
        return replace(source, channels={**source.channels, "power": replace(power, values=values)})

    verdicts: list[Verdict] = []
    for _ in range(UNIT):
        sensing(world, halved)
        verdicts.append(world.window().verdict)
        if verdicts[-1].outcome == "denied":
            break
    assert verdicts[-1].telemetry == "implausible"
    assert Code.TELEMETRY_IMPLAUSIBLE in {denial.code for denial in verdicts[-1].denials}
    assert physical(verdicts[-1])["devices"][0]["findings"]
    with world.store.transaction() as tx:
        subject = tx.subjects.of("gpu", world.host.gpus.identities()[0])
    assert subject is not None
    assert subject.failed_code == Code.TELEMETRY_IMPLAUSIBLE


def test_of_eight_devices_the_worst_one_speaks_and_is_named(arena: Arena) -> None:
    world = arena.world(gpus=EmulatedGpus.create(8), wanted=requirements(gpus=8))
    world.open_session()
    bad = sorted(world.host.gpus.identities())[5]
    assert {verdict.telemetry for verdict in run(world, 3)} == {"no_baseline"}

    def falling(source: Source) -> Source:
        energy = source.channels["energy"]
        if source.device != bad or energy.values is None:
            return source
        return replace(
            source, channels={**source.channels, "energy": replace(energy, values=(1,) * len(source.offsets))}
        )

    sensing(world, falling)
    verdict = world.window().verdict
    assert (verdict.outcome, verdict.telemetry) == ("denied", "implausible")
    assert [denial.device for denial in verdict.denials] == [bad.hex()]
    devices = physical(verdict)["devices"]
    assert [device["device"] for device in devices] == sorted(device["device"] for device in devices)
    assert [device["verdict"] for device in devices] == [
        "implausible" if device["device"] == bad.hex() else "no_baseline" for device in devices
    ]


def test_a_late_window_is_part_of_the_series(world: World) -> None:
    world.open_session()
    run(world, 4)
    late = world.host.seal()
    world.host.advance(late)
    world.clock.advance(6)
    answer = world.send(late.evidence)
    assert answer.challenge is not None
    world.host.challenge = answer.challenge
    assert answer.verdict.outcome == "indeterminate"
    assert answer.verdict.held
    assert [verdict.outcome for verdict in run(world, UNIT - 4)] == ["indeterminate"] * (UNIT - 6) + ["affirmed"] * 2


def test_samples_of_another_day_say_nothing_of_this_one(arena: Arena, world: World) -> None:
    world.open_session()
    world.host.wall_ns -= 86_400 * SECOND
    verdicts = run(world, UNIT + 1)
    assert {verdict.outcome for verdict in verdicts} == {"indeterminate"}
    device = physical(verdicts[-1])["devices"][0]
    assert (device["units"], device["verdict"]) == (0, "unusable")
    assert "s before the session did, by the host's clock" in device["why"]
    # As it was judged then: not by the clock of whoever looks again.
    again = Exported(arena.engines, world, export(world)).verify()
    assert [verdict.outcome for verdict in again.verdicts] == ["indeterminate"] * (UNIT + 1)


def test_a_clock_that_is_slowed_down_says_nothing_of_now(world: World) -> None:
    world.open_session()
    assert run(world, UNIT)[-1].outcome == "affirmed"
    # Windows go on without a gap by the host's clock, and take longer by the verifier's.
    words: list[str] = []
    for _ in range(8):
        world.clock.advance(1)
        words.append(world.window().verdict.outcome)
    assert words == ["affirmed"] * 5 + ["indeterminate"] * 3


def test_no_host_has_all_others_forgotten(world: World) -> None:
    # 20,000 samples in a second, each unlike the next: 1,900 fingerprints of each GPU, where an honest one brings one.
    # No unit that is scored has such.
    world.open_session()
    count = 20_000
    start = iter((300_000, 400_000))

    def many(source: Source) -> Source:
        low = next(start)
        power = Channel("mW", tuple(low + at * 7919 % 50_021 for at in range(count)))
        offsets = tuple(range(0, SECOND, SECOND // count))
        return replace(source, period_ns=SECOND // count, offsets=offsets, channels={"power": power})

    sensing(world, many)
    assert world.window().verdict.outcome == "indeterminate"
    with closing(sqlite3.connect(world.directory / "sessions.sqlite")) as store:
        assert store.execute("SELECT count(*) FROM fingerprints").fetchone() == (0,)


def busy(world: World, sensors: Sensors) -> Answer:
    """A window whose samples are those of a GPU at work: idle ones are too much alike to be told apart."""
    host = world.host
    work = WorkSummary(root=bytes(32), requests=40, tokens_in=4000, tokens_out=4000, batch_max=40)
    made = sensors.window(start_wall_ns=host.wall_ns, duration_ns=PERIOD_NS, work=work)
    host.sampled[host.session, host.seq] = tuple(replace(source, name=host.source) for source in made)
    return world.window()


@pytest.mark.parametrize("later", [5, 400])
def test_samples_of_an_earlier_session_cannot_be(arena: Arena, later: int) -> None:
    world = arena.world()
    world.open_session()
    first, devices = world.host.session, world.host.gpus.identities()
    played = Sensors(devices, run=later)
    assert [busy(world, played).verdict.outcome for _ in range(2 * UNIT)] == ["affirmed"] * 2 * UNIT
    world.verifier.close(world.host.session, peer=world.host.peer)
    world.clock.advance(3600)
    world.host.wall_ns += 3600 * PERIOD_NS
    world.open_session()
    # What a host would play again; another run of the same GPUs is no copy of it.
    other, again = Sensors(devices, run=later + 1), Sensors(devices, run=later)
    assert [busy(world, other).verdict.outcome for _ in range(UNIT)] == ["affirmed"] * UNIT
    world.verifier.close(world.host.session, peer=world.host.peer)
    world.open_session()
    answers: list[Answer] = []
    while not answers or (answers[-1].verdict.outcome == "affirmed" and len(answers) < 2 * UNIT):
        answers.append(busy(world, again))
    verdict = answers[-1].verdict
    assert {denial.code for denial in verdict.denials} == {Code.TELEMETRY_IMPLAUSIBLE}
    assert {device["verdict"] for device in physical(verdict)["devices"]} <= {"implausible", "no_baseline"}
    device = next(item for item in physical(verdict)["devices"] if item["verdict"] == "implausible")
    assert device["findings"][0]["check"] == "replay"
    assert first.hex() in device["why"]
    record = record_of(world, answers[-1])
    assert record.history is not None
    assert {copy.session for copy in record.history.copies} == {first}
    assert Record.parse(record.encode()) == record
    # Who judges the session elsewhere has no such memory, and comes to the same by what was recorded.
    elsewhere = Exported(arena.engines, world, export(world)).verify()
    assert elsewhere.denied[0].encode() == verdict.encode()


def test_work_between_two_sessions_is_told_and_denies_nothing(world: World) -> None:
    world.open_session()
    run(world, UNIT)
    first, counting = world.host.session, world.host.telemetry
    assert counting is not None
    world.verifier.close(world.host.session, peer=world.host.peer)
    busy = WorkSummary(root=bytes(32), requests=1, tokens_in=100_000, tokens_out=0, batch_max=1)
    counting.window(start_wall_ns=world.host.wall_ns, duration_ns=30 * PERIOD_NS, work=busy)
    counting.window(start_wall_ns=world.host.wall_ns, duration_ns=30 * PERIOD_NS, work=WorkSummary.empty())
    world.clock.advance(60)
    world.host.wall_ns += 60 * PERIOD_NS
    world.open_session()
    world.host.telemetry = counting
    answers = [world.window() for _ in range(UNIT)]
    (used, other) = physical(answers[0].verdict)["unreported"]
    assert (used["session"], used["seq"]) == (first.hex(), UNIT - 1)
    assert used["work_mj"] > 0
    assert used["energy_mj"] == used["idle_mj"] + used["work_mj"]
    assert other["device"] != used["device"]
    assert all(not physical(answer.verdict)["unreported"] for answer in answers[1:])
    assert answers[-1].verdict.outcome == "affirmed"
    history = record_of(world, answers[0]).history
    assert history is not None
    assert [reading.session for reading in history.readings] == [first, first]


def test_a_counter_that_began_anew_is_told_and_denies_nothing(world: World) -> None:
    """An honest host's driver was loaded anew, or somebody's who has two hours of work to hide."""
    world.open_session()
    run(world, UNIT)
    world.verifier.close(world.host.session, peer=world.host.peer)
    world.clock.advance(7200)
    world.host.wall_ns += 7200 * PERIOD_NS
    # Its sensors come up with it.
    world.open_session()
    verdicts = run(world, UNIT)
    assert [item["energy_mj"] for item in physical(verdicts[0])["unreported"]] == [None, None]
    told = [
        [item["message"] for item in json.loads(verdict.encode())["warnings"] if item["code"] == "TELEMETRY_UNREPORTED"]
        for verdict in verdicts
    ]
    devices = sorted(world.host.gpus.identities())
    assert told[1:] == [[]] * (UNIT - 1)
    assert [message.partition(device.hex())[2] for message, device in zip(told[0], devices, strict=True)] == [
        " began anew in the 7200 s before this session: what it used is not known"
    ] * 2
    assert verdicts[-1].outcome == "affirmed"


def test_power_lost_between_ledger_and_memory(world: World) -> None:
    """The window is in the ledger, nobody remembers its samples: after the restart they are, and are no copy."""
    world.open_session()
    run(world, UNIT + 4)
    world.clock.advance(1)
    sealed = world.host.seal()
    with mock.patch.object(LiveSessions, "advance", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        world.verifier.window(world.host.session, sealed.evidence, peer=world.host.peer)
    world.restart()
    world.host.advance(sealed)
    world.host.challenge = world.verifier.resume(world.host.session, peer=world.host.peer).challenge
    verdicts = run(world, 5)
    assert [verdict.outcome for verdict in verdicts] == ["affirmed"] * 5
    assert not any(physical(verdict)["history"]["copies"] for verdict in verdicts)
    assert physical(verdicts[-1])["devices"][0]["units"] == 2


def test_a_verification_that_failed_says_nothing_of_samples(world: World) -> None:
    world.open_session()
    run(world, UNIT)
    verdict = world.window(replace(world.host.observe(), telemetry=b"")).verdict
    assert (verdict.outcome, verdict.telemetry, verdict.physical) == ("denied", "no_baseline", None)
    assert json.loads(verdict.encode())["physical"] is None
