"""Whose word a manifest is: chain, time, signature, and that nothing else becomes a verified one."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fakes.rims import JUNE, anchors_of, edited, expired, issued, of_stranger, resigned
from gpu_support import Certificate, chain_of, der
from weighbridge.attester.gpu.emulated import Firmware
from weighbridge.attester.gpu.emulated_rims import Manifest, RimSigner, Validity, gpu_manifests
from weighbridge.attester.gpu.emulated_vendor import PLATFORM, EmulatedVendor
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier import anchors, certs
from weighbridge.verifier.gpu.rim import VerifiedRim, verify_rim

VENDOR = EmulatedVendor.create()
FIRMWARE = Firmware()
ANCHORS = anchors_of(VENDOR)
GOOD, VBIOS = VENDOR.rims(FIRMWARE, validity=issued(JUNE - timedelta(days=30)))
CERTIFICATE = re.compile(rb"<ds:X509Certificate>[^<]*</ds:X509Certificate>\n?")


def outcome(data: bytes, believed: anchors.TrustAnchors = ANCHORS, at: datetime = JUNE) -> Code | None:
    """Why the manifest is refused; ``None`` where it is not."""
    try:
        verify_rim(data, anchors=believed, at=at)
    except (MalformedEvidence, NotAuthentic) as error:
        return error.code
    return None


def with_chain(data: bytes, *chain: bytes) -> bytes:
    """The manifest with other certificates: they are signed by their issuers alone."""
    listed = "".join(f"<ds:X509Certificate>{strict.base64_encode(each)}</ds:X509Certificate>" for each in chain)
    start = data.index(b"<ds:X509Data>") + len(b"<ds:X509Data>")
    return data[:start] + listed.encode() + data[data.index(b"</ds:X509Data>") :]


def chain_in(data: bytes) -> list[bytes]:
    """The certificates of the manifest."""
    return [
        strict.base64_decode(b"".join(text.split()), what="test")
        for text in re.findall(rb"<ds:X509Certificate>([^<]*)<", data)
    ]


def test_good() -> None:
    rim = verify_rim(GOOD, anchors=ANCHORS, at=JUNE)
    assert (rim.id, rim.kind, rim.product, rim.version) == ("GH100 driver 580.95.05", "driver", "GH100", "580.95.05")
    assert rim.platform == PLATFORM
    assert (rim.issued, rim.not_after) == (JUNE - timedelta(days=30), JUNE + timedelta(days=700))
    assert rim.digest == sha256(GOOD)
    assert [entry.index for entry in rim.active] == [7, *range(21, 42)]
    assert rim.indices == {7, *range(21, 42)}
    assert rim.entries[7].hashes == (FIRMWARE.measurement(8),)
    assert not rim.entries[8].active
    assert len(rim.chain) == 4
    with pytest.raises(TypeError):
        rim.entries[7] = rim.entries[8]  # type: ignore[index]  # pyright: ignore[reportIndexIssue] - that it fails


def test_validity_later() -> None:
    rim = verify_rim(GOOD, anchors=ANCHORS, at=JUNE)
    assert [rim.is_valid(moment) for moment in (rim.not_before, rim.not_after)] == [True, True]
    second = timedelta(seconds=1)
    assert [rim.is_valid(moment) for moment in (rim.not_before - second, rim.not_after + second)] == [False, False]


def test_is_made_by_verification_alone() -> None:
    rim = verify_rim(GOOD, anchors=ANCHORS, at=JUNE)
    with pytest.raises(TypeError):
        replace(rim, seal=object())
    with pytest.raises(TypeError):
        pickle.dumps(rim)
    with pytest.raises(TypeError):
        copy.copy(rim)
    assert isinstance(rim, VerifiedRim)


def test_naive_time() -> None:
    with pytest.raises(ValueError, match="naive"):
        verify_rim(GOOD, anchors=ANCHORS, at=datetime(2026, 6, 1))  # noqa: DTZ001 - that it is refused


@pytest.mark.parametrize("data", [edited(GOOD), resigned(GOOD), GOOD.replace(b"580.95.05", b"580.95.06", 1)])
def test_a21_bad_signature(data: bytes) -> None:
    assert outcome(data) is Code.RIM_SIG


def test_a21_wrong_root() -> None:
    assert [outcome(data) for data in of_stranger(FIRMWARE)] == [Code.RIM_CHAIN] * 2
    assert outcome(GOOD, anchors.default()) is Code.RIM_CHAIN
    assert outcome(GOOD, anchors.TrustAnchors(())) is Code.RIM_CHAIN


def test_root_of_the_devices_is_not_the_manifests() -> None:
    """A key counts for its purpose and nothing else."""
    root = certs.load_certificate(VENDOR.rim_root_certificate, "root")
    wrong = anchors.Anchor.from_certificate("nvidia-device-root", root, platform=PLATFORM, source="test")
    assert outcome(GOOD, anchors.TrustAnchors((wrong,))) is Code.RIM_CHAIN


@pytest.mark.parametrize("moment", [JUNE - timedelta(days=31), JUNE + timedelta(days=701)])
def test_a20_not_valid_at_this_time(moment: datetime) -> None:
    assert outcome(GOOD, at=moment) is Code.RIM_EXPIRED


def test_a20_expired() -> None:
    assert [outcome(data) for data in expired(VENDOR, FIRMWARE, at=JUNE)] == [Code.RIM_EXPIRED] * 2


def test_refusals_say_what_to_do() -> None:
    for data, at in ((GOOD, JUNE + timedelta(days=5000)), (of_stranger(FIRMWARE)[0], JUNE)):
        with pytest.raises(NotAuthentic) as caught:
            verify_rim(data, anchors=ANCHORS, at=at)
        assert caught.value.hint


def test_chain_with_a_link_left_out() -> None:
    leaf, authority, upper, root = chain_in(GOOD)
    assert outcome(with_chain(GOOD, leaf, authority, upper)) is None
    for chain in ((leaf, upper, root), (leaf, root), (leaf, authority, root), (leaf,)):
        assert outcome(with_chain(GOOD, *chain)) is Code.RIM_CHAIN


def test_no_certificate() -> None:
    assert outcome(with_chain(GOOD)) is Code.RIM_MALFORMED


def test_chain_in_another_order_or_too_long() -> None:
    chain = chain_in(GOOD)
    assert outcome(with_chain(GOOD, *reversed(chain))) is Code.RIM_CHAIN
    assert outcome(with_chain(GOOD, *chain, *chain)) is Code.RIM_CHAIN
    assert outcome(with_chain(GOOD, *chain, *chain, *chain)) is Code.RIM_MALFORMED


def test_certificate_that_is_none() -> None:
    assert outcome(with_chain(GOOD, b"\x30\x00")) is Code.CERT_MALFORMED


def test_another_issue_of_the_same_authority_has_another_key() -> None:
    assert outcome(with_chain(GOOD, *chain_in(VBIOS))) is Code.RIM_SIG


P384 = ec.generate_private_key(ec.SECP384R1())
AUTHORITY = Certificate("authority")


@pytest.mark.parametrize(
    "signer",
    [
        Certificate("signer", ca=True, signs=False),
        Certificate("signer", ca=False, signs=True),
        Certificate("signer", ca=False, signs=None),
        Certificate("signer", key=ec.generate_private_key(ec.SECP256R1()), ca=False, signs=False),
    ],
)
def test_signer_that_may_not_sign(signer: Certificate) -> None:
    chain = chain_of(signer, AUTHORITY)
    anchor = anchors.Anchor.from_certificate("nvidia-rim-root", chain[-1], platform=PLATFORM, source="test")
    assert outcome(with_chain(GOOD, *der(chain)), anchors.TrustAnchors((anchor,))) is Code.RIM_CHAIN


def test_signer_that_may() -> None:
    """The same, but as it should be: it is the signature that is refused."""
    chain = chain_of(Certificate("signer", ca=False, signs=False), AUTHORITY)
    anchor = anchors.Anchor.from_certificate("nvidia-rim-root", chain[-1], platform=PLATFORM, source="test")
    assert outcome(with_chain(GOOD, *der(chain)), anchors.TrustAnchors((anchor,))) is Code.RIM_SIG


def test_signed_but_of_another_form() -> None:
    """The maker's signature is no reason to read what is not understood."""
    text = gpu_manifests(FIRMWARE)[0].text(canonical=True)
    for old, new in (('size="48"', 'size="32"'), ('active="True"', 'active="False"'), ('"1.01"', '"2.00"')):
        assert outcome(VENDOR.rim_signer.sign(text.replace(old, new))) is Code.RIM_MALFORMED


