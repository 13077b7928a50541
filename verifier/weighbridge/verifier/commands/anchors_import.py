"""``weighbridge anchors import``: to believe a key, from the certificate that its maker publishes."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import load_certificate
from weighbridge.verifier import certs
from weighbridge.verifier.anchors import EMULATED_PLATFORM, Anchor, TrustAnchors
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_document, read, write
from weighbridge.verifier.commands.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

    from weighbridge.proto import strict
    from weighbridge.verifier.anchors import Purpose

__all__ = ["configure"]

# What certificates, and keys of TPMs, are believed for. Owners, issuers, verifiers and ledgers have commands of theirs.
_PURPOSES: Final[tuple[Purpose, ...]] = (
    "nvidia-device-root",
    "nvidia-rim-root",
    "nras-root",
    "tpm-ek-root",
    "tpm-ek-intermediate",
    "tpm-ak-root",
    "tpm-ak-intermediate",
    "amd-ark",
    "intel-sgx-root",
    "attestation-key",
    "client-ca",
)
# Those that are roots, and what to believe a certificate for that is none.
_INTERMEDIATE: Final[dict[Purpose, Purpose | None]] = {
    "nvidia-device-root": None,
    "nvidia-rim-root": None,
    "tpm-ek-root": "tpm-ek-intermediate",
    "tpm-ak-root": "tpm-ak-intermediate",
    "amd-ark": None,
    "intel-sgx-root": None,
}
# What shipped policies call evidence under keys of a purpose; elsewhere it is the operator's own word.
_PLATFORMS: Final[dict[Purpose, tuple[str, ...]]] = {
    "nvidia-device-root": ("nvidia",),
    "nvidia-rim-root": ("nvidia",),
    "nras-root": ("nvidia",),
    "tpm-ek-root": ("tpm", "google-vtpm"),
    "tpm-ek-intermediate": ("tpm", "google-vtpm"),
    "tpm-ak-root": ("google-vtpm",),
    "tpm-ak-intermediate": ("google-vtpm",),
    "amd-ark": ("amd-sev-snp",),
    "intel-sgx-root": ("intel-tdx",),
}
# Files often say in words above each certificate what is in it (RFC 7468 §5.2).
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = b"\x30"
_FOREVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_CERTIFICATES_MAX: Final = 256
_SOURCE_MAX: Final = 3000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``, and set ``run`` to a function that gives an :class:`Outcome`."""
    parser.description = (
        "Believe the keys of these certificates: add them to an anchors document, which is made if it is not there. "
        "Only name, key, validity and source are kept. Whose certificate it is, nothing in it says: compare the "
        "fingerprint over another channel before you give the document to a verifier."
    )
    parser.add_argument("certificates", nargs="+", metavar="CERT", help="PEM, one or more in a file, or DER")
    parser.add_argument("--purpose", required=True, choices=_PURPOSES, help="what the keys may vouch for")
    parser.add_argument(
        "--platform",
        required=True,
        metavar="NAME",
        type=_platform,
        help="what evidence under these keys is called, and policies decide by: tpm, google-vtpm, amd-sev-snp, …",
    )
    parser.add_argument("--source", required=True, metavar="TEXT", type=_source, help="on whose word, where to be read")
    parser.add_argument("--name", metavar="TEXT", type=_source, help="for a bare public key, which has no name")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="the anchors document")
    parser.set_defaults(run=_run_import)


def _run_import(arguments: argparse.Namespace) -> Outcome:
    output: Path = arguments.output
    believed = load_document(output) if output.exists() else TrustAnchors(())
    # Of several pins of one attestation key, the one that lasts longest.
    known = {(each.purpose, each.spki): each for each in sorted(believed.anchors, key=lambda each: each.not_after)}
    lines: list[str] = []
    added: list[Anchor] = []
    for path in arguments.certificates:
        for anchor, fingerprint in _read(path, arguments):
            before = known.get((anchor.purpose, anchor.spki))
            if before is not None and before.platform != anchor.platform:
                raise MalformedEvidence(
                    Code.ANCHORS_INVALID,
                    "the key is believed for this purpose on another platform",
                    where=f"{path}: {anchor.name}",
                    expected=before.platform,
                    got=anchor.platform,
                    hint=f"decide for one of them: edit {output}, or write another document",
                )
            # A pin that ends later is another one; what else is believed stays as it was said first.
            is_known = before is not None and (anchor.pinned_for is None or anchor.not_after <= before.not_after)
            lines.append(f"  {'known' if is_known else 'added'}    {anchor.name}\n")
            lines.append(f"           {fingerprint} (compare it over another channel)\n")
            if not is_known:
                known[anchor.purpose, anchor.spki] = anchor
                added.append(anchor)
    if arguments.platform == EMULATED_PLATFORM:
        lines.append("  warning  anybody can make an emulated device; production policies refuse them\n")
    elif (expected := _PLATFORMS.get(arguments.purpose)) and arguments.platform not in expected:
        known_as = " or ".join(expected)
        lines.append(f"  warning  shipped policies know such keys as {known_as}, not as {arguments.platform}\n")
    write(output, believed.with_anchors(added).encode(), doing="writing the anchors")
    total = len(believed.anchors) + len(added)
    has = f"{counted(total, 'anchor')}, {len(added)} of them new"
    text = f"{output}: {has}, purpose {arguments.purpose}\n{''.join(lines)}"
    document: strict.JsonObject = {
        "schema": "weighbridge/anchors-import/v1",
        "anchors": total,
        "added": [each.document() for each in added],
    }
    return Outcome(text, document)


