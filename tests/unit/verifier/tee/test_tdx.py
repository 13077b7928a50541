"""TD quotes: what admits them, and each thing that refuses them, by its code (rows A40, A41)."""

from __future__ import annotations

import copy
import hashlib
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fakes.forged_tdx import (
    AT,
    BEGIN,
    SEPT_VE_DISABLE,
    TEE_TCB_SVN,
    ForgedTdx,
    Holder,
    Json,
    certify,
    days,
    moment,
    sgx_extension,
    tcb,
)
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.tee.td_quote import parse_td_quote
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.tee import qvl
from weighbridge.verifier.tee.model import VerifiedTee
from weighbridge.verifier.tee.tdx import verify_td_quote

FORGED = ForgedTdx.create()
DATA = bytes(range(64))
QUOTE = FORGED.quote(DATA)
COLLATERAL = FORGED.collateral()
AUTHENTICATION = 636
CERTIFIED = AUTHENTICATION + 134


def verify(
    quote: bytes = QUOTE,
    *,
    collateral: Sequence[bytes] = (COLLATERAL,),
    anchors: TrustAnchors | None = None,
    at: datetime = AT,
) -> VerifiedTee:
    return verify_td_quote(quote, collateral=collateral, anchors=anchors or FORGED.anchors(), at=at)


def refused(quote: bytes = QUOTE, **changes: object) -> NotAuthentic:
    with pytest.raises(NotAuthentic) as caught:
        verify(quote, **changes)  # type: ignore[arg-type] # a test names arguments
    return caught.value


# --- what is admitted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "service_td"), [(4, None), (5, None), (5, bytes(48))])
def test_a_quote_that_all_documents_admit(version: int, service_td: bytes | None) -> None:
    tee = verify(FORGED.quote(DATA, version=version, mr_service_td=service_td, mr_td=b"\x07" * 48, padding=bytes(70)))
    assert (tee.kind, tee.anchor, tee.anchor.platform) == ("tdx", FORGED.anchors().anchors[0], "insecure-emulated")
    assert (tee.report_data, tee.measurement) == (DATA, b"\x07" * 48)
    assert (tee.product, tee.tcb, tee.tcb_status) == ("", TEE_TCB_SVN.hex(), "UpToDate")
    assert (tee.advisories, tee.revocation) == ((), "good")
    assert (tee.smt, tee.alias_check, tee.vmpl) == (None, None, None)


def test_the_anchor_says_what_the_platform_is() -> None:
    forged = ForgedTdx.create("intel-tdx")
    tee = verify(forged.quote(DATA), collateral=[forged.collateral()], anchors=forged.anchors())
    assert tee.anchor.platform == "intel-tdx"


@pytest.mark.parametrize(
    "status",
    [
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ],
)
def test_what_intel_says_is_a_claim(status: str) -> None:
    info = FORGED.tcb_info(status=status, advisories=["INTEL-SA-00837", "INTEL-SA-00960"])
    tee = verify(collateral=[FORGED.collateral(tcb_info=info)])
    assert tee.tcb_status == status
    assert tee.advisories == ("INTEL-SA-00837", "INTEL-SA-00960")


def test_an_old_module_is_out_of_date() -> None:
    tee = verify(FORGED.quote(DATA, tee_tcb_svn=bytes((2, 0, 6)) + bytes(13)))
    assert (tee.tcb_status, tee.advisories) == ("OutOfDate", ("INTEL-SA-00828",))


def test_the_worst_of_processor_and_quoting_enclave_counts() -> None:
    tee = verify(collateral=[FORGED.collateral(qe_identity=FORGED.qe_identity(status="OutOfDate"))])
    assert tee.tcb_status == "OutOfDate"


@pytest.mark.parametrize("bit", [27, 30, 31, 63])
def test_attributes_that_do_not_weaken_the_machine(bit: int) -> None:
    assert verify(FORGED.quote(DATA, attributes=SEPT_VE_DISABLE | 1 << bit)).tcb_status == "UpToDate"


