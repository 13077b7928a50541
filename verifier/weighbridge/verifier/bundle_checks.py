"""The tree of checks of a proof bundle: of one that was verified, and of one that was not, as far as it was come to.

The names are those of the steps of :mod:`.bundle`. Nothing here decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code
from weighbridge.verifier.check_tree import Check
from weighbridge.verifier.clock import moment
from weighbridge.verifier.denial_order import explaining_first
from weighbridge.verifier.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.proto.errors import WeighbridgeError
    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.bundle_format import ShownRequest
    from weighbridge.verifier.bundle_proof import OpenedBundle
    from weighbridge.verifier.bundle_verdict import BundleWindow
    from weighbridge.verifier.disclosed import AloneWindow
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled

__all__ = ["UNCLOSED", "Stage", "Tally", "Trail", "enrolment", "ledger", "windows"]

Stage = Literal["bundle", "ledger", "enrolment", "windows"]
_STAGES: Final[dict[Stage, str]] = {
    "bundle": "well-formed and bounded",
    "ledger": "a trusted ledger has every record, in the order of one session without a gap",
    "enrolment": "terms, attestation key, telemetry key, GPUs and boot, verified again",
    "windows": "verified and judged again, and compared with the recorded verdicts",
}
_NAMED_MAX: Final = 4
UNCLOSED: Final = "no closing counts the windows: whoever gave you the file may have left out the last ones"
"""What a bundle without the session's closing leaves open."""


@final
class Trail:
    """How far a verification has come: for a tree of one that failed. Made anew for each."""

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage: Stage = "bundle"

    def failed(self, error: WeighbridgeError) -> tuple[Check, ...]:
        """The checks, where ``error`` was raised at the stage that was come to last."""
        stages = list(_STAGES)
        reached = stages.index(self.stage)
        checks: list[Check] = []
        for number, (stage, text) in enumerate(_STAGES.items()):
            if number == reached:
                checks.append(_stopped(stage, error))
            elif number < reached:
                checks.append(Check(stage, "passed", text))
            else:
                checks.append(Check(stage, "not checked", "not reached"))
        return tuple(checks)


@final
class Tally:
    """What was counted of the windows that were verified again."""

    __slots__ = (
        "_alone",
        "_alone_reports",
        "_fresh",
        "_log",
        "_refused",
        "_reports",
        "_samples",
        "_spots",
        "_verified",
    )

    def __init__(self) -> None:
        self._verified = 0
        self._alone = 0
        self._alone_reports = 0
        self._refused: list[Check] = []
        self._fresh = 0
        self._reports = 0
        self._samples = 0
        self._spots = 0
        self._log = 0

    def add(self, window: VerifiedWindow) -> None:
        """Count ``window``, which was verified."""
        self._verified += 1
        self._fresh += not window.held
        self._reports += 0 if window.gpus is None else len(window.gpus)
        self._samples += sum(len(source.offsets) * len(source.channels) for source in window.telemetry.sources)
        self._spots += window.spot is not None
        self._log = len(window.log.records)

    def add_alone(self, window: AloneWindow) -> None:
        """Count ``window``, which was verified as far as it can be without those before it."""
        self._alone += 1
        self._alone_reports += window.reports

    def refused(self, seq: int, error: WeighbridgeError) -> None:
        """Remember that window ``seq``, recorded as denied, is none that could be verified alone."""
        self._refused.append(Check(f"window {seq}", "failed", f"{error.code.value}: {error.message}"))

    def checks(self, unverified: str) -> tuple[Check, ...]:
        """What holds in every window that was verified; ``unverified`` says why, where none was."""

        def check(name: str, count: int, detail: str, residual: str = "", *, none: str = "") -> Check:
            if not self._verified or not count:
                return Check(name, "not checked", none if self._verified else unverified)
            return Check(name, "passed", detail, residual)

        return (
            check(
                "chain",
                self._verified,
                f"{counted(self._verified, 'header')} signed by the telemetry key, each continuing the one before",
                "the order and number of windows rest on the host's key and the ledger together",
            ),
            check(
                "freshness",
                self._fresh,
                f"{counted(self._fresh, 'answers', 'answer')} the challenge whose preimage is recorded",
                "that challenges were random, and when windows came, is the verifier's word",
                none="none is fresh: each came too late, and is held",
            ),
            check(
                "quotes",
                self._verified,
                f"{self._verified} by the attestation key, over header and GPU reports; no reset, the same boot",
            ),
            check(
                "GPU reports",
                self._reports,
                f"{self._reports} signed by the enrolled devices under their maker's root",
                "binding is not co-location; no signed byte says that confidential computing is on",
                none="no window that was judged again has any",
            ),
            check(
                "measurement log",
                self._verified,
                f"{counted(self._log, 'record leads', 'records lead')} to the quoted register",
                "what was loaded before or around the measured loader is not in it",
            ),
            check(
                "telemetry",
                self._verified,
                f"{counted(self._samples, 'reading')}, whose digests the headers have",
                "no reading is signed by a sensor: they contradict and corroborate, and never vouch for weights",
            ),
            check(
                "spot checks",
                self._spots,
                f"{self._spots} answered as the model's owner had computed",
                "possession of the model's files, not what runs; the expected answers are the verifier's word",
                none="no window that was judged again answers one",
            ),
            *self._by_themselves(),
        )

    def _by_themselves(self) -> tuple[Check, ...]:
        if not self._alone and not self._refused:
            return ()
        shown = (
            f"{counted(self._alone, 'window')} behind withheld ones: header, quote, samples, "
            f"{counted(self._alone_reports, 'GPU report')}"
        )
        return (
            Check(
                "shown alone",
                "passed" if self._alone else "not checked",
                shown if self._alone else "none could be verified by itself",
                "their clocks, logs and verdicts continue what is withheld: those are the verifier's recorded word",
                tuple(self._refused),
            ),
        )


