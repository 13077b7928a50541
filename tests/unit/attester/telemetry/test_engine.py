"""The inference server's page: what is taken from it, and that nothing at the other end of the port ends a session."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fakes.metrics_page import MetricsServer, ok
from weighbridge.attester.telemetry import engine as module
from weighbridge.attester.telemetry.engine import Address, Engine, open_engine
from weighbridge.attester.telemetry.engine_page import CHANNELS, PAGE_MAX, read_page
from weighbridge.attester.telemetry.interface import HostFacts, TelemetrySource
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import VALUE_MAX, Event, EventKind, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

SECOND = 1_000_000_000
NOON = 1_780_315_200 * SECOND
VLLM = b"""\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 12345.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 8.128902e+06
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="m"} 7557572.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 30.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 12.0
# TYPE vllm:request_prefill_time_seconds histogram
vllm:request_prefill_time_seconds_bucket{engine="0",le="0.3",model_name="m"} 41.0
vllm:request_prefill_time_seconds_count{engine="0",model_name="m"} 42.0
vllm:request_prefill_time_seconds_sum{engine="0",model_name="m"} 1.25
vllm:request_decode_time_seconds_sum{engine="0",model_name="m"} 300.000000001
process_start_time_seconds 1.79e+09
"""
VALUES = {
    "tokens_in": 8_128_902,
    "tokens_out": 7_557_572,
    "requests": 42,
    "requests_running": 5,
    "requests_waiting": 0,
    "prefill_time": 1_250_000_000,
    "decode_time": 300_000_000_001,
}


class Clock:
    """Moves when a test moves it."""

    def __init__(self) -> None:
        self.now = 5 * SECOND

    def wall_ns(self) -> int:
        return self.now + NOON

    def monotonic_ns(self) -> int:
        return self.now

    def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
        raise AssertionError((monotonic_ns, stop))


class Bench:
    """An engine's source of a server, asked when the test says so."""

    def __init__(self, port: int) -> None:
        self.clock = Clock()
        self.engine = Engine(Address("127.0.0.1", port, "/metrics"), period_ns=SECOND, clock=self.clock)
        self.until = self.clock.wall_ns()

    def tick(self) -> None:
        self.engine.sampler.tick()
        self.clock.now += SECOND

    def window(self) -> Source:
        """The window that ends now, which also survives its journey."""
        end = self.clock.wall_ns()
        (source,) = self.engine.window(start_wall_ns=self.until, duration_ns=end - self.until, work=WorkSummary.empty())
        self.until = end
        telemetry = Telemetry(session=bytes(16), seq=0, sources=(source,))
        assert Telemetry.parse(telemetry.encode()) == telemetry
        return source


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer() as found:
        yield found


@pytest.fixture
def bench(server: MetricsServer) -> Bench:
    return Bench(server.port)


def values(source: Source, channel: str) -> Sequence[int | None] | None:
    return source.channels[channel].values


def kinds(source: Source) -> list[tuple[EventKind, str | None]]:
    return [(event.kind, event.channel) for event in source.events]


# -- pages -------------------------------------------------------------------------------------------------------------


def test_what_vllm_says() -> None:
    page = read_page(VLLM)
    assert page.values == VALUES
    assert page.started == 1.79e9


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        # A parallel engine's ranks count the same tokens.
        (
            (
                b'sglang:generation_tokens_total{tp_rank="0",dp_rank="0"} 5\n'
                b'sglang:generation_tokens_total{tp_rank="1",dp_rank="0"} 5\n'
                b'sglang:generation_tokens_total{tp_rank="0",dp_rank="1"} 7\n'
                b"sglang:num_requests_total 2\nsglang:num_running_reqs 1\n"
            ),
            {"tokens_out": 12, "requests": 2, "requests_running": 1},
        ),
        (
            b"trtllm_prompt_tokens_total 9\ntrtllm_request_prefill_time_seconds_sum 0.5\n",
            {"tokens_in": 9, "prefill_time": 500_000_000},
        ),
        (
            (
                b'tgi_request_success{method="single"} 3\ntgi_request_generated_tokens_sum 80\n'
                b'tgi_request_input_length_bucket{le="1"} 4\ntgi_batch_current_size 2\n'
            ),
            {"requests": 3, "tokens_out": 80, "requests_running": 2},
        ),
    ],
)
def test_what_others_say(page: bytes, expected: dict[str, int]) -> None:
    assert read_page(page).values == expected


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "1e30", str(VALUE_MAX + 1), "9" * 400])
def test_no_count_is_no_value(value: str) -> None:
    page = read_page(f'vllm:prompt_tokens_total{{a="b"}} {value}\nvllm:generation_tokens_total 1\n'.encode())
    assert page.values == {"tokens_out": 1}
    assert page.senseless == {"tokens_in"}


