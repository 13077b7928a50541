"""TLS towards one key: a context for Python's clients that takes no server but the one with the attested key.

Python's TLS can verify chains and names, and has no hook for a key. So the key is compared at the end of the handshake,
before a byte is sent: the handshake has proven that the server holds it. No authority is asked, and no name or date
compared: the key is the identity (as in Envoy's ``verify_certificate_spki``).

Works wherever the library takes an ``ssl.SSLContext`` and makes its connections through it: ``asyncio``,
``http.client``, ``urllib``, ``httpx``, ``aiohttp``. Not for clients with a TLS of their own (gRPC).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from cryptography import x509

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.x509 import spki_der

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PinMismatch", "pinned_context"]


class PinMismatch(ssl.SSLCertVerificationError):
    """The server's key is not the pinned one: ``UPSTREAM_KEY``. An ``SSLError``, as clients expect of a handshake."""


def pinned_context(cnf: bytes) -> ssl.SSLContext:
    """A client's context, TLS 1.2 or later, for the server whose key has this SHA-256 of its SubjectPublicKeyInfo.

    Args:
        cnf: 32 bytes; of a token that was verified, or of the gate's file.

    Raises:
        ValueError: ``cnf`` is no digest.
    """
    if len(cnf) != limits.DIGEST_SIZE:
        raise ValueError("cnf is a SHA-256 digest")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    class PinnedSocket(ssl.SSLSocket):
        """For blocking clients."""

        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
            super().do_handshake(block)
            _check(self.getpeercert, cnf)

    class PinnedObject(ssl.SSLObject):
        """For asyncio and others that bring their own transport."""

        def do_handshake(self) -> None:
            super().do_handshake()
            _check(self.getpeercert, cnf)

    context.sslsocket_class = PinnedSocket
    context.sslobject_class = PinnedObject
    return context


def _check(certificate: Callable[[bool], object], cnf: bytes) -> None:
    der = certificate(True)  # noqa: FBT003 - the binary form
    if not isinstance(der, bytes):
        raise PinMismatch("UPSTREAM_KEY: the server has shown no certificate")
    try:
        got = sha256(spki_der(x509.load_der_x509_certificate(der)))
    except ValueError as error:
        raise PinMismatch("UPSTREAM_KEY: the server's certificate cannot be read") from error
    if got != cnf:
        raise PinMismatch(f"UPSTREAM_KEY: the server's key is {got.hex()}, expected {cnf.hex()}")
