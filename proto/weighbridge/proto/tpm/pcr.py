"""PCR selections, the digest a quote carries, and the policy bound to PCR values.

A selection keeps the order and the bits of the wire: two selections are the same only if their bytes are. A quote
over ``sha1`` of a TPM without a SHA-1 bank succeeds with an empty selection, and a mixed one silently shrinks, so a
verifier compares whole selections and never merely looks up the values it hoped for.

>>> PcrSelection.of(HashAlgorithm.SHA256, [0, 7]).encode().hex()
'00000001000b03810000'
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tpm.constants import CommandCode, HashAlgorithm, digest, digest_size
from weighbridge.proto.tpm.wire import WireReader, u16, u32

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["PcrBank", "PcrSelection", "parse", "pcr_digest", "policy_pcr", "read_selection"]

# A PC Client TPM has 24 PCRs: three bytes of bits (PC Client Platform TPM Profile 1.05 §4.6).
_SELECT_SIZE: Final = 3
# TPML_PCR_SELECTION: HASH_COUNT of the reference implementation is below this (Part 2 §10.9.7).
_BANKS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class PcrBank:
    """One TPMS_PCR_SELECTION (Part 2 §10.6.2) as it came: a hash identifier, perhaps not one of ours, and the bits.

    ``indices`` are ascending; they may be none.
    """

    algorithm: int
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """A TPML_PCR_SELECTION (Part 2 §10.9.7) in the order of the wire. Well-formed, not yet acceptable.

    It may name a bank twice, select nothing, or use a hash that no quote may use: :meth:`one_bank` refuses those.
    """

    banks: tuple[PcrBank, ...]

    @classmethod
    def of(cls, algorithm: HashAlgorithm, indices: Iterable[int]) -> PcrSelection:
        """A selection of ``indices`` in the one bank ``algorithm``.

        Args:
            algorithm: the bank; not SHA-1.
            indices: PCR numbers from 0 to 23, at least one, in any order, none twice.

        Raises:
            ValueError: for anything else.
        """
        chosen = tuple(sorted(indices))
        if algorithm is HashAlgorithm.SHA1:
            raise ValueError("SHA-1 banks are never quoted")
        if not chosen or len(set(chosen)) != len(chosen) or chosen[0] < 0 or chosen[-1] >= limits.PCRS_MAX:
            raise ValueError(
                f"PCR numbers must be distinct, from 0 to {limits.PCRS_MAX - 1}, and at least one: {chosen}"
            )
        return cls((PcrBank(algorithm, chosen),))

    def one_bank(self) -> tuple[HashAlgorithm, tuple[int, ...]]:
        """The bank and its PCRs, if the selection is one that a quote may have.

        Raises:
            MalformedEvidence: ``TPM_PCR_SELECTION`` unless there is exactly one bank, it selects at least one PCR,
                and its hash is accepted for quotes.
        """
        if len(self.banks) != 1:
            raise MalformedEvidence(
                Code.TPM_PCR_SELECTION, "selection does not name exactly one bank", got=f"{len(self.banks)} banks"
            )
        bank = self.banks[0]
        if not bank.indices:
            raise MalformedEvidence(Code.TPM_PCR_SELECTION, "selection is empty", got=f"bank {bank.algorithm:#06x}")
        if bank.algorithm not in _QUOTABLE:
            raise MalformedEvidence(
                Code.TPM_PCR_SELECTION, "bank's hash is not accepted for quotes", got=f"{bank.algorithm:#06x}"
            )
        return HashAlgorithm(bank.algorithm), bank.indices

    def encode(self) -> bytes:
        """The marshalled TPML_PCR_SELECTION."""
        parts = [u32(len(self.banks))]
        for bank in self.banks:
            bits = bytearray(_SELECT_SIZE)
            for index in bank.indices:
                bits[index // 8] |= 1 << (index % 8)
            parts += [u16(bank.algorithm), bytes([_SELECT_SIZE]), bytes(bits)]
        return b"".join(parts)

    def __str__(self) -> str:
        """Such as ``sha256:0,7`` for messages; a bank that is not ours is shown by number."""
        names: dict[int, str] = {algorithm: algorithm.name.lower() for algorithm in HashAlgorithm}
        shown = (
            f"{names.get(bank.algorithm, f'{bank.algorithm:#06x}')}:{','.join(map(str, bank.indices))}"
            for bank in self.banks
        )
        return "+".join(shown) or "nothing"


# SHA-1 is left out: collisions are practical, and firmware that extends only newer banks leaves it to the attacker.
_QUOTABLE: Final = frozenset({HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA512})


def parse(data: bytes) -> PcrSelection:
    """Parse a marshalled TPML_PCR_SELECTION that fills ``data``.

    Raises:
        MalformedEvidence: ``TRUNCATED``, ``TRAILING_BYTES``, ``TOO_LARGE`` or ``TPM_PCR_SELECTION``.
    """
    reader = WireReader(data, "pcrs")
    selection = read_selection(reader)
    reader.end()
    return selection


def read_selection(reader: WireReader) -> PcrSelection:
    """The TPML_PCR_SELECTION that ``reader`` stands before.

    Raises:
        MalformedEvidence: as :func:`parse`.
    """
    count = reader.u32()
    if count > _BANKS_MAX:
        raise MalformedEvidence(
            Code.TPM_PCR_SELECTION,
            "too many banks",
            where=reader.place_before(4),
            expected=f"<= {_BANKS_MAX}",
            got=count,
        )
    banks: list[PcrBank] = []
    for _ in range(count):
        algorithm = reader.u16()
        size = reader.u8()
        if size != _SELECT_SIZE:
            raise MalformedEvidence(
                Code.TPM_PCR_SELECTION,
                "selection is not of 24 PCRs",
                where=reader.place_before(1),
                expected=f"{_SELECT_SIZE} bytes",
                got=f"{size} bytes",
                clause="PC Client Platform TPM Profile 1.05 §4.6",
            )
        banks.append(PcrBank(algorithm, _indices(reader.take(size))))
    return PcrSelection(tuple(banks))


@lru_cache(maxsize=64)
def _indices(bitmap: bytes) -> tuple[int, ...]:
    """The PCRs that a selection's bytes name, ascending. Those of a session are always the same."""
    bits = int.from_bytes(bitmap, "little")
    return tuple(index for index in range(8 * len(bitmap)) if bits >> index & 1)


