"""A quote: signed by the AK, made by a TPM, a quote, ours, over exactly these PCRs, with exactly these values.

Every forgery is signed by the AK itself, so that what refuses it is the check in question.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakes.soft_tpm import SoftTpm, derive_key
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import HashAlgorithm, Hierarchy
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.names import qualified_name_of_primary
from weighbridge.proto.tpm.pcr import PcrBank, PcrSelection, pcr_digest
from weighbridge.verifier.tpm.quote import VerifiedQuote, verify_quote

if TYPE_CHECKING:
    from fakes.enrolled_tpm import EnrolledTpm

OURS = b"H" * 32
SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384


def verify(enrolled: EnrolledTpm, evidence: QuoteEvidence, qualifying_data: bytes = OURS) -> VerifiedQuote:
    return verify_quote(evidence, enrolled.ak, qualifying_data=qualifying_data, selection=enrolled.selection)


def refused(enrolled: EnrolledTpm, evidence: QuoteEvidence, code: Code) -> None:
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        verify(enrolled, evidence)
    assert caught.value.code is code


def honest(enrolled: EnrolledTpm) -> QuoteEvidence:
    return enrolled.tpm.quote(enrolled.selection, OURS)


def test_values_by_number(enrolled: EnrolledTpm) -> None:
    quote = verify(enrolled, honest(enrolled))
    assert dict(quote.pcrs) == dict(enrolled.tpm.read_pcrs(enrolled.selection))
    assert (quote.bank, quote.qualifying_data, quote.ak) == (SHA256, OURS, enrolled.ak)
    assert (quote.reset_count, quote.restart_count, quote.safe) == (1, 0, True)
    assert (quote.clock, quote.firmware) == (1_010, enrolled.tpm.firmware)
    with pytest.raises(TypeError):
        quote.pcrs[0] = bytes(32)  # type: ignore[index] # that is what is refused


def test_another_bank(enrolled: EnrolledTpm) -> None:
    selection = PcrSelection.of(SHA384, [15])
    quote = verify_quote(enrolled.tpm.quote(selection, OURS), enrolled.ak, qualifying_data=OURS, selection=selection)
    assert {number: len(value) for number, value in quote.pcrs.items()} == {15: 48}


def test_an_old_quote_for_a_new_challenge(enrolled: EnrolledTpm) -> None:
    """A01."""
    old = enrolled.tpm.quote(enrolled.selection, b"G" * 32)
    refused(enrolled, old, Code.TPM_NONCE)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_qualifying_data_has_one_length(enrolled: EnrolledTpm, size: int) -> None:
    """A02, A03: whatever comes and whatever is demanded."""
    with enrolled.tpm.forging(extra_data=OURS[:1] * size) as tpm:
        refused(enrolled, tpm.quote(enrolled.selection, OURS), Code.TPM_NONCE)
    with pytest.raises(ValueError, match="32 bytes"):
        verify(enrolled, enrolled.tpm.quote(enrolled.selection, bytes(size)), bytes(size))


def test_an_empty_value_never_equals_an_empty_expectation(enrolled: EnrolledTpm) -> None:
    """A02."""
    with enrolled.tpm.forging(extra_data=b"") as tpm, pytest.raises(ValueError, match="32 bytes"):
        verify(enrolled, tpm.quote(enrolled.selection, b""), b"")


def test_the_nonce_is_read_from_the_signed_bytes(enrolled: EnrolledTpm) -> None:
    """A07: the old signed bytes with a new nonce written into them."""
    old = enrolled.tpm.quote(enrolled.selection, b"G" * 32)
    edited = replace(old, attest=old.attest.replace(b"G" * 32, OURS))
    assert edited.attest != old.attest
    refused(enrolled, edited, Code.TPM_SIGNATURE)


def test_wrong_magic(enrolled: EnrolledTpm) -> None:
    """A46 (CVE-2024-29038)."""
    with enrolled.tpm.forging(magic=0) as tpm:
        refused(enrolled, tpm.quote(enrolled.selection, OURS), Code.TPM_MAGIC)


@pytest.mark.parametrize("kind", [0x8014, 0x8019, 0x801A])
def test_other_attestations(enrolled: EnrolledTpm, kind: int) -> None:
    """A46: NV, time and creation attestations are no quotes."""
    with enrolled.tpm.forging(kind=kind) as tpm:
        refused(enrolled, tpm.quote(enrolled.selection, OURS), Code.TPM_ATTEST_TYPE)


def test_a_certification_is_no_quote(enrolled: EnrolledTpm) -> None:
    """A46: authentic, fresh and well-formed, and still not a quote."""
    attest, signature = enrolled.tpm.certify(enrolled.tpm.attestation_key(), OURS)
    values = tuple(enrolled.tpm.read_pcrs(enrolled.selection).values())
    refused(enrolled, QuoteEvidence(attest, signature, values), Code.TPM_ATTEST_TYPE)


@pytest.mark.parametrize(
    "banks",
    [
        (),
        (PcrBank(SHA256, (0, 4, 7, 15)), PcrBank(SHA256, (0, 4, 7, 15))),
        (PcrBank(SHA256, (0, 4)), PcrBank(SHA256, (7, 15))),
        (PcrBank(SHA256, (0, 4, 7, 15)), PcrBank(SHA384, (0,))),
        (PcrBank(SHA256, (0, 4, 7)),),
        (PcrBank(SHA256, (0, 4, 7, 8)),),
        (PcrBank(SHA256, (0, 4, 7, 8, 15)),),
        (PcrBank(SHA256, ()),),
        (PcrBank(SHA384, (0, 4, 7, 15)),),
        (PcrBank(HashAlgorithm.SHA1, (0, 4, 7, 15)),),
        (PcrBank(0x12, (0, 4, 7, 15)),),
    ],
    ids=["none", "twice", "split", "more", "dropped", "relabelled", "added", "empty", "bank", "sha1", "unknown"],
)
def test_selections_other_than_the_demanded(enrolled: EnrolledTpm, banks: tuple[PcrBank, ...]) -> None:
    """A47 (CVE-2024-29039): a quote over an inactive bank comes with an empty selection and a good signature."""
    with enrolled.tpm.forging(selection=PcrSelection(banks)) as tpm:
        refused(enrolled, tpm.quote(enrolled.selection, OURS), Code.TPM_PCR_SELECTION)


def test_values_of_other_pcrs_under_the_demanded_selection(enrolled: EnrolledTpm) -> None:
    """A47, A48: the labels are the signed ones, so values cannot be shown under other numbers."""
    values = tuple(enrolled.tpm.read_pcrs(enrolled.selection).values())
    for changed in (
        (values[1], values[0], *values[2:]),
        (*values[:3], bytes(32)),
        (bytes([values[0][0] ^ 1]) + values[0][1:], *values[1:]),
    ):
        refused(enrolled, replace(honest(enrolled), pcr_values=changed), Code.TPM_PCR_VALUES)


def test_values_missing_surplus_or_cut_elsewhere(enrolled: EnrolledTpm) -> None:
    """A48: concatenated they would hash the same; their number and lengths are checked first."""
    evidence = honest(enrolled)
    first, second, *rest = evidence.pcr_values
    for changed in (
        (),
        evidence.pcr_values[:-1],
        (*evidence.pcr_values, b""),
        (first + second, *rest),
        (first[:-1], first[-1:] + second, *rest),
        (first + second, b"", *rest),
    ):
        refused(enrolled, replace(evidence, pcr_values=changed), Code.TPM_PCR_VALUES)


def test_a_tpm_that_signs_what_has_another_shape(enrolled: EnrolledTpm) -> None:
    """A48: the AK vouches for these very values, so that only their number and lengths are wrong."""
    evidence = honest(enrolled)
    first, *rest = evidence.pcr_values
    for changed in ((*rest,), (first, *rest, first), (first[:-1], *rest), (first + b"\0", *rest)):
        with enrolled.tpm.forging(digest=pcr_digest(SHA256, changed)) as tpm:
            forged = replace(tpm.quote(enrolled.selection, OURS), pcr_values=changed)
        refused(enrolled, forged, Code.TPM_PCR_VALUES)


def test_digest_of_other_values(enrolled: EnrolledTpm) -> None:
    """A48."""
    for digest in (b"", bytes(32), bytes(48)):
        with enrolled.tpm.forging(digest=digest) as tpm:
            refused(enrolled, tpm.quote(enrolled.selection, OURS), Code.TPM_PCR_VALUES)


def test_another_key_signs(enrolled: EnrolledTpm) -> None:
    """A45: the telemetry key, unrestricted, signs anything: its quotes are not the AK's."""
    with enrolled.tpm.forging(signer=derive_key("telemetry")) as tpm:
        refused(enrolled, tpm.quote(enrolled.selection, OURS), Code.TPM_SIGNATURE)


