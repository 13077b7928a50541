"""Single files that a configuration names, for :mod:`.config_check`: what is in each, or why it will not do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from weighbridge.proto import cose, limits
from weighbridge.proto.baseline import SET_TYP as BASELINE_SET_TYP
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.host_set import SET_TYP as HOST_SET_TYP
from weighbridge.proto.policy_bundle import SignedPolicyBundle
from weighbridge.proto.reference_set import SET_TYP
from weighbridge.verifier import baseline_set, host_set, policy_bundle, reference_set
from weighbridge.verifier.commands.outcome import read, taken_for
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.peers import authorities

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.policy_bundle import VerifiedPolicyBundle

__all__ = ["UNVERIFIED", "authorities_in", "directory", "pair", "signed_bundle", "signed_set", "writable"]

UNVERIFIED: Final = "whoever signed it: the anchors are not there to say"
_SET_HINT: Final = "name a set that `weighbridge model sign`, `weighbridge reference learn` or `sign` wrote"


def signed_set(path: Path, anchors: TrustAnchors | None) -> tuple[str, str]:
    """Of what type a signed set is, and what it is; whose, and whether it is valid, whoever serves says.

    Without ``anchors`` nobody is believed: its form alone is looked at.

    Raises:
        WeighbridgeError: it cannot be read, or is no such set, or one that nobody signed who is believed.
    """
    data = read(path, limit=limits.HOST_SET_MAX)
    with taken_for(path, what="a signed set", hint=_SET_HINT):
        typ = cose.claimed_typ(data, limit=limits.HOST_SET_MAX, what="signed set")
        if anchors is None:
            if typ not in {HOST_SET_TYP, BASELINE_SET_TYP, SET_TYP}:
                raise MalformedEvidence(Code.COSE_HEADER, "not a set", where="typ", got=typ)
            return typ, UNVERIFIED
        if typ == HOST_SET_TYP:
            return typ, str(host_set.verify(data, anchors=anchors).line)
        if typ == BASELINE_SET_TYP:
            return typ, str(baseline_set.verify(data, anchors=anchors).line)
        authentic = reference_set.authenticate(data, anchors=anchors)
        reference_set.verify_statements(authentic, anchors=anchors)
        return typ, str(authentic.line)


def signed_bundle(path: Path, anchors: TrustAnchors | None) -> VerifiedPolicyBundle | None:
    """The policy bundle in a file; ``None`` without ``anchors``: its form alone is looked at.

    Raises:
        WeighbridgeError: it cannot be read, or is no bundle, or one that nobody signed who is believed.
    """
    data = read(path, limit=limits.POLICY_BUNDLE_MAX)
    with taken_for(path, what="a policy bundle", hint="`weighbridge policy bundle sign` writes one"):
        if anchors is None:
            SignedPolicyBundle.parse(data)
            return None
        return policy_bundle.verify(data, anchors=anchors)


def directory(path: Path) -> None:
    """Require that there is such a directory.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    if not path.is_dir():
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, "no directory", where=str(path), hint="`weighbridge collateral fetch` makes one"
        )


def writable(path: Path) -> None:
    """Require that a file can be made there.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE``.
    """
    if not os.access(path.parent, os.W_OK):
        raise EnvironmentFault(Code.FILE_UNWRITABLE, "its directory cannot be written", where=str(path))


def authorities_in(path: Path) -> str:
    """How many certificates a file of authorities has.

    Raises:
        WeighbridgeError: it cannot be read, or is none.
    """
    return counted(len(authorities(read(path, limit=limits.JSON_MAX), where=str(path))), "certificate")


def pair(certificate: Path, key: Path, at: datetime) -> x509.Certificate:
    """The first certificate, which is that of the key, and valid.

    Raises:
        WeighbridgeError: a file cannot be read or is another's; ``CHAIN_EXPIRED``.
    """
    first = authorities(read(certificate, limit=limits.JSON_MAX), where=str(certificate))[0]
    try:
        private = load_pem_private_key(read(key, limit=limits.CERT_MAX), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(
            Code.KEY_MALFORMED, "not a private key in PEM without a password", where=str(key)
        ) from error
    if private.public_key() != first.public_key():
        raise MalformedEvidence(
            Code.KEY_MALFORMED,
            "the key is not that of the certificate",
            where=str(key),
            got=str(certificate),
            hint="name the key that the certificate was issued for, and its certificate first in the file",
        )
    if not first.not_valid_before_utc <= at <= first.not_valid_after_utc:
        raise NotAuthentic(
            Code.CHAIN_EXPIRED,
            "the server's certificate is not valid now",
            where=str(certificate),
            expected=f"{first.not_valid_before_utc:%Y-%m-%d}..{first.not_valid_after_utc:%Y-%m-%d}",
        )
    return first
