"""Whose host sets are believed, and until when; and that an older one of the same line is not."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.host_owners import HostOwner, accepted
from support.owners import DAY, Owner
from support.world import NOON
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, PolicyDenied, WeighbridgeError
from weighbridge.proto.host_set import SET_TYP, FileKind
from weighbridge.verifier import host_set, reference_set
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.host_set import VerifiedHostSet
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OWNER = HostOwner()
ANCHORS = TrustAnchors((OWNER.anchor(),))
FILES = (accepted("python", attester=True), accepted("bash"), accepted("model", kind=FileKind.VERITY))
CONTENT = OWNER.content({0: [bytes(32)], 7: [b"\x01" * 32]}, firmware=(7,), files=FILES)
SIGNED = OWNER.sign(CONTENT)


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


def test_what_an_owner_signed_is_what_is_in_force() -> None:
    verified = host_set.verify(SIGNED, anchors=ANCHORS)
    values = verified.values
    assert (values.owner, values.name, values.number) == ("Acme Hosting", "gpu-node", 1)
    assert (values.pcrs, values.firmware) == (CONTENT.pcrs, (7,))
    assert values.files == {file.name for file in FILES}
    assert values.attester == {FILES[0].name}
    assert verified.digest.hex() == values.digest
    assert (values.not_before, values.not_after) == (NOON - DAY, NOON + 10 * DAY)


def test_a_key_for_models_says_nothing_of_hosts() -> None:
    anchors = TrustAnchors((OWNER.anchor("model-owner"),))
    assert code_of(lambda: host_set.verify(SIGNED, anchors=anchors)) is Code.CHAIN_UNTRUSTED


def test_a_key_for_hosts_says_nothing_of_models() -> None:
    models = Owner("Acme Hosting")
    models.key = OWNER.key
    data = models.sign(models.content())
    assert code_of(lambda: reference_set.verify(data, anchors=ANCHORS)) is Code.CHAIN_UNTRUSTED


def test_an_owner_speaks_in_its_own_name_only() -> None:
    other = HostOwner("Beta Hosting")
    other.key = OWNER.key
    data = other.sign(other.content())
    assert code_of(lambda: host_set.verify(data, anchors=ANCHORS)) is Code.CHAIN_UNTRUSTED


def test_strangers_and_forged_signatures_are_refused() -> None:
    stranger = HostOwner("Mallory")
    data = stranger.sign(stranger.content())
    assert code_of(lambda: host_set.verify(data, anchors=ANCHORS)) is Code.CHAIN_UNTRUSTED
    assert code_of(lambda: host_set.verify(SIGNED, anchors=TrustAnchors(()))) is Code.CHAIN_UNTRUSTED
    kid = cose.thumbprint(OWNER.key.public_key())
    forged = cose.sign(CONTENT.encode(), kid=kid, typ=SET_TYP, signer=lambda data: sign_es256(stranger.key, data))
    assert code_of(lambda: host_set.verify(forged, anchors=ANCHORS)) is Code.COSE_SIGNATURE


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 7))
def test_one_flipped_bit_is_refused(at: int, bit: int) -> None:
    whole = bytearray(SIGNED)
    whole[at] ^= 1 << bit
    with pytest.raises((MalformedEvidence, NotAuthentic)):
        host_set.verify(bytes(whole), anchors=ANCHORS)


def test_a_set_is_valid_no_longer_than_its_owners_key_and_not_before_it_was_made() -> None:
    anchor = OWNER.anchor(not_before=NOON, not_after=NOON + DAY)
    values = host_set.verify(SIGNED, anchors=TrustAnchors((anchor,))).values
    assert (values.not_before, values.not_after) == (NOON, NOON + DAY)
    late = OWNER.sign(OWNER.content(issued=NOON + timedelta(hours=1)))
    values = host_set.verify(late, anchors=ANCHORS).values
    assert values.not_before == NOON + timedelta(hours=1)
    assert not values.valid(NOON)


def test_nobody_else_makes_a_verified_set() -> None:
    verified = host_set.verify(SIGNED, anchors=ANCHORS)
    with pytest.raises(TypeError, match="verify only"):
        VerifiedHostSet(verified.content, verified.values, object())
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(verified)


# -- which was seen before --------------------------------------------------------------------------------------------


@pytest.fixture
def see(tmp_path: Path) -> Callable[[bytes], None]:
    """Take a set of models or hosts, by a store that is opened anew each time."""

    def taken(data: bytes) -> None:
        store = Store.create_or_open(tmp_path / "sessions.sqlite")
        models = Owner("Acme Hosting")
        anchors = TrustAnchors((OWNER.anchor(), models.anchor()))
        try:
            signed = (
                host_set.verify(data, anchors=anchors)
                if cose.claimed_typ(data, limit=len(data), what="set") == SET_TYP
                else reference_set.authenticate(data, anchors=anchors)
            )
            with store.transaction() as tx:
                tx.owners.see(signed, at_ns=1)
        finally:
            store.close()

    return taken


def test_numbers_only_grow(see: Callable[[bytes], None]) -> None:
    for number in (2, 3, 7):
        see(OWNER.sign(OWNER.content(number=number)))
    for number in (6, 1):
        with pytest.raises(PolicyDenied, match="REFERENCE_ROLLBACK"):
            see(OWNER.sign(OWNER.content(number=number)))


def test_one_number_names_one_set(see: Callable[[bytes], None]) -> None:
    first = OWNER.sign(OWNER.content(number=2))
    see(first)
    see(first)
    with pytest.raises(PolicyDenied, match="REFERENCE_ROLLBACK") as refusal:
        see(OWNER.sign(OWNER.content({1: [bytes(32)]}, number=2)))
    assert "host set of Acme Hosting, gpu-node, number 2" in str(refusal.value)


def test_each_class_of_hosts_and_the_owners_models_are_lines_of_their_own(see: Callable[[bytes], None]) -> None:
    models = Owner("Acme Hosting")
    see(OWNER.sign(OWNER.content(number=5)))
    see(OWNER.sign(OWNER.content(number=1, name="cpu-node")))
    see(models.sign(models.content(number=1)))
    with pytest.raises(PolicyDenied, match="REFERENCE_ROLLBACK"):
        see(OWNER.sign(OWNER.content(number=4)))
