"""The telemetry key: certified by the AK, of the NULL hierarchy, under the boot policy, of one kind."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakes.soft_tpm import SoftTpm, derive_key
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import HashAlgorithm, Hierarchy, ObjectAttributes
from weighbridge.proto.tpm.names import qualified_name_of_primary
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.tpm.templates import TELEMETRY_KEY_ATTRIBUTES
from weighbridge.verifier.tpm.certify import VerifiedTelemetryKey, boot_policy_of, verify_telemetry_key
from weighbridge.verifier.tpm.quote import VerifiedQuote, verify_quote

if TYPE_CHECKING:
    from fakes.enrolled_tpm import EnrolledTpm

OURS = b"E" * 32
UNIQUE = b"U" * 32


def enrolment_quote(enrolled: EnrolledTpm) -> VerifiedQuote:
    evidence = enrolled.tpm.quote(enrolled.selection, OURS)
    return verify_quote(evidence, enrolled.ak, qualifying_data=OURS, selection=enrolled.selection)


def verify(
    enrolled: EnrolledTpm,
    certification: tuple[bytes, bytes],
    telemetry_key: bytes,
    *,
    qualifying_data: bytes = OURS,
    boot_policy: bytes | None = None,
) -> VerifiedTelemetryKey:
    attest, signature = certification
    return verify_telemetry_key(
        attest=attest,
        signature=signature,
        public=public.parse(telemetry_key),
        ak=enrolled.ak,
        qualifying_data=qualifying_data,
        boot_policy=boot_policy_of(enrolment_quote(enrolled), enrolled.boot) if boot_policy is None else boot_policy,
    )


def refused(code: Code, *args: object, **changes: object) -> None:
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        verify(*args, **changes)  # type: ignore[arg-type] # a test names parameters that exist
    assert caught.value.code is code


def made(enrolled: EnrolledTpm) -> bytes:
    return enrolled.tpm.create_telemetry_key(unique=UNIQUE, boot=enrolled.boot)


def test_it_signs_what_the_verifier_accepts(enrolled: EnrolledTpm) -> None:
    telemetry_key = made(enrolled)
    verified = verify(enrolled, enrolled.tpm.certify_telemetry_key(OURS), telemetry_key)
    assert verified.spki == public.parse(telemetry_key).spki()
    assert verified.thumbprint == cose.thumbprint(verified.key)
    assert verified.state.reset_count == 1
    message = cose.sign(b"header", kid=verified.thumbprint, typ="t", signer=enrolled.tpm.sign)
    assert cose.verify(cose.parse(message, typ="t", limit=1_000, what="x"), verified.key) == b"header"


def test_it_dies_with_a_reset_whatever_the_counters_say(enrolled: EnrolledTpm) -> None:
    """A75: state files copied back, counts and clock made to match: the NULL hierarchy's seed is another."""
    before = made(enrolled)
    boot, count = {bank: list(values) for bank, values in enrolled.tpm.pcrs.items()}, enrolled.tpm.reset_count
    enrolled.tpm.reset()
    enrolled.tpm.pcrs = boot
    with pytest.raises(EnvironmentFault) as caught:
        enrolled.tpm.sign(b"header")
    assert caught.value.code is Code.TPM_RESET
    after = made(enrolled)
    enrolled.tpm.reset_count = count
    assert public.parse(after).spki() != public.parse(before).spki()
    refused(Code.TELEMETRY_KEY_MISMATCH, enrolled, enrolled.tpm.certify_telemetry_key(OURS), before)


@pytest.mark.parametrize("hierarchy", [Hierarchy.OWNER, Hierarchy.ENDORSEMENT, Hierarchy.PLATFORM])
def test_a_primary_of_a_lasting_hierarchy(enrolled: EnrolledTpm, hierarchy: Hierarchy) -> None:
    """A75: such a key would be back after a reset."""
    telemetry_key = made(enrolled)
    name = qualified_name_of_primary(hierarchy, public.parse(telemetry_key).name)
    with enrolled.tpm.forging(qualified_name=name) as tpm:
        refused(Code.TELEMETRY_KEY_HIERARCHY, enrolled, tpm.certify_telemetry_key(OURS), telemetry_key)


def test_an_object_below_a_primary(enrolled: EnrolledTpm) -> None:
    """A75: a child of a NULL primary could be loaded again; its qualified name is another."""
    telemetry_key = made(enrolled)
    for name in (b"", public.parse(telemetry_key).name, b"\0\x0b" + bytes(32)):
        with enrolled.tpm.forging(qualified_name=name) as tpm:
            refused(Code.TELEMETRY_KEY_HIERARCHY, enrolled, tpm.certify_telemetry_key(OURS), telemetry_key)


def test_another_key_than_the_certified(enrolled: EnrolledTpm) -> None:
    """A57: telemetry signed by a key that nobody attested."""
    made(enrolled)
    certification = enrolled.tpm.certify_telemetry_key(OURS)
    other = SoftTpm("other")
    other.pcrs = enrolled.tpm.pcrs
    refused(
        Code.TELEMETRY_KEY_MISMATCH,
        enrolled,
        certification,
        other.create_telemetry_key(unique=UNIQUE, boot=enrolled.boot),
    )


A = ObjectAttributes


