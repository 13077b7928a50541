"""A result that was never appraised, for tests of how it is written down, signed and read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fakes.soft_tpm import derive_key
from weighbridge.proto.digest import sha256
from weighbridge.verifier.result import Claims, Serialisation, issue_as, verify_any
from weighbridge.verifier.result.issuing import Affirmation
from weighbridge.verifier.result.trusted import TrustedKeys

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.result import ResultToken
    from weighbridge.verifier.result.claims import Confirmation

__all__ = ["AUDIENCE", "CLAIMS", "KEY", "NOON", "PERIOD_NS", "affirmation", "issued", "verified"]

KEY: Final = derive_key("verifier")
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
AUDIENCE: Final = "relying-party"
PERIOD_NS: Final = 10_000_000_000
_VECTORS: Final = {
    "gpu0": {"instance-identity": 2, "configuration": 2, "executables": 2, "hardware": 2},
    "telemetry0": {"sourced-data": 2},
    "tpm0": {"configuration": 2, "hardware": 2, "runtime-opaque": 0},
    "weights0": {"executables": 2, "file-system": 2},
}
CLAIMS: Final = Claims(
    issuer="ledger.example/windows",
    audience=AUDIENCE,
    session=bytes(range(16)),
    tenant="tenant-a",
    seq=7,
    model=sha256(b"model"),
    adapters=(sha256(b"adapter"),),
    cnf=sha256(b"cnf"),
    policy=sha256(b"policy"),
    reference=sha256(b"reference"),
    nonces={name: sha256(name.encode()) for name in _VECTORS},
    vectors=_VECTORS,
    unchecked={"gpu_revocation": "a written reason"},
    ledger_origin="ledger.example/windows",
    ledger_index=42,
    ledger_leaf=sha256(b"leaf"),
)


def affirmation(claims: Claims = CLAIMS, *, received: datetime = NOON, within: int | None = None) -> Affirmation:
    """As the verifier has it of a window of ten seconds."""
    return Affirmation(claims=claims, received=received, period_ns=PERIOD_NS, within=within)


def issued(
    serialisation: Serialisation,
    claims: Claims = CLAIMS,
    *,
    key: ec.EllipticCurvePrivateKey = KEY,
    received: datetime = NOON,
    confirmation: Confirmation | None = None,
    audience: str = AUDIENCE,
) -> bytes:
    """A token of it."""
    of = affirmation(replace(claims, audience=audience), received=received)
    return issue_as(serialisation, of, key, confirmation=confirmation)


def verified(
    token: bytes,
    *,
    keys: TrustedKeys | None = None,
    audience: str = AUDIENCE,
    at: datetime = NOON,
    accepted: Collection[Serialisation] = tuple(Serialisation),
) -> ResultToken:
    """What a relying party finds it to be."""
    trusted = TrustedKeys.of(KEY.public_key()) if keys is None else keys
    return verify_any(token, trusted, audiences=(audience,), at=at, accepted=accepted)
