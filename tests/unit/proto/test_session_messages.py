"""The messages that open a session, its signed terms, and what a window is sent in: parsed as they were encoded."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import derive_key
from support.mutations import check_total, inputs, keys, with_field, without_field
from weighbridge.proto import binding, cbor, cose, limits
from weighbridge.proto.cc_state import CcState
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.digest import D
from weighbridge.proto.endorsement import AkCertificateEndorsement, EkEndorsement, VtpmReportEndorsement
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spot import SpotAnswer
from weighbridge.proto.terms import PERIOD_MAX_NS, PERIOD_MIN_NS, TERMS_TYP, SignedTerms, Terms
from weighbridge.proto.window import PROFILE, Evidence, Header, Interval, audience_of, seal
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = derive_key("verifier")
THUMBPRINT = cose.thumbprint(KEY.public_key())


def digest(text: str) -> bytes:
    return D("link", text.encode())


def sign(data: bytes) -> bytes:
    r, s = decode_dss_signature(KEY.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return r.to_bytes(32) + s.to_bytes(32)


TERMS: Final = Terms(
    session=bytes(range(16)),
    tenant="tenant-a",
    audience="relying-party",
    verifier=THUMBPRINT,
    ak=digest("ak"),
    telemetry_key=digest("telemetry key"),
    cnf=digest("cnf"),
    peer=digest("peer"),
    kem=None,
    model=digest("model"),
    evidence=("gpu", "telemetry", "tpm", "workload"),
    gpus=tuple(sorted([digest("gpu 0"), digest("gpu 1")])),
    bank=0x000B,
    pcrs=(0, 7, 15),
    boot_pcrs=(0, 7),
    log_pcr=15,
    period_ns=10_000_000_000,
    gpu_every=2,
    spot_every=3,
    lateness_ns=1_000_000_000,
    prev=digest("prev"),
    issued_ns=1,
)
OPENING: Final = Opening(
    tenant="tenant-a",
    audience="relying-party",
    ak=b"public area",
    parent=b"storage key",
    endorsement=EkEndorsement(public=b"public area", certificate=b"certificate", intermediates=(b"one", b"two")),
    collateral=Collateral.of(CollateralItem("crl", b"list"), CollateralItem("dcap", b"{}")),
    cnf=digest("cnf"),
    peer=digest("peer"),
    kem=b"key",
    model=digest("model"),
)
CHALLENGE: Final = EnrolmentChallenge(
    session=bytes(16),
    challenge=digest("challenge"),
    credential=(b"id object", b"secret"),
    bank=0x000B,
    pcrs=(0, 15),
    boot_pcrs=(0,),
    log_pcr=15,
    evidence=("boot", "gpu", "tpm"),
)
PROOF: Final = EnrolmentProof(
    session=bytes(16),
    secret=bytes(32),
    telemetry_key=b"public area",
    certify_attest=b"attest",
    certify_signature=b"signature",
    quote=b"quote",
    gpus=b"gpus",
    log=b"log",
    manifests=b"manifests",
    boot=b"logs",
)
HEADER: Final = Header(
    tenant="tenant-a",
    session=bytes(range(16)),
    audience=audience_of(THUMBPRINT),
    terms=digest("terms"),
    seq=7,
    prev=digest("prev"),
    challenge=digest("challenge"),
    interval=Interval(tpm_start_ms=1, tpm_end_ms=2, wall_start_ns=3, wall_end_ns=4),
    telemetry=digest("telemetry"),
    work=WorkSummary(root=digest("root"), requests=1, tokens_in=2, tokens_out=3, batch_max=1),
    log_length=1,
    log_head=digest("head"),
    model=digest("model"),
    telemetry_key=digest("telemetry key"),
    cnf=digest("cnf"),
    peer=digest("peer"),
    kem=None,
    spot=SpotAnswer(bytes(16), digest("mac")),
    cc_state=CcState(environment=2, feature="on", dev_tools=False, multi_gpu="none"),
)
EVIDENCE: Final = Evidence(
    window=cose.sign(HEADER.encode(), kid=digest("telemetry key"), typ="application/eat+cwt", signer=sign),
    quote=b"quote",
    gpus=b"gpus",
    telemetry=b"telemetry",
    log=b"log",
    manifests=b"manifests",
    runtime=b"entries",
)
Message = Terms | Opening | EnrolmentChallenge | EnrolmentProof | Header | Evidence
MESSAGES: dict[str, Message] = {
    "terms": TERMS,
    "opening": OPENING,
    "challenge": CHALLENGE,
    "proof": PROOF,
    "header": HEADER,
    "evidence": EVIDENCE,
}
VARIANTS: list[Message] = [
    *MESSAGES.values(),
    replace(TERMS, kem=b"hpke", gpus=(), evidence=(), pcrs=(15,), boot_pcrs=(), period_ns=PERIOD_MIN_NS),
    replace(TERMS, lateness_ns=0, period_ns=PERIOD_MAX_NS, gpu_every=10_000, spot_every=0, issued_ns=2**63 - 1),
    replace(OPENING, parent=None, endorsement=None, collateral=Collateral(), kem=None),
    replace(OPENING, endorsement=AkCertificateEndorsement(certificate=b"certificate", intermediates=())),
    replace(OPENING, endorsement=VtpmReportEndorsement(report=b"report", quote=None, certificates=(b"1", b"2", b"3"))),
    replace(OPENING, endorsement=VtpmReportEndorsement(report=b"report", quote=b"quote", certificates=())),
    replace(CHALLENGE, credential=None, evidence=()),
    replace(PROOF, secret=b"", gpus=b"", boot=None),
    replace(HEADER, kem=b"hpke", work=WorkSummary.empty(), seq=0, log_length=0, spot=None),
    replace(EVIDENCE, gpus=None, runtime=None),
    replace(EVIDENCE, runtime=b""),
]


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        call()
    return refusal.value.code


@pytest.mark.parametrize("message", VARIANTS, ids=lambda message: type(message).__name__)
def test_what_is_encoded_is_parsed_to_the_same(message: Message) -> None:
    assert type(message).parse(message.encode()) == message


@pytest.mark.parametrize("name", MESSAGES)
@given(data=st.data())
def test_any_bytes_are_a_message_or_malformed(name: str, data: st.DataObject) -> None:
    message = MESSAGES[name]
    check_total(type(message).parse, lambda value: value.encode(), data.draw(inputs(message.encode())))  # type: ignore[attr-defined] # a message


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_is_needed_and_no_other_is_taken(name: str) -> None:
    message = MESSAGES[name]
    octets = message.encode()
    for key in keys(octets):
        assert code_of(lambda key=key: type(message).parse(without_field(octets, key))) is Code.FIELD_MISSING  # type: ignore[misc]
    assert code_of(lambda: type(message).parse(with_field(octets, 99, None))) is Code.FIELD_UNKNOWN
    assert code_of(lambda: type(message).parse(cbor.encode([octets]))) is Code.FIELD_TYPE
    assert code_of(lambda: type(message).parse(octets + b"\0")) is Code.NOT_DETERMINISTIC


@pytest.mark.parametrize("name", MESSAGES)
def test_no_field_is_of_another_type(name: str) -> None:
    message = MESSAGES[name]
    octets = message.encode()
    decoded = cbor.decode(octets, limit=100_000, what="it")
    assert isinstance(decoded, dict)
    for key, value in decoded.items():
        for wrong in (-(2**64), "text", b"octets", True, [None], {1: 1}):
            # What may be null may be what it is not null for.
            if type(wrong) is type(value) or value is None:
                continue
            assert code_of(lambda key=key, wrong=wrong: type(message).parse(with_field(octets, key, wrong))) in {  # type: ignore[misc]
                Code.FIELD_TYPE,
                Code.FIELD_RANGE,
                Code.FIELD_MISSING,
                Code.TOO_LARGE,
            }


@pytest.mark.parametrize("name", ["terms", "opening", "challenge", "proof"])
def test_versions_are_compared_for_equality(name: str) -> None:
    message = MESSAGES[name]
    for version in ("", "weighbridge/v2/terms", "weighbridge/v1/opening "):
        octets = with_field(message.encode(), 0, version)
        assert code_of(lambda octets=octets: type(message).parse(octets)) is Code.VERSION_UNSUPPORTED  # type: ignore[misc]


# -- terms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (1, bytes(15), Code.FIELD_RANGE),
        (2, "x" * 65, Code.TOO_LARGE),
        (3, "x" * 513, Code.TOO_LARGE),
        (4, bytes(31), Code.FIELD_RANGE),
        (9, bytes(257), Code.TOO_LARGE),
        (11, ["tpm", "gpu"], Code.FIELD_RANGE),
        (11, ["tpm", "tpm"], Code.FIELD_RANGE),
        (11, ["another"], Code.FIELD_RANGE),
        (11, [1], Code.FIELD_RANGE),
        (12, [digest("gpu 0"), digest("gpu 0")], Code.FIELD_RANGE),
        (12, sorted([digest("gpu 0"), digest("gpu 1")], reverse=True), Code.FIELD_RANGE),
        (12, [bytes(31)], Code.FIELD_RANGE),
        (12, [bytes(32)] * 65, Code.TOO_LARGE),
        (13, 0x1_0000, Code.FIELD_RANGE),
        (14, [0, 7], Code.FIELD_RANGE),
        (14, [7, 0, 15], Code.FIELD_RANGE),
        (14, [0, 7, 15, 24], Code.FIELD_RANGE),
        (15, [0, 1], Code.FIELD_RANGE),
        (16, 14, Code.FIELD_RANGE),
        (16, 24, Code.FIELD_RANGE),
        (17, PERIOD_MIN_NS - 1, Code.FIELD_RANGE),
        (17, PERIOD_MAX_NS + 1, Code.FIELD_RANGE),
        (18, 0, Code.FIELD_RANGE),
        (18, 10_001, Code.FIELD_RANGE),
        (19, PERIOD_MAX_NS + 1, Code.FIELD_RANGE),
        (19, -1, Code.FIELD_RANGE),
        (21, 2**63, Code.FIELD_RANGE),
    ],
)
def test_terms_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    """A79"""
    assert code_of(lambda: Terms.parse(with_field(TERMS.encode(), key, value))) is code


def test_terms_say_in_which_windows_reports_are_due() -> None:
    assert [TERMS.gpu_due(seq) for seq in range(4)] == [True, False, True, False]
    assert not replace(TERMS, evidence=("telemetry", "tpm", "workload")).gpu_due(0)


def test_signed_terms_are_taken_from_the_trusted_verifier_only() -> None:
    """A74, A79: the attester's side."""
    signed = SignedTerms.sign(TERMS, sign)
    opened = SignedTerms.open(signed.raw, KEY.public_key())
    assert opened == signed
    assert opened.digest == binding.terms_digest(TERMS.encode())
    with pytest.raises(NotAuthentic) as refusal:
        SignedTerms.open(signed.raw, derive_key("another").public_key())
    assert refusal.value.code is Code.COSE_SIGNATURE


