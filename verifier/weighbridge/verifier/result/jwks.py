"""The verifier's keys for tokens as a JSON Web Key Set (RFC 7517): written, and read against pinned identities.

Any JOSE library reads it: ``kid`` is that of the tokens. For a reader of ours nothing in it is believed because it is
in it: a key counts when it *is* a pinned identity, or when the statement beside it, in a member of our own, is signed
by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.result.endorsement import claimed_verifier, endorsed
from weighbridge.verifier.result.trusted import TrustedKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.verifier.result.trusted import TrustedKey

__all__ = ["ENDORSEMENT", "read", "write"]

ENDORSEMENT: Final = "weighbridge_endorsement"
_COORDINATE: Final = 32


def write(keys: Iterable[tuple[ec.EllipticCurvePublicKey, bytes | None]]) -> strict.JsonObject:
    """The key set of ``keys``, each with the statement that endorses it; the identity itself has none."""
    return {"keys": [_jwk(key, statement) for key, statement in keys]}


def _jwk(key: ec.EllipticCurvePublicKey, statement: bytes | None) -> strict.JsonObject:
    numbers = key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": strict.base64url_encode(numbers.x.to_bytes(_COORDINATE)),
        "y": strict.base64url_encode(numbers.y.to_bytes(_COORDINATE)),
        "kid": strict.base64url_encode(cose.thumbprint(key)),
        "use": "sig",
        "alg": "ES256",
        **({} if statement is None else {ENDORSEMENT: strict.base64url_encode(statement)}),
    }


def read(data: bytes, identities: Sequence[TrustedKey]) -> TrustedKeys:
    """The keys by which tokens of the verifiers ``identities`` are believed: these themselves, and those they endorse.

    A key of ``data`` that none of them endorses is left out: another verifier's may stand there as well.

    Args:
        data: untrusted; a key set.
        identities: trusted by the caller.

    Raises:
        MalformedEvidence: ``TOKEN_MALFORMED`` or a decoding code: it is no key set of such keys.
        NotAuthentic: ``TOKEN_KEY_ENDORSEMENT``: a statement that names one of ``identities`` is not signed by it.
    """
    document = strict.json_decode(data, what="jwks", limit=limits.JWKS_MAX)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise _malformed("no list of keys", "jwks.keys")
    pinned = TrustedKeys(identities)
    found = [_key(value, pinned, f"jwks.keys[{number}]") for number, value in enumerate(listed)]
    return TrustedKeys([*(key for key in found if key is not None), *identities])


def _key(value: strict.JsonValue, pinned: TrustedKeys, where: str) -> TrustedKey | None:
    if not isinstance(value, dict):
        raise _malformed("not an object", where)
    statement = value.get(ENDORSEMENT)
    if statement is None:
        # A pinned one is believed anyway, and another one is not.
        return None
    if not isinstance(statement, str):
        raise _malformed("not a text", f"{where}.{ENDORSEMENT}")
    raw = strict.base64url_decode(statement, what=f"{where}.{ENDORSEMENT}")
    if claimed_verifier(raw) not in pinned:
        return None
    key = endorsed(raw, pinned)
    if any(value.get(name) != expected for name, expected in _jwk(key.key, raw).items()):
        raise _malformed("not the key that the statement beside it endorses", where)
    return key


def _malformed(what: str, where: str) -> MalformedEvidence:
    return MalformedEvidence(Code.TOKEN_MALFORMED, what, where=where, clause="RFC 7517 §4, §5")
