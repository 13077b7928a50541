"""Recordings and tables, played as a source: what was measured, at its own pace, under a name that nothing believes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.telemetry import csv_trace
from weighbridge.attester.telemetry.csv_trace import Column, parse, time_column
from weighbridge.attester.telemetry.emulated import EmulatedTelemetry, made_up
from weighbridge.attester.telemetry.interface import HostFacts
from weighbridge.attester.telemetry.replay import Replay, open_replay, traces_of
from weighbridge.attester.telemetry.trace import Trace
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.recording import RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.telemetry import Channel, Event, EventKind, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

SECOND = 1_000_000_000
POWER = [Column.parse("power=watts:W")]
SCOPE = Scope(gpu_model="H100", driver="1", engine="none", workload="idle")


def table(*rows: str, head: str = "t_s,watts") -> bytes:
    return "\n".join((head, *rows)).encode()


def refused(data: bytes, columns: list[Column] | None = None) -> MalformedEvidence:
    with pytest.raises(MalformedEvidence) as caught:
        parse(data, columns or POWER)
    assert caught.value.where.startswith(("line ", "table"))
    return caught.value


def recorded(windows: int = 3, devices: int = 2, *, start: int = 10**18) -> Recording:
    source = EmulatedTelemetry(1, made_up(devices))
    return Recording(
        origin="emulated",
        label="test",
        scope=SCOPE,
        windows=tuple(
            RecordedWindow(
                telemetry=Telemetry(
                    session=bytes(16),
                    seq=number,
                    sources=tuple(source.window(start_wall_ns=at, duration_ns=SECOND, work=WorkSummary.empty())),
                ).encode(),
                work=WorkSummary.empty(),
                start_ns=at,
                end_ns=at + SECOND,
            )
            for number in range(windows)
            for at in (start + number * SECOND,)
        ),
    )


def played(source: Replay, *lengths: int) -> list[list[Source]]:
    found: list[list[Source]] = []
    now = 5 * 10**18
    for length in lengths:
        found.append(source.window(start_wall_ns=now, duration_ns=length, work=WorkSummary.empty()))
        now += length
    source.close()
    return found


class TestTable:
    def test_readings_in_the_channels_units(self) -> None:
        columns = [
            Column.parse(text)
            for text in (
                "power=W:W",
                "energy=E:Wh",
                "temperature=T:C",
                "utilisation=U:%",
                "sm_clock=f:GHz",
                "bus=V:V",
                "clock_reasons=r:bits",
                "pcie_tx=x:KiB",
            )
        ]
        data = table("5,1.5,0.001,40.5,99.5,1.98,12,4,3", head="t_s, W,E,T,U,f,V,r,x")
        trace = parse(data, columns)
        assert {name: (channel.unit, channel.values) for name, channel in trace.channels.items()} == {
            "power": ("mW", (1500,)),
            "energy": ("mJ", (3600,)),
            "temperature": ("m°C", (40_500,)),
            "utilisation": ("‰", (995,)),
            "sm_clock": ("MHz", (1980,)),
            "bus": ("mV", (12_000,)),
            "clock_reasons": ("bits", (4,)),
            "pcie_tx": ("B", (3072,)),
        }
        assert trace.channels["power"].window_ns == SECOND
        assert (trace.start_ns, trace.times) == (5 * SECOND, [0])

    def test_times_and_period(self) -> None:
        data = table("1700000000100,1", "1700000000200,2", "1700000000300,3", "1700000000900,4", head="ms,watts")
        trace = parse(data, POWER, time=time_column("ms:ms"))
        assert trace.times == [0, 100_000_000, 200_000_000, 800_000_000]
        assert (trace.start_ns, trace.period_ns) == (1_700_000_000_100_000_000, 100_000_000)
        assert parse(data, POWER, time=time_column("ms:ms"), period_ns=7).period_ns == 7

    @pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "N/A", "[N/A]", "[Not Supported]"])
    def test_no_reading_is_missing(self, cell: str) -> None:
        trace = parse(table("0,1", f"1,{cell}", "2,3"), POWER)
        assert trace.channels["power"].values == (1000, None, 3000)
        assert trace.events == ()

    @pytest.mark.parametrize("cell", ["inf", "-inf", "Infinity", "1e30", "-1e30", "1e999", "9" * 20])
    def test_numbers_that_cannot_be_sent_are_missing_and_told(self, cell: str) -> None:
        trace = parse(table("0,1", f"1,{cell}", "2,3"), POWER)
        assert trace.channels["power"].values == (1000, None, 3000)
        assert trace.events == (Event(SECOND, EventKind.SENTINEL, "power"),)

    def test_what_is_odd_and_can_be_sent_stays(self) -> None:
        """Whether a GPU may take minus one watt is for a verifier to say."""
        assert parse(table("0,-1", "1,1e6", "2,-0.0004"), POWER).channels["power"].values == (-1000, 10**9, 0)

    @pytest.mark.parametrize("cell", ["1,5", "1 W", "0x10", "1_0", "²", "--1", "1e", "watts", "1;2"])
    def test_what_is_no_number_is_refused_with_its_line(self, cell: str) -> None:
        error = refused(table("0,1", f'1,"{cell}"'))
        assert (error.code, error.where) == (Code.NOT_A_NUMBER, "line 3")
        assert "nounits" in error.hint

    @pytest.mark.parametrize(
        ("rows", "text"),
        [
            (("1,1", "0.5,1"), "times do not ascend"),
            (("1,1", "1,1"), "two samples have one time"),
            (("1,1", "1.0,1"), "two samples have one time"),
            (("-1,1",), "no time"),
            (("1e30,1",), "no time"),
            (("0,1", "1"), "not one cell per heading"),
            (("0,1,2",), "not one cell per heading"),
        ],
    )
    def test_times_and_rows_that_will_not_do(self, rows: tuple[str, ...], text: str) -> None:
        error = refused(table(*rows))
        assert error.code is Code.FIELD_RANGE
        assert text in error.message

    @pytest.mark.parametrize("cell", ["nan", "", "inf", "soon"])
    def test_times_that_are_no_numbers(self, cell: str) -> None:
        assert refused(table(f"{cell},1")).code is Code.NOT_A_NUMBER

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"", Code.FIELD_MISSING),
            (b"t_s,watts", Code.FIELD_MISSING),
            (b"t_s,watts\n\n\n", Code.FIELD_MISSING),
            (b"t_s,power\n0,1\n", Code.FIELD_MISSING),
            (b"watts\n1\n", Code.FIELD_MISSING),
            (b"t_s,watts,watts\n0,1,2\n", Code.DUPLICATE_KEY),
            (b"t_s,watts\n0,\xff\n", Code.NOT_UTF8),
            (b't_s,watts\n0,"1\n', Code.NOT_A_NUMBER),
        ],
    )
    def test_tables_that_are_none(self, data: bytes, code: Code) -> None:
        assert refused(data).code is code

    def test_ten_million_samples_are_refused_at_once(self) -> None:
        data = b"t_s,watts\n" + b"0,1\n" * 10_000_000
        start = time.perf_counter()
        error = refused(data)
        assert time.perf_counter() - start < 2
        assert (error.code, error.hint) == (Code.TOO_LARGE, "split the table: one recording is one run")

    def test_too_many_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_trace, "BYTES_MAX", 10)
        assert refused(table("0,1")).code is Code.TOO_LARGE

    def test_too_many_rows_of_one_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_trace, "ROWS_MAX", 3)
        data = table(*(f"{number // 2},1,{number % 2}" for number in range(8)), head="t_s,watts,gpu")
        with pytest.raises(MalformedEvidence) as caught:
            parse(data, POWER, only={"gpu": "1"})
        assert (caught.value.code, caught.value.where) == (Code.TOO_LARGE, "line 9")

    def test_rows_of_one_of_several_devices(self) -> None:
        data = table("0,0,1", "0,1,2", "1,0,3", "1,1,4", head="t_s,gpu,watts")
        assert refused(data).message == "two samples have one time"
        assert parse(data, POWER, only={"gpu": "1"}).channels["power"].values == (2000, 4000)
        with pytest.raises(MalformedEvidence) as caught:
            parse(data, POWER, only={"gpu": "7"})
        assert caught.value.message == "there is no row with samples"

    @given(st.binary(max_size=200) | st.text(alphabet="0123456789.,\n-e\"' ", max_size=100).map(str.encode))
    def test_any_bytes(self, data: bytes) -> None:
        """Nothing but what a malformed table is refused with."""
        for content in (data, b"t_s,watts\n" + data):
            try:
                trace = parse(content, POWER)
            except MalformedEvidence:
                continue
            piece = trace.piece(0, trace.duration_ns, name="replay", start_wall_ns=0, device=None)
            assert Telemetry(session=bytes(16), seq=0, sources=(piece,)).encode()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("power", "CHANNEL=COLUMN:UNIT"),
            ("power=watts", "CHANNEL=COLUMN:UNIT"),
            ("power=:W", "CHANNEL=COLUMN:UNIT"),
            ("=watts:W", "CHANNEL=COLUMN:UNIT"),
            ("Power=watts:W", "CHANNEL=COLUMN:UNIT"),
            ("power=watts:BTU", "unknown unit"),
            ("power=watts:C", "power is not measured in C, but in kW, W, mW"),
            ("temperature=t:W", "temperature is not measured in W, but in C"),
        ],
    )
    def test_columns_that_are_none(self, text: str, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Column.parse(text)

    @pytest.mark.parametrize("text", ["t", "t:", ":s", "t:W", "t:minutes"])
    def test_time_columns_that_are_none(self, text: str) -> None:
        with pytest.raises(ValueError, match="COLUMN:UNIT"):
            time_column(text)

    @pytest.mark.parametrize("columns", [[], POWER * 2])
    def test_no_columns_or_one_twice(self, columns: list[Column]) -> None:
        with pytest.raises(ValueError, match="columns"):
            parse(table("0,1"), columns)


class TestTrace:
    def test_a_piece(self) -> None:
        trace = Trace(
            device=None,
            start_ns=0,
            period_ns=10,
            times=[0, 10, 20, 50, 60],
            channels={"x": Channel("1", (1, 2, None, 4, 5), 7), "y": Channel("1", None)},
            events=(Event(20, EventKind.FAULT, "x"), Event(50, EventKind.FAULT, "x"), Event(60, EventKind.WRAP, "x")),
        )
        piece = trace.piece(10, 60, name="n", start_wall_ns=99, device=bytes(32))
        assert (piece.offsets, piece.start_wall_ns, piece.device, piece.name) == ((0, 10, 40), 99, bytes(32), "n")
        assert piece.channels == {"x": Channel("1", (2, None, 4), 7), "y": Channel("1", None)}
        # One of two equal events; a wrap that is not in it is not told; samples are missing from 30 on.
        assert piece.events == (Event(10, EventKind.FAULT, "x"), Event(20, EventKind.GAP, None))

    def test_missing_at_both_ends(self) -> None:
        trace = Trace(device=None, start_ns=0, period_ns=10, times=[50], channels={"x": Channel("1", (1,))})
        piece = trace.piece(0, 100, name="n", start_wall_ns=0, device=None)
        assert piece.events == (Event(0, EventKind.GAP, None), Event(60, EventKind.GAP, None))
        assert trace.piece(200, 300, name="n", start_wall_ns=0, device=None).events == (Event(0, EventKind.GAP, None),)


class TestReplay:
    def test_a_recording_is_played_as_it_was_read(self) -> None:
        recording = recorded()
        traces = traces_of(recording)
        assert [trace.device for trace in traces] == sorted(made_up(2))
        windows = played(Replay([(trace.device, trace) for trace in traces]), SECOND, SECOND, SECOND)
        for window, read in zip(recording.windows, windows, strict=True):
            before = {source.device: source for source in window.readings().sources}
            for source in read:
                assert source.name == "replay"
                assert source.channels == before[source.device].channels
                assert source.offsets == before[source.device].offsets
                assert source.events == ()

    def test_windows_of_another_length(self) -> None:
        (trace,) = traces_of(recorded(devices=1))
        windows = played(Replay([(None, trace)]), 1_700_000_000, 50_000_000, 1_250_000_000, SECOND)
        assert [len(window[0].offsets) for window in windows] == [17, 1, 12, 0]
        values = [value for window in windows for value in window[0].channels["energy"].values or ()]
        assert values == list(trace.channels["energy"].values or ())
        assert windows[2][0].offsets[0] == 50_000_000
        assert windows[-1][0].events == (Event(0, EventKind.GAP, None),)

    def test_over_and_over(self) -> None:
        (trace,) = traces_of(recorded(windows=2, devices=1))
        windows = played(Replay([(None, trace)], over_and_over=True), *[SECOND] * 5)
        assert windows[0][0].channels == windows[2][0].channels == windows[4][0].channels

    def test_the_source_with_the_most_channels(self) -> None:
        recording = recorded(windows=1, devices=1)
        (source,) = recording.windows[0].readings().sources
        lesser = Source(
            device=source.device,
            name="another",
            start_wall_ns=source.start_wall_ns,
            period_ns=1,
            offsets=tuple(range(100)),
            channels={"x": Channel("1", (0,) * 100)},
        )
        window = RecordedWindow(
            telemetry=Telemetry(session=bytes(16), seq=0, sources=(lesser, source)).encode(),
            work=WorkSummary.empty(),
            start_ns=0,
            end_ns=1,
        )
        (trace,) = traces_of(Recording(origin="host", label="", scope=SCOPE, windows=(window,)))
        assert "power" in trace.channels

    def test_windows_that_do_not_ascend(self) -> None:
        recording = recorded(devices=1)
        backwards = Recording(origin="host", label="", scope=SCOPE, windows=recording.windows[::-1])
        with pytest.raises(MalformedEvidence) as caught:
            traces_of(backwards)
        assert caught.value.code is Code.FIELD_RANGE

    def test_misuse(self) -> None:
        (trace,) = traces_of(recorded(devices=1))
        with pytest.raises(ValueError, match="each device once"):
            Replay([])
        with pytest.raises(ValueError, match="each device once"):
            Replay([(None, trace), (None, trace)])
        with pytest.raises(ValueError, match="duration"):
            played(Replay([(None, trace)]), 0)


class TestPlugIn:
    def test_a_recording_as_the_sessions_devices(self, tmp_path: Path) -> None:
        path = tmp_path / "run.wbr"
        path.write_bytes(recorded().encode())
        mine = (bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32)
        (window,) = played(open_replay({"file": str(path)}, HostFacts(devices=mine)), SECOND)
        assert [source.device for source in window] == list(mine[:2])
        (window,) = played(open_replay({"file": str(path), "loop": "yes"}, HostFacts()), SECOND)
        assert [source.device for source in window] == sorted(made_up(2))

    def test_a_table(self, tmp_path: Path) -> None:
        path = tmp_path / "run.csv"
        path.write_bytes(table("0,1,20", "100,2,21", head="ms,watts,deg"))
        options = {"file": str(path), "time": "ms:ms", "power": "watts:W", "temperature": "deg:C"}
        for host, device in ((HostFacts(), None), (HostFacts(devices=(bytes(32),)), bytes(32))):
            ((source,),) = played(open_replay(options, host), SECOND)
            assert source.device == device
            assert source.channels["power"].values == (1000, 2000)
            assert source.channels["temperature"].values == (20_000, 21_000)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"file": "run.csv"},
            {"file": "run.csv", "power": "watts:C"},
            {"file": "run.csv", "power": "watts:W", "time": "t"},
            {"file": "run.csv", "power": "watts:W", "loop": "maybe"},
            {"file": "run.wbr", "power": "watts:W"},
        ],
    )
    def test_options_that_will_not_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(EnvironmentFault) as caught:
            open_replay(options, HostFacts())
        assert caught.value.code is Code.TELEMETRY_SOURCE

    def test_an_empty_recording(self, tmp_path: Path) -> None:
        path = tmp_path / "run.wbr"
        path.write_bytes(Recording(origin="host", label="", scope=SCOPE, windows=()).encode())
        with pytest.raises(EnvironmentFault) as caught:
            open_replay({"file": str(path)}, HostFacts())
        assert caught.value.code is Code.TELEMETRY_SOURCE

    def test_files_that_are_something_else(self, tmp_path: Path) -> None:
        for name, options in (("run.wbr", {}), ("run.csv", {"power": "watts:W"})):
            path = tmp_path / name
            with pytest.raises(EnvironmentFault) as absent:
                open_replay({"file": str(path), **options}, HostFacts())
            assert absent.value.code is Code.FILE_UNREADABLE
            path.write_bytes(b"\x00\xffjunk")
            with pytest.raises(MalformedEvidence) as caught:
                open_replay({"file": str(path), **options}, HostFacts())
            assert caught.value.where.startswith(str(path))
            assert caught.value.hint
