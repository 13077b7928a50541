"""``weighbridge verify bundle``: every verdict of a recorded session, made again from the file alone."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy import policy_set
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, MalformedEvidence, PolicyDenied
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.appraisal import Appraiser, Verdict
from weighbridge.verifier.bundle import Bundle, BundleVerdict, verify
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.commands.engines import add_engine
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
from weighbridge.verifier.commands.text import plain
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, PolicyEngine, Prepared, Revision
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle_checks import Trail

__all__ = [
    "STILL_TRUSTED",
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

_RECORDED: Final = "recorded"
STILL_TRUSTED: Final = (
    "the verifier's word: receipt times, random challenges, the credential's secret at enrolment, "
    "that spot checks, recorded reference sets, baselines and policy bundles are their owners', that no newer "
    "collateral was at hand, "
    "and that no later window of the session was left out"
)


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify bundle`` to ``parser``."""
    parser.description = (
        "Verify a recorded session from the file alone, and make every verdict of it again. Exit 0 when it is "
        "admitted, 3 malformed, 4 not authentic, 5 denied, 6 indeterminate. `attester` says whether it is proven which "
        "code measured, or what is missing: docs/attester-code.md."
    )
    configure_judging(parser)
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
        help="judge by what makers of hardware publish as this store has it now: what was revoked since counts "
        "(default: what the records name)",
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
    return _outcome(judge(arguments, read_bundle(arguments.bundle)), policies_of(arguments))


def misused(arguments: argparse.Namespace, *, command: str) -> ExitCode | None:
    """Say which arguments of ``command`` do not fit together, if some do not; the exit status then."""
    if arguments.models and arguments.reference is None:
        return usage("--models and --hosts need --reference", command=command)
    if is_foreign(arguments) and arguments.policy in ([], [_RECORDED]):
        return usage("--foreign needs --policy: the recorded policy has its own", command=command)
    return None


def policies_of(arguments: argparse.Namespace) -> list[str]:
    """By which policies it is judged, as it was asked for."""
    return arguments.policy or [_RECORDED]


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
    published = _published(arguments.collateral, anchors)
    names = policies_of(arguments)
    engine = arguments.engine.open()
    with ExitStack() as stack:

        def appraiser(parsed: Bundle, recorded: bytes, judged: bytes) -> Appraiser:
            reference = own or parsed.reference_named(recorded)
            manifests = (Manifest.unpack(data) for data in parsed.manifests)
            prepared = stack.enter_context(
                engine.load(with_foreign(load_policy(names, reference), arguments))
                if names != [_RECORDED]
                else _recorded(engine, parsed, judged, reference)
            )
            return Appraiser(prepared, reference, {manifest.digest: manifest for manifest in manifests}, published)

        result = verify(bundle, anchors=anchors, appraiser=appraiser, trail=trail)
    result.require_recorded(policy=names == [_RECORDED], reference=own is None)
    return result


def status_of(result: BundleVerdict) -> tuple[ExitCode, str]:
    """The exit status for ``result``, and its word."""
    if result.admitted:
        return ExitCode.AFFIRMED, "ADMITTED"
    return (ExitCode.DENIED, "DENIED") if result.denied else (ExitCode.INDETERMINATE, "INDETERMINATE")


def _published(directory: Path | None, anchors: TrustAnchors) -> Published:
    """What the store in ``directory`` has now; of no store, nothing: then the records say what counts."""
    if directory is None:
        return Published.nothing()
    found = CollateralStore.open(directory).snapshot(datetime.now(UTC))
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


