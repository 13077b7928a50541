"""docs/policy.md: the rules that it gives authors load together, and refuse and admit what it says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.authoring.golden import at_time
from weighbridge.policy.document import Gpu, PolicyInput, TelemetryVerdict
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicyModule, shipped
from weighbridge.policy.values.owner_sets import ModelValue, OwnerSet, StatementValue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


EXAMPLE: Final = EXAMPLES["azure_snp_h100"]
# A Monday, the day after the example was received.
NOON: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
Denied = Callable[[PolicyInput], set[str]]
HEAD: Final = """package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if count(deny) == 0

deny contains d if some d in lib.always
"""


@pytest.fixture(scope="module")
def denied(root: Path) -> Iterator[Denied]:
    """The codes with which a policy of those rules refuses a document."""
    text = (root / "docs" / "policy.md").read_text(encoding="utf-8")
    _, section = text.split("### Rules that are often wanted\n")
    blocks = [block.split("```")[0] for block in section.split("\n## ")[0].split("```rego\n")[1:]]
    assert len(blocks) == 3
    (model,) = EXAMPLE.input.weights.declared
    said = StatementValue("01" * 32, "Evaluation Lab", "https://example.org/evaluation/v1", "2026-09-01T00:00:00Z")
    accepted = OwnerSet(
        owner="Acme",
        number=1,
        digest="11" * 32,
        models=(ModelValue(model.manifest, "m", (said,)),),
        revoked=(),
        not_before=NOON - timedelta(days=365),
        not_after=NOON + timedelta(days=365),
    )
    whole = shipped("production", reference=EXAMPLE.reference.with_sets([accepted]))
    own = PolicyModule("gate.rego", "\n".join([HEAD, *blocks]).encode())
    with RegorusEngine().load(replace(whole, modules=(whole.modules[0], own))) as policy:
        yield lambda document: {item.code for item in policy.decide(document).denials}


def test_all_of_it_is_as_it_should_be(denied: Denied) -> None:
    assert denied(at_time(EXAMPLE.input, NOON)) == set()


OTHERS: Final[dict[str, Callable[[Gpu], Gpu]]] = {
    "another generation": lambda gpu: replace(gpu, architecture="GB100"),
    "nobody knows which": lambda gpu: replace(gpu, architecture=None),
    "an old driver": lambda gpu: replace(gpu, minimum="below"),
    "nothing recent of its revocation": lambda gpu: replace(gpu, revocation="stale"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_gpu(denied: Denied, name: str) -> None:
    document = at_time(EXAMPLE.input, NOON)
    first, *others = document.gpus
    assert "NOT_HOPPER" in denied(replace(document, gpus=(OTHERS[name](first), *others)))


def test_an_evaluation_that_is_too_old(denied: Denied) -> None:
    assert denied(at_time(EXAMPLE.input, datetime(2026, 11, 27, 12, tzinfo=UTC))) == set()
    assert denied(at_time(EXAMPLE.input, datetime(2026, 12, 1, 12, tzinfo=UTC))) == {"NOT_EVALUATED"}


@pytest.mark.parametrize(
    ("time", "refused"),
    [
        ("2026-11-23T07:59:59.999999", True),
        ("2026-11-23T08:00:00", False),
        ("2026-11-27T17:59:59", False),
        ("2026-11-27T18:00:00", True),
        ("2026-11-28T12:00:00", True),
        ("2026-11-29T12:00:00", True),
    ],
)
def test_the_hours(denied: Denied, time: str, refused: bool) -> None:
    found = denied(at_time(EXAMPLE.input, datetime.fromisoformat(f"{time}+00:00")))
    assert found == ({"OUT_OF_HOURS"} if refused else set())


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("in_baseline", None),
        ("unusable", "TELEMETRY_UNUSABLE"),
        ("no_baseline", "TELEMETRY_NO_BASELINE"),
        ("out_of_baseline", "TELEMETRY_OUT_OF_BASELINE"),
    ],
)
def test_a_baseline_that_is_demanded(root: Path, word: TelemetryVerdict, code: str | None) -> None:
    """Nothing but ``TELEMETRY_UNUSABLE`` makes a window indeterminate: the rule has to give the code of the word."""
    text = (root / "docs" / "policy.md").read_text(encoding="utf-8")
    block = text.split("**To demand a baseline**")[1].split("```rego\n")[1].split("```")[0]
    example = EXAMPLES["in_baseline"]
    telemetry = example.input.telemetry
    devices = tuple(replace(device, verdict=word) for device in telemetry.devices)
    document = replace(example.input, telemetry=replace(telemetry, verdict=word, devices=devices))
    whole = shipped("production", reference=example.reference)
    own = PolicyModule("gate.rego", f"{HEAD}\n{block}".encode())
    with RegorusEngine().load(replace(whole, modules=(whole.modules[0], own))) as policy:
        assert {item.code for item in policy.decide(document).denials} == ({code} if code else set())