def test_the_result_is_made_here_only() -> None:
    tee = verify()
    with pytest.raises(TypeError):
        replace(tee, tcb_status="UpToDate", seal=object())
    with pytest.raises(TypeError):
        pickle.dumps(tee)
    with pytest.raises(TypeError):
        copy.copy(tee)


# --- A40: debug and attributes ----------------------------------------------------------------------------------------


def test_debug_is_refused() -> None:
    assert refused(FORGED.quote(DATA, attributes=SEPT_VE_DISABLE | 1)).code == Code.TDX_DEBUG


@pytest.mark.parametrize("bit", sorted(set(range(1, 64)) - {27, 28, 30, 31, 63}))
def test_every_other_attribute_is_refused(bit: int) -> None:
    error = refused(FORGED.quote(DATA, attributes=SEPT_VE_DISABLE | 1 << bit))
    assert (error.code, error.where) == (Code.TDX_ATTRIBUTES, "td_quote.attributes")


def test_faults_on_foreign_pages_are_refused() -> None:
    assert refused(FORGED.quote(DATA, attributes=0)).code == Code.TDX_ATTRIBUTES


def test_a_service_machine_is_refused() -> None:
    error = refused(FORGED.quote(DATA, version=5, mr_service_td=bytes(47) + b"\1"))
    assert (error.code, error.where) == (Code.TDX_ATTRIBUTES, "td_quote.mr_service_td")


# --- A41: TCB ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tcb_info", "qe_identity"),
    [(FORGED.tcb_info(status="Revoked"), None), (None, FORGED.qe_identity(status="Revoked"))],
)
def test_revoked_is_refused(tcb_info: Json | None, qe_identity: Json | None) -> None:
    error = refused(collateral=[FORGED.collateral(tcb_info=tcb_info, qe_identity=qe_identity)])
    assert error.code == Code.TDX_TCB
    assert "Revoked" in error.message


@pytest.mark.parametrize(
    "change",
    [
        {"tcbLevels": [{"tcb": tcb(bytes(16), 99, bytes(16)), "tcbDate": moment(BEGIN), "tcbStatus": "UpToDate"}]},
        {"tcbLevels": []},
        {"tdxModule": {"mrsigner": "11" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}},
        {"tdxModule": None},
        {"tcbLevels": [{"tcb": tcb(bytes(16), 1, bytes(16)), "tcbDate": moment(BEGIN), "tcbStatus": "Splendid"}]},
    ],
)
def test_what_no_level_admits_is_refused(change: Json) -> None:
    assert refused(collateral=[FORGED.collateral(tcb_info=change)]).code == Code.TDX_TCB


def test_a_module_of_another_maker_is_refused() -> None:
    assert refused(FORGED.quote(DATA, mr_signer_seam=b"\1" * 48)).code == Code.TDX_TCB


@pytest.mark.parametrize(
    ("offset", "value"),
    [(48, 0x17), (128, 0), (256, 3), (258, 1), (16, 1)],
    ids=["debug", "maker", "id", "svn", "misc"],
)
def test_another_quoting_enclave_is_refused(offset: int, value: int) -> None:
    quote = FORGED.quote(DATA, qe=lambda report: report.__setitem__(offset, value))
    assert refused(quote).code == Code.TDX_TCB


# --- signatures -------------------------------------------------------------------------------------------------------


def test_a_quote_of_another_maker_is_refused() -> None:
    other = ForgedTdx.create()
    error = refused(other.quote(DATA), collateral=[other.collateral()])
    assert error.code == Code.CHAIN_UNTRUSTED


def test_without_an_anchor_nothing_is_trusted() -> None:
    root = FORGED.root.certificate
    for purpose in ("tpm-ek-root", "tpm-ak-root", "client-ca"):
        anchor = Anchor.from_certificate(purpose, root, platform="tpm", source="a test")
        assert refused(anchors=TrustAnchors((anchor,))).code == Code.CHAIN_UNTRUSTED


