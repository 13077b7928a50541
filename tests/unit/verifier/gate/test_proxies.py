"""What is written for a proxy takes a request to the route that ``Router`` does. The proxies are modelled, not run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from support.relying import KEY, document, gate_file
from weighbridge.proto.digest import sha256
from weighbridge.proto.x509 import spki_der
from weighbridge.verifier.gate.configuration import GateFile
from weighbridge.verifier.gate.envoy_config import EnvoyConfig
from weighbridge.verifier.gate.nginx_config import NginxConfig, Pinned
from weighbridge.verifier.gate.place import Place
from weighbridge.verifier.gate.routing import Router

HOSTS = ("*", "a.example", "b.example")
PATHS = ("/", "/v1", "/v1/", "/v1/a", "/v1/a.b", "/v1x")
NOW = datetime.now(UTC)
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "host")])
CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(KEY.public_key())
    .serial_number(1)
    .not_valid_before(NOW)
    .not_valid_after(NOW + timedelta(days=1))
    .sign(KEY, hashes.SHA256())
)
PINNED = Pinned("/etc/nginx/host.pem", CERTIFICATE.public_bytes(Encoding.PEM))
CNF = sha256(spki_der(CERTIFICATE)).hex()


@st.composite
def files(draw: st.DrawFn) -> GateFile:
    """Routes in any order, each to a session of its own with the route's name."""
    places = st.lists(st.sampled_from([(host, path) for host in HOSTS for path in PATHS]), unique=True, min_size=1)
    by_path: dict[tuple[str, bool], list[str]] = {}
    for host, path in draw(places):
        # Some routes are for several hosts.
        by_path.setdefault((path, draw(st.booleans())), []).append(host)
    routes = [
        {"name": f"r{i}", "hosts": hosts, "path": path, "sessions": [f"r{i}"]}
        for i, ((path, _), hosts) in enumerate(by_path.items())
    ]
    session = {**document()["sessions"][0], "cnf": CNF}
    sessions = [{**session, "name": f"r{i}", "session": f"{i:032x}"} for i in range(len(routes))]
    return gate_file(sessions=sessions, routes=draw(st.permutations(routes)))


requests = st.tuples(
    st.sampled_from(("a.example", "b.example", "c.example")),
    st.one_of(
        st.builds(lambda path, more: path + more, st.sampled_from(PATHS), st.text("/.ab1x?%;", max_size=6)),
        st.text("/.v1ab?%;~", max_size=12).map("/".__add__),
    ),
)


def common(file: GateFile) -> dict[str, Any]:
    return {
        "file": file,
        "gate": Place("127.0.0.1", 9002),
        "listen": ("127.0.0.1", 8080),
        "upstreams": {one.name: ("10.0.0.7", 8443) for one in file.sessions},
        "request_s": 120,
    }


def routed(file: GateFile, host: str, target: str) -> str | None:
    """The route's name."""
    found = Router(file).placed(host, target)
    return next((one.name for one in file.sessions if (one.identifier,) == found), None)


def nginx(text: str, host: str, target: str) -> str | None:
    """The route that nginx takes: of the server with this name, or the default, the first expression that matches."""
    servers: dict[str, str] = dict(re.findall(r"^    server_name (\S+);\n(.*?)^}", text, re.MULTILINE | re.DOTALL))
    assert len(servers) == text.count("server {\n")
    assert text.count(" default_server;\n") == 1
    server = servers.get(host, servers["_"])
    if re.match(r"    return 404;\n", server):
        assert "location" not in server
        return None
    (plain,) = re.findall(r'^    if \(\$request_uri !~ "(.*)"\) \{\n        return 400;\n', server, re.MULTILINE)
    if not re.search(plain, target):
        return None
    locations = re.findall(
        r"^    location (\S+) (\S+) \{\n(?:        auth_request /_weighbridge/(\S+);)?", server, re.MULTILINE
    )
    # An exact location is only what nginx asks itself by, and each is there once, or nginx does not start.
    exact = [place for kind, place, _ in locations if kind == "="]
    assert len(set(exact)) == len(exact)
    assert {kind for kind, _, _ in locations} == {"=", "~"}
    path = target.partition("?")[0]
    return next((route for kind, match, route in locations if kind == "~" and re.search(match, path)), None)


def envoy(config: EnvoyConfig, host: str, target: str) -> str | None:
    """The route whose check Envoy makes: the first of the virtual host that matches the path."""
    made: Any = config.document()
    manager = made["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    virtual = {domain: one["routes"] for one in manager["route_config"]["virtual_hosts"] for domain in one["domains"]}
    path = target.partition("?")[0]
    for entry in virtual.get(host, virtual.get("*", ())):
        match = entry["match"]
        whole = match.get("path_separated_prefix")
        if path.startswith(match["prefix"]) if whole is None else (path + "/").startswith(whole + "/"):
            checked = entry["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"]
            name: str = checked["context_extensions"]["weighbridge_route"]
            return name
    return None


# One for each place that a route can have, and below it.
EACH = [
    (host, path) for host in ("a.example", "c.example") for one in PATHS for path in (one, one.rstrip("/") + "/b?x")
]


@given(file=files(), request=requests)
def test_nginx_takes_the_route_that_the_router_does(file: GateFile, request: tuple[str, str]) -> None:
    certificates = {one.name: PINNED for one in file.sessions}
    text = NginxConfig(**common(file), certificates=certificates).text()
    for host, target in [request, *EACH]:
        assert nginx(text, host, target) == routed(file, host, target), (host, target)


@given(file=files(), request=requests)
def test_envoy_takes_the_route_that_the_router_does(file: GateFile, request: tuple[str, str]) -> None:
    config = EnvoyConfig(**common(file))
    for host, target in [request, *EACH]:
        # Envoy normalises other paths, or refuses them, before it looks for a route.
        if Router(file).placed(host, target) or (host, target) in EACH:
            assert envoy(config, host, target) == routed(file, host, target), (host, target)
