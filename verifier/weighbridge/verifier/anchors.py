"""Trust anchors: whose keys are believed, for which purpose, on which platform, and where that is written down.

A deciding function is given anchors; it never looks for any. An anchor is a name and a public key (RFC 5280
§6.1.1 (d)), valid between two times. The document is strict JSON, schema ``weighbridge/anchors/v1``:

.. code-block:: json

    {"schema": "weighbridge/anchors/v1", "note": "…", "anchors": [
      {"purpose": "nvidia-device-root", "name": "CN=…", "platform": "nvidia", "spki": "base64 of DER",
       "sha256": "hex of SHA-256 of that DER", "not_before": "2021-11-05T00:00:00Z",
       "not_after": "9999-12-31T23:59:59Z", "source": "where the fact comes from"}]}

The anchors shipped with the package never name the platform ``insecure-emulated``; evidence of emulated devices is
believed only where somebody passes in a document that does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Final, Literal, Self, cast, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import spki_der, subject_key_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

__all__ = [
    "EMULATED_PLATFORM",
    "PURPOSES",
    "SCHEMA",
    "Anchor",
    "AnchorKey",
    "Purpose",
    "TrustAnchors",
    "default",
    "key_type",
    "load",
]

SCHEMA: Final = "weighbridge/anchors/v1"
EMULATED_PLATFORM: Final = "insecure-emulated"

Purpose = Literal[
    "nvidia-device-root",
    "nvidia-rim-root",
    "nras-root",
    "tpm-ek-root",
    "tpm-ek-intermediate",
    "tpm-ak-root",
    "tpm-ak-intermediate",
    "amd-ark",
    "intel-sgx-root",
    "attestation-key",
    "verifier",
    "ledger",
    "witness",
    "client-ca",
    "model-owner",
    "statement-issuer",
    "host-owner",
    "baseline-owner",
    "policy-author",
]
AnchorKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_P256: Final = "P-256"
_P384: Final = "P-384"
_P521: Final = "P-521"
_RSA: Final = "RSA"
_ED25519: Final = "Ed25519"
# The one table of accepted key types. RSA is from 2048 to 4096 bits; anything else is rejected by absence. P-521 is for
# authorities of TPM makers alone: those of Infineon, Nuvoton, NSING and STMicroelectronics since 2019 have such keys.
_KEY_TYPES: Final[dict[Purpose, frozenset[str]]] = {
    "nvidia-device-root": frozenset({_P384}),
    "nvidia-rim-root": frozenset({_P384}),
    "nras-root": frozenset({_P384, _RSA}),
    "tpm-ek-root": frozenset({_RSA, _P256, _P384, _P521}),
    "tpm-ek-intermediate": frozenset({_RSA, _P256, _P384, _P521}),
    "tpm-ak-root": frozenset({_RSA, _P256, _P384}),
    "tpm-ak-intermediate": frozenset({_RSA, _P256, _P384}),
    "amd-ark": frozenset({_RSA}),
    "intel-sgx-root": frozenset({_P256}),
    "attestation-key": frozenset({_P256, _P384, _RSA}),
    "verifier": frozenset({_P256}),
    "ledger": frozenset({_ED25519}),
    "witness": frozenset({_ED25519}),
    "client-ca": frozenset({_RSA, _P256, _P384}),
    "model-owner": frozenset({_P256}),
    "statement-issuer": frozenset({_P256, _P384, _ED25519}),
    "host-owner": frozenset({_P256}),
    "baseline-owner": frozenset({_P256}),
    "policy-author": frozenset({_P256}),
}
_RSA_BITS: Final = range(2048, 4097)
_ANCHORS_MAX: Final = 1024
_DOCUMENT_MAX: Final = 2 * 1024 * 1024
PURPOSES: Final[frozenset[str]] = frozenset(get_args(Purpose))


@dataclass(frozen=True, slots=True)
class Anchor:
    """One believed key. Built by :func:`load` or :meth:`from_certificate`, or by whoever holds the key.

    Attributes:
        purpose: what the key may vouch for; never used for anything else.
        name: for a certification authority its subject as an RFC 4514 string, by which certificates that it issued
            find it; otherwise a label for people.
        platform: ``nvidia``, ``tpm``, ``insecure-emulated`` and so on: what evidence under this anchor is called.
        spki: SubjectPublicKeyInfo, DER.
        not_before: aware UTC.
        not_after: aware UTC, inclusive.
        source: where the fact comes from, for people.
        key_id: the certificate's subject key identifier (RFC 5280 §4.2.1.2), which tells keys of one name apart;
            ``None`` where it has none or there is no certificate.
        tenant: for whose sessions alone a ``policy-author`` may write; ``None`` for everybody's.
    """

    purpose: Purpose
    name: str
    platform: str
    spki: bytes
    not_before: datetime
    not_after: datetime
    source: str
    key_id: bytes | None = None
    tenant: str | None = None

    def __post_init__(self) -> None:
        """Refuse an anchor that could not be read back: a key of the wrong type, naive or reversed times."""
        self.key()
        if self.not_before.tzinfo is None or self.not_after.tzinfo is None:
            raise ValueError("anchor times must be aware")
        if self.key_id is not None and not self.key_id:
            raise _invalid("key_id is empty", f"anchor {self.name}")
        if self.not_before > self.not_after:
            raise _invalid("not_before is after not_after", f"anchor {self.name}")
        if self.tenant is not None and (self.purpose != "policy-author" or not self.tenant):
            raise _invalid("only a policy-author speaks for one tenant, and that has a name", f"anchor {self.name}")

    @property
    def sha256(self) -> str:
        """Fingerprint of the key: SHA-256 of ``spki``, lower-case hex."""
        return sha256(self.spki).hex()

    @property
    def pinned_for(self) -> tuple[datetime, datetime] | None:
        """From when until when, of an ``attestation-key``, for which there may be several; ``None`` of all else."""
        return (self.not_before, self.not_after) if self.purpose == "attestation-key" else None

    def key(self) -> AnchorKey:
        """The public key, of a type that the purpose allows, canonically encoded.

        Raises:
            MalformedEvidence: ``ANCHORS_INVALID``.
        """
        where = f"anchor {self.name}"
        try:
            key = load_der_public_key(self.spki)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _invalid(f"spki is not a public key: {error}", where) from error
        kind = key_type(key)
        if kind not in _KEY_TYPES[self.purpose]:
            raise _invalid(f"a key of type {kind} is not accepted for {self.purpose}", where)
        if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != self.spki:
            raise _invalid("spki is not canonically encoded", where)
        return cast("AnchorKey", key)

    def check_validity(self, at: datetime) -> None:
        """Require that the key is believed at ``at``.

        Raises:
            NotAuthentic: ``CHAIN_EXPIRED``.
        """
        if not self.not_before <= at <= self.not_after:
            raise NotAuthentic(
                Code.CHAIN_EXPIRED,
                "the key is not believed at this time",
                where=f"anchor {self.name}",
                expected=f"{strict.time_encode(self.not_before)}..{strict.time_encode(self.not_after)}",
                got=strict.time_encode(at),
            )

    @classmethod
    def from_certificate(cls, purpose: Purpose, certificate: x509.Certificate, *, platform: str, source: str) -> Self:
        """The anchor whose name, key and validity are those of ``certificate``, which is believed by this call."""
        return cls(
            purpose=purpose,
            name=certificate.subject.rfc4514_string(),
            platform=platform,
            spki=spki_der(certificate),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            source=source,
            key_id=subject_key_identifier(certificate),
        )

    def document(self) -> dict[str, strict.JsonValue]:
        """This anchor as it stands in the JSON document."""
        key_id: dict[str, strict.JsonValue] = {} if self.key_id is None else {"key_id": self.key_id.hex()}
        tenant: dict[str, strict.JsonValue] = {} if self.tenant is None else {"tenant": self.tenant}
        return {
            "purpose": self.purpose,
            "name": self.name,
            "platform": self.platform,
            "spki": strict.base64_encode(self.spki),
            "sha256": self.sha256,
            "not_before": strict.time_encode(self.not_before),
            "not_after": strict.time_encode(self.not_after),
            "source": self.source,
            **key_id,
            **tenant,
        }


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """A set of anchors, in the order of the document. Empty is allowed: it makes every chain untrusted."""

    anchors: tuple[Anchor, ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse the same key twice for one purpose: which of the two platforms would it speak for?

        An attestation key may be pinned several times on one platform, as when its pin is renewed: :func:`.ak.pinned`
        looks at all of them.
        """
        seen = {(anchor.purpose, anchor.spki, anchor.pinned_for) for anchor in self.anchors}
        one_platform = {(anchor.purpose, anchor.spki): anchor.platform for anchor in self.anchors}
        if len(seen) != len(self.anchors) or any(
            anchor.platform != one_platform[anchor.purpose, anchor.spki] for anchor in self.anchors
        ):
            raise _invalid("the same key is listed twice for one purpose", "anchors")

    def select(self, purpose: Purpose) -> tuple[Anchor, ...]:
        """The anchors for ``purpose``, possibly none."""
        return tuple(anchor for anchor in self.anchors if anchor.purpose == purpose)

    def with_anchors(self, anchors: Iterable[Anchor]) -> TrustAnchors:
        """A new set with ``anchors`` added; this one is unchanged."""
        return TrustAnchors((*self.anchors, *anchors), self.note)

    def encode(self) -> bytes:
        """The JSON document, indented, such that ``load(a.encode()) == a``."""
        listed: list[strict.JsonValue] = [anchor.document() for anchor in self.anchors]
        return strict.json_encode({"schema": SCHEMA, "note": self.note, "anchors": listed}, indent=2) + b"\n"


