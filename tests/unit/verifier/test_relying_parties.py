"""Who may ask for results: whoever is listed, for what is listed, and never an attester."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from cryptography import x509
from hypothesis import given

from support.service import Authority
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, PolicyDenied
from weighbridge.verifier.certs import spki_der
from weighbridge.verifier.parties_watch import PartiesWatch
from weighbridge.verifier.peers import Peers, Shown, authorities
from weighbridge.verifier.relying_parties import RelyingParties

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
KEY, OTHER = sha256(b"key"), sha256(b"other")
PARTY: dict[str, Any] = {"name": "gate", "key": KEY.hex(), "tenants": ["a", "b"], "audiences": ["x", "y"]}
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)


def parse(*parties: object, **changes: object) -> RelyingParties:
    document = {"schema": "weighbridge/relying-parties/v1", "relying_parties": parties, **changes}
    return RelyingParties.parse(json.dumps(document).encode())


def test_what_is_encoded_is_parsed_to_the_same() -> None:
    listed = parse(PARTY, {**PARTY, "name": "another", "key": OTHER.hex()})
    assert RelyingParties.parse(listed.encode()) == listed
    assert listed.keys() == {KEY, OTHER}
    assert RelyingParties.none().keys() == frozenset()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"key": KEY.hex().upper()},
        {"key": KEY.hex()[2:]},
        {"key": KEY.hex() + "\n"},
        {"tenants": []},
        {"tenants": "a"},
        {"tenants": ["a", "a"]},
        {"tenants": [""]},
        {"audiences": []},
        {"audiences": ["x", "x"]},
        {"role": "admin"},
    ],
)
def test_what_is_not_said_in_the_one_way_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse({**PARTY, **changes})
    assert caught.value.code is Code.FIELD_RANGE


def test_names_and_keys_are_each_one_relying_partys() -> None:
    for changes in ({"name": "another"}, {"key": OTHER.hex()}):
        with pytest.raises(MalformedEvidence, match="two relying parties have the same"):
            parse(PARTY, {**PARTY, **changes})


def test_a_document_says_what_it_is() -> None:
    for data, code in ((b"{}", Code.FIELD_MISSING), (b'{"schema":"x"}', Code.FIELD_RANGE), (b"[", Code.NOT_JSON)):
        with pytest.raises(MalformedEvidence) as caught:
            RelyingParties.parse(data)
        assert caught.value.code is code


@given(st.one_of(st.binary(max_size=64), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_bytes_are_a_list_or_malformed(data: bytes) -> None:
    try:
        listed = RelyingParties.parse(data)
    except MalformedEvidence:
        return
    assert RelyingParties.parse(listed.encode()) == listed


def test_audiences_are_those_that_are_listed() -> None:
    party = parse(PARTY).party(KEY)
    assert [party.audience(wanted) for wanted in (None, "x", "y")] == ["x", "x", "y"]
    for wanted in ("", "z", "X"):
        with pytest.raises(PolicyDenied) as caught:
            party.audience(wanted)
        assert caught.value.code is Code.RESULT_AUDIENCE


def test_that_a_list_is_taken_again_is_said(tmp_path: Path) -> None:
    good, file, said = parse(PARTY).encode(), tmp_path / "parties.json", list[str]()
    file.write_bytes(good)
    watch = PartiesWatch(file, report=said.append)
    for data in (good[:-10], good):
        file.write_bytes(data)
        watch.look()
        watch.look()
    assert [line.partition(":")[0] for line in said] == ["warning", "relying parties"]
    assert "taken again, 1 listed" in said[1]


def test_nobody_is_listed_by_default() -> None:
    with pytest.raises(NotAuthentic) as caught:
        RelyingParties.none().party(KEY)
    assert caught.value.code is Code.RELYING_PARTY_UNKNOWN


# -- roles -------------------------------------------------------------------------------------------------------------


def key_of(pem: bytes) -> bytes:
    return sha256(spki_der(x509.load_pem_x509_certificate(pem)))


def test_a_key_has_one_role(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    one, two = authority.admit("one").certificate, authority.admit("two").certificate
    peers = Peers(parse({**PARTY, "key": key_of(one).hex()}))
    assert peers.relying_party(Shown((one,)), at=NOON).name == "gate"
    assert peers.attester([two]).key == key_of(two)
    for refused, code in (
        (lambda: peers.attester([one]), Code.PEER_ROLE),
        (lambda: peers.relying_party(Shown((two,)), at=NOON), Code.RELYING_PARTY_UNKNOWN),
        (lambda: peers.attester([]), Code.WINDOW_PEER),
        (lambda: peers.relying_party(Shown(()), at=NOON), Code.WINDOW_PEER),
    ):
        with pytest.raises(NotAuthentic) as caught:
            refused()
        assert caught.value.code is code


def test_a_certificate_is_good_for_its_time_however_long_the_channel_lasts(tmp_path: Path) -> None:
    pem = Authority(tmp_path / "authority").admit("one").certificate
    certificate, moment = x509.load_pem_x509_certificate(pem), timedelta(seconds=1)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    at = [first]
    peers = Peers(parse({**PARTY, "key": key_of(pem).hex()}), now=lambda: at[0])
    for at[0] in (first, last):
        assert peers.relying_party(Shown((pem,)), at=NOON).name == "gate"
    for at[0] in (first - moment, last + moment):
        with pytest.raises(NotAuthentic, match="not good now") as caught:
            peers.relying_party(Shown((pem,)), at=NOON)
        assert caught.value.code is Code.RELYING_PARTY_UNKNOWN


def test_the_relying_parties_authority_admits_no_attester(tmp_path: Path) -> None:
    """Also not one that bears the name of the attesters' authority."""
    ours, other = Authority(tmp_path / "authority"), tmp_path / "other"
    other.mkdir()
    theirs = Authority(other / "authority")
    admitted, foreign = ours.admit("host").certificate, theirs.admit("host").certificate
    issuers = {x509.load_pem_x509_certificate(pem).issuer for pem in (admitted, foreign)}
    assert len(issuers) == 1
    peers = Peers(RelyingParties.none(), authorities(ours.certificate, where="ca.pem"))
    assert peers.attester([admitted]).key == key_of(admitted)
    with pytest.raises(NotAuthentic) as caught:
        peers.attester([foreign])
    assert caught.value.code is Code.PEER_ROLE


def test_a_file_of_authorities_has_some() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        authorities(b"no certificate", where="ca.pem")
    assert (caught.value.code, caught.value.where) == (Code.CERT_MALFORMED, "ca.pem")
