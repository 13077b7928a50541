"""Gates before a model's server, with the real Envoy and nginx: open by the rule and no longer, whatever dies."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.gated import LIFE_S, PERIOD_S, PROGRAM, Answered, Line, Scene, Upstream, get, until
from support.ports import free_port
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.result.key_store import ANNOUNCED_MIN, TokenKeyStore

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ENVOY = ROOT / ".peers/envoy/bin/envoy"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
# Beyond the rule: a slow machine between two looks.
SLACK_S = 1.5

needs_envoy = pytest.mark.skipif(not ENVOY.exists(), reason="no Envoy: scripts/setup --peers")
needs_nginx = pytest.mark.skipif(not Path(NGINX).exists(), reason="no nginx: scripts/setup --peers")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as made:
        yield made


def asks(port: int, path: str = "/auth/chat") -> Answered:
    return get(port, path)


def is_open(port: int) -> bool:
    return asks(port).status == 204


def kept_open(scene: Scene, seconds: float) -> None:
    """Windows go on coming."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert scene.window() == "affirmed"
        time.sleep(0.5)


def refused(scene: Scene) -> None:
    """A window comes that does not go on where the last one ended."""
    scene.world.host.prev = bytes(32)
    assert scene.window() == "denied"


def closes(port: int, *, by: float) -> Answered:
    """The refusal that comes at the latest at ``by``, monotonic seconds."""
    while is_open(port):
        assert time.monotonic() < by, "open longer than the rule allows"
        time.sleep(0.02)
    return asks(port)


# -- whatever dies -----------------------------------------------------------------------------------------------------


def test_whatever_dies_gates_close_by_the_rule(scene: Scene) -> None:
    """A67: windows go on; the gate whose line is cut, or silent, or that was stopped closes; then the host dies."""
    cut, frozen, stopped = (Line(scene.loop, scene.verifier_port) for _ in range(3))
    scene.window()
    _, well = scene.gate("well")
    _, behind_cut = scene.gate("cut", port=cut.port)
    _, behind_frozen = scene.gate("frozen", port=frozen.port)
    process, asleep = scene.gate("asleep", port=stopped.port)
    ports = [found["http"] for found in (well, behind_cut, behind_frozen, asleep)]
    scene.window()
    until(lambda: all(map(is_open, ports)))
    os.kill(process.process.pid, signal.SIGSTOP)
    for line in (cut, frozen, stopped):
        line.cut() if line is not frozen else line.freeze()
    last = time.monotonic()
    kept_open(scene, LIFE_S)
    assert is_open(ports[0])
    for port in ports[1:3]:
        refusal = closes(port, by=last + LIFE_S + SLACK_S)
        assert (refusal.status, refusal.document["code"]) == (403, "TOKEN_EXPIRED")
    # It was asleep when its token expired: its first word is no.
    os.kill(process.process.pid, signal.SIGCONT)
    assert (asks(ports[3]).status, asks(ports[3]).document["code"]) == (403, "TOKEN_EXPIRED")
    # The host dies: nothing is left but time.
    last = time.monotonic()
    assert closes(ports[0], by=last + LIFE_S + SLACK_S).document["code"] == "TOKEN_EXPIRED"
    # The host is back.
    scene.window()
    until(lambda: is_open(ports[0]), within=2)


def test_a_refused_window_closes_at_once(scene: Scene) -> None:
    _, ports = scene.gate("one")
    scene.window()
    until(lambda: is_open(ports["http"]), within=2)
    refused(scene)
    until(lambda: not is_open(ports["http"]), within=1)
    assert asks(ports["http"]).document["code"].startswith("WINDOW_")


def test_a_restarted_verifier_is_heard_again(scene: Scene) -> None:
    line = Line(scene.loop, scene.verifier_port)
    gate, ports = scene.gate("one", port=line.port)
    scene.window()
    until(lambda: is_open(ports["http"]), within=2)
    line.cut()
    until(lambda: "cannot be heard" in gate.log.read_text(), within=2)
    line.mend()
    scene.window()
    result = f"{scene.world.host.session.hex()}.1"
    until(lambda: asks(ports["http"]).headers.get("x-weighbridge-result") == result, within=5)
    assert "can be heard again" in gate.log.read_text()