def test_signed_terms_name_their_verifier() -> None:
    stranger = replace(TERMS, verifier=digest("another verifier"))
    assert code_of(lambda: SignedTerms.open(SignedTerms.sign(stranger, sign).raw, KEY.public_key())) is Code.FIELD_RANGE
    misnamed = cose.sign(TERMS.encode(), kid=digest("another verifier"), typ=TERMS_TYP, signer=sign)
    assert code_of(lambda: SignedTerms.open(misnamed, KEY.public_key())) is Code.FIELD_RANGE


def test_a_window_is_not_terms() -> None:
    window = cose.sign(TERMS.encode(), kid=THUMBPRINT, typ="application/eat+cwt", signer=sign)
    assert code_of(lambda: SignedTerms.open(window, KEY.public_key())) is Code.COSE_HEADER


# -- enrolment ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (1, "x" * 65, Code.TOO_LARGE),
        (3, bytes(limits.TPM_STRUCTURE_MAX + 1), Code.TOO_LARGE),
        (4, bytes(limits.TPM_STRUCTURE_MAX + 1), Code.TOO_LARGE),
        (5, ["ek", b"", bytes(limits.CERT_MAX + 1), []], Code.TOO_LARGE),
        (5, ["ek", b"", b"", [b""] * 5], Code.TOO_LARGE),
        (5, ["ek", b"", b""], Code.FIELD_MISSING),
        (5, ["ek", b"", None, []], Code.FIELD_TYPE),
        (5, ["ek", b"", b"", [], b""], Code.TOO_LARGE),
        (5, ["ak-certificate", b"", [], b""], Code.FIELD_UNKNOWN),
        (5, ["vtpm-report", bytes(limits.VTPM_REPORT_MAX + 1), None, []], Code.TOO_LARGE),
        (5, ["vtpm-report", b"", bytes(limits.TD_QUOTE_MAX + 1), []], Code.TOO_LARGE),
        (5, ["my word"], Code.FIELD_RANGE),
        (5, [], Code.FIELD_MISSING),
        (6, [["crl", b""]] * 2, Code.FIELD_RANGE),
        (6, [["dcap", b""], ["crl", b""]], Code.FIELD_RANGE),
        (6, [["my word", b""]], Code.FIELD_RANGE),
        (6, [["crl", b"", b""]], Code.TOO_LARGE),
        (6, [["crl", bytes(limits.COLLATERAL_ITEM_MAX + 1)]], Code.TOO_LARGE),
        (6, [["crl", bytes([n])] for n in range(9)], Code.TOO_LARGE),
        (7, bytes(33), Code.FIELD_RANGE),
        (9, bytes(257), Code.TOO_LARGE),
    ],
)
def test_openings_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    assert code_of(lambda: Opening.parse(with_field(OPENING.encode(), key, value))) is code


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (1, bytes(17), Code.FIELD_RANGE),
        (2, b"", Code.FIELD_RANGE),
        (2, bytes(31), Code.FIELD_RANGE),
        (3, None, Code.FIELD_RANGE),
        (4, None, Code.FIELD_RANGE),
        (5, -1, Code.FIELD_RANGE),
        (6, [15, 0], Code.FIELD_RANGE),
        (7, [24], Code.FIELD_RANGE),
        (8, 24, Code.FIELD_RANGE),
    ],
)
def test_challenges_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    """A02, A03: a challenge of another length is none."""
    assert code_of(lambda: EnrolmentChallenge.parse(with_field(CHALLENGE.encode(), key, value))) is code


