"""Every certificate of a TPM's maker that was recorded, under the anchors that are shipped: file → outcome.

An endorsement or attestation certificate is accepted with nothing but what the TPM's NV index holds, wherever its
maker's certificates are DER. What is refused names the maker and says what to do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from weighbridge.attester.tpm.nv import trim_certificate
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.templates import ENDORSEMENT_KEYS
from weighbridge.proto.tpm.wire import sized
from weighbridge.proto.x509 import claimed_maker, load_certificate
from weighbridge.verifier import certs
from weighbridge.verifier.anchors import TrustAnchors, default
from weighbridge.verifier.tpm.ek import verify_ek

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.verifier.anchors import Anchor

AT: Final = datetime(2026, 11, 26, tzinfo=UTC)
DEFAULT: Final = default()
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\r\n]*)-----END CERTIFICATE-----")
_TPM: Final = ("tpm-ek-root", "tpm-ek-intermediate", "tpm-ak-root", "tpm-ak-intermediate")


@pytest.fixture(scope="module")
def tpm_dir(vectors_dir: Path) -> Path:
    return vectors_dir / "tpm"


def recorded(path: Path) -> Iterator[bytes]:
    """The certificates in a file, as they are."""
    data = path.read_bytes()
    blocks = _PEM.findall(data)
    for block in blocks:
        yield strict.base64_decode(block.replace(b"\r", b"").replace(b"\n", b""), what=path.name)
    if not blocks:
        yield data


@dataclass(frozen=True)
class Refused:
    """The code, and what the message has to say: the maker, and the defect."""

    code: Code
    maker: str = ""
    says: str = ""


PADDED: Final = "is followed by"
UNSORTED: Final = "is not DER: a name's attributes are out of order"
ATTRIBUTES: Final = "is an attribute certificate"
NUVOTON: Final = Refused(Code.CERT_MALFORMED, "Nuvoton Technology Corporation", UNSORTED)
INFINEON_SHA1: Final = Refused(
    Code.CHAIN_BROKEN, says="signature algorithm is not accepted, at certificate[0], got 1.2.840"
)
GOOGLE_OLD: Final = "tpm_ek_v1_cloud_host"

# An anchor's own certificate, or one that an anchor has signed: the anchor's name begins so. Or refused, and why.
OUTCOMES: Final[dict[str, str | Refused]] = {
    "keylime/real-ek-certs/iak_der.der": Refused(Code.CHAIN_EXPIRED, says="2026-05"),
    "keylime/real-ek-certs/idevid_der.der": Refused(Code.CHAIN_EXPIRED, says="2026-05"),
    "keylime/real-ek-certs/nuvoton_ecdsa_sha256_der.der": NUVOTON,
    "keylime/real-ek-certs/st_ecdsa_sha256_der.der": "CN=STM TPM ECC Intermediate CA 01",
    "keylime/real-ek-certs/st_sha256_with_rsa_der.der": Refused(Code.CERT_MALFORMED, "STMicroelectronics NV", PADDED),
    "keylime/tpm_cert_store/Alibaba_Cloud_vTPM_EK.pem": Refused(Code.CHAIN_UNTRUSTED, says="Aliyun TPM Root CA"),
    "keylime/tpm_cert_store/GS_TPM_RT.pem": "CN=GlobalSign Trusted Platform Module Root CA",
    **{f"keylime/tpm_cert_store/IFX{number}.pem": INFINEON_SHA1 for number in (1, 2, 3, 4, 5, 8, 15)},
    **{
        f"keylime/tpm_cert_store/IFX_RSA_{name}.pem": INFINEON_SHA1
        for name in ("01I", "02I", "03I", "04I", "05I", "08I", "17I", "18I", "20I", "21I", "RT")
    },
    "keylime/tpm_cert_store/IFX_ECC_034.pem": "CN=Infineon OPTIGA(TM) ECC Manufacturing CA 034",
    "keylime/tpm_cert_store/IFX_ECC_042.pem": "CN=Infineon OPTIGA(TM) TPM 2.0 ECC CA 042",
    "keylime/tpm_cert_store/IFX_RSA_034.pem": "CN=Infineon OPTIGA(TM) RSA Manufacturing CA 034",
    "keylime/tpm_cert_store/IFX_RSA_042.pem": "CN=Infineon OPTIGA(TM) TPM 2.0 RSA CA 042",
    "keylime/tpm_cert_store/INF_ECC_010I.pem": "CN=Infineon OPTIGA(TM) ECC Manufacturing CA 010",
    "keylime/tpm_cert_store/INF_ECC_010RT.pem": "CN=Infineon OPTIGA(TM) ECC Root CA,",
    "keylime/tpm_cert_store/INF_ECC_011.pem": "CN=Infineon OPTIGA(TM) ECC Manufacturing CA 011",
    "keylime/tpm_cert_store/INF_RSA_010I.pem": "CN=Infineon OPTIGA(TM) RSA Manufacturing CA 010",
    "keylime/tpm_cert_store/INF_RSA_010RT.pem": "CN=Infineon OPTIGA(TM) RSA Root CA,",
    "keylime/tpm_cert_store/INF_RSA_011.pem": "CN=Infineon OPTIGA(TM) RSA Manufacturing CA 011",
    "keylime/tpm_cert_store/INF_RSA_022.pem": "CN=Infineon OPTIGA(TM) RSA Manufacturing CA 022",
    "keylime/tpm_cert_store/INTEL_I.pem": "CN=www.intel.com,OU=TPM EK intermediate for SPTH_EPID_PROD",
    "keylime/tpm_cert_store/INTEL_RT.pem": "CN=www.intel.com,OU=TPM EK root cert signing",
    **{f"keylime/tpm_cert_store/NTC{number}.pem": NUVOTON for number in (1, 2)},
    **{f"keylime/tpm_cert_store/NUVO_{number}.pem": NUVOTON for number in ("0100", "1110", "1111", "2110", "2111")},
    "keylime/tpm_cert_store/Nationz_TPM_EK.pem": Refused(Code.CHAIN_UNTRUSTED, says="Nationz TPM Root CA"),
    "keylime/tpm_cert_store/STM_ECC_01I.pem": "CN=STM TPM ECC Intermediate CA 01",
    "keylime/tpm_cert_store/STM_ECC_01RT.pem": "CN=STM TPM ECC Root CA 01",
    **{f"keylime/tpm_cert_store/STM_RSA_0{n}I.pem": f"CN=STM TPM EK Intermediate CA 0{n}" for n in range(1, 8)},
    "keylime/tpm_cert_store/STM_RSA_RT.pem": "CN=STM TPM EK Root CA",
    "tpm-ca-certificates/02849DB0FD9F4CC4EF6175E75700B20F40.crt": "CN=02849DB0FD9F4CC4EF6175E75700B20F40",
    "tpm-ca-certificates/AMD-Pluton-Per-Product-Factory-FIPS-EKICA-DFID00B20F00.crt": "CN=AMD Pluton Per-Product",
    "tpm-ca-certificates/AMD-fTPM-ECC-ICA-PHXFamily.crt": Refused(
        Code.CERT_MALFORMED, "Advanced Micro Devices", PADDED
    ),
    "tpm-ca-certificates/AMD-fTPM-RSA-ICA-PHXFamily.crt": Refused(
        Code.CERT_MALFORMED, "Advanced Micro Devices", PADDED
    ),
    "go-tpm-tools/ca-certs/gcp_ek_ak_ca_intermediate_v3.crt": "CN=EK/AK CA Intermediate",
    "go-tpm-tools/ca-certs/gcp_ek_ak_ca_root.crt": "CN=EK/AK CA Root",
    "go-tpm-tools/ca-certs/tpm_ek_intermediate_2.crt": f"CN={GOOGLE_OLD}-signer",
    "go-tpm-tools/ca-certs/tpm_ek_intermediate_3.crt": f"CN={GOOGLE_OLD}-signer",
    "go-tpm-tools/ca-certs/tpm_ek_root_1.cer": f"CN={GOOGLE_OLD}_root-signer",
    **{
        f"go-tpm-tools/certificates/{authority}_tpm_{key}_{usage}_cert.pem": issuer
        for authority, issuer in (("pca", "CN=EK/AK CA Intermediate"), ("uca", f"CN={GOOGLE_OLD}-signer"))
        for key in ("rsa", "ecc")
        for usage in ("sign", "enc")
    },
    "go-attestation/IntelSigningKey_20April2017.cer": Refused(Code.CHAIN_BROKEN, says="signature algorithm"),
    "go-attestation/Intel_nuc1.cer": Refused(Code.CERT_MALFORMED, "Infineon Technologies AG", ATTRIBUTES),
    **{
        f"go-attestation/Intel_{name}.cer": Refused(Code.CERT_MALFORMED, "Intel Corporation", ATTRIBUTES)
        for name in ("nuc_pc", "nuc_pc2", "pc1", "pc2", "pc3", "pc4", "pc5")
    },
    **{
        f"go-attestation/{name}.cer": Refused(Code.CERT_MALFORMED, "STMicroelectronics NV", ATTRIBUTES)
        for name in ("lenovo", "plat_cert1", "plat_cert2", "plat_cert3")
    },
}


def outcome(data: bytes) -> Anchor | WeighbridgeError:
    """The anchor for TPMs under which one certificate stands, with nothing else at hand.

    That is an authority's own anchor, if those who issued its certificate are believed as well.
    """
    try:
        certificate = load_certificate(data, "certificate")
        trusted = [anchor for purpose in _TPM for anchor in DEFAULT.select(purpose)]
        own = next((anchor for anchor in trusted if anchor.spki == certs.spki_der(certificate)), None)
        intermediate = own is not None and own.purpose.endswith("-intermediate")
        others = [anchor for anchor in trusted if own is None or not intermediate or anchor.spki != own.spki]
        issuer = certs.verify_chain([certificate], others, at=AT, what="certificate")
    except (MalformedEvidence, NotAuthentic) as error:
        return error
    return own or issuer


def test_the_table_has_every_file(tpm_dir: Path) -> None:
    folders = ("keylime/real-ek-certs", "keylime/tpm_cert_store", "go-tpm-tools/ca-certs", "go-tpm-tools/certificates")
    found = {path for folder in folders for path in (tpm_dir / folder).iterdir()}
    found |= {*(tpm_dir / "tpm-ca-certificates").glob("*.crt"), *(tpm_dir / "go-attestation").glob("*.cer")}
    assert {path.relative_to(tpm_dir).as_posix() for path in found} == OUTCOMES.keys()


@pytest.mark.parametrize("name", sorted(OUTCOMES))
def test_recorded_certificates(tpm_dir: Path, name: str) -> None:
    (data,) = recorded(tpm_dir / name)
    expected, result = OUTCOMES[name], outcome(data)
    if isinstance(expected, Refused):
        assert isinstance(result, WeighbridgeError), result
        assert result.code is expected.code
        assert expected.says in str(result)
        if expected.code is Code.CERT_MALFORMED:
            assert f"which names '{expected.maker}'" in result.message
            assert result.hint
        return
    assert not isinstance(result, WeighbridgeError), result
    assert result.name.startswith(expected)


def test_the_bundle_of_roots(tpm_dir: Path) -> None:
    """Of 26, four of Nuvoton's are not DER, nor is one of Intel's, whose key was read by hand.

    Microsoft's of 2014 certifies attestation keys of Windows and is not believed. One of AMD's is an intermediate
    authority whose own issuer nobody publishes; it is believed, as its maker says where it is.
    """
    found = list(recorded(tpm_dir / "tpm-ca-certificates/MIRROR.tpm-ca-certificates.pem"))
    results = [(data, outcome(data)) for data in found]
    refused = [(data, result) for data, result in results if isinstance(result, WeighbridgeError)]
    assert sorted((error.code.value, claimed_maker(data)) for data, error in refused) == [
        ("CERT_MALFORMED", "Intel Corporation"),
        *[("CERT_MALFORMED", "Nuvoton Technology Corporation")] * 4,
        ("CHAIN_UNTRUSTED", "Advanced Micro Devices, Inc"),
        ("CHAIN_UNTRUSTED", "Microsoft Corporation"),
    ]
    sources = [anchor.source for purpose in _TPM for anchor in DEFAULT.select(purpose)]
    absent = [claimed_maker(data) for data in found if not any(sha256(data).hex() in source for source in sources)]
    assert sorted(absent) == ["Microsoft Corporation", *["Nuvoton Technology Corporation"] * 4]


def test_the_bundle_of_intermediates(tpm_dir: Path) -> None:
    """Every one of 143 makers' authorities stands under what is shipped, alone."""
    path = tpm_dir / "tpm-ca-certificates/MIRROR.tpm-intermediate-ca-certificates.pem"
    results = [outcome(data) for data in recorded(path)]
    assert len(results) == 143
    assert [result for result in results if isinstance(result, WeighbridgeError)] == []


