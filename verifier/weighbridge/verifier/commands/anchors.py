"""``weighbridge anchors list | show | import | check``: who is believed, for what, and on whose word."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import load_certificate
from weighbridge.verifier import anchors, certs
from weighbridge.verifier.anchors import EMULATED_PLATFORM, Anchor, TrustAnchors
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, load_document, read, usage, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
_SOON: Final = timedelta(days=90)
# NIST SP 800-131A rev. 2 with SP 800-57 part 1 rev. 5 §5.6.3: 112 bits of strength are not enough after 2030.
_WEAK_BITS: Final = 3072
_WEAK_FROM: Final = datetime(2031, 1, 1, tzinfo=UTC)
_CERTIFICATES_MAX: Final = 256
_SOURCE_MAX: Final = 3000
_PREFIX_MIN: Final = 8
_NRAS: Final = "none is shipped: docs/attestation-service.md says how to come to believe NVIDIA's attestation service"
_EPILOG: Final = """\
who is believed for the keys of TPMs, and where is it stated:
  weighbridge anchors list --purpose tpm-ek-root
  weighbridge anchors show "STSAFE RSA Root CA 02"

believe one more TPM maker, beside all that are shipped:
  weighbridge anchors import maker-root.pem --purpose tpm-ek-root --platform tpm \\
      --source "https://maker.example/root.pem, fingerprint read out by phone" -o vendors.json
  weighbridge serve … --anchors shipped --anchors vendors.json

pin the attestation key of one TPM, from its public key:
  weighbridge anchors import ak.pub.pem --purpose attestation-key --platform tpm --name host-17 \\
      --source "read at the console of host-17" -o pins.json

