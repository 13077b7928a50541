"""Sources by name: those that are installed, those that will not do, and several as one."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.telemetry.combined import Combined
from weighbridge.attester.telemetry.interface import HostFacts, Options, TelemetrySource
from weighbridge.attester.telemetry.registry import GROUP, Choice, PlugIn, open_sources, plugins
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import Channel, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

BUILT_IN = ("adc", "emulated", "engine", "linux-host", "nvml", "replay")
MODULE = "weighbridge_test_plugins"
BAD_MODULE = "weighbridge_test_broken"
DOCUMENT = Path(__file__).parents[4] / "docs" / "telemetry-sources.md"


class Fixed:
    """A source of one reading. ``made`` are all there ever were."""

    made: list[Fixed]

    def __init__(self, options: Mapping[str, str], host: HostFacts) -> None:
        self.name = options.get("name", "fixed")
        self.host = host
        self.closed = False
        self.made.append(self)

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        return [
            Source(
                device=None,
                name=self.name,
                start_wall_ns=start_wall_ns,
                period_ns=duration_ns,
                offsets=(0,),
                channels={"requests": Channel("1", (work.requests,))},
            )
        ]

    def close(self) -> None:
        self.closed = True


class Late(Fixed):
    """Breaks as soon as it is asked for anything."""

    made: list[Fixed] = []  # noqa: RUF012 - of this class alone

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        raise ZeroDivisionError(f"not yet\n{start_wall_ns} {duration_ns} {work}")

    def close(self) -> None:
        raise RuntimeError


class BadModule:
    """A module that breaks while it is imported, and its own finder."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, BadModule()) if name == BAD_MODULE else None  # type: ignore[arg-type]  # as importlib asks

    def create_module(self, _: ModuleSpec) -> None:
        return None

    def exec_module(self, _: ModuleType) -> None:
        raise ValueError("a setting is missing\nand more " + "x" * 300)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> tuple[EntryPoint, ...]:
    """A package of plug-ins that is there for one test."""
    module = ModuleType(MODULE)

    class Made(Fixed):
        made: list[Fixed] = []  # noqa: RUF012 - of this test's class alone

    vars(module).update(
        Fixed=Made,
        constant=3,
        nothing=lambda options, host: (options, host),
        broken=lambda options, _: Options("broken", options).number("rate", 1, 5),
        raises=lambda options, _: {}[options["path"]],
        leaves=lambda *_: sys.exit(0),
        late=Late,
    )
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, BadModule])
    values = {
        "fixed": f"{MODULE}:Fixed",
        "other": f"{MODULE}:Fixed",
        "constant": f"{MODULE}:constant",
        "nothing": f"{MODULE}:nothing",
        "broken": f"{MODULE}:broken",
        "absent": f"{MODULE}:absent",
        "no-module": "weighbridge_no_such_module:source",
        "bad-module": f"{BAD_MODULE}:source",
        "raises": f"{MODULE}:raises",
        "leaves": f"{MODULE}:leaves",
        "late": f"{MODULE}:late",
    }
    return tuple(EntryPoint(name, value, GROUP) for name, value in values.items())


def made() -> list[Fixed]:
    found: list[Fixed] = vars(sys.modules[MODULE])["Fixed"].made
    return found


def window(source: TelemetrySource) -> list[Source]:
    return source.window(start_wall_ns=5, duration_ns=7, work=WorkSummary.empty())


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("nvml", Choice("nvml")),
        ("adc:path=/run/x:y,rate=5000", Choice("adc", {"path": "/run/x:y", "rate": "5000"})),
        ("replay:path=", Choice("replay", {"path": ""})),
        ("a:b=c=d", Choice("a", {"b": "c=d"})),
    ],
)
def test_choices(text: str, choice: Choice) -> None:
    assert Choice.parse(text) == choice


@pytest.mark.parametrize("text", ["", ":", "adc:", ":a=b", "adc:path", "adc:=x", "adc:a=1,a=2", "adc:a=1,", "adc:,a=1"])
def test_no_choices(text: str) -> None:
    with pytest.raises(ValueError, match="must be NAME"):
        Choice.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_choice_or_none(text: str) -> None:
    try:
        choice = Choice.parse(text)
    except ValueError:
        return
    listed = ",".join(f"{key}={value}" for key, value in choice.options.items())
    assert text == (f"{choice.name}:{listed}" if listed else choice.name)


def test_those_of_this_package_are_installed_as_anybodys_are() -> None:
    found = [plugin for plugin in plugins() if plugin.distribution == "weighbridge"]
    assert tuple(plugin.name for plugin in found) == BUILT_IN
    for plugin in found:
        module, _, attribute = plugin.value.partition(":")
        assert module.startswith("weighbridge.attester.telemetry.")
        assert attribute == "open_" + plugin.name.replace("-", "_")


def test_plugins_of_others(installed: tuple[EntryPoint, ...]) -> None:
    assert plugins(installed)[0] == PlugIn("absent", "", f"{MODULE}:absent")
    assert len(plugins(installed)) == len(installed)


