"""What a verifier demands: nothing is optional, and nothing can be demanded that would prove less than a window."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.world import requirements
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.terms import PERIOD_MAX_NS, PERIOD_MIN_NS
from weighbridge.verifier.requirements import Requirements

GOOD: Final[dict[str, Any]] = json.loads(requirements().encode())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)


def parse(document: object) -> Requirements:
    return Requirements.parse(json.dumps(document).encode())


def refusal(document: object) -> MalformedEvidence:
    with pytest.raises(MalformedEvidence) as caught:
        parse(document)
    return caught.value


def test_what_is_encoded_is_parsed_to_the_same() -> None:
    wanted = requirements()
    assert Requirements.parse(wanted.encode()) == wanted
    assert wanted.bank.name == "SHA256"


@given(st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_bytes_are_requirements_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        Requirements.parse(data)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_in_any_field_is_taken_or_malformed(name: str, value: object) -> None:
    document = json.dumps({**GOOD, name: value}).encode()
    try:
        parsed = Requirements.parse(document)
    except MalformedEvidence:
        return
    assert Requirements.parse(parsed.encode()) == parsed


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"switches"}))
def test_every_field_is_needed(name: str) -> None:
    """A79: what is not demanded is written out; only switches, which few hosts have, are none where none are named."""
    found = refusal({key: value for key, value in GOOD.items() if key != name})
    assert found.code in {Code.FIELD_RANGE, Code.FIELD_MISSING}
    assert found.where == name


@pytest.mark.parametrize("document", [[], None, 1, {}, {**GOOD, "extra": 1}, {**GOOD, "schema_": GOOD["schema"]}])
def test_nothing_else_is_requirements(document: object) -> None:
    refusal(document)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema", "weighbridge/requirements/v2"),
        ("tenant", ""),
        ("tenant", "x" * 65),
        ("tenant", 1),
        ("audience", ""),
        ("audience", "x" * 257),
        ("gpus", "2"),
        ("gpus", 2.0),
        ("gpus", True),
        ("gpus", -1),
        ("gpus", 65),
        ("gpus", None),
        ("switches", -1),
        ("switches", 65),
        ("pcrs", [0, 24]),
        ("pcrs", [-1, 0]),
        ("pcrs", ["0"]),
        ("pcrs", 7),
        ("period_ns", PERIOD_MIN_NS - 1),
        ("period_ns", PERIOD_MAX_NS + 1),
        ("gpu_every", 0),
        ("gpu_every", 10_001),
        ("spot_every", -1),
        ("spot_every", 10_001),
        ("lateness_ns", -1),
        ("lateness_ns", PERIOD_MAX_NS + 1),
        ("evidence", ["gpu", "gpu"]),
        ("evidence", ["another"]),
    ],
)
def test_values_out_of_range_are_refused_by_place(name: str, value: object) -> None:
    found = refusal({**GOOD, name: value})
    assert found.code is Code.FIELD_RANGE
    assert found.where.partition(".")[0] in {name, "requirements"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gpus": 0, "evidence": ["telemetry", "tpm", "workload"], "switches": 1}, "without GPUs"),
        ({"gpus": 60, "switches": 5}, "at most 64 together"),
        ({"evidence": ["tpm", "gpu", "telemetry", "workload"]}, "in that order"),
        ({"evidence": ["gpu", "tpm", "workload"]}, "telemetry, tpm and workload"),
        ({"evidence": []}, "telemetry, tpm and workload"),
        ({"evidence": ["gpu", "platform", "telemetry", "tpm", "workload"]}, "platform"),
        ({"evidence": ["telemetry", "tpm", "workload"]}, "exactly when"),
        ({"gpus": 0}, "exactly when"),
        ({"pcrs": [15, 0, 1, 2, 3, 4, 5, 6, 7]}, "pcrs must be distinct"),
        ({"boot_pcrs": [1, 0]}, "boot_pcrs must be distinct"),
        ({"boot_pcrs": [0, 0]}, "boot_pcrs must be distinct"),
        ({"boot_pcrs": []}, "must not be empty"),
        ({"boot_pcrs": [0, 8]}, "among pcrs"),
        ({"log_pcr": 14}, "among pcrs"),
        ({"log_pcr": 7}, "must not be a boot PCR"),
        ({"pcrs": [0, 1, 2, 3, 4, 5, 6, 7, 16], "log_pcr": 16}, "16 or 23"),
        ({"pcrs": [0, 1, 2, 3, 4, 5, 6, 7, 23], "log_pcr": 23}, "16 or 23"),
    ],
)
def test_demands_that_would_prove_less_are_refused(changes: dict[str, object], says: str) -> None:
    """A47, A51, A79"""
    found = refusal({**GOOD, **changes})
    assert found.code is Code.FIELD_RANGE
    assert says in found.message


def test_demands_without_gpus_can_be_written() -> None:
    assert requirements(evidence=["telemetry", "tpm", "workload"], gpus=0).gpus == 0
