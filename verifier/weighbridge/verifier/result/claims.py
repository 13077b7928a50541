"""What a token says of an affirmed, fresh window, how good that is, and how long it lives. Pure, and of no format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SESSION_SUBMOD", "STATUSES", "Claims", "Confirmation", "expiry", "status_of", "worst"]

_LIFETIME_MAX: Final = timedelta(seconds=120)
_GRACE: Final = timedelta(seconds=2)

SESSION_SUBMOD: Final = "tpm0"
"""The submodule that also says what holds for the session as a whole, once: that of the key that anchors it."""

STATUSES: Final = ("none", "affirming", "warning", "contraindicated")
"""From best known to worst; ``none`` makes no claim and so takes nothing away."""

# AR4SI tiers (draft-ietf-rats-ar4si-10 §2.3.2): a status is no better than the worst claim of the vector.
_TIERS: Final = ((96, "contraindicated"), (32, "warning"), (2, "affirming"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says beyond the standard claims. ``nonces`` and ``vectors`` are keyed by submodule.

    Digests are 32 bytes; ``vectors`` hold AR4SI values. ``adapters`` are the manifests of what else is loaded, or was
    since the last window: declared and accepted, yet another model than ``model``. ``cnf`` is the SHA-256 of the
    SubjectPublicKeyInfo of the key that the session's TLS server has.
    """

    issuer: str
    audience: str
    session: bytes
    tenant: str
    seq: int
    model: bytes
    adapters: tuple[bytes, ...]
    cnf: bytes
    policy: bytes
    reference: bytes
    nonces: Mapping[str, bytes]
    vectors: Mapping[str, Mapping[str, int]]
    unchecked: Mapping[str, str]
    ledger_origin: str
    ledger_index: int
    ledger_leaf: bytes

    @property
    def identifier(self) -> str:
        """Of the result, the same in every serialisation: session in hexadecimal, a dot, the window's number."""
        return f"{self.session.hex()}.{self.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Other names of the same serving key, for relying parties that bind tokens by them (:mod:`.confirmation`).

    Attributes:
        jkt: SHA-256 thumbprint of the key as a JWK (RFC 7638, RFC 9449 §6.1); 32 bytes.
        x5t_s256: SHA-256 of a certificate of it in DER (RFC 8705 §3.1); 32 bytes.
    """

    jkt: bytes | None = None
    x5t_s256: bytes | None = None


def expiry(received: datetime, period_ns: int) -> datetime:
    """When a token for a window received at ``received`` expires: 1.5 windows + 2 s later, at most 120 s."""
    lifetime = timedelta(microseconds=period_ns * 3 // 2 // 1000) + _GRACE
    return received + min(lifetime, _LIFETIME_MAX)


def status_of(vector: Mapping[str, int]) -> str:
    """The status that a submodule's vector allows."""
    lowest = max((abs(value) for value in vector.values()), default=0)
    # NOTE: 0 is "no claim" (AR4SI §2.3.2): a vector without any claim is not affirming.
    return next((word for low, word in _TIERS if lowest >= low), "none")


def worst(statuses: Iterable[str]) -> str:
    """The status of all submodules together."""
    return max(statuses, key=STATUSES.index, default="none")
