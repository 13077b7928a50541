"""A fast converter: what it writes, in whatever portions and however wrong, and what is told of it."""

from __future__ import annotations

import math
import os
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from weighbridge.attester.telemetry.adc import Adc, open_adc
from weighbridge.attester.telemetry.adc_bands import Reduction
from weighbridge.attester.telemetry.adc_decode import FORMATS, Decoder, Format, frame
from weighbridge.attester.telemetry.adc_input import Input
from weighbridge.attester.telemetry.interface import HostFacts
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import EventKind, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

PERIOD = 100_000_000
SECOND = 1_000_000_000
RATE = 1000
GAP, STALL, FAULT, SENTINEL = EventKind.GAP, EventKind.STALL, EventKind.FAULT, EventKind.SENTINEL


def reduction(rate: int = RATE, *, bands: int = 4, scale: float = 1.0, clip: float | None = None) -> Reduction:
    return Reduction(rate=rate, period_ns=PERIOD, bands=bands, unit="A", scale=scale, clip=clip)


def sine(hertz: float, amplitude: float, *, rate: int = RATE, count: int = 100) -> NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(count) / rate)


def framed(samples: list[int], first: int) -> bytes:
    return frame(struct.pack(f"<{len(samples)}h", *samples), count=len(samples), first=first)


def told(pieces: list[NDArray[np.float64] | EventKind]) -> list[float | EventKind]:
    flat: list[float | EventKind] = []
    for piece in pieces:
        flat += [piece] if isinstance(piece, EventKind) else piece.tolist()
    return flat


class TestDecoder:
    @pytest.mark.parametrize(("form", "code"), [("int16", "h"), ("int32", "i"), ("float32", "f")])
    @pytest.mark.parametrize("is_framed", [True, False])
    def test_binary(self, form: Format, code: str, is_framed: bool) -> None:
        data = struct.pack(f"<3{code}", 1, -2, 3)
        decoder = Decoder(form, framed=is_framed)
        assert told(decoder.feed(frame(data, count=3, first=7) if is_framed else data)) == [1, -2, 3]
        assert decoder.end() == []

    def test_text(self) -> None:
        decoder = Decoder("text", framed=True)
        assert told(decoder.feed(b"1\n-2.5\r\n +3e-3 \n4")) == [1, -2.5, 0.003]
        assert told(decoder.feed(b"2\n")) == [42]

    @pytest.mark.parametrize(
        "line", [b"", b"nan", b"inf", b"-inf", b"1_0", b"0x1", b"1,5", b"1 2", b".5", "²".encode(), b"\xff", b"e1"]
    )
    def test_lines_that_are_no_number_keep_their_place(self, line: bytes) -> None:
        one, two, three = told(Decoder("text", framed=True).feed(b"1\n" + line + b"\n2\n"))
        assert (one, three) == (1, 2)
        assert isinstance(two, float)
        assert math.isnan(two)

    def test_a_line_without_end(self) -> None:
        decoder = Decoder("text", framed=True)
        assert told(decoder.feed(b"1\n" + b"9" * 65)) == [1, FAULT]
        for _ in range(1000):
            assert decoder.feed(b"9" * 65) == []
        assert told(decoder.feed(b"9\n5\n")) == [5]

    def test_frames_that_the_converter_lost(self) -> None:
        decoder = Decoder("int16", framed=True)
        data = framed([1, 2], 0) + framed([3], 2) + framed([9], 10) + framed([10], 11) + framed([1], 0)
        assert told(decoder.feed(data)) == [1, 2, 3, GAP, 9, 10, GAP, 1]

    @pytest.mark.parametrize("junk", [b"x", b"WBA", b"WBAWBA", b"WWBA", bytes(1000), b"WBAD" + bytes(12)])
    def test_junk_between_frames(self, junk: bytes) -> None:
        decoder = Decoder("int16", framed=True)
        pieces = decoder.feed(framed([1], 0) + junk)
        pieces += decoder.feed(framed([2], 1) + framed([3], 2))
        assert told(pieces) == [1, FAULT, 2, 3]

    def test_a_frame_that_says_it_is_huge(self) -> None:
        decoder = Decoder("int16", framed=True)
        assert told(decoder.feed(b"WBAD" + struct.pack("<IQ", 65_537, 0) + framed([2], 1))) == [FAULT, 2]

    @pytest.mark.parametrize("cut", range(1, 20))
    def test_truncated_frames(self, cut: int) -> None:
        decoder = Decoder("int16", framed=True)
        assert decoder.feed(framed([1, 2], 0)[:cut]) == []
        assert decoder.end() == [FAULT]
        assert told(decoder.feed(framed([3], 77))) == [3]

    @settings(max_examples=200)
    @given(
        st.sampled_from(FORMATS),
        st.booleans(),
        st.lists(st.binary(max_size=60) | st.just(b"WBAD") | st.just(framed([1, 2, 3], 5)), max_size=12),
    )
    def test_any_bytes_in_any_portions(self, form: Format, is_framed: bool, portions: list[bytes]) -> None:
        """The same samples, however the bytes were cut; and nothing is raised."""
        decoder, whole = Decoder(form, framed=is_framed), Decoder(form, framed=is_framed)
        one: list[NDArray[np.float64] | EventKind] = []
        for portion in portions:
            one += decoder.feed(portion)
        samples = [item for item in told(one) if not isinstance(item, EventKind)]
        again = [item for item in told(whole.feed(b"".join(portions))) if not isinstance(item, EventKind)]
        assert np.array_equal(samples, again, equal_nan=True)


