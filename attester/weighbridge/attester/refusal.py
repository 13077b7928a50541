"""What the verifier says in its answers, read strictly: refusals, and the part of a verdict that steers a session.

Nothing here is evidence: an attester believes its verifier, over a line that authenticates it. A field that a newer
verifier adds is passed over; one that is missing is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, Self, cast, get_args

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import (
    Code,
    EnvironmentFault,
    Indeterminate,
    LedgerInconsistent,
    MalformedEvidence,
    NotAuthentic,
    PolicyDenied,
    WeighbridgeError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DenialNotice", "Outcome", "Throttled", "VerdictNotice", "refusal_error", "token_expiry"]

Outcome = Literal["affirmed", "held", "indeterminate", "denied"]
_OUTCOMES: Final = frozenset(get_args(Outcome))
_SCHEMA: Final = "weighbridge/verdict/v1"
_DENIALS_MAX: Final = 4096
_JWT_PARTS: Final = 3
_SHORT: Final = 16
_RETRY_AFTER_MAX_MS: Final = 600_000
_ERRORS: Final[Mapping[int, type[WeighbridgeError]]] = {
    error.exit_code: error
    for error in (MalformedEvidence, NotAuthentic, PolicyDenied, Indeterminate, LedgerInconsistent, EnvironmentFault)
}


class Throttled(EnvironmentFault):
    """``RATE_LIMITED``: the same request may come again after ``retry_after_ns`` nanoseconds, on the same line."""

    def __init__(self, fault: WeighbridgeError, *, retry_after_ns: int) -> None:
        super().__init__(
            Code.RATE_LIMITED,
            fault.message,
            where=fault.where,
            expected=fault.expected,
            got=fault.got,
            hint=fault.hint or "it is asked again by itself",
        )
        self.retry_after_ns: Final = retry_after_ns


@dataclass(frozen=True, slots=True)
class DenialNotice:
    """One reason for a denial, as the verifier gave it. ``device`` is the GPU that it is about, if it is about one."""

    code: str
    message: str
    expected: str | None
    got: str | None
    hint: str | None
    device: str | None = None

    @property
    def text(self) -> str:
        """What it says, and of which GPU: the first digits of its identity tell a host's GPUs apart."""
        if self.device is None or self.device[:_SHORT] in self.message:
            return self.message
        return f"GPU {self.device[:_SHORT]}…: {self.message}"


@dataclass(frozen=True, slots=True)
class VerdictNotice:
    """A verdict as far as the session acts on it. ``document`` is the whole, for printing."""

    seq: int
    outcome: Outcome
    received: datetime
    denials: tuple[DenialNotice, ...]
    document: strict.JsonObject

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a verdict document.

        Raises:
            MalformedEvidence: it is not one.
        """
        document = _object(strict.json_decode(data, what="verdict"), "verdict")
        schema = _text(document, "schema")
        if schema != _SCHEMA:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown schema", where="verdict", expected=_SCHEMA, got=schema
            )
        outcome = _text(document, "outcome")
        seq, denials = document.get("seq"), document.get("denials")
        if outcome not in _OUTCOMES or not isinstance(seq, int) or isinstance(seq, bool):
            raise MalformedEvidence(Code.FIELD_RANGE, "not a verdict", where="verdict", got=outcome)
        if not isinstance(denials, list) or len(denials) > _DENIALS_MAX:
            raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where="verdict.denials", expected="array")
        received = strict.time_decode(_text(document, "received_at"), what="verdict.received_at")
        return cls(seq, cast("Outcome", outcome), received, tuple(_denial(item) for item in denials), document)


def refusal_error(exit_code: int, document: bytes, *, retry_after_ms: int = 0) -> WeighbridgeError:
    """The error that a refusal stands for: its class by ``exit_code``, its code and words from ``document``.

    A refusal that cannot be read is one still: ``PEER_REFUSED``. One with the code ``RATE_LIMITED`` is
    :class:`Throttled`; what it asks for is heeded up to ten minutes.
    """
    kind = _ERRORS.get(exit_code, EnvironmentFault)
    try:
        fields = _object(strict.json_decode(document, what="refusal", limit=limits.TERMS_MAX), "refusal")
        code, message = _optional(fields, "code") or Code.PEER_REFUSED.value, _text(fields, "message")
    except MalformedEvidence as error:
        return EnvironmentFault(
            Code.PEER_REFUSED, f"the verifier refused, and its reason cannot be read: {error}", where="verifier"
        )
    if code not in Code.__members__:
        message, code = f"{code}: {message}", Code.PEER_REFUSED.value
    refused = kind(
        Code(code),
        f"the verifier refused: {message}",
        where=_optional(fields, "where") or "",
        expected=_optional(fields, "expected"),
        got=_optional(fields, "got"),
        clause=_optional(fields, "clause") or "",
        hint=_optional(fields, "hint") or "",
    )
    if refused.code is Code.RATE_LIMITED:
        return Throttled(refused, retry_after_ns=min(retry_after_ms, _RETRY_AFTER_MAX_MS) * 1_000_000)
    return refused


def token_expiry(token: str) -> datetime:
    """When ``token`` says that it expires. Its signature is not checked: relying parties do that.

    Raises:
        MalformedEvidence: ``TOKEN_MALFORMED`` or a decoding code.
    """
    parts = token.split(".")
    if len(token) > limits.TOKEN_MAX or len(parts) != _JWT_PARTS:
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not a compact JWT", where="token", clause="RFC 7519 §3")
    payload = strict.json_decode(strict.base64url_decode(parts[1], what="token"), what="token", limit=limits.TOKEN_MAX)
    expires = _object(payload, "token").get("exp")
    if not isinstance(expires, int) or isinstance(expires, bool) or not 0 <= expires < 2**32:
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "no time of expiry", where="token.exp", clause="RFC 7519 §4.1.4")
    return datetime.fromtimestamp(expires, UTC)


def _denial(value: strict.JsonValue) -> DenialNotice:
    fields = _object(value, "verdict.denials")
    return DenialNotice(
        code=_text(fields, "code"),
        message=_text(fields, "message"),
        expected=_optional(fields, "expected"),
        got=_optional(fields, "got"),
        hint=_optional(fields, "hint"),
        device=_optional(fields, "device"),
    )


def _object(value: strict.JsonValue, where: str) -> strict.JsonObject:
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="object")
    return value


def _text(fields: strict.JsonObject, key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=key, expected="text")
    return value


def _optional(fields: strict.JsonObject, key: str) -> str | None:
    return None if fields.get(key) is None else _text(fields, key)