def _read(path: str, arguments: argparse.Namespace) -> Iterable[tuple[Anchor, str]]:
    """The anchors of one file, each with the line by which people compare it."""
    data = read(path, limit=_CERTIFICATES_MAX * 2 * limits.CERT_MAX)
    purpose = cast("Purpose", arguments.purpose)
    if b"-----BEGIN PUBLIC KEY-----" in data:
        anchor = _bare_key(path, data, arguments)
        yield anchor, f"key SHA-256 {anchor.sha256}"
        return
    blocks = _PEM.findall(data)
    for der in certs.pem_certificates(b"\n".join(blocks), what=path, limit=_CERTIFICATES_MAX) if blocks else (data,):
        try:
            certificate = load_certificate(der, Path(path).name)
        except MalformedEvidence as error:
            if blocks or der[:1] == _SEQUENCE:
                raise
            raise MalformedEvidence(
                error.code,
                "neither a certificate nor a public key",
                where=path,
                expected="PEM or DER",
                hint="name the file as its maker gives it out",
            ) from error
        if purpose != "attestation-key":
            _check_authority(certificate, purpose, path)
        fingerprint = f"certificate SHA-256 {sha256(der).hex()}"
        source = f"{fingerprint}; {arguments.source}"
        anchor = Anchor.from_certificate(purpose, certificate, platform=arguments.platform, source=source)
        yield anchor if arguments.name is None else replace(anchor, name=arguments.name), fingerprint


def _bare_key(path: str, data: bytes, arguments: argparse.Namespace) -> Anchor:
    if arguments.purpose != "attestation-key" or arguments.name is None:
        raise MalformedEvidence(
            Code.CERT_MALFORMED,
            "a public key without a certificate is believed for attestation-key alone, and needs a name",
            where=path,
            hint="name a certificate, or use: --purpose attestation-key --name TEXT",
        )
    try:
        spki = load_pem_public_key(data).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(Code.KEY_MALFORMED, "not a public key in PEM", where=path) from error
    since = datetime.now(UTC).replace(microsecond=0)
    return Anchor(
        "attestation-key", arguments.name, arguments.platform, spki, since, _FOREVER, f"public key; {arguments.source}"
    )


def _check_authority(certificate: x509.Certificate, purpose: Purpose, path: str) -> None:
    """Require what this purpose needs: an authority's certificate, and a root's that it signed itself."""
    certs.check_authority(certificate, (), path)
    if certificate.subject != certificate.issuer:
        if purpose not in _INTERMEDIATE:
            return
        other = _INTERMEDIATE[purpose]
        raise NotAuthentic(
            Code.CHAIN_BROKEN,
            "not a root: another authority has issued it",
            where=path,
            got=certificate.issuer.rfc4514_string(),
            hint="believe its root alone" if other is None else f"believe it as what it is: --purpose {other}",
        )
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise NotAuthentic(
            Code.CHAIN_BROKEN,
            "the root's signature over itself does not verify",
            where=path,
            hint="get the file again: it was changed on its way",
        ) from error


def _platform(text: str) -> str:
    if not text or len(text) > 64 or not text.replace("-", "").isalnum() or text.lower() != text:  # noqa: PLR2004 - bound of the document
        raise argparse.ArgumentTypeError("lower-case letters, digits and hyphens, at most 64, such as tpm")
    return text


def _source(text: str) -> str:
    if not text.strip() or len(text) > _SOURCE_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"1 to {_SOURCE_MAX} printable characters")
    return text
