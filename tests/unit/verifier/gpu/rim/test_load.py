"""Manifests of a collection: each is believed as of its issue, and whatever is none spoils nothing."""

from __future__ import annotations

import re
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from fakes.rims import JUNE, anchors_of, edited, expired, issued, of_stranger, with_hash
from weighbridge.attester.gpu.emulated import Firmware
from weighbridge.attester.gpu.emulated_rims import gpu_manifests
from weighbridge.attester.gpu.emulated_vendor import PLATFORM, EmulatedVendor
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.gpu.rim.load import Disbelieved, load_rims

VENDOR = EmulatedVendor.create()
FIRMWARE = Firmware()
ANCHORS = anchors_of(VENDOR)
GOOD = VENDOR.rims(FIRMWARE, validity=issued(JUNE))
DRIVER_ID, VBIOS_ID = "GH100 driver 580.95.05", "GH100 vbios 96.00.74.00.1A"
CHAIN = re.compile(rb"<ds:X509Data>.*</ds:X509Data>", re.DOTALL)


def without_certificates(rim: bytes) -> bytes:
    return CHAIN.sub(b"<ds:X509Data></ds:X509Data>", rim)


def codes(junk: tuple[Disbelieved, ...]) -> list[str]:
    return [each.reason.partition(":")[0] for each in junk]


def test_honest_ones_among_junk() -> None:
    junk = (b"", b"<x/>", edited(GOOD[0]), without_certificates(GOOD[0]), *of_stranger(FIRMWARE))
    rims, disbelieved = load_rims([*junk[:3], *GOOD, *junk[3:], GOOD[0], b""], ANCHORS)
    assert {rim.digest for rim in rims} == {sha256(data) for data in GOOD}
    # Each once, in the order in which they came, with the reason.
    assert [each.digest for each in disbelieved] == [sha256(data) for data in junk]
    malformed = Code.RIM_MALFORMED
    assert codes(disbelieved) == [malformed, malformed, Code.RIM_SIG, malformed, Code.RIM_CHAIN, Code.RIM_CHAIN]
    assert "no certificate" in disbelieved[3].reason


def test_nothing_is_believed_without_an_anchor() -> None:
    rims, disbelieved = load_rims(GOOD, TrustAnchors(()))
    assert (len(rims), codes(disbelieved)) == (0, [Code.RIM_CHAIN] * 2)
    assert load_rims([], ANCHORS)[1] == ()


def test_an_issue_that_has_ended_is_known_all_the_same() -> None:
    """A82: it replaces the ones before it, and does not count itself."""
    driver, vbios = gpu_manifests(FIRMWARE)
    signer = VENDOR.rim_signer
    old = signer.issue(driver, validity=issued(JUNE - timedelta(days=100)))
    ended = signer.issue(with_hash(driver, 22, bytes(48)), validity=issued(JUNE - timedelta(days=10), days=5))
    rims, disbelieved = load_rims([old, ended, signer.issue(vbios, validity=issued(JUNE))], ANCHORS)
    assert disbelieved == ()
    newest = rims.newest(DRIVER_ID, platform=PLATFORM)
    assert newest is not None
    assert newest.digest == sha256(ended)
    assert rims.at(JUNE).newest(DRIVER_ID, platform=PLATFORM) is None
    assert rims.at(JUNE).newest(VBIOS_ID, platform=PLATFORM) is not None
    before = rims.at(JUNE - timedelta(days=50)).newest(DRIVER_ID, platform=PLATFORM)
    assert before is not None
    assert before.digest == sha256(old)
    assert len(load_rims(expired(VENDOR, FIRMWARE, at=JUNE), ANCHORS)[0].at(JUNE)) == 0


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes_are_disbelieved(files: list[bytes]) -> None:
    rims, disbelieved = load_rims(files, ANCHORS)
    assert (len(rims), {each.digest for each in disbelieved}) == (0, {sha256(data) for data in files})


@given(st.integers(0, len(GOOD[0]) - 1), st.integers(1, 255))
def test_a_damaged_manifest_is_disbelieved_or_says_the_same(place: int, flip: int) -> None:
    """White space between tags, and such, is not part of what was signed."""
    damaged = GOOD[0][:place] + bytes([GOOD[0][place] ^ flip]) + GOOD[0][place + 1 :]
    rims, disbelieved = load_rims([damaged], ANCHORS)
    assert len(rims) + len(disbelieved) == 1
    (good,) = load_rims([GOOD[0]], ANCHORS)[0]
    assert {rim.content_digest for rim in rims} <= {good.content_digest}


@given(st.integers(0, 3), st.integers(0, 2000), st.integers(1, 255))
def test_a_damaged_certificate_is_disbelieved(number: int, place: int, flip: int) -> None:
    found = list(re.finditer(rb"<ds:X509Certificate>([^<]*)<", GOOD[1]))[number]
    der = bytearray(strict.base64_decode(b"".join(found[1].split()), what="a test"))
    der[place % len(der)] ^= flip
    damaged = GOOD[1][: found.start(1)] + strict.base64_encode(bytes(der)).encode() + GOOD[1][found.end(1) :]
    rims, disbelieved = load_rims([damaged], ANCHORS)
    # The root is the anchor's to know: of a copy of it nothing but the key counts.
    assert len(rims) + len(disbelieved) == 1
    assert number == 3 or len(rims) == 0
