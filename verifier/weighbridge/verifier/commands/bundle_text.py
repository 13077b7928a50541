"""What ``verify bundle`` says of what was judged again: a summary, what the file gives away, and the tree of checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.text import LINES, counted, line, plain, short
from weighbridge.verifier.commands.tree import Branch, labelled, render
from weighbridge.verifier.denial_order import explaining_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.policy.engine import Revision
    from weighbridge.proto import strict
    from weighbridge.proto.errors import WeighbridgeError
    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.bundle import BundleVerdict, BundleWindow
    from weighbridge.verifier.bundle_checks import Trail
    from weighbridge.verifier.bundle_records import RecordsVerdict
    from weighbridge.verifier.check_tree import Check
    from weighbridge.verifier.identifiers import Identifier

__all__ = [
    "RECORDED",
    "caveats",
    "caveats_of",
    "failed",
    "failed_in_short",
    "judged",
    "named",
    "rests_on",
    "so_far",
    "tree",
]

RECORDED: Final = "recorded"
"""Names the policy that judged each window."""
_STILL_TRUSTED: Final = (
    "the verifier's word: receipt times, random challenges, the credential's secret at enrolment, "
    "that spot checks, recorded reference sets, baselines and policy bundles are their owners', and that no newer "
    "collateral was at hand"
)
_SO_FAR: Final = ", so far: the session was not closed in it"
_LABEL: Final = 16


def tree(checks: Sequence[Check]) -> str:
    """The tree of ``checks``, ending with a newline."""
    root = Branch("checks", tuple(_branch(check) for check in checks))
    return "".join(f"  {said}\n" for said in render(root))


def failed(error: WeighbridgeError, trail: Trail) -> str:
    """What is said of a bundle that could not be verified, before the error itself."""
    return f"{failed_in_short(error)}\n{tree(trail.failed(error))}"


def failed_in_short(error: WeighbridgeError) -> str:
    """What a bundle comes to that could not be verified, for ``error``."""
    word = "EVIDENCE WITHHELD" if error.code is Code.BUNDLE_WITHHELD else "NOT VERIFIED"
    return f"{word}: {error.code.value}"


def rests_on(said: str = _STILL_TRUSTED, *, closed: bool) -> str:
    """Whose word an answer rests on: the verifier's, ``said``, and without a closing that of whoever gave the file."""
    return said if closed else f"{said}; and the word of whoever gave you the file that no later window was left out"


def so_far(result: BundleVerdict | RecordsVerdict) -> str:
    """What is added to a good answer on a session that is not closed in the bundle."""
    return _SO_FAR if result.admitted and not result.closed else ""


def caveats(*, emulated: bool, unchecked: Iterable[str]) -> str:
    """What an answer's first line must not go without: that devices are emulated, and how many checks were left out.

    Args:
        emulated: whether any device is.
        unchecked: the names of the checks that a policy left out, each as often as it was.
    """
    said = ["insecure-emulated hardware"] if emulated else []
    if left_out := len(set(unchecked)):
        said.append(f"{counted(left_out, 'check')} left out")
    return f" ({', '.join(said)})" if said else ""


def caveats_of(result: BundleVerdict) -> str:
    """Those of what was judged again."""
    return caveats(emulated=result.emulated, unchecked=(check for check, _ in result.unchecked))


def _branch(check: Check) -> Branch:
    below = tuple(_branch(child) for child in check.children)
    if check.residual:
        below = (Branch(f"leaves open: {check.residual}", indent=2), *below)
    return Branch(f"{check.name:<{_LABEL - 1}} {check.result}: {check.detail}", below, _LABEL)


def named(held: Sequence[Identifier]) -> list[str]:
    """The lines that say which permanent identifiers a file gives away."""
    lines = [f"  identifies {plain(item.what)} {item.identity.hex()}" for item in held[:LINES]]
    return lines + ([f"             … {len(held) - LINES} more: --json has all"] if len(held) > LINES else [])


