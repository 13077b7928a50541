"""``weighbridge verify gpu``: recorded evidence of GPUs and switches, one device's or a whole host's, judged offline.

Reads the evidence and what makers publish, has :mod:`.gpu_judgement` judge, and tells the outcome as a tree or as JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence
from weighbridge.verifier.collateral.describe import FILE_MAX, recognise
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.gpu_document import judged
from weighbridge.verifier.commands.gpu_judgement import judge
from weighbridge.verifier.commands.gpu_tree import tree
from weighbridge.verifier.commands.gpu_verdict import Question
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, taken_for, usage
from weighbridge.verifier.gpu.chain import ARCHITECTURES
from weighbridge.verifier.gpu.recorded import RecordedDevice, load_bytes, load_chain, load_evidence, load_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.proto.collateral import CollateralItem, CollateralKind

__all__ = ["configure", "run"]

_COMMAND: Final = "verify gpu"
_CLAIMED: Final = "claimed"
# As NVIDIA's tools call what certificates call otherwise.
_ALIASES: Final = {"LS10": "LS_10"}
_ALONE: Final = "for a single SPDM report pass its certificates too: --chain FILE"
_DESCRIPTION: Final = """\
Verify recorded evidence of GPUs and NVSwitches, offline: chain, signature and nonce of each device; its
measurements against its maker's manifests; revocation; and in protected-PCIe mode, that all are there. What
no evidence proves is listed at the end."""
_EPILOG: Final = """\
exit status, the worst of all devices:
  0  authentic, every measurement is the maker's, nothing is revoked
  3  malformed   4  not authentic, twice, or not the whole topology
  5  a measurement differs, or a certificate is revoked or on hold
  6  authentic, and not known to be good: what is not known is listed

examples:

a host's devices as NVIDIA's tools write them, with what `weighbridge collateral fetch` has put into a store
  weighbridge verify gpu evidence.json --nonce HEX --at now --collateral /var/lib/weighbridge/collateral

one report, with two manifests out of a package
  weighbridge verify gpu report.bin --chain chain.pem --nonce HEX --at 2026-01-31T12:00:00Z \\
      --rim WHEEL!driver.swidtag --rim WHEEL!vbios.swidtag
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``, and set ``run``."""
    parser.description = _DESCRIPTION
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "evidence",
        metavar="EVIDENCE",
        help="devices in NVIDIA's JSON, or with --chain one SPDM report, raw or hexadecimal: a file, - for standard "
        "input, or ARCHIVE!MEMBER",
    )
    parser.add_argument("--chain", metavar="FILE", help="the certificates of one SPDM report, PEM, leaf first")
    parser.add_argument(
        "--nonce",
        metavar="HEX",
        required=True,
        type=_nonce,
        help=f"what every device was to sign: 64 hexadecimal digits; or {_CLAIMED}: what the file says, which proves "
        "no freshness",
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        required=True,
        type=given.time,
        help="judge by this time (2026-01-31T12:00:00Z, or now)",
    )
    parser.add_argument(
        "--collateral", metavar="DIR", type=Path, help="what makers publish, as weighbridge collateral keeps it"
    )
    parser.add_argument("--rim", metavar="FILE", action="append", default=[], help="a manifest besides (several times)")
    parser.add_argument(
        "--ocsp",
        metavar="FILE",
        action="append",
        default=[],
        help="an OCSP response or a list of revoked certificates besides (several times)",
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="believe these roots; shipped: those shipped (several times; default: shipped)",
    )
    parser.add_argument(
        "--arch",
        metavar="NAME",
        action="append",
        type=_architecture,
        default=[],
        help=f"refuse other architectures than this: {', '.join(ARCHITECTURES)}; LS10 is LS_10 (several times)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> Outcome | ExitCode:
    """Judge, and tell it.

    Raises:
        WeighbridgeError: a file cannot be read, or is not what it is taken for. What is wrong with a device is an
            outcome.
    """
    if [arguments.evidence, arguments.chain, *arguments.rim, *arguments.ocsp, *arguments.anchors].count("-") > 1:
        return usage("only one file can be standard input", command=_COMMAND)
    if arguments.chain is not None and arguments.nonce is None:
        return usage("a single report has no claimed nonce: --nonce HEX", command=_COMMAND)
    question = Question(
        nonce=arguments.nonce,
        at=arguments.at,
        anchors=load_anchors(arguments.anchors),
        architectures=tuple(arguments.arch),
        whole=arguments.chain is None,
    )
    recorded = _evidence(arguments.evidence, arguments.chain)
    collateral = _collateral(arguments)
    judgement = judge(recorded, question, collateral)
    return Outcome(
        tree(judgement, question, collateral, place=arguments.evidence),
        judged(judgement, question, collateral),
        judgement.status,
    )


def _evidence(place: str, chain: str | None) -> tuple[RecordedDevice, ...]:
    if chain is not None:
        return (RecordedDevice(load_report(place), load_chain(chain), None, None),)
    with taken_for(place, what="evidence of devices in JSON", hint=_ALONE):
        return load_evidence(place)


def _collateral(arguments: argparse.Namespace) -> Collateral:
    kept = (
        Collateral()
        if arguments.collateral is None
        else CollateralStore.open(arguments.collateral).snapshot(arguments.at)
    )
    return kept.with_items(
        (
            *(item for place in arguments.rim for item in _pieces(place, "a reference manifest", "rim")),
            *(item for place in arguments.ocsp for item in _pieces(place, "an OCSP response or a list", "ocsp", "crl")),
        )
    )


def _pieces(place: str, what: str, *kinds: CollateralKind) -> Iterator[CollateralItem]:
    hint = "weighbridge collateral wanted EVIDENCE says what to fetch"
    with taken_for(place, what=what, hint=hint):
        for piece in recognise(load_bytes(place, limit=FILE_MAX), where=place):
            if piece.kind not in kinds:
                raise MalformedEvidence(
                    Code.COLLATERAL_INVALID,
                    "a piece of another kind",
                    where=place,
                    expected=" or ".join(kinds),
                    got=piece.kind,
                )
            yield piece.item


def _nonce(text: str) -> bytes | None:
    """``None`` for what the file claims."""
    if text == _CLAIMED:
        return None
    try:
        return strict.hex_decode(text.lower(), what="--nonce", size=limits.NONCE_SIZE)
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(
            f"neither {2 * limits.NONCE_SIZE} hexadecimal digits nor {_CLAIMED}"
        ) from error


def _architecture(text: str) -> str:
    """As certificates call it."""
    name = _ALIASES.get(text, text)
    if name not in ARCHITECTURES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(ARCHITECTURES)}")
    return name