@pytest.mark.parametrize(
    ("key", "value"),
    [(2, bytes(65)), *((key, bytes(limits.TPM_STRUCTURE_MAX + 1)) for key in range(3, 7))],
)
def test_proofs_out_of_range_are_refused(key: int, value: bytes) -> None:
    assert code_of(lambda: EnrolmentProof.parse(with_field(PROOF.encode(), key, value))) is Code.TOO_LARGE


# -- windows -----------------------------------------------------------------------------------------------------------

NONCE, CNF, PROFILE_CLAIM, TENANT, SESSION, SEQ, INTERVAL, WORK, LOG, KEM, CC = (
    10,
    8,
    265,
    -70100,
    -70101,
    -70103,
    -70105,
    -70107,
    -70108,
    -70112,
    -70114,
)


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (PROFILE_CLAIM, PROFILE + " ", Code.WINDOW_PROFILE),
        (PROFILE_CLAIM, "", Code.WINDOW_PROFILE),
        (NONCE, b"", Code.FIELD_RANGE),
        (NONCE, bytes(31), Code.FIELD_RANGE),
        (NONCE, bytes(64), Code.FIELD_RANGE),
        (NONCE, None, Code.FIELD_TYPE),
        (CNF, {}, Code.FIELD_MISSING),
        (CNF, {3: bytes(31)}, Code.FIELD_RANGE),
        (CNF, {3: bytes(32), 1: bytes(32)}, Code.FIELD_UNKNOWN),
        (CNF, bytes(32), Code.FIELD_TYPE),
        (TENANT, "x" * 65, Code.TOO_LARGE),
        (SESSION, b"", Code.FIELD_RANGE),
        (SEQ, -1, Code.FIELD_RANGE),
        (SEQ, 2**53 + 1, Code.FIELD_RANGE),
        (SEQ, None, Code.FIELD_TYPE),
        (INTERVAL, [1, 2, 3], Code.FIELD_MISSING),
        (INTERVAL, [1, 2, 3, 4, 5], Code.TOO_LARGE),
        (INTERVAL, [1, 2, 3, -1], Code.FIELD_RANGE),
        (INTERVAL, [1, 2, 3, 2**63], Code.FIELD_RANGE),
        (INTERVAL, None, Code.FIELD_TYPE),
        (WORK, None, Code.FIELD_TYPE),
        (WORK, [bytes(32), 0, 1, 0, 0, 0, 0], Code.WORKLOAD_COUNTS),
        (LOG, [1], Code.FIELD_MISSING),
        (LOG, [2**32 + 1, bytes(32)], Code.FIELD_RANGE),
        (LOG, [1, bytes(31)], Code.FIELD_RANGE),
        (KEM, bytes(257), Code.TOO_LARGE),
        (CC, [2, "on", False], Code.FIELD_RANGE),
        (CC, [2, "no", False, "none"], Code.FIELD_RANGE),
        (CC, True, Code.FIELD_TYPE),
    ],
)
def test_headers_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    """A02, A03, A79: nothing that is not a challenge is one, and absent is not null."""
    assert code_of(lambda: Header.parse(with_field(HEADER.encode(), key, value))) is code