def ledger(opened: OpenedBundle, entries: int) -> Check:
    """Steps 2 to 4, passed."""
    checkpoint = opened.checkpoint
    others = f" and {counted(len(opened.withheld), 'leaf', 'leaves')}" if opened.withheld else ""
    judgements = entries + len(opened.withheld)
    known = ", ".join(item.key.name for item in opened.cosigned)
    return Check(
        "ledger",
        "passed",
        f"{checkpoint.origin}, {counted(checkpoint.size, 'entry', 'entries')}",
        "that it showed others the same entries, only its witnesses say",
        (
            Check("checkpoint", "passed", f"signed by the anchor {checkpoint.origin}"),
            Check(
                "witnesses",
                "passed" if opened.cosigned else "not checked",
                f"{len(opened.cosigned) or 'none'} of those you trust cosigned it" + (f": {known}" if known else ""),
                "" if opened.cosigned else "whether others were shown the same ledger, nobody says",
            ),
            Check(
                "inclusion",
                "passed",
                f"{counted(entries, 'record')}{others} {'is' if judgements == 1 else 'are'} in its tree",
            ),
            Check(
                "order",
                "passed",
                f"{counted(judgements, 'judgement')} of one session, from its enrolment on, without a gap",
                "" if opened.closed else UNCLOSED,
            ),
        ),
    )


def enrolment(enrolled: Enrolled) -> Check:
    """Step 5, passed."""
    terms, ak = enrolled.terms, enrolled.ak
    gpus = sum(report.kind == "gpu" for report in enrolled.gpus)
    switches = len(enrolled.gpus) - gpus
    return Check(
        "enrolment",
        "passed",
        f"of tenant {terms.tenant}, at {strict.time_encode(moment(terms.issued_ns))}",
        "",
        (
            Check("terms", "passed", "signed by the verifier, and what was proven"),
            Check("attestation key", "passed", f"{ak.platform}: {ak.provenance} under {ak.anchor}", ak.unproven),
            Check("telemetry key", "passed", "certified by the attestation key; no TPM reset survives it"),
            Check(
                "devices",
                "passed",
                counted(gpus, "GPU")
                + (f" and {counted(switches, 'switch', 'switches')}" if switches else "")
                + ", each signed under its root",
            ),
            Check(
                "boot",
                "not checked" if enrolled.boot is None else "passed",
                "the terms demand no logs of it" if enrolled.boot is None else "its logs lead to the quoted registers",
            ),
        ),
    )


