"""``weighbridge verify token``: whether a result token is good now."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, ExitCode, NotAuthentic
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read
from weighbridge.verifier.result import jwks
from weighbridge.verifier.result.issuing import CWT_TAG
from weighbridge.verifier.result.serialisation import PROFILES, Serialisation
from weighbridge.verifier.result.trusted import TrustedKey, TrustedKeys
from weighbridge.verifier.result.verifying import ResultToken, verify_any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.anchors import Anchor

__all__ = ["configure_verify", "run_verify"]


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify token`` to ``parser``."""
    parser.add_argument("token", metavar="FILE", help="a file with the token, or - for standard input")
    parser.add_argument("--audience", required=True, metavar="NAME", help="refuse a token for anybody else")
    parser.add_argument("--anchors", metavar="FILE", action="append", default=[], help="the verifier's keys")
    parser.add_argument(
        "--jwks",
        metavar="FILE",
        help="the verifier's keys for tokens, as `weighbridge token jwks` prints them: only those that a key in the "
        "anchors endorses are believed",
    )
    parser.add_argument(
        "--at", metavar="TIME", default="now", type=given.time, help="judge expiry at this time (default: now)"
    )
    parser.add_argument(
        "--serialisation",
        choices=[one.value for one in Serialisation],
        help="take this one alone (default: any; the token's signed header says which it is)",
    )
    parser.add_argument(
        "--accept",
        choices=("affirming", "warning"),
        default="affirming",
        help="the worst status to accept (default: affirming); emulated platforms never get better than warning",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=run_verify)


def run_verify(arguments: argparse.Namespace) -> Outcome:
    """Verify a token against the trusted verifiers' keys, and those that they have endorsed.

    Raises:
        WeighbridgeError: as :func:`weighbridge.verifier.result.verify_any`; ``CHAIN_UNTRUSTED`` without a verifier,
            ``CHAIN_EXPIRED`` where it is not trusted at that time.
    """
    token = read(arguments.token, limit=limits.TOKEN_MAX)
    anchors = load_anchors(arguments.anchors).select("verifier")
    if not anchors:
        raise NotAuthentic(
            Code.CHAIN_UNTRUSTED, "no verifier is trusted", where="anchors", hint="name its anchors: --anchors FILE"
        )
    only = arguments.serialisation
    result = verify_any(
        # A CWT may end with any byte; what an editor adds to a text is none of it.
        token if token.startswith(CWT_TAG) else token.strip(),
        _keys(anchors, arguments.jwks),
        audiences=(arguments.audience,),
        at=arguments.at,
        accepted=frozenset(Serialisation) if only is None else (Serialisation(only),),
    )
    _anchor_of(result, anchors).check_validity(arguments.at)
    return _outcome(result, arguments.accept)


def _keys(anchors: Sequence[Anchor], path: str | None) -> TrustedKeys:
    identities = [TrustedKey(cose.load_p256(anchor.spki, what=anchor.name)) for anchor in anchors]
    return TrustedKeys(identities) if path is None else jwks.read(read(path, limit=limits.JWKS_MAX), identities)


def _anchor_of(result: ResultToken, anchors: Sequence[Anchor]) -> Anchor:
    return next(anchor for anchor in anchors if anchor.sha256 == result.verifier.hex())


def _outcome(result: ResultToken, accept: str) -> Outcome:
    good = result.status in {"affirming", accept}
    refused = "" if good else f"REFUSED: authentic, but its status is {result.status}; accepted: {accept}\n"
    hint = "hint: --accept warning, if a warning is enough for you\n" if not good and result.status == "warning" else ""
    text = (
        f"{refused}"
        f"{result.status.upper()}: session {result.session.hex()}, window {result.seq}\n"
        f"  model    {result.model.hex()}\n"
        f"{''.join(f'  adapter  {manifest.hex()}' + chr(10) for manifest in result.adapters)}"
        f"  cnf      {result.cnf.hex()} (SHA-256 of the upstream's TLS key)\n"
        f"{_other_names(result)}"
        f"  policy   {result.policy}\n"
        f"  expires  {strict.time_encode(result.expires)}\n"
        f"  ledger   index {result.ledger_index}, leaf {result.ledger_leaf.hex()}\n"
        f"{_how(result)}"
        f"{hint}"
    )
    document: strict.JsonObject = {
        "schema": "weighbridge/verify-token/v1",
        "outcome": "accepted" if good else "denied",
        "accept": accept,
        "serialisation": result.serialisation.value,
        "key": result.key.hex(),
        "verifier": result.verifier.hex(),
        "claims": result.payload,
    }
    return Outcome(text, document, ExitCode.AFFIRMED if good else ExitCode.DENIED)


def _other_names(result: ResultToken) -> str:
    named = {
        "jkt": (result.confirmation.jkt, "its thumbprint as a JWK"),
        "x5t#S256": (result.confirmation.x5t_s256, "SHA-256 of its certificate"),
    }
    return "".join(
        f"  {name:<8} {value.hex()} ({what})\n" for name, (value, what) in named.items() if value is not None
    )


def _how(result: ResultToken) -> str:
    """How it was written down, and by which key, where it is not as usual."""
    form = ""
    if result.serialisation is not Serialisation.EAR_04:
        form = f"  form     {result.serialisation.value}: {PROFILES[result.serialisation].media_type}\n"
    key = (
        "" if result.key == result.verifier else f"  key      {result.key.hex()}, endorsed by {result.verifier.hex()}\n"
    )
    return form + key
