"""Proves that a reference manifest is its maker's: from bytes to :class:`VerifiedRim`.

The procedure of :func:`verify_rim`; it stops at the first step that fails:

1. the document is in the accepted form and has one enveloped signature (:mod:`.dsig`, :mod:`.strict_xml`);
2. the certificates in it, leaf first, lead to an anchor of purpose ``nvidia-rim-root`` and are all valid at the stated
   time (:func:`weighbridge.verifier.certs.verify_chain`); the leaf's key is P-384, may sign and may not certify;
3. the signature verifies under the leaf's key over the canonical ``SignedInfo``, whose digest is the content's;
4. the content, the very bytes that were digested, is a SWID tag of the known form (:mod:`.swid`).

Left to the caller: revocation of the certificates (:attr:`VerifiedRim.chain`), whether a newer issue exists
(:mod:`.issues`), minimum versions (policy), and that the manifest is still valid when it is used later
(:meth:`VerifiedRim.is_valid`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.verifier import certs
from weighbridge.verifier.gpu.rim import dsig, swid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor, TrustAnchors
    from weighbridge.verifier.gpu.rim.swid import RimEntry, RimKind, SwidTag

__all__ = ["VerifiedRim", "verify_rim"]

_CHAIN: Final = "rim.chain"
_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedRim:
    """Reference measurements that the maker signed. Made by :func:`verify_rim` only.

    For which board a VBIOS is meant is in no signed byte: ``id`` is what is signed, and is not the id by which NVIDIA's
    service hands a manifest out. The seal guards against mistakes, not against hostile code in the same process.

    Attributes:
        id: ``<chip> <kind> <version>``, such as ``GH100 driver 550.144.03``.
        kind: ``driver``, ``vbios`` or ``switch``.
        product: the chip.
        version: of driver or VBIOS.
        tag_id: names the tag; the issues of one have the same.
        platform: the anchor's: ``nvidia`` or ``insecure-emulated``.
        issued: from when the signer's certificate is valid. NVIDIA makes one for each issue.
        not_before: the latest beginning of validity in the chain, anchor included.
        not_after: the earliest end.
        entries: by index, from 0.
        active: those of the entries that are compared, ascending.
        indices: theirs.
        digest: SHA-256 of the file. A signature can be malleated: one issue may have several.
        content_digest: SHA-256 of what was signed.
        chain: certificates, leaf first, as they came: with or without the root's own. For revocation.
        anchor: the root that vouches for them.
    """

    seal: object
    id: str
    kind: RimKind
    product: str
    version: str
    tag_id: str
    platform: str
    issued: datetime
    not_before: datetime
    not_after: datetime
    entries: Mapping[int, RimEntry]
    active: tuple[RimEntry, ...]
    indices: frozenset[int]
    digest: bytes
    content_digest: bytes
    chain: tuple[x509.Certificate, ...]
    anchor: Anchor

    def __post_init__(self) -> None:
        """Refuse to be built by anything but the verification."""
        if self.seal is not _SEAL:
            raise TypeError("a VerifiedRim is made by verify_rim")

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a verified object does not come back from bytes."""
        raise TypeError("a VerifiedRim is made by verify_rim")

    def is_valid(self, at: datetime) -> bool:
        """Whether every certificate, and the anchor, is valid at ``at``."""
        return self.not_before <= at <= self.not_after


def verify_rim(data: bytes, *, anchors: TrustAnchors, at: datetime) -> VerifiedRim:
    """The manifest that ``data`` is, by the procedure in the module's docstring.

    Args:
        data: a file as the maker publishes it; untrusted.
        anchors: those of purpose ``nvidia-rim-root`` are used; without one nothing is trusted.
        at: aware; the time at which validity is judged.

    Raises:
        MalformedEvidence: ``RIM_MALFORMED``, ``TOO_LARGE``, ``NOT_UTF8``, ``NOT_BASE64``, ``NOT_HEX``,
            ``NOT_A_NUMBER``, ``FIELD_RANGE``; ``CERT_MALFORMED``, ``KEY_UNSUPPORTED`` or ``KEY_MALFORMED`` for a
            certificate in it.
        NotAuthentic: ``RIM_CHAIN`` for a signer that is not the maker's, ``RIM_EXPIRED`` for one that is not valid at
            ``at``, ``RIM_SIG``.
        ValueError: ``at`` is naive.
    """
    # 1.
    document = dsig.parse(data)
    # 2.
    chain = tuple(
        certs.load_certificate(der, f"{_CHAIN}[{number}]") for number, der in enumerate(document.certificates)
    )
    try:
        anchor = certs.verify_chain(chain, anchors.select("nvidia-rim-root"), at=at, what=_CHAIN)
    except NotAuthentic as error:
        raise NotAuthentic(
            Code.RIM_EXPIRED if error.code is Code.CHAIN_EXPIRED else Code.RIM_CHAIN,
            f"the signer of the manifest is not accepted: {error.message}",
            where=error.where,
            expected=error.expected,
            got=error.got,
            clause=error.clause,
            hint="Get the newest issue of the manifest." if error.code is Code.CHAIN_EXPIRED else error.hint,
        ) from error
    key = _signer(chain[0])
    # 3.
    dsig.check_signature(document, key)
    # 4.
    tag = swid.parse(document.content)
    return VerifiedRim(
        seal=_SEAL,
        id=rim_id(tag),
        kind=tag.kind,
        product=tag.product,
        version=tag.version,
        tag_id=tag.tag_id,
        platform=anchor.platform,
        issued=chain[0].not_valid_before_utc,
        not_before=max([anchor.not_before, *(item.not_valid_before_utc for item in chain)]),
        not_after=min([anchor.not_after, *(item.not_valid_after_utc for item in chain)]),
        entries=MappingProxyType({entry.index: entry for entry in tag.entries}),
        active=tuple(sorted((entry for entry in tag.entries if entry.active), key=lambda entry: entry.index)),
        indices=frozenset(entry.index for entry in tag.entries if entry.active),
        digest=sha256(data),
        content_digest=sha256(document.content),
        chain=chain,
        anchor=anchor,
    )


def rim_id(tag: SwidTag) -> str:
    """What the tag's own fields say it is of."""
    return f"{tag.product} {tag.kind} {tag.version}"


def _signer(leaf: x509.Certificate) -> ec.EllipticCurvePublicKey:
    where = f"{_CHAIN}[0]"
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise NotAuthentic(Code.RIM_CHAIN, "the signer's key is not P-384", where=where)
    extensions = {extension.oid: extension.value for extension in leaf.extensions}
    usage, constraints = extensions.get(x509.KeyUsage.oid), extensions.get(x509.BasicConstraints.oid)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature or usage.key_cert_sign:
        raise NotAuthentic(Code.RIM_CHAIN, "the signer may not sign, or may certify", where=where)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise NotAuthentic(Code.RIM_CHAIN, "the signer is an authority", where=where)
    return key
