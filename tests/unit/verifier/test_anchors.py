"""Trust anchors: strict, and never emulated by default."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import emulated_anchors, wheel_bytes
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier import anchors, certs
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors


def spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


P256 = spki(ec.generate_private_key(ec.SECP256R1()))
P384 = spki(ec.generate_private_key(ec.SECP384R1()))
P521 = spki(ec.generate_private_key(ec.SECP521R1()))
RSA_2048 = spki(rsa.generate_private_key(65537, 2048))
RSA_1024 = spki(rsa.generate_private_key(65537, 1024))  # noqa: S505 - to be refused
ED25519 = spki(ed25519.Ed25519PrivateKey.generate())


def entry(**changes: object) -> dict[str, object]:
    good: dict[str, object] = {
        "purpose": "verifier",
        "name": "a verifier",
        "platform": "weighbridge",
        "spki": strict.base64_encode(P256),
        "sha256": sha256(P256).hex(),
        "not_before": "2026-01-01T00:00:00Z",
        "not_after": "2027-01-01T00:00:00Z",
        "source": "a test",
    }
    good.update(changes)
    return {key: value for key, value in good.items() if value is not ...}


def document(*entries: object, **changes: object) -> bytes:
    return json.dumps({"schema": anchors.SCHEMA, "note": "", "anchors": list(entries), **changes}).encode()


def refusal(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        anchors.load(data)
    return caught.value.code


@pytest.mark.parametrize(
    ("purpose", "member", "digest"),
    [
        ("nvidia-device-root", "device", "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"),
        ("nvidia-rim-root", "RIM", "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"),
    ],
)
def test_default_has_nvidias_roots_as_its_wheel_has_them(
    purpose: anchors.Purpose, member: str, digest: str, nvidia_wheel: Path
) -> None:
    (anchor,) = anchors.default().select(purpose)
    (der,) = certs.pem_certificates(wheel_bytes(nvidia_wheel, f"certs/verifier_{member}_root.pem"), what="root")
    root = certs.load_certificate(der, "root")
    assert sha256(der).hex() == digest
    assert sha256(der).hex() in anchor.source
    assert anchor == Anchor.from_certificate(purpose, root, platform="nvidia", source=anchor.source)


def test_default_names_these_platforms_for_these_purposes() -> None:
    """Nothing emulated, and nobody's key for a purpose that is an operator's to fill."""
    named = {(anchor.purpose, anchor.platform) for anchor in anchors.default().anchors}
    assert named == {
        ("nvidia-device-root", "nvidia"),
        ("nvidia-rim-root", "nvidia"),
        ("amd-ark", "amd-sev-snp"),
        ("intel-sgx-root", "intel-tdx"),
        ("tpm-ek-root", "tpm"),
        ("tpm-ek-intermediate", "tpm"),
        ("tpm-ek-root", "google-vtpm"),
        ("tpm-ek-intermediate", "google-vtpm"),
        ("tpm-ak-root", "google-vtpm"),
        ("tpm-ak-intermediate", "google-vtpm"),
    }


def test_every_shipped_anchor_says_which_certificate_it_is_from() -> None:
    shipped = anchors.default()
    for anchor in shipped.anchors:
        assert re.search(r"certificate SHA-256 [0-9a-f]{64}", anchor.source), anchor.name
    assert re.search(r"as of 20[0-9]{2}-[0-9]{2}-[0-9]{2}", shipped.note)


def test_the_shipped_document_is_made_from_the_vendors_certificates(root: Path, vectors_dir: Path) -> None:
    script = root / "scripts" / "anchors_from_certificates.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", script, vectors_dir / "tpm", "--check"], check=False, capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_default_with_an_emulated_platform_is_refused() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        anchors._refuse_emulated(emulated_anchors(EmulatedVendor.create()))
    assert caught.value.code == Code.ANCHORS_INVALID


def test_round_trip() -> None:
    good = emulated_anchors(EmulatedVendor.create())
    assert anchors.load(good.encode()) == good
    assert anchors.load(good.encode()).encode() == good.encode()


def test_key_identifier_is_optional() -> None:
    without, with_one = anchors.load(document(entry(), entry(purpose="attestation-key", key_id="0102"))).anchors
    assert (without.key_id, with_one.key_id) == (None, b"\x01\x02")
    for anchor in (without, with_one):
        assert anchors.load(TrustAnchors((anchor,)).encode()).anchors == (anchor,)


def test_an_attestation_key_may_be_pinned_for_several_times() -> None:
    """On one platform, once for each time: no other key is listed twice."""
    pin = entry(purpose="attestation-key")
    renewed = {**pin, "not_after": "2031-01-01T00:00:00Z"}
    assert [each.not_after.year for each in anchors.load(document(pin, renewed)).anchors][1] == 2031
    for twice in ((pin, renewed, {**pin, "name": "another"}), (pin, {**renewed, "platform": "another"})):
        assert refusal(document(*twice)) == Code.ANCHORS_INVALID
    assert refusal(document(entry(), entry(not_after="2031-01-01T00:00:00Z"))) == Code.ANCHORS_INVALID


def test_select_is_by_purpose() -> None:
    loaded = anchors.load(document(entry(), entry(purpose="attestation-key")))
    assert [anchor.purpose for anchor in loaded.select("verifier")] == ["verifier"]
    assert loaded.select("ledger") == ()
    assert loaded.anchors[0].sha256 == sha256(P256).hex()


def test_sets_are_not_shared() -> None:
    one = TrustAnchors(())
    two = one.with_anchors(anchors.load(document(entry())).anchors)
    assert (len(one.anchors), len(two.anchors)) == (0, 1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"purpose": "everything"}, Code.ANCHORS_INVALID),
        ({"purpose": ...}, Code.FIELD_MISSING),
        ({"name": 1}, Code.FIELD_TYPE),
        ({"platform": "x" * 65}, Code.TOO_LARGE),
        ({"spki": "AAAA"}, Code.ANCHORS_INVALID),
        ({"spki": "A AA"}, Code.NOT_BASE64),
        ({"spki": strict.base64_encode(P384)}, Code.ANCHORS_INVALID),
        ({"spki": strict.base64_encode(P256 + b"\0")}, Code.ANCHORS_INVALID),
        ({"sha256": "00" * 32}, Code.ANCHORS_INVALID),
        ({"sha256": "00" * 31}, Code.FIELD_RANGE),
        ({"sha256": sha256(P256).hex().upper()}, Code.NOT_HEX),
        ({"not_before": "2026-01-01 00:00:00Z"}, Code.NOT_A_TIME),
        ({"not_before": "2028-01-01T00:00:00Z"}, Code.ANCHORS_INVALID),
        ({"not_after": None}, Code.FIELD_TYPE),
        ({"source": ...}, Code.FIELD_MISSING),
        ({"comment": ""}, Code.FIELD_UNKNOWN),
        ({"key_id": "AB"}, Code.NOT_HEX),
        ({"key_id": ""}, Code.ANCHORS_INVALID),
        ({"key_id": None}, Code.FIELD_TYPE),
    ],
)
def test_each_field_is_checked(changes: dict[str, object], code: Code) -> None:
    assert refusal(document(entry(**changes))) == code


def test_uncommon_spelling_of_a_key_is_refused() -> None:
    """One key has one fingerprint: a compressed point would give it a second."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    plain = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    assert len(head + point) < len(plain)
    fields = {"spki": strict.base64_encode(head + point), "sha256": sha256(head + point).hex()}
    assert refusal(document(entry(**fields))) == Code.ANCHORS_INVALID


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.NOT_JSON),
        (b"[]", Code.FIELD_TYPE),
        (document(schema="weighbridge/anchors/v2"), Code.ANCHORS_INVALID),
        (document(extra=1), Code.FIELD_UNKNOWN),
        (document(entry(), entry()), Code.ANCHORS_INVALID),
        (document([]), Code.FIELD_TYPE),
        (b'{"schema": "a", "schema": "b"}', Code.DUPLICATE_KEY),
        (document(note="x" * 5000), Code.TOO_LARGE),
        (document(*[0] * 1025), Code.TOO_LARGE),
        (b" " * (2 * 1024 * 1024 + 1), Code.TOO_LARGE),
        (document(schema=1.5), Code.FIELD_TYPE),
        (document(note="\ud800"), Code.NOT_UTF8),
    ],
)
def test_document_is_strict(data: bytes, code: Code) -> None:
    assert refusal(data) == code


