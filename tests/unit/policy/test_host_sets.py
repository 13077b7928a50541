"""Host sets among the reference values: recorded as they were in force, and seen by policies by their names only."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy.values.host_sets import HostSet
from weighbridge.policy.values.reference import IN_FORCE, Reference
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DIGESTS = [f"{number:064x}" for number in range(6)]
HOST = HostSet(
    owner="Acme Hosting",
    name="gpu-node",
    number=3,
    digest="ab" * 32,
    not_before=NOON,
    not_after=NOON + timedelta(days=90),
    pcrs={0: (bytes(32),), 7: (b"\x01" * 32, b"\x02" * 32)},
    firmware=(1, 2**64 - 1),
    files=frozenset({f"sha256:{DIGESTS[0]}", f"sha256:{DIGESTS[1]}", f"verity:sha256:{DIGESTS[0]}"}),
    attester=frozenset({f"sha256:{DIGESTS[1]}"}),
)
OWN = Reference({DIGESTS[2]: "tiny"}, {}, {})


def edited(edit: Callable[[dict[str, Any]], None]) -> bytes:
    """The recorded values with their host set changed."""
    document = cast("dict[str, Any]", strict.json_decode(OWN.with_hosts([HOST]).to_json(), what="values"))
    edit(document["hosts"][0])
    return strict.json_encode(document)


def test_recorded_values_are_read_as_they_were() -> None:
    bare = replace(HOST, number=4, firmware=None, files=frozenset(), attester=frozenset())
    values = OWN.with_hosts([bare, HOST])
    assert Reference.recorded(values.to_json()) == values
    assert values.hosts == (HOST, bare)
    assert Reference.recorded(values.to_json()).digest == values.digest


def test_every_part_of_a_set_is_in_the_digest_that_verdicts_name() -> None:
    changed = (
        HOST,
        replace(HOST, number=4),
        replace(HOST, name="other"),
        replace(HOST, pcrs={0: (bytes(32),)}),
        replace(HOST, firmware=None),
        replace(HOST, attester=frozenset()),
        replace(HOST, files=HOST.files | {f"sha256:{DIGESTS[5]}"}),
        replace(HOST, not_after=NOON),
    )
    digests = {OWN.with_hosts([item]).digest for item in changed} | {OWN.digest}
    assert len(digests) == len(changed) + 1


def test_values_without_hosts_are_written_as_before_there_were_any() -> None:
    assert OWN.with_hosts([]).to_json() == OWN.to_json()
    assert b"hosts" not in OWN.to_json()


def test_policies_see_which_sets_are_in_force_and_nothing_of_their_content() -> None:
    data = OWN.with_hosts([HOST]).data()
    assert data["hosts"] == [
        {
            "owner": "Acme Hosting",
            "name": "gpu-node",
            "number": 3,
            "digest": "ab" * 32,
            "not_before": "2026-06-01T12:00:00Z",
            "not_after": "2026-08-30T12:00:00Z",
        }
    ]
    assert OWN.data()["hosts"] == []


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda host: host.pop("files"), Code.FIELD_MISSING),
        (lambda host: host.update(more=1), Code.FIELD_UNKNOWN),
        (lambda host: host.update(digest="AB" * 32), Code.NOT_HEX),
        (lambda host: host.update(pcrs={}), Code.FIELD_RANGE),
        (lambda host: host.update(pcrs={"0": []}), Code.FIELD_RANGE),
        (lambda host: host.update(pcrs={"10": ["00" * 32]}), Code.FIELD_RANGE),
        (lambda host: host.update(pcrs={"24": ["00" * 32]}), Code.FIELD_RANGE),
        (lambda host: host.update(pcrs={"00": ["00" * 32]}), Code.NOT_A_NUMBER),
        (lambda host: host.update(pcrs={"0": ["00" * 31]}), Code.FIELD_RANGE),
        (lambda host: host.update(pcrs={"0": [1]}), Code.FIELD_TYPE),
        (lambda host: host.update(firmware=["1"]), Code.NOT_HEX),
        (lambda host: host.update(firmware=[1]), Code.NOT_HEX),
        (lambda host: host["files"].update(sha256=["00"]), Code.NOT_HEX),
        (lambda host: host["files"].update(sha256=[1]), Code.NOT_HEX),
        (lambda host: host["files"].update(sha1=[]), Code.FIELD_UNKNOWN),
        (lambda host: host["attester"].pop("sha256"), Code.FIELD_MISSING),
        (lambda host: host.update(not_after="soon"), Code.NOT_A_TIME),
    ],
)
def test_other_shapes_are_malformed(edit: Callable[[dict[str, Any]], None], code: Code) -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        Reference.recorded(edited(edit))
    assert refusal.value.code is code


@pytest.mark.parametrize("hosts", [None, {}, [1], ["host"], [[]]])
def test_a_list_of_objects_is_expected(hosts: object) -> None:
    document = {"schema": IN_FORCE, "reference": strict.json_decode(OWN.to_json(), what="own"), "sets": []}
    with pytest.raises(MalformedEvidence) as refusal:
        Reference.recorded(strict.json_encode({**document, "hosts": hosts}))
    assert refusal.value.code is Code.FIELD_TYPE


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(HOST.document())), _JSON)
def test_any_value_in_any_place_is_read_or_malformed(key: str, value: strict.JsonValue) -> None:
    try:
        read = HostSet.read({**HOST.document(), key: value}, "host")
    except MalformedEvidence:
        return
    assert HostSet.read(read.document(), "host") == read


def test_a_set_that_every_host_would_match_is_misuse() -> None:
    for pcrs in ({}, {0: ()}):
        with pytest.raises(ValueError, match="names a register"):
            replace(HOST, pcrs=cast("dict[int, tuple[bytes, ...]]", pcrs))
    with pytest.raises(ValueError, match="among the files"):
        replace(HOST, attester=frozenset({f"sha256:{DIGESTS[5]}"}))


def test_the_largest_sets_fit_into_the_values_in_force() -> None:
    """Two of them do; and the engine is not handed any of it."""
    files = frozenset(f"sha256:{number:064x}" for number in range(limits.HOST_SET_FILES_MAX))
    large = replace(HOST, files=files, attester=frozenset())
    values = OWN.with_hosts([large, replace(large, name="other")])
    data = values.to_json()
    assert len(data) <= limits.REFERENCE_MAX <= limits.JSON_MAX
    assert Reference.recorded(data).hosts == values.hosts
    assert len(strict.json_encode(values.data())) < 10_000
