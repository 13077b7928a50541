"""Other names of the serving key: only of the attested one, and as RFC 7638, RFC 8705 and RFC 9449 have them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import derive_key
from weighbridge.proto import cose
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.result.confirmation import confirm, jwk_thumbprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

KEY: Final = derive_key("serving")
CNF: Final = sha256(cose.spki(KEY.public_key()))
# RFC 7638 §3.1, with its thumbprint.
RFC_N: Final = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
    "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQv"
    "RL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnq"
    "DKgw"
)
RFC_THUMBPRINT: Final = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate(key: ec.EllipticCurvePrivateKey, *, serial: int = 1) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "model.example")])
    since = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, since, since + timedelta(days=365))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_the_names_of_the_attested_key() -> None:
    der = certificate(KEY)
    names = confirm(der, cnf=CNF)
    assert names.x5t_s256 == sha256(der)
    numbers = KEY.public_key().public_numbers()
    x, y = (base64.urlsafe_b64encode(value.to_bytes(32)).rstrip(b"=").decode() for value in (numbers.x, numbers.y))
    # RFC 7638 §3.2: these members, so ordered.
    assert names.jkt == sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode())


def test_two_certificates_of_it_are_one_key() -> None:
    first, second = (confirm(certificate(KEY, serial=serial), cnf=CNF) for serial in (1, 2))
    assert first.jkt == second.jkt
    assert first.x5t_s256 != second.x5t_s256


def test_a_certificate_of_another_key_has_no_name_here() -> None:
    """A73: else whoever asks would choose whose key the token is bound to."""
    with pytest.raises(NotAuthentic) as refused:
        confirm(certificate(derive_key("another")), cnf=CNF)
    assert refused.value.code is Code.UPSTREAM_KEY


@given(st.binary(max_size=80))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        confirm(data, cnf=CNF)
    with pytest.raises(MalformedEvidence):
        jwk_thumbprint(data)


def test_the_example_of_the_rfc() -> None:
    modulus = int.from_bytes(base64.urlsafe_b64decode(RFC_N + "=" * (-len(RFC_N) % 4)))
    key = rsa.RSAPublicNumbers(65537, modulus).public_key()
    assert base64.urlsafe_b64encode(jwk_thumbprint(spki(key))).rstrip(b"=").decode() == RFC_THUMBPRINT


@pytest.mark.parametrize(("curve", "name", "size"), [(ec.SECP384R1(), "P-384", 48), (ec.SECP521R1(), "P-521", 66)])
def test_coordinates_have_their_full_length(curve: ec.EllipticCurve, name: str, size: int) -> None:
    """RFC 7518 §6.2.1.2: also where they begin with zeros."""
    key = ec.derive_private_key(3, curve).public_key()
    numbers = key.public_numbers()
    x, y = (base64.urlsafe_b64encode(value.to_bytes(size)).rstrip(b"=").decode() for value in (numbers.x, numbers.y))
    document = json.dumps({"crv": name, "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
    assert jwk_thumbprint(spki(key)) == sha256(document.encode())


def test_edwards_keys() -> None:
    """RFC 8037 §2, appendix A.3."""
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    thumbprint = jwk_thumbprint(spki(ed25519.Ed25519PublicKey.from_public_bytes(raw)))
    assert base64.urlsafe_b64encode(thumbprint).rstrip(b"=") == b"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize(
    "key", [ed448.Ed448PrivateKey.generate().public_key(), ec.derive_private_key(3, ec.SECP256K1()).public_key()]
)
def test_other_keys_have_none(key: PublicKeyTypes) -> None:
    with pytest.raises(MalformedEvidence) as refused:
        jwk_thumbprint(spki(key))
    assert refused.value.code is Code.KEY_UNSUPPORTED
