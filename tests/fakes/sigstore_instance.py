"""A Sigstore instance in a few functions: authority, certificate log, transparency log. All of them sign for real.

What it makes is judged by the `sigstore` library alone. :func:`serve` answers a client on a loopback port as Fulcio and
Rekor v1 do, so that the reference implementation can sign without the network.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from fakes.model_signers import NOW, Holder, certify
from weighbridge.proto import strict
from weighbridge.proto.model_signing.bundle import PAYLOAD_TYPE, pae

IDENTITY, ISSUER = "owner@models.example", "https://accounts.example"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_OIDC_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_START = "2020-01-01T00:00:00Z"
_ORIGIN = "rekor.example - 1"
_ASN1_OCTET_STRING = 4
_ASN1_SHORT = 128


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _authority() -> Holder:
    return certify("sigstore", ca=True, begin=datetime(2020, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC))


def spki(key: Any) -> bytes:  # noqa: ANN401 - any kind of public key
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Instance:
    """The keys of all services. ``at`` is their clock."""

    authority: Holder = field(default_factory=_authority)
    ct: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    at: Callable[[], datetime] = lambda: NOW

    def trusted_root(self) -> dict[str, Any]:
        """The document in which a relying party keeps these keys."""
        der = self.authority.certificate.public_bytes(Encoding.DER)
        authority = {
            "subject": {"organization": "example", "commonName": "sigstore"},
            "certChain": {"certificates": [{"rawBytes": b64(der)}]},
            "validFor": {"start": _START},
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_described(self.log)],
            "certificateAuthorities": [authority],
            "ctlogs": [_described(self.ct)],
        }

    def certify(
        self, key: ec.EllipticCurvePublicKey, *, identity: str = IDENTITY, issuer: str = ISSUER, logged: bool = True
    ) -> x509.Certificate:
        """A certificate of ten minutes, with the certificate log's promise in it."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.authority.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.at() - timedelta(minutes=1))
            .not_valid_after(self.at() + timedelta(minutes=9))
            .add_extension(_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(self.authority.key)), critical=False
            )
            .add_extension(x509.UnrecognizedExtension(_OIDC_ISSUER, issuer.encode()), critical=False)
        )
        signer = self.authority.key
        if logged:
            before = builder.sign(signer, hashes.SHA256()).tbs_certificate_bytes
            builder = builder.add_extension(
                x509.UnrecognizedExtension(_SCT_LIST, self._promise(before)), critical=False
            )
        return builder.sign(signer, hashes.SHA256())

    def _promise(self, before: bytes) -> bytes:
        """A list of one signed certificate timestamp (RFC 6962 §3.2, §3.3) in an octet string."""
        milliseconds = int(self.at().timestamp()) * 1000
        issuer = hashlib.sha256(spki(self.authority.key.public_key())).digest()
        entry = issuer + len(before).to_bytes(3) + before
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + b"\0\0"
        signature = self.ct.sign(signed, ec.ECDSA(hashes.SHA256()))
        log = hashlib.sha256(spki(self.ct.public_key())).digest()
        timestamp = b"\0" + log + milliseconds.to_bytes(8) + b"\0\0" + b"\4\3" + len(signature).to_bytes(2) + signature
        listed = len(timestamp).to_bytes(2) + timestamp
        listed = len(listed).to_bytes(2) + listed
        length = bytes([len(listed)]) if len(listed) < _ASN1_SHORT else bytes([0x81, len(listed)])
        return bytes([_ASN1_OCTET_STRING]) + length + listed

    def record(self, envelope: dict[str, Any], certificate: x509.Certificate) -> dict[str, Any]:
        """The log's entry about an envelope, the second of two, with promise and proof."""
        payload = base64.b64decode(envelope["payload"])
        signature = {
            "signature": envelope["signatures"][0]["sig"],
            "verifier": b64(certificate.public_bytes(Encoding.PEM)),
        }
        body = strict.json_encode(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": _hex(strict.json_encode(envelope))},
                    "payloadHash": {"algorithm": "sha256", "value": _hex(payload)},
                    "signatures": [signature],
                },
            }
        )
        log = hashlib.sha256(spki(self.log.public_key())).digest()
        seconds = int(self.at().timestamp())
        promised = {"body": b64(body), "integratedTime": seconds, "logID": log.hex(), "logIndex": 1}
        first, own = hashlib.sha256(b"\0first").digest(), hashlib.sha256(b"\0" + body).digest()
        root = hashlib.sha256(b"\1" + first + own).digest()
        note = f"{_ORIGIN}\n2\n{b64(root)}\n"
        checkpoint = f"{note}\n\u2014 rekor.example {b64(log[:4] + self._sign(note.encode()))}\n"
        return {
            "logIndex": "1",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(seconds),
            "inclusionPromise": {"signedEntryTimestamp": b64(self._sign(strict.json_encode(promised)))},
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": b64(root),
                "treeSize": "2",
                "hashes": [b64(first)],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": b64(body),
        }

    def _sign(self, data: bytes) -> bytes:
        return self.log.sign(data, ec.ECDSA(hashes.SHA256()))

    def bundle(
        self, payload: bytes, *, identity: str = IDENTITY, issuer: str = ISSUER, logged: bool = True
    ) -> dict[str, Any]:
        """What a client of these services makes of ``payload``."""
        key = _key()
        certificate = self.certify(key.public_key(), identity=identity, issuer=issuer, logged=logged)
        signature = key.sign(pae(payload), ec.ECDSA(hashes.SHA256()))
        envelope = {
            "payload": b64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64(signature)}],
        }
        return {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))},
                "tlogEntries": [self.record(envelope, certificate)],
            },
            "dsseEnvelope": envelope,
        }


