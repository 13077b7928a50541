"""Token introspection (RFC 7662): whether a token is good *now*, by how its session stands at the verifier.

Offline a token is good until it expires. Here it is good only while the gate of its session is open: a later window
that was refused, or the end of the session, closes it at once. Pure: the caller finds the session's standing, and has
authenticated whoever asks and knows which audiences and tenants that one may ask about (RFC 7662 §4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import MalformedEvidence, NotAuthentic
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.result.verifying import ResultToken, verify_any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from weighbridge.proto import strict
    from weighbridge.verifier.result.trusted import TrustedKeys
    from weighbridge.verifier.standing import Standing

__all__ = ["INACTIVE", "introspect", "introspect_bytes"]

INACTIVE: Final[strict.JsonObject] = {"active": False}
"""Whatever the reason: RFC 7662 §2.2 has none said. Whoever wants it asks for the session's standing."""


def introspect(token: ResultToken, standing: Standing, *, at: datetime) -> strict.JsonObject:
    """The answer about a verified ``token``, by the standing of its session at ``at``.

    Active while the gate is open and the token itself has not expired. All claims of the token stand in the answer,
    ``cnf`` among them (RFC 8705 §3.2, RFC 9449 §6.2); ``sub`` is the session.

    Raises:
        ValueError: ``standing`` is of another session or tenant.
    """
    if (standing.session, standing.tenant) != (token.session, token.tenant):
        raise ValueError("the standing of another session")
    if at >= token.expires or not standing.at(nanoseconds(at)).is_open:
        return dict(INACTIVE)
    return {**token.payload, "active": True, "sub": token.session.hex()}


def introspect_bytes(
    token: bytes,
    keys: TrustedKeys,
    *,
    audiences: Collection[str],
    at: datetime,
    standing_of: Callable[[bytes], Standing | None],
) -> strict.JsonObject:
    """The answer about any bytes that somebody asks about: what is no good token is not active.

    Args:
        token: untrusted; of any serialisation.
        keys: the verifier's own, that may still verify.
        audiences: those of whoever asks.
        at: the present, aware UTC.
        standing_of: by session; ``None`` where there is no such session, or it is none of whoever asks.

    Raises:
        EnvironmentFault: as ``standing_of``.
    """
    try:
        verified = verify_any(token, keys, audiences=audiences, at=at)
    except (MalformedEvidence, NotAuthentic):
        return dict(INACTIVE)
    standing = standing_of(verified.session)
    if standing is None or standing.tenant != verified.tenant:
        return dict(INACTIVE)
    return introspect(verified, standing, at=at)
