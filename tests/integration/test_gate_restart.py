"""A gate whose file names a host by model and serving key, with real processes: a verifier that is killed, a host that
is started again.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding

from support.gated import Answered, get, until
from support.site import Factory, Running, Site, here
from weighbridge.attester.keys import ensure_keys, load_serving
from weighbridge.verifier import pki

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

AUDIENCE: Final = "https://gate.example"
# 1.5 windows of a second and 2 s; and a slow machine between two looks.
LIFE_S: Final = 3.5
SLACK_S: Final = 1.5


def gates_file(site: Site) -> Path:
    """The gate's file: no session is named in it."""
    cnf = load_serving(site.state).cnf.hex()
    host = {
        "name": "host",
        "session": "any",
        "tenant": "tenant-a",
        "model": digest_of(site),
        "adapters": [],
        "cnf": cnf,
    }
    document = {
        "schema": "weighbridge/gates/v1",
        "audience": AUDIENCE,
        "accept": "warning",
        "sessions": [host],
        "routes": [{"name": "chat", "hosts": ["*"], "path": "/v1", "sessions": ["host"]}],
    }
    path = site.directory / "gates.json"
    path.write_text(json.dumps(document))
    return path


def digest_of(site: Site) -> str:
    done = here("weighbridge", "model", "show", site.factory.manifest, "--json")
    assert done.status == 0, done.err
    digest: str = json.loads(done.out)["digest"]
    return digest


def ask(port: int) -> Answered:
    return get(port, "/auth/chat")


def closes(port: int, *, by: float) -> None:
    """It closes, at the latest at ``by``, monotonic seconds."""
    while ask(port).status == 204:
        assert time.monotonic() < by, "open longer than the rule allows"
        time.sleep(0.02)


def test_a_verifier_that_is_killed_and_a_host_that_is_started_again(tmp_path: Path) -> None:
    (tmp_path / "factory").mkdir()
    (tmp_path / "site").mkdir()
    with Site(Factory(tmp_path / "factory"), tmp_path / "site") as site:
        site.prepare()
        ensure_keys(site.directory / "gate", names=["localhost"], at=datetime.now(UTC))
        request = (site.directory / "gate" / "channel.csr").read_bytes()
        certificate = pki.issue_client(site.verifier / "tls", request, at=datetime.now(UTC))
        pem = site.directory / "gate.pem"
        pem.write_bytes(certificate.public_bytes(Encoding.PEM))
        parties = site.directory / "parties.json"
        added = here(
            "weighbridge", "relying-party", "add", parties, "gate", "--tenant", "tenant-a", "--audience", AUDIENCE,
            "--certificate", pem,
        )  # fmt: skip
        assert added.status == 0, added.err
        ports = site.directory / "ports.json"
        gate = Running(
            "weighbridge", "gate", "serve", "--config", gates_file(site), "--verifier", f"localhost:{site.port}",
            "--verifier-ca", site.verifier / "tls" / "ca.pem", "--key", site.directory / "gate" / "channel.key",
            "--certificate", pem, "--anchors", site.verifier / "anchors.json", "--http", "127.0.0.1:0",
            "--port-file", ports,
        )  # fmt: skip
        serve = site.serve_command("--relying-parties", parties)
        with gate, ExitStack() as stack:
            # Whichever starts first.
            until(ports.exists)
            port: int = json.loads(ports.read_bytes())["http"]
            assert ask(port).status == 403
            verifier = stack.enter_context(serving(*serve))
            attester = stack.enter_context(site.attesting())
            opens(port, gate, attester)
            first = session_of(ask(port))
            verifier.kill()
            closes(port, by=time.monotonic() + LIFE_S + SLACK_S)
            assert ask(port).document["code"] == "TOKEN_EXPIRED"
            again = stack.enter_context(serving(*serve))
            opens(port, gate, attester)
            assert session_of(ask(port)) == first
            # The host is started again: another session, which nobody has told the gate of.
            attester.kill()
            restarted = stack.enter_context(site.attesting())
            until(lambda: session_of(ask(port)) not in {None, first}, within=30)
            assert restarted.terminate().status == 0
            until(lambda: ask(port).status == 403, within=LIFE_S + SLACK_S)
            assert ask(port).document["code"] == "SESSION_STATE"
            assert again.terminate().status == 0


@contextmanager
def serving(*command: object) -> Generator[Running]:
    with Running(*command) as verifier:
        verifier.until(lambda it: any("listening on" in line for line in it.errors), "the verifier listens")
        yield verifier


def opens(port: int, gate: Running, attester: Running) -> None:
    until(lambda: ask(port).status == 204 or attester.process.poll() is not None, within=30)
    assert ask(port).status == 204, (ask(port).document, gate.errors, attester.errors, attester.lines)


def session_of(answer: Answered) -> str | None:
    """The session that a request was let through to."""
    return answer.headers["x-weighbridge-result"].split(".")[0] if answer.status == 204 else None
