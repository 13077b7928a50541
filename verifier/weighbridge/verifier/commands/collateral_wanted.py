"""``weighbridge collateral wanted | fetch``: what given evidence needs, where it is published, and getting it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import hosts, limits, strict
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence, WeighbridgeError
from weighbridge.verifier.bundle_format import Bundle
from weighbridge.verifier.bundle_reports import recorded_reports
from weighbridge.verifier.collateral.fetch import fetch
from weighbridge.verifier.collateral.https import HttpsFetcher
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.collateral.wanted import held, wanted_for, wanted_for_manifests, wanted_for_reports
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read, taken_for, usage
from weighbridge.verifier.commands.text import counted, plain
from weighbridge.verifier.gpu.recorded import load_chain, load_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from weighbridge.verifier.collateral.describe import Description
    from weighbridge.verifier.collateral.fetch import Fetched
    from weighbridge.verifier.collateral.wanted import Wanted

__all__ = ["configure_fetch", "configure_wanted"]

# A proof bundle is a map in CBOR, whatever else is evidence begins otherwise.
_MAPS: Final = tuple(bytes([0xA0 + size]) for size in range(24))
_PARALLEL_MAX: Final = 32
_REQUESTS_MAX: Final = 10_000
_SECONDS_MAX: Final = 600
_OUTCOMES: Final = ("new", "same", "held", "left", "failed")


def _add_evidence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "evidence",
        metavar="EVIDENCE",
        help="a session.wb file, devices in NVIDIA's JSON, an SPDM report, an SEV-SNP or HCL report, a TD quote, or an "
        "NRAS answer",
    )
    parser.add_argument("--chain", metavar="FILE", help="certificates of an SPDM report, PEM, leaf first")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="believe these roots; shipped: those shipped (several times; default: shipped)",
    )
    parser.add_argument("--at", metavar="TIME", default="now", type=given.time, help="at this time (default: now)")


# -- wanted ------------------------------------------------------------------------------------------------------------


def configure_wanted(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``collateral wanted`` to ``parser``."""
    parser.description = (
        "Say what this evidence needs to be judged, and where its maker publishes it: to be fetched by anybody, on any "
        "machine. With a store, say what is at hand already (exit 6 where something is missing). A GPU's evidence must "
        "verify, and so must a session, under the anchors of its verifier and TPM. OCSP requests are sent with POST; "
        "--json has them in base64."
    )
    _add_evidence(parser)
    parser.add_argument("--store", metavar="DIR", type=Path, help="look what is in this store already")
    parser.set_defaults(run=_run_wanted)


def _wanted(arguments: argparse.Namespace) -> tuple[Wanted, ...]:
    trusted = load_anchors(arguments.anchors)
    if arguments.chain is None:
        chain, data = None, read(arguments.evidence, limit=limits.BUNDLE_MAX)
    else:
        chain, data = load_chain(arguments.chain), load_report(arguments.evidence)
    if chain is None and data[:1] in _MAPS:
        with taken_for(
            arguments.evidence, what="a proof bundle", hint="name a whole file that `weighbridge export` wrote"
        ):
            bundle = Bundle.parse(data)
        # A session's devices are those of its enrolment, at every window.
        return wanted_for_reports(recorded_reports(bundle, anchors=trusted, seq=None).devices)
    with taken_for(arguments.evidence, what="evidence", hint="weighbridge collateral wanted --help lists what is"):
        return wanted_for(data, anchors=trusted, at=arguments.at, chain=chain)


def _with_signers(wanted: Sequence[Wanted], pieces: Iterable[Description]) -> tuple[Wanted, ...]:
    """``wanted``, and what the signers of those manifests need that are at hand."""
    subjects = {each.subject for each in wanted if each.kind == "rim"}
    manifests = [piece for piece in pieces if piece.kind == "rim" and piece.subject in subjects]
    known = {(each.kind, each.subject, each.urls) for each in wanted}
    more = [each for each in wanted_for_manifests(manifests) if (each.kind, each.subject, each.urls) not in known]
    return (*wanted, *more)


def _run_wanted(arguments: argparse.Namespace) -> Outcome:
    wanted = _wanted(arguments)
    pieces = () if arguments.store is None else CollateralStore.open(arguments.store).pieces()
    wanted = _with_signers(wanted, pieces)
    serving = [held(each, pieces, arguments.at) for each in wanted]
    ends = [
        None if piece is not None else _ended(each, pieces, arguments.at)
        for each, piece in zip(wanted, serving, strict=True)
    ]
    missing = sum(1 for each, piece in zip(wanted, serving, strict=True) if piece is None and not each.optional)
    lines: list[str] = []
    for each, piece, ended in zip(wanted, serving, ends, strict=True):
        until = "" if piece is None or piece.expires is None else f" until {piece.expires:%Y-%m-%d %H:%M}Z"
        state = "held" if piece is not None else "optional" if each.optional else "missing"
        if ended is not None:
            until = f" ended {ended:%Y-%m-%d %H:%M}Z"
        lines.append(f"{state:<8} {each.kind:<5} {plain(each.subject)}{until}")
        lines.append(f"{'':<14} {plain(each.about)}")
        verb = "GET " if each.body is None else "POST"
        lines += [f"{'':<14} {verb} {url}" for url in each.urls]
    lines.append(f"{counted(len(wanted), 'piece')} wanted, {missing} missing")
    if any(each.kind == "rim" for each in wanted):
        lines.append("a manifest's signer is asked about once the manifest is in the store")
    is_short = missing and arguments.store is not None
    document: strict.JsonObject = {
        "schema": "weighbridge/collateral-wanted/v1",
        "at": strict.time_encode(arguments.at),
        "missing": missing,
        "wanted": [
            {
                **_wish(each),
                "held": None if piece is None else piece.document(),
                "ended": None if ended is None else strict.time_encode(ended),
            }
            for each, piece, ended in zip(wanted, serving, ends, strict=True)
        ],
    }
    return Outcome("\n".join(lines) + "\n", document, ExitCode.INDETERMINATE if is_short else ExitCode.AFFIRMED)