def test_a_page_as_prometheus_writes_it() -> None:
    registry = CollectorRegistry()
    tokens = Counter("vllm:generation_tokens", "Generated.", ["model_name"], registry=registry)
    finished = Counter("vllm:request_success", "Finished.", ["model_name", "finished_reason"], registry=registry)
    prefill = Histogram("vllm:request_prefill_time_seconds", "Prefill.", ["model_name"], registry=registry)
    running = Gauge("vllm:num_requests_running", "Running.", ["model_name"], registry=registry)
    name = 'of "quotes", {braces} and \\ \n'
    tokens.labels(name).inc(1_234_567)
    for reason in ("stop", "length"):
        finished.labels(name, reason).inc(2)
    prefill.labels(name).observe(0.125)
    running.labels(name).set(3)
    assert read_page(generate_latest(registry)).values == {
        "tokens_out": 1_234_567,
        "requests": 4,
        "prefill_time": 125_000_000,
        "requests_running": 3,
    }


def test_sums_have_bounds_too() -> None:
    page = read_page(b'vllm:prompt_tokens_total{a="1"} 4e18\nvllm:prompt_tokens_total{a="2"} 4e18\n')
    assert page.senseless == {"tokens_in"}
    assert not page.values


@pytest.mark.parametrize("started", ["NaN", "Inf", "1e300", "9" * 900])
def test_a_start_that_is_none(started: str) -> None:
    assert read_page(f"vllm:prompt_tokens_total 1\nprocess_start_time_seconds {started}\n".encode()).started is None


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"\n",
        b"<html>Not Found</html>\n",
        b"up 1\n",
        b"\xff\n",
        VLLM[:-1],
        VLLM[:-400],
        b"vllm:prompt_tokens_total\n",
        b"vllm:prompt_tokens_total one\n",
        b'vllm:prompt_tokens_total{a="b} 1\n',
        b"vllm:prompt_tokens_total{a} 1\n",
        b"vllm:prompt_tokens_total " + b"9" * 5000 + b"\n",
        b"vllm:prompt_tokens_total 1\n" * 2600,
        bytes(PAGE_MAX + 1),
    ],
    ids=range(14),
)
def test_other_pages_are_refused(page: bytes) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        read_page(page)
    assert caught.value.code == Code.TELEMETRY_SOURCE


@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from('abz:_{}",= \t#\\\n01.eE+-NaInf\u00e9'), max_size=60).map(
        lambda text: f"vllm:prompt_tokens_total{text}\n".encode()
    )
)
def test_any_page_is_read_or_a_fault(data: bytes) -> None:
    try:
        page = read_page(data)
    except EnvironmentFault:
        return
    assert all(0 <= value <= VALUE_MAX for value in page.values.values())


def test_a_hostile_page_takes_little_time() -> None:
    line = b'vllm:prompt_tokens_total{a="' + b'\\"' * 490 + b'"} 1\n'
    before = time.process_time()
    assert read_page(line * 60).values == {"tokens_in": 60}
    assert time.process_time() - before < 2


# -- windows -----------------------------------------------------------------------------------------------------------