def test_an_anchor_past_its_time_is_refused() -> None:
    anchor = replace(FORGED.anchors().anchors[0], not_after=days(-1))
    assert refused(anchors=TrustAnchors((anchor,))).code == Code.CHAIN_EXPIRED


def test_a_processor_past_its_time_is_refused() -> None:
    pck = certify("Intel SGX PCK Certificate", FORGED.authority, extension=sgx_extension(), end=days(-1))
    assert refused(FORGED.quote(DATA, chain=(pck, FORGED.authority, FORGED.root))).code == Code.CHAIN_EXPIRED


def test_it_lasts_as_long_as_what_ends_first() -> None:
    """The anchor, or one certificate of the quote's chain."""
    anchor = replace(FORGED.anchors().anchors[0], not_after=days(2))
    assert verify(anchors=TrustAnchors((anchor,))).not_after == days(2) < verify().not_after
    pck = certify("Intel SGX PCK Certificate", FORGED.authority, extension=sgx_extension(), end=days(1))
    quote = FORGED.quote(DATA, chain=(pck, FORGED.authority, FORGED.root))
    assert verify(quote, anchors=TrustAnchors((anchor,))).not_after == days(1)


def _shorter() -> Sequence[Holder]:
    return FORGED.pck, FORGED.authority


def _longer() -> Sequence[Holder]:
    return FORGED.pck, FORGED.authority, FORGED.root, FORGED.root


def _rootless() -> Sequence[Holder]:
    middle = certify("Intel SGX Root CA 2", FORGED.root, path_length=1)
    authority = certify("Intel SGX PCK Platform CA", middle, path_length=0)
    return certify("Intel SGX PCK Certificate", authority, extension=sgx_extension()), authority, middle


def _signer_of_collateral() -> Sequence[Holder]:
    return certify("Intel SGX TCB Signing", FORGED.authority), FORGED.authority, FORGED.root


def _other_authority() -> Sequence[Holder]:
    authority = certify("Intel SGX Something CA", FORGED.root, path_length=0)
    return certify("Intel SGX PCK Certificate", authority, extension=sgx_extension()), authority, FORGED.root


def _no_processor() -> Sequence[Holder]:
    return certify("Intel SGX PCK Certificate", FORGED.authority), FORGED.authority, FORGED.root


def _odd_processor() -> Sequence[Holder]:
    pck = certify("Intel SGX PCK Certificate", FORGED.authority, extension=sgx_extension(bytes(7)))
    return pck, FORGED.authority, FORGED.root


def _garbage_processor() -> Sequence[Holder]:
    pck = certify("Intel SGX PCK Certificate", FORGED.authority, extension=b"\x30\x84\xff\xff\xff\xff")
    return pck, FORGED.authority, FORGED.root


def _issued_by_a_processor() -> Sequence[Holder]:
    pck = certify("Intel SGX PCK Certificate", FORGED.pck, extension=sgx_extension())
    return pck, FORGED.pck, FORGED.authority


@pytest.mark.parametrize(
    ("chain", "code"),
    [
        (_shorter, Code.CHAIN_LENGTH),
        (_longer, Code.CHAIN_LENGTH),
        (_rootless, Code.CHAIN_UNTRUSTED),
        (_signer_of_collateral, Code.CERT_PURPOSE),
        (_other_authority, Code.CERT_PURPOSE),
        (_no_processor, Code.CERT_PURPOSE),
        (_odd_processor, Code.CERT_PURPOSE),
        (_garbage_processor, Code.CERT_PURPOSE),
        (_issued_by_a_processor, Code.CHAIN_BROKEN),
    ],
)
def test_another_chain_is_refused(chain: Callable[[], Sequence[Holder]], code: Code) -> None:
    assert refused(FORGED.quote(DATA, chain=chain())).code == code


def test_the_processors_authority_is_taken_too() -> None:
    authority = certify("Intel SGX PCK Processor CA", FORGED.root, path_length=0)
    pck = certify("Intel SGX PCK Certificate", authority, extension=sgx_extension())
    forged = replace(FORGED, authority=authority, pck=pck)
    assert verify(forged.quote(DATA), collateral=[forged.collateral()]).tcb_status == "UpToDate"


