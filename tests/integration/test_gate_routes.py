"""The real nginx asks the gate for the route that ``Router`` takes, in whatever order the file has its routes."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.gated import get, until
from weighbridge.attester.keys import ensure_keys, load_serving
from weighbridge.verifier.gate.configuration import GateFile
from weighbridge.verifier.gate.nginx_config import NginxConfig, Pinned
from weighbridge.verifier.gate.place import Place
from weighbridge.verifier.gate.routing import Router

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
ROUTES = (
    ("general", ["*"], "/v1"),
    ("private", ["*"], "/v1/private"),
    ("host", ["c.example"], "/"),
    ("inner", ["c.example", "d.example"], "/v1/inner"),
)
GENERAL, PRIVATE, HOST, INNER = (name for name, _, _ in ROUTES)


class Asked:
    """A gate that says no, and what it was asked."""

    def __init__(self) -> None:
        self.routes: list[str] = []
        asked = self.routes

        class _Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path.removeprefix("/auth/"))
                self.send_response(403)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def asked() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.server.shutdown()
    made.server.server_close()


def gate_file(routes: tuple[tuple[str, list[str], str], ...], cnf: bytes) -> GateFile:
    session: dict[str, Any] = {"tenant": "t", "model": "00" * 32, "adapters": [], "cnf": cnf.hex()}
    names = [name for name, _, _ in routes]
    document = {
        "schema": "weighbridge/gates/v1",
        "audience": "x",
        "accept": "warning",
        "sessions": [{"name": name, "session": f"{i:032x}", **session} for i, name in enumerate(names)],
        "routes": [{"name": name, "hosts": hosts, "path": path, "sessions": [name]} for name, hosts, path in routes],
    }
    return GateFile.parse(json.dumps(document).encode())


@contextlib.contextmanager
def nginx(directory: Path, file: GateFile, gate: int, pinned: Pinned) -> Generator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    text = NginxConfig(
        file=file,
        gate=Place("127.0.0.1", gate),
        listen=("127.0.0.1", port),
        upstreams={one.name: ("127.0.0.1", 1) for one in file.sessions},
        certificates={one.name: pinned for one in file.sessions},
        request_s=60,
    ).text()
    temporary = "".join(
        f"{name}_temp_path {directory}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{text}\n}}\n"
    )
    process = subprocess.Popen([NGINX, "-p", directory, "-e", "stderr", "-c", config])
    try:
        until(lambda: process.poll() is not None or answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.skipif(not Path(NGINX).exists(), reason="no nginx: scripts/setup --peers")
@pytest.mark.parametrize("routes", [ROUTES, ROUTES[::-1], ROUTES[2:]], ids=["general first", "last", "named hosts"])
def test_nginx_asks_for_the_route_that_the_router_takes(
    tmp_path: Path, asked: Asked, routes: tuple[tuple[str, list[str], str], ...]
) -> None:
    ensure_keys(tmp_path, names=["127.0.0.1"], at=datetime.now(UTC))
    key = load_serving(tmp_path)
    file = gate_file(routes, key.cnf)
    router = Router(file)
    sessions = {one.identifier: one.name for one in file.sessions}
    pinned = Pinned(str(key.certificate_file), Path(key.certificate_file).read_bytes())
    found: dict[tuple[str, str], str | None] = {}
    with nginx(tmp_path, file, asked.server.server_port, pinned) as port:
        for host in ("any.example", "c.example:80", "d.example"):
            for path in (
                "/v1",
                "/v1/private/x?y=/../",
                "/v1/inner",
                "/v1x",
                "/v1/.x",
                "/v1//x",
                "/v1/%78",
                "/v1/a/../x",
            ):
                asked.routes.clear()
                status = get(port, path, host=host).status
                placed = router.placed(host, path)
                found[host, path] = sessions[placed[0]] if placed else None
                # For its answer it asks again.
                assert set(asked.routes) == set(filter(None, [found[host, path]])), (host, path)
                assert status in ({403} if placed else {400, 404}), (host, path)
    general = {name for name, _, _ in routes} >= {GENERAL, PRIVATE}
    assert found["any.example", "/v1"] == (GENERAL if general else None)
    assert found["any.example", "/v1/private/x?y=/../"] == (PRIVATE if general else None)
    assert found["c.example:80", "/v1/private/x?y=/../"] == HOST
    assert found["d.example", "/v1/inner"] == INNER
