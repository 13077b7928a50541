"""The demonstration's inference server beside an attester: measured, then served over HTTPS, then counted."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fakes.models import minilm_directory
from fakes.pcrs import FakePcrs
from weighbridge.attester.weights import MeasurementLog, measure
from weighbridge.attester.workload.server import WorkloadServer
from weighbridge.proto import merkle, strict, workload
from weighbridge.proto.measurement_log import guarded
from weighbridge.proto.workload import WorkSummary

TEXTS = [f"text number {'very ' * number}long" for number in range(10)]


def serving_key(directory: Path) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "serving key")])
    start = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {
        "WEIGHBRIDGE_TLS_CERT": str(directory / "cert.pem"),
        "WEIGHBRIDGE_TLS_KEY": str(directory / "key.pem"),
        "WEIGHBRIDGE_WORKLOAD": str(directory / "w"),
    }


def launch(root: Path, directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    script = root / "scripts" / "demonstration" / "inference_server.py"
    return subprocess.Popen(
        [sys.executable, str(script), "--port-file", str(directory / "port"), *arguments],
        env={**os.environ, **serving_key(directory)},
        stderr=subprocess.PIPE,
    )


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def started(
    root: Path, directory: Path, *arguments: str
) -> AsyncGenerator[tuple[WorkloadServer, MeasurementLog, int, subprocess.Popen[bytes]]]:
    log = MeasurementLog.open(directory / "state", FakePcrs(), pcr=15, boot="1.0")
    async with WorkloadServer(directory / "w", log) as server:
        port_file = directory / "port"
        process = launch(root, directory, *arguments)
        try:
            await until(lambda: port_file.exists() or process.poll() is not None)
            yield server, log, strict.decimal(port_file.read_text().strip(), what="port"), process
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.communicate, timeout=10)
            log.close()


def post(port: int, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_requests_are_answered_with_a_receipt_and_counted(root: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with started(root, tmp_path) as (server, log, port, _):
            (model,) = log.loaded()
            manifest = measure(minilm_directory(), name="all-MiniLM-L6-v2")
            assert model.manifest == manifest.digest
            assert guarded(model, manifest)
            assert {item.event.path for item in model.handed} == {"model.safetensors", "tokenizer.json"}
            request = json.dumps({"texts": TEXTS[:3]}).encode()
            status, body, headers = await asyncio.to_thread(post, port, "/embed", request)
            assert status == 200
            answer = json.loads(body)
            assert (answer["texts"], answer["dimensions"]) == (3, 384)
            salt = bytes.fromhex(headers["Weighbridge-Salt"])
            commitment = workload.commit(salt, request, body)
            assert headers["Weighbridge-Commitment"] == commitment.hex()
            # Reports are not acknowledged: this one may still be on its way.
            await until(lambda: server._window._requests == 1)
            assert server.take() == WorkSummary(
                root=merkle.root([merkle.leaf_hash(commitment)]),
                requests=1,
                tokens_in=answer["tokens"],
                tokens_out=0,
                batch_max=3,
            )
            for path, wrong in (
                ("/other", request),
                ("/embed", b"{}"),
                ("/embed", b"not json"),
                ("/embed", json.dumps({"texts": []}).encode()),
                ("/embed", json.dumps({"texts": ["x", 1]}).encode()),
                ("/embed", b"x" * (1024 * 1024 + 1)),
            ):
                try:
                    status, _, _ = await asyncio.to_thread(post, port, path, wrong)
                except (OSError, http.client.HTTPException):
                    continue  # refused before the body was sent
                assert 400 <= status < 500
            assert server.take() == WorkSummary.empty()

    run(scenario)


def test_self_driven_counts_depend_on_the_window_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n".join(TEXTS))

    async def scenario() -> None:
        async with started(root, tmp_path, "--self-drive", str(tmp_path / "texts"), "--rate", "4") as (server, _, _, _):
            counts: list[tuple[int, int, int]] = []
            begun = time.monotonic()
            for seq in (0, 1, 2, 5, 0):
                assert await server.tick(seq, timeout=10) == 0
                work = server.take()
                counts.append((work.requests, work.tokens_in, work.batch_max))
            elapsed = (time.monotonic() - begun) / 5
        # "[CLS] text number (very …) long [SEP]": 5 tokens and one for each "very".
        assert counts == [(1, sum(5 + (4 * seq + i) % 10 for i in range(4)), 4) for seq in (0, 1, 2, 5, 0)]
        assert elapsed < 2

    run(scenario)


def test_server_without_an_attester_does_not_serve(root: Path, tmp_path: Path) -> None:
    process = launch(root, tmp_path)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == 8
    assert messages.startswith(b"inference server: error: PEER_UNREACHABLE")


def test_server_stops_serving_when_the_attester_is_gone(root: Path, tmp_path: Path) -> None:
    """What cannot be counted is not answered."""

    async def scenario() -> None:
        log = MeasurementLog.open(tmp_path / "state", FakePcrs(), pcr=15, boot="1.0")
        port_file = tmp_path / "port"
        async with WorkloadServer(tmp_path / "w", log):
            process = launch(root, tmp_path)
            await until(port_file.exists)
        try:
            port = strict.decimal(port_file.read_text().strip(), what="port")
            status, body, _ = await asyncio.to_thread(post, port, "/embed", json.dumps({"texts": ["x"]}).encode())
            assert (status, b"not attested" in body) == (503, True)
        finally:
            process.terminate()
            _, messages = await asyncio.to_thread(process.communicate, timeout=10)
            assert process.returncode == 0
            assert b"https://127.0.0.1:" in messages
            log.close()

    run(scenario)


@pytest.fixture(autouse=True)
def _short_paths(tmp_path: Path) -> None:
    assert len(str(tmp_path / "w")) < 100