def test_several_are_one(installed: tuple[EntryPoint, ...]) -> None:
    host = HostFacts(seed=3)
    choices = [Choice("fixed"), Choice("other", {"name": "b"}), Choice("fixed", {"name": "c"})]
    source = open_sources(choices, host, entry_points=installed)
    assert [item.name for item in window(source)] == ["fixed", "b", "c"]
    assert all(item.host is host for item in made())
    source.close()
    assert [item.closed for item in made()] == [True] * 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unknown", "there is no such source"),
        ("absent", "cannot be loaded"),
        ("no-module", "cannot be loaded"),
        ("constant", "makes no source"),
        ("nothing", "is no source"),
        ("broken", "the option rate is missing"),
        ("bad-module", "the plug-in is broken: ValueError: a setting is missing"),
        ("raises", "the plug-in is broken: KeyError: 'path'"),
        ("leaves", "the plug-in is broken: SystemExit: 0"),
    ],
)
def test_what_will_not_do(installed: tuple[EntryPoint, ...], name: str, text: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        open_sources([Choice("fixed"), Choice(name)], HostFacts(), entry_points=installed)
    assert caught.value.code is Code.TELEMETRY_SOURCE
    assert caught.value.where == f"--telemetry {name}"
    assert text in caught.value.message
    assert caught.value.hint
    # What was opened before it is closed again.
    assert [item.closed for item in made()] == [True]


def test_one_that_breaks_later(installed: tuple[EntryPoint, ...]) -> None:
    source = open_sources([Choice("late"), Choice("fixed")], HostFacts(), entry_points=installed)
    with pytest.raises(EnvironmentFault) as caught:
        window(source)
    assert (caught.value.code, caught.value.where) == (Code.TELEMETRY_SOURCE, "--telemetry late")
    assert caught.value.message == "the plug-in is broken: ZeroDivisionError: not yet"
    with pytest.raises(EnvironmentFault, match="broken: RuntimeError"):
        source.close()
    # The others are closed all the same.
    assert [item.closed for item in made()] == [True]


def test_an_error_is_told_in_one_line_that_ends(installed: tuple[EntryPoint, ...]) -> None:
    long = "y" * 1000
    with pytest.raises(EnvironmentFault) as caught:
        open_sources([Choice("raises", {"path": long})], HostFacts(), entry_points=installed)
    assert len(caught.value.message) < 250
    assert caught.value.message.endswith("…")


def test_the_hint_lists_what_there_is(installed: tuple[EntryPoint, ...]) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        open_sources([Choice("nmvl")], HostFacts(), entry_points=installed)
    assert caught.value.hint.endswith(
        "absent, bad-module, broken, constant, fixed, late, leaves, no-module, nothing, other, raises"
    )
    with pytest.raises(EnvironmentFault) as caught:
        open_sources([Choice("nmvl")], HostFacts(), entry_points=())
    assert "install weighbridge again" in caught.value.hint


def test_a_name_that_two_packages_offer(installed: tuple[EntryPoint, ...]) -> None:
    twice = (*installed, EntryPoint("fixed", f"{MODULE}:nothing", GROUP))
    with pytest.raises(EnvironmentFault, match="several packages"):
        open_sources([Choice("fixed")], HostFacts(), entry_points=twice)


def test_the_same_twice(installed: tuple[EntryPoint, ...]) -> None:
    with pytest.raises(EnvironmentFault, match="twice") as caught:
        open_sources([Choice("fixed"), Choice("fixed")], HostFacts(), entry_points=installed)
    assert caught.value.code is Code.TELEMETRY_SOURCE
    with pytest.raises(ValueError, match="at least one"):
        open_sources([], HostFacts(), entry_points=installed)


def test_two_sources_of_one_name() -> None:
    class Made(Fixed):
        made: list[Fixed] = []  # noqa: RUF012 - of this test's class alone

    first, second = Made({}, HostFacts()), Made({}, HostFacts())
    source = Combined([("one", first), ("two", second)])
    with pytest.raises(EnvironmentFault) as caught:
        window(source)
    assert caught.value.code is Code.TELEMETRY_SOURCE
    assert (caught.value.where, caught.value.got) == ("--telemetry two", "one and two")
    second.name = "other"
    assert len(window(source)) == 2
    source.close()
    assert first.closed
    assert second.closed


def test_options() -> None:
    options = Options("adc", {"rate": "5000", "path": "x"})
    assert options.number("rate", 1, 5000) == 5000
    assert options.number("channels", 1, 8, default=2) == 2
    with pytest.raises(EnvironmentFault) as caught:
        options.end()
    assert caught.value.code is Code.TELEMETRY_SOURCE
    assert "it knows: rate, channels" in caught.value.message
    assert options.text("path") == "x"
    options.end()
    for bad in ("", "0", "6", "01", "1.5", "²", " 1"):
        with pytest.raises(EnvironmentFault, match="from 1 to 5"):
            Options("adc", {"rate": bad}).number("rate", 1, 5)
    with pytest.raises(EnvironmentFault, match="path is missing"):
        Options("adc", {}).text("path")


def test_the_documents_plug_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What docs/telemetry-sources.md shows is a whole plug-in."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    module = ModuleType("weighbridge_fans")
    exec(compile(code, str(DOCUMENT), "exec"), vars(module))  # noqa: S102 - the document is ours
    monkeypatch.setitem(sys.modules, "weighbridge_fans", module)
    (line,) = re.findall(r'^fans = "(.*)"$', DOCUMENT.read_text(), re.MULTILINE)
    sensor = tmp_path / "fan1_input"
    sensor.write_text("1200\n")
    start = time.time_ns()
    source = open_sources(
        [Choice("fans", {"path": str(sensor)})],
        HostFacts(period_ns=5_000_000),
        entry_points=[EntryPoint("fans", line, GROUP)],
    )
    values: list[int | None] = []
    while len(values) < 3:
        time.sleep(0.01)
        read = source.window(start_wall_ns=start, duration_ns=10_000_000, work=WorkSummary.empty())
        (found,) = Telemetry.parse(Telemetry(session=bytes(16), seq=0, sources=tuple(read)).encode()).sources
        assert (found.name, found.channels["fan_speed"].unit) == ("fans", "1/min")
        values.extend(found.channels["fan_speed"].values or ())
        start += 10_000_000
        assert time.time_ns() - start < 30 * 10**9
    source.close()
    assert set(values) == {1200}
