"""What a verifier answers over HTTP: keys, discovery, introspection for relying parties alone, health and readiness."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest

from support.world import Engines, World
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.http_messages import Request, Response
from weighbridge.verifier.http_service import DISCOVERY, INTROSPECTION, JWKS, HttpService, Identity
from weighbridge.verifier.peers import Peers
from weighbridge.verifier.readiness import Readiness, writable_directory, writable_store
from weighbridge.verifier.relying_parties import BearerToken, RelyingParties, RelyingParty, new_token, token_digest
from weighbridge.verifier.result.issuing import issue_as
from weighbridge.verifier.result.key_store import TokenKeyStore
from weighbridge.verifier.result.serialisation import Serialisation

IDENTITY = Identity(
    issuer="ledger.example/test",
    thumbprint=bytes(32),
    ledger_origin="ledger.example/test",
    ledger_key="vkey",
    version="1",
    url="https://verifier.example",
    grpc="verifier.example:8443",
    services=("a", "b"),
    bearer=None,
    mutual=True,
)


@dataclass
class Site:
    world: World
    service: HttpService
    readiness: Readiness
    bearer: str
    stranger: str

    def ask(
        self, path: str, *, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        pairs = tuple((headers or {}).items())
        request = Request(method=method, path=path, headers=pairs, body=body)
        route = self.service.routes()[path]
        assert method in route.methods

        async def answered() -> Response:
            return await route.handler(request)

        return asyncio.run(answered())

    def introspect(self, token: str, bearer: str | None = None, **more: str) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {bearer or self.bearer}", "content-type": FORM, **more}
        response = self.ask(INTROSPECTION, method="POST", body=f"token={quote(token)}".encode(), headers=headers)
        assert response.headers["cache-control"] == "no-store"
        return {"status": int(response.status), **json.loads(response.body)}


FORM = "application/x-www-form-urlencoded"


def party(world: World, name: str, tenant: str, token: str) -> RelyingParty:
    until = strict.time_encode(world.clock.at + timedelta(days=30))
    listed = BearerToken(token_sha256=token_digest(token).hex(), not_after=until)
    return RelyingParty(name=name, tenants=(tenant,), audiences=("relying-party",), tokens=(listed,))


@pytest.fixture
def site(tmp_path: Path, engines: Engines) -> Generator[Site]:
    world = World.make(tmp_path, engines=engines)
    world.open_session()
    bearer, stranger = new_token(), new_token()
    parties = (party(world, "gate", "tenant-a", bearer), party(world, "other", "tenant-b", stranger))
    readiness = Readiness({"store": writable_store(world.store), "state": writable_directory(world.directory)})
    service = HttpService(
        keys=TokenKeyStore(world.keys),
        standings=world.verifier.standings,
        clock=world.clock,
        peers=Peers(RelyingParties(relying_parties=parties)),
        readiness=readiness,
    )
    yield Site(world, service, readiness, bearer, stranger)
    service.close()
    readiness.close()
    world.close()


def test_a_token_is_active_while_its_session_is_open(site: Site) -> None:
    answer = site.world.window()
    assert answer.token is not None
    told = site.introspect(answer.token)
    assert (told["status"], told["active"], told["sub"]) == (200, True, site.world.host.session.hex())
    assert told["aud"] == "relying-party"
    # Whoever may not read the tenant's sessions learns nothing of them.
    assert site.introspect(answer.token, site.stranger) == {"status": 200, "active": False}
    assert site.introspect(answer.token[:-1]) == {"status": 200, "active": False}
    site.world.verifier.close(site.world.host.session, peer=site.world.host.peer)
    # A token that was good a moment ago and is shown again.
    assert site.introspect(answer.token) == {"status": 200, "active": False}


def test_a_token_in_cbor_stands_in_base64url(site: Site) -> None:
    site.world.window()
    affirmed = site.world.verifier.standings.of(site.world.host.session).affirmed
    assert affirmed is not None
    token = issue_as(Serialisation.EAR_04_CWT, affirmed.affirmation, site.world.keys.signing)
    assert site.introspect(strict.base64url_encode(token))["active"] is True
    assert site.introspect("not/base64") == {"status": 200, "active": False}


def test_nobody_else_may_ask(site: Site) -> None:
    for headers, challenge in (
        ({}, "Bearer"),
        ({"authorization": f"Bearer {new_token()}"}, 'Bearer error="invalid_token"'),
        ({"authorization": f"Basic {site.bearer}"}, 'Bearer error="invalid_token"'),
        ({"authorization": "Bearer "}, 'Bearer error="invalid_token"'),
    ):
        # What is asked is not even looked at.
        response = site.ask(INTROSPECTION, method="POST", body=b"\xff", headers=headers)
        assert response.status is HTTPStatus.UNAUTHORIZED
        assert response.headers["www-authenticate"] == challenge
        assert json.loads(response.body)["error"] == "invalid_client"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"token=a", "application/json"),
        (b"", FORM),
        (b"token=a&token=b", FORM),
        (b"token=a&x=1&x=2", FORM),
        (b"tokn=a", FORM),
        (b"\xff", FORM),
        (b"token", FORM),
        (b"&".join(b"a%d=1" % number for number in range(40)), FORM),
    ],
)
def test_a_form_that_is_none(site: Site, body: bytes, content_type: str) -> None:
    headers = {"authorization": f"Bearer {site.bearer}", "content-type": content_type}
    response = site.ask(INTROSPECTION, method="POST", body=body, headers=headers)
    assert (response.status, json.loads(response.body)["error"]) == (HTTPStatus.BAD_REQUEST, "invalid_request")


def test_keys_are_told_with_a_tag(site: Site) -> None:
    first = site.ask(JWKS)
    keys = json.loads(first.body)["keys"]
    assert [one["crv"] for one in keys] == ["P-256"]
    assert first.headers["content-type"] == "application/jwk-set+json"
    assert "max-age=" in first.headers["cache-control"]
    again = site.ask(JWKS, headers={"if-none-match": first.headers["etag"]})
    assert (again.status, again.body) == (HTTPStatus.NOT_MODIFIED, b"")


def test_discovery_names_everything(site: Site) -> None:
    assert site.ask(DISCOVERY).status is HTTPStatus.SERVICE_UNAVAILABLE
    site.service.identify(IDENTITY)
    document = json.loads(site.ask(DISCOVERY).body)
    assert document["jwks_uri"] == "https://verifier.example/.well-known/jwks.json"
    assert document["introspection_endpoint"] == "https://verifier.example/introspect"
    assert document["introspection_endpoint_auth_methods_supported"] == ["tls_client_auth", "Bearer"]
    assert [one["name"] for one in document["result_serialisations"]] == [one.value for one in Serialisation]


def test_ready_is_more_than_alive(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> tuple[int, Any]:
        monkeypatch.setattr("weighbridge.verifier.readiness._KEPT_S", -1.0)
        response = site.ask("/readyz")
        return int(response.status), json.loads(response.body)["reasons"]

    assert look() == (503, ["starting"])
    site.readiness.begin()
    assert look() == (200, [])
    with _broken(site, "store", Code.STATE_LOCKED):
        assert look() == (503, ["store: STATE_LOCKED"])
    with _broken(site, "state", Code.DISK_FULL):
        assert look() == (503, ["state: DISK_FULL"])
    assert look() == (200, [])
    site.readiness.drain()
    assert look() == (503, ["draining"])
    assert site.ask("/healthz").status is HTTPStatus.OK
    assert not list(site.world.directory.glob(".ready*"))


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        writable_directory(tmp_path / "none")()
    assert caught.value.code is Code.FILE_UNWRITABLE


@contextlib.contextmanager
def _broken(site: Site, name: str, code: Code) -> Generator[None]:
    def fails() -> None:
        raise EnvironmentFault(code, "a test")

    with mock.patch.object(site.readiness, "_checks", {**site.readiness._checks, name: fails}):
        yield