def _ended(wanted: Wanted, pieces: Iterable[Description], at: datetime) -> datetime | None:
    """When the last piece at hand that would serve has ended."""
    about = [piece for piece in pieces if (piece.kind, piece.subject) == (wanted.kind, wanted.subject)]
    return max((piece.expires for piece in about if piece.expires is not None and piece.expires < at), default=None)


def _wish(wanted: Wanted) -> strict.JsonObject:
    return {
        "kind": wanted.kind,
        "subject": wanted.subject,
        "about": wanted.about,
        "urls": list(wanted.urls),
        "optional": wanted.optional,
        "post": None if wanted.body is None else strict.base64_encode(wanted.body),
    }


# -- fetch -------------------------------------------------------------------------------------------------------------


def configure_fetch(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``collateral fetch`` to ``parser``."""
    parser.description = (
        "Fetch what this evidence needs into the store, which is made if it is not there: from its makers' own servers "
        "by HTTPS, or from a mirror of them. What is fresh is not asked for again, manifests always are. Exit 8 where "
        "something could not be had that nothing else serves for; the rest is kept."
    )
    _add_evidence(parser)
    parser.add_argument("--store", metavar="DIR", type=Path, required=True, help="the store; its parent exists")
    parser.add_argument("--mirror", metavar="URL", help="ask URL/HOST/PATH instead: HTTPS, or HTTP on this machine")
    parser.add_argument("--proxy", metavar="HOST:PORT", type=_place, help="go through this proxy (CONNECT)")
    parser.add_argument("--ca", metavar="FILE", type=Path, help="servers must lead to these certificates, PEM")
    numbers = (
        ("--limit", "N", 1000, _REQUESTS_MAX, "ask for at most N pieces"),
        ("--parallel", "N", 4, _PARALLEL_MAX, "ask for so many at once"),
        ("--timeout", "SECONDS", 20, _SECONDS_MAX, "wait so long for each answer"),
    )
    for option, name, default, limit, what in numbers:
        parser.add_argument(
            option,
            metavar=name,
            default=default,
            type=_positive(option, limit),
            help=f"{what} (default: {default})",
        )
    parser.set_defaults(run=_run_fetch)


def _positive(option: str, limit: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = given.decimal(text, what=option, limit=limit)
        if value == 0:
            raise argparse.ArgumentTypeError("at least 1")
        return value

    return parse


def _place(text: str) -> tuple[str, int]:
    try:
        return hosts.host_port(text, what="the proxy")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {text!r}") from error


def _run_fetch(arguments: argparse.Namespace) -> Outcome | ExitCode:
    try:
        fetcher = HttpsFetcher(
            seconds=arguments.timeout, mirror=arguments.mirror, proxy=arguments.proxy, authorities=arguments.ca
        )
    except ValueError as error:
        return usage(f"--mirror: {error}", command="collateral fetch")
    wanted = _wanted(arguments)
    store = CollateralStore.create(arguments.store)
    at, parallel = arguments.at, arguments.parallel
    done = list(fetch(wanted, store, fetcher, at=at, parallel=parallel, limit=arguments.limit))
    asked = sum(1 for each in done if each.outcome not in ("held", "left"))
    # Whose signature is on a manifest is known once it is there.
    signers = _with_signers(wanted, store.pieces())[len(wanted) :]
    done += fetch(signers, store, fetcher, at=at, parallel=parallel, limit=arguments.limit - asked)
    return _fetched(done, arguments.store)


def _told(error: WeighbridgeError) -> list[str]:
    """What went wrong, and on a line of its own where: addresses are long."""
    parts = [f"{error.code.value}: {error.message}"]
    parts += [f"{what} {value}" for what, value in (("expected", error.expected), ("got", error.got)) if value]
    return [plain(line) for line in (", ".join(parts), error.where) if line]


def _fetched(done: Sequence[Fetched], store: Path) -> Outcome:
    lines: list[str] = []
    for each in done:
        lines.append(f"{each.outcome:<7} {each.wanted.kind:<5} {plain(each.wanted.subject)}")
        if each.error is not None:
            lines += [f"{'':<13} {line}" for line in _told(each.error)]
    counts = {outcome: sum(1 for each in done if each.outcome == outcome) for outcome in _OUTCOMES}
    lines.append(f"{store}: " + ", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    errors = [each.error for each in done if each.error is not None and not each.wanted.optional]
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    lines += [f"hint: {plain(hint)}" for hint in hints]
    failed = any(each.outcome in ("failed", "left") and not each.wanted.optional for each in done)
    document: strict.JsonObject = {
        "schema": "weighbridge/collateral-fetch/v1",
        "store": str(store),
        "code": Code.COLLATERAL_FETCH.value if failed else None,
        **counts,
        "wanted": [
            {
                **_wish(each.wanted),
                "outcome": each.outcome,
                "pieces": [piece.document() for piece in each.pieces],
                "error": None if each.error is None else dict(each.error.document()),
            }
            for each in done
        ],
    }
    return Outcome("\n".join(lines) + "\n", document, ExitCode.ENVIRONMENT if failed else ExitCode.AFFIRMED)
