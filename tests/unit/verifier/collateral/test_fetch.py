"""Getting what is wanted: from a server on this machine that behaves, and from ones that do not."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fakes import forged_snp, forged_tdx
from fakes.nras import Answer, EmulatedNras
from fakes.ocsp_responder import AT, DAY, Order, RevocableVendor, refusal, respond, revocation_list
from fakes.publisher import Page, Publisher, publishing, site_of
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.collateral import CollateralStore
from weighbridge.verifier.collateral.fetch import fetch
from weighbridge.verifier.collateral.https import HttpsFetcher
from weighbridge.verifier.collateral.wanted import HOSTS, wanted_for, wanted_for_manifests
from weighbridge.verifier.pki import create_authority, issue_server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weighbridge.verifier.collateral.fetch import Fetched
    from weighbridge.verifier.collateral.wanted import Wanted

VENDOR = RevocableVendor.create()
DEVICE = EmulatedH100.make(VENDOR.vendor)
EVIDENCE = DEVICE.attest(bytes(range(32)))
WANTED = wanted_for(EVIDENCE.report, anchors=VENDOR.anchors, at=AT, chain=EVIDENCE.chain)
RIMS = VENDOR.vendor.rims(DEVICE.firmware)
CHAIN = [x509.load_der_x509_certificate(der) for der in EVIDENCE.chain[1:]]
URL = "https://ocsp.ndis.nvidia.com/"


def path_of(wanted: Wanted, number: int = 0) -> str:
    return "/" + wanted.urls[number].removeprefix("https://")


def published(order: Order | None = None) -> Publisher:
    """All that the vendor publishes."""
    names = [each.about for each in WANTED if each.kind == "rim"]
    return site_of(VENDOR, EVIDENCE.chain, dict(zip(names, RIMS, strict=True)), order)


@pytest.fixture
def store(tmp_path: Path) -> CollateralStore:
    return CollateralStore.create(tmp_path / "store")


@pytest.fixture
def maker() -> Iterator[Publisher]:
    with publishing(published()) as serving:
        yield serving


def outcomes(found: tuple[Fetched, ...]) -> list[str]:
    return [each.outcome for each in found]


def test_all_that_is_wanted(store: CollateralStore, maker: Publisher) -> None:
    fetcher = HttpsFetcher(mirror=maker.url)
    found = fetch(WANTED, store, fetcher, at=AT)
    assert outcomes(found) == ["new"] * len(WANTED)
    signers = wanted_for_manifests(store.pieces())
    assert outcomes(fetch(signers, store, fetcher, at=AT)) == ["new"] * len(signers)
    assert len(store.pieces()) == len(WANTED) + len(signers)
    # Again: manifests alone are asked for.
    maker.asked.clear()
    assert outcomes(fetch(WANTED, store, fetcher, at=AT)) == ["same"] * 2 + ["held"] * (len(WANTED) - 2)
    assert sorted(maker.asked) == sorted(path_of(each) for each in WANTED if each.kind == "rim")
    # And when more than a quarter of its life is over, a response too.
    later = fetch(WANTED, store, fetcher, at=AT + timedelta(hours=6))
    assert outcomes(later).count("held") == 2


def test_a_limit(store: CollateralStore, maker: Publisher) -> None:
    found = fetch(WANTED, store, HttpsFetcher(mirror=maker.url), at=AT, limit=3)
    assert outcomes(found) == ["new"] * 3 + ["left"] * (len(WANTED) - 3)
    assert len(maker.asked) == 3


def test_one_that_fails_keeps_the_others(store: CollateralStore, maker: Publisher) -> None:
    del maker.pages[path_of(WANTED[0])]
    found = fetch(WANTED, store, HttpsFetcher(mirror=maker.url), at=AT)
    assert outcomes(found) == ["failed"] + ["new"] * (len(WANTED) - 1)
    error = found[0].error
    assert error is not None
    assert (error.code, error.got) == (Code.COLLATERAL_FETCH, "404 Not Found")


def one(kind: str) -> Wanted:
    return next(each for each in WANTED if each.kind == kind)


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        # The VBIOS's in place of the driver's, and something else altogether.
        ("rim", RIMS[1], Code.COLLATERAL_INVALID),
        ("rim", revocation_list(VENDOR.root), Code.COLLATERAL_INVALID),
        ("rim", b"<html>log in first</html>", Code.RIM_MALFORMED),
        ("crl", revocation_list(VENDOR.provisioner), Code.COLLATERAL_INVALID),
        ("crl", b"", Code.COLLATERAL_INVALID),
    ],
)
def test_an_answer_about_something_else(
    store: CollateralStore, maker: Publisher, kind: str, body: bytes, code: Code
) -> None:
    wish = one(kind)
    maker.pages[path_of(wish)] = Page(body)
    (found,) = fetch([wish], store, HttpsFetcher(mirror=maker.url), at=AT)
    assert found.error is not None
    assert (found.outcome, found.error.code) == ("failed", code)
    assert store.pieces() == ()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (
            respond(CHAIN[0], VENDOR.provisioner, Order(signing_key=ec.generate_private_key(ec.SECP384R1()))),
            "NotAuthentic",
        ),
        (respond(CHAIN[1], VENDOR.identity), "MalformedEvidence"),
        (refusal(), "MalformedEvidence"),
        (b"", "MalformedEvidence"),
    ],
)
def test_a_response_by_a_stranger_is_not_kept(
    store: CollateralStore, maker: Publisher, answer: bytes, code: str
) -> None:
    maker.respond = lambda _: answer
    (found,) = fetch([one("ocsp")], store, HttpsFetcher(mirror=maker.url), at=AT)
    assert type(found.error).__name__ == code
    assert store.pieces() == ()


def test_a_revocation_is_kept_and_not_asked_about_again(store: CollateralStore, maker: Publisher) -> None:
    maker.respond = published(Order(status="revoked", next_update=None)).respond
    assert outcomes(fetch([one("ocsp")], store, HttpsFetcher(mirror=maker.url), at=AT)) == ["new"]
    assert outcomes(fetch([one("ocsp")], store, HttpsFetcher(mirror=maker.url), at=AT + 9 * DAY)) == ["held"]


# -- other makers ------------------------------------------------------------------------------------------------------


def test_amds_chain(store: CollateralStore, maker: Publisher) -> None:
    genoa = forged_snp.ForgedSnp.create("Genoa")
    wanted = [each for each in wanted_for(genoa.report(), anchors=genoa.anchors(), at=AT) if "Genoa" in each.urls[0]]
    pem = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in genoa.certificates[1:])
    for wish, body in zip(wanted, (genoa.certificates[0], pem, genoa.crl()), strict=True):
        maker.pages[path_of(wish)] = Page(body)
    found = fetch(wanted, store, HttpsFetcher(mirror=maker.url), at=AT)
    assert outcomes(found) == ["new"] * 3
    assert len(store.pieces()) == 4


def intel(maker: Publisher, tdx: forged_tdx.ForgedTdx, **changes: Page) -> Wanted:
    """Publish as Intel's service does, four answers with certificates in their headers; the wish for them."""
    (wish,) = wanted_for(tdx.quote(bytes(64)), anchors=VENDOR.anchors, at=AT)
    whole = json.loads(tdx.collateral())
    chain = {name: quote(whole[f"{name}_issuer_chain"], safe="") for name in ("tcb_info", "qe_identity", "pck_crl")}
    info = f'{{"tcbInfo":{whole["tcb_info"]},"signature":"{whole["tcb_info_signature"]}"}}'
    identity = f'{{"enclaveIdentity":{whole["qe_identity"]},"signature":"{whole["qe_identity_signature"]}"}}'
    pages = {
        "info": Page(info.encode(), headers={"TCB-Info-Issuer-Chain": chain["tcb_info"]}),
        "identity": Page(identity.encode(), headers={"SGX-Enclave-Identity-Issuer-Chain": chain["qe_identity"]}),
        "pck": Page(bytes.fromhex(whole["pck_crl"]), headers={"SGX-PCK-CRL-Issuer-Chain": chain["pck_crl"]}),
        "root": Page(bytes.fromhex(whole["root_ca_crl"])),
    }
    for number, page in enumerate((pages | changes).values()):
        maker.pages[path_of(wish, number)] = page
    return wish


