"""``weighbridge verify nras``: what NVIDIA's attestation service said of some devices, as a witness.

The devices are known by a nonce and their chains, or by a recorded session: then the bundle is verified up to the
window that is asked for, the nonce is the one that its devices signed, and what the service says is held against their
reports. No policy is asked.

The best answer is *indeterminate* (exit 6): a witness corroborates and admits nothing. One that speaks against a
device, or says what its report does not, refuses (exit 5).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.verifier.bundle_reports import recorded_reports
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.bundle import read_bundle
from weighbridge.verifier.commands.nras_show import ENROLMENT, Held, outcome
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read, usage
from weighbridge.verifier.gpu import GPUS_AND_SWITCHES, verify_chain
from weighbridge.verifier.gpu.nras import claimed_beginning, compare, parse, verify_nras
from weighbridge.verifier.gpu.recorded import load_chain

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.gpu import VerifiedGpuChain

__all__ = ["configure_verify", "run_verify"]

_WINDOWS_MAX: Final = 2**32


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify nras`` to ``parser``."""
    parser.description = (
        "Verify an answer of NVIDIA's attestation service, offline: algorithm, issuer, keys, signatures, digests of "
        "the devices' tokens, nonce, times. With --bundle and --window the nonce and the devices are those of a "
        "recorded window, verified again without a policy, and what the service says is held against their reports. "
        "What it says against a device refuses (exit 5). It admits nothing: the best answer is exit 6."
    )
    parser.add_argument("answer", metavar="TOKEN", help="the service's answer, JSON; - for standard input")
    parser.add_argument(
        "--jwks",
        metavar="FILE",
        action="append",
        default=[],
        help="its key set, fetched in the hour of the answer (several times)",
    )
    parser.add_argument(
        "--collateral",
        metavar="DIR",
        type=Path,
        help="a collateral store: the key sets in it that are of the answer's time, beside --jwks",
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--nonce", metavar="HEX", type=_nonce, help="what it was asked over: 64 hexadecimal digits")
    asked.add_argument(
        "--bundle", metavar="FILE", help="a session.wb file: it was asked over what its devices signed in --window"
    )
    parser.add_argument(
        "--window",
        metavar="K",
        type=_window,
        help="the window of --bundle, from 0 on, or `enrolment`",
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        required=True,
        type=given.time,
        help="judge the answer's validity at this time (2026-01-31T12:00:00Z, or now)",
    )
    parser.add_argument(
        "--chain",
        metavar="FILE",
        action="append",
        default=[],
        help="with --nonce, the chain of a device, PEM, leaf first: refuse an answer about others (once for each)",
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="who is believed, for nras-root and devices, and for a bundle its verifier and TPMs; shipped: those "
        "shipped (several times; none is shipped for nras-root)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=run_verify)


def run_verify(arguments: argparse.Namespace) -> Outcome | int:
    """Verify an answer, and tell what the service said.

    Raises:
        WeighbridgeError: as :func:`weighbridge.verifier.gpu.nras.verify_nras`,
            :func:`weighbridge.verifier.gpu.verify_chain` and
            :func:`weighbridge.verifier.bundle_reports.recorded_reports`; ``FILE_UNREADABLE``, ``STATE_CORRUPT``.
    """
    wrong = _misused(arguments)
    if wrong is not None:
        return usage(wrong, command="verify nras")
    anchors = load_anchors(arguments.anchors)
    data = read(arguments.answer, limit=limits.NRAS_ANSWER_MAX)
    jwks = _key_sets(arguments, data)
    if arguments.bundle is None:
        said = verify_nras(data, jwks=jwks, anchors=anchors, at=arguments.at, nonce=arguments.nonce)
        chains = [_chain(path, anchors, arguments.at) for path in arguments.chain]
        if chains:
            said.require_devices([chain.certificates[0].serial_number for chain in chains])
        return outcome(said, named=bool(chains))
    seq = None if arguments.window == ENROLMENT else arguments.window
    recorded = recorded_reports(read_bundle(arguments.bundle), anchors=anchors, seq=seq)
    said = verify_nras(data, jwks=jwks, anchors=anchors, at=arguments.at, nonce=recorded.nonce)
    compared = compare(
        said,
        recorded.devices,
        measured=lambda report: recorded.published.measured(report, at=recorded.received).status,
    )
    return outcome(said, named=True, held=Held(recorded, compared))


def _misused(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the arguments, where each alone is right."""
    if not arguments.jwks and arguments.collateral is None:
        return "--jwks or --collateral is needed: the service's archived keys"
    if (arguments.bundle is None) != (arguments.window is None):
        return "--bundle and --window need each other"
    if arguments.bundle is not None and arguments.chain:
        return "--chain is for --nonce: a bundle has the chains of its devices"
    if [arguments.answer, arguments.bundle, *arguments.jwks, *arguments.chain].count("-") > 1:
        return "only one file can be standard input"
    return None


def _key_sets(arguments: argparse.Namespace, answer: bytes) -> list[bytes]:
    """The archived key sets: those that are named, and those of the store that are of the time of ``answer``."""
    named = [read(path, limit=limits.COLLATERAL_ITEM_MAX) for path in arguments.jwks]
    if arguments.collateral is None:
        return named
    store = CollateralStore.open(arguments.collateral)
    return [*named, *store.snapshot(claimed_beginning(parse(answer))).of_kind("jwks")]


def _chain(path: str, anchors: TrustAnchors, at: datetime) -> VerifiedGpuChain:
    return verify_chain(load_chain(path), anchors, at=at, accept=GPUS_AND_SWITCHES)


def _window(text: str) -> int | str:
    """A window's number, or the word for the enrolment."""
    return text if text == ENROLMENT else given.decimal(text, what="the window", limit=_WINDOWS_MAX)


def _nonce(text: str) -> bytes:
    """Any length: a wrong one is refused by the verification, with its own code."""
    try:
        return strict.hex_decode(text.lower(), what="--nonce")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError("not hexadecimal") from error