def windows(found: Sequence[BundleWindow], tally: Tally, *, withheld: int) -> Check:
    """Steps 6 to 8, passed, whatever the verdicts are."""
    judged = [window.verdict for window in found if window.verdict is not None]
    alone = [window.seq for window in found if window.verdict is None]
    unjudged = f"not {_not_again(alone)}" if alone else ""
    denied = _some(judged, lambda verdict: verdict.outcome == "denied")
    waiting = _some(judged, lambda verdict: verdict.outcome == "indeterminate")
    affirmed = sum(verdict.outcome == "affirmed" for verdict in judged)
    held = sum(verdict.outcome == "held" for verdict in judged)
    compared = sum(window.same is True for window in found)
    told = f"{affirmed} affirmed, {held} held, {len(waiting)} indeterminate, {len(denied)} denied"
    verdicts = Check(
        "verdicts",
        "failed" if denied else "passed" if affirmed else "not checked",
        told if judged or not alone else unjudged,
        unjudged if judged else "",
        tuple(_denial(verdict) for verdict in [*denied, *waiting][:_NAMED_MAX]),
    )
    same = Check(
        "as recorded",
        "passed" if compared == len(judged) and judged else "not checked",
        f"{compared} of {len(judged)} are byte for byte what was recorded" if judged else "nothing to compare",
        "" if compared == len(judged) else "the others were judged by what you gave, not by what the records name",
    )
    shown = (
        Check(
            "evidence withheld",
            "withheld",
            f"{counted(withheld, 'judgement')}: the ledger has a commitment to each, and nothing else is known",
        ),
    )
    below = (*tally.checks(_unverified(alone, judged=len(judged))), verdicts, same, *(shown if withheld else ()))
    shown_again = f"{len(found)} shown" + (f", {len(judged)} judged again" if alone else "")
    return Check("windows", "passed" if found else "not checked", shown_again, "", below)


def requests(found: Sequence[ShownRequest]) -> tuple[Check, ...]:
    """Step 9, passed; nothing where no request is shown."""
    if not found:
        return ()
    seqs = sorted({item.seq for item in found})
    return (
        Check(
            "requests",
            "passed",
            f"{counted(len(found), 'is', 'are')} among those that the "
            f"{f'header of window {seqs[0]} counts' if len(seqs) == 1 else f'headers of windows {_few(seqs)} count'}",
            "what is counted is the host's word; that a model computed it, nothing here says",
        ),
    )


def _stopped(stage: Stage, error: WeighbridgeError) -> Check:
    """The check of the stage at which ``error`` was raised."""
    where = f" ({error.where})" if error.where else ""
    if error.code is Code.BUNDLE_WITHHELD:
        return Check(stage, "withheld", f"{error.message}{where}")
    return Check(stage, "failed", f"{error.code.value}: {error.message}{where}")


def _not_again(seqs: Sequence[int]) -> str:
    """After "not" or "none": that windows ``seqs``, of which there are some, were not judged again, and why."""
    first, last = seqs[0], seqs[-1]
    if first == last:
        return f"judged again: window {first} stands behind a withheld one"
    named = f"windows {first} to {last}" if last - first == len(seqs) - 1 else f"{len(seqs)} windows"
    return f"judged again: {named} stand behind withheld ones"


def _unverified(alone: Sequence[int], *, judged: int) -> str:
    """Why no window was verified again, where none was: ``judged`` were refused by that."""
    if judged:
        return "no window could be verified: each was refused"
    return f"none {_not_again(alone)}" if alone else "no window is shown"


def _few(seqs: Sequence[int]) -> str:
    return ", ".join(map(str, seqs[:_NAMED_MAX])) + (" and others" if len(seqs) > _NAMED_MAX else "")


def _some(verdicts: Sequence[Verdict], which: Callable[[Verdict], bool]) -> list[Verdict]:
    return [verdict for verdict in verdicts if which(verdict)]


def _denial(verdict: Verdict) -> Check:
    said = "; ".join(f"{denial.code}: {denial.message}" for denial in explaining_first(verdict.denials))
    return Check(f"window {verdict.seq}", "failed" if verdict.outcome == "denied" else "not checked", said)
