"""An attestation service like NVIDIA's: its own authorities, a key set that it publishes, answers that it signs.

Everything is signed for real, under keys that nobody believes but who is given :meth:`EmulatedNras.anchors`. The shape
is the service's: an intermediate authority with an RSA key, leaves of two days with P-384 keys, ES384, an overall token
that names the digests of the devices' tokens. What a case wants otherwise it says in an :class:`Answer`, or it signs by
hand.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from forge.rsa_keys import rsa_key
from gpu_support import Certificate
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.verifier.anchors import Anchor, TrustAnchors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

ISSUER: Final = "https://nras.attestation.nvidia.com"
KID: Final = "nv-eat-kid-emulated-1"
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
SERIALS: Final = (0x53C22BA15E5D68088282DA074ED9FB37AA585771, 0x11 << 150)
Claims = dict[str, Any]


def _rsa() -> rsa.RSAPrivateKey:
    """One for all, always the same."""
    return rsa_key("emulated attestation service")


def _leaf(issued: datetime) -> Certificate:
    return Certificate(
        "Emulated Attestation Service GPU GH100",
        ca=None,
        signs=False,
        not_before=issued - timedelta(hours=1),
        not_after=issued + timedelta(hours=47),
        hash=hashes.SHA256(),
    )


@dataclass(frozen=True)
class Answer:
    """What an answer is to say. What is not ordered is as of two good GPUs, asked over ``nonce`` at ``issued``."""

    nonce: bytes
    issued: datetime = NOON
    devices: Mapping[str, Claims] = field(
        default_factory=lambda: {f"GPU-{number}": {"ueid": str(serial)} for number, serial in enumerate(SERIALS)}
    )
    overall: Claims = field(default_factory=dict)
    each: Claims = field(default_factory=dict)
    header: Claims = field(default_factory=dict)
    version: Literal["2.0", "3.0"] = "3.0"

    def device_claims(self, name: str) -> Claims:
        """What the token of one device says. A claim that is ordered as ``...`` is left out."""
        kind = name.partition("-")[0].lower()
        claims = {
            **self._common(),
            **(_v3(kind) if self.version == "3.0" else _v2(kind)),
            **self.each,
            **self.devices[name],
        }
        return {claim: value for claim, value in claims.items() if value is not ...}

    def overall_claims(self, tokens: Mapping[str, str]) -> Claims:
        """What the token over all devices says."""
        claims = {
            **self._common(),
            "sub": "NVIDIA-PLATFORM-ATTESTATION",
            "x-nvidia-ver": self.version,
            "x-nvidia-overall-att-result": True,
            "submods": {name: ["DIGEST", ["SHA-256", sha256(token.encode()).hex()]] for name, token in tokens.items()},
            **self.each,
            **self.overall,
        }
        return {claim: value for claim, value in claims.items() if value is not ...}

    def _common(self) -> Claims:
        seconds = round(self.issued.timestamp())
        return {
            "iss": ISSUER,
            "iat": seconds,
            "nbf": seconds,
            "exp": seconds + 3600,
            "jti": "833480c9-6796-4fe4-b6ad-e9a58d7a67b2",
            "eat_nonce": self.nonce.hex(),
        }


def _v2(kind: str) -> Claims:
    named = ["driver-rim", "vbios-rim"] if kind == "gpu" else ["bios-rim"]
    checks = [
        "arch-check",
        *(f"attestation-report-{check}" for check in ("parsed", "nonce-match", "signature-verified")),
    ]
    return {
        "measres": "success",
        "secboot": True,
        "dbgstat": "disabled",
        "hwmodel": "GH100 A01 GSP BROM" if kind == "gpu" else "LS_10 A01 FSP BROM",
        "oemid": "5703" if kind == "gpu" else None,
        "x-nvidia-attestation-warning": None,
        **{f"x-nvidia-{kind}-{check}": True for check in (*checks, *(f"{rim}-fetched" for rim in named))},
    }


def _v3(kind: str) -> Claims:
    good = {
        "x-nvidia-cert-status": "valid",
        "x-nvidia-cert-ocsp-status": "good",
        "x-nvidia-cert-expiration-date": "9999-12-31T23:59:59Z",
        "x-nvidia-cert-revocation-reason": None,
    }
    return {**_v2(kind), f"x-nvidia-{kind}-attestation-report-cert-chain": good}


@dataclass(frozen=True)
class EmulatedNras:
    """A service. ``leaf`` signs under the name ``kid``."""

    root: Certificate = field(default_factory=lambda: Certificate("Emulated Attestation Service CA"))
    intermediate: Certificate = field(
        default_factory=lambda: Certificate("Emulated Attestation Service Intermediate", key=_rsa())
    )
    leaf: Certificate = field(default_factory=lambda: _leaf(NOON))
    kid: str = KID

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """As it is published: leaf and intermediate, without the root."""
        return self.leaf.issue(self.intermediate), self.intermediate.issue(self.root)

    def anchors(self, *, intermediate: bool = False, platform: str = "insecure-emulated") -> TrustAnchors:
        """Who believes the service's root, or its intermediate authority alone."""
        certificate = self.chain[1] if intermediate else self.root_certificate
        return TrustAnchors((Anchor.from_certificate("nras-root", certificate, platform=platform, source="a test"),))

    @property
    def root_certificate(self) -> x509.Certificate:
        """Which is published nowhere."""
        return self.root.issue(self.root)

    def published_key(self, **members: object) -> dict[str, Any]:
        """This service's key as it stands in a key set."""
        key = self.leaf.key.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        numbers = key.public_numbers()
        size = (key.curve.key_size + 7) // 8
        return {
            "kty": "EC",
            "crv": "P-384",
            "kid": self.kid,
            "x5c": x5c(self.chain),
            "x": strict.base64url_encode(numbers.x.to_bytes(size)),
            "y": strict.base64url_encode(numbers.y.to_bytes(size)),
            **members,
        }

    def jwks(self, *others: dict[str, Any]) -> bytes:
        """The key set: this key, and ``others``."""
        return json.dumps({"keys": [self.published_key(), *others]}).encode()

    def sign(self, claims: Claims, header: Claims | None = None) -> str:
        """A token."""
        assert isinstance(self.leaf.key, ec.EllipticCurvePrivateKey)
        signed = f"{part({'kid': self.kid, 'alg': 'ES384', **(header or {})})}.{part(claims)}"
        r, s = decode_dss_signature(self.leaf.key.sign(signed.encode(), ec.ECDSA(hashes.SHA384())))
        size = (self.leaf.key.curve.key_size + 7) // 8
        return f"{signed}.{strict.base64url_encode(r.to_bytes(size) + s.to_bytes(size))}"

    def sign_symmetric(self, claims: Claims) -> str:
        """A token under HS256, keyed with the public key: what a library takes that lets the token choose."""
        signed = f"{part({'kid': self.kid, 'alg': 'HS256'})}.{part(claims)}"
        pem = self.leaf.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return f"{signed}.{strict.base64url_encode(hmac.digest(pem, signed.encode(), 'sha256'))}"

    def device_tokens(self, wanted: Answer) -> dict[str, str]:
        """The tokens of the devices."""
        return {name: self.sign(wanted.device_claims(name), wanted.header) for name in wanted.devices}

    def answer(self, wanted: Answer) -> bytes:
        """The answer, all of it."""
        tokens = self.device_tokens(wanted)
        return bundle(self.sign(wanted.overall_claims(tokens), wanted.header), tokens)


def x5c(chain: Sequence[x509.Certificate]) -> list[str]:
    """Certificates as they stand in a key set."""
    return [strict.base64_encode(certificate.public_bytes(Encoding.DER)) for certificate in chain]


def part(value: Claims) -> str:
    """A part of a token."""
    return strict.base64url_encode(json.dumps(value).encode())


def bundle(overall: str, devices: Mapping[str, str] | Sequence[tuple[str, str]]) -> bytes:
    """An answer from its tokens."""
    return json.dumps([["JWT", overall], dict(devices)]).encode()


def claims_of(token: str) -> Claims:
    """What a token says."""
    value: Claims = json.loads(strict.base64url_decode(token.split(".")[1], what="claims"))
    return value
