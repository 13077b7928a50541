"""The workload socket: a measured loader and counts, whatever comes over it."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.attester_socket import Attester
from fakes.models import write_model
from fakes.pcrs import FakePcrs, tpm_failure
from weighbridge.attester.weights import MeasurementLog, measure
from weighbridge.attester.workload import client as client_module
from weighbridge.attester.workload import server as server_module
from weighbridge.attester.workload.client import LINE_MAX, PROTOCOL, WorkloadClient, WorkloadError, commit, new_salt
from weighbridge.attester.workload.messages import (
    Done,
    Handed,
    Handing,
    Hello,
    Load,
    Range,
    Ranges,
    Ticked,
    Unload,
    parse,
)
from weighbridge.attester.workload.server import WorkloadServer
from weighbridge.attester.workload.window import WorkWindow
from weighbridge.proto import merkle, workload
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.workload import WorkSummary

HELLO = {"type": "hello", "protocol": PROTOCOL, "ticks": False}
DONE: dict[str, Any] = {
    "type": "done",
    "commitment": "07" * 32,
    "tokens_in": 3,
    "tokens_out": 4,
    "batch": 1,
    "prefill_ns": 5,
    "decode_ns": 6,
}
LOAD: dict[str, Any] = {"type": "load", "directory": "/m", "name": None, "guarded": False}
HANDING: dict[str, Any] = {"type": "handing", "file": "/m/a", "recnum": None}
RANGES: dict[str, Any] = {"type": "ranges", "recnum": 3, "path": "a", "ranges": [[8, 4, "07" * 32]]}
HANDED: dict[str, Any] = {"type": "handed", "recnum": 3, "path": "a", "changed": None}
GOODBYE = WorkSummary(
    root=merkle.root([merkle.leaf_hash(bytes([7] * 32))]), requests=1, tokens_in=3, tokens_out=4, batch_max=1
)


def line(message: object) -> bytes:
    return json.dumps(message).encode()


# ---------------------------------------------------------------------------------------------------------------------
# messages


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (HELLO, Hello(ticks=False)),
        (LOAD, Load("/m", None, guarded=False)),
        ({**LOAD, "name": "m", "guarded": True}, Load("/m", "m", guarded=True)),
        (HANDING, Handing("/m/a", None)),
        ({**HANDING, "recnum": 3}, Handing("/m/a", 3)),
        (RANGES, Ranges(3, "a", (Range(8, 4, bytes([7] * 32)),))),
        ({**RANGES, "ranges": []}, Ranges(3, "a", ())),
        (HANDED, Handed(3, "a", None)),
        ({**HANDED, "changed": "gone"}, Handed(3, "a", "gone")),
        ({"type": "unload", "recnum": 3}, Unload(3)),
        (DONE, Done(bytes([7] * 32), 3, 4, 1, 5, 6)),
        ({"type": "ticked", "seq": 0}, Ticked(0)),
    ],
)
def test_messages_parse(message: object, expected: object) -> None:
    assert parse(line(message)) == expected


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ([], Code.FIELD_TYPE),
        ({}, Code.FIELD_RANGE),
        ({"type": ["done"]}, Code.FIELD_RANGE),
        ({"type": "shutdown"}, Code.FIELD_RANGE),
        ({**HELLO, "protocol": "weighbridge/workload/v2"}, Code.VERSION_UNSUPPORTED),
        ({**HELLO, "protocol": 1}, Code.FIELD_TYPE),
        ({**HELLO, "ticks": 1}, Code.FIELD_TYPE),
        ({**HELLO, "more": 1}, Code.FIELD_UNKNOWN),
        ({"type": "hello", "protocol": PROTOCOL}, Code.FIELD_MISSING),
        ({**LOAD, "directory": "m"}, Code.FIELD_RANGE),
        ({**LOAD, "directory": "/m\0"}, Code.FIELD_RANGE),
        ({**LOAD, "directory": "/" * 4097}, Code.TOO_LARGE),
        ({**LOAD, "directory": "/\ud800"}, Code.NOT_UTF8),
        ({**LOAD, "name": 1}, Code.FIELD_TYPE),
        ({**LOAD, "guarded": 1}, Code.FIELD_TYPE),
        ({"type": "load", "directory": "/m", "name": None}, Code.FIELD_MISSING),
        ({**HANDING, "file": "a"}, Code.FIELD_RANGE),
        ({**HANDING, "recnum": "3"}, Code.FIELD_TYPE),
        ({**RANGES, "ranges": {}}, Code.FIELD_TYPE),
        ({**RANGES, "ranges": [[8, 4]]}, Code.FIELD_TYPE),
        ({**RANGES, "ranges": [{"offset": 8}]}, Code.FIELD_TYPE),
        ({**RANGES, "ranges": [[-8, 4, "07" * 32]]}, Code.FIELD_RANGE),
        ({**RANGES, "ranges": [[8, True, "07" * 32]]}, Code.FIELD_TYPE),
        ({**RANGES, "ranges": [[8, 4, "07" * 31]]}, Code.FIELD_RANGE),
        ({**RANGES, "path": 1}, Code.FIELD_TYPE),
        ({**HANDED, "changed": False}, Code.FIELD_TYPE),
        ({**HANDED, "changed": "x" * 513}, Code.TOO_LARGE),
        ({"type": "unload", "recnum": -1}, Code.FIELD_RANGE),
        ({**DONE, "commitment": "07" * 31}, Code.FIELD_RANGE),
        ({**DONE, "commitment": "0G" * 32}, Code.NOT_HEX),
        ({**DONE, "tokens_in": -1}, Code.FIELD_RANGE),
        ({**DONE, "tokens_in": 1.0}, Code.FIELD_TYPE),
        ({**DONE, "tokens_out": 2**32 + 1}, Code.FIELD_RANGE),
        ({**DONE, "tokens_out": True}, Code.FIELD_TYPE),
        ({**DONE, "batch": 0}, Code.FIELD_RANGE),
        ({**DONE, "prefill_ns": -1}, Code.FIELD_RANGE),
        ({**DONE, "decode_ns": 86_400 * 10**9 + 1}, Code.FIELD_RANGE),
        ({**DONE, "decode_ns": 0.5}, Code.FIELD_TYPE),
        ({key: value for key, value in DONE.items() if key != "prefill_ns"}, Code.FIELD_MISSING),
        ({"type": "ticked", "seq": "1"}, Code.FIELD_TYPE),
    ],
)
def test_messages_refuse_what_is_wrong_by_code(message: object, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse(line(message))
    assert caught.value.code == code


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("07" * 32)


@given(
    st.binary(max_size=100)
    | st.dictionaries(
        st.sampled_from(["type", *DONE, *HELLO, *LOAD, *HANDING, *RANGES, *HANDED, "seq"]),
        VALUES
        | st.lists(st.lists(VALUES, max_size=4), max_size=2)
        | st.sampled_from(["hello", "load", "handing", "ranges", "handed", "unload", "done", "ticked", "/", PROTOCOL]),
    ).map(line)
)
def test_parser_is_total(data: bytes) -> None:
    try:
        parse(data)
    except MalformedEvidence:
        return


# ---------------------------------------------------------------------------------------------------------------------
# sums and commitments


def test_client_commits_as_the_protocol_does() -> None:
    salt = new_salt()
    assert len(salt) == 32
    assert commit(salt, b"q", b"a") == workload.commit(salt, b"q", b"a")
    with pytest.raises(ValueError, match="32 bytes"):
        commit(b"", b"q", b"a")


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, 9)), max_size=150))
def test_window_sums_and_roots(items: list[tuple[bytes, int]]) -> None:
    window = WorkWindow()
    for commitment, number in items:
        window.add(Done(commitment, number, 2 * number, number, 3 * number, 4 * number))
    total = sum(number for _, number in items)
    assert window.take() == WorkSummary(
        root=merkle.root([merkle.leaf_hash(commitment) for commitment, _ in items]),
        requests=len(items),
        tokens_in=total,
        tokens_out=2 * total,
        batch_max=max((number for _, number in items), default=0),
        prefill_ns=3 * total,
        decode_ns=4 * total,
    )
    assert window.take() == WorkSummary.empty()


# ---------------------------------------------------------------------------------------------------------------------
# the socket


@pytest.fixture
def pcrs() -> FakePcrs:
    return FakePcrs()


@pytest.fixture
def log(tmp_path: Path, pcrs: FakePcrs) -> Iterator[MeasurementLog]:
    found = MeasurementLog.open(tmp_path / "state", pcrs, pcr=15, boot="1.0")
    yield found
    found.close()


@pytest.fixture
def attester(tmp_path: Path, log: MeasurementLog) -> Iterator[Attester]:
    with Attester(tmp_path / "w", log) as found:
        yield found


def test_model_is_measured_and_logged_before_the_answer(attester: Attester, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    with WorkloadClient.connect(str(attester.path)) as client:
        loaded = client.load(model, name="declared")
        manifest = measure(model, name="declared")
        assert loaded.digest == manifest.digest.hex()
        assert [(one.manifest, one.recnum) for one in attester.log.loaded()] == [(manifest.digest, loaded.recnum)]
        assert attester.manifests == [manifest]
        client.unload(loaded.recnum)
        assert attester.log.loaded() == ()


def test_second_model_is_logged_too(attester: Attester, tmp_path: Path) -> None:
    """A51: another model through the measured loader."""
    with WorkloadClient.connect(str(attester.path)) as client:
        client.load(write_model(tmp_path / "one"))
        client.load(write_model(tmp_path / "two", seed=2))
    assert [model.name for model in attester.log.loaded()] == ["one", "two"]


def test_refusals_reach_the_client_and_change_nothing(attester: Attester, tmp_path: Path, pcrs: FakePcrs) -> None:
    model = write_model(tmp_path / "model")
    with WorkloadClient.connect(str(attester.path)) as client:
        with pytest.raises(WorkloadError) as caught:
            client.load(tmp_path / "nothing")
        assert caught.value.code == Code.WEIGHTS_UNREADABLE
        with pytest.raises(WorkloadError) as caught:
            client.unload(0)
        assert caught.value.code == Code.LOG_EVENT
        pcrs.before = tpm_failure()
        with pytest.raises(WorkloadError) as caught:
            client.load(model)
        assert caught.value.code == Code.TPM_FAILED
        assert attester.log.records() == ()
        assert client.load(model).recnum == 0


def test_requests_are_counted_by_window(attester: Attester) -> None:
    with WorkloadClient.connect(str(attester.path)) as client:
        for number in range(1, 4):
            client.done(bytes([number] * 32), tokens_in=number, tokens_out=10, batch=number)
        summary = attester.take(3)
        assert (summary.requests, summary.tokens_in, summary.tokens_out, summary.batch_max) == (3, 6, 30, 3)
        assert summary.root == merkle.root([merkle.leaf_hash(bytes([number] * 32)) for number in range(1, 4)])
        client.done(bytes([7] * 32), tokens_in=3, tokens_out=4, batch=1)
        assert attester.take(1) == GOODBYE
        for _ in range(2):
            client.done(bytes(32), tokens_in=1, tokens_out=1, batch=1, prefill_ns=20, decode_ns=300)
        summary = attester.take(2)
        assert (summary.prefill_ns, summary.decode_ns) == (40, 600)
        with pytest.raises(ValueError, match="not negative"):
            client.done(bytes(32), tokens_in=0, tokens_out=0, batch=1, decode_ns=-1)
        for wrong in ((b"", 0, 0, 1), (bytes(32), -1, 0, 1), (bytes(32), 0, 0, 0)):
            with pytest.raises(ValueError, match="32 bytes"):
                client.done(wrong[0], tokens_in=wrong[1], tokens_out=wrong[2], batch=wrong[3])


def test_reports_of_several_threads_all_arrive(attester: Attester) -> None:
    with WorkloadClient.connect(str(attester.path)) as client:

        def report() -> None:
            for _ in range(50):
                client.done(bytes(32), tokens_in=1, tokens_out=0, batch=1)

        threads = [threading.Thread(target=report) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert attester.take(200).tokens_in == 200


def test_ticks_make_counts_depend_on_the_window_alone(attester: Attester) -> None:
    with WorkloadClient.connect(str(attester.path), ticks=True) as client, WorkloadClient.connect(str(attester.path)):

        def drive() -> None:
            for _ in range(3):
                seq = client.next_tick(10)
                assert seq is not None
                for _ in range(seq):
                    client.done(bytes(32), tokens_in=5, tokens_out=0, batch=1)
                client.ticked(seq)

        thread = threading.Thread(target=drive)
        thread.start()
        for seq in (4, 5, 6):
            assert attester.tick(seq) == 0
            assert attester.take(seq).requests == seq
        thread.join()
        assert client.next_tick(0.01) is None


def test_late_and_vanished_servers_are_counted(attester: Attester) -> None:
    assert attester.tick(0) == 0
    with WorkloadClient.connect(str(attester.path), ticks=True) as client:
        assert attester.tick(1, timeout=0.05) == 1
        client.ticked(1)
        client.ticked(99)

        def vanish() -> None:
            client.next_tick()
            client.next_tick()
            client.close()

        threading.Thread(target=vanish).start()
        assert attester.tick(2) == 1
    assert attester.tick(3) == 0


def test_tick_that_is_cancelled_leaves_nothing_waiting(attester: Attester) -> None:
    with WorkloadClient.connect(str(attester.path), ticks=True):

        async def cancelled() -> list[int]:
            tick = asyncio.create_task(attester.server.tick(7, timeout=10))
            await asyncio.sleep(0.02)
            tick.cancel()
            await asyncio.gather(tick, return_exceptions=True)
            await asyncio.sleep(0)
            return [seq for peer in attester.server._peers for seq in peer._waiting]

        assert asyncio.run_coroutine_threadsafe(cancelled(), attester._loop).result(10) == []


def raw(attester: Attester, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines, end, and read every answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(attester.path))
        try:
            connection.sendall(b"".join(lines))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before all was sent
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass  # closed with our bytes unread
    return [json.loads(found) for found in answer.splitlines()]


@pytest.mark.parametrize(
    "junk", [b"\n", b"{}\n", b"\xff\n", b"[" * 1000 + b"\n", b'{"type":"done","type":"done"}\n', line(DONE) + b"\n"]
)
def test_junk_is_answered_by_an_error_and_the_attester_goes_on(attester: Attester, junk: bytes) -> None:
    (error, welcome) = raw(attester, junk, line(HELLO) + b"\n")
    assert (error["type"], welcome["type"]) == ("error", "welcome")
    assert error["code"] in Code.__members__
    with WorkloadClient.connect(str(attester.path)) as client:
        client.done(bytes([7] * 32), tokens_in=3, tokens_out=4, batch=1)
        assert attester.take(1) == GOODBYE


def test_line_without_end_is_refused_in_bounded_memory(attester: Attester) -> None:
    (error,) = raw(attester, b"x" * (LINE_MAX * 3))
    assert (error["type"], error["code"]) == ("error", "TOO_LARGE")


def test_line_cut_short_is_dropped(attester: Attester) -> None:
    assert raw(attester, line(HELLO)[:-1]) == []


def test_peer_that_does_not_read_is_disconnected(attester: Attester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_DRAIN_TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(attester.path))
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            connection.sendall(b"{}\n" * 2_000_000)


def test_too_many_peers_are_refused(attester: Attester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_PEERS_MAX", 1)
    with WorkloadClient.connect(str(attester.path)):
        with pytest.raises(WorkloadError) as caught:
            WorkloadClient.connect(str(attester.path))
        assert caught.value.code in {"PEER_REFUSED", "PEER_UNREACHABLE"}


def test_connection_waits_while_descriptors_are_used_up(attester: Attester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_ACCEPT_PAUSE_S", 0.05)
    assert attester.server._listener is not None
    listener: socket.socket = attester.server._listener
    failures = [errno.EMFILE, errno.ECONNABORTED]

    class Failing:
        def accept(self) -> tuple[socket.socket, object]:
            if failures:
                raise OSError(failures.pop(), "made to fail")
            return listener.accept()

        def fileno(self) -> int:
            return listener.fileno()

        def close(self) -> None:
            listener.close()

    monkeypatch.setattr(attester.server, "_listener", Failing())
    with WorkloadClient.connect(str(attester.path)) as client:
        client.done(bytes([7] * 32), tokens_in=3, tokens_out=4, batch=1)
        assert attester.take(1) == GOODBYE
    assert failures == []


def test_connection_that_arrives_after_closing_is_left_alone(tmp_path: Path, log: MeasurementLog) -> None:
    async def main() -> None:
        async with serving(tmp_path / "w", log) as server:
            pass
        server._accept()
        server._resume()

    asyncio.run(main())


def test_closing_while_connections_arrive_loses_no_socket(tmp_path: Path, log: MeasurementLog) -> None:
    for number in range(20):
        path = tmp_path / f"w{number}"
        with Attester(path, log), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
    gc.collect()


def test_tick_to_a_peer_that_does_not_read_is_late(attester: Attester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_DRAIN_TIMEOUT_S", 0.05)
    monkeypatch.setattr(server_module, "PROTOCOL", "x" * 1_000_000)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(attester.path))
        # The welcome fills the socket's buffer and some of the attester's.
        connection.sendall(line({**HELLO, "ticks": True}) + b"\n")
        while not any(peer.ticks for peer in attester.server._peers):
            time.sleep(0.005)
        assert attester.tick(1) == 1


def test_socket_is_for_this_user_only(attester: Attester) -> None:
    assert attester.path.stat().st_mode & 0o777 == 0o600


def test_client_without_an_attester(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(client_module.ENVIRONMENT, raising=False)
    for path in (None, str(tmp_path / "nothing")):
        with pytest.raises(WorkloadError) as caught:
            WorkloadClient.connect(path)
        assert caught.value.code == "PEER_UNREACHABLE"


def test_client_of_a_vanished_attester(tmp_path: Path, log: MeasurementLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(client_module.ENVIRONMENT, str(tmp_path / "w"))
    with Attester(tmp_path / "w", log):
        client = WorkloadClient.connect()
    assert not (tmp_path / "w").exists()
    actions: list[Callable[[], object]] = [
        client.next_tick,
        lambda: client.load("/m"),
        lambda: client.done(bytes(32), tokens_in=0, tokens_out=0, batch=1),
        client.next_tick,
    ]
    for action in actions:
        with pytest.raises(WorkloadError) as caught:
            action()
        assert caught.value.code == "PEER_UNREACHABLE"
    client.close()


def answering(tmp_path: Path, *answers: bytes) -> str:
    """A peer that sends `answers` to whoever connects, then closes once the other side does."""
    path = str(tmp_path / "other")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            connection.sendall(b"".join(answers))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    threading.Thread(target=serve, daemon=True).start()
    return path


@pytest.mark.parametrize("answer", [b"", b"not json\n", b'{"type":"tick"}\n', b'{"type":"loaded"}\n'])
def test_client_of_something_else(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(WorkloadError):
        WorkloadClient.connect(answering(tmp_path, answer))


def test_client_gives_up_on_a_silent_attester(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_REPLY_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        with pytest.raises(WorkloadError) as caught:
            WorkloadClient.connect(str(tmp_path / "silent"))
    assert caught.value.code == "PEER_UNREACHABLE"


@asynccontextmanager
async def serving(path: Path, log: MeasurementLog) -> AsyncGenerator[WorkloadServer]:
    async with WorkloadServer(path, log) as server:
        yield server


async def listen(path: Path, log: MeasurementLog) -> Code | None:
    try:
        async with serving(path, log):
            return None
    except EnvironmentFault as error:
        return error.code


def test_stale_socket_is_replaced_and_a_served_one_is_not(attester: Attester, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "stale"))
    assert asyncio.run(listen(tmp_path / "stale", attester.log)) is None
    assert asyncio.run(listen(attester.path, attester.log)) == Code.PORT_UNAVAILABLE
    (tmp_path / "file").write_text("in the way")
    assert asyncio.run(listen(tmp_path / "file", attester.log)) == Code.PORT_UNAVAILABLE
    assert asyncio.run(listen(tmp_path / "none" / "w", attester.log)) == Code.PORT_UNAVAILABLE
    assert asyncio.run(listen(tmp_path / ("x" * 108), attester.log)) == Code.PORT_UNAVAILABLE


def test_a_path_longer_than_the_kernel_takes(attester: Attester, tmp_path: Path) -> None:
    """State directories lie where they lie: the socket is reached through its directory."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    path = deep / "workload.sock"

    async def whole() -> None:
        async with serving(path, attester.log):
            assert path.is_socket()
            assert path.stat().st_mode & 0o777 == 0o600
            client = await asyncio.to_thread(WorkloadClient.connect, str(path))
            await asyncio.to_thread(client.close)
        assert not path.exists()

    asyncio.run(whole())
    # One that nobody listens on is replaced here too.
    with socket.socket(socket.AF_UNIX) as left_behind, client_module.socket_address(str(path)) as address:
        left_behind.bind(address)
    asyncio.run(whole())
    with pytest.raises(WorkloadError) as caught:
        WorkloadClient.connect(str(tmp_path / ("f" * 200) / "workload.sock"))
    assert caught.value.code == "PEER_UNREACHABLE"
