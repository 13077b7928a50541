"""The gate's file, and which route a request takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from support.relying import CNF, KEY, MODEL, A, B, document, gate_file
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.strict import base64_encode
from weighbridge.verifier.gate.configuration import GateFile
from weighbridge.verifier.gate.envoy_config import EnvoyConfig
from weighbridge.verifier.gate.nginx_config import NginxConfig, Pinned
from weighbridge.verifier.gate.place import Place
from weighbridge.verifier.gate.routing import Router


def refused(value: object) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        GateFile.parse(json.dumps(value).encode())
    return refusal.value.code


def test_the_file_is_read_back_as_it_was_written() -> None:
    file = gate_file()
    assert GateFile.parse(file.encode()) == file


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_file_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        GateFile.parse(data)


def test_what_is_not_said_is_not_assumed() -> None:
    for name in document():
        value = document()
        del value[name]
        assert refused(value) in {Code.FIELD_MISSING, Code.FIELD_RANGE}, name
    for name in document()["sessions"][0]:
        value = document()
        del value["sessions"][0][name]
        assert refused(value) is Code.FIELD_RANGE, name


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"accept": "none"},
        {"sessions": []},
        {"routes": []},
        {"sessions": [document()["sessions"][0]] * 2},
        {"sessions": [{**document()["sessions"][0], "cnf": None}]},
        {"sessions": [{**document()["sessions"][0], "cnf": {"unchecked": ""}}]},
        {"sessions": [{**document()["sessions"][0], "cnf": CNF.hex() + "\n"}]},
        {"sessions": [{**document()["sessions"][0], "cnf": CNF.hex().upper()}]},
        {"sessions": [{**document()["sessions"][0], "name": "a b"}]},
        {"routes": [{**document()["routes"][0], "sessions": ["c"]}]},
        {"routes": [{**document()["routes"][0], "sessions": ["a", "a"]}]},
        {"routes": [{**document()["routes"][0], "sessions": {"tenant": "other", "model": MODEL.hex()}}]},
        {"routes": [{**document()["routes"][0], "path": "v1"}]},
        {"routes": [{**document()["routes"][0], "path": "/v1/../x"}]},
        {"routes": [{**document()["routes"][0], "path": "/v1//x"}]},
        {"routes": [{**document()["routes"][0], "path": "/$x"}]},
        {"routes": [{**document()["routes"][0], "hosts": ["A.example"]}]},
        {"routes": [{**document()["routes"][0], "hosts": ["a.example;"]}]},
        {"routes": [document()["routes"][0], {**document()["routes"][0], "name": "again"}]},
    ],
)
def test_what_is_wrong_is_refused(change: dict[str, Any]) -> None:
    assert refused(document(**change)) is Code.FIELD_RANGE


@pytest.mark.parametrize(
    ("host", "path", "sessions"),
    [
        ("a.example", "/v1", (A,)),
        ("A.Example:8080", "/v1/chat?x=/../", (A,)),
        ("a.example", "/v1x", (A, B)),
        ("other.example", "/v1", (A, B)),
        ("", "/", (A, B)),
        *(("a.example", path, ()) for path in ("", "v1", "/v1/../x", "/v1/./x", "//v1", "/v1//x", "/v1/%2e%2e/x")),
        *(("a.example", path, ()) for path in ("/v1/x\n", "/v1;x", "/v1\\x", "*", "/v1/.x", "/" + "a" * 9000)),
    ],
)
def test_which_route_a_request_takes(host: str, path: str, sessions: tuple[bytes, ...]) -> None:
    assert Router(gate_file()).placed(host, path) == sessions


def test_what_a_proxy_names() -> None:
    router = Router(gate_file())
    assert (router.named("first"), router.named("any"), router.named("none")) == ((A,), (A, B), ())
    assert (router.session("b"), router.session(B.hex()), router.session("c")) == ((B,), (B,), ())
    assert (router.model("acme", MODEL.hex()), router.model("other", MODEL.hex())) == ((A, B), ())


def envoy(**changes: object) -> EnvoyConfig:
    fields: dict[str, Any] = {
        "file": gate_file(),
        "gate": Place("127.0.0.1", 9001),
        "listen": ("127.0.0.1", 8080),
        "upstreams": {"a": ("10.0.0.7", 8443), "b": ("gpu-b.example", 8443)},
        "request_s": 120,
        **changes,
    }
    return EnvoyConfig(**fields)


def test_envoy_pins_each_session_and_lets_nothing_through_without_an_answer() -> None:
    made: Any = envoy().document()
    gate, *clusters = made["static_resources"]["clusters"]
    assert gate["name"] == "weighbridge-gate"
    assert [cluster["name"] for cluster in clusters] == ["session-a", "session-b"]
    for cluster in clusters:
        tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
        assert tls == {"verify_certificate_spki": [base64_encode(CNF)]}
    manager = made["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["common_http_protocol_options"] == {"headers_with_underscores_action": "REJECT_REQUEST"}
    authorize = manager["http_filters"][0]["typed_config"]
    assert (authorize["failure_mode_allow"], authorize["clear_route_cache"]) == (False, True)
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            checked = route["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"]
            assert set(checked["context_extensions"]) == {"weighbridge_route"}
            # Nothing leads to a server but by the header that the gate sets.
            assert ("route" in route) == ("headers" in route["match"])


@pytest.mark.parametrize("make", ["envoy", "nginx"])
def test_a_session_that_cannot_be_pinned_is_refused(make: str) -> None:
    sessions = document()["sessions"]
    sessions[0]["cnf"] = {"unchecked": "for a reason"}
    for changes, where in (({"upstreams": {}}, "--upstream"), ({"file": gate_file(sessions=sessions)}, "sessions.cnf")):
        written = envoy(**changes).document if make == "envoy" else nginx(**changes).text
        with pytest.raises(MalformedEvidence) as refusal:
            written()
        assert (refusal.value.code, refusal.value.where) == (Code.FIELD_MISSING, where)


CERTIFICATE = Pinned("/etc/nginx/a.pem", b"")


def nginx(**changes: object) -> NginxConfig:
    one = {**document()["routes"][0]}
    fields: dict[str, Any] = {
        "file": gate_file(routes=[one]),
        "gate": Place("127.0.0.1", 9002),
        "listen": ("127.0.0.1", 8080),
        "upstreams": {"a": ("10.0.0.7", 8443)},
        "certificates": {"a": Pinned("/etc/nginx/a.pem", certificate())},
        "request_s": 120,
        **changes,
    }
    fields["file"] = fields["file"].model_copy(update={"routes": fields["file"].routes[:1]})
    return NginxConfig(**fields)


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "host")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_nginx_is_given_the_certificate_of_the_key_alone() -> None:
    with pytest.raises(NotAuthentic) as refusal:
        nginx().text()
    assert refusal.value.code is Code.UPSTREAM_KEY
    for changed, code in (
        ({"certificates": {}}, Code.FIELD_MISSING),
        ({"certificates": {"a": CERTIFICATE}}, Code.CERT_MALFORMED),
        ({"certificates": {"a": Pinned('/x"; include /y; "', certificate())}}, Code.FIELD_RANGE),
    ):
        with pytest.raises(MalformedEvidence) as malformed:
            nginx(**changed).text()
        assert malformed.value.code is code


def test_nginx_gets_one_session_per_route() -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        NginxConfig(
            file=gate_file(),
            gate=Place("127.0.0.1", 9002),
            listen=("127.0.0.1", 8080),
            upstreams={},
            certificates={},
            request_s=1,
        ).text()
    assert refusal.value.code in {Code.FIELD_RANGE, Code.FIELD_MISSING}