def test_counters_by_the_second(server: MetricsServer, bench: Bench) -> None:
    server.serve(ok(VLLM))
    bench.tick()
    server.serve(ok(VLLM.replace(b"7557572.0", b"7557600.0")))
    bench.tick()
    source = bench.window()
    assert (source.device, source.name, source.period_ns, source.offsets) == (None, "engine", SECOND, (0, SECOND))
    assert {name: channel.values[0] for name, channel in source.channels.items() if channel.values} == VALUES
    assert values(source, "tokens_out") == (7_557_572, 7_557_600)
    assert source.events == ()
    assert server.requests[0].startswith(b"GET /metrics HTTP/1.1\r\n")


def test_what_a_server_never_says_is_not_reported(server: MetricsServer, bench: Bench) -> None:
    server.serve(ok(b"sglang:generation_tokens_total 5\n"))
    bench.tick()
    source = bench.window()
    assert values(source, "tokens_out") == (5,)
    assert {name for name in CHANNELS if values(source, name) is not None} == {"tokens_out"}


def test_an_absent_server_is_missing_readings(server: MetricsServer, bench: Bench) -> None:
    server.close()
    for _ in range(3):
        bench.tick()
    source = bench.window()
    assert source.offsets == (0, SECOND, 2 * SECOND)
    assert {values(source, name) for name in CHANNELS} == {(None, None, None)}
    assert kinds(source) == [(EventKind.FAULT, None)]


def test_a_server_that_comes_and_goes(server: MetricsServer, bench: Bench) -> None:
    server.serve(ok(VLLM))
    bench.tick()
    server.serve(b"")
    bench.tick()
    server.serve(ok(VLLM))
    bench.tick()
    source = bench.window()
    assert values(source, "requests") == (42, None, 42)
    assert source.events == (Event(SECOND, EventKind.FAULT, None),)


def test_a_server_started_anew_is_told(server: MetricsServer, bench: Bench) -> None:
    server.serve(ok(VLLM))
    bench.tick()
    server.serve(ok(b"vllm:prompt_tokens_total 4\nvllm:generation_tokens_total 9e6\nvllm:num_requests_running 0\n"))
    bench.tick()
    source = bench.window()
    assert values(source, "tokens_in") == (8_128_902, 4)
    # A counter that has overtaken what it was shows nothing, nor is fewer requests at once a beginning.
    assert source.events == (Event(SECOND, EventKind.WRAP, "tokens_in"),)
    server.serve(ok(VLLM.replace(b"1.79e+09", b"1.8e+09")))
    bench.tick()
    server.serve(ok(VLLM))
    bench.tick()
    assert set(kinds(bench.window())) == {
        (EventKind.WRAP, name) for name in ("tokens_in", "tokens_out", "requests", "prefill_time", "decode_time")
    }


def test_sentinels_are_told_and_left_out(server: MetricsServer, bench: Bench) -> None:
    server.serve(ok(VLLM.replace(b"7557572.0", b"NaN")))
    bench.tick()
    source = bench.window()
    assert values(source, "tokens_out") == (None,)
    assert values(source, "tokens_in") == (8_128_902,)
    assert source.events == (Event(0, EventKind.SENTINEL, "tokens_out"),)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(VLLM), VLLM)


@pytest.mark.parametrize("answer", [CHUNKED, b"HTTP/1.1 200 OK\r\n\r\n" + VLLM, b"HTTP/1.0 200 OK\r\n\r\n" + VLLM])
def test_ways_to_send_a_page(server: MetricsServer, bench: Bench, answer: bytes) -> None:
    server.serve(answer)
    bench.tick()
    assert values(bench.window(), "requests") == (42,)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 5000,
        random.Random(7).randbytes(100_000),
        VLLM,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\n\r\n" + VLLM,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + VLLM,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + VLLM,
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + VLLM,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        CHUNKED[:-20],
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n" + VLLM,
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n" + VLLM,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(PAGE_MAX + 200_000),
    ],
    ids=range(18),
)
def test_other_answers_are_missing_readings(server: MetricsServer, bench: Bench, answer: bytes) -> None:
    server.serve(answer)
    bench.tick()
    source = bench.window()
    assert {values(source, name) for name in CHANNELS} == {(None,)}
    assert kinds(source) == [(EventKind.FAULT, None)]