@pytest.mark.parametrize(
    ("purpose", "accepted"),
    [
        ("nvidia-device-root", {"P384"}),
        ("tpm-ek-root", {"P256", "P384", "P521", "RSA_2048"}),
        ("tpm-ek-intermediate", {"P256", "P384", "P521", "RSA_2048"}),
        ("tpm-ak-root", {"P256", "P384", "RSA_2048"}),
        ("tpm-ak-intermediate", {"P256", "P384", "RSA_2048"}),
        ("amd-ark", {"RSA_2048"}),
        ("intel-sgx-root", {"P256"}),
        ("attestation-key", {"P256", "P384", "RSA_2048"}),
        ("verifier", {"P256"}),
        ("ledger", {"ED25519"}),
        ("client-ca", {"P256", "P384", "RSA_2048"}),
        ("model-owner", {"P256"}),
        ("statement-issuer", {"P256", "P384", "ED25519"}),
        ("host-owner", {"P256"}),
    ],
)
def test_key_types_by_purpose(purpose: Purpose, accepted: set[str]) -> None:
    keys = {"P256": P256, "P384": P384, "P521": P521, "RSA_2048": RSA_2048, "RSA_1024": RSA_1024, "ED25519": ED25519}
    found: set[str] = set()
    for name, key in keys.items():
        with contextlib.suppress(MalformedEvidence):
            _anchor(purpose, key).key()
            found.add(name)
    assert found == accepted


def test_naive_times_are_misuse() -> None:
    with pytest.raises(ValueError, match="aware"):
        _anchor("verifier", P256, not_before=datetime(2026, 1, 1))  # noqa: DTZ001 - the misuse in question


@given(st.binary(max_size=60))
def test_any_bytes_are_loaded_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        anchors.load(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(entry())), JSON)
def test_any_value_of_any_field_is_loaded_or_malformed(key: str, value: object) -> None:
    with contextlib.suppress(MalformedEvidence):
        anchors.load(document(entry(**{key: value})))


def _anchor(purpose: Purpose, key: bytes, *, not_before: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> Anchor:
    return Anchor(
        purpose=purpose,
        name="x",
        platform="y",
        spki=key,
        not_before=not_before,
        not_after=datetime(2027, 1, 1, tzinfo=UTC),
        source="a test",
    )
