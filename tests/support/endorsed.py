"""Keys for tokens, and what an identity says of them, around :data:`.relying.NOON_NS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fakes.soft_tpm import derive_key
from support.relying import KEY, NOON_NS, SECOND
from weighbridge.proto import cose, strict
from weighbridge.proto.token_key import TokenKeyStatement
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.result import jwks

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

HOUR_NS: Final = 3600 * SECOND
FIRST: Final = derive_key("first key for tokens")
SECOND_KEY: Final = derive_key("second key for tokens")


def endorsement(
    key: ec.EllipticCurvePrivateKey,
    *,
    since_ns: int = -HOUR_NS,
    until_ns: int = HOUR_NS,
    by: ec.EllipticCurvePrivateKey = KEY,
    forged: bool = False,
) -> tuple[ec.EllipticCurvePublicKey, bytes]:
    """A key, and what ``by`` says of it, in the name of the identity if ``forged``; times from noon on."""
    statement = TokenKeyStatement(
        key=key.public_key(),
        not_before_ns=NOON_NS + since_ns,
        not_after_ns=NOON_NS + until_ns,
        issued_ns=NOON_NS - 2 * HOUR_NS,
    )
    kid = cose.thumbprint((KEY if forged else by).public_key())
    return key.public_key(), statement.sign(kid=kid, signer=lambda data: sign_es256(by, data))


def key_set(*keys: tuple[ec.EllipticCurvePublicKey, bytes | None]) -> bytes:
    """Those keys, and the identity's, as a verifier names them."""
    return strict.json_encode(jwks.write([*keys, (KEY.public_key(), None)]))