def small() -> tuple[bytes, anchors.TrustAnchors]:
    """A manifest of two measurements, whose signer's issuer is an anchor: a quarter of the bytes and of the work."""
    signer = RimSigner.create()
    text = Manifest(version="580.95.05", active={0: (b"\x11" * 48,)}).text(canonical=True)
    resources = re.findall(r" *<ns0:Resource [^>]*></ns0:Resource>\n", text)
    data = signer.sign("".join(text.replace("".join(resources[2:]), "")), validity=Validity())
    first = CERTIFICATE.findall(data)[1:]
    authority = x509.load_der_x509_certificate(signer.chain[0])
    anchor = anchors.Anchor.from_certificate("nvidia-rim-root", authority, platform=PLATFORM, source="test")
    return data.replace(b"".join(first), b""), anchors.TrustAnchors((anchor,))


def test_every_byte_flipped_is_refused() -> None:
    """In each byte one bit, another one from byte to byte."""
    data, believed = small()
    assert outcome(data, believed) is None
    accepted: list[int] = []
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        if outcome(bytes(changed), believed) is None:
            accepted.append(position)
    assert accepted == []


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 40), st.binary(max_size=8))
def test_any_edit(start: int, size: int, new: bytes) -> None:
    """Refused by one of two kinds of error, or the very content that was signed."""
    data = GOOD[:start] + new + GOOD[start + size :]
    if outcome(data) is None:
        assert verify_rim(data, anchors=ANCHORS, at=JUNE).content_digest == CONTENT


CONTENT = verify_rim(GOOD, anchors=ANCHORS, at=JUNE).content_digest


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        verify_rim(data, anchors=ANCHORS, at=datetime(2026, 6, 1, tzinfo=UTC))
