"""Whose baseline sets are believed, and until when; and which profile a GPU is compared with."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.baseline_owners import GPU, MODEL, BaselineOwner, made_up
from support.host_owners import HostOwner
from support.owners import DAY
from support.world import NOON
from weighbridge.policy.values.baselines import NamedBaseline
from weighbridge.proto import cose, strict
from weighbridge.proto.baseline import SET_TYP
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier import baseline_set, host_set
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.baseline_set import VerifiedBaselineSet
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.keys import sign_es256

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from weighbridge.proto.baseline import BaselineSet

OWNER = BaselineOwner()
ANCHORS = TrustAnchors((OWNER.anchor(),))
CONTENT = OWNER.content()
SIGNED = OWNER.sign(CONTENT)
OTHER_GPU, OTHER_MODEL = sha256(b"another GPU"), sha256(b"another model")


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


# ---------- the procedure


def test_what_an_owner_signed_is_what_is_in_force() -> None:
    verified = baseline_set.verify(SIGNED, anchors=ANCHORS)
    named = verified.named
    assert (named.owner, named.name, named.number) == ("Acme Power", "inference", 1)
    assert (named.not_before, named.not_after) == (NOON - DAY, NOON + 10 * DAY)
    assert (verified.content, verified.data) == (CONTENT, SIGNED)
    assert verified.digest == sha256(SIGNED) == bytes.fromhex(named.digest)
    assert str(verified.line) == "baseline set of Acme Power, inference"


@pytest.mark.parametrize("purpose", ["model-owner", "host-owner", "policy-author"])
def test_a_key_for_something_else_says_nothing_of_baselines(purpose: str) -> None:
    anchors = TrustAnchors((OWNER.anchor(purpose),))  # type: ignore[arg-type] # parametrised by purposes
    assert code_of(lambda: baseline_set.verify(SIGNED, anchors=anchors)) is Code.CHAIN_UNTRUSTED


def test_a_key_for_baselines_says_nothing_of_hosts() -> None:
    hosts = HostOwner("Acme Power")
    hosts.key = OWNER.key
    data = hosts.sign(hosts.content())
    assert code_of(lambda: host_set.verify(data, anchors=ANCHORS)) is Code.CHAIN_UNTRUSTED
    assert code_of(lambda: baseline_set.verify(data, anchors=ANCHORS)) is Code.COSE_HEADER


def test_an_owner_speaks_in_its_own_name_only() -> None:
    other = BaselineOwner("Beta Power")
    other.key = OWNER.key
    data = other.sign(other.content())
    assert code_of(lambda: baseline_set.verify(data, anchors=ANCHORS)) is Code.CHAIN_UNTRUSTED


def test_strangers_and_forged_signatures_are_refused() -> None:
    stranger = BaselineOwner("Mallory")
    data = stranger.sign(stranger.content())
    assert code_of(lambda: baseline_set.verify(data, anchors=ANCHORS)) is Code.CHAIN_UNTRUSTED
    assert code_of(lambda: baseline_set.verify(SIGNED, anchors=TrustAnchors(()))) is Code.CHAIN_UNTRUSTED
    kid = cose.thumbprint(OWNER.key.public_key())
    forged = cose.sign(CONTENT.encode(), kid=kid, typ=SET_TYP, signer=lambda data: sign_es256(stranger.key, data))
    assert code_of(lambda: baseline_set.verify(forged, anchors=ANCHORS)) is Code.COSE_SIGNATURE


def test_an_unsigned_set_is_none() -> None:
    assert code_of(lambda: baseline_set.verify(CONTENT.encode(), anchors=ANCHORS)) is Code.NOT_CBOR


def test_a_key_that_is_believed_for_a_time_vouches_for_that_time() -> None:
    anchors = TrustAnchors((OWNER.anchor(not_before=NOON, not_after=NOON + DAY),))
    named = baseline_set.verify(SIGNED, anchors=anchors).named
    assert (named.not_before, named.not_after) == (NOON, NOON + DAY)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_malformed_or_not_authentic(data: bytes) -> None:
    with pytest.raises((MalformedEvidence, NotAuthentic)):
        baseline_set.verify(data, anchors=ANCHORS)


def test_only_the_procedure_makes_verified_sets() -> None:
    verified = baseline_set.verify(SIGNED, anchors=ANCHORS)
    with pytest.raises(TypeError, match="verify only"):
        VerifiedBaselineSet(CONTENT, verified.named, SIGNED, verified.digest, object())
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(verified)


# ---------- which profile counts


def in_force(*contents: BaselineSet) -> Baselines:
    return Baselines(baseline_set.verify(OWNER.sign(content), anchors=ANCHORS) for content in contents)


def why(baselines: Baselines, device: bytes = GPU, model: bytes = MODEL, at: datetime = NOON, **more: str) -> str:
    assert baselines.choose(device, model, at, **more) is None
    return baselines.why_none(device, model, at, **more)


def test_the_profile_of_the_gpu_and_the_model_is_chosen() -> None:
    mine, others = made_up(), [made_up(OTHER_GPU), made_up(model=OTHER_MODEL), made_up(None), made_up(model=None)]
    content = OWNER.content([mine, *others])
    baselines = in_force(content)
    found = baselines.choose(GPU, MODEL, NOON)
    (digest,) = baselines.files
    assert found == (mine, digest)
    assert sha256(baselines.files[digest]) == digest
    assert baselines.why_none(GPU, MODEL, NOON) == ""


def test_why_there_is_none() -> None:
    one = in_force(OWNER.content())
    assert why(Baselines()) == "no baseline is in force"
    assert why(one, OTHER_GPU) == "no baseline names this GPU"
    assert why(one, GPU, OTHER_MODEL) == "Acme Power, inference, number 1 names this GPU, with another model"
    assert why(one, driver="590.1") == "Acme Power, inference, number 1 is of driver 580.95.05"
    late, early = NOON + 10 * DAY + timedelta(microseconds=1), NOON - DAY - timedelta(microseconds=1)
    assert why(one, at=late) == f"Acme Power, inference, number 1 was valid until {strict.time_encode(NOON + 10 * DAY)}"
    assert why(one, at=early) == f"Acme Power, inference, number 1 is not valid before {strict.time_encode(NOON - DAY)}"
    for at in (NOON + 10 * DAY, NOON - DAY):
        assert one.choose(GPU, MODEL, at) is not None


def test_what_came_closest_is_told() -> None:
    expired = OWNER.content(name="a", not_after=NOON - timedelta(seconds=1))
    other = OWNER.content([made_up(model=OTHER_MODEL)], name="b", issued=NOON)
    assert why(in_force(expired, other)).startswith("Acme Power, a, number 1 was valid until")


def test_the_set_that_was_issued_last_counts_while_it_is_valid() -> None:
    old, new = made_up(base_mw=420_000), made_up(base_mw=421_000)
    begins = NOON + timedelta(hours=1)
    both = in_force(OWNER.content([new], name="new", issued=NOON, not_before=begins), OWNER.content([old], name="old"))
    chosen = [both.choose(GPU, MODEL, at) for at in (NOON, begins)]
    assert [None if item is None else item[0] for item in chosen] == [old, new]


def test_several_profiles_for_one_gpu_and_model_are_none() -> None:
    several = in_force(OWNER.content([made_up(), made_up(workload="batch")]))
    assert "has 2 profiles of this GPU and model" in why(several)


def test_a_driver_tells_profiles_apart() -> None:
    new = made_up(driver="590.1")
    found = in_force(OWNER.content([made_up(), new])).choose(GPU, MODEL, NOON, driver="590.1")
    assert found is not None
    assert found[0] == new


# ---------- as recorded


def recorded(data: bytes, **changes: object) -> Baselines:
    named = baseline_set.verify(SIGNED, anchors=ANCHORS).named
    return Baselines.recorded([replace(named, **changes)], lambda _: data)  # type: ignore[arg-type] # fields


def test_recorded_sets_are_those_that_were_in_force() -> None:
    live = Baselines([baseline_set.verify(SIGNED, anchors=ANCHORS)])
    again = recorded(SIGNED)
    assert again.files == live.files
    assert again.choose(GPU, MODEL, NOON) == live.choose(GPU, MODEL, NOON)
    assert again.why_none(GPU, MODEL, NOON) == ""


def test_a_recorded_set_is_believed_for_as_long_as_its_record_says() -> None:
    """A key that was believed for less than the set says is so forever."""
    assert why(recorded(SIGNED, not_after=NOON - timedelta(hours=1))).startswith("Acme Power, inference, number 1 was")


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (OWNER.sign(OWNER.content(number=2)), {}),
        (OWNER.sign(OWNER.content(name="other")), {}),
        (SIGNED, {"owner": "Beta"}),
        (SIGNED, {"number": 7}),
        (SIGNED, {"digest": "ab" * 32}),
    ],
)
def test_another_file_than_the_values_name_is_refused(data: bytes, changes: dict[str, object]) -> None:
    assert code_of(lambda: recorded(data, **changes)) is Code.BUNDLE_VERDICT


def test_a_name_is_read_back() -> None:
    named = baseline_set.verify(SIGNED, anchors=ANCHORS).named
    assert NamedBaseline.read(named.document(), "here") == named
    with pytest.raises(MalformedEvidence) as refusal:
        NamedBaseline.read({**named.document(), "more": 1}, "here")
    assert refusal.value.code is Code.FIELD_UNKNOWN
    assert code_of(lambda: NamedBaseline.read([], "here")) is Code.FIELD_TYPE
