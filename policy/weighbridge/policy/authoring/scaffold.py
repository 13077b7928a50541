"""Starting policies: for each scenario a commented policy with tests, golden inputs and reference values to try.

What is written passes ``weighbridge policy check`` and ``weighbridge policy test`` at once, with every line covered:
an author begins from something that works, and sees at the first change what it does. Nothing is written here, and the
documents are made up (:mod:`.examples`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from weighbridge.policy.authoring.examples import EXAMPLES, MODEL, Example
from weighbridge.policy.authoring.golden import Expectation, ExpectedDenial, Golden, at_time
from weighbridge.policy.authoring.sources import GOLDEN, REFERENCE
from weighbridge.policy.policy_set import DATA, AuthorData
from weighbridge.policy.values.owner_sets import ModelValue, OwnerSet, StatementValue
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.resources.abc import Traversable

    from weighbridge.policy.document import Gpu, PolicyInput
    from weighbridge.policy.values.reference import Reference

__all__ = ["SCENARIOS", "Case", "Scenario", "files"]

_MODULES: Final = ("policy.rego", "policy_test.rego")
_README: Final = """\
# {title}

| file | is |
|---|---|
| `policy.rego` | the policy: change it |
| `policy_test.rego` | tests of it, in Rego |
| `golden/*.golden.json` | whole documents with what must come of them; `weighbridge policy eval --record` writes more |
{data}| `reference.json` | reference values to try it with; in earnest, they are the relying party's |

    weighbridge policy check .             is it safe to load?
    weighbridge policy test .              does it do what the tests say?
    weighbridge policy test . --watch      again after every change
    weighbridge policy docs                what can a rule look at?

The documents are made up: nothing in them was ever measured.
"""
_DATA_ROW: Final = "| `data.json` | what is yours: rules read it as `data.author` |\n"


@dataclass(frozen=True, slots=True)
class Case:
    """A golden input: what is changed of the example, and the codes of all denials that must come of it."""

    name: str
    title: str
    change: Callable[[PolicyInput], PolicyInput]
    denials: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Whom a starting policy is for, and what it is tried with."""

    name: str
    title: str
    example: Example
    cases: tuple[Case, ...]

    @property
    def author(self) -> strict.JsonObject:
        """What ``data.json`` says at the beginning; golden inputs go on saying it when an author changes that."""
        data = _template(self, DATA)
        return AuthorData(data.read_bytes()).content() if data.is_file() else {}

    def golden(self) -> Mapping[str, Golden]:
        """Golden inputs by the names of their files."""
        return {
            f"golden/{case.name}{GOLDEN}": Golden(
                case.title,
                case.change(self.example.input),
                self.example.reference,
                Expectation(
                    "deny" if case.denials else "allow", tuple(ExpectedDenial(code) for code in case.denials), {}
                ),
                self.author,
            )
            for case in self.cases
        }


def files(scenario: Scenario) -> Mapping[str, bytes]:
    """The files of a new directory, by their paths in it."""
    found = {name: _template(scenario, name).read_bytes() for name in _MODULES}
    data = _template(scenario, DATA)
    if data.is_file():
        found[DATA] = data.read_bytes()
    row = _DATA_ROW if DATA in found else ""
    found["README.md"] = _README.format(title=scenario.title, data=row).encode()
    # Sets are signed by owners, and are not the relying party's to write down.
    own = scenario.example.reference.with_sets(()).with_hosts(()).with_baselines(())
    found[REFERENCE] = strict.json_encode(strict.json_decode(own.to_json(), what=REFERENCE), indent=2) + b"\n"
    found.update((name, golden.to_json()) for name, golden in scenario.golden().items())
    return found


def _template(scenario: Scenario, name: str) -> Traversable:
    return resources.files("weighbridge.policy").joinpath("authoring", "scenarios", scenario.name, name)


def _same(document: PolicyInput) -> PolicyInput:
    return document


def _gpus(change: Callable[[Gpu], Gpu]) -> Callable[[PolicyInput], PolicyInput]:
    """The first device changed."""
    return lambda document: replace(document, gpus=(change(document.gpus[0]), *document.gpus[1:]))


def _revoked(gpu: Gpu) -> Gpu:
    return replace(gpu, revocation="revoked", revocation_detail="keyCompromise")