def test_intels_answers_make_one_piece(store: CollateralStore, maker: Publisher) -> None:
    """Byte for byte what was signed: the document is the one that the maker would have written in one."""
    tdx = forged_tdx.ForgedTdx.create()
    wish = intel(maker, tdx)
    (found,) = fetch([wish], store, HttpsFetcher(mirror=maker.url), at=AT)
    assert found.outcome == "new"
    made, whole = json.loads(store.pieces()[0].item.data), json.loads(tdx.collateral())
    documents = "tcb_info", "qe_identity", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "pck_crl_issuer_chain"
    assert {name: made[name] for name in documents if "crl" not in name} == {
        name: whole[name] for name in documents if "crl" not in name
    }
    assert made.keys() == whole.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"info": Page(b"{}")},
        {"identity": Page(b'{"enclaveIdentity":{},"signature":"00"}')},
        {"pck": Page(b"")},
        {"root": Page(b"<html/>")},
    ],
)
def test_what_is_not_intels(store: CollateralStore, maker: Publisher, changes: dict[str, Page]) -> None:
    wish = intel(maker, forged_tdx.ForgedTdx.create(), **changes)
    (found,) = fetch([wish], store, HttpsFetcher(mirror=maker.url), at=AT)
    assert found.outcome == "failed"
    assert store.pieces() == ()


