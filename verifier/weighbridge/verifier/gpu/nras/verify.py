"""Proves what NVIDIA's attestation service signed, over which nonce, and when.

The procedure of :func:`verify_nras`; it stops at the first step that fails:

1. the answer and the archived key sets are well-formed, nothing in them stands twice;
2. every token, the devices' too: the algorithm is the pinned one (``none`` and HMAC are refused before anything else
   is read), and the header has no member but ``alg``, ``kid`` and ``typ``: a token that brings its key (``jwk``,
   ``x5c``) or says where to get it (``jku``, ``x5u``) is refused, not just not listened to;
3. every token is of a pinned issuer, whose algorithm it is;
4. no token is addressed to an audience: the service's have none, and one that has is somebody else's;
5. each signing key is in an archived set, under certificates that an anchor of purpose ``nras-root`` vouches for from
   the token's beginning to its end (:mod:`.jwks`); all of them under anchors of one platform;
6. ECDSA P-384 with SHA-384 over each token verifies under its key;
7. the overall token names the SHA-256 of each device's token: none is missing, none added, none exchanged;
8. every token's nonce is the declared one;
9. every token is valid at the time of judging.

Left to the caller: that the devices are those of the session (:meth:`VerifiedNras.require_devices`), what the claims
say against them (:meth:`VerifiedNras.require_agreement`), revocation of the service's certificates.

A token is no permission. It names no audience and no key of its bearer (RFC 8725 §3.9), so whoever holds it can show
it: what binds it is the nonce alone, which is ``D("gpu", H)`` over a header that names session, verifier and serving
key. Shown for another window, session or host it is for another nonce; and nothing here takes it for an authorisation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NoReturn, cast, final

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, PolicyDenied
from weighbridge.verifier.gpu.nonces import check_length
from weighbridge.verifier.gpu.nras import claims as judged
from weighbridge.verifier.gpu.nras import eat
from weighbridge.verifier.gpu.nras import jwks as published
from weighbridge.verifier.gpu.nras.tokens import ReadToken, check_header, text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.gpu.nras.claims import Contradiction
    from weighbridge.verifier.gpu.nras.eat import DetachedEat, Token
    from weighbridge.verifier.gpu.nras.jwks import KeySet, SigningKey

__all__ = ["VerifiedNras", "WitnessedDevice", "verify_nras"]

_VERSIONS: Final = frozenset({"2.0", "3.0"})
# A serial number has at most 160 bits (RFC 5280 §4.1.2.2): 49 digits.
_UEID: Final = re.compile(r"[1-9][0-9]{0,48}")
_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class WitnessedDevice:
    """What the service says of one device.

    Attributes:
        name: such as ``GPU-0``: its place in the request to the service. It names no device.
        kind: by that name.
        ueid: the serial number of the device's attestation certificate in decimal; ``None`` where the service got no so
            far.
        claims: all of them, as signed.
    """

    name: str
    kind: Literal["gpu", "switch"]
    ueid: str | None
    claims: Mapping[str, strict.JsonValue]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedNras:
    """What the service said over this nonce. Made by :func:`verify_nras` only.

    It is a witness's word: it admits nothing. The seal guards against mistakes, not against hostile code in the same
    process.

    Attributes:
        nonce: 32 bytes.
        issuer: a key of :data:`weighbridge.verifier.gpu.nras.tokens.ISSUERS`.
        version: of the claims: ``2.0`` or ``3.0``.
        platform: the anchor's: ``nvidia`` or ``insecure-emulated``.
        issued: the earliest beginning of a token.
        expires: the earliest end of one.
        claims: the overall token's.
        devices: in the order of the answer.
        contradictions: every claim that speaks against a device.
        warnings: what the service warns of; nothing is concluded from it.
        digest: SHA-256 of the answer.
    """

    nonce: bytes
    issuer: str
    version: str
    platform: str
    issued: datetime
    expires: datetime
    claims: Mapping[str, strict.JsonValue]
    devices: tuple[WitnessedDevice, ...]
    contradictions: tuple[Contradiction, ...]
    warnings: tuple[str, ...]
    digest: bytes
    seal: object = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse to be built by anything but the verification."""
        if self.seal is not _SEAL:
            raise TypeError("a VerifiedNras is made by verify_nras")

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a verified object does not come back from bytes."""
        raise TypeError("a VerifiedNras is made by verify_nras")

    @property
    def says(self) -> Literal["corroborates", "contradicts"]:
        """What its word comes to. The better one admits nothing."""
        return "contradicts" if self.contradictions else "corroborates"

    def require_agreement(self) -> None:
        """Require that nothing that the service says speaks against a device.

        Raises:
            PolicyDenied: ``NRAS_CONTRADICTS``, with the first of :attr:`contradictions`.
        """
        if self.contradictions:
            first, more = self.contradictions[0], len(self.contradictions) - 1
            raise PolicyDenied(
                Code.NRAS_CONTRADICTS,
                f"the service speaks against a device{f', and {more} times more' if more else ''}",
                where=f"nras.{first.claim}",
                expected=first.expected,
                got=first.got,
                hint="Compare with what the reports and manifests say here: one of the two is wrong.",
            )

    def require_devices(self, serials: Collection[int]) -> None:
        """Require that the service speaks of exactly these devices, each once, in whatever order.

        Args:
            serials: the serial numbers of the verified attestation certificates, GPUs' and switches'.

        Raises:
            NotAuthentic: ``NRAS_SUBMODS``.
        """
        named = sorted(device.ueid or "" for device in self.devices)
        expected = sorted(str(serial) for serial in serials)
        if named != expected:
            strangers = [ueid or "a device without a name" for ueid in named if ueid not in expected]
            raise NotAuthentic(
                Code.NRAS_SUBMODS,
                f"the service speaks of {len(named)} devices, which are not the {len(expected)} of the reports",
                where="nras.ueid",
                expected=", ".join(expected) or "none",
                got=", ".join(strangers or named),
            )


def verify_nras(
    data: bytes, *, jwks: Sequence[bytes], anchors: TrustAnchors, at: datetime, nonce: bytes
) -> VerifiedNras:
    """What the service said, by the procedure in the module's docstring.

    Args:
        data: the service's answer, untrusted: the JSON of a detached EAT bundle.
        jwks: archived key sets, untrusted.
        anchors: those of purpose ``nras-root`` are used; without one nothing is trusted.
        at: aware; the time of judging.
        nonce: what the service was asked over, 32 bytes: in a session ``D("gpu", H)`` of the window
            (:func:`weighbridge.proto.binding.gpu_nonce`). The service is sent its lower-case hexadecimal, and signs
            that; no other derivation is tried.

    Raises:
        MalformedEvidence: ``NRAS_MALFORMED``, ``VERSION_UNSUPPORTED``, ``CERT_MALFORMED`` or a decoding code.
        Indeterminate: ``NRAS_KEY_ABSENT``.
        NotAuthentic: ``NONCE_LENGTH``, ``NRAS_ALG``, ``NRAS_ISSUER``, ``NRAS_AUDIENCE``, ``NRAS_TIME``, ``NRAS_SIG``,
            ``NRAS_SUBMODS``, ``NRAS_NONCE``.
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    check_length(nonce)
    # 1.
    answer = eat.parse(data)
    tokens = _all(answer)
    # 2.
    for where, token in tokens:
        check_header(token, where)
    read = [ReadToken.of(token, where) for where, token in tokens]
    for each in read:
        # 3.
        each.check_issuer()
        # 4.
        each.check_audience()
    # 5. and 6.
    keys = _Keys([_parse_set(document, number) for number, document in enumerate(jwks)], anchors)
    for each in read:
        each.check_signature(keys.of(each).key)
    # 7.
    _check_digests(answer)
    # 8. and 9.
    for each in read:
        each.check_nonce(nonce)
        each.check_time(at)
    overall = read[0]
    devices = tuple(_device(name, each.token) for name, each in zip(answer.devices, read[1:], strict=True))
    return VerifiedNras(
        seal=_SEAL,
        nonce=nonce,
        issuer=overall.issuer,
        version=_version(overall.token),
        platform=keys.platform,
        issued=min(each.since for each in read),
        expires=min(each.until for each in read),
        claims=overall.token.claims,
        devices=devices,
        contradictions=(
            *judged.of_overall(overall.token.claims),
            *(found for device in devices for found in judged.of_device(device.name, device.claims)),
        ),
        warnings=tuple(text for device in devices for text in judged.warnings(device.name, device.claims)),
        digest=sha256(answer.raw),
    )