def load(data: bytes) -> TrustAnchors:
    """The anchors in a document of schema ``weighbridge/anchors/v1``.

    Whether to believe them is the decision of whoever passes the document in.

    Raises:
        MalformedEvidence: ``ANCHORS_INVALID`` for a wrong schema, purpose, key type or fingerprint; a decoding code
            for JSON, base64, hex or times that are not strictly what they should be.
    """
    document = _reader(strict.json_decode(data, what="anchors", limit=_DOCUMENT_MAX), "anchors")
    schema = document.text("schema")
    if schema != SCHEMA:
        raise MalformedEvidence(
            Code.ANCHORS_INVALID, "wrong schema", where="anchors.schema", expected=SCHEMA, got=schema
        )
    note = document.text("note", limit=4096)
    listed = document.array("anchors", limit=_ANCHORS_MAX)
    document.end()
    return TrustAnchors(tuple(_anchor(item, f"anchors[{number}]") for number, item in enumerate(listed)), note)


def default() -> TrustAnchors:
    """The anchors shipped with the package. None of them is for emulated devices.

    Raises:
        MalformedEvidence: ``ANCHORS_INVALID`` if the package's data has been tampered with so that one is.
    """
    data = resources.files("weighbridge.verifier").joinpath("data/anchors.json").read_bytes()
    return _refuse_emulated(load(data))