def test_the_services_keys(store: CollateralStore, maker: Publisher) -> None:
    service = EmulatedNras()
    (wish,) = wanted_for(service.answer(Answer(nonce=bytes(32))), anchors=VENDOR.anchors, at=AT)
    maker.pages[path_of(wish)] = Page(service.jwks())
    assert outcomes(fetch([wish], store, HttpsFetcher(mirror=maker.url), at=AT)) == ["new"]


# -- servers -----------------------------------------------------------------------------------------------------------


def failure(maker: Publisher, page: Page, *, seconds: float = 5, limit: int = 1000) -> EnvironmentFault:
    maker.pages["/ocsp.ndis.nvidia.com/"] = page
    with pytest.raises(EnvironmentFault) as caught:
        HttpsFetcher(mirror=maker.url, seconds=seconds).fetch(URL, body=None, limit=limit)
    assert caught.value.code is Code.COLLATERAL_FETCH
    assert caught.value.where == URL
    return caught.value


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (Page(b"", status=500), "otherwise than with 200"),
        (Page(b"", status=302, headers={"Location": "http://127.0.0.1/elsewhere"}), "otherwise than with 200"),
        (Page(b"", status=204), "otherwise than with 200"),
        (Page(b"1" * 1001), "too large"),
        (Page(b"1" * 1001, length=False), "too large"),
        (Page(b"1" * 100, short=1), "cut off"),
        (Page(b"1" * 100, headers={"Content-Encoding": "gzip"}), "compressed"),
        (Page(b"", headers={"X": "1" * 70_000}), "no answer"),
    ],
)
def test_servers_that_misbehave(maker: Publisher, page: Page, message: str) -> None:
    assert message in failure(maker, page).message


@pytest.mark.parametrize("length", [True, False])
def test_a_server_that_takes_for_ever(maker: Publisher, *, length: bool) -> None:
    """A byte now and then keeps every single wait short."""
    begin = time.monotonic()
    error = failure(maker, Page(b"1" * 900, drip=0.05, length=length), seconds=0.3)
    assert time.monotonic() - begin < 5
    assert "within 0.3 s" in error.message or "cut off" in error.message


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        maker = Publisher(port=silent.getsockname()[1])
        assert "no answer" in failure(maker, Page(b""), seconds=0.2).message


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        maker = Publisher(port=closed.getsockname()[1])
    assert "no answer" in failure(maker, Page(b"")).message


def test_headers_come_in_lower_case(maker: Publisher) -> None:
    maker.pages["/ocsp.ndis.nvidia.com/a"] = Page(b"body", headers={"X-Some-Header": "Value"})
    answer = HttpsFetcher(mirror=f"{maker.url}/").fetch(f"{URL}a", body=None, limit=4)
    assert (answer.body, answer.headers["x-some-header"]) == (b"body", "Value")