def test_a_gate_stays_open_while_the_key_for_tokens_changes(scene: Scene) -> None:
    """Nobody hands it a key set. The key is then taken out, as one that was stolen: the identity's tokens open."""
    keys, since = TokenKeyStore(scene.world.keys), datetime.now(UTC) + timedelta(seconds=3)
    # Announced in time, by the clock of whoever announces it.
    made = keys.new(at=since - ANNOUNCED_MIN, not_before=since, not_after=since + timedelta(days=1))
    gate, ports = scene.gate("gate")

    def window(opened: int) -> None:
        """The next window opens, as the ``opened``th."""
        assert scene.window() == "affirmed"
        result = f"{scene.world.host.session.hex()}.{opened}"
        until(lambda: asks(ports["http"]).headers.get("x-weighbridge-result") == result)

    window(0)
    signer, opened = scene.world.keys.thumbprint, 0
    while signer != made.trusted.kid:
        opened += 1
        time.sleep(PERIOD_S)
        assert is_open(ports["http"])
        signer = keys.signer_thumbprint(datetime.now(UTC))
        window(opened)
    assert signer.hex()[:16] in gate.log.read_text()
    keys.retire(signer, at=datetime.now(UTC), distrust=True)
    time.sleep(PERIOD_S)
    window(opened + 1)


def test_the_file_is_read_again(scene: Scene) -> None:
    process, ports = scene.gate("one")
    scene.window()
    until(lambda: is_open(ports["http"]), within=2)
    path = scene.directory / "gates.json"
    good = path.read_text()
    path.write_text("{}")
    process.process.send_signal(signal.SIGHUP)
    until(lambda: "what is in force stays" in process.log.read_text())
    assert is_open(ports["http"])
    path.write_text(good.replace(scene.upstream.key.cnf.hex(), "00" * 32))
    process.process.send_signal(signal.SIGHUP)
    until(lambda: not is_open(ports["http"]), within=2)
    until(lambda: asks(ports["http"]).document["code"] == "UPSTREAM_KEY", within=2)
    process.process.terminate()
    assert process.process.wait(10) == 0


# -- Envoy -------------------------------------------------------------------------------------------------------------


def envoy(scene: Scene, gate: int) -> int:
    """The port of an Envoy by the configuration that we write."""
    port = free_port()
    config = scene.directory / "envoy.json"
    command = [str(PROGRAM), "gate", "envoy-config", str(scene.directory / "gates.json"), "-o", str(config)]
    places = ["--gate", f"127.0.0.1:{gate}", "--listen", f"127.0.0.1:{port}"]
    subprocess.run(
        [*command, *places, "--upstream", f"h100-a=127.0.0.1:{scene.upstream.port}"], check=True, capture_output=True
    )
    scene.run(
        "envoy", str(ENVOY), "--config-path", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"
    )
    until(lambda: listens(port))
    return port


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def underscored(port: int) -> int:
    """The status of a request with a header that many servers take for the gate's."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/chat", headers={"x_weighbridge_model": "forged"})
        return connection.getresponse().status


@needs_envoy
def test_envoy(scene: Scene) -> None:
    gate, ports = scene.gate("one")
    port = envoy(scene, ports["envoy"])
    # Nothing was affirmed yet.
    closed = get(port)
    assert (closed.status, closed.document["code"]) == (403, "RESULT_ABSENT")
    assert closed.headers["www-authenticate"] == 'Attestation error="result_absent"'
    scene.window()
    until(lambda: get(port).status == 200, within=2)
    session = scene.world.host.session.hex()
    # What a client says of itself is gone, also where it names the session that its route is chosen by.
    forged = get(port, x_weighbridge_result="forged", x_weighbridge_other="forged", x_weighbridge_session="none")
    assert forged.document["x-weighbridge-result"] == f"{session}.0"
    assert forged.document["x-weighbridge-model"] == scene.world.host.model.digest.hex()
    assert "x-weighbridge-other" not in forged.document
    assert underscored(port) == 400
    # So is what a server says.
    assert forged.headers["x-weighbridge-result"] == f"{session}.0"
    assert get(port, "/v1/../v2").status == 404
    assert get(port, "/v1/%2e%2e/v2").status in {400, 403, 404}
    # Closed by time.
    until(lambda: get(port).status == 403, within=LIFE_S + SLACK_S)
    assert get(port).document["code"] == "TOKEN_EXPIRED"
    # Another host answers at the same address: not with that key.
    scene.window()
    until(lambda: get(port).status == 200, within=2)
    own = scene.upstream.key
    scene.upstream.swap(Upstream(scene.loop, scene.directory / "another"))
    asked = scene.upstream.asked
    assert get(port).status == 503
    assert scene.upstream.asked == asked, "a request has reached a host with another key"
    scene.upstream.serve(own)
    scene.window()
    assert get(port).status == 200
    # The gate is gone: no answer is no.
    gate.kill()
    assert get(port).status == 403


# -- nginx -------------------------------------------------------------------------------------------------------------


def nginx(scene: Scene, gate: int) -> int:
    port = free_port()
    here, config = scene.directory, scene.directory / "servers.conf"
    command = [str(PROGRAM), "gate", "nginx-config", str(here / "gates.json"), "-o", str(config)]
    places = ["--gate", f"127.0.0.1:{gate}", "--listen", f"127.0.0.1:{port}"]
    server = ["--upstream", f"h100-a=localhost:{scene.upstream.port}"]
    # From the directory in which the command is run, which is not nginx's.
    named = Path(scene.upstream.key.certificate_file).relative_to(here.parent)
    certificate = ["--certificate", f"h100-a={named}"]
    subprocess.run([*command, *places, *server, *certificate], check=True, capture_output=True, cwd=here.parent)
    temporary = "".join(
        f"{name}_temp_path {here}/nginx-{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (here / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {here}/nginx.pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}include {config};\n}}\n"
    )
    scene.run("nginx", NGINX, "-p", str(here), "-e", "stderr", "-c", str(here / "nginx.conf"))
    until(lambda: listens(port))
    return port


@needs_nginx
def test_nginx(scene: Scene) -> None:
    gate, ports = scene.gate("one")
    port = nginx(scene, ports["http"])
    closed = get(port)
    assert (closed.status, closed.document["code"]) == (403, "RESULT_ABSENT")
    assert closed.headers["www-authenticate"] == 'Attestation error="result_absent"'
    scene.window()
    until(lambda: get(port).status == 200, within=2)
    forged = get(port, x_weighbridge_result="forged", x_weighbridge_session="forged")
    assert forged.document["x-weighbridge-result"] == f"{scene.world.host.session.hex()}.0"
    assert forged.document["x-weighbridge-session"] == "h100-a"
    assert get(port, "/v1x").status == 404
    assert get(port, "/_weighbridge/chat").status == 404
    until(lambda: get(port).status == 403, within=LIFE_S + SLACK_S)
    scene.window()
    until(lambda: get(port).status == 200, within=2)
    own = scene.upstream.key
    scene.upstream.swap(Upstream(scene.loop, scene.directory / "another"))
    asked = scene.upstream.asked
    assert get(port).status == 502
    assert scene.upstream.asked == asked, "a request has reached a host with another key"
    scene.upstream.serve(own)
    scene.window()
    assert get(port).status == 200
    gate.kill()
    assert get(port).status == 500


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_command_for_each_change(scene: Scene) -> None:
    log = scene.directory / "told"
    script = scene.directory / "switch"
    # What opens takes longer than the session lasts; what closes fails the second time.
    script.write_text(
        f"""#!/bin/sh
