"""What is known of a certificate's revocation: every status, every defect, and what lies beside what."""

from __future__ import annotations

import copy
import pickle
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from fakes.ocsp_responder import (
    AT,
    DAY,
    HOUR,
    OCSP_SIGNING,
    Order,
    RevocableVendor,
    extension,
    refusal,
    respond,
    responder,
    revocation_list,
)
from gpu_support import Certificate, key_usage, vector_chain
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import spki_der
from weighbridge.verifier.gpu import issuer_crl, ocsp
from weighbridge.verifier.gpu.ocsp import Authority
from weighbridge.verifier.gpu.revocation import Revocation, Statements, chain_revocation, device_revocation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VENDOR = RevocableVendor.create()
DEVICE = EmulatedH100.make(VENDOR.vendor)
CHAIN = DEVICE.keys.chain
CERTS = [x509.load_der_x509_certificate(der) for der in CHAIN]
CHIP = CERTS[1]
PROVISIONER = VENDOR.provisioner
HONEST = PROVISIONER.delegate()
GOOD = respond(CHIP, PROVISIONER, Order(signer=HONEST))


def issuer_as_root() -> x509.Certificate:
    """The provisioner as a root of its own: the link above it is not what most tests ask about."""
    certificate = PROVISIONER.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.subject)
        .public_key(PROVISIONER.key.public_key())
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    for item in certificate.extensions:
        builder = builder.add_extension(item.value, critical=item.critical)
    return builder.sign(PROVISIONER.key, hashes.SHA384())


TWO = [CHIP, issuer_as_root()]


def judged(*responses: bytes, at: datetime = AT, crls: Sequence[bytes] = ()) -> Revocation:
    """Of the chip's own certificate alone, which the provisioner has issued."""
    return chain_revocation(TWO, responses, at=at, crls=crls)


def said(order: Order) -> bytes:
    return respond(CHIP, PROVISIONER, order)


# -- one response ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (Order(), "good"),
        (Order(by_name=True), "good"),
        (Order(signer=HONEST), "good"),
        (Order(signer=HONEST, by_name=True), "good"),
        (Order(id_hash="sha256"), "good"),
        (Order(id_hash="sha384", signature_hash="sha256"), "good"),
        (Order(nonce=b"asked with this!"), "good"),
        (Order(status="revoked"), "revoked"),
        (Order(status="revoked without a reason"), "revoked"),
        (Order(status="hold"), "hold"),
        (Order(status="unknown"), "unknown"),
        (Order(next_update=AT), "good"),
        (Order(next_update=AT - timedelta(seconds=1)), "stale"),
        (Order(this_update=AT - 400 * DAY, next_update=AT - 399 * DAY), "stale"),
        # There may be a newer one at any time: RFC 6960 §4.2.2.1.
        (Order(next_update=None), "stale"),
        # The clock is behind, or the responder's ahead: what it vouches for does not count yet.
        (Order(this_update=AT + HOUR), "absent"),
        (Order(produced_at=AT + HOUR), "absent"),
        (Order(status="unknown", produced_at=AT + HOUR), "absent"),
        # What it takes back does.
        (Order(status="revoked", this_update=AT + HOUR), "revoked"),
        (Order(status="hold", this_update=AT + HOUR), "hold"),
        (Order(status="revoked", this_update=AT - 400 * DAY, next_update=AT - 399 * DAY), "revoked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "order",
)
def test_what_a_response_says(order: Order, status: str) -> None:
    response = said(order)
    found = judged(response)
    assert found.status == status
    assert (found.used == (sha256(response),)) is (status != "absent")
    assert bool(found.ignored) is (status == "absent")
    assert found.until == (order.next_update if status == "good" else None)


def stranger() -> Order:
    return Order(signer=RevocableVendor.create().provisioner)


def of_stranger() -> Order:
    """The responder that another vendor's authority of the same name has certified."""
    return Order(signer=RevocableVendor.create().provisioner.delegate())


def certified(order: Certificate) -> Order:
    return Order(signer=PROVISIONER.delegate(order))


