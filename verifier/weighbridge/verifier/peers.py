"""Who is at the other end of a channel, and in which role: an attester or a relying party, never both.

The transport has verified the peer's certificate against all authorities together, and says neither which one issued
it nor for what. So roles are told apart here:

1. A relying party is whose key is listed as one, whoever issued its certificate; or who shows a token that is listed.
   Who shows both is the one that both name, or nobody.
2. An attester is anybody else who has a certificate; no token makes one. Where relying parties or a tenant have an
   authority of their own, only if one of the attesters' authorities issued its certificate, directly: else the relying
   parties' could admit attesters, and a tenant's, through an intermediate, those of another tenant.

The list of relying parties may change at any time; a relying party is asked for again while its watch lasts.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.relying_parties import RelyingParties, token_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from weighbridge.verifier.parties_watch import Parties
    from weighbridge.verifier.relying_parties import BearerToken, RelyingParty

__all__ = ["Admitted", "Peers", "Shown", "authorities", "issued"]

_SCHEME: Final = "bearer "
_HINT: Final = "the verifier's operator lists it: weighbridge serve --relying-parties"


@dataclass(frozen=True, slots=True)
class Admitted:
    """An attester: its key (SHA-256 of the SubjectPublicKeyInfo), its certificate, and until when that is good."""

    key: bytes
    until: datetime
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Shown:
    """By what a relying party says who it is.

    Attributes:
        certificates: of the channel, PEM, as gRPC gives them; the transport has verified them.
        authorization: values of the header of that name, untrusted.
    """

    certificates: tuple[bytes, ...]
    authorization: tuple[str, ...] = ()

    @classmethod
    def of_der(cls, certificate: bytes | None, authorization: Sequence[str] = ()) -> Shown:
        """The same from a certificate in DER that the transport has verified, if there is one: as :mod:`ssl` gives it.

        Raises:
            MalformedEvidence: ``CERT_MALFORMED``.
        """
        if certificate is None:
            return cls((), tuple(authorization))
        try:
            pem = x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
        except ValueError as error:
            raise MalformedEvidence(Code.CERT_MALFORMED, f"not a certificate: {error}", where="channel") from error
        return cls((pem,), tuple(authorization))


@dataclass(frozen=True, slots=True)
class _Listed:
    """A list, arranged to be looked up in. Of tokens the index is keyed: how long a look takes tells nothing."""

    parties: RelyingParties
    keys: frozenset[bytes]
    tokens: Mapping[bytes, tuple[RelyingParty, BearerToken]]


@final
class Peers:
    """Tells attesters and relying parties apart. Used in one thread.

    Args:
        parties: the relying parties.
        attesters: the authorities that may admit attesters, where there are others as well; ``None``: there are none.
        now: the machine's clock, aware UTC, by which the transport takes a certificate for good.
    """

    __slots__ = ("_attesters", "_listed", "_now_utc", "_parties", "_secret")

    def __init__(
        self,
        parties: Parties,
        attesters: Sequence[x509.Certificate] | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._parties = parties
        self._attesters = attesters
        self._now_utc = now
        self._secret = secrets.token_bytes(32)
        self._listed = self._arrange(parties.current())

    @property
    def listed(self) -> RelyingParties:
        """The relying parties as they are in force: the very same object until that changes."""
        return self._parties.current()

    def attester(self, certificates: Iterable[bytes]) -> Admitted:
        """A peer that may attest.

        Args:
            certificates: PEM, as the transport gives them; it has verified them.

        Raises:
            NotAuthentic: ``WINDOW_PEER`` without a certificate; ``PEER_ROLE``.
        """
        certificate, key = _certificate(certificates)
        if key in self._now().keys:
            raise NotAuthentic(
                Code.PEER_ROLE,
                "this key is that of a relying party, which does not attest",
                where="channel",
                got=key,
                hint="give the attester a key of its own",
            )
        if self._attesters is not None and not any(issued(certificate, by) for by in self._attesters):
            raise NotAuthentic(
                Code.PEER_ROLE,
                "the certificate is not one of the attesters' authority",
                where="channel",
                got=key,
                hint="admit the attester: weighbridge admit",
            )
        return Admitted(key, certificate.not_valid_after_utc, certificate)

    def relying_party(self, shown: Shown, *, at: datetime) -> RelyingParty:
        """The relying party that a peer is.

        Args:
            shown: by what it says so.
            at: the present, aware UTC.

        Raises:
            NotAuthentic: ``WINDOW_PEER`` with neither a certificate nor a token; ``RELYING_PARTY_UNKNOWN``, also for a
                certificate that is not good any more: the transport looked when the channel began.
        """
        listed = self._now()
        by_token = self._by_token(listed, shown.authorization, at)
        if by_token is not None and not shown.certificates:
            return by_token
        certificate, key = _certificate(shown.certificates)
        now, first, last = self._now_utc(), certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not first <= now <= last:
            raise NotAuthentic(
                Code.RELYING_PARTY_UNKNOWN,
                "the certificate of this relying party is not good now",
                where="channel",
                expected=f"{first.isoformat()} to {last.isoformat()}",
                got=now.isoformat(),
                hint="connect again, with one that is",
            )
        if by_token is None:
            return listed.parties.party(key)
        if key in listed.keys and listed.parties.party(key) != by_token:
            raise _unknown("the certificate is that of another relying party than the token")
        return by_token

    def _by_token(self, listed: _Listed, values: Sequence[str], at: datetime) -> RelyingParty | None:
        if not values:
            return None
        value = values[0]
        if len(values) > 1 or value[: len(_SCHEME)].lower() != _SCHEME:
            raise _unknown("the header is not one bearer token (RFC 6750 §2.1)")
        digest = token_digest(value[len(_SCHEME) :])
        found = listed.tokens.get(self._keyed(digest))
        if found is None or not hmac.compare_digest(strict.hex_decode(found[1].token_sha256, what="token"), digest):
            raise _unknown("this token is not that of a relying party of this verifier")
        party, token = found
        if at > token.until:
            raise _unknown(f"this token of {party.name} was good until {token.not_after}")
        return party

    def _now(self) -> _Listed:
        """The list as it is in force."""
        current = self._parties.current()
        if current is not self._listed.parties:
            self._listed = self._arrange(current)
        return self._listed

    def _arrange(self, parties: RelyingParties) -> _Listed:
        return _Listed(
            parties,
            parties.keys(),
            {
                self._keyed(strict.hex_decode(token.token_sha256, what="token")): (party, token)
                for party in parties.relying_parties
                for token in party.tokens
            },
        )

    def _keyed(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, hashlib.sha256)


def authorities(pem: bytes, *, where: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file of authorities, at least one.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED``.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise MalformedEvidence(Code.CERT_MALFORMED, f"not certificates in PEM: {error}", where=where) from error


def _unknown(message: str) -> NotAuthentic:
    return NotAuthentic(Code.RELYING_PARTY_UNKNOWN, message, where="authorization", hint=_HINT)


def _certificate(certificates: Iterable[bytes]) -> tuple[x509.Certificate, bytes]:
    listed = list(certificates)
    if len(listed) != 1:
        raise NotAuthentic(Code.WINDOW_PEER, "the channel has no client certificate", where="channel")
    certificate = x509.load_pem_x509_certificate(listed[0])
    der = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate, sha256(der)


def issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the one was issued by the other; the transport has checked validity and purpose."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