class TestReduction:
    def test_values_of_a_sine(self) -> None:
        item = reduction(5000, bands=8)
        values = dict(
            zip((name for name, _ in item.channels), item.of(sine(50, 2.0, rate=5000, count=500) + 3.0), strict=True)
        )
        assert values["mean"] == 3_000_000
        assert values["rms"] == pytest.approx(math.sqrt(9 + 2) * 1e6, rel=1e-6)
        assert values["peak"] == 5_000_000
        assert values["band_40_80_hz"] == pytest.approx(2e12, rel=1e-6)
        others = [value for name, value in values.items() if name.startswith("band_") and name != "band_40_80_hz"]
        assert max(value or 0 for value in others) < 2e6

    def test_bands_sum_up_to_the_variation(self) -> None:
        generator = np.random.default_rng(1)
        item = reduction(20_000, bands=16)
        sums = [sum(value or 0 for value in item.of(generator.normal(5, 1, 2000))[3:-1]) for _ in range(50)]
        assert np.mean(sums) == pytest.approx(1e12, rel=0.02)

    def test_units_and_names(self) -> None:
        channels = reduction(bands=2).channels
        assert channels == (
            ("mean", "µA"),
            ("rms", "µA"),
            ("peak", "µA"),
            ("band_10_70_hz", "µA²"),
            ("band_70_510_hz", "µA²"),
            ("clipped", "1"),
        )

    @given(st.integers(640, 1_000_000), st.integers(1, 24))
    def test_every_band_has_a_name_and_a_bin(self, rate: int, bands: int) -> None:
        item = reduction(rate, bands=bands)
        assert len(dict(item.channels)) == bands + 4
        assert len(item.of(np.zeros(item.length(0)))) == bands + 4

    def test_frames_do_not_drift(self) -> None:
        item = reduction(2324)
        assert {item.length(number) for number in range(100)} == {232, 233}
        assert sum(item.length(number) for number in range(36_000)) == 2324 * 3600

    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
    def test_what_is_no_number_spoils_its_frame(self, wrong: float) -> None:
        counts = np.ones(100)
        counts[50] = wrong
        assert reduction().of(counts)[:-1] == (None,) * 7

    def test_what_cannot_be_sent_is_left_out(self) -> None:
        assert reduction().of(np.full(100, 1e30))[:3] == (None, None, None)
        # A kiloampere: its square still can.
        assert reduction().of(np.full(100, 1e3))[:3] == (10**9, 10**9, 10**9)
        assert reduction().of(sine(50, 1e13))[3:7].count(None) >= 1
        assert reduction().of(np.full(100, 1.7e308)).count(None) >= 3

    def test_clipping(self) -> None:
        counts = np.zeros(100)
        counts[:3] = 32767, -32768, 32766
        assert reduction(clip=32767.0).of(counts)[-1] == 2
        assert reduction().of(counts)[-1] == 0


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 10 * SECOND

    def wall_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
        raise AssertionError(monotonic_ns, stop)


