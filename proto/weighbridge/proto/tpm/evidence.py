"""The quote as it travels: the signed structure, its signature, and the PCR values it commits to.

On the wire, deterministic CBOR: ``[attest bstr, signature bstr, [value bstr, …]]`` (docs/protocol.md). Values are
listed in the order of the signed selection and carry no number: whoever verifies labels them from what was signed,
since a label beside a value could be exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["QuoteEvidence"]

_PARTS: Final = 3
_VALUE_MAX: Final = 64
# Both TPM structures, and every PCR of the largest hash.
_LIMIT: Final = 2 * limits.TPM_STRUCTURE_MAX + limits.PCRS_MAX * (_VALUE_MAX + 3) + 16


@dataclass(frozen=True, slots=True)
class QuoteEvidence:
    """A quote as received; the envelope is well-formed, the TPM structures inside are not yet parsed.

    Args:
        attest: marshalled TPMS_ATTEST, the bytes that are signed.
        signature: marshalled TPMT_SIGNATURE.
        pcr_values: claimed PCR values in the order of the signed selection, at most 24 of at most 64 bytes.
    """

    attest: bytes
    signature: bytes
    pcr_values: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The deterministic CBOR of the protocol."""
        return cbor.encode([self.attest, self.signature, list(self.pcr_values)])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the envelope of a quote.

        Raises:
            MalformedEvidence: a decoding code, ``FIELD_TYPE``, ``FIELD_RANGE`` or ``TOO_LARGE``.
        """
        items = cbor.read_array(cbor.decode(data, limit=_LIMIT, what="quote"), where="quote", limit=_PARTS, size=_PARTS)
        values = cbor.read_array(items[2], where="quote.pcrs", limit=limits.PCRS_MAX)
        return cls(
            attest=_octets(items[0], "quote.attest", limits.TPM_STRUCTURE_MAX),
            signature=_octets(items[1], "quote.signature", limits.TPM_STRUCTURE_MAX),
            pcr_values=tuple(_octets(value, f"quote.pcrs[{place}]", _VALUE_MAX) for place, value in enumerate(values)),
        )


def _octets(value: cbor.CborValue, where: str, limit: int) -> bytes:
    if not isinstance(value, bytes):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="byte string")
    if len(value) > limit:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too long", where=where, expected=f"<= {limit} bytes", got=f"{len(value)} bytes"
        )
    return value
