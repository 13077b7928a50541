"""``weighbridge verify bundle``: every verdict of a recorded session, made again from the file alone."""

from __future__ import annotations

import argparse
import gc
import sys
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy import policy_set
from weighbridge.proto import limits
from weighbridge.proto.errors import (
    Code,
    EnvironmentFault,
    ExitCode,
    Indeterminate,
    LedgerInconsistent,
    MalformedEvidence,
    NotAuthentic,
    PolicyDenied,
)
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.bundle import Bundle, BundleVerdict, verify
from weighbridge.verifier.bundle_checks import Trail
from weighbridge.verifier.bundle_records import verify_records
from weighbridge.verifier.bundle_verdict import require_closed
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import bundle_text
from weighbridge.verifier.commands.bundle_recorded import records, records_status
from weighbridge.verifier.commands.bundle_text import RECORDED
from weighbridge.verifier.commands.engines import DEFAULT, add_engine
from weighbridge.verifier.commands.foreign import add_foreign, is_foreign, with_foreign
from weighbridge.verifier.commands.outcome import (
    Outcome,
    load_anchors,
    load_policy,
    read,
    read_reference,
    taken_for,
    usage,
    with_sets,
)
from weighbridge.verifier.identifiers import identifiers
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, PolicyEngine, Prepared
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = [
    "configure_judging",
    "configure_verify",
    "judge",
    "misused",
    "parse_bundle",
    "policies_of",
    "read_bundle",
    "run_verify",
    "status_of",
]

# Objects that are made between two looks for cycles among the youngest: Python's own number is 700.
_YOUNG: Final = 100_000


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify bundle`` to ``parser``."""
    parser.description = (
        "Verify a recorded session from the file alone, with the keys and at the time that you name, make every "
        "verdict of it again, and print each check with what it leaves open. Exit 0 when it is admitted, 3 malformed, "
        "4 not authentic, 5 denied, 6 indeterminate, also where evidence is withheld, 7 when it contradicts its ledger "
        "or its records. `attester` says whether it is proven which "
        "code measured, or what is missing: docs/attester-code.md."
    )
    configure_judging(parser)
    parser.add_argument(
        "--records-only",
        action="store_true",
        help="judge nothing again: say what the verifier recorded, by its word; all that a redacted bundle shows",
    )
    parser.add_argument(
        "--closed",
        action="store_true",
        help="exit 6 unless the session was closed in it: else whoever gave you the file may have cut off its end",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=run_verify)


def configure_judging(parser: argparse.ArgumentParser) -> None:
    """Add the bundle, and by what it is judged, to ``parser``."""
    parser.add_argument("bundle", metavar="FILE", help="a session.wb file, or - for standard input")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="believe these keys, of its verifier and of makers, instead of those shipped; shipped: those as well "
        "(several times)",
    )
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        default=[],
        help=f"a policy that comes with Weighbridge ({', '.join(policy_set.SHIPPED)}), a Rego file (several times for "
        "several modules), or recorded: each window by the one that judged it (default)",
    )
    add_foreign(parser)
    add_engine(parser)
    parser.add_argument("--reference", metavar="FILE", help="reference values to judge by (default: the recorded ones)")
    parser.add_argument(
        "--models",
        "--hosts",
        dest="models",
        metavar="FILE",
        action="append",
        default=[],
        help="a signed set of a models' or a hosts' owner, beside --reference (several times)",
    )
    parser.add_argument(
        "--collateral",
        metavar="DIR",
        type=Path,
        help="judge by what makers of hardware publish as this store had it at --at: what was revoked since counts "
        "(default: what the records name)",
    )
    parser.add_argument(
        "--at",
        type=given.time,
        metavar="TIME",
        help="the time from which you look, such as 2026-01-31T12:00:00Z (default: now): nothing is believed that was "
        "recorded later; each window is judged at the time when it was received",
    )


def read_bundle(path: str) -> Bundle:
    """The bundle in the file ``path``. Nothing of it is verified.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :meth:`Bundle.parse`, naming the file, or ``TOO_LARGE``.
    """
    return parse_bundle(read(path, limit=limits.BUNDLE_MAX), path)


def parse_bundle(data: bytes, path: str) -> Bundle:
    """The bundle that ``data`` is, which was read from the file ``path``. Nothing of it is verified.

    Raises:
        MalformedEvidence: as :meth:`Bundle.parse`, naming the file.
    """
    with taken_for(path, what="a proof bundle", hint="name a whole file that `weighbridge export` wrote"):
        return Bundle.parse(data)


def run_verify(arguments: argparse.Namespace) -> Outcome | int:
    """Verify and appraise a bundle again; exit 5 when a window was or is denied.

    Raises:
        WeighbridgeError: as :func:`weighbridge.verifier.bundle.verify`.
    """
    if (wrong := misused(arguments, command="verify bundle")) is not None:
        return wrong
    bundle, trail = read_bundle(arguments.bundle), Trail()
    try:
        if arguments.records_only:
            anchors = load_anchors(arguments.anchors)
            told = verify_records(bundle, anchors=anchors, at=arguments.at or datetime.now(UTC), trail=trail)
            if arguments.closed and records_status(told) != ExitCode.DENIED:
                require_closed(closed=told.closed)
            return records(told)
        result = judge(arguments, bundle, trail=trail)
        status, word = status_of(result)
        if arguments.closed and status != ExitCode.DENIED:
            require_closed(closed=result.closed)
        return bundle_text.judged(
            result, policies_of(arguments), status=status, word=word, given_away=identifiers(bundle)
        )
    except (MalformedEvidence, NotAuthentic, LedgerInconsistent, Indeterminate) as error:
        # Before the first stage it is what else was given that is wrong; programs get the error's own document.
        if trail.stage != "bundle" and not arguments.json:
            sys.stdout.write(bundle_text.failed(error, trail))
        raise


def misused(arguments: argparse.Namespace, *, command: str) -> ExitCode | None:
    """Say which arguments of ``command`` do not fit together, if some do not; the exit status then."""
    if getattr(arguments, "records_only", False) and (unused := _judging(arguments)):
        return usage(f"--records-only: nothing is judged again, so it takes no {', '.join(unused)}", command=command)
    if arguments.models and arguments.reference is None:
        return usage("--models and --hosts need --reference", command=command)
    if is_foreign(arguments) and arguments.policy in ([], [RECORDED]):
        return usage("--foreign needs --policy: the recorded policy has its own", command=command)
    return None


def _judging(arguments: argparse.Namespace) -> list[str]:
    """The options that were given of those that say by what it is judged again."""
    given_ones = {
        "--policy": arguments.policy,
        "--foreign": is_foreign(arguments) or arguments.foreign_values,
        "--engine": arguments.engine != DEFAULT,
        "--reference": arguments.reference,
        "--models": arguments.models,
        "--collateral": arguments.collateral,
    }
    return [option for option, value in given_ones.items() if value]


def policies_of(arguments: argparse.Namespace) -> list[str]:
    """By which policies it is judged, as it was asked for."""
    return arguments.policy or [RECORDED]


def judge(arguments: argparse.Namespace, bundle: Bundle, *, trail: Trail | None = None) -> BundleVerdict:
    """``bundle`` verified and appraised again, as ``arguments`` say.

    Args:
        arguments: of :func:`configure_judging`.
        bundle: parsed, untrusted.
        trail: is told how far this came.

    Raises:
        WeighbridgeError: as :func:`weighbridge.verifier.bundle.verify`.
    """
    anchors = load_anchors(arguments.anchors)
    own = None
    if arguments.reference is not None:
        own = with_sets(read_reference(arguments.reference), arguments.models, anchors)
    at = arguments.at or datetime.now(UTC)
    published = _published(arguments.collateral, anchors, at)
    names = policies_of(arguments)
    engine = arguments.engine.open()
    manifests: dict[bytes, Manifest] = {}
    with ExitStack() as stack:

        def appraiser(parsed: Bundle, recorded: bytes, judged: bytes) -> Appraiser:
            reference = own or parsed.reference_named(recorded)
            prepared = stack.enter_context(
                engine.load(with_foreign(load_policy(names, reference), arguments))
                if names != [RECORDED]
                else _recorded(engine, parsed, judged, reference)
            )
            if not manifests:
                # Once, and not before terms have named them.
                manifests.update((made.digest, made) for made in map(Manifest.unpack, parsed.manifests))
            return Appraiser(prepared, reference, manifests, published)

        with _collecting_rarely():
            result = verify(bundle, anchors=anchors, appraiser=appraiser, at=at, trail=trail)
    result.require_recorded(policy=names == [RECORDED], reference=own is None)
    return result


@contextmanager
def _collecting_rarely() -> Generator[None]:
    """Look for cycles less often: what is kept of windows has none, and looking there takes a sixth of the time."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(_YOUNG, middle, old)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