def _all(answer: DetachedEat) -> list[tuple[str, Token]]:
    return [("nras.overall", answer.overall), *((f"nras.{name}", token) for name, token in answer.devices.items())]


def _parse_set(document: bytes, number: int) -> KeySet:
    try:
        return published.parse(document)
    except MalformedEvidence as error:
        raise MalformedEvidence(
            error.code,
            f"key set {number}: {error.message}",
            where=error.where,
            expected=error.expected,
            got=error.got,
            clause=error.clause,
        ) from error


@final
class _Keys:
    """Signing keys, each verified once for one life of tokens: those of one answer have the same."""

    def __init__(self, sets: Sequence[KeySet], anchors: TrustAnchors) -> None:
        self._sets = sets
        self._anchors = anchors
        self._known: dict[tuple[str, datetime, datetime], SigningKey] = {}

    def of(self, read: ReadToken) -> SigningKey:
        """The key that signed this token, if any did."""
        name = text(read.token.header.get("kid"), f"{read.where}.header.kid")
        asked = (name, read.since, read.until)
        if asked not in self._known:
            self._known[asked] = published.signing_key(
                name, self._sets, self._anchors, since=read.since, until=read.until
            )
        found = self._known[asked]
        if found.anchor.platform != self.platform:
            raise NotAuthentic(
                Code.NRAS_ISSUER,
                "the tokens of one answer are of two platforms",
                where=read.where,
                expected=self.platform,
                got=found.anchor.platform,
            )
        return found

    @property
    def platform(self) -> str:
        """The anchor's, of the first key: all have the same."""
        return next(iter(self._known.values())).anchor.platform


