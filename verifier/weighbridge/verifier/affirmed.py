"""What the last affirmed, fresh window of a session came to: enough to make its result token anew until it expires.

Kept as deterministic CBOR, one map, in the row of the session's standing (:mod:`.standings`). The row is this
verifier's own: what is checked is that it is well-formed, not that it is true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.terms import PERIOD_MAX_NS
from weighbridge.verifier.clock import moment
from weighbridge.verifier.result.claims import Claims
from weighbridge.verifier.result.issuing import Affirmation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["VERSION", "Affirmed"]

VERSION: Final = "weighbridge/affirmed/v1"
_SESSION_SIZE: Final = 16
_SECOND_NS: Final = 1_000_000_000
_SEQ_MAX: Final = 2**53
# AR4SI (draft-ietf-rats-ar4si-10 §2.3.1): a claim's value is a signed byte.
_CLAIM_MIN, _CLAIM_MAX = -128, 127
_WITHIN_MAX: Final = 2**31 - 1
# The reasons that authors write, nonces and vectors of 64 GPUs: all of it fits a token.
_TEXT_MAX: Final = limits.TOKEN_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Affirmed:
    """What a token says of an affirmed, fresh window, and what it expires by.

    Attributes:
        claims: what the token says; ``audience`` is that of the session's terms.
        received_ns: receipt of the window, nanoseconds since 1970.
        period_ns: of the session's windows.
        within: seconds after which the policy obliges the host to be attested anew, where it does.
    """

    claims: Claims
    received_ns: int
    period_ns: int
    within: int | None

    @property
    def expires_ns(self) -> int:
        """When it expires: nanoseconds since 1970, a whole second, as in the token (``docs/protocol.md`` §8)."""
        return int(self.affirmation.expires.timestamp()) * _SECOND_NS

    @property
    def affirmation(self) -> Affirmation:
        """The same, as tokens are made of it."""
        return Affirmation(
            claims=self.claims, received=moment(self.received_ns), period_ns=self.period_ns, within=self.within
        )

    def meant_for(self, audience: str) -> Affirmed:
        """The same for another audience."""
        return replace(self, claims=replace(self.claims, audience=audience))

    def encode(self) -> bytes:
        """The one encoding: ``parse`` of it gives an equal value."""
        claims = self.claims
        return cbor.encode(
            {
                0: VERSION,
                1: self.received_ns,
                2: self.period_ns,
                3: self.within,
                4: claims.issuer,
                5: claims.audience,
                6: claims.session,
                7: claims.tenant,
                8: claims.seq,
                9: claims.model,
                10: list(claims.adapters),
                11: claims.cnf,
                12: claims.policy,
                13: claims.reference,
                14: dict(claims.nonces),
                15: {name: dict(vector) for name, vector in claims.vectors.items()},
                16: dict(claims.unchecked),
                17: claims.ledger_origin,
                18: claims.ledger_index,
                19: claims.ledger_leaf,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The value that ``data`` encodes.

        Raises:
            MalformedEvidence: ``VERSION_UNSUPPORTED``, or a decoding code.
        """
        fields = cbor.read_versioned(data, version=VERSION, limit=limits.TOKEN_MAX, what="affirmed")
        affirmed = cls(
            received_ns=fields.uint(1),
            period_ns=fields.uint(2, limit=PERIOD_MAX_NS),
            within=_optional_seconds(fields, 3),
            claims=Claims(
                issuer=fields.text(4, limit=_TEXT_MAX),
                audience=fields.text(5, limit=_TEXT_MAX),
                session=fields.octets(6, size=_SESSION_SIZE),
                tenant=fields.text(7, limit=_TEXT_MAX),
                seq=fields.uint(8, limit=_SEQ_MAX),
                model=fields.digest(9),
                adapters=_digests(fields, 10),
                cnf=fields.digest(11),
                policy=fields.digest(12),
                reference=fields.digest(13),
                nonces={name: table.digest(name) for table, name in _named(fields, 14)},
                vectors={name: _vector(table, name) for table, name in _named(fields, 15)},
                unchecked={name: table.text(name, limit=_TEXT_MAX) for table, name in _named(fields, 16)},
                ledger_origin=fields.text(17, limit=_TEXT_MAX),
                ledger_index=fields.uint(18),
                ledger_leaf=fields.digest(19),
            ),
        )
        fields.end()
        return affirmed


def _digests(fields: cbor.Reader, key: int) -> tuple[bytes, ...]:
    digests = fields.octet_strings(key, count=limits.ADAPTERS_MAX, limit=limits.DIGEST_SIZE)
    if any(len(digest) != limits.DIGEST_SIZE for digest in digests):
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not all digests", where=fields.path(key), expected=f"{limits.DIGEST_SIZE} bytes each"
        )
    return digests


def _optional_seconds(fields: cbor.Reader, key: int) -> int | None:
    value = fields.take(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _WITHIN_MAX):
        raise MalformedEvidence(
            Code.FIELD_RANGE, "neither null nor seconds", where=fields.path(key), expected=f"1..{_WITHIN_MAX}"
        )
    return value


def _named(fields: cbor.Reader, key: int | str) -> Iterator[tuple[cbor.Reader, str]]:
    """A nested map, once for each of its keys, which are texts; whoever is given one takes it."""
    table = fields.table(key)
    for name in table.keys():  # noqa: SIM118 - a reader is no dictionary
        if not isinstance(name, str):
            raise MalformedEvidence(Code.FIELD_TYPE, "a key is no text", where=table.path(name))
        yield table, name


def _vector(table: cbor.Reader, name: str) -> Mapping[str, int]:
    return {claim: vector.integer(claim, low=_CLAIM_MIN, high=_CLAIM_MAX) for vector, claim in _named(table, name)}