def test_every_claim_has_its_key() -> None:
    # eat_profile is no field; length and head of the log share one claim.
    assert len(keys(HEADER.encode())) == len(fields(Header))


@pytest.mark.parametrize("part", ["window", "tpm", "telemetry", "log", "manifests"])
def test_parts_are_what_their_media_type_says(part: str) -> None:
    octets = EVIDENCE.encode()
    decoded = cbor.decode(octets, limit=100_000, what="it")
    assert isinstance(decoded, dict)
    record = decoded[part]
    assert isinstance(record, list)
    media_type, content, indicator = record
    for wrong, code in (
        (None, Code.FIELD_TYPE),
        ([media_type, content], Code.FIELD_RANGE),
        ([media_type, content, indicator, 0], Code.TOO_LARGE),
        (["application/cbor", content, indicator], Code.FIELD_RANGE),
        ([media_type, content, 2], Code.FIELD_RANGE),
        ([media_type, content, None], Code.FIELD_RANGE),
        ([media_type, "text", indicator], Code.FIELD_TYPE),
        ([media_type, None, indicator], Code.FIELD_TYPE),
    ):
        assert code_of(lambda wrong=wrong: Evidence.parse(with_field(octets, part, wrong))) is code  # type: ignore[misc]


@pytest.mark.parametrize(
    ("part", "limit"),
    [("window", limits.HEADER_MAX + 256), ("tpm", limits.TPM_STRUCTURE_MAX), ("telemetry", limits.TELEMETRY_MAX)],
)
def test_parts_have_limits_of_their_own(part: str, limit: int) -> None:
    decoded = cbor.decode(EVIDENCE.encode(), limit=100_000, what="it")
    assert isinstance(decoded, dict)
    record = decoded[part]
    assert isinstance(record, list)
    larger = with_field(EVIDENCE.encode(), part, [record[0], bytes(limit + 1), record[2]])
    assert code_of(lambda: Evidence.parse(larger)) is Code.TOO_LARGE