FOREIGN = x509.ObjectIdentifier("1.2.3.4")
_P384 = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (stranger(), "another authority has certified it"),
        (replace(stranger(), certificates=()), "neither the issuer nor anybody"),
        (replace(stranger(), by_name=True), "does not verify"),
        (of_stranger(), "issuer has not signed"),
        (Order(signer=VENDOR.identity.delegate()), "another authority has certified it"),
        (Order(signing_key=_P384), "does not verify"),
        (Order(signer=HONEST, signing_key=_P384), "does not verify"),
        (Order(signer=HONEST, certificates=()), "neither the issuer nor anybody"),
        (Order(signer=HONEST, certificates=(CHIP,)), "neither the issuer nor anybody"),
        (certified(replace(responder(), extensions=())), "not for signing OCSP"),
        (
            certified(
                replace(
                    responder(),
                    extensions=((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False),),
                )
            ),
            "not for signing OCSP",
        ),
        (
            certified(replace(responder(), extensions=((OCSP_SIGNING, False), (key_usage(certify=True), True)))),
            "may not sign",
        ),
        (
            certified(
                replace(
                    responder(),
                    extensions=((OCSP_SIGNING, False), (x509.UnrecognizedExtension(FOREIGN, b"\5\0"), True)),
                )
            ),
            "critical extension",
        ),
        (certified(replace(responder(), not_after=AT - 2 * HOUR)), "not valid when the response was produced"),
        (certified(replace(responder(), not_before=AT - HOUR / 2)), "not valid when the response was produced"),
        (certified(replace(responder(), hash=hashes.SHA224())), "algorithm is not accepted"),
        (Order(signature_hash="sha1"), "algorithm is not accepted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_nobody_said(order: Order, reason: str) -> None:
    """It is left aside, whatever it says, and reported; what honest ones say beside it is what counts."""
    for status in ("good", "revoked"):
        forged = said(replace(order, status=status))
        found = judged(forged)
        assert found.status == "absent"
        (ignored,) = found.ignored
        assert ignored.digest == sha256(forged)
        assert reason in ignored.reason
        beside = judged(forged, GOOD)
        assert (beside.status, beside.used, beside.ignored) == ("good", (sha256(GOOD),), (ignored,))


def test_a_delegate_whose_certificate_has_run_out_since() -> None:
    """Its word counts as long as its certificate does; what it took back stays taken back."""
    retired = PROVISIONER.delegate(replace(responder(), not_after=AT + HOUR))
    good, revoked = (said(Order(signer=retired, status=status)) for status in ("good", "revoked"))
    assert judged(good, at=AT + HOUR).status == "good"
    assert judged(good).until == AT + HOUR
    assert judged(good, at=AT + 2 * HOUR).status == "stale"
    assert judged(revoked, at=AT + 99 * DAY).status == "revoked"


def test_another_certificate() -> None:
    other = x509.load_der_x509_certificate(EmulatedH100.make(VENDOR.vendor).keys.chain[1])
    elsewhere = respond(CHIP, RevocableVendor.create().provisioner)
    assert judged(respond(other, PROVISIONER)).status == "absent"
    # The serial number is this one's, the issuer is not: about somebody else, and no news.
    found = judged(elsewhere, said(Order(serial=CHIP.serial_number + 1)))
    assert (found.status, found.ignored) == ("absent", ())


def test_a_response_about_another_certificate_is_not_verified_for_this_one() -> None:
    response = ocsp.parse(said(Order(serial=7)))
    with pytest.raises(NotAuthentic) as caught:
        ocsp.verify_ocsp(response, CHIP, Authority(PROVISIONER.certificate.subject, PROVISIONER.key.public_key()))
    assert caught.value.code is Code.OCSP_INVALID


def test_every_bit_counts() -> None:
    """One bit flipped anywhere: unreadable, left aside, or about something else; never good."""
    response = said(Order())
    for place in range(len(response)):
        flipped = bytearray(response)
        flipped[place] ^= 1 << place % 8
        assert judged(bytes(flipped)).status == "absent", place


def test_it_cannot_be_made_up() -> None:
    response = ocsp.parse(GOOD)
    verified = ocsp.verify_ocsp(response, CHIP, Authority(CHIP.issuer, PROVISIONER.key.public_key()))
    assert verified.delegate == HONEST.certificate
    with pytest.raises(TypeError):
        ocsp.VerifiedOcsp(response=response, delegate=None, seal=object())
    with pytest.raises(TypeError):
        pickle.dumps(verified)
    with pytest.raises(TypeError):
        copy.copy(verified)


def test_nor_can_a_list() -> None:
    issuer = Authority.of(PROVISIONER.certificate)
    crl = issuer_crl.parse_crl(revocation_list(PROVISIONER))
    verified = issuer_crl.verify_issuer_crl(crl, issuer)
    assert verified.crl.digest == sha256(crl.raw)
    with pytest.raises(TypeError):
        issuer_crl.VerifiedIssuerCrl(crl=crl, seal=object())
    with pytest.raises(TypeError):
        pickle.dumps(verified)
    with pytest.raises(NotAuthentic) as caught:
        issuer_crl.verify_issuer_crl(crl, Authority.of(VENDOR.identity.certificate))
    assert caught.value.code is Code.CRL_INVALID


def test_an_authority_has_a_key_on_a_curve() -> None:
    order = Certificate("RSA", key=rsa.generate_private_key(65537, 2048), hash=hashes.SHA256())
    with pytest.raises(ValueError, match="elliptic"):
        Authority.of(order.issue(order))
    # A delegate with such a key signs nothing that counts, though its issuer has named it.
    delegate = PROVISIONER.issue(replace(responder(), key=order.key))
    assert judged(said(Order(signer=HONEST, certificates=(delegate,)))).status == "absent"


# -- several responses -------------------------------------------------------------------------------------------------

OLDER, NEWER = AT - 3 * HOUR, AT - 2 * HOUR


@pytest.mark.parametrize(
    ("older", "newer", "status"),
    [
        ("good", "good", "good"),
        ("good", "revoked", "revoked"),
        # A revocation is for good: what says otherwise later is wrong, or a responder that forgets.
        ("revoked", "good", "revoked"),
        ("good", "hold", "hold"),
        # A hold can be lifted.
        ("hold", "good", "good"),
        ("hold", "revoked", "revoked"),
        ("revoked", "hold", "revoked"),
        ("good", "unknown", "unknown"),
        ("unknown", "good", "good"),
        ("unknown", "hold", "hold"),
        ("hold", "unknown", "unknown"),
    ],
)
def test_an_older_and_a_newer_response(older: str, newer: str, status: str) -> None:
    first, second = said(Order(status=older, this_update=OLDER)), said(Order(status=newer, this_update=NEWER))
    assert judged(first, second).status == judged(second, first).status == status


@pytest.mark.parametrize(("one", "status"), [("revoked", "revoked"), ("hold", "hold"), ("unknown", "unknown")])
def test_two_of_one_time(one: str, status: str) -> None:
    """The worse of them counts."""
    assert judged(said(Order(status=one)), said(Order())).status == status


def test_an_older_one_that_is_still_current() -> None:
    """The issuer says itself until when it may be relied on, and the newer one does not contradict it."""
    older = said(Order(this_update=OLDER, next_update=AT + HOUR))
    assert judged(older, said(Order(this_update=NEWER, next_update=AT - HOUR))).status == "good"
    # This one does.
    assert judged(older, said(Order(this_update=NEWER, next_update=AT - HOUR, status="unknown"))).status == "unknown"


def test_junk_beside() -> None:
    found = judged(b"", b"junk", refusal(), GOOD[:-1], GOOD + b"\0", GOOD)
    assert (found.status, len(found.ignored)) == ("good", 5)
    assert {each.reason.split(":")[0] for each in found.ignored} == {"OCSP_INVALID"}


# -- lists -------------------------------------------------------------------------------------------------------------

REVOKED_ON_LIST = revocation_list(PROVISIONER, {CHIP.serial_number: x509.ReasonFlags.key_compromise})
HELD_ON_LIST = revocation_list(PROVISIONER, {CHIP.serial_number: x509.ReasonFlags.certificate_hold})
EMPTY_LIST = revocation_list(PROVISIONER)


@pytest.mark.parametrize(
    ("crl", "responses", "status"),
    [
        (EMPTY_LIST, (), "good"),
        (revocation_list(PROVISIONER, {7: None}), (), "good"),
        (REVOKED_ON_LIST, (), "revoked"),
        (revocation_list(PROVISIONER, {CHIP.serial_number: None}), (GOOD,), "revoked"),
        (HELD_ON_LIST, (), "hold"),
        # A newer word of another source does not lift it: NVIDIA's responder says good of what it does not know.
        (HELD_ON_LIST, (said(Order(this_update=AT)),), "hold"),
        (EMPTY_LIST, (said(Order(status="hold")),), "hold"),
        (EMPTY_LIST, (said(Order(status="unknown", this_update=AT)),), "unknown"),
        (revocation_list(PROVISIONER, next_update=AT - timedelta(seconds=1)), (), "stale"),
        (revocation_list(PROVISIONER, next_update=AT - timedelta(seconds=1)), (GOOD,), "good"),
        (revocation_list(PROVISIONER, this_update=AT + HOUR), (), "absent"),
        (revocation_list(PROVISIONER, {CHIP.serial_number: None}, this_update=AT + HOUR), (), "revoked"),
        (revocation_list(VENDOR.identity, {CHIP.serial_number: None}), (GOOD,), "good"),
    ],
)
def test_lists(crl: bytes, responses: tuple[bytes, ...], status: str) -> None:
    assert judged(*responses, crls=(crl,)).status == status


def delta() -> tuple[tuple[x509.ExtensionType, bool], ...]:
    return ((x509.DeltaCRLIndicator(1), True),)


@pytest.mark.parametrize(
    "crl",
    [
        revocation_list(PROVISIONER, {CHIP.serial_number: None}, key=_P384),
        revocation_list(PROVISIONER, {CHIP.serial_number: None}, algorithm=hashes.SHA224()),
        revocation_list(PROVISIONER, {CHIP.serial_number: None}, extensions=delta()),
        EMPTY_LIST[:-1],
        EMPTY_LIST + b"\0",
        b"",
    ],
)
def test_lists_that_do_not_count(crl: bytes) -> None:
    found = judged(GOOD, crls=(crl,))
    assert (found.status, len(found.ignored)) == ("good", 1)
    assert found.ignored[0].reason.startswith("CRL_INVALID")
    assert judged(crls=(crl,)).status == "absent"


def test_an_authority_that_may_not_sign_lists() -> None:
    vendor = RevocableVendor.create(signs_lists=False)
    chain = [x509.load_der_x509_certificate(der) for der in EmulatedH100.make(vendor.vendor).keys.chain]
    found = chain_revocation(chain[1:], (), at=AT, crls=[revocation_list(vendor.provisioner)])
    assert found.status == "absent"
    assert [each.reason for each in found.ignored] == ["CRL_INVALID: its issuer may not sign lists"]


def test_a_delegate_that_was_revoked() -> None:
    """Whoever has its key can say good of anything."""
    named = revocation_list(PROVISIONER, {HONEST.certificate.serial_number: x509.ReasonFlags.key_compromise})
    found = judged(GOOD, crls=(named,))
    # The list itself says that the chip's is not revoked.
    assert (found.status, found.used) == ("good", (sha256(named),))
    assert [each.digest for each in found.ignored] == [sha256(GOOD)]
    # A list by nobody disowns nobody.
    forged = revocation_list(PROVISIONER, {HONEST.certificate.serial_number: None}, key=_P384)
    assert judged(GOOD, crls=(forged,)).used == (sha256(GOOD),)
    # And what a delegate has taken back stays taken back.
    assert judged(said(Order(status="revoked", signer=HONEST)), crls=(named,)).status == "revoked"


# -- chains ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orders", "status"),
    [
        ((None, None, None), "good"),
        ((Order(status="revoked"), None, None), "revoked"),
        ((None, Order(status="revoked"), None), "revoked"),
        ((None, None, Order(status="hold")), "hold"),
        ((None, Order(status="unknown"), Order(next_update=None)), "unknown"),
        ((Order(next_update=None), None, None), "stale"),
        ((Order(next_update=None), Order(produced_at=AT + DAY), None), "absent"),
    ],
)
def test_the_worst_link_decides(orders: tuple[Order | None, ...], status: str) -> None:
    statements = Statements.of(VENDOR.responses(CHAIN, *orders))
    found = device_revocation(CERTS, statements, at=AT)
    assert (found.status, len(found.links)) == (status, 3)
    # Asked again, with nothing to verify any more.
    assert device_revocation(CERTS, statements, at=AT) == found
    worst = next(link for link in found.links if link.status == status)
    assert found.detail.startswith(worst.subject)
    assert (found.until == AT + DAY) is (status == "good")


