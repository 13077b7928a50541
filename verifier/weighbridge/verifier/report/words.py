"""The words of the report: plain ones, and none that says more than was shown (``docs/trust-model.md``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.proto.errors import Code
from weighbridge.verifier.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.report.view import Shown, Standing
    from weighbridge.verifier.telemetry.state import Word
    from weighbridge.verifier.tpm.ak import Provenance

__all__ = [
    "BY_CODE",
    "EMULATED_ANSWERED",
    "EMULATED_KEY",
    "FAILED",
    "GLOSSARY",
    "HEADINGS",
    "INCOMPLETE",
    "IN_SHORT",
    "LATER",
    "OPEN_ENDS",
    "OUTCOMES",
    "PLAIN",
    "PROVENANCES",
    "RECORD",
    "UNCLOSED",
    "WHO_ANSWERED",
    "Said",
    "Tone",
    "joined_with_and",
    "plural",
    "sentence",
    "why_it_holds",
]

Tone = Literal["good", "bad", "wait", "held", "none"]
# By these names they are typed.
_COMMANDS: Final = frozenset({"weighbridge"})


@dataclass(frozen=True, slots=True)
class Said:
    """A word for people: how it looks, what it says, and what it means."""

    tone: Tone
    word: str
    meaning: str


HEADINGS: Final[Mapping[Standing, Said]] = {
    "admitted": Said(
        "good", "Admitted", "A host that measured the declared model weights committed to serving this session."
    ),
    "denied": Said("bad", "Denied", "Do not rely on this session: what it showed was refused."),
    "withheld": Said(
        "held",
        "Evidence withheld",
        "Not all of this session is shown, so there is no verdict on it: what is shown holds, and what is not may say "
        "anything.",
    ),
    "indeterminate": Said(
        "wait",
        "Not decided",
        "Nothing in this session was refused, and it does not show enough for a yes: rely on it no further than on "
        "one that showed nothing.",
    ),
}

UNCLOSED: Final = (
    "The session was not closed in this file: that it has the last windows is the word of whoever gave it to you, who "
    "could have left out a refused one."
)
FAILED: Final = Said(
    "bad",
    "Not verified",
    "This file could not be verified by what was given. As long as it is not, nothing in it counts: so nothing of it "
    "is shown but where it failed.",
)
LATER: Final = Said(
    "wait",
    "Recorded later",
    "This file tells of what was recorded after the time from which you look, so nothing of it counts there. Look from "
    "a later time; if that is the present, a clock is wrong: the verifier's, or yours.",
)
INCOMPLETE: Final = Said(
    "held",
    "Evidence withheld",
    "This file does not show what a verdict is made of, so none could be made again. What its verifier recorded, "
    "weighbridge verify bundle --records-only says, by the verifier's word.",
)

OUTCOMES: Final[Mapping[Shown, Said]] = {
    "affirmed": Said("good", "affirmed", "came in time, and everything that was demanded was shown"),
    "held": Said("held", "held", "came too late to open a gate; kept and checked all the same"),
    "indeterminate": Said("wait", "not decided", "nothing speaks against it; its readings do not suffice yet"),
    "denied": Said("bad", "denied", "refused, for the reason below"),
    "recorded": Said("none", "not judged again", "evidence before it is withheld: its verdict is the verifier's word"),
}

RECORD: Final[Mapping[Word, Said]] = {
    "in_baseline": Said("good", "in baseline", "consistent with what this GPU drew when its owner recorded it"),
    "out_of_baseline": Said("bad", "out of baseline", "contradicts what this GPU drew when its owner recorded it"),
    "implausible": Said("bad", "implausible", "readings that contradict each other, or physics"),
    "unusable": Said("wait", "not usable", "too few good readings to compare, so far"),
    "no_baseline": Said("none", "no baseline", "there is nothing to compare with"),
}

PROVENANCES: Final[Mapping[Provenance, str]] = {
    "ek-credential": "its manufacturer certified the TPM, and the TPM opened a secret made for it alone",
    "ak-certificate": "the cloud certified this key of a TPM that it emulates for the machine",
    "vtpm-report": "the CPU signed for the confidential machine whose firmware holds this key",
    "pinned": "whoever verified this named the key beforehand",
}

EMULATED_KEY: Final = "a software TPM, certified by a test authority"

IN_SHORT: Final = (
    "It does not prove that any answer came from these weights, that the GPUs stand in the same machine, or that power "
    "and heat vouch for a model: they can contradict and corroborate; they can never vouch for weights."
)

PLAIN: Final = (
    (
        "What was asked",
        (
            "A machine that serves an AI model (the host) had to show, again and again, which model files it had "
            "measured and which GPUs it uses. Each answer is called a window."
        ),
    ),
)
WHO_ANSWERED: Final = (
    "Not the model, and not its operator's word alone: a security chip (the TPM) and the GPUs signed each "
    "answer, with keys that their makers vouch for."
)
EMULATED_ANSWERED: Final = (
    "Software that takes the place of a security chip (the TPM) or of GPUs signed the answers, with keys that a test "
    "authority vouches for: nothing here is shown of hardware."
)

# By the beginning of the product's own sentence: what it means to somebody who has not heard of any of it.
OPEN_ENDS: Final[tuple[tuple[str, str], ...]] = (
    (
        "binding is not co-location",
        "Signatures show that these GPUs and this TPM took part, not that they stand in one machine.",
    ),
    (
        "no signed byte says that confidential computing",
        (
            "Confidential computing hides a machine's memory from its owner. Nothing that a GPU signs says whether it "
            "was switched on."
        ),
    ),
    (
        "telemetry can contradict",
        "Power, heat and clocks can show that something else ran. They cannot show which model ran.",
    ),
    (
        "a spot check proves possession",
        (
            "Whoever answered a spot check had the model's files at hand. That these files gave the answers does not "
            "follow."
        ),
    ),
    (
        "physical interposers",
        (
            "Hardware that was tampered with, chip generations that are known to be broken, and work that is shaped to "
            "look ordinary are not seen."
        ),
    ),
    (
        "attester code is unproven",
        (
            "The program that measured may itself have been altered. What it says of loaded models, of counts and of "
            "sensors is the host's word."
        ),
    ),
)

# What the commonest refusals come to, before the product's own words.
BY_CODE: Final[Mapping[str, str]] = {
    Code.WEIGHTS_MISMATCH.value: "The model's files are not the declared ones.",
    Code.MODEL_UNDECLARED.value: "A model was loaded that was not declared.",
    Code.MODEL_NOT_LOADED.value: "The declared model was not loaded.",
    Code.MODEL_REVOKED.value: "The model's owner has revoked it.",
    Code.LOAD_MISMATCH.value: "What was loaded is not what was measured.",
    Code.LOAD_UNGUARDED.value: "Nothing bound the model's files between measuring and loading them.",
    Code.SPOT_WRONG.value: "Asked for parts of the model's files, the host gave others.",
    Code.SPOT_ABSENT.value: "Asked for parts of the model's files, the host did not answer.",
    Code.BASELINE_UNEXPLAINED.value: "Something was loaded since the machine was started that the log does not have.",
    Code.GPU_UNEXPECTED.value: "Another GPU answered than the one that was enrolled.",
    Code.GPU_MISSING.value: "A GPU that was enrolled did not answer.",
    Code.GPU_MEASUREMENT_MISMATCH.value: "A GPU runs other firmware or another driver than accepted.",
    Code.GPU_REVOKED.value: "A GPU's certificate was revoked.",
    Code.GPU_CC_MODE.value: "The host itself says that a GPU's confidential mode is not on.",
    Code.TELEMETRY_OUT_OF_BASELINE.value: "A GPU's power is not what declared work explains.",
    Code.TELEMETRY_IMPLAUSIBLE.value: "Readings of a GPU contradict each other, or physics.",
    Code.TELEMETRY_UNUSABLE.value: "There are too few good readings of a GPU to compare, so far.",
    Code.TELEMETRY_NO_BASELINE.value: "There is no baseline to compare a GPU with.",
    Code.TELEMETRY_UNREPORTED.value: "A GPU worked between two sessions, or may have, unreported.",
    Code.WORKLOAD_DIFFERS.value: "What was declared to be served differs from what the server counted.",
    Code.WINDOW_FORK.value: "The host signed two different answers for one window.",
    Code.WINDOW_HELD.value: "The answer came too late.",
    Code.CHALLENGE_UNKNOWN.value: "The answer is not to a question that the verifier asked.",
    Code.SUBJECT_FAILED.value: "This host or a GPU of it failed before, and nobody has cleared it.",
    Code.PLATFORM_EMULATED.value: "The devices are emulated in software.",
}

GLOSSARY: Final = (
    ("Host", "The machine that serves the model. It is the one that is checked, and is not believed by itself."),
    ("Verifier", "Who checked the session while it ran, on another machine, by a policy that its owner wrote."),
    (
        "TPM",
        (
            "A security chip. It keeps running totals (registers) of what was started and measured, which nothing but "
            "a restart sets back, and signs them on demand."
        ),
    ),
    ("GPU report", "What a GPU signs about itself: its identity, its firmware, and a question that was put to it."),
    ("Window", "One answer of the host, over some seconds: everything it showed for that time, signed as one."),
    ("Held", "Of a window: it came too late. It is kept and checked, and opens nothing."),
    ("Manifest", "The list of a model's files and tensors, each with its digest. Its own digest names the model."),
    ("Digest", "A fingerprint of bytes (SHA-256): other bytes, another digest."),
    (
        "Baseline",
        (
            "What one GPU was seen to draw while it did declared work, recorded and signed by its owner beforehand. "
            "What is measured beyond what the declared work explains is the residual."
        ),
    ),
    (
        "Evidence against the baseline",
        (
            "How much a gambler would have won by betting that these readings are not of that GPU at that work: a "
            "genuine one reaches the alarm as rarely as the baseline claims."
        ),
    ),
    ("Ledger", "A list to which entries can only be added. Rewriting it shows to whoever kept an earlier checkpoint."),
    ("Checkpoint", "The ledger's size and its digest, signed: what a later one must continue."),
    ("Policy", "The rules by which the verifier decided, written down and named by their digest."),
)


def why_it_holds(*, windows: int, again: int) -> str:
    """Why recorded verdicts are to be believed, of ``windows`` of which ``again`` were judged again."""
    ledger = "Each verdict was written to a ledger to which entries can only be added."
    if again == windows:
        return f"{ledger} This report made every one of them again from the recorded evidence."
    made = f"{again:,} of {plural(windows, 'shown verdict')}" if again else "none of the verdicts"
    return (
        f"{ledger} This report made {made} again. What is shown is signed and in the ledger; "
        "the other verdicts are the verifier's word."
    )


def plural(count: int, what: str, many: str = "") -> str:
    """``1 window``, ``2 windows``; thousands parted by commas."""
    return counted(count, what, many, form=",")


def sentence(text: str) -> str:
    """``text`` with a capital letter at its beginning, unless that is a name of a check, a file or a command."""
    first = text.partition(" ")[0].rstrip(",;:.")
    return text[:1].upper() + text[1:] if first.isalpha() and first not in _COMMANDS else text


def joined_with_and(parts: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