def test_a_processors_chain_is_no_tpms(tpm_dir: Path) -> None:
    """AMD signs with RSASSA-PSS, and a VCEK has the serial number 0: `verify_snp` knows, and nobody else."""
    results = [outcome(data) for data in recorded(tpm_dir / "azure-cvm-tooling/certs.pem")]
    codes = [result.code for result in results if isinstance(result, WeighbridgeError)]
    assert codes == [Code.CERT_MALFORMED, Code.CHAIN_BROKEN, Code.CHAIN_BROKEN]


# -- endorsement certificates as TPMs hold them -----------------------------------------------------------------------


def area(certificate: bytes) -> public.Public:
    """The public area of an endorsement key by the default template of its kind."""
    key = load_certificate(certificate, "x").public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return public.parse(ENDORSEMENT_KEYS[1].parameters() + sized(key.public_numbers().n.to_bytes(256)))


def test_a_real_endorsement_certificate_alone_is_enough(tpm_dir: Path) -> None:
    """STMicroelectronics, RSA: cut out of its NV index, without its issuer's certificate; or with it, and a root's."""
    padded = (tpm_dir / "keylime/real-ek-certs/st_sha256_with_rsa_der.der").read_bytes()
    certificate = trim_certificate(padded)
    issuers = [
        data
        for name in ("STM_RSA_05I.pem", "STM_RSA_02I.pem", "STM_RSA_RT.pem", "GS_TPM_RT.pem")
        for data in recorded(tpm_dir / "keylime/tpm_cert_store" / name)
    ]
    leaf = load_certificate(certificate, "x")
    issuer = next(data for data in issuers if load_certificate(data, "x").subject == leaf.issuer)
    ek = area(certificate)
    for intermediates in ((), (issuer,), (issuer, *issuers[2:3]), (issuer, *issuers[2:])):
        verified = verify_ek(ek, certificate, intermediates, DEFAULT, at=AT)
        assert (verified.platform, verified.template.name) == ("tpm", "L-1")
    with pytest.raises(MalformedEvidence) as caught:
        verify_ek(ek, padded, (), DEFAULT, at=AT)
    assert "'STMicroelectronics NV', is followed by" in caught.value.message
    assert "padding" in caught.value.hint
    with pytest.raises(NotAuthentic) as untrusted:
        verify_ek(ek, certificate, (), TrustAnchors(()), at=AT)
    assert untrusted.value.code is Code.CHAIN_UNTRUSTED


