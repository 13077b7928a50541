"""Certificate chains: one order that is good, then one deviation each."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import AT, Certificate, chain_of, wheel_bytes, wheel_chain
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier import certs
from weighbridge.verifier.anchors import Anchor, Purpose, default

LEAF = Certificate("leaf", ca=None, signs=False)
MIDDLE = Certificate("middle")
ROOT = Certificate("root")


def anchor(
    order: Certificate,
    *,
    name: str | None = None,
    not_after: datetime | None = None,
    purpose: Purpose = "tpm-ek-root",
) -> Anchor:
    made = Anchor.from_certificate(purpose, order.issue(order), platform="test", source="a test")
    return Anchor(
        purpose=made.purpose,
        name=made.name if name is None else name,
        platform=made.platform,
        spki=made.spki,
        not_before=made.not_before,
        not_after=not_after or made.not_after,
        source=made.source,
    )


def refusal(chain: list[x509.Certificate], *anchors: Anchor, at: datetime = AT) -> Code:
    with pytest.raises(NotAuthentic) as caught:
        certs.verify_chain(chain, anchors, at=at, what="chain")
    return caught.value.code


def test_nvidias_chain_with_and_without_its_root(nvidia_wheel: Path) -> None:
    chain = [certs.load_certificate(der, "chain") for der in wheel_chain(nvidia_wheel)]
    believed = default().select("nvidia-device-root")
    for certificates in (chain, chain[:-1]):
        assert certs.verify_chain(certificates, believed, at=AT, what="chain") is believed[0]


def test_good_chain_to_its_root_certificate_or_key() -> None:
    chain = chain_of(LEAF, MIDDLE, ROOT)
    believed = anchor(ROOT)
    for certificates in (chain, chain[:-1]):
        assert certs.verify_chain(certificates, [believed], at=AT, what="chain") is believed


def test_an_intermediate_may_be_the_anchor() -> None:
    chain = chain_of(LEAF, MIDDLE, ROOT)
    believed = anchor(MIDDLE)
    assert certs.verify_chain(chain[:1], [believed], at=AT, what="chain") is believed


def test_an_intermediate_that_is_the_anchor_may_come_along() -> None:
    """It is its key that is believed; who else certified that key does not matter, and is not checked."""
    chain = chain_of(LEAF, MIDDLE, ROOT)
    believed = anchor(MIDDLE, purpose="tpm-ek-intermediate")
    assert certs.verify_chain(chain[:2], [believed], at=AT, what="chain") is believed
    assert refusal([chain[0], Certificate("middle").issue(ROOT)], believed) == Code.CHAIN_BROKEN
    assert refusal(chain[:2], anchor(MIDDLE)) == Code.CHAIN_BROKEN, "a root's certificate is its own"
    renamed = Certificate("other", key=MIDDLE.key)
    assert refusal(chain_of(LEAF, renamed, ROOT)[:2], believed) == Code.CHAIN_BROKEN


def test_an_anchors_key_is_no_leaf_that_somebody_else_certified() -> None:
    """Nothing would vouch for what such a certificate says."""
    leaf = Certificate("middle", key=MIDDLE.key, ca=None, signs=False)
    assert (
        refusal(chain_of(leaf, Certificate("stranger"))[:1], anchor(MIDDLE, purpose="tpm-ek-intermediate"))
        == Code.CHAIN_BROKEN
    )


def test_rsa_anchor() -> None:
    root = Certificate("root", key=rsa.generate_private_key(65537, 2048), hash=hashes.SHA256())
    leaf = Certificate("leaf", ca=None, signs=False, hash=hashes.SHA256())
    assert certs.verify_chain(chain_of(leaf, root), [anchor(root)], at=AT, what="chain").name == "CN=root"


def test_p521_anchor_of_a_tpm_maker() -> None:
    """As those of four makers are; and as no other purpose has them."""
    root = Certificate("root", key=ec.generate_private_key(ec.SECP521R1()), hash=hashes.SHA512())
    chain = chain_of(LEAF, MIDDLE, root)
    assert certs.verify_chain(chain[:2], [anchor(root)], at=AT, what="chain").name == "CN=root"
    assert refusal(chain_of(LEAF, Certificate("middle"), ROOT)[:2], anchor(root)) == Code.CHAIN_BROKEN
    with pytest.raises(MalformedEvidence):
        anchor(root, purpose="tpm-ak-root")


def test_nothing_is_trusted_without_anchors() -> None:
    """A24: an empty selection makes every chain untrusted."""
    assert refusal(chain_of(LEAF, MIDDLE, ROOT)) == Code.CHAIN_UNTRUSTED


def test_other_root() -> None:
    """A24."""
    assert refusal(chain_of(LEAF, MIDDLE, ROOT), anchor(Certificate("other"))) == Code.CHAIN_UNTRUSTED


def test_other_root_of_the_same_name() -> None:
    """A24: a name is no key."""
    believed = anchor(Certificate("root"))
    assert refusal(chain_of(LEAF, MIDDLE, ROOT), believed) == Code.CHAIN_UNTRUSTED
    assert refusal(chain_of(LEAF, MIDDLE, ROOT)[:-1], believed) == Code.CHAIN_BROKEN


def test_successor_of_a_root_under_its_own_name() -> None:
    """A self-issued certificate by which the believed key vouches for the next (RFC 5280 §3.2)."""
    successor = Certificate("root").issue(ROOT)
    assert certs.verify_chain([successor], [anchor(ROOT)], at=AT, what="chain").name == "CN=root"


def test_two_roots_of_one_name_are_told_apart_by_key_identifier() -> None:
    middle = Certificate("middle", identifiers=True)
    chain = chain_of(LEAF, middle, ROOT)[:-1]
    successor = anchor(Certificate("root"))
    believed = anchor(ROOT)
    assert certs.verify_chain(chain, [successor, believed], at=AT, what="chain") is believed
    assert refusal(chain_of(LEAF, MIDDLE, ROOT)[:-1], successor, believed) == Code.CHAIN_BROKEN


def test_length() -> None:
    many = [Certificate(f"ca {number}") for number in range(8)]
    assert refusal([], anchor(ROOT)) == Code.CHAIN_LENGTH
    assert refusal(chain_of(LEAF, *many), anchor(many[-1])) == Code.CHAIN_LENGTH
    certs.verify_chain(chain_of(LEAF, *many[:7]), [anchor(many[6])], at=AT, what="chain")


def test_missing_link() -> None:
    """A24."""
    chain = chain_of(LEAF, Certificate("a"), MIDDLE, ROOT)
    del chain[1]
    assert refusal(chain, anchor(ROOT)) == Code.CHAIN_BROKEN


def test_link_signed_by_another_key_of_that_name() -> None:
    chain = chain_of(LEAF, MIDDLE, ROOT)
    chain[1] = Certificate("middle").issue(ROOT)
    assert refusal(chain, anchor(ROOT)) == Code.CHAIN_BROKEN


def test_root_certificate_changed_under_its_key() -> None:
    chain = chain_of(LEAF, MIDDLE, ROOT)
    data = bytearray(chain[2].public_bytes(Encoding.DER))
    data[-1] ^= 1
    chain[2] = x509.load_der_x509_certificate(bytes(data))
    assert refusal(chain, anchor(ROOT)) == Code.CHAIN_BROKEN


@pytest.mark.parametrize(
    "middle",
    [
        Certificate("middle", ca=None),
        Certificate("middle", ca=False),
        Certificate("middle", signs=None),
        Certificate("middle", signs=False),
    ],
)
def test_issuer_that_is_no_authority(middle: Certificate) -> None:
    """RFC 5280 §6.1.4 (k), (n)."""
    assert refusal(chain_of(LEAF, middle, ROOT), anchor(ROOT)) == Code.CHAIN_BROKEN


def test_path_length() -> None:
    """RFC 5280 §6.1.4 (l)."""
    none, one = Certificate("root", path_length=0), Certificate("root", path_length=1)
    assert refusal(chain_of(LEAF, MIDDLE, none), anchor(none)) == Code.CHAIN_BROKEN
    certs.verify_chain(chain_of(LEAF, none), [anchor(none)], at=AT, what="chain")
    certs.verify_chain(chain_of(LEAF, MIDDLE, one), [anchor(one)], at=AT, what="chain")


def test_critical_extension_that_is_not_understood() -> None:
    """RFC 5280 §6.1.4 (o)."""
    constraints = x509.NameConstraints([x509.DNSName("example.org")], None)
    strange = Certificate("middle", extensions=((constraints, True),))
    assert refusal(chain_of(LEAF, strange, ROOT), anchor(ROOT)) == Code.CHAIN_BROKEN
    known = Certificate(
        "leaf", ca=None, signs=False, extensions=((x509.ExtendedKeyUsage([x509.OID_CLIENT_AUTH]), True),)
    )
    certs.verify_chain(chain_of(known, ROOT), [anchor(ROOT)], at=AT, what="chain")


def test_signature_algorithm_outside_the_table() -> None:
    weak = Certificate("leaf", ca=None, signs=False, hash=hashes.SHA224())
    assert refusal(chain_of(weak, ROOT), anchor(ROOT)) == Code.CHAIN_BROKEN


@pytest.mark.parametrize("which", [0, 1, 2])
def test_validity_of_each_certificate(which: int) -> None:
    """A20: at the two ends of validity and just beyond them."""
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)
    short = Certificate("short", ca=bool(which) or None, signs=bool(which), not_before=start, not_after=end)
    orders = [LEAF, MIDDLE, ROOT]
    orders[which] = short
    chain = chain_of(*orders)
    believed = anchor(orders[-1])
    for at in (start, end):
        assert certs.verify_chain(chain, [believed], at=at, what="chain") is believed
    for at in (start - timedelta(seconds=1), end + timedelta(seconds=1)):
        assert refusal(chain, believed, at=at) == Code.CHAIN_EXPIRED


def test_validity_of_the_anchor_itself() -> None:
    believed = anchor(ROOT, not_after=AT - timedelta(days=1))
    assert refusal(chain_of(LEAF, ROOT)[:1], believed) == Code.CHAIN_EXPIRED


def test_anchor_whose_key_cannot_sign_certificates() -> None:
    ledger = Anchor(
        purpose="ledger",
        name="CN=root",
        platform="test",
        spki=_ed25519(),
        not_before=AT,
        not_after=AT,
        source="a test",
    )
    assert refusal(chain_of(LEAF, ROOT)[:1], ledger) == Code.CHAIN_UNTRUSTED


def test_naive_time_is_misuse() -> None:
    with pytest.raises(ValueError, match="naive"):
        certs.verify_chain([], [], at=datetime(2026, 1, 1), what="chain")  # noqa: DTZ001 - the misuse in question


def test_pem_bundle(nvidia_wheel: Path) -> None:
    data = wheel_bytes(nvidia_wheel, "samples/hopperCertChain.txt")
    found = certs.pem_certificates(data, what="chain")
    assert [certs.common_name(certs.load_certificate(der, "x").subject, "x") for der in found][
        1
    ] == "GH100 A01 GSP BROM"
    assert certs.pem_certificates(data.replace(b"\n", b"\r\n"), what="chain") == found
    assert sha256(found[-1]).hex() == "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"


PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.CERT_MALFORMED),
        (b"nothing", Code.CERT_MALFORMED),
        (b"before" + PEM, Code.CERT_MALFORMED),
        (PEM + b"between" + PEM, Code.CERT_MALFORMED),
        (PEM + b"after", Code.CERT_MALFORMED),
        (PEM.replace(b"AAAA", b"AAAB="), Code.NOT_BASE64),
        (PEM.replace(b"AAAA", b"AAA"), Code.NOT_BASE64),
        (PEM * 9, Code.TOO_LARGE),
        (b" " * (16 * 8 * 1024 + 1), Code.TOO_LARGE),
    ],
)
def test_pem_bundle_is_strict(data: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        certs.pem_certificates(data, what="chain")
    assert caught.value.code == code


@given(
    st.lists(st.sampled_from([PEM, b"\n", b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"A", b"="]))
)
def test_any_pem_is_parsed_or_malformed(parts: list[bytes]) -> None:
    with contextlib.suppress(MalformedEvidence):
        certs.pem_certificates(b"".join(parts), what="chain")


def _ed25519() -> bytes:
    return (
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def test_leaf_key_is_not_the_chains_business() -> None:
    odd = Certificate("leaf", key=ec.generate_private_key(ec.SECP256R1()), ca=None, signs=False)
    certs.verify_chain(chain_of(odd, ROOT), [anchor(ROOT)], at=AT, what="chain")
