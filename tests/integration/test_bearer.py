"""Relying parties by bearer token, over TLS without a certificate; the list while it changes; narrower tokens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from support.service import GENEROUS, Authority, Served
from support.world import World
from weighbridge.attester.keys import ensure_keys, load_serving
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, NotAuthentic, WeighbridgeError
from weighbridge.proto.v1 import attestation_pb2, attestation_pb2_grpc
from weighbridge.verifier.parties_watch import PartiesWatch
from weighbridge.verifier.result import Serialisation
from weighbridge.verifier.result_client import Answered, Bearer, Credentials, ResultClient
from weighbridge.verifier.service import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(sys.executable).parent / "weighbridge"
AUDIENCE = "https://gate.example"


def weighbridge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


@dataclass
class Site:
    """A verifier with a port for tokens, and a list with one relying party."""

    world: World
    authority: Authority
    served: Served
    listed: Path
    token: str
    told: list[str]

    @property
    def port(self) -> int:
        assert self.served.listening is not None
        assert self.served.listening.bearer is not None
        return self.served.listening.bearer

    def get(
        self,
        token: str | None = None,
        *,
        certificate: bytes | None = None,
        serialisation: Serialisation = Serialisation.EAR_04,
    ) -> Answered:
        credentials = Bearer(self.authority.certificate, self.token if token is None else token)

        async def ask() -> Answered:
            async with ResultClient(f"localhost:{self.port}", credentials) as client:
                return await client.get(self.world.host.session, certificate=certificate, serialisation=serialisation)

        return self.served.run(ask())

    def refused(
        self,
        token: str | None = None,
        *,
        certificate: bytes | None = None,
        serialisation: Serialisation = Serialisation.EAR_04,
    ) -> WeighbridgeError:
        with pytest.raises(WeighbridgeError) as caught:
            self.get(token, certificate=certificate, serialisation=serialisation)
        return caught.value


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    world = World.make(tmp_path)
    authority = Authority(tmp_path / "authority")
    ensure_keys(tmp_path / "host", names=["localhost"], at=world.clock.now())
    world.host.cnf = load_serving(tmp_path / "host").cnf
    listed = tmp_path / "parties.json"
    made = weighbridge(
        "relying-party", "add", listed, "gate", "--tenant", "tenant-a", "--audience", AUDIENCE, "--new-token",
        tmp_path / "token",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    token = (tmp_path / "token").read_text().strip()
    assert token not in listed.read_text()
    told: list[str] = []
    parties = PartiesWatch(listed, report=told.append)
    options = Options(bounds=GENEROUS, bearer=("127.0.0.1", 0))
    with Served(world, authority, parties=parties, options=options) as served:
        remote = served.join(world.host)
        assert remote.window(world.host)["outcome"] == "affirmed"
        yield Site(world, authority, served, listed, token, told)
    world.close()


def until_told(site: Site, text: str) -> None:
    for _ in range(150):
        if any(text in line for line in site.told):
            return
        site.served.run(asyncio.sleep(0.02))
    pytest.fail(f"{text!r} was not told: {site.told}")


def test_a_token_is_enough_and_another_one_is_nothing(site: Site) -> None:
    answered = site.get()
    assert answered.told.is_open
    assert answered.token is not None
    other = site.token[:-1] + ("A" if site.token[-1] != "A" else "B")
    for wrong in (other, "", "wbrp_", site.token + "A", "x" * 200):
        assert site.refused(wrong).code is Code.RELYING_PARTY_UNKNOWN
    # Whoever says nothing.
    credentials = Credentials(site.authority.certificate, *_pair(site.authority, "anybody"))

    async def nothing() -> None:
        async with ResultClient(f"localhost:{site.port}", credentials) as client:
            await client.get(site.world.host.session)

    with pytest.raises(NotAuthentic) as caught:
        site.served.run(nothing())
    assert caught.value.code is Code.WINDOW_PEER


def _pair(authority: Authority, name: str) -> tuple[bytes, bytes]:
    channel = authority.admit(name)
    return channel.key, channel.certificate


def test_nobody_attests_where_no_certificate_is_asked_for(site: Site) -> None:
    """Not even with a token, nor with a certificate that would do elsewhere: it is not asked for."""
    key, certificate = _pair(site.authority, "attester")

    async def attest(*, own: bool) -> grpc.StatusCode:
        credentials = grpc.ssl_channel_credentials(
            site.authority.certificate, key if own else None, certificate if own else None
        )
        async with grpc.aio.secure_channel(f"localhost:{site.port}", credentials) as channel:
            call = attestation_pb2_grpc.AttestationServiceStub(channel).Attest(
                metadata=(("authorization", f"Bearer {site.token}"),)
            )
            # It may be refused before there is anything to read.
            with suppress(grpc.aio.AioRpcError):
                await call.write(attestation_pb2.AttestRequest(window=b"x"))
            return await call.code()

    for own in (False, True):
        assert site.served.run(attest(own=own)) is grpc.StatusCode.UNIMPLEMENTED


def test_a_token_counts_beside_a_certificate(site: Site) -> None:
    """On the attesters' port, too; unless the certificate is another relying party's."""
    key, certificate = _pair(site.authority, "another")
    pem = site.listed.parent / "another.pem"
    pem.write_bytes(certificate)

    async def ask() -> Answered:
        client = ResultClient(
            f"localhost:{site.served.port}", Credentials(site.authority.certificate, key, certificate)
        )
        client._metadata = (("authorization", f"Bearer {site.token}"),)
        async with client:
            return await client.get(site.world.host.session)

    assert site.served.run(ask()).told.is_open
    added = weighbridge(
        "relying-party", "add", site.listed, "another", "--tenant", "b", "--audience", "b", "--certificate", pem
    )
    assert added.returncode == 0, added.stderr
    until_told(site, "2 listed")
    with pytest.raises(NotAuthentic) as caught:
        site.served.run(ask())
    assert caught.value.code is Code.RELYING_PARTY_UNKNOWN


def test_the_list_changes_while_it_is_in_force(site: Site) -> None:
    """A bad one changes nothing and says so; who is not listed any more is refused, and not told on."""
    good = site.listed.read_bytes()
    site.listed.write_bytes(good[:-10])
    until_told(site, "the relying parties in force stay")
    assert site.get().told.is_open

    async def watch() -> list[Answered | None]:
        async with ResultClient(f"localhost:{site.port}", Bearer(site.authority.certificate, site.token)) as client:
            heard = []
            async for answered in client.watch([site.world.host.session]):
                heard.append(answered)
                if len(heard) == 1:
                    document = json.loads(good)
                    document["relying_parties"] = []
                    site.listed.write_text(json.dumps(document))
            return heard

    began = time.monotonic()
    with pytest.raises(NotAuthentic) as caught:
        site.served.run(watch())
    assert caught.value.code is Code.RELYING_PARTY_UNKNOWN
    assert time.monotonic() - began < 5
    assert site.refused().code is Code.RELYING_PARTY_UNKNOWN
    site.listed.write_bytes(good)
    until_told(site, "1 listed")
    assert site.get().told.is_open


def test_a_token_ends(site: Site) -> None:
    document = json.loads(site.listed.read_bytes())
    document["relying_parties"][0]["tokens"][0]["not_after"] = "2020-01-01T00:00:00Z"
    site.listed.write_text(json.dumps(document))
    until_told(site, "1 listed")
    error = site.refused()
    assert (error.code, "was good until 2020" in error.message) == (Code.RELYING_PARTY_UNKNOWN, True)
    # A new one is given beside it; the old one goes.
    new = site.listed.with_name("new")
    assert weighbridge("relying-party", "token", site.listed, "gate", "-o", new).returncode == 0
    assert len(json.loads(site.listed.read_bytes())["relying_parties"][0]["tokens"]) == 1
    site.told.clear()
    until_told(site, "1 listed")
    assert site.get(new.read_text().strip()).told.is_open


def test_a_certificate_narrows_the_token(site: Site) -> None:
    """RFC 8705 and RFC 9449; only if it is of the attested key."""
    pem = load_serving(site.listed.parent / "host").certificate_file.read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    answered = site.get(certificate=der)
    assert answered.token is not None
    claims = jwt.decode(answered.token.decode(), options={"verify_signature": False})
    assert set(claims["cnf"]) == {"kid", "jkt", "x5t#S256"}
    assert strict.base64url_decode(claims["cnf"]["x5t#S256"], what="x5t#S256") == sha256(der)
    plain = site.get().token
    assert plain is not None
    assert set(jwt.decode(plain.decode(), options={"verify_signature": False})["cnf"]) == {"kid"}
    other = x509.load_pem_x509_certificate(_pair(site.authority, "other")[1]).public_bytes(Encoding.DER)
    assert site.refused(certificate=other).code is Code.UPSTREAM_KEY
    assert site.refused(certificate=b"junk").code is Code.CERT_MALFORMED
    assert site.refused(certificate=der, serialisation=Serialisation.EAR_04_CWT).code is Code.FIELD_RANGE


def test_the_commands(site: Site) -> None:
    token, ca = site.listed.with_name("token"), site.authority.tls.client_ca
    serving = load_serving(site.listed.parent / "host").certificate_file
    # Like the server, in the test's event loop.
    asked = site.served.run(
        asyncio.to_thread(
            weighbridge, "result", site.world.host.session.hex(), "--verifier", f"localhost:{site.port}",
            "--verifier-ca", ca, "--token-file", token, "--serving-certificate", serving, "--json",
        )
    )  # fmt: skip
    # The world's clock is another one: it is open there.
    assert (asked.returncode, json.loads(asked.stdout)["state"]) == (0, "open"), asked.stderr
    lists = weighbridge("relying-party", "list", site.listed)
    assert lists.stdout.startswith("gate\n  tenants    tenant-a\n")
    for arguments in (
        ("add", site.listed, "gate", "--tenant", "a", "--audience", "a", "--key", "00" * 32),
        ("add", site.listed, "new", "--tenant", "a", "--audience", "a"),
        ("token", site.listed, "nobody", "-o", site.listed.with_name("x")),
        ("remove", site.listed, "nobody"),
    ):
        refused = weighbridge("relying-party", *arguments)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        # Not the validating library's word for an error of ours.
        assert "Value error" not in refused.stderr
    assert weighbridge("relying-party", "token", site.listed, "gate", "-o", token).returncode == 8
    assert weighbridge("relying-party", "remove", site.listed, "gate").returncode == 0
    assert json.loads(site.listed.read_bytes())["relying_parties"] == []
