"""``weighbridge serve --config`` as a process: it says where it listens, and answers over HTTP with its own TLS."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from support.configured import configured
from support.service import Authority
from support.site import Running
from weighbridge.proto.digest import sha256
from weighbridge.verifier.certs import spki_der
from weighbridge.verifier.relying_parties import RelyingParties, RelyingParty

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIGURES = re.compile(r"figures on http://(127\.0\.0\.1:[0-9]+)/metrics")
HTTP = re.compile(r"answering https on 127\.0\.0\.1:([0-9]+)")


@dataclass
class Answering:
    """A verifier that serves, and a relying party's files."""

    running: Running
    port: int
    authority: Path
    certificate: Path
    key: Path

    def ask(
        self, path: str, *, method: str = "GET", body: str = "", known: bool = True
    ) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        context = ssl.create_default_context(cafile=str(self.authority))
        if known:
            context.load_cert_chain(self.certificate, self.key)
        connection = http.client.HTTPSConnection("localhost", self.port, context=context, timeout=20)
        try:
            headers = {"content-type": "application/x-www-form-urlencoded"} if body else {}
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read()), response.headers
        finally:
            connection.close()


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    made = configured(tmp_path_factory.mktemp("served") / "one", "tenant-a", "tenant-b")
    # Relying parties' certificates are of an authority of their own.
    elsewhere = Authority(made.directory / "elsewhere")
    elsewhere.admit("gate")
    state = made.directory / "elsewhere" / "gate"
    key = sha256(spki_der(x509.load_pem_x509_certificate((state / "channel.pem").read_bytes()))).hex()
    party = RelyingParty(name="gate", key=key, tenants=("tenant-a",), audiences=("relying-party",))
    (made.directory / "parties.json").write_bytes(RelyingParties(relying_parties=(party,)).encode())
    made.write(
        made.file.read_text().replace('requirements = "tenant-a.json"\n', "any_admitted_host = true\n")
        + '[[tenants]]\nrequirements = "tenant-a.json"\n[[tenants]]\nrequirements = "tenant-b.json"\n'
        '[relying_parties]\nfile = "parties.json"\nca = "elsewhere/ca.pem"\nlisten = "127.0.0.2:0"\n'
        '[metrics]\nlisten = "127.0.0.1:0"\n'
        '[http]\nlisten = "127.0.0.1:0"\nurl = "https://verifier.example"\n'
    )
    with Running("weighbridge", "serve", "--config", made.file) as running:
        running.until(lambda seen: any(line.startswith("listening on") for line in seen.errors), "listening")
        running.until(lambda seen: any(HTTP.fullmatch(line) for line in seen.errors), "answering")
        (port,) = [found[1] for line in running.errors if (found := HTTP.fullmatch(line))]
        yield Answering(running, int(port), made.state / "tls" / "ca.pem", state / "channel.pem", state / "channel.key")
        done = running.terminate()
        assert (done.status, "stopped; the ledger has" in done.out) == (0, True)


def test_keys_and_discovery_are_for_anybody(answering: Answering) -> None:
    status, document, headers = answering.ask("/.well-known/weighbridge-verifier", known=False)
    assert (status, headers["cache-control"]) == (200, "public, max-age=300")
    assert document["jwks_uri"] == "https://verifier.example/.well-known/jwks.json"
    assert document["ledger"]["origin"] == document["issuer"] == "ledger.example/test"
    listening = next(line for line in answering.running.errors if line.startswith("listening on"))
    assert document["grpc"]["address"] == listening.removeprefix("listening on ")
    assert document["grpc"]["bearer_address"].startswith("127.0.0.2:")
    assert any(document["grpc"]["bearer_address"] in line for line in answering.running.errors)
    status, keys, _ = answering.ask("/.well-known/jwks.json", known=False)
    assert (status, len(keys["keys"])) == (200, 1)


def test_introspection_is_for_relying_parties(answering: Answering) -> None:
    assert answering.ask("/introspect", method="POST", body="token=a.b.c")[:2] == (200, {"active": False})
    status, refusal, headers = answering.ask("/introspect", method="POST", body="token=a.b.c", known=False)
    assert (status, refusal["error"], headers["www-authenticate"]) == (401, "invalid_client", "Bearer")


def test_each_tenant_is_judged_by_its_own(answering: Answering) -> None:
    said = [line.partition(", policy ") for line in answering.running.errors if line.startswith("tenant ")]
    assert [(whose, bool(policy)) for whose, _, policy in said] == [
        ("tenant tenant-a", True),
        ("tenant tenant-b", True),
    ]


def test_it_is_ready_and_alive(answering: Answering) -> None:
    assert answering.ask("/healthz", known=False)[:2] == (200, {"status": "ok"})
    assert answering.ask("/readyz", known=False)[:2] == (200, {"ready": True, "reasons": []})
    # Figures are for the monitoring alone: not here.
    assert answering.ask("/metrics", known=False)[0] == 404


def test_figures_are_read_on_a_port_of_their_own(answering: Answering) -> None:
    (address,) = [found[1] for line in answering.running.errors if (found := FIGURES.fullmatch(line))]
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    values = {line.partition(" ")[0]: line.rpartition(" ")[2] for line in text.splitlines() if line[:1] != "#"}
    for name, value in (
        ("weighbridge_ledger_entries", "0.0"),
        ("weighbridge_junk_waiting", "0.0"),
        ("weighbridge_streams", "0.0"),
        ("weighbridge_queue", "0.0"),
        ("weighbridge_credit_windows", "4.0"),
        ('weighbridge_stage_seconds_count{stage="verify"}', "0.0"),
    ):
        assert values[name] == value
    assert float(values["process_resident_memory_bytes"]) > 1e7
    ends = {name.split('"')[1]: float(value) for name, value in values.items() if "_expiry_" in name}
    # No key of tokens was ever made: the identity signs them.
    assert ends.keys() == {"server", "attester_ca", "relying_party_ca"}
    assert min(ends.values()) > time.time()


def test_without_tls_nothing_is_said(answering: Answering) -> None:
    connection = http.client.HTTPConnection("localhost", answering.port, timeout=20)
    connection.request("GET", "/healthz")
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse()
    connection.close()
