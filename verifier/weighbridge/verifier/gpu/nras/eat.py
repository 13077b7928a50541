"""Parses an answer of NVIDIA's attestation service: a detached EAT bundle (RFC 9711 §4.2.18.2) in NVIDIA's JSON.

.. code-block:: text

    [["JWT", overall], {"GPU-0": token, "GPU-1": token, "SWITCH-0": token}]

Each token is a compact JWS. Says nothing of truth: signatures, digests, nonce and times are verified in :mod:`.verify`.

>>> parse(b"[]")
Traceback (most recent call last):
    ...
weighbridge.proto.errors.MalformedEvidence: NRAS_MALFORMED: not an overall token and device tokens, at nras
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DetachedEat", "Token", "malformed", "parse"]

_PARTS: Final = 3
_PAIR: Final = 2
_DEVICE: Final = re.compile(r"(?:GPU|SWITCH)-(?:0|[1-9][0-9]{0,2})")


@dataclass(frozen=True, slots=True)
class Token:
    """One JWT as it was sent. Nothing of it is believed yet.

    Attributes:
        raw: the compact serialisation, ASCII: what the digest of a device token is of.
        header: the JOSE header.
        claims: the claims set.
        signed: the bytes under the signature.
        signature: of any length, empty too.
    """

    raw: bytes
    header: Mapping[str, strict.JsonValue]
    claims: Mapping[str, strict.JsonValue]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str, *, where: str) -> Self:
        """Read a compact JWS (RFC 7515 §7.1) whose payload is a claims set.

        Raises:
            MalformedEvidence: ``NRAS_MALFORMED``, ``TOO_LARGE`` or a decoding code.
        """
        if len(text) > limits.TOKEN_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE, "the token is too large", where=where, expected=f"<= {limits.TOKEN_MAX} bytes"
            )
        parts = text.split(".")
        if len(parts) != _PARTS:
            raise malformed("not a compact JWT", where, clause="RFC 7519 §3")
        header, claims = (
            _object(part, f"{where}.{name}") for part, name in zip(parts[:2], ("header", "claims"), strict=True)
        )
        signature = strict.base64url_decode(parts[2], what=f"{where}.signature")
        # Base64 is ASCII, and nothing else is left in the text.
        raw = text.encode("ascii")
        return cls(raw, header, claims, raw[: raw.rindex(b".")], signature)


@dataclass(frozen=True, slots=True)
class DetachedEat:
    """An answer: the token over all, and the tokens of the devices by their names. Made by :func:`parse` only."""

    raw: bytes
    overall: Token
    devices: Mapping[str, Token]


def parse(data: bytes) -> DetachedEat:
    """The answer that ``data`` is.

    Raises:
        MalformedEvidence: ``NRAS_MALFORMED``, ``TOO_LARGE``, or a decoding code such as ``DUPLICATE_KEY``.
    """
    answer = strict.json_decode(data, what="nras", limit=limits.NRAS_ANSWER_MAX)
    if not isinstance(answer, list) or len(answer) != _PAIR:
        raise malformed("not an overall token and device tokens", "nras")
    overall, detached = answer
    if not isinstance(overall, list) or len(overall) != _PAIR or overall[0] != "JWT" or not isinstance(overall[1], str):
        raise malformed("not the overall token", "nras[0]")
    if not isinstance(detached, dict) or not 1 <= len(detached) <= limits.GPUS_MAX:
        raise malformed(f"not from 1 to {limits.GPUS_MAX} device tokens", "nras[1]")
    devices: dict[str, Token] = {}
    for name, text in detached.items():
        if not _DEVICE.fullmatch(name) or not isinstance(text, str):
            raise malformed("not a device and its token", "nras[1]", got=name[: limits.NAME_MAX])
        devices[name] = Token.parse(text, where=f"nras.{name}")
    return DetachedEat(data, Token.parse(overall[1], where="nras.overall"), MappingProxyType(devices))


def malformed(message: str, where: str, *, got: object = None, clause: str = "") -> MalformedEvidence:
    """``NRAS_MALFORMED``."""
    return MalformedEvidence(Code.NRAS_MALFORMED, message, where=where, got=got, clause=clause)


def _object(part: str, where: str) -> Mapping[str, strict.JsonValue]:
    value = strict.json_decode(strict.base64url_decode(part, what=where), what=where, limit=limits.TOKEN_MAX)
    if not isinstance(value, dict):
        raise malformed("not an object", where)
    return MappingProxyType(value)
