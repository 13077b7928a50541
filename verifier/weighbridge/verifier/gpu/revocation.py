"""Whether a certificate of a verified chain has been revoked, as far as archived statements of its issuers say.

Statements are OCSP responses (:mod:`.ocsp`) and lists of revoked certificates (:mod:`.issuer_crl`). Nothing is fetched:
whoever has statements may deliver them, since their issuers signed them.

The procedure of :meth:`Statements.judge`, for every certificate of the chain but a root:

1. Of the statements at hand, those about this certificate that its issuer, or the issuer's delegate, signed. Whatever
   cannot be read, or is a stranger's, is left aside: junk beside honest evidence spoils nothing. It is reported.
2. A delegate whom a list of the issuer's names is believed no more when it says *good* or *unknown*.
3. One that says *revoked* decides, of whatever age: revocation is for good, and no clock that is behind hides it.
4. What says *good* or *unknown* and was not yet produced at the stated time is left aside, and reported.
5. Of responses and of lists, the newest counts each. If one of them says *hold*, the certificate is on hold: only what
   is newer, from the same kind of source, lifts it.
6. If the newest of all says *unknown*, it is *unknown*: an older *good* never hides it.
7. Otherwise it is *good* while one of the statements is current: between this update and the next, and within its
   delegate's validity. Without a next update a statement is current at no time: there may be a newer one at any moment
   (RFC 6960 §4.2.2.1). If none is current, it is *stale*; if there is none at all, *absent*.

The worst of the chain's certificates decides, in this order of badness::

    good < stale < absent < unknown < hold < revoked

*Absent* is worse than *stale*: whoever delivers statements can leave them out, so that nothing gets better by that.
What follows from any of them is for policy to say. **Good proves nothing of issuance**: see :mod:`.ocsp`.

A device's leaf certifies the attestation key and is issued by the chip itself, of whose certificates nobody publishes
anything: :func:`device_revocation` begins with the chip's own certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import spki_der
from weighbridge.verifier.gpu import ocsp
from weighbridge.verifier.gpu.chain import without_number
from weighbridge.verifier.gpu.issuer_crl import parse_crl, verify_issuer_crl
from weighbridge.verifier.gpu.ocsp import Authority, verify_ocsp
from weighbridge.verifier.gpu.standing import STATUSES, Ignored, RevocationStatus, Word, decide

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor
    from weighbridge.verifier.gpu.issuer_crl import IssuerCrl
    from weighbridge.verifier.gpu.ocsp import OcspResponse

__all__ = [
    "STATUSES",
    "Ignored",
    "Link",
    "Revocation",
    "RevocationStatus",
    "Statements",
    "chain_revocation",
    "device_revocation",
]

# Chains whose statements are looked up once: those of a fleet's devices.
_CHAINS_MAX: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What is known of one certificate.

    Attributes:
        subject: its name, as RFC 4514 writes it, without the number by which a chip is known.
        serial: its serial number.
        status: see the module.
        detail: one sentence for people.
        used: SHA-256 of each statement that decided.
        until: when *good* turns *stale*; ``None`` for any other status.
    """

    subject: str
    serial: int
    status: RevocationStatus
    detail: str
    used: tuple[bytes, ...]
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What is known of a chain at a stated time: the worst of its links.

    Attributes:
        status: see the module.
        detail: one sentence for people, about the worst link.
        links: from the leaf up.
        ignored: statements about these certificates, or unreadable, that were left aside.
    """

    status: RevocationStatus
    detail: str
    links: tuple[Link, ...]
    ignored: tuple[Ignored, ...]

    @property
    def used(self) -> tuple[bytes, ...]:
        """SHA-256 of each statement that decided, in ascending order."""
        return tuple(sorted({digest for link in self.links for digest in link.used}))

    @property
    def until(self) -> datetime | None:
        """When *good* turns *stale*; ``None`` for any other status."""
        ends = [link.until for link in self.links if link.until is not None]
        return min(ends) if self.status == "good" and ends else None


@final
class Statements:
    """Statements at hand, read once, and verified once for each certificate that they are asked about.

    Safe to share between threads. Made by :meth:`of`.
    """

    __slots__ = ("_by_serial", "_known", "_lists", "_unreadable", "_verified")

    def __init__(
        self, responses: Iterable[OcspResponse], lists: Iterable[IssuerCrl], unreadable: Iterable[Ignored]
    ) -> None:
        self._by_serial: dict[int, list[OcspResponse]] = {}
        for response in responses:
            self._by_serial.setdefault(response.cert_id.serial, []).append(response)
        self._lists = tuple(lists)
        self._unreadable = tuple(unreadable)
        # What is kept is the outcome of a verification, which no time enters: the same always.
        self._verified: dict[tuple[bytes, bytes, bytes], Word | Ignored | None] = {}
        # By which objects they are: a certificate's hash is taken of all its bytes each time. An entry keeps its own.
        self._known: dict[tuple[Anchor | int | None, ...], tuple[Sequence[x509.Certificate], tuple[_Fact, ...]]] = {}

    @classmethod
    def of(cls, responses: Iterable[bytes], crls: Iterable[bytes] = ()) -> Self:
        """Read statements; those that cannot be read are reported with every judgement.

        Args:
            responses: OCSP responses in DER; untrusted.
            crls: lists in DER, of any authority; untrusted.
        """
        read: list[OcspResponse] = []
        lists: list[IssuerCrl] = []
        unreadable: list[Ignored] = []
        for data in dict.fromkeys(responses):
            try:
                read.append(ocsp.parse(data))
            except MalformedEvidence as error:
                unreadable.append(Ignored(sha256(data), f"{error.code}: {error.message}"))
        for data in dict.fromkeys(crls):
            try:
                lists.append(parse_crl(data))
            except MalformedEvidence as error:
                unreadable.append(Ignored(sha256(data), f"{error.code}: {error.message}"))
        return cls(read, lists, unreadable)

    def judge(self, chain: Sequence[x509.Certificate], *, at: datetime, anchor: Anchor | None = None) -> Revocation:
        """What is known of ``chain``, by the procedure in the module's docstring.

        Args:
            chain: verified by the caller, leaf first; a certificate that issued itself is a root, and not asked about.
            at: aware; the time of the judgement.
            anchor: the authority that issued the last certificate, where that is not in the chain.

        Raises:
            ValueError: ``at`` is naive, or the chain is empty.
        """
        if at.tzinfo is None:
            raise ValueError("naive time")
        if not chain:
            raise ValueError("no chain")
        ignored = list(self._unreadable)
        links: list[Link] = []
        for fact in self._facts(chain, anchor):
            ignored += fact.ignored
            # 3. to 7.
            links.append(_link(fact, at, ignored))
        if not links:
            return Revocation(
                status="absent", detail="a root alone: nobody says anything of it", links=(), ignored=tuple(ignored)
            )
        worst = max(links, key=lambda link: STATUSES.index(link.status))
        return Revocation(status=worst.status, detail=worst.detail, links=tuple(links), ignored=tuple(ignored))

    def _facts(self, chain: Sequence[x509.Certificate], anchor: Anchor | None) -> tuple[_Fact, ...]:
        """What is said of each certificate, at whatever time: steps 1 and 2."""
        key = anchor, *map(id, chain)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        facts = tuple(self._fact(certificate, issuer) for certificate, issuer in _links(chain, anchor))
        if len(self._known) >= _CHAINS_MAX:
            # Whoever is asked about again is looked up again.
            self._known.clear()
        self._known[key] = tuple(chain), facts
        return facts

    def _fact(self, certificate: x509.Certificate, issuer: _Issuer | None) -> _Fact:
        # 1.
        found = [] if issuer is None else list(self._words(certificate, issuer))
        ignored = [word for word in found if isinstance(word, Ignored)]
        words = [word for word in found if isinstance(word, Word)]
        # 2.
        disowned = [word for word in words if issuer is not None and self._is_disowned(word, issuer)]
        ignored += [Ignored(word.digest, "the delegate that signed it has been revoked") for word in disowned]
        return _Fact(
            without_number(certificate.subject),
            certificate.serial_number,
            issuer is not None,
            tuple(word for word in words if word not in disowned),
            tuple(ignored),
        )

    def _words(self, certificate: x509.Certificate, issuer: _Issuer) -> Iterable[Word | Ignored]:
        for response in self._by_serial.get(certificate.serial_number, ()):
            key = (response.digest, certificate.tbs_certificate_bytes, issuer.spki)
            if key not in self._verified:
                self._verified[key] = _said(response, certificate, issuer.authority)
            word = self._verified[key]
            if word is not None:
                yield word
        for crl in self._lists:
            if crl.issuer == issuer.authority.name:
                yield self._listed(crl, certificate.serial_number, issuer)

    def _listed(self, crl: IssuerCrl, serial: int, issuer: _Issuer) -> Word | Ignored:
        key = (crl.digest, b"", issuer.spki)
        if key not in self._verified:
            self._verified[key] = _authentic(crl, issuer)
        refused = self._verified[key]
        if isinstance(refused, Ignored):
            return refused
        return Word(
            source="crl",
            digest=crl.digest,
            says=crl.entries.get(serial, "good"),
            this_update=crl.this_update,
            begin=crl.this_update,
            end=crl.next_update,
        )

    def _is_disowned(self, word: Word, issuer: _Issuer) -> bool:
        if word.delegate is None or word.says in ("hold", "revoked"):
            return False
        return any(
            isinstance(self._listed(crl, word.delegate, issuer), Word)
            for crl in self._lists
            if crl.issuer == issuer.authority.name and word.delegate in crl.entries
        )


def chain_revocation(
    chain: Sequence[x509.Certificate],
    responses: Sequence[bytes],
    *,
    at: datetime,
    crls: Sequence[bytes] = (),
    anchor: Anchor | None = None,
) -> Revocation:
    """What ``responses`` and ``crls`` say of ``chain``: :meth:`Statements.judge` of statements read for this once.

    Raises:
        ValueError: ``at`` is naive, or the chain is empty.
    """
    return Statements.of(responses, crls).judge(chain, at=at, anchor=anchor)


def device_revocation(
    chain: Sequence[x509.Certificate], statements: Statements, *, at: datetime, anchor: Anchor | None = None
) -> Revocation:
    """What ``statements`` say of a device's chain, from the chip's own certificate (``chain[1]``) up.

    Raises:
        ValueError: ``at`` is naive, or there is no certificate but the leaf.
    """
    return statements.judge(chain[1:], at=at, anchor=anchor)


@dataclass(frozen=True, slots=True)
class _Fact:
    """What is said of one certificate; ``has_issuer``: whether there is anybody to say something."""

    subject: str
    serial: int
    has_issuer: bool
    words: tuple[Word, ...]
    ignored: tuple[Ignored, ...]


@dataclass(frozen=True, slots=True)
class _Issuer:
    authority: Authority
    spki: bytes
    signs_lists: bool


def _link(fact: _Fact, at: datetime, ignored: list[Ignored]) -> Link:
    status, deciding, detail = decide(fact.words, at, ignored)
    if not fact.has_issuer:
        detail = "its issuer is not in the chain, or has a key of another kind than P-256 and P-384"
    ends = [word.end for word in deciding if word.end is not None]
    return Link(
        subject=fact.subject,
        serial=fact.serial,
        status=status,
        detail=f"{fact.subject}: {detail}",
        used=tuple(sorted({word.digest for word in deciding})),
        until=max(ends) if status == "good" else None,
    )


def _links(
    chain: Sequence[x509.Certificate], anchor: Anchor | None
) -> Iterable[tuple[x509.Certificate, _Issuer | None]]:
    """Each certificate that somebody else has issued, and who that is, where it is known."""
    for certificate, above in pairwise(chain):
        yield certificate, _issuer(above.subject, above.public_key(), spki_der(above), signs_lists=_signs_lists(above))
    top = chain[-1]
    if top.subject == top.issuer or (anchor is not None and anchor.spki == spki_der(top)):
        return
    yield top, None if anchor is None else _issuer(top.issuer, anchor.key(), anchor.spki, signs_lists=True)


def _issuer(name: x509.Name, key: object, spki: bytes, *, signs_lists: bool) -> _Issuer | None:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    return _Issuer(Authority(name, key), spki, signs_lists)


def _signs_lists(certificate: x509.Certificate) -> bool:
    """RFC 5280 §6.3.3 (f)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _said(response: OcspResponse, certificate: x509.Certificate, issuer: Authority) -> Word | Ignored | None:
    """What the response says; ``None`` where it is about another authority's certificate of this serial number."""
    if response.cert_id != issuer.cert_id(certificate, response.cert_id.algorithm):
        return None
    try:
        delegate = verify_ocsp(response, certificate, issuer).delegate
    except NotAuthentic as error:
        return Ignored(response.digest, f"{error.code}: {error.message}")
    begins, ends = [response.this_update, response.produced_at], [response.next_update]
    if delegate is not None:
        begins.append(delegate.not_valid_before_utc)
        ends.append(delegate.not_valid_after_utc)
    return Word(
        source="ocsp",
        digest=response.digest,
        says=response.status,
        this_update=response.this_update,
        begin=max(begins),
        end=None if response.next_update is None else min(end for end in ends if end is not None),
        since=response.revoked_at,
        delegate=None if delegate is None else delegate.serial_number,
    )


def _authentic(crl: IssuerCrl, issuer: _Issuer) -> Ignored | None:
    if not issuer.signs_lists:
        return Ignored(crl.digest, "CRL_INVALID: its issuer may not sign lists")
    try:
        verify_issuer_crl(crl, issuer.authority)
    except NotAuthentic as error:
        return Ignored(crl.digest, f"{error.code}: {error.message}")
    return None
