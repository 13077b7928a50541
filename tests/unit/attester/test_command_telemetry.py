"""`weighbridge-attester telemetry`: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import argparse
import io
import json
import threading
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from weighbridge.attester.cli import main
from weighbridge.attester.commands import telemetry_list, telemetry_record, telemetry_watch
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.telemetry import sparkline
from weighbridge.attester.telemetry.emulated import EmulatedTelemetry, made_up
from weighbridge.attester.telemetry.emulated_load import LoadRange
from weighbridge.attester.telemetry.registry import GROUP, PlugIn
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.recording import Recording
from weighbridge.proto.telemetry import Event, EventKind

SECOND = 1_000_000_000
SCOPE = [
    *("--scope-gpu-model", "H100"),
    *("--scope-driver", "580.1"),
    *("--scope-engine", "none"),
    *("--scope-workload", "bench"),
]


def record(*arguments: str) -> int:
    return main(["telemetry", "record", "--telemetry", "emulated:run=1", "--label", "test", *arguments])


def loaded(path: Path) -> Recording:
    return Recording.parse(path.read_bytes())


class TestRecord:
    def test_emulated_runs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "demo.wbr"
        arguments = ("--emulated-runs", "2", "--seconds", "30", "--load", "10+100..20+3000@4", "-o", str(out))
        assert record(*arguments) == ExitCode.AFFIRMED
        assert not out.exists()
        one, two = loaded(tmp_path / "demo-01.wbr"), loaded(tmp_path / "demo-02.wbr")
        assert (one.origin, one.label, len(one.windows)) == ("emulated", "test", 3)
        assert (one.scope.workload, one.scope.power_limit_mw, one.scope.model) == ("test", 700_000, None)
        # Runs follow each other, and no sample of one is in the other.
        assert one.windows[-1].end_ns == two.windows[0].start_ns
        readings = [
            set(window.readings().sources[0].channels["energy"].values or ())
            for item in (one, two)
            for window in item.windows
        ]
        assert len(set.union(*readings)) == sum(map(len, readings))
        printed = capsys.readouterr().out
        assert f"file     {tmp_path / 'demo-02.wbr'}  {two.digest.hex()[:16]}…" in printed
        tokens = sum(window.work.tokens_out for window in two.windows)
        assert "3 windows, 30 s" in printed
        assert f"{tokens:,} out" in printed
        assert all(len(line) <= 100 for line in printed.splitlines() if str(tmp_path) not in line)

    def test_a_run_that_begins_idle_as_a_session_does(self, tmp_path: Path) -> None:
        out = tmp_path / "x.wbr"
        arguments = ("--emulated-runs", "1", "--seconds", "40", "--idle", "20", "--load", "10+100", "-o", str(out))
        assert record(*arguments) == ExitCode.AFFIRMED
        assert [window.work.tokens_out for window in loaded(out).windows] == [0, 0, 1000, 1000]

    def test_one_run_has_the_name_that_was_given(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "demo.wbr"
        assert record("--emulated-runs", "1", "--seconds", "10", "-o", str(out), "--json") == ExitCode.AFFIRMED
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "weighbridge/recording-summary/v1"
        (item,) = document["recordings"]
        assert (item["file"], item["digest"], item["windows"]) == (str(out), loaded(out).digest.hex(), 1)
        assert item["sources"] == [{"device": made_up(1)[0].hex(), "source": "emulated", "samples": 100, "events": {}}]

    def test_the_devices_of_a_session(self, tmp_path: Path) -> None:
        """A baseline is of one GPU: recordings must be of those that `run` attests."""
        vendor = tmp_path / "vendor"
        gpus = EmulatedGpus.open(vendor, 2)
        identities = gpus.identities()
        gpus.close()
        arguments = ["telemetry", "record", "--gpu", "emulated:2", "--gpu-vendor", str(vendor), "--label", "x"]
        arguments += ["--emulated-runs", "1", "--seconds", "10", "-o", str(tmp_path / "x.wbr")]
        assert main(arguments) == ExitCode.AFFIRMED
        (window,) = loaded(tmp_path / "x.wbr").windows
        assert tuple(source.device for source in window.readings().sources) == identities

    def test_in_real_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(telemetry_record, "SystemSampleClock", FakeClock)
        out = tmp_path / "live.wbr"
        assert record("--seconds", "20", "--window", "5", "-o", str(out)) == ExitCode.AFFIRMED
        assert [window.end_ns - window.start_ns for window in loaded(out).windows] == [5 * SECOND] * 4

    def test_what_is_interrupted_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Interrupted(FakeClock):
            def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
                super().wait_until(monotonic_ns, stop)
                if self.waits == 3:
                    raise KeyboardInterrupt

        monkeypatch.setattr(telemetry_record, "SystemSampleClock", Interrupted)
        out = tmp_path / "live.wbr"
        assert record("--seconds", "50", "-o", str(out)) == ExitCode.ENVIRONMENT
        assert len(loaded(out).windows) == 2
        assert "2 whole windows are kept" in capsys.readouterr().err

    def test_a_source_that_fails_later(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(telemetry_record, "SystemSampleClock", FakeClock)
        undeclared = tmp_path / "undeclared"
        undeclared.write_text("junk")
        out = tmp_path / "live.wbr"
        arguments = ["telemetry", "record", "--telemetry", f"emulated:undeclared={undeclared}", "--label", "x"]
        assert main([*arguments, "--seconds", "10", "-o", str(out)]) == ExitCode.ENVIRONMENT
        assert not out.exists()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--seconds", "15", "-o", "x.wbr"], "multiple of --window"),
            (["--seconds", "20", "--idle", "5", "-o", "x.wbr"], "--idle must be a multiple of --window, 10"),
            (["--seconds", "10", "-o", "x.cbor"], "ends in .wbr"),
            (["--seconds", "0", "-o", "x.wbr"], "from 1 to"),
            (["--seconds", "200000", "--window", "1", "-o", "x.wbr"], "at most 10000 windows"),
            (["--seconds", "10", "-o", "x.wbr", "--label", "y"], "given twice"),
            (["--seconds", "10", "-o", "x.wbr", "--gpu", "emulated:1"], "go together"),
            (["--seconds", "10", "-o", "x.wbr", "--gpu-vendor", "d"], "go together"),
            (["--seconds", "10", "-o", "x.wbr", "--load", "1"], "tokens a second"),
            (
                ["--seconds", "10", "-o", "x.wbr", "--emulated-runs", "2", "--telemetry", "linux-host"],
                "emulated sensors alone",
            ),
            (["--seconds", "10", "-o", "x.wbr", "--telemetry", "nvml"], "is needed"),
            (["--seconds", "10", "-o", "x.wbr", "--scope-driver", "a\nb"], "printable"),
        ],
    )
    def test_usage(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        said: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert record(*arguments) == ExitCode.USAGE
        assert said in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_no_source_and_loads_of_others(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["telemetry", "record", "--label", "x", "--seconds", "10", "-o", "x.wbr", *SCOPE]
        assert main(arguments) == ExitCode.USAGE
        assert "name a source" in capsys.readouterr().err
        assert main([*arguments, "--telemetry", "linux-host", "--idle", "10"]) == ExitCode.USAGE
        assert main([*arguments, "--telemetry", "linux-host", "--load", "1+1"]) == ExitCode.USAGE
        assert "source engine" in capsys.readouterr().err

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        out = tmp_path / "none" / "x.wbr"
        assert record("--emulated-runs", "1", "--seconds", "10", "-o", str(out)) == ExitCode.ENVIRONMENT


class TestImport:
    def run(self, tmp_path: Path, text: str, *arguments: str) -> int:
        table = tmp_path / "t.csv"
        table.write_text(text)
        out = ["--label", "wall", *SCOPE, "-o", str(tmp_path / "wall.wbr")]
        return main(["telemetry", "import", "--csv", str(table), *out, *arguments])

    def test_a_table(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = "t_s,watts\n0,100\n0.1,200\n0.2,nan\n12,inf\n1000000000,5\n"
        assert self.run(tmp_path, text, "--column", "power=watts:W", "--period", "100") == ExitCode.AFFIRMED
        recording = loaded(tmp_path / "wall.wbr")
        assert (recording.origin, recording.scope.gpu_model) == ("imported", "H100")
        # A window where there are samples, however long there were none.
        sources = [window.readings().sources for window in recording.windows]
        assert [source[0].offsets for source in sources] == [(0, 100_000_000, 200_000_000), (2 * SECOND,), (0,)]
        assert [source[0].channels["power"].values for source in sources] == [
            (100_000, 200_000, None),
            (None,),
            (5_000,),
        ]
        assert Event(2 * SECOND, EventKind.SENTINEL, "power") in sources[1][0].events
        assert (sources[0][0].name, sources[0][0].device) == ("imported", None)
        assert "imported host: 5 samples" in capsys.readouterr().out

    def test_one_gpu_of_several(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        device = "ab" * 32
        text = "ms,index,power.draw [W]\n0,0,1\n0,1,2\n1000,0,3\n1000,1,4\n"
        columns = ["--column", "power=power.draw [W]:W", "--time", "ms:ms", "--only", "index=1", "--device", device]
        assert self.run(tmp_path, text, *columns, "--json") == ExitCode.AFFIRMED
        (item,) = json.loads(capsys.readouterr().out)["recordings"]
        assert item["sources"] == [{"device": device, "source": "imported", "samples": 2, "events": {"gap": 1}}]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "no such column"),
            ("t_s,watts\n", "no row with samples"),
            ("t_s,power\n0,1\n", "no such column"),
            ("t_s,watts\n1,1\n0,1\n", "line 3"),
            ("t_s,watts\n0,1 W\n", "nounits"),
        ],
    )
    def test_tables_that_are_none(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
    ) -> None:
        assert self.run(tmp_path, text, "--column", "power=watts:W") == ExitCode.MALFORMED
        assert said in capsys.readouterr().err
        assert not (tmp_path / "wall.wbr").exists()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "--column"),
            (["--column", "power=watts:C"], "power is not measured in C"),
            (["--column", "power=watts:W", "--column", "power=w:W"], "twice"),
            (["--column", "power=watts:W", "--time", "t"], "COLUMN:UNIT"),
            (["--column", "power=watts:W", "--only", "index"], "COLUMN=TEXT"),
            (["--column", "power=watts:W", "--only", "i=1", "--only", "i=2"], "twice"),
            (["--column", "power=watts:W", "--device", "AB" * 32], "lower-case hexadecimal"),
            (["--column", "power=watts:W", "--window", "61"], "from 1 to 60"),
        ],
    )
    def test_usage(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
        assert self.run(tmp_path, "t_s,watts\n0,1\n", *arguments) == ExitCode.USAGE
        assert said in capsys.readouterr().err

    def test_no_table(self, tmp_path: Path) -> None:
        out = ["--label", "wall", *SCOPE, "-o", str(tmp_path / "wall.wbr")]
        table = ["--csv", str(tmp_path / "none.csv"), "--column", "power=watts:W"]
        assert main(["telemetry", "import", *table, *out]) == ExitCode.ENVIRONMENT


class FakeClock:
    """Waiting passes the time."""

    def __init__(self) -> None:
        self.now = 10 * SECOND
        self.waits = 0

    def wall_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
        assert not stop.is_set()
        self.waits += 1
        self.now = monotonic_ns


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(out: io.StringIO, *, seconds: int = 3, devices: int = 2, as_json: bool = False) -> str:
    args = argparse.Namespace(json=as_json, seed=1, seconds=seconds, load=LoadRange.parse("10+5000"))
    telemetry_watch.watch(EmulatedTelemetry(1, made_up(devices)), args, out=out, clock=FakeClock())
    return out.getvalue()


class TestWatch:
    def test_lines(self) -> None:
        lines = watched(io.StringIO()).splitlines()
        assert len(lines) == 6
        assert lines[0].startswith("00:00:11 emulated ab3c2959  power ")
        assert all(len(line) <= 110 for line in lines)

    def test_documents(self) -> None:
        documents = [json.loads(line) for line in watched(io.StringIO(), as_json=True).splitlines()]
        assert [document["samples"] for document in documents] == [10] * 6
        assert documents[0]["schema"] == "weighbridge/telemetry-sample/v1"
        assert documents[0]["time"] == "1970-01-01T00:00:11Z"
        assert documents[0]["channels"]["pcie_rx"] == {"unit": "B", "last": None, "reported": False}
        assert 100_000 < documents[-1]["channels"]["power"]["last"] < 700_000

    @pytest.mark.parametrize(("columns", "rows"), [(100, 40), (40, 10), (20, 3)])
    def test_a_table_fits_its_terminal(self, monkeypatch: pytest.MonkeyPatch, columns: int, rows: int) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(rows))
        monkeypatch.setattr(sparkline, "levels", lambda: sparkline.ASCII)
        first, *others = watched(Terminal()).split("\x1b[J")
        for screen in (first, *others):
            lines = [line for line in screen.splitlines() if not line.startswith("\x1b")]
            assert all(len(line) < columns for line in lines)
            assert len(lines) < rows
        assert len(others) == 2
        if columns == 100:
            assert "not reported" in first
            assert "#" in first

    def test_until_interrupted(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        class Interrupted(FakeClock):
            def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
                super().wait_until(monotonic_ns, stop)
                if self.waits == 3:
                    raise KeyboardInterrupt

        monkeypatch.setattr(telemetry_watch, "SystemSampleClock", Interrupted)
        assert main(["telemetry", "watch", "--telemetry", "emulated"]) == ExitCode.AFFIRMED
        assert len(capsys.readouterr().out.strip().splitlines()) == 2

    def test_no_source(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["telemetry", "watch"]) == ExitCode.USAGE
        assert "telemetry list" in capsys.readouterr().err

    def test_a_source_that_is_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["telemetry", "watch", "--telemetry", "thermometer"]) == ExitCode.ENVIRONMENT
        assert "TELEMETRY_SOURCE" in capsys.readouterr().err


class TestList:
    PLUGINS = (
        PlugIn("emulated", "weighbridge", "x:y"),
        PlugIn("adc", "weighbridge", "x:y"),
        PlugIn("thermometer", "somebody", "x:y"),
    )

    def test_what_is_here_and_why_not(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(telemetry_list, "plugins", lambda: self.PLUGINS)
        assert main(["telemetry", "list"]) == ExitCode.AFFIRMED
        printed = capsys.readouterr().out
        assert "emulated    ab3c2959: power, power_instant, energy" in printed
        assert "adc         needs options: the option path is missing" in printed
        assert "thermometer not here: there is no such source (from somebody)" in printed
        assert all(len(line) <= 115 for line in printed.splitlines())

    def test_as_a_document(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(telemetry_list, "plugins", lambda: self.PLUGINS)
        assert main(["telemetry", "list", "--json"]) == ExitCode.AFFIRMED
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "weighbridge/telemetry-list/v1"
        assert [(item["name"], item["usable"]) for item in document["sources"]] == [
            ("emulated", True),
            ("adc", False),
            ("thermometer", False),
        ]
        assert document["sources"][0]["devices"][0]["channels"]["power"] == {
            "unit": "mW",
            "reported": True,
            "read": True,
        }
        assert document["sources"][1]["error"]["code"] == "TELEMETRY_SOURCE"

    def test_one_that_breaks(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        # `json:loads` is called with what plug-ins are given, and raises a TypeError.
        found = EntryPoints([EntryPoint("broken", "json:loads", GROUP), *metadata.entry_points(group=GROUP)])
        monkeypatch.setattr(metadata, "entry_points", lambda *, group: found.select(group=group))
        monkeypatch.setattr(
            telemetry_list, "plugins", lambda: (PlugIn("broken", "somebody", "json:loads"), *self.PLUGINS[:1])
        )
        assert main(["telemetry", "list"]) == ExitCode.AFFIRMED
        first, *others = capsys.readouterr().out.splitlines()
        assert first.startswith("broken      the plug-in is broken: TypeError: ")
        assert any(line.startswith("emulated    ab3c2959: power") for line in others)
        assert main(["telemetry", "watch", "--telemetry", "broken"]) == ExitCode.ENVIRONMENT
        error, hint = capsys.readouterr().err.splitlines()
        assert "TELEMETRY_SOURCE: the plug-in is broken: TypeError: " in error
        assert hint.startswith("hint: look at its options")

    def test_nothing_installed(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(telemetry_list, "plugins", tuple)
        assert main(["telemetry", "list"]) == ExitCode.AFFIRMED
        assert capsys.readouterr().out == "no source is installed\n"