def test_a_header_is_taken_out_of_its_signature_as_it_was_signed() -> None:
    signed = EVIDENCE.signed_header()
    assert Header.parse(signed.payload) == HEADER
    assert cose.verify(signed, KEY.public_key()) == HEADER.encode()


# -- what is bound to what ---------------------------------------------------------------------------------------------


def test_each_link_has_a_label_of_its_own() -> None:
    """A06: the same bytes mean nothing in another place."""
    same = bytes(32)
    links = {
        binding.window_digest(same),
        binding.link(same, same),
        binding.genesis(same),
        binding.gpu_nonce(same),
        binding.qualifying_data(same, same, None),
        binding.qualifying_data(same, same, same),
        binding.challenge(same, same[:16], 0, same),
        binding.challenge(same, same[:16], None, same),
        binding.enrolment_qualifying_data(same, same, same),
        binding.terms_digest(same),
    }
    assert len(links) == 10
    assert all(len(link) == 32 for link in links)


@given(
    st.lists(st.binary(max_size=40), min_size=3, max_size=3), st.lists(st.binary(max_size=40), min_size=3, max_size=3)
)
def test_parts_cannot_be_moved_across_a_border(first: list[bytes], second: list[bytes]) -> None:
    assert (binding.enrolment_qualifying_data(*first) == binding.enrolment_qualifying_data(*second)) == (
        first == second
    )


def test_a_seal_is_over_header_reports_and_platform() -> None:
    digest_, qualifying_data = seal(b"header", bytes(32), None)
    assert digest_ == binding.window_digest(b"header")
    assert qualifying_data == D("tpm", digest_, bytes(32), None)
    assert seal(b"header", bytes(32), bytes(32))[1] != qualifying_data


def test_an_audience_is_a_name_of_a_key() -> None:
    assert audience_of(bytes(32)) == "ni:///sha-256;" + "A" * 43
