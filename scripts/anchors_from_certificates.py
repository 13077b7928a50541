"""Writes the trust anchors that are shipped, from the vendors' certificates; none of those is kept.

    python scripts/anchors_from_certificates.py FOLDER [--check]

FOLDER is ``tpm`` of the captured evidence (``tests/vectors/README.md``). A root is taken for one of two reasons: the
list of roots in ``tpm-ca-certificates`` states its fingerprint and where its maker publishes it, or the table below
does. An intermediate authority is taken because an authority that was taken before has signed it, so that it adds
nobody to those who are believed: it is there because TPMs hold their own certificate and seldom that of its issuer.
What is left out is printed with its reason.

One root is not DER in a field that is not ours (an AlgorithmIdentifier with something after it) while the certificates
under it are: its key is taken out by hand, after its signature over itself and those below it have been verified.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from weighbridge.proto import der, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import claimed_maker, load_certificate
from weighbridge.verifier import anchors, certs
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TARGET: Final = Path(__file__).resolve().parent.parent / "verifier/weighbridge/verifier/data/anchors.json"
AS_OF: Final = "2026-11-26"
NOTE: Final = (
    f"Who is believed by default, as of {AS_OF}: the makers of NVIDIA GPUs, of TPMs, of AMD's and Intel's confidential "
    "computing, and Google for the TPMs of its virtual machines. Each entry says where the fact comes from. Nuvoton's "
    "older roots are not here: certificates under them are not DER and are refused. Nor is anybody whose key only one "
    "third party states, nor whoever signs with SHA-1. Emulated platforms are never listed here."
)
_BUNDLE: Final = "github.com/loicsikidi/tpm-ca-certificates 366e970a144e48057e56a833e2aa846c8d25676b"
_TOOLS: Final = "github.com/google/go-tpm-tools 67670e5c021a24f2366eb1808db2659211af5eb2, server/ca-certs"
_TRUSTEE: Final = "github.com/confidential-containers/trustee 78962cd416dcc8a32f9377e0066a28fe21420f69, deps/verifier"
_KEYLIME: Final = "github.com/keylime/keylime 9b1f6e6a917f86c792bac680ea7d36312d5914a5, tpm_cert_store"
_KDS: Final = "https://kdsintf.amd.com/vcek/v1"
_LISTED: Final = re.compile(
    r'url: "(?P<url>[^"]+)"\s+validation:\s+fingerprint:\s+sha(?:1|256): "(?P<fingerprint>[0-9A-F:]+)"'
)
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\r\n]*)-----END CERTIFICATE-----")
# On the list, but the authorities below it certify attestation keys of Windows, of which nobody here is one.
_NOT_FOR_ENDORSEMENT_KEYS: Final = frozenset({"870c7a35ceab3d59979f2c6a524042d404cb71518004350925fb2ced79a999da"})
_INTEL_ON_DIE: Final = "beb40bb7507b33967226aa80e084749fbb6593893c642e818d682e9a8d07fc24"


@dataclass(frozen=True)
class Row:
    """A root that is believed: SHA-256 of its certificate, what for, on which platform, and who says so."""

    sha256: str
    purposes: tuple[Purpose, ...]
    platform: str
    source: str


TABLE: Final = (
    Row(
        "2e1b3ba79af56d758be51697621bc4b9e8cee0983db3e749c55eb9b37c6d2ae0",
        ("tpm-ek-root",),
        "tpm",
        f"https://upgrades.intel.com/content/CRL/ekcert/EKRootPublicKey.cer; {_KEYLIME}",
    ),
    Row(
        "594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2",
        ("tpm-ek-root", "tpm-ak-root"),
        "google-vtpm",
        f"{_TOOLS}/gcp_ek_ak_ca_root.crt",
    ),
    Row(
        "9bd5285f8fb18502a7947e621ffd470266f49fcd3b73e19a190f690ad32a7caf",
        ("tpm-ek-root", "tpm-ak-root"),
        "google-vtpm",
        f"https://pki.goog/cloud_integrity/tpm_ek_root_1.crt; {_TOOLS}/tpm_ek_root_1.cer",
    ),
    Row(
        "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        ("amd-ark",),
        "amd-sev-snp",
        f"{_KDS}/Milan/cert_chain; {_TRUSTEE}",
    ),
    Row(
        "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        ("amd-ark",),
        "amd-sev-snp",
        f"{_KDS}/Genoa/cert_chain; {_TRUSTEE}",
    ),
    Row(
        "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        ("amd-ark",),
        "amd-sev-snp",
        f"{_KDS}/Turin/cert_chain; {_TRUSTEE}",
    ),
    Row(
        "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",
        ("intel-sgx-root",),
        "intel-tdx",
        "https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem; the chain of "
        "a TD quote of Azure's",
    ),
)
# Authorities whose intermediates are taken, and for which purposes those then are.
_BELOW: Final[dict[Purpose, Purpose]] = {
    "tpm-ek-root": "tpm-ek-intermediate",
    "tpm-ek-intermediate": "tpm-ek-intermediate",
    "tpm-ak-root": "tpm-ak-intermediate",
    "tpm-ak-intermediate": "tpm-ak-intermediate",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document, or with ``--check`` say whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    made, left_out = build(given.folder)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if given.check:
        return 0 if TARGET.read_bytes() == made.encode() else 1
    TARGET.write_bytes(made.encode())
    print(f"{len(made.anchors)} anchors in {TARGET}")
    return 0


def build(folder: Path) -> tuple[TrustAnchors, list[str]]:
    """The document, and what was left out of it with the reason."""
    left_out: list[str] = []
    found = list(certificates(folder))
    # Out of NVIDIA's own verifier; a test compares them with what is in there.
    shipped = anchors.load(TARGET.read_bytes())
    nvidia = (*shipped.select("nvidia-device-root"), *shipped.select("nvidia-rim-root"))
    listed = {row.sha256: row for row in (*TABLE, *_listed(folder, found))}
    parsed: dict[str, x509.Certificate] = {}
    for data in found:
        fingerprint = sha256(data).hex()
        try:
            parsed.setdefault(fingerprint, load_certificate(data, "certificate"))
        except MalformedEvidence as error:
            if fingerprint != _INTEL_ON_DIE:
                left_out.append(f"{claimed_maker(data)} {fingerprint}: {error.message}")
    roots = list(_roots(listed, parsed))
    roots.append(_intel_on_die(next(data for data in found if sha256(data).hex() == _INTEL_ON_DIE), listed, parsed))
    below = list(_intermediates(roots, parsed, left_out))
    ordered = sorted((*nvidia, *roots, *below), key=lambda anchor: (anchor.purpose, anchor.name, anchor.sha256))
    return TrustAnchors(tuple(ordered), NOTE), sorted(set(left_out))


def certificates(folder: Path) -> Iterator[bytes]:
    """DER of every certificate that the folder has: in PEM, raw, and inside a TD quote."""
    for name in ("tpm-ca-certificates", "keylime/tpm_cert_store", "go-tpm-tools/ca-certs", "trustee/amd"):
        for path in sorted((folder / name).iterdir()):
            if path.suffix not in {".pem", ".crt", ".cer"}:
                continue
            data = path.read_bytes()
            # Files that somebody edited end in a line break.
            yield from _pem(data) if b"-----BEGIN" in data else (data.removesuffix(b"\n"),)
    yield from _pem((folder / "trustee/az-tdx-vtpm/td-quote.bin").read_bytes())


def _pem(data: bytes) -> Iterator[bytes]:
    for match in _PEM.finditer(data):
        yield strict.base64_decode(match[1].replace(b"\r", b"").replace(b"\n", b""), what="certificate")


def _listed(folder: Path, found: Sequence[bytes]) -> Iterator[Row]:
    """The roots of the list, by the fingerprint that it states, be it by SHA-256 or by SHA-1."""
    text = (folder / "tpm-ca-certificates/tpm-roots.yaml").read_text()
    by_fingerprint = {hashing(data).hex(): sha256(data).hex() for data in found for hashing in (sha256, _sha1)}
    for entry in _LISTED.finditer(text):
        fingerprint = by_fingerprint[entry["fingerprint"].replace(":", "").lower()]
        if fingerprint not in _NOT_FOR_ENDORSEMENT_KEYS:
            yield Row(fingerprint, ("tpm-ek-root",), "tpm", f"{entry['url']}; {_BUNDLE}, .tpm-roots.yaml")


def _sha1(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303 - as the list has it; the certificate itself is named by SHA-256
    digest.update(data)
    return digest.finalize()


def _roots(listed: dict[str, Row], parsed: dict[str, x509.Certificate]) -> Iterator[Anchor]:
    for fingerprint, row in listed.items():
        certificate = parsed.get(fingerprint)
        if certificate is None:
            continue
        for purpose in row.purposes:
            # Some makers publish as their root what another authority has certified.
            own = certificate.subject == certificate.issuer
            chosen = purpose if own else _BELOW[purpose]
            source = f"certificate SHA-256 {fingerprint}; {row.source}"
            yield Anchor.from_certificate(chosen, certificate, platform=row.platform, source=source)


def _intermediates(
    roots: Sequence[Anchor], parsed: dict[str, x509.Certificate], left_out: list[str]
) -> Iterator[Anchor]:
    """Every authority that one of the roots has signed, and every one that such an authority has signed."""
    known = list(roots)
    pending = {key: item for key, item in parsed.items() if not any(key in root.source for root in roots)}
    while True:
        made = [
            (fingerprint, issuer, certificate)
            for fingerprint, certificate in pending.items()
            for issuer in _issuers(certificate, known)
        ]
        if not made:
            break
        for fingerprint, issuer, certificate in made:
            pending.pop(fingerprint, None)
            source = f"certificate SHA-256 {fingerprint}, signed by {issuer.name} (key SHA-256 {issuer.sha256})"
            anchor = Anchor.from_certificate(
                _BELOW[issuer.purpose], certificate, platform=issuer.platform, source=source
            )
            # Certified again: the newest certificate counts.
            older = [item for item in known if (item.purpose, item.spki) == (anchor.purpose, anchor.spki)]
            if any(item in roots or item.not_before >= anchor.not_before for item in older):
                continue
            known = [item for item in known if item not in older]
            known.append(anchor)
    for fingerprint, certificate in pending.items():
        left_out.append(f"{certificate.subject.rfc4514_string()} {fingerprint}: {_reason(certificate)}")
    yield from (item for item in known if item not in roots)


def _issuers(certificate: x509.Certificate, known: Iterable[Anchor]) -> Iterator[Anchor]:
    """Those of the authorities whose signature the certificate bears, one for each purpose."""
    for purpose in ("tpm-ek-root", "tpm-ek-intermediate", "tpm-ak-root", "tpm-ak-intermediate"):
        candidates = [anchor for anchor in known if anchor.purpose == purpose]
        try:
            certs.check_authority(certificate, (), "certificate")
            at = strict.time_decode(f"{AS_OF}T00:00:00Z", what="the date")
            yield certs.verify_chain([certificate], candidates, at=at, what="certificate")
        except NotAuthentic:
            continue


def _reason(certificate: x509.Certificate) -> str:
    algorithm = certificate.signature_hash_algorithm
    if isinstance(algorithm, hashes.SHA1):
        return "signed with SHA-1"
    return f"nobody who is believed for TPMs has signed it; {certificate.issuer.rfc4514_string()} has"


def _intel_on_die(data: bytes, listed: dict[str, Row], parsed: dict[str, x509.Certificate]) -> Anchor:
    """Intel's root for firmware TPMs, whose key is read by hand. Its name and key identifier are as below it."""
    tbs, _, signed = der.one(data, der.SEQUENCE, what="root").elements(what="root")
    fields = tbs.elements(what="root.tbs")
    spki, validity = fields[6].raw, fields[4].elements(what="root.validity")
    key = load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("not the key that was expected")
    key.verify(signed.content[1:], tbs.raw, ec.ECDSA(hashes.SHA384()))
    below = [item for item in parsed.values() if item.issuer.public_bytes() == fields[5].raw]
    for item in below:
        key.verify(item.signature, item.tbs_certificate_bytes, ec.ECDSA(hashes.SHA384()))
    identifier = below[0].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    start, end = (strict.time_decode(_time(field), what="root.validity") for field in validity)
    return Anchor(
        purpose="tpm-ek-root",
        name=below[0].issuer.rfc4514_string(),
        platform="tpm",
        spki=spki,
        not_before=start,
        not_after=end,
        source=f"certificate SHA-256 {_INTEL_ON_DIE}, which is not DER: key read by hand, self-signature verified; "
        f"{listed[_INTEL_ON_DIE].source}",
        key_id=identifier,
    )


def _time(field: der.Element) -> str:
    """UTCTime of this century, or GeneralizedTime, as RFC 3339."""
    digits = ("20" if len(field.content) == len("260101000000Z") else "") + field.content.decode("ascii")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]}:{digits[12:14]}Z"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InvalidSignature:
        sys.exit("a signature does not verify")
