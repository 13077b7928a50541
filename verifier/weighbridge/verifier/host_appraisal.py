"""What booted and what ran, compared with host sets: the host's part of an appraisal.

Decides nothing: a difference, a violation or a demand that is not met is a fact for the policy. What the logs lead to
was compared with the quotes before (:mod:`weighbridge.verifier.boot`).

Of several host sets that match, the one counts that proves most: that under which the attester's code is proven, else
that under which the fewest demands are missing, else the one that says most of the host. Each is an owner's word that
the relying party believes, whole and by itself: nothing is put together out of two. A lax set beside a strict one
therefore takes nothing from a good host, and gives nothing that it would not give alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy import document
from weighbridge.proto.errors import shorten
from weighbridge.verifier.boot.attester_code import judge
from weighbridge.verifier.boot.runtime import unknown
from weighbridge.verifier.host_match import matches

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.policy.values.host_sets import HostSet
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.boot.attester_code import AttesterCode
    from weighbridge.verifier.boot.runtime import RuntimeLog
    from weighbridge.verifier.host_match import HostMatch
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled

__all__ = ["HostAppraisal", "appraise_host"]

# How many files that no host set names are told of by name; their number is told in any case.
_EXAMPLES_MAX: Final = 16
_PATH_MAX: Final = 256
_NOTHING: Final[frozenset[str]] = frozenset()
# Whoever is root can extend a register with a command line after the boot, and describe the real one as something else:
# a line is the kernel's only where the owner accepts the registers that name it.
_LOCKDOWN: Final = ("tpm", "boot-chain", "command-line", "lockdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAppraisal:
    """The comparison's outcome, in the document's terms. ``name`` is the host set that counts, or comes nearest.

    ``host_binding`` is about the code that runs a confidential machine's TPM: whoever starts machines starts one with
    code of his own that claims any key, and makes its quotes by hand; the measurement is all that tells them apart.
    ``reasons`` say why it does not match, in words; none where it does, or where there is no host set. ``expired`` is a
    set that would match at another time.
    """

    boot_reference: Literal["match", "mismatch", "absent"]
    name: str | None
    differences: tuple[document.BootDifference, ...]
    reasons: tuple[str, ...]
    expired: HostSet | None
    host_binding: document.Proof
    secure_boot: document.Proof
    kernel_lockdown: document.Proof
    attester_code: document.AttesterCode
    runtime: document.Runtime


def appraise_host(window: VerifiedWindow, enrolled: Enrolled, reference: Reference, *, at: datetime) -> HostAppraisal:
    """Compare the host of ``window`` with the host sets in force ``at`` its receipt.

    Args:
        window: verified.
        enrolled: what was proven at enrolment; the logs of the boot are looked at once.
        reference: the values in force.
        at: the verifier's receipt time.
    """
    quote, runtime, ak = window.quote, window.runtime, enrolled.ak
    bound = ak.tee is not None and ak.names_guest and ak.tee.measurement.hex() in reference.tee_measurements

    def judged(found: HostMatch) -> AttesterCode:
        host = found.matching
        files, attester = (_NOTHING, _NOTHING) if host is None else (host.files, host.attester)
        known: frozenset[int] = frozenset(() if host is None else host.pcrs)
        tpm = ak.tee is None or bound
        return judge(enrolled.boot, runtime, closed=files, attester=attester, known=known, tpm=tpm)

    candidates = [(found, judged(found)) for found in matches(reference.hosts, quote.pcrs, quote.firmware, at)]
    # Of equals the first, which says most of the host.
    found, code = min(candidates, key=lambda candidate: len(candidate[1].missing))
    files = _NOTHING if found.matching is None else found.matching.files
    return HostAppraisal(
        boot_reference=found.status,
        name=None if found.host is None else found.host.name,
        differences=_differences(found),
        reasons=() if found.host is None else found.reasons(),
        expired=found.expired,
        host_binding="proven" if bound else "unproven",
        secure_boot=_shown(code, "tpm", "secure-boot"),
        kernel_lockdown=_shown(code, *_LOCKDOWN),
        attester_code=document.AttesterCode(code.status, code.missing),
        runtime=document.Runtime() if runtime is None else _runtime(runtime, files),
    )


def _differences(found: HostMatch) -> tuple[document.BootDifference, ...]:
    return tuple(
        document.BootDifference(
            item.pcr, tuple(value.hex() for value in item.expected), None if item.got is None else item.got.hex()
        )
        for item in found.differing
    )


def _shown(code: AttesterCode, *keys: str) -> document.Proof:
    return "unproven" if any(key in code.missing for key in keys) else "proven"


def _runtime(runtime: RuntimeLog, files: frozenset[str]) -> document.Runtime:
    strangers = unknown(runtime, files)
    return document.Runtime(
        present=True,
        entries=runtime.count,
        violations=runtime.violations,
        unknown=len(strangers),
        examples=tuple(
            document.MeasuredFile(item.name, shorten(item.path, _PATH_MAX)) for item in strangers[:_EXAMPLES_MAX]
        ),
    )
