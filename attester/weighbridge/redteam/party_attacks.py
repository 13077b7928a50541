"""Whoever says without a certificate that they are a relying party: with no token, with another's, with too much asked.

A bearer token is its bearer's: whoever has stolen one is that relying party until it expires, or is taken out of the
list. What must not help is anything that is no such token, or one of somebody who may ask about others only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from weighbridge.proto.errors import Code
from weighbridge.proto.v1 import results_pb2
from weighbridge.redteam.asking import asked, seen
from weighbridge.redteam.attack import Attack, NotShown, Seen

if TYPE_CHECKING:
    from weighbridge.redteam.field import Field, Guest, RelyingParty

__all__ = ["PARTY_ATTACKS"]

_SOMEBODY_ELSE: Final = "somebody.else.invalid"


async def _unnamed(field: Field) -> Seen:
    guest = await _told(field)
    return seen(await _ask(field, guest, bearer=None))


async def _altered(field: Field) -> Seen:
    guest = await _told(field)
    token = _port(field).token
    last = "B" if token.endswith("A") else "A"
    return seen(await _ask(field, guest, bearer=token[:-1] + last))


async def _result_token(field: Field) -> Seen:
    guest = await _told(field)
    return seen(await _ask(field, guest, bearer=guest.issued()))


async def _another_tenants(field: Field) -> Seen:
    guest = await _told(field)
    return seen(await _ask(field, guest, bearer=_port(field).stranger))


async def _another_audience(field: Field) -> Seen:
    guest = await _told(field)
    return seen(await _ask(field, guest, bearer=_port(field).token, audience=_SOMEBODY_ELSE))


async def _ended(field: Field) -> Seen:
    guest = await _told(field)
    await guest.rogue.line.close_session(guest.rogue.session)
    return seen(await _ask(field, guest, bearer=_port(field).token))


async def _told(field: Field) -> Guest:
    """A host whose session a relying party is told of, with its token.

    Raises:
        NotShown: it is not.
    """
    guest = await field.guest()
    answer = await _ask(field, guest, bearer=_port(field).token)
    if isinstance(answer, Seen):
        raise NotShown("the relying party's own token", answer.message, next(iter(answer.codes), None))
    if answer.state != results_pb2.STATE_OPEN or not answer.token:
        raise NotShown(
            "the relying party's own token", f"the session is not open: {answer.reason}", answer.code or None
        )
    return guest


async def _ask(
    field: Field, guest: Guest, *, bearer: str | None, audience: str | None = None
) -> results_pb2.Result | Seen:
    credentials = grpc.ssl_channel_credentials(root_certificates=field.target.authority)
    audience = audience or field.target.audience
    return await asked(_port(field).address, credentials, guest.rogue.session, bearer=bearer, audience=audience)


def _port(field: Field) -> RelyingParty:
    port = field.target.relying_party
    if port is None:
        raise RuntimeError("no port for relying parties was named")
    return port


PARTY_ATTACKS: Final = (
    Attack(
        name="party-unnamed",
        rows=("A34",),
        does="asks, where relying parties have tokens, without any",
        expected=(Code.WINDOW_PEER,),
        play=_unnamed,
        needs="relying-party",
    ),
    Attack(
        name="party-altered",
        rows=("A34",),
        does="shows a relying party's token with another last character",
        expected=(Code.RELYING_PARTY_UNKNOWN,),
        play=_altered,
        needs="relying-party",
    ),
    Attack(
        name="party-result-token",
        rows=("A34",),
        does="shows a session's result token in the place of a relying party's",
        expected=(Code.RELYING_PARTY_UNKNOWN,),
        play=_result_token,
        needs="relying-party",
    ),
    Attack(
        name="party-other-tenant",
        rows=("A66",),
        does="asks about a session with the token of a relying party of another tenant",
        expected=(Code.SESSION_UNKNOWN,),
        play=_another_tenants,
        needs="relying-party",
    ),
    Attack(
        name="party-other-audience",
        rows=("A34",),
        does="asks for a result token for another relying party",
        expected=(Code.RESULT_AUDIENCE,),
        play=_another_audience,
        needs="relying-party",
    ),
    Attack(
        name="party-ended",
        rows=("A67",),
        does="asks for a result token after the session has ended",
        expected=(Code.SESSION_STATE,),
        play=_ended,
        needs="relying-party",
    ),
)