_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def token(identity: str = IDENTITY, issuer: str = ISSUER) -> str:
    """What an identity provider would give out; no client looks at its signature."""
    now = int(datetime.now(UTC).timestamp())
    claims = {"iss": issuer, "sub": identity, "aud": "sigstore", "iat": now, "nbf": now - 60, "exp": now + 600}
    parts = (strict.json_encode({"alg": "ES256", "typ": "JWT"}), strict.json_encode(claims), b"signature")
    return ".".join(strict.base64url_encode(part) for part in parts)


def trust_config(instance: Instance, url: str) -> dict[str, Any]:
    """What a client of the instance at ``url`` is configured with."""
    service = {"url": url, "majorApiVersion": 1, "validFor": {"start": _START}, "operator": "example"}
    return {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": instance.trusted_root(),
        "signingConfig": {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service],
            "oidcUrls": [service],
            "rekorTlogUrls": [service],
            "rekorTlogConfig": {"selector": "ANY"},
        },
    }


@contextlib.contextmanager
def serve(instance: Instance) -> Generator[str]:
    """Answer on a loopback port, as Fulcio, Rekor v1 and an identity provider; the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"authorization_endpoint": "http://none.invalid", "token_endpoint": "http://none.invalid"})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/v2/signingCert":
                self._answer(_certified(instance, request, self.headers["Authorization"]))
            else:
                self._answer(_recorded(instance, request))

        def _answer(self, document: object) -> None:
            data = json.dumps(document).encode()
            self.send_response(201 if self.command == "POST" else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's names
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def _certified(instance: Instance, request: dict[str, Any], authorization: str) -> dict[str, Any]:
    """Fulcio's answer to a certificate request by the holder of a token."""
    claims = json.loads(strict.base64url_decode(authorization.split(".")[1], what="claims"))
    csr = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    own = instance.certify(key, identity=claims["sub"], issuer=claims["iss"])
    chain = [own.public_bytes(Encoding.PEM).decode(), instance.authority.pem.decode()]
    return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}


def _recorded(instance: Instance, request: dict[str, Any]) -> dict[str, Any]:
    """Rekor's answer to an envelope and the certificate of its signer."""
    proposed = request["spec"]["proposedContent"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(proposed["verifiers"][0]))
    entry = instance.record(json.loads(proposed["envelope"]), certificate)
    proof = entry["inclusionProof"]
    return {
        "uuid": {
            "body": entry["canonicalizedBody"],
            "integratedTime": int(entry["integratedTime"]),
            "logID": base64.b64decode(entry["logId"]["keyId"]).hex(),
            "logIndex": int(entry["logIndex"]),
            "verification": {
                "inclusionProof": {
                    "logIndex": int(proof["logIndex"]),
                    "rootHash": base64.b64decode(proof["rootHash"]).hex(),
                    "treeSize": int(proof["treeSize"]),
                    "hashes": [base64.b64decode(each).hex() for each in proof["hashes"]],
                    "checkpoint": proof["checkpoint"]["envelope"],
                },
                "signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
            },
        }
    }


def _described(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    encoded = spki(key.public_key())
    return {
        "baseUrl": "http://log.invalid",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": b64(encoded),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": _START},
        },
        "logId": {"keyId": b64(hashlib.sha256(encoded).digest())},
    }


def _public(key: Any) -> Any:  # noqa: ANN401 - any kind of key
    return key.public_key()


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