def test_an_ak_outside_the_endorsement_hierarchy(enrolled: EnrolledTpm) -> None:
    """There its reset counts and firmware version would be obfuscated."""
    places = [
        qualified_name_of_primary(place, enrolled.ak.name)
        for place in (Hierarchy.OWNER, Hierarchy.NULL, Hierarchy.PLATFORM)
    ]
    for name in (*places, b"\0\x0b" + bytes(32), b"\0\x0b" + b"\xff" * 32):
        with enrolled.tpm.forging(qualified_signer=name) as tpm:
            refused(enrolled, tpm.quote(enrolled.selection, OURS), Code.AK_ATTRIBUTES)


def test_any_flipped_bit(enrolled: EnrolledTpm) -> None:
    """A26 for the TPM: no byte of the attestation or of the signature can be changed."""
    evidence = honest(enrolled)
    for place in range(len(evidence.attest)):
        changed = bytearray(evidence.attest)
        changed[place] ^= 1
        refused(enrolled, replace(evidence, attest=bytes(changed)), Code.TPM_SIGNATURE)
    for place in range(len(evidence.signature)):
        changed = bytearray(evidence.signature)
        changed[place] ^= 1
        with pytest.raises((NotAuthentic, MalformedEvidence)):
            verify(enrolled, replace(evidence, signature=bytes(changed)))