def test_a_chain_without_its_root() -> None:
    responses = VENDOR.responses(CHAIN)
    assert chain_revocation(CERTS[1:4], responses, at=AT).status == "absent"
    assert chain_revocation(CERTS[1:4], responses, at=AT, anchor=VENDOR.anchor).status == "good"
    # An anchor in the middle is believed as it is.
    middle = replace(VENDOR.anchor, spki=spki_der(CERTS[3]))
    found = chain_revocation(CERTS[1:4], responses[:2], at=AT, anchor=middle)
    assert (found.status, len(found.links)) == ("good", 2)


def test_nothing_to_ask_about_is_not_good() -> None:
    assert chain_revocation(CERTS[4:], VENDOR.responses(CHAIN), at=AT).status == "absent"
    with pytest.raises(ValueError, match="no chain"):
        device_revocation(CERTS[:1], Statements.of(()), at=AT)
    with pytest.raises(ValueError, match="naive"):
        chain_revocation(CERTS, (), at=AT.replace(tzinfo=None))


def test_an_issuer_with_another_kind_of_key() -> None:
    root = Certificate("RSA root", key=rsa.generate_private_key(65537, 2048), hash=hashes.SHA256())
    leaf = Certificate("leaf", ca=None, signs=False)
    assert chain_revocation([leaf.issue(root), root.issue(root)], (), at=AT).status == "absent"


