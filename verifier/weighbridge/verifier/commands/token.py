"""``weighbridge verify token``: whether a result token is good now."""

from __future__ import annotations

import argparse

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier import result_token
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read

__all__ = ["configure_verify", "run_verify"]


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify token`` to ``parser``."""
    parser.add_argument("token", metavar="FILE", help="a file with the token, or - for standard input")
    parser.add_argument("--audience", required=True, metavar="NAME", help="refuse a token for anybody else")
    parser.add_argument("--anchors", metavar="FILE", action="append", default=[], help="the verifier's keys")
    parser.add_argument(
        "--at", metavar="TIME", default="now", type=given.time, help="judge expiry at this time (default: now)"
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
    """Verify a token against the trusted verifiers' keys.

    Raises:
        WeighbridgeError: as :func:`weighbridge.verifier.result_token.verify`; ``CHAIN_UNTRUSTED`` without a verifier.
    """
    try:
        token = read(arguments.token, limit=limits.TOKEN_MAX).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not ASCII", where="token") from error
    failure: WeighbridgeError = NotAuthentic(
        Code.CHAIN_UNTRUSTED, "no verifier is trusted", where="anchors", hint="name its anchors: --anchors FILE"
    )
    # One issuer signed it; a key that did not is no reason to refuse, so the best refusal is the last one.
    for anchor in load_anchors(arguments.anchors).select("verifier"):
        try:
            result = result_token.verify(
                token, cose.load_p256(anchor.spki, what=anchor.name), audience=arguments.audience, at=arguments.at
            )
            anchor.check_validity(arguments.at)
        except WeighbridgeError as error:
            failure = error
        else:
            return _outcome(result, arguments.accept)
    raise failure


def _outcome(result: result_token.ResultToken, accept: str) -> Outcome:
    good = result.status in {"affirming", accept}
    refused = "" if good else f"REFUSED: authentic, but its status is {result.status}; accepted: {accept}\n"
    hint = "hint: --accept warning, if a warning is enough for you\n" if not good and result.status == "warning" else ""
    text = (
        f"{refused}"
        f"{result.status.upper()}: session {result.session.hex()}, window {result.seq}\n"
        f"  model    {result.model.hex()}\n"
        f"{''.join(f'  adapter  {manifest.hex()}' + chr(10) for manifest in result.adapters)}"
        f"  cnf      {result.cnf.hex()} (SHA-256 of the upstream's TLS key)\n"
        f"  policy   {result.policy}\n"
        f"  expires  {strict.time_encode(result.expires)}\n"
        f"  ledger   index {result.ledger_index}, leaf {result.ledger_leaf.hex()}\n"
        f"{hint}"
    )
    document: strict.JsonObject = {
        "schema": "weighbridge/verify-token/v1",
        "outcome": "accepted" if good else "denied",
        "accept": accept,
        "claims": result.payload,
    }
    return Outcome(text, document, ExitCode.AFFIRMED if good else ExitCode.DENIED)
