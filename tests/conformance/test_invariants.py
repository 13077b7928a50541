"""A policy that allows everything admits no case of the corpus that an invariant refuses.

Every refused window of the corpus is judged again, with nothing but ``allow if true`` for a policy. What is still
refused, in the same words, is what the list of invariants says; what is admitted was the policy's business.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from corpus.arena import Arena, judged
from corpus.manifests import Manifest, cases, manifests
from support.world import Engines
from weighbridge.policy.policy_set import PolicyModule, PolicySet
from weighbridge.proto.errors import Code
from weighbridge.verifier.invariants import INVARIANTS, codes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, Prepared

ALLOW: Final = b"""package weighbridge.policy

import rego.v1

default allow := false

allow if true

deny contains d if {
	false
	d := {}
}
"""
CASES: Final = cases()
# What is refused before there is a verdict was refused before any policy, whichever it is; bundles and adapters are
# judged by the policies that they name, and a policy that comes while sessions run is judged by nobody's but its own.
# What a physical record comes to is every policy's own business, and such cases go on until their policy has denied.
RECORDS: Final = frozenset(
    {
        Code.TELEMETRY_IMPLAUSIBLE,
        Code.TELEMETRY_OUT_OF_BASELINE,
        Code.TELEMETRY_NO_BASELINE,
        Code.TELEMETRY_UNUSABLE,
    }
)
JUDGED: Final = {
    name: manifest
    for name, manifest in manifests().items()
    if manifest.outcome in {"denied", "held", "indeterminate"}
    and not name.startswith(("bundle/", "adapters/", "policies/"))
    and not set(manifest.codes) <= RECORDS
}
# Of a code that both an invariant and the library refuse with, these are the library's.
LIBRARYS: Final = {"published/034-switch-not-locked": Code.GPU_MODE}


@dataclass(frozen=True)
class Disguised:
    """The lenient policy under the name of the one that was asked for, whose files the verifier keeps."""

    inner: Prepared
    digest: bytes

    def decide(self, document: PolicyInput) -> Decision:
        return replace(self.inner.decide(document), policy_digest=self.digest)

    def close(self) -> None:
        self.inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lenient(Engines):
    """Whatever policy is asked for, the one that allows everything is loaded."""

    def load(self, policy: PolicySet) -> Prepared:
        library = [module for module in policy.modules if module.name.startswith("weighbridge/lib")]
        everything = PolicyModule("weighbridge/everything.rego", ALLOW)
        return Disguised(super().load(PolicySet((*library, everything), policy.reference)), policy.digest)


@pytest.fixture(scope="module")
def lenient() -> Iterator[Lenient]:
    engines = Lenient()
    yield engines
    engines.close()


@pytest.fixture
def everything_goes(quick_dir: Path, lenient: Lenient) -> Iterator[Arena]:
    """Where worlds are made whose policy allows everything."""
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        arena = Arena(Path(directory), lenient)
        yield arena
        arena.close()


@pytest.mark.parametrize("manifest", JUDGED.values(), ids=JUDGED.keys())
def test_no_policy_sees_past_an_invariant(manifest: Manifest, everything_goes: Arena) -> None:
    result = judged(CASES[manifest.id], everything_goes)
    invariant = tuple(code for code in manifest.codes if code in codes() and code is not LIBRARYS.get(manifest.id))
    if invariant:
        assert (result.outcome, result.codes) == (manifest.outcome, invariant)
    else:
        assert result.outcome == "affirmed", result.codes


def test_no_invariant_is_about_a_physical_record() -> None:
    assert not RECORDS & codes()


def test_the_corpus_has_a_case_of_every_invariant() -> None:
    """None of them is shown by words alone; nobody sees the engine fail there, which other tests do."""
    shown = {code for manifest in manifests().values() for code in manifest.codes}
    missing = [item.name for item in INVARIANTS if not shown.intersection(item.codes)]
    assert missing == ["exactly-true"]
