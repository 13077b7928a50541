"""One token of an answer: the checks that the overall token and each device's have to pass alike.

The order is that of :func:`weighbridge.verifier.gpu.nras.verify.verify_nras`, whose steps these are.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.verifier.gpu.nras import eat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.gpu.nras.eat import DetachedEat, Token

__all__ = ["ISSUERS", "ReadToken", "check_header", "claimed_beginning", "text"]

# The one table of issuers: each with its algorithm (RFC 8725 §3.1). Anything else is rejected by absence, such as
# NVIDIA's staging service.
ISSUERS: Final[Mapping[str, str]] = {"https://nras.attestation.nvidia.com": "ES384"}
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_ES384: Final = "RFC 7518 §3.4"
_SIGNATURE_SIZE: Final = 96
# How far the service's clock may run ahead of the verifier's.
_SKEW: Final = timedelta(seconds=5)
# The end of the year 9999 in seconds since 1970: no time after it can be told.
_TIME_MAX: Final = 253_402_300_799


def check_header(token: Token, where: str) -> None:
    """Require a pinned algorithm, and no header member that brings a key or changes what the signature is of.

    Raises:
        NotAuthentic: ``NRAS_ALG``.
    """
    algorithm = token.header.get("alg")
    if algorithm not in ISSUERS.values():
        raise NotAuthentic(
            Code.NRAS_ALG,
            "the algorithm is not the service's",
            where=f"{where}.header.alg",
            expected=" or ".join(sorted(set(ISSUERS.values()))),
            got=strict.json_encode(algorithm).decode(),
            clause="RFC 8725 §3.1",
        )
    others = sorted(token.header.keys() - _HEADER)
    if others:
        raise NotAuthentic(
            Code.NRAS_ALG,
            "the header has members that the service's has not",
            where=f"{where}.header",
            expected="alg, kid, typ",
            got=", ".join(others),
            clause="RFC 8725 §3.10",
        )


def claimed_beginning(answer: DetachedEat) -> datetime:
    """When ``answer`` says that it was given: to look up the key sets of that time, and for nothing else.

    Raises:
        MalformedEvidence: ``NRAS_MALFORMED``, without times.
        NotAuthentic: ``NRAS_ALG``, which is refused before anything else is read.
    """
    check_header(answer.overall, "nras.overall")
    return ReadToken.of(answer.overall, "nras.overall").since


@final
@dataclass(frozen=True, slots=True)
class ReadToken:
    """A token and what every token has, as claimed: believed only once the signature is.

    Attributes:
        token: as it was sent.
        where: its place, for messages.
        since: the earlier of ``iat`` and ``nbf``: from then on its key has to be good.
        starts: the later of the two.
        until: ``exp``.
        issuer: ``iss``.
    """

    token: Token
    where: str
    since: datetime
    starts: datetime
    until: datetime
    issuer: str

    @classmethod
    def of(cls, token: Token, where: str) -> Self:
        """What ``token`` claims.

        Raises:
            MalformedEvidence: ``NRAS_MALFORMED`` without an issuer or times, or with an end before the beginning.
        """
        issued, starts, until = (_time(token, name, where) for name in ("iat", "nbf", "exp"))
        if not max(issued, starts) < until:
            raise eat.malformed("ends before it begins", f"{where}.exp", clause="RFC 7519 §4.1.4")
        return cls(token, where, min(issued, starts), max(issued, starts), until, _claimed_text(token, "iss", where))

    def check_issuer(self) -> None:
        """Require a pinned issuer, and its algorithm.

        Raises:
            NotAuthentic: ``NRAS_ISSUER``.
        """
        if ISSUERS.get(self.issuer) != self.token.header.get("alg"):
            raise NotAuthentic(
                Code.NRAS_ISSUER,
                "the token is of another issuer",
                where=f"{self.where}.iss",
                expected=" or ".join(sorted(ISSUERS)),
                got=self.issuer,
                clause="RFC 8725 §3.8",
            )

    def check_audience(self) -> None:
        """Require that the token is addressed to nobody.

        Raises:
            NotAuthentic: ``NRAS_AUDIENCE``.
        """
        if "aud" in self.token.claims:
            raise NotAuthentic(
                Code.NRAS_AUDIENCE,
                "the token is addressed to an audience, which the service's are not",
                where=f"{self.where}.aud",
                got=strict.json_encode(self.token.claims["aud"]).decode(),
                clause="RFC 7519 §4.1.3",
            )

    def check_signature(self, key: ec.EllipticCurvePublicKey) -> None:
        """Require ECDSA with SHA-384 over the token by ``key``, which is P-384.

        Raises:
            NotAuthentic: ``NRAS_SIG``.
        """
        signature, half = self.token.signature, _SIGNATURE_SIZE // 2
        r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        reason = "the signature does not verify under the key that the token names"
        if len(signature) != _SIGNATURE_SIZE:
            raise NotAuthentic(Code.NRAS_SIG, reason, where=self.where, got=f"{len(signature)} bytes", clause=_ES384)
        try:
            key.verify(encode_dss_signature(r, s), self.token.signed, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature as error:
            raise NotAuthentic(Code.NRAS_SIG, reason, where=self.where, clause=_ES384) from error

    def check_nonce(self, nonce: bytes) -> None:
        """Require that the service was asked over ``nonce``.

        Raises:
            MalformedEvidence: ``NRAS_MALFORMED`` without a nonce.
            NotAuthentic: ``NRAS_NONCE``.
        """
        claimed = _claimed_text(self.token, "eat_nonce", self.where)
        if not hmac.compare_digest(claimed.encode(), nonce.hex().encode()):
            raise NotAuthentic(
                Code.NRAS_NONCE,
                "the service was asked over another nonce",
                where=f"{self.where}.eat_nonce",
                expected=nonce,
                got=claimed,
                clause="RFC 9711 §4.1",
                hint="It signs the nonce that it is sent: D('gpu', H) of the window, in lower-case hexadecimal.",
            )

    def check_time(self, at: datetime) -> None:
        """Require that ``at`` is within the token's life.

        Raises:
            NotAuthentic: ``NRAS_TIME``.
        """
        if not self.starts - _SKEW <= at < self.until:
            raise NotAuthentic(
                Code.NRAS_TIME,
                "the token is not valid at the time of judging",
                where=self.where,
                expected=f"{strict.time_encode(self.starts)}..{strict.time_encode(self.until)}",
                got=at.isoformat(),
                clause="RFC 7519 §4.1.4, §4.1.5",
            )


def text(value: strict.JsonValue, where: str) -> str:
    """``value``, which is to be a text of at most ``limits.NAME_MAX`` characters.

    Raises:
        MalformedEvidence: ``NRAS_MALFORMED``.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= limits.NAME_MAX:
        raise eat.malformed("not a text", where)
    return value


def _time(token: Token, claim: str, where: str) -> datetime:
    value = token.claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _TIME_MAX:
        raise eat.malformed("not a time in whole seconds", f"{where}.{claim}", clause="RFC 7519 §2")
    return datetime.fromtimestamp(value, UTC)


def _claimed_text(token: Token, claim: str, where: str) -> str:
    return text(token.claims.get(claim), f"{where}.{claim}")
