"""Reference values are strict JSON, and only what may be left out can be left out, with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy.values.host_sets import HostSet
from weighbridge.policy.values.reference import CHECKS, SCHEMA, GpuMinimum, Reference
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence

DIGEST = "ab" * 32
TEE = "ab" * 48
VALID: dict[str, object] = {
    "schema": SCHEMA,
    "models": {DIGEST: {"name": "minilm"}},
    "gpu_measurements": {"HOPPER/550/96": [DIGEST]},
    "unchecked": {"host_binding": "the rack is ours and locked"},
}
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOST = HostSet(
    owner="Acme",
    name="node",
    number=1,
    digest=DIGEST,
    not_before=NOON,
    not_after=NOON,
    pcrs={0: (bytes(32),)},
    firmware=None,
    files=frozenset(),
    attester=frozenset(),
)


def parse(**changed: object) -> Reference:
    return Reference.parse(json.dumps({**VALID, **changed}).encode())


def test_what_is_written_is_read() -> None:
    value = parse()
    assert value.models == {DIGEST: "minilm"}
    assert value.gpu_measurements == {"HOPPER/550/96": (DIGEST,)}
    assert value.unchecked == {"host_binding": "the rack is ours and locked"}
    assert Reference.parse(value.to_json()) == value
    assert value.digest == D("reference", value.to_json())


def test_the_first_code_of_confidential_machines_may_be_named() -> None:
    value = parse(tee_measurements={TEE: {"name": "paravisor"}})
    assert value.tee_measurements == {TEE: "paravisor"}
    assert Reference.parse(value.to_json()) == value
    assert value.digest != parse().digest == parse(tee_measurements={}).digest


def test_the_oldest_firmware_of_gpus_may_be_named() -> None:
    value = parse(
        gpu_minimum={"GH100": {"driver": "550.144.03", "vbios": None}, "LS_10": {"driver": None, "vbios": "96"}}
    )
    assert value.gpu_minimum == {"GH100": GpuMinimum("550.144.03", None), "LS_10": GpuMinimum(None, "96")}
    assert Reference.parse(value.to_json()) == value
    assert Reference.recorded(value.with_hosts([HOST]).to_json()) == value.with_hosts([HOST])
    assert value.digest != parse().digest == parse(gpu_minimum={}).digest
    # What it comes to is in the input, GPU by GPU: there is nothing for a policy to compare.
    assert value.data() == parse().data()


def test_all_five_checks_may_be_left_out() -> None:
    assert set(parse(unchecked=dict.fromkeys(CHECKS, "for this long reason")).unchecked) == set(CHECKS)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"schema": "weighbridge/reference/v2"}, Code.VERSION_UNSUPPORTED),
        ({"schema": None}, Code.VERSION_UNSUPPORTED),
        ({"more": 1}, Code.FIELD_UNKNOWN),
        ({"models": []}, Code.FIELD_TYPE),
        ({"models": {DIGEST.upper(): {"name": "x"}}}, Code.NOT_HEX),
        ({"models": {"ab": {"name": "x"}}}, Code.FIELD_RANGE),
        ({"models": {DIGEST: "x"}}, Code.FIELD_TYPE),
        ({"models": {DIGEST: {}}}, Code.FIELD_MISSING),
        ({"models": {DIGEST: {"name": "x", "more": 1}}}, Code.FIELD_UNKNOWN),
        ({"models": {DIGEST: {"name": 1}}}, Code.FIELD_TYPE),
        ({"models": {DIGEST: {"name": ""}}}, Code.FIELD_RANGE),
        ({"models": {DIGEST: {"name": "x" * 600}}}, Code.FIELD_RANGE),
        ({"models": {DIGEST: {"name": "\ud800"}}}, Code.NOT_UTF8),
        ({"gpu_measurements": {"HOPPER/550": [DIGEST]}}, Code.FIELD_RANGE),
        ({"gpu_measurements": {"HOPPER//96": [DIGEST]}}, Code.FIELD_RANGE),
        ({"gpu_measurements": {"HOPPER/550/96": []}}, Code.FIELD_TYPE),
        ({"gpu_measurements": {"HOPPER/550/96": DIGEST}}, Code.FIELD_TYPE),
        ({"gpu_measurements": {"HOPPER/550/96": ["xx"]}}, Code.NOT_HEX),
        ({"gpu_measurements": {"HOPPER/550/96": [None]}}, Code.FIELD_TYPE),
        ({"tee_measurements": None}, Code.FIELD_TYPE),
        ({"tee_measurements": {DIGEST: {"name": "x"}}}, Code.FIELD_RANGE),
        ({"tee_measurements": {TEE.upper(): {"name": "x"}}}, Code.NOT_HEX),
        ({"tee_measurements": {TEE: "x"}}, Code.FIELD_TYPE),
        ({"gpu_minimum": None}, Code.FIELD_TYPE),
        ({"gpu_minimum": {"GH100": "550"}}, Code.FIELD_TYPE),
        ({"gpu_minimum": {"GH100": {}}}, Code.FIELD_MISSING),
        ({"gpu_minimum": {"GH100": {"driver": "550"}}}, Code.FIELD_MISSING),
        ({"gpu_minimum": {"GH100": {"driver": "550", "vbios": None, "more": None}}}, Code.FIELD_UNKNOWN),
        ({"gpu_minimum": {"GH100": {"driver": 550, "vbios": None}}}, Code.FIELD_TYPE),
        ({"gpu_minimum": {"GH100": {"driver": "", "vbios": None}}}, Code.FIELD_RANGE),
        ({"gpu_minimum": {"GH100": {"driver": "newest", "vbios": None}}}, Code.FIELD_RANGE),
        ({"gpu_minimum": {"GH100": {"driver": None, "vbios": "96.0"}}}, Code.FIELD_RANGE),
        ({"gpu_minimum": {"": {"driver": None, "vbios": None}}}, Code.FIELD_RANGE),
        ({"gpu_minimum": {"x" * 600: {"driver": None, "vbios": None}}}, Code.FIELD_RANGE),
        ({"unchecked": None}, Code.FIELD_TYPE),
        ({"unchecked": {"host_binding": "short"}}, Code.FIELD_RANGE),
        ({"unchecked": {"host_binding": "   x         "}}, Code.FIELD_RANGE),
        ({"unchecked": {"host_binding": True}}, Code.FIELD_TYPE),
        ({"unchecked": {"weights": "because I say so"}}, Code.FIELD_UNKNOWN),
        ({"unchecked": {"platform": "because I say so"}}, Code.FIELD_UNKNOWN),
        ({"unchecked": {"freshness": "because I say so"}}, Code.FIELD_UNKNOWN),
        ({"unchecked": {"gpu_reference": "because I say so"}}, Code.FIELD_UNKNOWN),
    ],
)
def test_every_deviation_is_refused_by_code(changed: dict[str, object], code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse(**changed)
    assert caught.value.code is code


@pytest.mark.parametrize("name", ["models", "gpu_measurements", "unchecked"])
def test_every_member_is_required(name: str) -> None:
    """A64, A63: an absent list of reference values is not an empty one."""
    with pytest.raises(MalformedEvidence) as caught:
        Reference.parse(json.dumps({key: value for key, value in VALID.items() if key != name}).encode())
    assert caught.value.code is Code.FIELD_MISSING


def test_it_is_one_object() -> None:
    for data, code in (
        (b"[]", Code.FIELD_TYPE),
        (b"", Code.NOT_JSON),
        (b'{"schema":1,"schema":1}', Code.DUPLICATE_KEY),
    ):
        with pytest.raises(MalformedEvidence) as caught:
            Reference.parse(data)
        assert caught.value.code is code


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_malformed(data: bytes) -> None:
    total(lambda: Reference.parse(data))


def leaf() -> st.SearchStrategy[object]:
    return st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([DIGEST, "A/B/C", "name"])


@given(
    st.sampled_from([*sorted(VALID), "gpu_minimum"]),
    st.recursive(
        leaf(),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from([DIGEST, "A/B/C", "name", "host_binding", "driver", "vbios"]), inner, max_size=2
            )
        ),
    ),
)
def test_any_member_gives_a_value_or_malformed(name: str, value: object) -> None:
    total(lambda: parse(**{name: value}))


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_the_digest_changes_with_every_byte_that_is_still_valid(place: int, flip: int) -> None:
    """A64: reference values cannot be exchanged under a verdict."""
    value = parse()
    data = bytearray(value.to_json())
    data[place % len(data)] ^= flip
    other = total(lambda: Reference.parse(bytes(data)))
    assert other is None or other == value or other.digest != value.digest


def total(read: Callable[[], Reference]) -> Reference | None:
    try:
        return read()
    except MalformedEvidence:
        return None
