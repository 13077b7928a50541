"""``weighbridge verify nras``: what NVIDIA's attestation service said of some devices, as a witness.

The best answer is *indeterminate* (exit 6): a witness corroborates and admits nothing. One that speaks against a device
refuses (exit 5).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence
from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read
from weighbridge.verifier.gpu import GPUS_AND_SWITCHES, verify_chain
from weighbridge.verifier.gpu.nras import verify_nras
from weighbridge.verifier.gpu.recorded import load_chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.gpu.nras import VerifiedNras, WitnessedDevice

__all__ = ["configure_verify", "run_verify"]

_SCHEMA: Final = "weighbridge/verify-nras/v1"
_STATEMENT: Final = "the service said so over this nonce; a witness admits nothing by itself"
_EMULATED: Final = "the service is emulated: anybody can make one"


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify nras`` to ``parser``."""
    parser.description = (
        "Verify an answer of NVIDIA's attestation service, offline: algorithm, issuer, keys, signatures, digests of "
        "the devices' tokens, nonce, times. What it says against a device refuses (exit 5). It admits nothing: the "
        "best answer is exit 6."
    )
    parser.add_argument("answer", metavar="TOKEN", help="the service's answer, JSON; - for standard input")
    parser.add_argument(
        "--jwks",
        metavar="FILE",
        action="append",
        required=True,
        help="its key set, fetched in the hour of the answer (several times)",
    )
    parser.add_argument(
        "--nonce", metavar="HEX", required=True, type=_nonce, help="what it was asked over: 64 hexadecimal digits"
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        required=True,
        type=given.time,
        help="judge validity at this time (2026-01-31T12:00:00Z, or now)",
    )
    parser.add_argument(
        "--chain",
        metavar="FILE",
        action="append",
        default=[],
        help="the chain of a device, PEM, leaf first: refuse an answer about others (once for each device)",
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="who is believed, for nras-root and devices (several times; none is shipped for nras-root)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=run_verify)


def run_verify(arguments: argparse.Namespace) -> Outcome:
    """Verify an answer, and tell what the service said.

    Raises:
        WeighbridgeError: as :func:`weighbridge.verifier.gpu.nras.verify_nras` and
            :func:`weighbridge.verifier.gpu.verify_chain`; ``FILE_UNREADABLE``.
    """
    anchors = load_anchors(arguments.anchors)
    said = verify_nras(
        read(arguments.answer, limit=limits.NRAS_ANSWER_MAX),
        jwks=[read(path, limit=limits.COLLATERAL_ITEM_MAX) for path in arguments.jwks],
        anchors=anchors,
        at=arguments.at,
        nonce=arguments.nonce,
    )
    chains = [
        verify_chain(load_chain(path), anchors, at=arguments.at, accept=GPUS_AND_SWITCHES) for path in arguments.chain
    ]
    serials = [chain.certificates[0].serial_number for chain in chains]
    if serials:
        said.require_devices(serials)
    return _outcome(said, compared=bool(serials))


def _outcome(said: VerifiedNras, *, compared: bool) -> Outcome:
    refused = bool(said.contradictions)
    warnings = [*said.warnings, *([_EMULATED] if said.platform == EMULATED_PLATFORM else [])]
    unproven = _unproven(compared=compared)
    code = Code.NRAS_CONTRADICTS if refused else Code.UNPROVEN
    head = "REFUSED" if refused else "INDETERMINATE"
    reason = "the service speaks against a device" if refused else f"corroborates: {_STATEMENT}"
    lines = [
        f"{head}: {code.value}: {reason}",
        f"  issuer   {said.issuer}, claims {said.version}, platform {said.platform}",
        f"  nonce    {said.nonce.hex()}",
        f"  valid    {strict.time_encode(said.issued)} to {strict.time_encode(said.expires)}",
        *(f"  {device.name:<8} {_line(device)}" for device in said.devices),
        *(f"  against  {found}" for found in said.contradictions),
        *(f"  warning  {text}" for text in warnings),
        *(f"  unproven {text}" for text in unproven),
    ]
    document: strict.JsonObject = {
        "schema": _SCHEMA,
        "result": "refused" if refused else "indeterminate",
        "code": code.value,
        "says": said.says,
        "platform": said.platform,
        "issuer": said.issuer,
        "version": said.version,
        "nonce": said.nonce.hex(),
        "issued": strict.time_encode(said.issued),
        "expires": strict.time_encode(said.expires),
        "sha256": said.digest.hex(),
        "claims": dict(said.claims),
        "devices": {device.name: dict(device.claims) for device in said.devices},
        "contradictions": [
            {"claim": found.claim, "expected": found.expected, "got": found.got} for found in said.contradictions
        ],
        "warnings": list(warnings),
        "not_verified": list(unproven),
    }
    text = "".join(f"{_printable(line)}\n" for line in lines)
    return Outcome(text, document, ExitCode.DENIED if refused else ExitCode.INDETERMINATE)


def _unproven(*, compared: bool) -> Sequence[str]:
    return (
        *(() if compared else ("that the devices are yours: name their chains, --chain FILE",)),
        "whether the service's own certificates are revoked",
        "confidential mode: no claim says that it is on",
        "secboot and dbgstat: they follow measres, and rest on no evidence of their own",
    )


def _line(device: WitnessedDevice) -> str:
    claims = device.claims
    told = ", ".join(
        f"{claim} {value if isinstance(value := claims[claim], str) else strict.json_encode(value).decode()}"
        for claim in ("hwmodel", "measres", "secboot", "dbgstat")
        if claim in claims
    )
    return f"{told or 'nothing'}, serial number {device.ueid or 'not told'}"


def _printable(line: str) -> str:
    """Claims are whatever their issuer wrote: no escape sequence reaches a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def _nonce(text: str) -> bytes:
    """Any length: a wrong one is refused by the verification, with its own code."""
    try:
        return strict.hex_decode(text.lower(), what="--nonce")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError("not hexadecimal") from error