@pytest.mark.parametrize(
    "attributes",
    [
        TELEMETRY_KEY_ATTRIBUTES ^ A.FIXED_TPM,
        TELEMETRY_KEY_ATTRIBUTES ^ A.FIXED_PARENT,
        TELEMETRY_KEY_ATTRIBUTES ^ A.SENSITIVE_DATA_ORIGIN,
        TELEMETRY_KEY_ATTRIBUTES ^ A.SIGN,
        TELEMETRY_KEY_ATTRIBUTES | A.USER_WITH_AUTH,
        TELEMETRY_KEY_ATTRIBUTES | A.RESTRICTED,
        TELEMETRY_KEY_ATTRIBUTES | A.DECRYPT,
        TELEMETRY_KEY_ATTRIBUTES | A.ADMIN_WITH_POLICY,
    ],
    ids=["fixedTPM", "fixedParent", "origin", "sign", "password", "restricted", "decrypt", "adminWithPolicy"],
)
def test_attributes_of_another_kind(enrolled: EnrolledTpm, attributes: A) -> None:
    """With userWithAuth it would sign by its empty password, whatever the boot PCRs hold."""
    telemetry_key = enrolled.tpm.public_with(made(enrolled), int(attributes))
    refused(Code.TELEMETRY_KEY_ATTRIBUTES, enrolled, enrolled.tpm.certify(telemetry_key, OURS), telemetry_key)


def test_a_key_without_a_scheme(enrolled: EnrolledTpm) -> None:
    key = made(enrolled)
    place = 10 + 32 + 2
    bare = key[:place] + b"\0\x10" + key[place + 4 :]
    refused(Code.TPM_ALGORITHM, enrolled, enrolled.tpm.certify(bare, OURS), bare)


def test_an_rsa_key(enrolled: EnrolledTpm) -> None:
    raw = SoftTpm(ek="L-1").ek_public
    key = raw[:4] + int(TELEMETRY_KEY_ATTRIBUTES).to_bytes(4) + raw[8:42] + b"\0\x10\0\x14\0\x0b" + raw[50:]
    refused(Code.TELEMETRY_KEY_ATTRIBUTES, enrolled, enrolled.tpm.certify(key, OURS), key)


def test_another_boot(enrolled: EnrolledTpm) -> None:
    """The key was made under other boot PCRs than those that were enrolled."""
    telemetry_key = made(enrolled)
    certification = enrolled.tpm.certify_telemetry_key(OURS)
    enrolled.tpm.extend(4, {HashAlgorithm.SHA256: bytes(32), HashAlgorithm.SHA384: bytes(48)})
    refused(Code.TELEMETRY_KEY_POLICY, enrolled, certification, telemetry_key)
    with pytest.raises(EnvironmentFault):
        enrolled.tpm.sign(b"header")


def test_fewer_boot_pcrs(enrolled: EnrolledTpm) -> None:
    telemetry_key = enrolled.tpm.create_telemetry_key(unique=UNIQUE, boot=PcrSelection.of(HashAlgorithm.SHA256, [0, 4]))
    refused(Code.TELEMETRY_KEY_POLICY, enrolled, enrolled.tpm.certify_telemetry_key(OURS), telemetry_key)


def test_no_policy_never_equals_no_policy(enrolled: EnrolledTpm) -> None:
    key = made(enrolled)
    bare = key[:8] + b"\0\0" + key[42:]
    refused(Code.TELEMETRY_KEY_POLICY, enrolled, enrolled.tpm.certify(bare, OURS), bare)
    for size in (0, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            verify(enrolled, enrolled.tpm.certify(bare, OURS), bare, boot_policy=bytes(size))


SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384


@pytest.mark.parametrize(
    ("quoted", "bank", "pcrs"), [(SHA256, SHA256, [0, 9]), (SHA256, SHA384, [0]), (SHA384, SHA256, [0])]
)
def test_a_policy_needs_a_quote_that_covers_it(
    enrolled: EnrolledTpm, quoted: HashAlgorithm, bank: HashAlgorithm, pcrs: list[int]
) -> None:
    quote = enrolment_quote(replace(enrolled, selection=PcrSelection.of(quoted, [0, 4, 7, 15])))
    with pytest.raises(MalformedEvidence) as caught:
        boot_policy_of(quote, PcrSelection.of(bank, pcrs))
    assert caught.value.code is Code.TPM_PCR_SELECTION
    if bank is not quoted:
        assert (caught.value.expected, caught.value.got) == (quoted.name, bank.name)


def test_a_quote_is_no_certification(enrolled: EnrolledTpm) -> None:
    """A46."""
    evidence = enrolled.tpm.quote(enrolled.selection, OURS)
    refused(Code.TPM_ATTEST_TYPE, enrolled, (evidence.attest, evidence.signature), made(enrolled))


def test_an_old_certification(enrolled: EnrolledTpm) -> None:
    """A01."""
    telemetry_key = made(enrolled)
    refused(Code.TPM_NONCE, enrolled, enrolled.tpm.certify_telemetry_key(b"F" * 32), telemetry_key)


def test_certified_by_another_key(enrolled: EnrolledTpm) -> None:
    """A45."""
    telemetry_key = made(enrolled)
    with enrolled.tpm.forging(signer=derive_key("unrestricted")) as tpm:
        refused(Code.TPM_SIGNATURE, enrolled, tpm.certify_telemetry_key(OURS), telemetry_key)


def test_the_seal(enrolled: EnrolledTpm) -> None:
    telemetry_key = made(enrolled)
    verified = verify(enrolled, enrolled.tpm.certify_telemetry_key(OURS), telemetry_key)
    assert not {"key=", "seal="} & set(re.findall(r"\b\w+=", repr(verified)))
    with pytest.raises(TypeError, match="verify_telemetry_key"):
        replace(verified, seal=None)
    with pytest.raises(TypeError):
        pickle.dumps(verified)