@pytest.mark.parametrize("drip", [True, False])
def test_a_slow_server_is_waited_for_no_longer_than_the_time(server: MetricsServer, drip: bool) -> None:
    def slowly(connection: socket.socket) -> None:
        for byte in ok(VLLM):
            if drip:
                connection.sendall(bytes([byte]))
            if server.ended.wait(0.01):
                return

    server.answer = slowly
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        Address("127.0.0.1", server.port, "/").fetch(0.3)
    # It would take more than 15 seconds; the machine may be busy.
    assert 0.25 < time.monotonic() - before < 12


def test_time_is_up_however_much_comes(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        """Each look at the clock takes a second."""

        now = 0.0

        def monotonic(self) -> float:
            self.now += 1
            return self.now

    monkeypatch.setattr(module, "time", Late())
    server.serve(ok(VLLM))
    with pytest.raises(TimeoutError):
        Address("127.0.0.1", server.port, "/").fetch(0.5)


def test_an_endless_answer_is_cut(server: MetricsServer) -> None:
    def endlessly(connection: socket.socket) -> None:
        while not server.ended.is_set():
            connection.sendall(bytes(65536))

    server.answer = endlessly
    with pytest.raises(EnvironmentFault) as caught:
        Address("127.0.0.1", server.port, "/").fetch(30)
    assert caught.value.code == Code.TELEMETRY_SOURCE


# -- options -----------------------------------------------------------------------------------------------------------


def test_the_plug_in_asks_in_the_background(server: MetricsServer) -> None:
    server.serve(ok(VLLM))
    source = open_engine({"url": f"http://localhost:{server.port}/metrics?a=b", "period_ms": "100"}, HostFacts())
    try:
        assert isinstance(source, TelemetrySource)
        start = time.time_ns()
        until = time.monotonic() + 20
        while len(server.requests) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        (read,) = source.window(start_wall_ns=start, duration_ns=time.time_ns() - start, work=WorkSummary.empty())
    finally:
        source.close()
    assert 42 in (values(read, "requests") or ())
    assert server.requests[0].startswith(b"GET /metrics?a=b HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000/metrics", Address("127.0.0.1", 8000, "/metrics")),
        ("http://localhost", Address("127.0.0.1", 80, "/")),
        ("http://[::1]:9/x", Address("::1", 9, "/x")),
        ("http://127.9.9.9:1/", Address("127.9.9.9", 1, "/")),
    ],
)
def test_addresses_on_this_host(url: str, address: Address) -> None:
    assert Address.parse(url, remote=False) == address


@pytest.mark.parametrize(
    "options",
    [
        {"url": "https://127.0.0.1/metrics"},
        {"url": "file:///etc/passwd"},
        {"url": "127.0.0.1:8000"},
        {"url": "http://"},
        {"url": "http://127.0.0.1:99999/"},
        {"url": "http://[::1/"},
        {"url": "http://a:b@127.0.0.1/"},
        {"url": "http://127.0.0.1/ HTTP/1.1\r\nX: y"},
        {"url": "http://127.0.0.1/\u00e9"},
        {"url": "http://10.0.0.1:8000/metrics"},
        {"url": "http://0.0.0.0:8000/metrics"},
        {"url": "http://vllm:8000/metrics"},
        {"url": "http://127.0.0.1.example/"},
        {"remote": "maybe"},
        {"period_ms": "10"},
        {"period_ms": "-1"},
        {"uri": "http://127.0.0.1/"},
    ],
    ids=str,
)
def test_other_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        open_engine(options, HostFacts())
    assert caught.value.code == Code.TELEMETRY_SOURCE


def test_another_host_only_where_it_is_asked_for() -> None:
    assert Address.parse("http://vllm:8000/metrics", remote=True) == Address("vllm", 8000, "/metrics")
