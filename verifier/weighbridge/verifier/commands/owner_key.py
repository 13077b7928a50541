"""What ``model``, ``reference`` and ``policy`` share: an owner's key, and the anchors by which others believe it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from weighbridge.proto import cose, limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, read, write
from weighbridge.verifier.keys import create_signing_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.proto import strict

__all__ = ["Role", "add_signing", "add_tenant", "check_own", "configure_key", "configure_trust"]

_FOREVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Role:
    """As whom a key may be believed: the option that says so, the anchor's purpose, and what it means."""

    option: str
    purpose: Purpose
    help: str


def add_signing(parser: argparse.ArgumentParser) -> None:
    """Add the key to sign with, and the file to write."""
    parser.add_argument("--key", required=True, type=Path, metavar="PEM", help="the owner's private key, P-256")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="SET", help="the file to write")


def add_tenant(parser: argparse.ArgumentParser) -> None:
    """Add the one tenant that the key speaks for."""
    parser.add_argument(
        "--tenant",
        metavar="TENANT",
        type=given.tenant,
        help="believe it for the sessions of this tenant alone (default: for everybody's)",
    )


def check_own(message: cose.CoseSign1, key: ec.EllipticCurvePrivateKey, *, where: str) -> None:
    """Require that ``message``, a previous set, is signed by ``key``: nobody signs what a stranger wrote.

    Raises:
        NotAuthentic: ``CHAIN_UNTRUSTED``, ``COSE_SIGNATURE``.
    """
    if message.claimed_kid != cose.thumbprint(key.public_key()):
        raise NotAuthentic(
            Code.CHAIN_UNTRUSTED,
            "the previous set is signed by another key",
            where=where,
            expected=cose.thumbprint(key.public_key()),
            got=message.claimed_kid,
            hint="where you have changed keys, name the old one: --anchors",
        )
    cose.verify(message, key.public_key())


def configure_key(parser: argparse.ArgumentParser, *, command: str, purpose: Purpose, signs: str, example: str) -> None:
    """Add the arguments of ``COMMAND key``.

    Args:
        parser: of the verb.
        command: whose verb it is.
        purpose: of the anchor.
        signs: what the key is for, such as ``reference sets``.
        example: of an owner's name.
    """
    parser.description = (
        f"Make a P-256 key for signing {signs}, and a trust-anchors document (purpose {purpose}) for whoever "
        "wants to believe it. The name is the one that all it signs has to carry."
    )
    parser.add_argument("owner", metavar="OWNER", type=given.name, help=f"the owner's name, such as '{example}'")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="PEM", help="the private key")
    parser.add_argument("--anchors", required=True, type=given.output, metavar="FILE", help="the anchors document")
    parser.set_defaults(run=partial(_run_key, command=command, purpose=purpose))


def _run_key(arguments: argparse.Namespace, command: str, purpose: Purpose) -> Outcome:
    now = datetime.now(UTC).replace(microsecond=0)
    key = create_signing_key(arguments.output)
    source = "exported by the owner that holds the private key"
    spki = cose.spki(key.public_key())
    anchor = _anchor(purpose, arguments.owner, spki, since=now, source=source, tenant=_tenant(arguments))
    write(arguments.anchors, TrustAnchors((anchor,)).encode(), doing="writing the anchors")
    text = (
        f"made a key for {arguments.owner}{_for(anchor)}\n"
        f"  key      {arguments.output} (keep it; whoever has it speaks for you)\n"
        f"  anchors  {arguments.anchors} (give it to verifiers: serve --anchors)\n"
        f"  sha256   {anchor.sha256} (compare it over another channel)\n"
    )
    document: strict.JsonObject = {
        "schema": f"weighbridge/{command}-key/v1",
        "owner": anchor.name,
        "sha256": anchor.sha256,
    }
    return Outcome(text, document)


def _anchor(purpose: Purpose, name: str, spki: bytes, *, since: datetime, source: str, tenant: str | None) -> Anchor:
    return Anchor(purpose, name, "weighbridge", spki, since, _FOREVER, source, tenant=tenant)


def _tenant(arguments: argparse.Namespace) -> str | None:
    """The tenant, of the commands that have one."""
    return str(arguments.tenant) if getattr(arguments, "tenant", None) is not None else None


def _for(anchor: Anchor) -> str:
    return "" if anchor.tenant is None else f", for {anchor.tenant} alone"


def configure_trust(parser: argparse.ArgumentParser, roles: Sequence[Role], *, command: str, also: str = "") -> None:
    """Add the arguments of ``COMMAND trust``: exactly one of ``roles`` is to be named."""
    kinds = "P-256 of an owner" + ("; or P-384, Ed25519" if len(roles) > 1 else "")
    parser.description = (
        "Make a trust-anchors document for a public key. Whose key it is, nothing in it says: compare the fingerprint "
        f"over another channel before you give the document to a verifier.{also}"
    )
    parser.add_argument("public_key", metavar="PEM", help=f"the public key: {kinds}")
    whose = parser.add_mutually_exclusive_group(required=True)
    for role in roles:
        whose.add_argument(role.option, metavar="NAME", dest=role.purpose, type=given.name, help=role.help)
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=given.date,
        default=given.FIRST,
        help="believe nothing signed before (default: anything)",
    )
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="the anchors document")
    parser.set_defaults(run=partial(_run_trust, roles=tuple(roles), command=command))


def _run_trust(arguments: argparse.Namespace, roles: Sequence[Role], command: str) -> Outcome:
    pem = read(arguments.public_key, limit=limits.CERT_MAX)
    try:
        key = load_pem_public_key(pem)
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(
            Code.KEY_MALFORMED,
            "not a public key in PEM",
            where=arguments.public_key,
            hint="it begins: -----BEGIN PUBLIC KEY-----",
        ) from error
    # The parser takes one of them, no less and no more.
    role = next(role for role in roles if getattr(arguments, role.purpose) is not None)
    purpose, name = role.purpose, str(getattr(arguments, role.purpose))
    source = f"the file {Path(arguments.public_key).name}"
    anchor = _anchor(purpose, name, spki, since=arguments.since, source=source, tenant=_tenant(arguments))
    write(arguments.output, TrustAnchors((anchor,)).encode(), doing="writing the anchors")
    text = (
        f"wrote {arguments.output}: {anchor.name}, {purpose}{_for(anchor)}\n"
        f"  sha256   {anchor.sha256} (compare it over another channel)\n"
    )
    document: strict.JsonObject = {
        "schema": f"weighbridge/{command}-trust/v1",
        "purpose": purpose,
        "name": anchor.name,
        "sha256": anchor.sha256,
    }
    return Outcome(text, document)