def test_real_chains_have_the_shape_that_is_asked_about(vectors_dir: Path) -> None:
    """Nobody's statements are at hand: every link of the chip's own certificate and above is absent."""
    chain = [
        x509.load_der_x509_certificate(der) for der in vector_chain(vectors_dir, "nvtrust-lgv/hopperCertChain.txt")
    ]
    found = device_revocation(chain, Statements.of((GOOD,), (EMPTY_LIST,)), at=AT)
    assert [link.status for link in found.links] == ["absent"] * 3
    assert all(each.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign for each in chain[2:])


# -- parsing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x03\x0a\x01\x00",
        refusal(),
        refusal(3),
        GOOD + b"\0",
        GOOD[:-1],
        said(Order(answers=0)),
        said(Order(answers=2)),
        said(Order(id_hash="md5")),
        said(Order(extensions=(extension("06032a0304", b"\5\0", critical=True),))),
        said(Order(single_extensions=(extension("06032a0304", b"\5\0", critical=True),))),
        said(Order(extensions=(extension("06032a0304", b"\5\0"),) * 2)),
        said(Order(signer=HONEST, certificates=(HONEST.certificate,) * 5)),
    ],
)
def test_not_a_response(data: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        ocsp.parse(data)
    assert caught.value.code is Code.OCSP_INVALID


def test_facts_of_a_response() -> None:
    response = ocsp.parse(said(Order(nonce=b"asked", extensions=(extension("06032a0304", b"\5\0"),))))
    assert (response.nonce, response.status, response.revoked_at) == (b"asked", "good", None)
    assert (response.this_update, response.next_update, response.produced_at) == (AT - HOUR, AT + DAY, AT - HOUR)
    assert response.cert_id.serial == CHIP.serial_number


def test_too_large() -> None:
    for parse in (ocsp.parse, issuer_crl.parse_crl):
        with pytest.raises(MalformedEvidence) as caught:
            parse(bytes(limits.COLLATERAL_ITEM_MAX + 1))
        assert caught.value.code is Code.TOO_LARGE


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=len(GOOD) - 1), st.integers(0, 255))
def test_any_bytes(data: bytes, place: int, value: int) -> None:
    for damaged in (data, GOOD[:place] + data + GOOD[place:], GOOD[:place] + bytes([value]) + GOOD[place + 1 :]):
        for parse in (ocsp.parse, issuer_crl.parse_crl):
            with suppress(MalformedEvidence):
                parse(damaged)


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=len(REVOKED_ON_LIST) - 1), st.integers(0, 255))
def test_any_list(data: bytes, place: int, value: int) -> None:
    listed = REVOKED_ON_LIST
    for damaged in (listed[:place] + data + listed[place:], listed[:place] + bytes([value]) + listed[place + 1 :]):
        with suppress(MalformedEvidence):
            issuer_crl.parse_crl(damaged)


def test_a_list_with_one_number_twice() -> None:
    """The worse counts, in either order."""
    entries = [
        x509.RevokedCertificateBuilder()
        .serial_number(5)
        .revocation_date(AT)
        .add_extension(x509.CRLReason(reason), critical=False)
        .build()
        for reason in (x509.ReasonFlags.certificate_hold, x509.ReasonFlags.key_compromise)
    ]
    for ordered in (entries, entries[::-1]):
        builder = x509.CertificateRevocationListBuilder().issuer_name(CHIP.issuer).last_update(AT).next_update(AT + DAY)
        for entry in ordered:
            builder = builder.add_revoked_certificate(entry)
        crl = issuer_crl.parse_crl(builder.sign(PROVISIONER.key, hashes.SHA384()).public_bytes(Encoding.DER))
        assert crl.entries == {5: "revoked"}
        assert crl.number is None


def test_no_number_of_a_chip_is_told() -> None:
    """Its serial number is the PDI, by which its neighbours know it: what is told of it travels further than that."""
    told = device_revocation(CERTS, Statements.of([GOOD]), at=AT)
    number = CHIP.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value
    assert number
    assert str(number) not in repr(told)
    assert "CN=GH100 A01 GSP BROM" in told.links[0].subject