def judged(
    result: BundleVerdict, names: list[str], *, status: ExitCode, word: str, given_away: Sequence[Identifier]
) -> Outcome:
    """The outcome of a bundle whose verdicts were made again.

    Args:
        result: what was found.
        names: by which policies it was judged, as it was asked for.
        status: the exit status.
        word: what it comes to.
        given_away: the permanent identifiers that the bundle has.
    """
    affirmed = sum(verdict.outcome == "affirmed" for verdict in result.verdicts)
    held = sum(verdict.outcome == "held" for verdict in result.verdicts)
    waiting = sum(verdict.outcome == "indeterminate" for verdict in result.verdicts)
    unsettled = f"{waiting} indeterminate, " if waiting else ""
    denied = result.denied
    lines = [
        f"{word}: session {result.session.hex()} under policy {', '.join(names)}{caveats_of(result)}{so_far(result)}",
        f"  model      {result.model.hex()}",
        *(f"  adapter    {manifest.hex()}" for manifest in result.adapters),
        *labelled("platform", f"{result.ak.platform}: {result.ak.provenance} under {result.ak.anchor}"),
        *(labelled("", result.ak.detail) if result.ak.detail else []),
        *labelled("attester", _code(result)),
        f"  windows    {_how_many(result)}: {affirmed} affirmed, {held} held, {unsettled}{len(denied)} denied",
        f"  ledger     {result.origin}, {counted(result.size, 'entry', 'entries')}, every record proven to be in it",
        *([f"  withheld   {_unknown(result.withheld)}"] if result.withheld else []),
        *(_policies(result) if names == [RECORDED] else []),
        *(said for verdict in denied[:1] for said in _denials(verdict, "denied")),
        *(said for verdict in _unsettled(result, status) for said in _denials(verdict, "not yet")),
        *(said for check, reason in result.unchecked for said in labelled("unchecked", f"{check}: {reason}")),
        *(said for item in result.not_proven for said in labelled("not proven", item)),
        *labelled("rests on", rests_on(closed=result.closed)),
        *named(given_away),
        *tree(result.checks).splitlines(),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/verify-bundle/v2",
        "kind": "partial" if result.withheld else "full",
        "outcome": word.lower(),
        "session": result.session.hex(),
        "model": result.model.hex(),
        "adapters": [manifest.hex() for manifest in result.adapters],
        "policy": list(names),
        "recorded_policy": result.same_policy,
        "windows": [_window(window) for window in result.windows],
        "withheld": result.withheld,
        "closed": result.closed,
        "requests": [
            {"seq": item.seq, "index": item.index, "request": item.request.hex(), "response": item.response.hex()}
            for item in result.requests
        ],
        "ledger": {"origin": result.origin, "size": result.size, "cosigned": list(result.cosigned)},
        "identifiers": [{"what": item.what, "identity": item.identity.hex()} for item in given_away],
        "not_proven": list(result.not_proven),
        "checks": [check.document() for check in result.checks],
        "rests_on": rests_on(closed=result.closed),
    }
    return Outcome("".join(f"{line(said)}\n" for said in lines), document, status)


def _unknown(withheld: int) -> str:
    return f"{counted(withheld, 'judgement')}: nothing is known of {'it' if withheld == 1 else 'them'}"


def _how_many(result: BundleVerdict) -> str:
    """How many windows were judged again, and of how many."""
    again, shown = len(result.verdicts), len(result.windows)
    return str(again) if again == shown else f"{shown} shown, {again} judged again"


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
        said
        for (digest, revision), seqs in spans.items()
        for said in (
            f"  policy     {digest.hex()}, windows {seqs[0]} to {seqs[-1]}",
            *([] if revision is None else [f"             {_named(revision)}"]),
        )
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
    for denial in explaining_first(verdict.denials):
        of = "" if denial.device is None else f" (GPU {short(denial.device)})"
        lines += labelled(what, f"window {verdict.seq}: {denial.code}: {denial.message}{of}")
        if denial.hint:
            lines += labelled("", f"hint: {denial.hint}")
    return lines


def _window(window: BundleWindow) -> strict.JsonObject:
    """A window's verdict: made again, or, behind one that is withheld, the recorded one."""
    if window.verdict is not None:
        return {**window.verdict.document(), "judged": "again"}
    return {**window.recorded, "judged": "recorded"}