what runs out within 90 days, for a timer:
  weighbridge anchors check --anchors shipped --anchors vendors.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an :class:`Outcome`."""
    parser.epilog, parser.formatter_class = f"examples:\n\n{_EPILOG}", argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _configure_list(verbs.add_parser("list", help="who is believed, one line each"))
    _configure_show(verbs.add_parser("show", help="all that is known of an anchor, by its name or fingerprint"))
    _configure_import(verbs.add_parser("import", help="believe a certificate's key: add it to an anchors document"))
    _configure_check(verbs.add_parser("check", help="what has run out, runs out soon, or is weak"))
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print one JSON document")


def _add_documents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="look at this document; shipped: those shipped (several times; default: shipped)",
    )


# -- list and show ----------------------------------------------------------------------------------------------------


def _configure_list(parser: argparse.ArgumentParser) -> None:
    parser.description = "List who is believed: purpose, platform, kind of key, end of validity, fingerprint, name."
    _add_documents(parser)
    parser.add_argument("--purpose", metavar="P", help="those for this purpose alone, such as tpm-ek-root")
    parser.set_defaults(run=_run_list)


def _run_list(arguments: argparse.Namespace) -> Outcome | ExitCode:
    believed = load_anchors(arguments.anchors)
    known = anchors.PURPOSES
    if arguments.purpose is not None and arguments.purpose not in known:
        return usage(f"no purpose {arguments.purpose!r}; there are: {', '.join(sorted(known))}", command="anchors list")
    chosen = [each for each in believed.anchors if arguments.purpose in (None, each.purpose)]
    text = "".join(
        f"{each.purpose:<20} {each.platform:<16} {key_kind(each):<8} {each.not_after:%Y-%m-%d} {each.sha256[:16]} "
        f"{_short_name(each)}\n"
        for each in chosen
    )
    note = believed.note if len(arguments.anchors) < 2 else ""  # noqa: PLR2004 - one document has one note
    text += f"{len(chosen)} anchors{f': {note}' if note else ''}\n"
    if arguments.purpose == "nras-root" and not chosen:
        text += f"hint: {_NRAS}\n"
    document: strict.JsonObject = {
        "schema": "weighbridge/anchors-list/v1",
        "note": note,
        "anchors": [each.document() for each in chosen],
    }
    return Outcome(text, document)


def _configure_show(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show every anchor whose name has this text in it, or whose key's or certificate's SHA-256 begins so, with "
        "where the fact comes from."
    )
    parser.add_argument("wanted", metavar="NAME|FINGERPRINT", help="part of the name, or 8 and more hexadecimal digits")
    _add_documents(parser)
    parser.set_defaults(run=_run_show)


def _run_show(arguments: argparse.Namespace) -> Outcome | ExitCode:
    wanted: str = arguments.wanted.lower().replace(":", "")
    found = [each for each in load_anchors(arguments.anchors).anchors if _is_wanted(each, arguments.wanted, wanted)]
    if not found:
        return usage(
            f"nobody of the name or fingerprint {arguments.wanted!r} is believed; `weighbridge anchors list` names all",
            command="anchors show",
        )
    text = "\n".join(
        f"{each.name}\n"
        f"  purpose     {each.purpose}\n"
        f"  platform    {each.platform}\n"
        f"  key         {key_kind(each)}\n"
        f"  sha256      {each.sha256} (of its SubjectPublicKeyInfo)\n"
        f"  key id      {'none' if each.key_id is None else each.key_id.hex()}\n"
        f"  valid       {strict.time_encode(each.not_before)} to {strict.time_encode(each.not_after)}\n"
        f"  source      {each.source}\n"
        for each in found
    )
    document: strict.JsonObject = {
        "schema": "weighbridge/anchors-show/v1",
        "anchors": [each.document() for each in found],
    }
    return Outcome(text, document)


def _is_wanted(anchor: Anchor, name: str, digits: str) -> bool:
    stated = anchor.source.lower()
    return name.lower() in anchor.name.lower() or (
        len(digits) >= _PREFIX_MIN and (anchor.sha256.startswith(digits) or f"certificate sha-256 {digits}" in stated)
    )


def _short_name(anchor: Anchor) -> str:
    """The common name and the organisation, which tell more in less space than the whole; else the whole."""
    try:
        name = x509.Name.from_rfc4514_string(anchor.name)
    except ValueError:
        return anchor.name
    parts = [
        str(attribute.value)
        for oid in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME)
        for attribute in name.get_attributes_for_oid(oid)
    ]
    return ", ".join(parts) or anchor.name


def key_kind(anchor: Anchor) -> str:
    """What kind of key it is, and how long: ``RSA-2048``."""
    key = anchor.key()
    return f"RSA-{key.key_size}" if isinstance(key, rsa.RSAPublicKey) else anchors.key_type(key)


# -- import -----------------------------------------------------------------------------------------------------------


def _configure_import(parser: argparse.ArgumentParser) -> None:
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
    known = {(each.purpose, each.spki): each for each in believed.anchors}
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
            lines.append(f"  {'known' if before else 'added'}    {anchor.name}\n")
            lines.append(f"           {fingerprint} (compare it over another channel)\n")
            if before is None:
                known[anchor.purpose, anchor.spki] = anchor
                added.append(anchor)
    if arguments.platform == EMULATED_PLATFORM:
        lines.append("  warning  anybody can make an emulated device; production policies refuse them\n")
    elif (expected := _PLATFORMS.get(arguments.purpose)) and arguments.platform not in expected:
        known_as = " or ".join(expected)
        lines.append(f"  warning  shipped policies know such keys as {known_as}, not as {arguments.platform}\n")
    write(output, believed.with_anchors(added).encode(), doing="writing the anchors")
    text = f"{output}: {len(known)} anchors, {len(added)} of them new, purpose {arguments.purpose}\n{''.join(lines)}"
    document: strict.JsonObject = {
        "schema": "weighbridge/anchors-import/v1",
        "anchors": len(known),
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


# -- check ------------------------------------------------------------------------------------------------------------


def _configure_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look for anchors that are not valid at the time (exit 4), and warn of those that run out within 90 days, of "
        "RSA keys of less than 3072 bits that are believed after 2030, and of emulated platforms (exit 0)."
    )
    _add_documents(parser)
    parser.add_argument("--at", metavar="TIME", default="now", type=given.time, help="at this time (default: now)")
    parser.set_defaults(run=_run_check)


def _run_check(arguments: argparse.Namespace) -> Outcome:
    believed = load_anchors(arguments.anchors).anchors
    found = [(each, *finding) for each in believed for finding in _findings(each, arguments.at)]
    invalid = sum(1 for _, kind, _ in found if kind in ("expired", "not yet valid"))
    text = "".join(
        f"{kind:<14} {each.purpose:<20} {each.sha256[:16]} {_short_name(each)}: {message}\n"
        for each, kind, message in found
        if kind != "weak"
    )
    weak = [each for each, kind, _ in found if kind == "weak"]
    if weak:
        text += f"{'weak':<14} {len(weak)} RSA keys of less than {_WEAK_BITS} bits are believed after 2030 (--json)\n"
    at = strict.time_encode(arguments.at.replace(microsecond=0))
    text += f"{len(believed)} anchors, {invalid} not valid at {at}\n"
    document: strict.JsonObject = {
        "schema": "weighbridge/anchors-check/v1",
        "at": strict.time_encode(arguments.at),
        "anchors": len(believed),
        "code": Code.CHAIN_EXPIRED.value if invalid else None,
        "findings": [
            {"kind": kind, "message": message, "purpose": each.purpose, "name": each.name, "sha256": each.sha256}
            for each, kind, message in found
        ],
    }
    return Outcome(text, document, ExitCode.NOT_AUTHENTIC if invalid else ExitCode.AFFIRMED)


def _findings(anchor: Anchor, at: datetime) -> Sequence[tuple[str, str]]:
    """What is to be said of an anchor: a kind, and a sentence."""
    found: list[tuple[str, str]] = []
    if at > anchor.not_after:
        found.append(("expired", f"since {anchor.not_after:%Y-%m-%d}"))
    elif at < anchor.not_before:
        found.append(("not yet valid", f"until {anchor.not_before:%Y-%m-%d}"))
    elif anchor.not_after - at < _SOON:
        found.append(("expires soon", f"on {anchor.not_after:%Y-%m-%d}"))
    key = anchor.key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _WEAK_BITS and anchor.not_after >= _WEAK_FROM:
        found.append(("weak", f"RSA of {key.key_size} bits, until {anchor.not_after:%Y-%m-%d}"))
    if anchor.platform == EMULATED_PLATFORM:
        found.append(("emulated", "anybody can make such a device"))
    return found
