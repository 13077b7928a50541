"""AR4SI trustworthiness claims of one window, per submodule (draft-ietf-rats-ar4si-10 §2.3).

Computed from the document and not by the policy: what was shown does not depend on what somebody is content with.
A value is 2 where the evidence shows it, 0 ("none") where nothing is claimed, 32 where it holds but with a stated
weakness, 96 and 97 where it is contradicted. For ``sourced-data`` the draft has no contradicting value but 96, so a
physical record that cannot be and one that is not that of its baseline are alike here; the denials tell them apart. No
claim is better than its evidence: telemetry without a baseline, or too little of it, says nothing; executables measured
by code that is not itself proven are no more than a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from weighbridge.policy.document import Gpu, Platform, PolicyInput

__all__ = [
    "AFFIRMING",
    "AR4SI_CLAIMS",
    "CONTRAINDICATED",
    "NONE",
    "UNRECOGNISED",
    "WARNING",
    "not_better",
    "trust_claims",
]

NONE: Final = 0
AFFIRMING: Final = 2
WARNING: Final = 32
UNRECOGNISED_EXECUTABLES: Final = 33
CONTRAINDICATED: Final = 96
UNRECOGNISED: Final = 97

AR4SI_CLAIMS: Final = frozenset(
    {
        "instance-identity",
        "configuration",
        "executables",
        "file-system",
        "hardware",
        "runtime-opaque",
        "storage-opaque",
        "sourced-data",
    }
)
"""The claims of a trustworthiness vector (draft-ietf-rats-ar4si-10 §2.3)."""

_EMULATED: Final = "insecure-"


def trust_claims(document: PolicyInput) -> Mapping[str, Mapping[str, int]]:
    """Submodules ``tpm0``, ``weights0``, ``telemetry0`` and ``gpu0`` … in the document's order, with their claims."""
    claims: dict[str, Mapping[str, int]] = {
        "tpm0": _tpm(document),
        "weights0": {"executables": _weights(document)},
        "telemetry0": {"sourced-data": _telemetry(document)},
    }
    for index, gpu in enumerate(document.gpus):
        claims[f"gpu{index}"] = _gpu(gpu)
    return MappingProxyType({name: MappingProxyType(dict(values)) for name, values in claims.items()})


def not_better(value: int, shown: int) -> bool:
    """Whether ``value`` says no more for its subject than ``shown``, by AR4SI's tiers (§2.3.2).

    From the best: affirming, none (nothing is claimed), warning, contraindicated. Within a tier any value will do.
    """
    return _badness(value) >= _badness(shown)


def _badness(value: int) -> int:
    """0 affirming, 1 none, 2 warning, 3 contraindicated. Negative values are the verifier's own, of the same tiers."""
    if -1 <= value <= 1:
        return 1
    size = value if value > 0 else -value - 1
    return 0 if size < WARNING else 2 if size < CONTRAINDICATED else 3


def _tpm(document: PolicyInput) -> dict[str, int]:
    platform = document.platform
    emulated = platform.name.startswith(_EMULATED)
    booted = platform.secure_boot == "proven" and platform.kernel_lockdown == "proven"
    return {
        "instance-identity": NONE if emulated else AFFIRMING,
        "configuration": AFFIRMING if booted else NONE,
        "executables": _executables(document),
        "hardware": WARNING if emulated else _hardware(platform),
    }


def _executables(document: PolicyInput) -> int:
    if document.platform.boot_reference == "mismatch":
        return UNRECOGNISED_EXECUTABLES
    return AFFIRMING if document.attester_code.status == "proven" else NONE


def _hardware(platform: Platform) -> int:
    """Affirmed where a hardware report says so under certificates that are known not to be revoked."""
    if platform.tee.kind == "none" or platform.host_binding != "proven":
        return NONE
    good = platform.tee.tcb_status in {"matches", "UpToDate"} and platform.tee.alias_check != "incomplete"
    return AFFIRMING if good else WARNING


def _gpu(gpu: Gpu) -> dict[str, int]:
    emulated = gpu.platform.startswith(_EMULATED)
    measured = {"match": AFFIRMING, "mismatch": CONTRAINDICATED, "absent": NONE}[gpu.reference]
    identity = {"good": AFFIRMING, "revoked": CONTRAINDICATED, "hold": CONTRAINDICATED}.get(gpu.revocation, NONE)
    # A switch reports no firmware digest to compare; its measurements are compared all the same.
    named = gpu.fwid == "matches" or gpu.kind == "switch"
    claimed = {"off": CONTRAINDICATED, "devtools": WARNING, "on": NONE, None: NONE}[gpu.cc_mode_host_claim]
    return {
        "instance-identity": NONE if emulated and identity == AFFIRMING else identity,
        "configuration": claimed,
        "executables": measured if named else CONTRAINDICATED,
        "hardware": WARNING if emulated else AFFIRMING,
    }


def _weights(document: PolicyInput) -> int:
    weights = document.weights
    declared = {model.manifest for model in weights.declared}
    if weights.differences:
        return CONTRAINDICATED
    if any(not model.declared or model.manifest not in declared for model in weights.loaded):
        return UNRECOGNISED_EXECUTABLES
    if not declared or declared != {model.manifest for model in weights.loaded}:
        return NONE
    return AFFIRMING if document.attester_code.status == "proven" else WARNING


def _telemetry(document: PolicyInput) -> int:
    verdict = document.telemetry.verdict
    if verdict in ("out_of_baseline", "implausible"):
        return CONTRAINDICATED
    if verdict != "in_baseline":
        return NONE
    return AFFIRMING if document.attester_code.status == "proven" else WARNING
