"""What a gate's file says that a session must be, and whether a verified token says the same. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, NotAuthentic, PolicyDenied
from weighbridge.verifier.told import Model

if TYPE_CHECKING:
    from weighbridge.verifier.result import ResultToken

__all__ = ["Accept", "Expected", "check_expected", "check_status"]

Accept = Literal["affirming", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a session must be.

    Attributes:
        name: for people and proxies; of one entry of the gate's file.
        session: 16 bytes; ``None``: any of this tenant and model that has this key.
        tenant: whose it is.
        model: digest of the model's manifest.
        adapters: digests of what may be loaded beside it.
        cnf: SHA-256 of the serving key's SubjectPublicKeyInfo; ``None``: any, where the gate's file says why.
    """

    name: str
    session: bytes | None
    tenant: str
    model: bytes
    adapters: frozenset[bytes]
    cnf: bytes | None

    @property
    def identifier(self) -> bytes:
        """By which a holder is asked: the session, or 32 bytes for the entry itself."""
        return sha256(b"gate entry " + self.name.encode()) if self.session is None else self.session

    @property
    def of(self) -> Model:
        """The model, and whose."""
        return Model(self.tenant, self.model)


def check_status(token: ResultToken, accept: Accept) -> None:
    """Require a status no worse than ``accept``.

    Raises:
        PolicyDenied: ``GATE_STATUS``.
    """
    if token.status not in {"affirming", accept}:
        raise PolicyDenied(
            Code.GATE_STATUS,
            f"the token is authentic, but its status is {token.status}",
            where="token.ear_status",
            expected=accept,
            got=token.status,
        )


def check_expected(token: ResultToken, expected: Expected) -> None:
    """Require that the token is of the session that is expected, which is known by now.

    Raises:
        NotAuthentic: ``GATE_MODEL`` of another session; ``UPSTREAM_KEY``.
        PolicyDenied: ``GATE_MODEL``.
    """
    if token.session != expected.session:
        raise NotAuthentic(
            Code.GATE_MODEL,
            "the token is of another session than the verifier says",
            where="token.session",
            expected=expected.session,
            got=token.session,
        )
    for what, wanted, got in (
        ("tenant", expected.tenant, token.tenant),
        ("model", expected.model.hex(), token.model.hex()),
    ):
        if wanted != got:
            raise PolicyDenied(
                Code.GATE_MODEL,
                f"the session has another {what} than the gate's file says",
                where=f"token.{what}",
                expected=wanted,
                got=got,
            )
    if more := set(token.adapters) - expected.adapters:
        raise PolicyDenied(
            Code.GATE_MODEL,
            "the session has an adapter loaded that the gate's file does not name",
            where="token.adapters",
            got=min(more),
        )
    if expected.cnf is not None:
        token.require_upstream(expected.cnf)
