"""Who is at the other end of a channel, and in which role: an attester or a relying party, never both.

The transport has verified the peer's certificate against all authorities together, and says neither which one issued
it nor for what. So roles are told apart here:

1. A relying party is whose key is listed as one, whoever issued its certificate.
2. An attester is anybody else. Where relying parties have an authority of their own, only if the attesters' authority
   issued its certificate, directly: else the other authority could admit attesters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.verifier.relying_parties import RelyingParties, RelyingParty

__all__ = ["Peers", "authorities"]


@final
class Peers:
    """Tells attesters and relying parties apart.

    Args:
        parties: the relying parties.
        attesters: the authorities that may admit attesters, where there are others as well; ``None``: there are none.
    """

    __slots__ = ("_attesters", "_keys", "parties")

    def __init__(self, parties: RelyingParties, attesters: Sequence[x509.Certificate] | None = None) -> None:
        self.parties: Final = parties
        self._keys = parties.keys()
        self._attesters = attesters

    def attester(self, certificates: Iterable[bytes]) -> bytes:
        """The key of a peer that may attest: SHA-256 of the SubjectPublicKeyInfo of its certificate.

        Args:
            certificates: PEM, as the transport gives them; it has verified them.

        Raises:
            NotAuthentic: ``WINDOW_PEER`` without a certificate; ``PEER_ROLE``.
        """
        certificate, key = _certificate(certificates)
        if key in self._keys:
            raise NotAuthentic(
                Code.PEER_ROLE,
                "this key is that of a relying party, which does not attest",
                where="channel",
                got=key,
                hint="give the attester a key of its own",
            )
        if self._attesters is not None and not any(_issued(certificate, by) for by in self._attesters):
            raise NotAuthentic(
                Code.PEER_ROLE,
                "the certificate is not one of the attesters' authority",
                where="channel",
                got=key,
                hint="admit the attester: weighbridge admit",
            )
        return key

    def relying_party(self, certificates: Iterable[bytes]) -> RelyingParty:
        """The peer, which is a relying party.

        Args:
            certificates: as for :meth:`attester`.

        Raises:
            NotAuthentic: ``WINDOW_PEER`` without a certificate; ``RELYING_PARTY_UNKNOWN``.
        """
        return self.parties.party(_certificate(certificates)[1])


def authorities(pem: bytes, *, where: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file of authorities, at least one.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED``.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise MalformedEvidence(Code.CERT_MALFORMED, f"not certificates in PEM: {error}", where=where) from error


def _certificate(certificates: Iterable[bytes]) -> tuple[x509.Certificate, bytes]:
    listed = list(certificates)
    if len(listed) != 1:
        raise NotAuthentic(Code.WINDOW_PEER, "the channel has no client certificate", where="channel")
    certificate = x509.load_pem_x509_certificate(listed[0])
    der = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate, sha256(der)


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the one was issued by the other; the transport has checked validity and purpose."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