def pcr_digest(algorithm: HashAlgorithm, values: Sequence[bytes]) -> bytes:
    """The ``pcrDigest`` over ``values`` (Part 2 §10.12.1, Part 4 PCRComputeCurrentDigest).

    Args:
        algorithm: for a quote the hash of the *signing key's scheme*, not of the bank; for a policy the hash of the
            policy session.
        values: PCR values in the order of the selection. Their lengths must have been checked: the concatenation
            does not delimit them.
    """
    return digest(algorithm, *values)


def policy_pcr(selection: PcrSelection, values: Mapping[int, bytes], *, algorithm: HashAlgorithm) -> bytes:
    """The policy digest of a lone ``TPM2_PolicyPCR`` (Part 3 §23.7): usable only while the PCRs have these values.

    Args:
        selection: exactly one bank.
        values: at least the selected PCRs, by number; each as long as the bank's digest.
        algorithm: ``nameAlg`` of the object that carries the policy.

    Raises:
        MalformedEvidence: ``TPM_PCR_SELECTION`` if the selection is not acceptable, names a PCR without a value, or
            a value has the wrong length.
    """
    bank, indices = selection.one_bank()
    missing = [index for index in indices if len(values.get(index, b"")) != digest_size(bank)]
    if missing:
        raise MalformedEvidence(
            Code.TPM_PCR_SELECTION,
            "policy names PCRs without a known value",
            expected=str(selection),
            got=f"lacks {missing}",
        )
    pcrs = pcr_digest(algorithm, [values[index] for index in indices])
    return digest(algorithm, bytes(digest_size(algorithm)), u32(CommandCode.POLICY_PCR), selection.encode(), pcrs)
