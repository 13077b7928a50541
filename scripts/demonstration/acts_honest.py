"""The act in which nothing is wrong: from the declared weights to a bundle that convinces offline."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from stage import TEXTS, Attester, Stage, command
from telling import PATIENCE_S, ActFailed, Result, Waiting, expect, say, say_why, wait_for_token

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import ExitCode, WeighbridgeError

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.verifier.result_token import ResultToken

__all__ = ["honest"]

_WINDOWS: Final = 8


async def honest(stage: Stage) -> Result:
    """The declared weights run, and only they; a relying party gets in by the token; the bundle convinces offline."""
    host = stage.hosts["honest"]
    port_file = host.directory / "port"
    affirmed = Waiting(lambda document: document.get("status") == "affirmed", _WINDOWS)
    attester = await Attester.start(
        [
            *stage.options(host),
            "--port-file", port_file,
            *stage.server("--self-drive", TEXTS, "--rate", "6", "--port-file", port_file),
        ],
        affirmed.watch,
    )  # fmt: skip
    token = await wait_for_token(stage, host, attester)
    say(f"    token     status {token.status}: model {token.model.hex()[:16]}…, ledger index {token.ledger_index}")
    answered = await asyncio.to_thread(ask_pinned, port_file, token)
    say(f"    gate      asked the attested server (pinned to the token's cnf): {answered} tokens embedded")
    with contextlib.suppress(WeighbridgeError):
        token.require_upstream(sha256(b"some other server's key"))
        raise ActFailed("a server that was not attested was accepted")
    await affirmed.until(attester, f"{_WINDOWS} windows affirmed")
    attester.process.terminate()
    status = await attester.wait(PATIENCE_S)
    expect(status == 0, f"the attester ended with {status}: {attester.errors[-3:]}")
    await check_bundle(stage, token.session.hex())
    return Result("admitted", f"{_WINDOWS} windows and more affirmed; bundle accepted offline")


def ask_pinned(port_file: Path, token: ResultToken) -> int:
    """Embed a text at the attested server, whose TLS key must be the one that the token names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # No authority vouches for the key: the attested session does, and it is compared below.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = port_file.read_text().strip()
    connection = http.client.HTTPSConnection(f"127.0.0.1:{port}", context=context, timeout=10)
    connection.connect()
    if not isinstance(connection.sock, ssl.SSLSocket):
        raise ActFailed("the server does not speak TLS")
    der = connection.sock.getpeercert(binary_form=True) or b""
    spki = (
        x509.load_der_x509_certificate(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    token.require_upstream(sha256(spki))
    connection.request("POST", "/embed", json.dumps({"texts": ["Who weighs the weigher?"]}))
    tokens: int = json.loads(connection.getresponse().read())["tokens"]
    connection.close()
    return tokens


async def check_bundle(stage: Stage, session: str) -> None:
    """The proof bundle is accepted with this demonstration's anchors, and refused without, or under production."""
    bundle = stage.out / "session.wb"
    await command("weighbridge", "export", stage.state, session, "-o", bundle, *stage.judging(), check=True)
    trials: tuple[tuple[list[str | Path], ExitCode, str], ...] = (
        (["--anchors", stage.anchors], ExitCode.AFFIRMED, "this demonstration's anchors"),
        ([], ExitCode.NOT_AUTHENTIC, "the default anchors"),
        (["--anchors", stage.anchors, "--policy", "production"], ExitCode.DENIED, "the production policy"),
    )
    for options, wanted, why in trials:
        done = await command("weighbridge", "verify", "bundle", bundle, *options)
        say(f"    bundle    {why}: exit {done.status}, {wanted.name.lower().replace('_', ' ')}")
        expect(done.status == wanted, f"verify bundle with {why}: exit {done.status}, not {wanted}\n{done.err}")
    done = await command(
        "weighbridge", "policy", "explain", bundle, "--anchors", stage.anchors, "--policy", "production",
        "--window", "0", "--json",
    )  # fmt: skip
    say_why(done.out, done.err, "genuine_gpu(gpu)", 'gpu.platform is "insecure-emulated"')
