"""Who signs files of the example: the owner of its model, an issuer of statements, the author of its policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import protocol_example as example
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cose, strict
from weighbridge.proto.policy_bundle import PolicyBundle
from weighbridge.proto.reference_set import AcceptedModel, ReferenceSet, RevokedModel
from weighbridge.proto.statement import IN_TOTO, SUBJECT_KEY, pre_authentication
from weighbridge.verifier import reference_set
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors

if TYPE_CHECKING:
    from weighbridge.proto.manifest import Manifest

__all__ = ["ANCHORS", "Authorship", "Ownership", "own", "write"]

OWNER: Final = "Example Models"
ISSUER: Final = "Example Lab"
AUTHOR: Final = "Example Safety"
_OWNER_KEY: Final = example.fixed_key("owner")
_ISSUER_KEY: Final = example.fixed_key("issuer")
_AUTHOR_KEY: Final = example.fixed_key("author")


def _anchor(purpose: Purpose, name: str, key: ec.EllipticCurvePrivateKey) -> Anchor:
    spki = cose.spki(key.public_key())
    until = example.OPENED + timedelta(days=365)
    return Anchor(purpose, name, "example", spki, example.OPENED, until, "the protocol's example")


ANCHORS: Final = TrustAnchors(
    (
        _anchor("model-owner", OWNER, _OWNER_KEY),
        _anchor("statement-issuer", ISSUER, _ISSUER_KEY),
        _anchor("policy-author", AUTHOR, _AUTHOR_KEY),
    )
)
"""Who is believed: owner, issuer and author, for the example's year."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """The set, as it is handed out, and what comes of it."""

    content: ReferenceSet
    signed: bytes
    statement: bytes
    values: Reference


@dataclass(frozen=True, slots=True)
class Authorship:
    """The policy bundle, and as it is handed out."""

    content: PolicyBundle
    signed: bytes


def write(files: tuple[tuple[str, bytes], ...], tenant: str) -> Authorship:
    """The author's first bundle, of ``files`` for ``tenant``."""
    at = example.nanoseconds(example.OPENED)
    content = PolicyBundle(
        owner=AUTHOR,
        name="example",
        tenant=tenant,
        number=1,
        issued_ns=at,
        not_before_ns=at,
        not_after_ns=example.nanoseconds(example.OPENED + timedelta(days=90)),
        files=files,
    )
    return Authorship(
        content, content.sign(kid=cose.thumbprint(_AUTHOR_KEY.public_key()), signer=example.signer(_AUTHOR_KEY))
    )


def own(manifest: Manifest) -> Ownership:
    """The owner's first set."""
    statement = _statement(manifest)
    at = example.nanoseconds(example.OPENED)
    content = ReferenceSet(
        owner=OWNER,
        number=1,
        issued_ns=at,
        not_before_ns=at,
        not_after_ns=example.nanoseconds(example.OPENED + timedelta(days=180)),
        models=(AcceptedModel(manifest.digest, manifest.name, (statement,)),),
        revoked=(RevokedModel(example.fixed("revoked model"), "weights leaked", at),),
    )
    signed = content.sign(kid=cose.thumbprint(_OWNER_KEY.public_key()), signer=example.signer(_OWNER_KEY))
    verified = reference_set.verify(signed, anchors=ANCHORS)
    return Ownership(content, signed, statement, Reference({}, {}, {}).with_sets([verified.values]))


def _statement(manifest: Manifest) -> bytes:
    """An evaluation of the model, by the issuer."""
    payload = strict.json_encode(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": manifest.name, "digest": {SUBJECT_KEY: manifest.digest.hex()}}],
            "predicateType": "https://example.org/shutdown-evaluation/v1",
            "predicate": {"date": "2026-01-01T00:00:00Z", "result": "passed"},
        }
    )
    signed = pre_authentication(IN_TOTO, payload)
    signature = _ISSUER_KEY.sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return strict.json_encode(
        {
            "payloadType": IN_TOTO,
            "payload": strict.base64_encode(payload),
            "signatures": [{"keyid": "", "sig": strict.base64_encode(signature)}],
        }
    )
