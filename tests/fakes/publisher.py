"""A server on this machine that publishes as makers do, and one that misbehaves.

Paths are as :class:`~weighbridge.verifier.collateral.https.HttpsFetcher` asks a mirror: ``/<host>/<path>?<query>``.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.x509 import ocsp

from fakes.ocsp_responder import Order, RevocableVendor, refusal, respond, revocation_list
from weighbridge.verifier.gpu.rim import dsig

Respond = Callable[[ocsp.OCSPRequest], bytes]


@dataclass
class Page:
    """What a path answers."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    # Bytes left out at the end, and seconds between bytes.
    short: int = 0
    drip: float = 0
    length: bool = True


@dataclass
class Publisher:
    """What is published, by path; and who asked for what."""

    pages: dict[str, Page] = field(default_factory=dict)
    respond: Respond | None = None
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """To be passed as the mirror."""
        return f"http://127.0.0.1:{self.port}"

    def page_for(self, path: str, posted: bytes | None) -> Page:
        """The answer to a request."""
        self.asked.append(path)
        if posted is not None and self.respond is not None:
            return Page(self.respond(ocsp.load_der_ocsp_request(posted)))
        return self.pages.get(path, Page(b"nothing here", status=404))


def answer_for(
    vendor: RevocableVendor, certificates: Sequence[x509.Certificate], request: ocsp.OCSPRequest, order: Order | None
) -> bytes:
    """What the vendor's responder says of one of these certificates; it refuses to speak of others."""
    issuers = {issuer.certificate.subject: issuer for issuer in (*vendor.issuers, *vendor.values)}
    for certificate in certificates:
        if certificate.serial_number == request.serial_number:
            return respond(certificate, issuers[certificate.issuer], order)
    return refusal()


def site_of(
    vendor: RevocableVendor, chain: Sequence[bytes], rims: Mapping[str, bytes], order: Order | None = None
) -> Publisher:
    """All that a vendor publishes: manifests by the service's id, OCSP answers as ordered, lists."""
    signers = [der for rim in rims.values() for der in dsig.parse(rim).certificates]
    certificates = [x509.load_der_x509_certificate(der) for der in (*chain, *signers)]
    publisher = Publisher(respond=lambda request: answer_for(vendor, certificates, request, order))
    for name, rim in rims.items():
        answer = {"id": name, "rim": base64.b64encode(rim).decode(), "rim_format": "TCG"}
        publisher.pages[f"/rim.attestation.nvidia.com/v1/rim/{name}"] = Page(json.dumps(answer).encode())
    for place, (_, middle, root) in {"crl": vendor.issuers, "crl-corim": vendor.values}.items():
        for level, issuer in (("l1", root), ("l2", middle)):
            publisher.pages[f"/crl.ndis.nvidia.com/{place}/{level}"] = Page(revocation_list(issuer))
    return publisher


@contextmanager
def publishing(publisher: Publisher) -> Generator[Publisher]:
    """``publisher``, serving on a port of its own until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, posted: bytes | None) -> None:
            page = publisher.page_for(self.path, posted)
            self.send_response(page.status)
            for name, value in page.headers.items():
                self.send_header(name, value)
            if page.length:
                self.send_header("Content-Length", str(len(page.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            body = page.body[: len(page.body) - page.short]
            try:
                if not page.drip:
                    self.wfile.write(body)
                    return
                for octet in body:
                    self.wfile.write(bytes([octet]))
                    time.sleep(page.drip)
            except OSError:
                # The other side has hung up, as it should.
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    publisher.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
