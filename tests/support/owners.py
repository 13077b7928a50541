"""Owners of models who sign reference sets, and issuers who sign statements about models: with keys of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fakes.soft_tpm import derive_key
from support.world import NOON
from weighbridge.proto import cose, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.reference_set import AcceptedModel, ReferenceSet, RevokedModel
from weighbridge.proto.statement import CYCLONEDX, IN_TOTO, SUBJECT_KEY, pre_authentication
from weighbridge.verifier.anchors import Anchor
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.keys import sign_es256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.proto.manifest import Manifest

DAY = timedelta(days=1)
EVALUATION = "https://weighbridge.example/evaluation/shutdown/v1"
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Owner:
    """A model's owner. Sets are valid from a day before noon until ten days after, unless a test says otherwise."""

    name: str = "Acme Models"
    key: ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = derive_key(f"owner {self.name}")

    def anchor(self, *, not_before: datetime = BEGINNING, not_after: datetime = FOREVER) -> Anchor:
        spki = cose.spki(self.key.public_key())
        return Anchor("model-owner", self.name, "weighbridge", spki, not_before, not_after, "a test")

    def content(
        self,
        *models: Manifest,
        number: int = 1,
        revoked: Mapping[bytes, str] | None = None,
        statements: Iterable[bytes] = (),
        **changes: datetime,
    ) -> ReferenceSet:
        """A set that accepts ``models``, with every statement under each; ``changes`` are ``issued`` and the bounds."""
        times = {"issued": NOON - DAY, "not_before": NOON - DAY, "not_after": NOON + 10 * DAY, **changes}
        accepted = [AcceptedModel(model.digest, model.name, tuple(statements)) for model in models]
        gone = [RevokedModel(digest, reason, nanoseconds(NOON)) for digest, reason in (revoked or {}).items()]
        return ReferenceSet(
            owner=self.name,
            number=number,
            issued_ns=nanoseconds(times["issued"]),
            not_before_ns=nanoseconds(times["not_before"]),
            not_after_ns=nanoseconds(times["not_after"]),
            models=tuple(sorted(accepted, key=lambda model: model.manifest)),
            revoked=tuple(sorted(gone, key=lambda model: model.manifest)),
        )

    def sign(self, content: ReferenceSet) -> bytes:
        """The file that is handed out."""
        return content.sign(
            kid=cose.thumbprint(self.key.public_key()), signer=lambda signed: sign_es256(self.key, signed)
        )


@dataclass
class Issuer:
    """Somebody who states things about models."""

    name: str = "Evaluation Lab"
    kind: Literal["P-256", "P-384", "Ed25519"] = "P-256"
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        seed = sha256(f"issuer {self.name}".encode())
        match self.kind:
            case "P-256":
                self.key = derive_key(f"issuer {self.name}")
            case "P-384":
                self.key = ec.derive_private_key(int.from_bytes(seed), ec.SECP384R1())
            case "Ed25519":
                self.key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)

    def anchor(self, *, not_before: datetime = BEGINNING, not_after: datetime = FOREVER) -> Anchor:
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Anchor("statement-issuer", self.name, "weighbridge", spki, not_before, not_after, "a test")

    def in_toto(
        self,
        digest: bytes,
        *,
        type_: str = EVALUATION,
        date: str | None = "2026-05-01T00:00:00Z",
        key: str = SUBJECT_KEY,
    ) -> bytes:
        """A signed in-toto statement about the manifest ``digest``."""
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "model", "digest": {key: digest.hex()}}],
            "predicateType": type_,
            "predicate": {"result": "passed"} if date is None else {"result": "passed", "date": date},
        }
        return self.envelope(IN_TOTO, strict.json_encode(statement))

    def ml_bom(self, digest: bytes, *, timestamp: str = "2026-04-01T09:30:00+00:00") -> bytes:
        """A signed CycloneDX ML-BOM about the manifest ``digest``."""
        component = {
            "type": "machine-learning-model",
            "name": "model",
            "hashes": [{"alg": "SHA-256", "content": digest.hex()}],
        }
        document = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "metadata": {"timestamp": timestamp, "component": component},
            "components": [{"type": "data", "name": "a data set"}],
        }
        return self.envelope(CYCLONEDX, strict.json_encode(document))

    def envelope(self, payload_type: str, payload: bytes, *, keyid: str = "") -> bytes:
        """A DSSE envelope around ``payload``."""
        signed = pre_authentication(payload_type, payload)
        return strict.json_encode(
            {
                "payloadType": payload_type,
                "payload": strict.base64_encode(payload),
                "signatures": [{"keyid": keyid, "sig": strict.base64_encode(self.sign(signed))}],
            }
        )

    def sign(self, signed: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(signed)
        return self.key.sign(signed, ec.ECDSA(hashes.SHA384() if self.kind == "P-384" else hashes.SHA256()))