class Bench:
    """An :class:`Adc` whose threads are the test."""

    def __init__(
        self, path: Path, *, form: Format = "int16", is_framed: bool = False, clip: float | None = None
    ) -> None:
        self.clock = FakeClock()
        self.input = Input(path)
        self.adc = Adc(self.input, Decoder(form, framed=is_framed), reduction(clip=clip), name="adc", clock=self.clock)

    def drain(self) -> None:
        for _ in range(100):
            if not self.adc.pump():
                break

    def period(self) -> Source:
        self.drain()
        self.adc.sampler.tick()
        start = self.clock.now
        self.clock.now += PERIOD
        (source,) = self.adc.window(start_wall_ns=start, duration_ns=PERIOD, work=WorkSummary.empty())
        return source


def events(source: Source) -> list[tuple[EventKind, str | None]]:
    return [(event.kind, event.channel) for event in source.events]


def counts(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path, handle
    os.close(handle)


class TestAdc:
    def test_a_steady_writer(self, fifo: tuple[Path, int]) -> None:
        path, writer = fifo
        bench = Bench(path)
        os.write(writer, counts(*[3] * 100))
        # One frame is not enough to begin with: the next might come late.
        assert events(bench.period()) == [(STALL, None)]
        sources: list[Source] = []
        for number in range(5):
            os.write(writer, counts(*[number] * 100))
            source = bench.period()
            sources.append(source)
            assert source.events == ()
            assert source.channels["mean"].values == ((number - 1 if number else 3) * 1_000_000,)
            assert source.channels["dropped"].values == (0,)
        for source in sources:
            sent = Telemetry(session=bytes(16), seq=0, sources=(source,)).encode()
            assert Telemetry.parse(sent).sources == (source,)
        bench.adc.close()

    def test_a_silent_writer_is_missing(self, fifo: tuple[Path, int]) -> None:
        path, writer = fifo
        bench = Bench(path)
        os.write(writer, counts(*[3] * 250))
        assert bench.period().channels["mean"].values == (3_000_000,)
        assert bench.period().channels["mean"].values == (3_000_000,)
        silent = bench.period()
        assert silent.channels["mean"].values == (None,)
        assert events(silent) == [(STALL, None)]
        # The half frame before the pause is not joined with what comes after it.
        assert silent.channels["dropped"].values == (50,)
        os.write(writer, counts(*[5] * 200))
        assert bench.period().channels["mean"].values == (5_000_000,)
        bench.adc.close()

    def test_a_fast_writer_is_dropped_and_told(self, fifo: tuple[Path, int]) -> None:
        path, writer = fifo
        bench = Bench(path)
        tracemalloc.start()
        dropped = 0
        for _ in range(50):
            os.write(writer, counts(*[1] * 20_000))
            source = bench.period()
            assert (GAP, None) in events(source)
            dropped += sum(value or 0 for value in source.channels["dropped"].values or ())
            assert source.channels["mean"].values == (1_000_000,)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert dropped >= 50 * 19_000 - 1000
        assert peak < 4_000_000
        bench.adc.close()

    def test_clipping_is_told(self, fifo: tuple[Path, int]) -> None:
        path, writer = fifo
        bench = Bench(path, clip=32767.0)
        os.write(writer, counts(*[0] * 98, 32767, -32768) * 2)
        source = bench.period()
        assert source.channels["clipped"].values == (2,)
        assert events(source) == [(FAULT, "clipped")]
        bench.adc.close()

    def test_floats_that_are_no_numbers(self, fifo: tuple[Path, int]) -> None:
        path, writer = fifo
        bench = Bench(path, form="float32")
        os.write(writer, struct.pack("<200f", math.nan, *[1.0] * 99, 3e38, *[1.0] * 99))
        for _ in range(2):
            source = bench.period()
            assert source.channels["mean"].values == (None,)
            assert (SENTINEL, "mean") in events(source)
        bench.adc.close()

    def test_a_regular_file_is_read_at_its_rate(self, tmp_path: Path) -> None:
        path = tmp_path / "samples"
        path.write_bytes(b"".join(counts(*[number] * 100) for number in range(1000)))
        bench = Bench(path)
        for number in range(30):
            source = bench.period()
            assert source.channels["mean"].values == (number * 1_000_000,)
            assert source.events == ()
        bench.adc.close()

    def test_the_end_of_a_file_is_silence_until_it_grows(self, tmp_path: Path) -> None:
        path = tmp_path / "samples"
        path.write_bytes(counts(*[1] * 200))
        bench = Bench(path)
        assert [bench.period().channels["mean"].values for _ in range(3)] == [(1_000_000,), (1_000_000,), (None,)]
        with path.open("ab") as file:
            file.write(counts(*[2] * 200))
        assert bench.period().channels["mean"].values == (2_000_000,)
        bench.adc.close()

    def test_an_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "samples"
        path.touch()
        bench = Bench(path)
        assert bench.period().channels["mean"].values == (None,)
        bench.adc.close()

    def test_a_writer_that_goes_and_comes(self, tmp_path: Path) -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        bench = Bench(path, is_framed=True)
        assert events(bench.period()) == [(STALL, None)]
        with path.open("wb") as writer:
            writer.write(framed([1] * 200, 0) + framed([1] * 10, 200)[:-1])
        source = bench.period()
        assert source.channels["mean"].values == (1_000_000,)
        # Half a frame was left.
        assert events(source) == [(FAULT, None)]
        assert bench.period().channels["mean"].values == (1_000_000,)
        with path.open("wb") as writer:
            writer.write(framed([7] * 200, 0))
            writer.flush()
            bench.period()
        assert bench.period().channels["mean"].values == (7_000_000,)
        bench.adc.close()

    def test_a_socket_that_is_gone_and_back(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"

        def listening() -> socket.socket:
            path.unlink(missing_ok=True)
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(path))
            server.listen()
            return server

        with listening() as server:
            bench = Bench(path)
            peer, _ = server.accept()
            with peer:
                peer.sendall(counts(*[1] * 200))
                assert bench.period().channels["mean"].values == (1_000_000,)
        bench.period()
        assert events(bench.period()) == [(STALL, None)]
        with listening() as server:
            bench.drain()
            peer, _ = server.accept()
            with peer:
                peer.sendall(counts(*[2] * 200))
                assert bench.period().channels["mean"].values == (2_000_000,)
        bench.adc.close()


class TestPlugIn:
    def test_threads(self, fifo: tuple[Path, int]) -> None:
        path, writer = fifo
        source = open_adc(
            {
                "path": str(path),
                "rate": "10000",
                "format": "text",
                "bands": "3",
                "unit": "V",
                "scale": "1e-3",
                "name": "probe_1",
            },
            HostFacts(period_ns=10_000_000),
        )
        waited, means = threading.Event(), set[int | None]()
        for _ in range(200):
            os.write(writer, b"5\n" * 100)
            waited.wait(0.01)
            (read,) = source.window(start_wall_ns=0, duration_ns=SECOND, work=WorkSummary.empty())
            assert read.name == "probe_1"
            assert read.channels["mean"].unit == "µV"
            means |= set(read.channels["mean"].values or ())
            if means - {None}:
                break
        source.close()
        assert means - {None} == {5_000}

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"rate": "639"},
            {"rate": "0"},
            {"rate": "1000001"},
            {"rate": "1000.5"},
            {"bands": "0"},
            {"bands": "25"},
            {"format": "int24"},
            {"framing": "lines"},
            {"unit": ""},
            {"unit": "µA"},
            {"scale": "0"},
            {"scale": "-1"},
            {"scale": "nan"},
            {"scale": "1e999"},
            {"scale": "inf"},
            {"name": "a b"},
            {"gain": "1"},
        ],
    )
    def test_options_that_will_not_do(self, tmp_path: Path, options: dict[str, str]) -> None:
        path = tmp_path / "samples"
        path.touch()
        given = {"path": str(path), "rate": "1000", **options} if options else {}
        with pytest.raises(EnvironmentFault) as caught:
            open_adc(given, HostFacts())
        assert caught.value.code is Code.TELEMETRY_SOURCE

    def test_what_is_no_stream(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none"):
            with pytest.raises(EnvironmentFault) as caught:
                open_adc({"path": str(path), "rate": "1000"}, HostFacts())
            assert (caught.value.code, caught.value.where) == (Code.TELEMETRY_SOURCE, str(path))
            assert "mkfifo" in caught.value.hint