def key_type(key: object) -> str:
    """What the table of accepted key types calls the key; ``unsupported`` for one that no purpose has."""
    match key:
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1):
            return _P256
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP384R1):
            return _P384
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP521R1):
            return _P521
        case rsa.RSAPublicKey() if key.key_size in _RSA_BITS:
            return _RSA
        case ed25519.Ed25519PublicKey():
            return _ED25519
        case _:
            return "unsupported"


def _refuse_emulated(anchors: TrustAnchors) -> TrustAnchors:
    for anchor in anchors.anchors:
        if anchor.platform == EMULATED_PLATFORM:
            raise _invalid("an emulated platform among the default anchors", f"anchor {anchor.name}")
    return anchors


def _anchor(value: strict.JsonValue | cbor.CborValue, where: str) -> Anchor:
    fields = _reader(value, where)
    purpose = fields.text("purpose")
    if purpose not in PURPOSES:
        raise MalformedEvidence(Code.ANCHORS_INVALID, "unknown purpose", where=f"{where}.purpose", got=purpose)
    claimed = strict.hex_decode(fields.text("sha256"), what=f"{where}.sha256", size=limits.DIGEST_SIZE)
    anchor = Anchor(
        purpose=cast("Purpose", purpose),
        name=fields.text("name", limit=1024),
        platform=fields.text("platform", limit=64),
        spki=strict.base64_decode(fields.text("spki", limit=limits.CERT_MAX), what=f"{where}.spki"),
        not_before=strict.time_decode(fields.text("not_before"), what=f"{where}.not_before"),
        not_after=strict.time_decode(fields.text("not_after"), what=f"{where}.not_after"),
        source=fields.text("source", limit=4096),
        key_id=strict.hex_decode(fields.text("key_id", limit=128), what=f"{where}.key_id")
        if fields.has("key_id")
        else None,
        tenant=fields.text("tenant", limit=64) if fields.has("tenant") else None,
    )
    fields.end()
    if sha256(anchor.spki) != claimed:
        raise MalformedEvidence(
            Code.ANCHORS_INVALID,
            "fingerprint is not that of the key",
            where=f"{where}.sha256",
            expected=anchor.sha256,
            got=claimed,
        )
    return anchor


def _reader(value: strict.JsonValue | cbor.CborValue, where: str) -> cbor.Reader:
    """Read a JSON object with the reader of CBOR maps, after refusing what JSON has and the reader does not expect."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, float):
            raise MalformedEvidence(Code.FIELD_TYPE, "no field of this document is a fraction", where=f"{where}.{key}")
        # An escape such as \ud800 alone is half a character (RFC 7493 §2.1).
        if isinstance(item, str) and not item.isascii() and any("\ud800" <= letter <= "\udfff" for letter in item):
            raise MalformedEvidence(Code.NOT_UTF8, "text has half a character", where=f"{where}.{key}")
    return cbor.read_map(cast("cbor.CborValue", value), where=where)


def _invalid(message: str, where: str) -> MalformedEvidence:
    return MalformedEvidence(Code.ANCHORS_INVALID, message, where=where)