def test_bytes_behind_the_attestation(enrolled: EnrolledTpm) -> None:
    """A28."""
    with enrolled.tpm.forging(tail=b"\0") as tpm:
        refused(enrolled, tpm.quote(enrolled.selection, OURS), Code.TRAILING_BYTES)


@pytest.mark.parametrize(
    "selection",
    [
        PcrSelection(()),
        PcrSelection((PcrBank(SHA256, ()),)),
        PcrSelection((PcrBank(4, (0,)),)),
        PcrSelection((PcrBank(0x12, (0,)),)),
        PcrSelection((PcrBank(SHA256, (0,)), PcrBank(SHA384, (0,)))),
    ],
    ids=["none", "empty", "sha1", "unknown", "two"],
)
def test_a_demand_that_proves_nothing_is_misuse(enrolled: EnrolledTpm, selection: PcrSelection) -> None:
    with enrolled.tpm.forging(selection=selection) as tpm:
        evidence = tpm.quote(enrolled.selection, OURS)
    with pytest.raises(ValueError, match="one accepted bank"):
        verify_quote(evidence, enrolled.ak, qualifying_data=OURS, selection=selection)


def test_a_quote_of_another_tpm(enrolled: EnrolledTpm) -> None:
    other = SoftTpm("other")
    assert public.parse(other.attestation_key()).name != enrolled.ak.name
    refused(enrolled, other.quote(enrolled.selection, OURS), Code.TPM_SIGNATURE)


def test_the_seal(enrolled: EnrolledTpm) -> None:
    quote = verify(enrolled, honest(enrolled))
    assert "seal=" not in repr(quote)
    with pytest.raises(TypeError, match="verify_quote"):
        replace(quote, seal=None)
    for copied in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            copied(quote)