def _other_weights(document: PolicyInput) -> PolicyInput:
    (model,) = document.weights.loaded
    other = replace(model, manifest=sha256(b"manifest of another model").hex(), name=None, declared=False, recnum=2)
    return replace(document, weights=replace(document.weights, loaded=(model, other)))


def _tenant(document: PolicyInput) -> PolicyInput:
    return replace(document, session=replace(document.session, tenant="somebody else"))


def _owned(reference: Reference) -> Reference:
    """With a set of the model's owner in it, and in that an evaluator's statement."""
    statement = StatementValue(
        sha256(b"statement").hex(),
        "Evaluation Lab",
        "https://example.org/shutdown-evaluation/v1",
        "2026-11-01T00:00:00Z",
    )
    return reference.with_sets(
        [
            OwnerSet(
                owner="Example Models",
                number=1,
                digest=sha256(b"set").hex(),
                not_before=datetime(2026, 6, 1, tzinfo=UTC),
                not_after=datetime(2027, 6, 1, tzinfo=UTC),
                models=(ModelValue(MODEL, "example-8b-instruct", (statement,)),),
                revoked=(),
            )
        ]
    )


_AZURE: Final = EXAMPLES["azure_snp_h100"]
_METAL: Final = EXAMPLES["bare_metal_tpm_h100"]
_ADMITTED: Final = Case("admitted", "everything as it should be", _same)
_REVOKED: Final = Case(
    "revoked-gpu",
    "a GPU whose certificate is revoked",
    _gpus(_revoked),
    ("GPU_REVOCATION_UNKNOWN", "GPU_REVOKED"),
)
_UNDECLARED: Final = Case(
    "undeclared-model",
    "a second model was loaded that nobody declared",
    _other_weights,
    ("MODEL_UNDECLARED", "REFERENCE_ABSENT"),
)


def _scenarios() -> tuple[Scenario, ...]:
    return (
        Scenario(
            "model-gate",
            "A verifier that opens the gate to our models: genuine hosts, our tenants, models that we released",
            _AZURE,
            (
                _ADMITTED,
                _REVOKED,
                _UNDECLARED,
                Case("other-tenant", "another tenant's session", _tenant, ("NOT_OUR_TENANT",)),
            ),
        ),
        Scenario(
            "cloud-tenant",
            "A tenant's model at a cloud: in a confidential machine, with an image that we know",
            _AZURE,
            (
                _ADMITTED,
                replace(_REVOKED, denials=("GPU_NOT_FIT", *_REVOKED.denials)),
                _UNDECLARED,
                Case(
                    "unknown-image",
                    "what the machine booted is in no host set",
                    lambda document: replace(
                        document, platform=replace(document.platform, boot_reference="absent", host=None)
                    ),
                    ("IMAGE_UNKNOWN", "UNPROVEN"),
                ),
            ),
        ),
        Scenario(
            "bare-metal",
            "Our own machines: a TPM of their own, all their GPUs, and a host that is trusted",
            _METAL,
            (
                _ADMITTED,
                _REVOKED,
                Case(
                    "gpu-lost",
                    "one of the GPUs does not answer any more",
                    lambda document: replace(document, gpus=document.gpus[1:]),
                    ("GPUS_INCOMPLETE",),
                ),
            ),
        ),
        Scenario(
            "evaluated-model",
            "Only models that their owner vouches for and that somebody independent evaluated, not long ago",
            Example(_AZURE.input, _owned(_AZURE.reference)),
            (
                _ADMITTED,
                _UNDECLARED,
                Case(
                    "evaluation-too-old",
                    "the same host, three months later",
                    lambda document: at_time(document, datetime(2027, 2, 22, 12, 0, 10, tzinfo=UTC)),
                    ("NOT_EVALUATED",),
                ),
            ),
        ),
        Scenario(
            "audit-only",
            "An audit: says what a strict policy has against each window, and admits none",
            _AZURE,
            (
                Case("in-order", "everything as it should be", _same, ("AUDIT_ONLY",)),
                replace(_REVOKED, denials=("AUDIT_ONLY", *_REVOKED.denials)),
            ),
        ),
        Scenario(
            "development",
            "INSECURE, for development: admits emulated devices, and says so in every verdict",
            EXAMPLES["emulated"],
            (_ADMITTED, _UNDECLARED, Case("other-tenant", "another tenant's session", _tenant, ("NOT_DEVELOPMENT",))),
        ),
    )


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType({item.name: item for item in _scenarios()})
"""By name, in the order in which they are listed."""
