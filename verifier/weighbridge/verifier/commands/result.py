"""``weighbridge result``: how a session stands, and the token that shows it, asked of a running verifier."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.proto.options import UsageFault
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.identity import add_identity, identity_of
from weighbridge.verifier.commands.outcome import Outcome, read, taken_for, write
from weighbridge.verifier.commands.text import line
from weighbridge.verifier.peers import authorities
from weighbridge.verifier.result.serialisation import PROFILES, Serialisation
from weighbridge.verifier.told import GateState

if TYPE_CHECKING:
    from weighbridge.verifier.result_client import Answered, ResultClient

__all__ = ["configure"]

_SCHEMA: Final = "weighbridge/result/v1"
_PEM_MAX: Final = 8 * limits.CERT_MAX
_AGAIN_S: Final = 1.0
_STATUS: Final = {
    GateState.WAITING: ExitCode.INDETERMINATE,
    GateState.OPEN: ExitCode.AFFIRMED,
    GateState.CLOSED: ExitCode.DENIED,
    GateState.ENDED: ExitCode.DENIED,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``result`` to ``parser``."""
    parser.description = (
        "Ask a verifier, as a relying party that it lists, whether a session's gate is open. The token is shown and "
        "not verified: `weighbridge verify token` does that. Exit status: 0 open, 5 closed or ended, 6 no window was "
        "affirmed yet."
    )
    parser.add_argument("session", metavar="SESSION", type=given.session, help="32 hexadecimal digits")
    parser.add_argument(
        "--verifier", required=True, metavar="HOST:PORT", type=given.listen, help="where the verifier listens"
    )
    parser.add_argument(
        "--verifier-ca", required=True, metavar="FILE", help="PEM: who certifies the verifier's TLS key"
    )
    add_identity(parser)
    parser.add_argument("--audience", metavar="NAME", help="whom the token is for (default: the first listed)")
    parser.add_argument(
        "--serialisation",
        choices=[item.value for item in Serialisation],
        default=Serialisation.EAR_04.value,
        help=f"of the token (default: {Serialisation.EAR_04.value})",
    )
    parser.add_argument(
        "--serving-certificate",
        metavar="FILE",
        help="PEM or DER: what the session's server presents; the token then names its key by x5t#S256 and jkt as well",
    )
    parser.add_argument(
        "--save-jwks",
        metavar="FILE",
        type=Path,
        help="write the verifier's keys for tokens there, as it names them, for `weighbridge verify token --jwks`",
    )
    parser.add_argument("--watch", action="store_true", help="go on, and tell each change, until the session has ended")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with --watch one a line")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome | ExitCode:
    try:
        from weighbridge.verifier.result_client import ResultClient  # noqa: PLC0415 - gRPC, only here
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING, f"{error.name} is not installed", hint="pip install 'weighbridge[server]'"
        ) from error
    if arguments.watch and arguments.serving_certificate is not None:
        raise UsageFault("--serving-certificate is for one answer, not for --watch")
    host, port = arguments.verifier
    credentials = identity_of(arguments)
    client = ResultClient(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", credentials)
    serialisation = Serialisation(arguments.serialisation)
    if arguments.save_jwks is not None:
        write(arguments.save_jwks, asyncio.run(_keys(client)) + b"\n", doing="writing the keys for tokens")
    if arguments.watch:
        return asyncio.run(_watch(client, arguments, serialisation))
    answered = asyncio.run(_get(client, arguments, serialisation))
    return Outcome(_text(answered, serialisation), _document(answered, serialisation), _STATUS[answered.told.state])


async def _keys(client: ResultClient) -> bytes:
    async with client:
        return await client.token_keys()


async def _get(client: ResultClient, arguments: argparse.Namespace, serialisation: Serialisation) -> Answered:
    async with client:
        return await client.get(
            arguments.session,
            audience=arguments.audience,
            serialisation=serialisation,
            certificate=_serving(arguments.serving_certificate),
        )


async def _watch(client: ResultClient, arguments: argparse.Namespace, serialisation: Serialisation) -> ExitCode:
    async with client:
        while True:
            told = client.watch([arguments.session], audience=arguments.audience, serialisation=serialisation)
            async with aclosing(told):
                async for answered in told:
                    if answered is None:
                        continue
                    document = strict.json_encode(_document(answered, serialisation)).decode() + "\n"
                    sys.stdout.write(document if arguments.json else _line(answered))
                    # Whoever waits for it at the other end of a pipe is to have it now.
                    sys.stdout.flush()
                    if answered.told.state is GateState.ENDED:
                        return _STATUS[GateState.ENDED]
            # The verifier has ended the watch in good order, as it does once an hour.
            await asyncio.sleep(_AGAIN_S)


def _serving(path: str | None) -> bytes | None:
    if path is None:
        return None
    data = read(path, limit=_PEM_MAX)
    if not data.lstrip().startswith(b"-----BEGIN"):
        return data
    with taken_for(path, what="a certificate", hint="it is the first one in the file that counts"):
        return authorities(data, where=path)[0].public_bytes(Encoding.DER)


def _head(answered: Answered) -> str:
    told = answered.told
    window = "" if told.seq is None else f", window {told.seq}"
    why = "" if told.code is None else f": {line(told.code)}: {line(told.reason)}"
    return f"{told.state.value.upper()}: session {answered.session.hex()}{window}{why}"


def _line(answered: Answered) -> str:
    at = strict.time_encode(moment(answered.told.at_ns))
    return f"{at}  {_head(answered)}{''.join(f', until {_time(ns)}' for ns in _expiry(answered))}\n"


def _text(answered: Answered, serialisation: Serialisation) -> str:
    token = "" if answered.token is None else f"  token    {_token(answered.token, serialisation)}\n"
    expires = "".join(f"  expires  {_time(ns)}\n" for ns in _expiry(answered))
    return f"{_head(answered)}\n{expires}{token}"


def _expiry(answered: Answered) -> list[int]:
    return [] if answered.told.expires_ns is None else [answered.told.expires_ns]


def _time(ns: int) -> str:
    return strict.time_encode(moment(ns))


def _token(token: bytes, serialisation: Serialisation) -> str:
    """A JWT as it is; a CWT as base64url."""
    return strict.base64url_encode(token) if PROFILES[serialisation].binary else line(token.decode("ascii", "replace"))


def _document(answered: Answered, serialisation: Serialisation) -> strict.JsonObject:
    told = answered.told
    return {
        "schema": _SCHEMA,
        "session": answered.session.hex(),
        "state": told.state.value,
        "at": _time(told.at_ns),
        "expires": None if told.expires_ns is None else _time(told.expires_ns),
        "code": told.code,
        "reason": told.reason or None,
        "seq": told.seq,
        "media_type": PROFILES[serialisation].media_type,
        "token": None if answered.token is None else _token(answered.token, serialisation),
    }
