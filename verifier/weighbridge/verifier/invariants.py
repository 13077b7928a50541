"""What holds of every window that any policy is asked about, in one list: what nobody's policy can switch off.

Nothing is enforced here. Each entry says what holds, with which codes it is refused, and which module, with the step of
its numbered procedure, does so; :mod:`.procedure` is the page to read first. Three kinds of place enforce: verification
raises before there is anything to appraise; appraisal denies before any policy is asked; and an engine's answer is
denied whatever it says (:func:`weighbridge.policy.engines.output.invariants`).

A code may be a policy's, too, where there is more to say: ``GPU_FWID`` refuses a certificate that contradicts a report
here, and in the library one that says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from weighbridge.proto.errors import Code

__all__ = ["APPRAISED", "GROUPS", "INVARIANTS", "Group", "Invariant", "Place", "codes"]

Group = Literal[
    "binding and signatures",
    "counts and identities",
    "freshness",
    "continuity",
    "measurement log",
    "weights",
    "owners' words",
    "the policy's answer",
]
GROUPS: Final[tuple[Group, ...]] = get_args(Group)


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is enforced: a module, and the steps of the procedure that its docstring numbers, if it numbers any."""

    module: str
    steps: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Such as ``weighbridge.verifier.procedure, step 5``."""
        if not self.steps:
            return self.module
        listed = ", ".join(map(str, self.steps))
        return f"{self.module}, {'step' if len(self.steps) == 1 else 'steps'} {listed}"


@dataclass(frozen=True, slots=True)
class Invariant:
    """One thing that holds.

    Attributes:
        group: what it is about.
        name: stable.
        holds: a clause without a full stop.
        codes: with which it refuses.
        where: enforces it.
        appraised: appraisal denies it, where it is told together with all else that is wrong.
    """

    group: Group
    name: str
    holds: str
    codes: tuple[Code, ...]
    where: tuple[Place, ...]
    appraised: bool = False


def _window(*steps: int) -> Place:
    return Place("weighbridge.verifier.procedure", steps)


def _enrolment(*steps: int) -> Place:
    return Place("weighbridge.verifier.enrolment", steps)


def _in(module: str) -> Place:
    return Place(f"weighbridge.verifier.{module}")


_ANSWER: Final = Place("weighbridge.policy.engines.output")

INVARIANTS: Final = (
    Invariant(
        "binding and signatures",
        "well-formed",
        "what arrives is bounded and well-formed, in the one encoding that there is of it",
        (
            Code.TOO_LARGE,
            Code.TOO_DEEP,
            Code.TRUNCATED,
            Code.TRAILING_BYTES,
            Code.NOT_CBOR,
            Code.NOT_ZSTD,
            Code.NOT_DETERMINISTIC,
            Code.DUPLICATE_KEY,
            Code.FIELD_MISSING,
            Code.FIELD_UNKNOWN,
            Code.FIELD_TYPE,
            Code.FIELD_RANGE,
            Code.VERSION_UNSUPPORTED,
            Code.COSE_HEADER,
            Code.KEY_MALFORMED,
            Code.KEY_UNSUPPORTED,
            Code.CERT_MALFORMED,
            Code.TPM_STRUCTURE,
            Code.GPU_REPORT_MALFORMED,
        ),
        (_window(1, 7, 8, 9, 10, 12, 13), _in("enroller"), _enrolment(2, 4, 5, 6, 7, 8)),
    ),
    Invariant(
        "binding and signatures",
        "attestation-key",
        "the attestation key is a restricted signing key that cannot leave its TPM, and it is believed for a stated "
        "reason, under a trust anchor, for as long as its certificates last",
        (
            Code.AK_ATTRIBUTES,
            Code.AK_UNPROVEN,
            Code.AK_CERT_MISMATCH,
            Code.EK_CERT_MISMATCH,
            Code.EK_TEMPLATE,
            Code.CHAIN_BROKEN,
            Code.CHAIN_UNTRUSTED,
            Code.CHAIN_EXPIRED,
            Code.CHAIN_LENGTH,
            Code.CERT_PURPOSE,
        ),
        (_enrolment(2, 3), _window(10), _in("tpm.ak"), _in("certs")),
    ),
    Invariant(
        "binding and signatures",
        "hardware-report",
        "where a confidential machine's report vouches for the key: hardware signed it, for a guest that cannot be "
        "debugged, with firmware that it admits to, and over this key",
        (
            Code.SNP_SIG,
            Code.SNP_TCB,
            Code.SNP_CHIP,
            Code.SNP_POLICY,
            Code.SNP_VMPL,
            Code.TDX_SIG,
            Code.TDX_DEBUG,
            Code.TDX_ATTRIBUTES,
            Code.TDX_TCB,
            Code.TDX_COLLATERAL,
            Code.HCL_BINDING,
            Code.CERT_REVOKED,
        ),
        (_enrolment(2), _in("tee.snp"), _in("tee.tdx"), _in("tee.vtpm")),
    ),
    Invariant(
        "binding and signatures",
        "telemetry-key",
        "the session's key was certified by the attestation key, dies with the next reset of the TPM, and works only "
        "under the boot that was quoted",
        (
            Code.TELEMETRY_KEY_MISMATCH,
            Code.TELEMETRY_KEY_HIERARCHY,
            Code.TELEMETRY_KEY_ATTRIBUTES,
            Code.TELEMETRY_KEY_POLICY,
        ),
        (_enrolment(5), _in("tpm.certify")),
    ),
    Invariant(
        "binding and signatures",
        "window-signed",
        "the window's header is signed by the session's key",
        (Code.TELEMETRY_KEY_MISMATCH, Code.COSE_SIGNATURE),
        (_window(2),),
    ),
    Invariant(
        "binding and signatures",
        "channel",
        "it came over the channel whose key the terms name",
        (Code.WINDOW_PEER,),
        (_window(3, 4), _enrolment(1)),
    ),
    Invariant(
        "binding and signatures",
        "terms",
        "the header is for this profile, tenant, audience, session, terms, model and serving key",
        (
            Code.WINDOW_PROFILE,
            Code.WINDOW_TENANT,
            Code.WINDOW_AUDIENCE,
            Code.WINDOW_SESSION,
            Code.WINDOW_TERMS,
            Code.WINDOW_CNF,
        ),
        (_window(4), _enrolment(1), Place("weighbridge.proto.window")),
    ),
    Invariant(
        "binding and signatures",
        "quote",
        "the attestation key signed a quote over this very window and the GPUs' reports, of exactly the registers that "
        "the terms demand",
        (
            Code.TPM_SIGNATURE,
            Code.TPM_MAGIC,
            Code.TPM_ATTEST_TYPE,
            Code.TPM_NONCE,
            Code.TPM_PCR_SELECTION,
            Code.TPM_PCR_VALUES,
        ),
        (_window(10), _enrolment(4), _in("tpm.quote")),
    ),
    Invariant(
        "binding and signatures",
        "gpu-reports",
        "each GPU signed its report over this very window, under a chain to its maker's root, and its certificate does "
        "not contradict its firmware",
        (Code.GPU_CHAIN, Code.GPU_SIG, Code.GPU_NONCE, Code.GPU_FWID, Code.GPU_ARCH, Code.GPU_MODE),
        (_window(9), _enrolment(6), _in("gpu.chain"), _in("gpu.report")),
    ),
    Invariant(
        "counts and identities",
        "devices",
        "the devices are exactly those that are enrolled, in the number that is demanded, each once and at least one "
        "of them a GPU; in protected PCIe they name each other and nobody else",
        (Code.GPU_MISSING, Code.GPU_UNEXPECTED, Code.GPU_DUPLICATE, Code.GPU_TOPOLOGY),
        (_window(9), _enrolment(6), _in("gpu.set"), _ANSWER),
    ),
    Invariant(
        "counts and identities",
        "evidence",
        "each kind of evidence is there exactly where the terms demand it",
        (Code.EVIDENCE_ABSENT, Code.EVIDENCE_UNEXPECTED),
        (_window(9, 12, 14), _enrolment(7)),
    ),
    Invariant(
        "counts and identities",
        "telemetry",
        "the telemetry is the one that was signed, of this window's session and time, of each enrolled GPU and of no "
        "other device",
        (Code.TELEMETRY_DIGEST, Code.TELEMETRY_SESSION, Code.TELEMETRY_TIME, Code.TELEMETRY_DEVICE),
        (_window(7),),
    ),
    Invariant(
        "freshness",
        "challenge",
        "the window is sealed under a challenge that was issued for it, in time: one that came late is kept and never "
        "admitted",
        (Code.CHALLENGE_UNKNOWN, Code.WINDOW_HELD),
        (_in("core"), _ANSWER),
    ),
    Invariant(
        "freshness",
        "interval",
        "its interval follows the last one by both clocks, lies between the two quotes, and not in the future",
        (Code.WINDOW_INTERVAL,),
        (_window(6, 11),),
    ),
    Invariant(
        "freshness",
        "spot-check",
        "a spot challenge that came with the window's own is answered, from the model's bytes",
        (Code.SPOT_ABSENT, Code.SPOT_WRONG),
        (_window(14), _in("spot_answer")),
    ),
    Invariant(
        "continuity",
        "chain",
        "the window is the next one, and continues the chain of those before it",
        (Code.WINDOW_SEQ, Code.WINDOW_PREV),
        (_window(5),),
    ),
    Invariant(
        "continuity",
        "once",
        "there is one window of a number: none is judged twice, and a second one is a fork",
        (Code.WINDOW_DUPLICATE, Code.WINDOW_FORK),
        (_in("core"), _in("procedure")),
    ),
    Invariant(
        "continuity",
        "tpm",
        "the TPM was neither reset nor restarted since the session's first quote, its clock went on, its firmware is "
        "the same",
        (Code.TPM_RESET, Code.TPM_CLOCK, Code.TPM_FIRMWARE),
        (_window(11), _in("tpm.continuity")),
    ),
    Invariant(
        "continuity",
        "boot",
        "the boot registers are those of the enrolment",
        (Code.TPM_PCR_VALUES,),
        (_window(12),),
    ),
    Invariant(
        "continuity",
        "session",
        "the session is known, and has neither ended nor failed",
        (Code.SESSION_UNKNOWN, Code.SESSION_STATE, Code.SESSION_FAILED),
        (_in("live"),),
    ),
    Invariant(
        "continuity",
        "subject",
        "neither the attestation key nor a GPU has failed before, unless somebody cleared it",
        (Code.SUBJECT_FAILED,),
        (_in("enroller"), _in("transaction")),
        appraised=True,
    ),
    Invariant(
        "measurement log",
        "log",
        "the log goes on without a gap, is the one that was signed, and replays to the quoted register",
        (Code.LOG_GAP, Code.LOG_HEAD, Code.LOG_DIGEST, Code.LOG_EVENT, Code.LOG_REPLAY),
        (_window(8, 12),),
    ),
    Invariant(
        "measurement log",
        "baseline",
        "the log accounts for everything since boot",
        (Code.BASELINE_UNEXPLAINED,),
        (_enrolment(8),),
        appraised=True,
    ),
    Invariant(
        "measurement log",
        "boot-logs",
        "where they are demanded, the logs of the boot and the kernel's list of files lead to the quoted registers",
        (Code.BOOT_LOG, Code.RUNTIME_LOG),
        (_enrolment(7), _window(12), _in("boot.facts"), _in("boot.runtime")),
    ),
    Invariant(
        "measurement log",
        "manifests",
        "every model that a record names came with its manifest, and no other manifest came",
        (Code.MANIFEST_DIGEST, Code.MANIFEST_MISSING),
        (_window(13), _enrolment(8)),
    ),
    Invariant(
        "weights",
        "declared",
        "every model that is loaded, or was since the last window, is declared, and one is",
        (Code.MODEL_UNDECLARED,),
        (_in("weights"), _ANSWER),
        appraised=True,
    ),
    Invariant(
        "weights",
        "loaded",
        "the declared model is loaded",
        (Code.MODEL_NOT_LOADED,),
        (_in("weights"),),
        appraised=True,
    ),
    Invariant(
        "weights",
        "equal",
        "what was loaded is, file by file and tensor by tensor, what was declared",
        (Code.WEIGHTS_MISMATCH,),
        (_in("weights"), _ANSWER),
        appraised=True,
    ),
    Invariant(
        "weights",
        "guarded",
        "no guard in the serving process found other bytes than were measured",
        (Code.LOAD_MISMATCH,),
        (_in("load_binding"),),
        appraised=True,
    ),
    Invariant(
        "owners' words",
        "not-revoked",
        "no owner in the reference values in force has revoked a model that is declared or loaded",
        (Code.MODEL_REVOKED,),
        (_in("acceptance"),),
        appraised=True,
    ),
    Invariant(
        "owners' words",
        "model-accepted",
        "a model that only signed reference sets accept is in one that is valid at the time of receipt",
        (Code.MODEL_EXPIRED,),
        (_in("acceptance"),),
        appraised=True,
    ),
    Invariant(
        "owners' words",
        "host-accepted",
        "a host that a host set accepts is in one that is valid at the time of receipt",
        (Code.HOST_SET_EXPIRED,),
        (_in("acceptance"),),
        appraised=True,
    ),
    Invariant(
        "the policy's answer",
        "exactly-true",
        "only an allow that is exactly true beside an empty deny admits: nothing undefined, no error, no engine that "
        "took too long or died, no answer of another form, no two engines that differ",
        (
            Code.POLICY_UNDEFINED,
            Code.POLICY_ERROR,
            Code.POLICY_TIMEOUT,
            Code.POLICY_CRASHED,
            Code.POLICY_OUTPUT,
            Code.POLICY_DISAGREE,
        ),
        (_ANSWER,),
    ),
)

APPRAISED: Final = frozenset(code for item in INVARIANTS if item.appraised for code in item.codes)
"""Codes that appraisal denies with, before any policy is asked; whatever of them applies is told at once."""


def codes() -> frozenset[Code]:
    """Every code with which an invariant refuses."""
    return frozenset(code for item in INVARIANTS for code in item.codes)