@pytest.mark.parametrize(
    "url", ["http://ocsp.ndis.nvidia.com/", "https://example.com/", "https://ocsp.ndis.nvidia.com:1/", "file:///etc"]
)
def test_nobody_else_is_asked(maker: Publisher, url: str) -> None:
    with pytest.raises(ValueError, match="not an address of a maker"):
        HttpsFetcher(mirror=maker.url).fetch(url, body=None, limit=1)
    assert maker.asked == []


@pytest.mark.parametrize(
    "mirror",
    [
        "http://mirror.example",
        "http://127.0.0.1.example/",
        "ftp://127.0.0.1/",
        "https://user@mirror.example/",
        "https://mirror.example/?q",
        "https://mirror.example/#f",
        "https://mirror.example:port/",
        "https:///",
        "mirror.example",
        "",
    ],
)
def test_mirrors_that_are_none(mirror: str) -> None:
    with pytest.raises(ValueError, match="address"):
        HttpsFetcher(mirror=mirror)


def test_authorities_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"junk")
    for name, message in (("ca.pem", "not certificates in PEM"), ("absent.pem", "no such file or directory")):
        with pytest.raises(EnvironmentFault) as caught:
            HttpsFetcher(authorities=tmp_path / name)
        assert (caught.value.code, caught.value.message) == (Code.FILE_UNREADABLE, message)


def test_a_mirror_by_https_and_a_proxy(tmp_path: Path, maker: Publisher) -> None:
    """The server must lead to the given authority; a proxy sees where to, and no more."""
    now = datetime.now(UTC)
    create_authority(tmp_path, name="mirror.example", at=now)
    issue_server(tmp_path, hosts=("localhost",), at=now)
    maker.pages["/ocsp.ndis.nvidia.com/"] = Page(b"answer")
    with _tls_front(tmp_path, maker.port) as port:
        mirror = f"https://localhost:{port}"
        trusted = HttpsFetcher(mirror=mirror, authorities=tmp_path / "ca.pem")
        assert trusted.fetch(URL, body=None, limit=100).body == b"answer"
        with pytest.raises(EnvironmentFault, match="certificate verify failed"):
            HttpsFetcher(mirror=mirror).fetch(URL, body=None, limit=100)
        asked: list[bytes] = []
        with _proxy(asked, port) as proxy:
            through = HttpsFetcher(mirror=mirror, authorities=tmp_path / "ca.pem", proxy=("127.0.0.1", proxy))
            assert through.fetch(URL, body=None, limit=100).body == b"answer"
        assert asked[0].startswith(f"CONNECT localhost:{port} HTTP/1.".encode())


def test_every_host_is_somebodys() -> None:
    assert all(host.endswith((".nvidia.com", ".amd.com", ".intel.com")) for host in HOSTS)


@contextmanager
def _relay(accept: Callable[[socket.socket], tuple[socket.socket, socket.socket]]) -> Generator[int]:
    """A port on which one connection after another is passed on, in both directions, as ``accept`` says."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            with near:
                try:
                    inner, far = accept(near)
                except OSError:
                    continue
                with inner, far:
                    back = threading.Thread(target=_pass_on, args=(far, inner))
                    back.start()
                    _pass_on(inner, far)
                    back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        # Closing alone does not wake whoever waits in accept.
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def _tls_front(directory: Path, port: int) -> AbstractContextManager[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "server.pem", directory / "server-key.pem")

    def accept(near: socket.socket) -> tuple[socket.socket, socket.socket]:
        return context.wrap_socket(near, server_side=True), socket.create_connection(("127.0.0.1", port))

    return _relay(accept)


def _proxy(asked: list[bytes], port: int) -> AbstractContextManager[int]:
    def accept(near: socket.socket) -> tuple[socket.socket, socket.socket]:
        request = b""
        while b"\r\n\r\n" not in request:
            request += near.recv(4096)
        asked.append(request)
        near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        return near, socket.create_connection(("127.0.0.1", port))

    return _relay(accept)