def _outcome(result: BundleVerdict, names: list[str]) -> Outcome:
    affirmed = sum(verdict.outcome == "affirmed" for verdict in result.verdicts)
    held = sum(verdict.outcome == "held" for verdict in result.verdicts)
    waiting = sum(verdict.outcome == "indeterminate" for verdict in result.verdicts)
    unsettled = f"{waiting} indeterminate, " if waiting else ""
    denied = result.denied
    status, word = status_of(result)
    lines = [
        f"{word}: session {result.session.hex()} under policy {', '.join(names)}",
        f"  model      {result.model.hex()}",
        *(f"  adapter    {manifest.hex()}" for manifest in result.adapters),
        f"  platform   {result.ak.platform}: {result.ak.provenance} under {result.ak.anchor}",
        *([f"             {result.ak.detail}"] if result.ak.detail else []),
        f"  attester   {_code(result)}",
        f"  windows    {len(result.verdicts)}: {affirmed} affirmed, {held} held, {unsettled}{len(denied)} denied",
        f"  ledger     {result.origin}, {result.size} entries, every record proven to be in it",
        *(_policies(result) if names == [_RECORDED] else []),
        *(line for verdict in denied[:1] for line in _denials(verdict, "denied")),
        *(line for verdict in _unsettled(result, status) for line in _denials(verdict, "not yet")),
        *(f"  unchecked  {check}: {reason}" for check, reason in _unchecked(result)),
        *(f"  not proven {line}" for line in result.not_proven),
        f"  rests on   {STILL_TRUSTED}",
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/verify-bundle/v1",
        "outcome": word.lower(),
        "session": result.session.hex(),
        "model": result.model.hex(),
        "adapters": [manifest.hex() for manifest in result.adapters],
        "policy": list(names),
        "recorded_policy": result.same_policy,
        "windows": [verdict.document() for verdict in result.verdicts],
        "ledger": {"origin": result.origin, "size": result.size},
        "rests_on": STILL_TRUSTED,
    }
    return Outcome("\n".join(lines) + "\n", document, status)


def _code(result: BundleVerdict) -> str:
    """What is shown of the attester's code, by the first window that shows the least; docs/attester-code.md."""
    codes = [verdict.attester_code for verdict in result.verdicts]
    known = [code for code in codes if code is not None]
    if not known or len(known) < len(codes):
        return "unproven"
    least = max(known, key=lambda code: len(code.missing))
    return f"unproven: {', '.join(least.missing)}" if least.missing else least.status


def _policies(result: BundleVerdict) -> list[str]:
    """Which policy judged which windows, where that is more than one, or came in a signed bundle."""
    spans: dict[tuple[bytes, Revision | None], list[int]] = {}
    for verdict in result.verdicts:
        if (decision := verdict.decision) is not None:
            spans.setdefault((decision.policy_digest, decision.revision), []).append(verdict.seq)
    if all(revision is None for _, revision in spans) and len(spans) <= 1:
        return []
    return [
        f"  policy     {digest.hex()}, windows {seqs[0]} to {seqs[-1]}"
        + ("" if revision is None else f"\n             {_named(revision)}")
        for (digest, revision), seqs in spans.items()
    ]


def _named(revision: Revision) -> str:
    whose = "" if revision.tenant is None else f" for {plain(revision.tenant)}"
    return f"{plain(revision.owner)}, {plain(revision.name)}{whose}, number {revision.number}"


def _unsettled(result: BundleVerdict, status: ExitCode) -> tuple[Verdict, ...]:
    """The last verdict, where it is for its sake that nothing is said."""
    last = result.verdicts[-1:]
    return last if status == ExitCode.INDETERMINATE and last and last[0].outcome == "indeterminate" else ()


def _denials(verdict: Verdict, what: str) -> list[str]:
    lines: list[str] = []
    for denial in verdict.denials:
        lines.append(f"  {what:<10} window {verdict.seq}: {denial.code}: {denial.message}")
        if denial.hint:
            lines.append(f"             hint: {denial.hint}")
    return lines


def _unchecked(result: BundleVerdict) -> list[tuple[str, str]]:
    decisions = [verdict.decision for verdict in result.verdicts if verdict.decision is not None]
    return sorted({(item.check, item.reason) for decision in decisions for item in decision.unchecked})
