"""What a file seems to be: told for whatever it holds, and right for what a user of ledgers may take for another."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import note, tlog
from weighbridge.proto.merkle import EMPTY_ROOT
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.file_kinds import kind_of

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = note.NoteKey("ledger.example/windows", PRIVATE.public_key().public_bytes_raw())
HEAD = note.sign(tlog.Checkpoint(KEY.name, 0, EMPTY_ROOT).encode(), key=KEY, signer=PRIVATE.sign)


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, secret: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(secret) if secret else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (b"junk", "4 bytes of another kind"),
        (pem(PRIVATE), "an Ed25519 private key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "a P-256 private key"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "a private key on secp384r1"),
        (pem(rsa.generate_private_key(65537, 2048)), "a private key of another kind"),
        (pem(PRIVATE, b"secret"), "an encrypted private key"),
        (pem(PRIVATE)[:60], "a private key that cannot be read"),
        (PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "a public key"),
        (b"-----BEGIN CERTIFICATE-----\n", "a certificate"),
        (b"-----BEGIN X509 CRL-----\n", "PEM of x509 crl"),
        (KEY.vkey.encode() + b"\n", "a key spelled name+keyid+base64"),
        (HEAD, "a signed note, such as a checkpoint"),
        (tlog.Proof(0, (), HEAD).encode(), "a proof of an entry (.tlog-proof)"),
        (b"\xd2\x84", "a receipt, or another COSE_Sign1"),
        (TrustAnchors(()).encode(), "a JSON document, weighbridge/anchors/v1"),
        (b"{}", "a JSON document"),
    ],
)
def test_kinds(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


@given(st.binary(max_size=200))
def test_whatever_it_holds(data: bytes) -> None:
    assert kind_of(data).isprintable()
