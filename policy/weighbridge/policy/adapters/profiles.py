"""What is asked of a policy that was written for another verifier, and how its answer is read.

Each reader gives the reasons for which the answer refuses; none is consent. An answer that is not understood refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.policy.adapters import claims
from weighbridge.policy.claims import AR4SI_CLAIMS, WARNING, trust_claims
from weighbridge.proto import strict
from weighbridge.proto.errors import shorten

if TYPE_CHECKING:
    from weighbridge.policy.adapters.module import ProfileName
    from weighbridge.policy.document import PolicyInput

__all__ = ["BY_NAME", "Profile", "Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """One input to a policy. ``device``: the GPU that it is about, where it is about one."""

    device: str | None
    input: strict.JsonValue


@dataclass(frozen=True, slots=True)
class Profile:
    """One verifier's contract with its policies.

    Attributes:
        query: what is evaluated.
        questions: the inputs that a window comes to; each must be consented to.
        refuses: why an answer refuses, as expected and got; ``None`` where it consents.
        preamble: a module that its policies expect beside them; empty where there is none.
    """

    query: str
    questions: Callable[[PolicyInput], tuple[Question, ...]]
    refuses: Callable[[strict.JsonValue], tuple[str, str] | None]
    preamble: str = ""


_AFFIRMING: Final = "affirming"
# AR4SI's names as Rego's variables.
_CLAIMS: Final = {name: name.replace("-", "_") for name in sorted(AR4SI_CLAIMS)}


def _shown(value: strict.JsonValue) -> str:
    """A value as JSON, shortened."""
    return shorten(strict.json_encode(value).decode())


def _exactly_true(answer: strict.JsonValue) -> tuple[str, str] | None:
    return None if answer is True else ("true", _shown(answer))


def _vector(answer: strict.JsonValue) -> tuple[str, str] | None:
    """A trustworthiness vector: something must be affirmed, and nothing worse said (AR4SI §2.3.2)."""
    if not isinstance(answer, dict):
        return "a trustworthiness vector", _shown(answer)
    values: dict[str, int] = {}
    for name, value in answer.items():
        if name not in _CLAIMS or type(value) is not int:
            return "claims of AR4SI, each a number", f"{name[:64]} {_shown(value)}"
        values[name] = value
    worst = max(values, key=lambda name: abs(values[name]), default="")
    if not worst or abs(values[worst]) <= 1:
        return _AFFIRMING, "no claim"
    return None if abs(values[worst]) < WARNING else (_AFFIRMING, f"{worst} {values[worst]}")


def _trustee(answer: strict.JsonValue) -> tuple[str, str] | None:
    """``trust_claims``; or, as policies for devices have it, a rule for each claim."""
    if not isinstance(answer, dict):
        return "trust_claims", _shown(answer)
    if "trust_claims" in answer:
        return _vector(answer["trust_claims"])
    return _vector({claim: answer[rule] for claim, rule in _CLAIMS.items() if rule in answer})


def _veraison(answer: strict.JsonValue) -> tuple[str, str] | None:
    """``outcome``: nothing said leaves the scheme's own result, which is ours and has been judged."""
    if not isinstance(answer, dict) or not {"status", "trust-vector"} <= answer.keys():
        return "outcome", _shown(answer)
    status, vector = answer["status"], answer["trust-vector"]
    if type(status) is not int or not isinstance(vector, dict):
        return "a status and a trust-vector", _shown(answer)
    if abs(status) >= WARNING:
        return _AFFIRMING, f"status {status}"
    said = {name: value for name, value in vector.items() if value != 0}
    return _vector(said) if said else None


def _of_devices(document: PolicyInput) -> tuple[Question, ...]:
    """One question with the claims of all devices."""
    return (Question(None, [claims.nvidia(gpu) for gpu in document.gpus]),)


def _of_cpu(document: PolicyInput) -> tuple[Question, ...]:
    return (Question(None, claims.trustee_cpu(document)),)


def _of_each_gpu(document: PolicyInput) -> tuple[Question, ...]:
    return tuple(Question(gpu.identity, {"nvidia": claims.underscored(claims.nvidia(gpu))}) for gpu in document.gpus)


def _of_scheme(document: PolicyInput) -> tuple[Question, ...]:
    vectors = trust_claims(document)
    evidence = strict.json_decode(document.to_json(), what="input")
    return tuple(
        Question(
            None,
            {
                "scheme": "WEIGHBRIDGE",
                "session": {"id": document.session.id},
                "submod": name,
                "result": {"ear.trustworthiness-vector": dict(vector)},
                "evidence": evidence,
                "endorsements": {},
            },
        )
        for name, vector in vectors.items()
    )


def _of_composite(document: PolicyInput) -> tuple[Question, ...]:
    machine = claims.intel_tdx(document)
    return tuple(Question(gpu.identity, {**machine, "nvgpu": claims.nvidia(gpu)}) for gpu in document.gpus)


# Our own words for Veraison's contract (veraison/services, policy/opa.rego): the names that its policies use, and what
# is asked of them. Valid in both versions of the language.
_VERAISON: Final = """\
package policy

NO_CLAIM := 0
AFFIRMING := 2
WARNING := 32
CONTRAINDICATED := 96
RECOGNIZED_INSTANCE := 2
UNTRUSTWORTHY_INSTANCE := 96
UNRECOGNIZED_INSTANCE := 97
APPROVED_CONFIG := 2
SAFE_CONFIG := 3
UNSAFE_CONFIG := 32
UNSUPPORTABLE_CONFIG := 96
APPROVED_RT := 2
APPROVED_BOOT := 3
UNSAFE_RT := 32
UNRECOGNIZED_RT := 33
CONTRAINDICATED_RT := 96
APPROVED_FS := 2
UNRECOGNIZED_FS := 32
CONTRAINDICATED_FS := 96
GENUINE_HW := 2
UNSAFE_HW := 32
CONTRAINDICATED_HW := 96
UNRECOGNIZED_HW := 97
ENCRYPTED_RT := 2
ISOLATED_RT := 32
VISIBLE_RT := 96
HW_ENCRYPTED_SECRETS := 2
SW_ENCRYPTED_SECRETS := 32
UNENCRYPTED_SECRETES := 96
TRUSTED_SOURCES := 2
UNTRUSTED_SOURCES := 32
CONTRAINDICATED_SOURCES := 96

scheme := input.scheme

session := input.session

submod := input.submod

result := input.result

evidence := input.evidence

endorsements := input.endorsements

default status := 0

default instance_identity := 0

default configuration := 0

default executables := 0

default file_system := 0

default hardware := 0

default runtime_opaque := 0

default storage_opaque := 0

default sourced_data := 0

default added_claims := {}

semver_cmp(a, b) := semver.compare(a, b)

outcome := {
	"status": status,
	"trust-vector": {
		"instance-identity": instance_identity,
		"configuration": configuration,
		"executables": executables,
		"file-system": file_system,
		"hardware": hardware,
		"runtime-opaque": runtime_opaque,
		"storage-opaque": storage_opaque,
		"sourced-data": sourced_data,
	},
	"added-claims": added_claims,
}
"""

BY_NAME: Final[Mapping[ProfileName, Profile]] = {
    "intel": Profile("data.policy.match", _of_composite, _exactly_true),
    "nvidia": Profile("data.policy.nv_match", _of_devices, _exactly_true),
    "trustee-cpu": Profile("data.policy", _of_cpu, _trustee),
    "trustee-gpu": Profile("data.policy", _of_each_gpu, _trustee),
    "veraison": Profile("data.policy.outcome", _of_scheme, _veraison, _VERAISON),
}
"""Every profile by its name."""
