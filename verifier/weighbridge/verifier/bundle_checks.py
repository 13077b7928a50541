"""The tree of checks of a proof bundle: of one that was verified, and of one that was not, as far as it was come to.

The names are those of the steps of :mod:`.bundle`. Nothing here decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code
from weighbridge.verifier.check_tree import Check
from weighbridge.verifier.clock import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.proto.errors import WeighbridgeError
    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.bundle_format import ShownRequest
    from weighbridge.verifier.bundle_proof import OpenedBundle
    from weighbridge.verifier.bundle_verdict import BundleWindow
    from weighbridge.verifier.check_tree import Result
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

    __slots__ = ("_alone", "_fresh", "_log", "_refused", "_reports", "_samples", "_spots", "_verified")

    def __init__(self) -> None:
        self._verified = 0
        self._alone = 0
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
        self._reports += window.reports

    def refused(self, seq: int, error: WeighbridgeError) -> None:
        """Remember that window ``seq``, recorded as denied, is none that could be verified alone."""
        self._refused.append(Check(f"window {seq}", "failed", f"{error.code.value}: {error.message}"))

    def checks(self) -> tuple[Check, ...]:
        """What holds in every window that was verified."""
        result: Result = "passed" if self._verified else "not checked"
        return (
            Check(
                "chain",
                result,
                f"{self._verified} headers signed by the telemetry key, each continuing the one before",
                "the order and number of windows rest on the host's key and the ledger together",
            ),
            Check(
                "freshness",
                result,
                f"{self._fresh} answer the challenge whose preimage is recorded",
                "that challenges were random, and when windows came, is the verifier's word",
            ),
            Check(
                "quotes",
                result,
                f"{self._verified} by the attestation key, over header and GPU reports; no reset, the same boot",
            ),
            Check(
                "GPU reports",
                result if self._reports else "not checked",
                f"{self._reports} signed by the enrolled devices under their maker's root",
                "binding is not co-location; no signed byte says that confidential computing is on",
            ),
            Check(
                "measurement log",
                result,
                f"{self._log} records lead to the quoted register",
                "what was loaded before or around the measured loader is not in it",
            ),
            Check(
                "telemetry",
                result,
                f"{self._samples} readings, whose digests the headers have",
                "no reading is signed by a sensor: they contradict and corroborate, and never vouch for weights",
            ),
            Check(
                "spot checks",
                result if self._spots else "not checked",
                f"{self._spots} answered as the model's owner had computed",
                "possession of the model's files, not what runs; the expected answers are the verifier's word",
            ),
            *self._by_themselves(),
        )

    def _by_themselves(self) -> tuple[Check, ...]:
        if not self._alone and not self._refused:
            return ()
        return (
            Check(
                "shown alone",
                "passed" if self._alone else "not checked",
                f"{self._alone} windows behind withheld ones: header, quote, GPU reports, samples",
                "their clocks, logs and verdicts continue what is withheld: those are the verifier's recorded word",
                tuple(self._refused),
            ),
        )


def ledger(opened: OpenedBundle, entries: int) -> Check:
    """Steps 2 to 4, passed."""
    checkpoint = opened.checkpoint
    others = f" and {len(opened.withheld)} leaves" if opened.withheld else ""
    known = ", ".join(item.key.name for item in opened.cosigned)
    return Check(
        "ledger",
        "passed",
        f"{checkpoint.origin}, {checkpoint.size} entries",
        "that it showed others the same entries, only its witnesses say",
        (
            Check("checkpoint", "passed", f"signed by the anchor {checkpoint.origin}"),
            Check(
                "witnesses",
                "passed" if opened.cosigned else "not checked",
                f"{len(opened.cosigned)} of those you trust cosigned it" + (f": {known}" if known else ""),
                "" if opened.cosigned else "whether others were shown the same ledger, nobody says",
            ),
            Check("inclusion", "passed", f"{entries} records{others} are in its tree"),
            Check(
                "order",
                "passed",
                f"{entries + len(opened.withheld)} judgements of one session, from its enrolment on, without a gap",
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
                f"{gpus} GPUs" + (f" and {switches} switches" if switches else "") + ", each signed under its root",
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
    unjudged = _not_again(alone) if alone else ""
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
            f"{withheld} judgements: the ledger has a commitment to each, and nothing else is known of them",
        ),
    )
    below = (*tally.checks(), verdicts, same, *(shown if withheld else ()))
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
            f"{len(found)} are among those that the headers of windows {', '.join(map(str, seqs[:_NAMED_MAX]))}"
            + (" and others" if len(seqs) > _NAMED_MAX else "")
            + " count",
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
    """That windows ``seqs``, of which there are some, were not judged again, and why."""
    first, last = seqs[0], seqs[-1]
    if first == last:
        return f"not judged again: window {first} stands behind a withheld one"
    named = f"windows {first} to {last}" if last - first == len(seqs) - 1 else f"{len(seqs)} windows"
    return f"not judged again: {named} stand behind withheld ones"


def _some(verdicts: Sequence[Verdict], which: Callable[[Verdict], bool]) -> list[Verdict]:
    return [verdict for verdict in verdicts if which(verdict)]


def _denial(verdict: Verdict) -> Check:
    said = "; ".join(f"{denial.code}: {denial.message}" for denial in verdict.denials)
    return Check(f"window {verdict.seq}", "failed" if verdict.outcome == "denied" else "not checked", said)