def _check_digests(answer: DetachedEat) -> None:
    named = answer.overall.claims.get("submods")
    if not isinstance(named, dict):
        raise eat.malformed("not an object", "nras.overall.submods", clause="RFC 9711 §4.2.18")
    if named.keys() != answer.devices.keys():
        raise NotAuthentic(
            Code.NRAS_SUBMODS,
            "the device tokens are not those that the overall token names",
            where="nras.overall.submods",
            expected=", ".join(sorted(named)) or "none",
            got=", ".join(sorted(answer.devices)),
        )
    for name, token in answer.devices.items():
        if named[name] != ["DIGEST", ["SHA-256", sha256(token.raw).hex()]]:
            raise NotAuthentic(
                Code.NRAS_SUBMODS,
                "the device token is not the one that the overall token names",
                where=f"nras.overall.submods.{name}",
                expected=strict.json_encode(named[name]).decode(),
                got=sha256(token.raw),
                clause="RFC 9711 §4.2.18.2",
            )


def _device(name: str, token: Token) -> WitnessedDevice:
    ueid = token.claims.get("ueid")
    if ueid is not None and not (isinstance(ueid, str) and _UEID.fullmatch(ueid)):
        raise eat.malformed("not a serial number in decimal", f"nras.{name}.ueid")
    kind = cast('Literal["gpu", "switch"]', name.partition("-")[0].lower())
    return WitnessedDevice(name, kind, ueid, token.claims)


def _version(overall: Token) -> str:
    version = text(overall.claims.get("x-nvidia-ver"), "nras.overall.x-nvidia-ver")
    if version not in _VERSIONS:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED,
            "claims of a version that is not known here: what they say against a device could not be told",
            where="nras.overall.x-nvidia-ver",
            expected=" or ".join(sorted(_VERSIONS)),
            got=version,
        )
    return version