def test_a_report_of_the_enclave_signed_by_another_processor_is_refused() -> None:
    other = replace(FORGED.pck, key=ForgedTdx.create().pck.key)
    error = refused(FORGED.quote(DATA, chain=(other, FORGED.authority, FORGED.root)))
    assert (error.code, error.where) == (Code.TDX_SIG, "td_quote.qe.signature")


def test_a_processors_key_is_of_p256() -> None:
    pck = certify("Intel SGX PCK Certificate", FORGED.authority, extension=sgx_extension(), curve=ec.SECP384R1())
    other = Holder(pck.certificate, FORGED.pck.key)
    error = refused(FORGED.quote(DATA, chain=(other, FORGED.authority, FORGED.root)))
    assert (error.code, error.where) == (Code.TDX_SIG, "td_quote.qe.signature")


@pytest.mark.parametrize("offset", [320, 351, 352, 383])
def test_a_report_of_the_enclave_that_names_another_key_is_refused(offset: int) -> None:
    def change(report: bytearray) -> None:
        report[offset] ^= 1

    error = refused(FORGED.quote(DATA, qe=change))
    assert (error.code, error.where) == (Code.TDX_SIG, "td_quote.qe.report_data")


def test_a_key_that_is_no_point_is_refused() -> None:
    def change(report: bytearray) -> None:
        report[320:352] = hashlib.sha256(bytes(64) + bytes(range(32))).digest()

    quote = FORGED.quote(DATA, qe=change)
    error = refused(quote[: AUTHENTICATION + 64] + bytes(64) + quote[AUTHENTICATION + 128 :])
    assert (error.code, error.where) == (Code.TDX_SIG, "td_quote.attestation_key")


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [
        (8, 632, 7),  # header and body
        (AUTHENTICATION, AUTHENTICATION + 128, 5),  # signature, attestation key
        (CERTIFIED, CERTIFIED + 448, 7),  # the enclave's report and its signature
        (CERTIFIED + 450, CERTIFIED + 482, 3),  # data that its hash covers
    ],
)
def test_every_bit_counts(start: int, end: int, step: int) -> None:
    for position in range(start, end, step):
        for bit in (0, 7):
            changed = bytearray(QUOTE)
            changed[position] ^= 1 << bit
            assert refused(bytes(changed)).code == Code.TDX_SIG


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(QUOTE) - 1))
    changed = bytearray(QUOTE)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        verify(bytes(changed))
    except (MalformedEvidence, NotAuthentic):
        return
    # What is left: line ends and the zero after the chain of certificates, which are the same chain.
    assert parse_td_quote(bytes(changed)).pck_chain.split() == parse_td_quote(QUOTE).pck_chain.split()


@given(st.binary(max_size=700))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        verify(data)


# --- this machine -----------------------------------------------------------------------------------------------------


def test_a_naive_time_is_misuse() -> None:
    with pytest.raises(ValueError, match="naive"):
        verify(at=AT.replace(tzinfo=None))


def test_without_the_library_quotes_cannot_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dcap_qvl", None)
    with pytest.raises(EnvironmentFault) as caught:
        verify()
    assert caught.value.code == Code.TOOL_MISSING
    assert "weighbridge[tdx]" in caught.value.hint


class PanicException(BaseException):
    """What a panic of Rust looks like from here."""


def test_a_panic_of_the_library_is_a_refusal() -> None:
    with pytest.raises(NotAuthentic) as caught, qvl._refusing(Code.TDX_TCB, "not admitted", "td_quote"):
        raise PanicException("assertion failed")
    assert caught.value.code == Code.TDX_TCB


def test_what_is_not_the_librarys_passes() -> None:
    with pytest.raises(KeyboardInterrupt), qvl._refusing(Code.TDX_TCB, "not admitted", "td_quote"):
        raise KeyboardInterrupt