def test_a_real_endorsement_certificate_of_a_p256_key(tpm_dir: Path) -> None:
    """STMicroelectronics, ECC: authentic under the shipped anchors; its key is of a template that is not accepted."""
    (certificate,) = recorded(tpm_dir / "keylime/real-ek-certs/st_ecdsa_sha256_der.der")
    leaf = load_certificate(certificate, "x")
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    (issuer,) = recorded(tpm_dir / "keylime/tpm_cert_store/STM_ECC_01I.pem")
    chain = [leaf, load_certificate(issuer, "x")]
    trusted = (*DEFAULT.select("tpm-ek-root"), *DEFAULT.select("tpm-ek-intermediate"))
    for length in (1, 2):
        anchor = certs.verify_chain(chain[:length], trusted, at=AT, what="ek.chain")
        assert anchor.name.startswith("CN=STM TPM ECC Intermediate CA 01")
    roots = DEFAULT.select("tpm-ek-root")
    (root,) = recorded(tpm_dir / "keylime/tpm_cert_store/STM_ECC_01RT.pem")
    anchor = certs.verify_chain([*chain, load_certificate(root, "x")], roots, at=AT, what="ek.chain")
    assert anchor.name.startswith("CN=GlobalSign Trusted Platform Module ECC Root CA")


def test_intels_root_whose_key_was_read_by_hand(tpm_dir: Path) -> None:
    """Its certificate is refused, and says whose it is; both authorities that it signed stand under its key."""
    path = tpm_dir / "tpm-ca-certificates/MIRROR.tpm-intermediate-ca-certificates.pem"
    roots = [anchor for anchor in DEFAULT.select("tpm-ek-root") if "OnDie CA Root" in anchor.name]
    (root,) = roots
    below = [
        certificate
        for certificate in (load_certificate(data, "x") for data in recorded(path))
        if certificate.issuer.rfc4514_string() == root.name
    ]
    assert len(below) == 2
    for certificate in below:
        assert certs.verify_chain([certificate], roots, at=AT, what="x") is root
    assert "read by hand" in root.source
    (data,) = (
        data
        for data in recorded(tpm_dir / "tpm-ca-certificates/MIRROR.tpm-ca-certificates.pem")
        if sha256(data).hex() in root.source
    )
    result = outcome(data)
    assert isinstance(result, MalformedEvidence)
    assert "which names 'Intel Corporation'" in result.message