echo "$WEIGHBRIDGE_GATE ${{WEIGHBRIDGE_CODE:-none}} ${{WEIGHBRIDGE_RESULT:-none}}" >>{log}
[ "$WEIGHBRIDGE_GATE" = open ] && [ -e {log}.slow ] && sleep 60
[ "$WEIGHBRIDGE_GATE" = closed ] && [ -e {log}.fail ] && rm {log}.fail && exit 1
exit 0
"""
    )
    script.chmod(0o755)
    watch = scene.run("watch", str(PROGRAM), "gate", "watch", "h100-a", *scene.line_arguments(), "--exec", str(script))

    def told() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    session = scene.world.host.session.hex()
    until(lambda: len(told()) == 1)
    assert told()[0].startswith("closed RESULT_ABSENT")
    scene.window()
    until(lambda: f"open none {session}.0" in told(), within=2)
    (scene.directory / "told.fail").touch()
    until(lambda: told()[2:] == ["closed TOKEN_EXPIRED none"] * 2, within=LIFE_S + SLACK_S + 2)
    (scene.directory / "told.slow").touch()
    scene.window()
    until(lambda: len(told()) == 5, within=2)
    refused(scene)
    until(lambda: len(told()) == 6, within=4)
    assert told()[4] == f"open none {session}.1"
    assert told()[5].startswith("closed WINDOW_")
    assert "was killed: the session has closed" in watch.log.read_text()
    watch.process.terminate()
    assert watch.process.wait(10) == 0
    assert told()[6:] == ["closed none none"]


def test_one_look(scene: Scene) -> None:
    # A key that is endorsed signs: whoever looks once has it by then.
    now = datetime.now(UTC)
    TokenKeyStore(scene.world.keys).new(at=now - 2 * ANNOUNCED_MIN, not_before=now, not_after=now + timedelta(days=1))

    def look(port: int | None = None, session: str = "h100-a") -> tuple[int, str]:
        command = [str(PROGRAM), "gate", "watch", session, *scene.line_arguments(port), "--once"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout + done.stderr

    assert look()[0] == ExitCode.INDETERMINATE
    scene.window()
    status, text = look(session=scene.world.host.session.hex())
    assert (status, text.startswith("OPEN: h100-a, result ")) == (ExitCode.AFFIRMED, True), text
    assert look(session="another")[0] == ExitCode.USAGE
    refused(scene)
    status, text = look()
    assert (status, text.startswith("CLOSED: WINDOW_")) == (ExitCode.DENIED, True), text