def status_of(result: BundleVerdict) -> tuple[ExitCode, str]:
    """The exit status for ``result``, and its word."""
    if result.admitted:
        return ExitCode.AFFIRMED, "ADMITTED"
    if result.denied or result.recorded_denied:
        return ExitCode.DENIED, "DENIED"
    return ExitCode.INDETERMINATE, "EVIDENCE WITHHELD" if result.withheld else "INDETERMINATE"


def _published(directory: Path | None, anchors: TrustAnchors, at: datetime) -> Published:
    """What the store in ``directory`` had at ``at``; of no store, nothing: then the records say what counts."""
    if directory is None:
        return Published.nothing()
    found = CollateralStore.open(directory).snapshot(at)
    if not found.items:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            "the store is empty: nothing to judge by",
            where=str(directory),
            hint="weighbridge collateral fetch or import fills it; without --collateral the recorded one counts",
        )
    return Published(found, anchors)


@final
class _NoPolicy:
    """For sessions that no policy has ever judged, because invariants refused every window."""

    def decide(self, document: PolicyInput) -> Decision:
        """Refuse: invariants that did not hold by the recorded values may hold by the caller's, and a policy counts."""
        raise PolicyDenied(
            Code.POLICY_ABSENT,
            "the records name no policy",
            where=f"window {document.window.seq}",
            hint="name your own: --policy",
        )

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _recorded(engine: PolicyEngine, bundle: Bundle, judged: bytes, reference: Reference) -> Prepared:
    """The policy that the records name by ``judged``."""
    if judged == NO_DIGEST:
        return _NoPolicy()
    files = bundle.policy_named(judged)
    try:
        return engine.load(policy_set.recorded(files, reference=reference))
    except ValueError as error:
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, f"no policy set: {error}", where="bundle.policies") from error
