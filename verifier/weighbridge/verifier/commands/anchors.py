"""``weighbridge anchors list | show | import | check``: who is believed, for what, and on whose word."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier import anchors
from weighbridge.verifier.anchors import EMULATED_PLATFORM, Anchor
from weighbridge.verifier.commands import anchors_import
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, usage
from weighbridge.verifier.commands.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["configure"]

_SOON: Final = timedelta(days=90)
# NIST SP 800-131A rev. 2 with SP 800-57 part 1 rev. 5 §5.6.3: 112 bits of strength are not enough after 2030.
_WEAK_BITS: Final = 3072
_WEAK_FROM: Final = datetime(2031, 1, 1, tzinfo=UTC)
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
    anchors_import.configure(
        verbs.add_parser("import", help="believe a certificate's key: add it to an anchors document")
    )
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
    text += f"{counted(len(chosen), 'anchor')}{f': {note}' if note else ''}\n"
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
        f"{_whose(each)}"
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


def _whose(anchor: Anchor) -> str:
    """For whose sessions alone the key speaks, if that is so."""
    return "" if anchor.tenant is None else f"  tenant      {anchor.tenant}, and no other\n"


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
        keys = counted(
            len(weak), f"RSA key of less than {_WEAK_BITS} bits is", f"RSA keys of less than {_WEAK_BITS} bits are"
        )
        text += f"{'weak':<14} {keys} believed after 2030 (--json)\n"
    at = strict.time_encode(arguments.at.replace(microsecond=0))
    text += f"{counted(len(believed), 'anchor')}, {invalid} not valid at {at}\n"
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
