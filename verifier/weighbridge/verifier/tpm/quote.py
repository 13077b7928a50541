"""Verifies a TPM quote.

The procedure of :func:`verify_quote`, in the order in which it is done:

1. The signature over the exact bytes is by the AK, with the algorithm that the key fixes.
2. The bytes were made by a TPM: they start with TPM_GENERATED (CVE-2024-29038).
3. They are a quote and not another attestation, and are signed by the AK in its place: its qualified name fits.
4. The qualifying data is ours: freshness and binding. Ours has 32 bytes: no empty value is ever equal to it.
5. The selection is byte for byte the one demanded: one bank, no duplicates, none empty, none dropped, not SHA-1
   (CVE-2024-29039; a bank that is not active is dropped by the TPM without an error).
6. As many values came as were selected, each as long as the bank's digest.
7. The digest of the values, by the hash of the AK's scheme, is the signed one.
8. The values are labelled from the signed selection.

Left to the caller: which selection and which qualifying data to demand, that the quote is the first with this
qualifying data, what the values mean, and continuity with the quotes before
(:mod:`weighbridge.verifier.tpm.continuity`).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn, Self, final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm import attest as attests
from weighbridge.proto.tpm import signature as signatures
from weighbridge.proto.tpm.attest import Attest, QuoteInfo
from weighbridge.proto.tpm.constants import digest_size
from weighbridge.proto.tpm.pcr import pcr_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.proto.tpm.constants import HashAlgorithm
    from weighbridge.proto.tpm.evidence import QuoteEvidence
    from weighbridge.proto.tpm.pcr import PcrSelection
    from weighbridge.verifier.tpm.ak import VerifiedAk

__all__ = ["TpmState", "VerifiedQuote", "check_attestation", "verify_quote"]

_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class TpmState:
    """What an attestation says of the TPM's own time. A plain value: authentic only if its attestation was.

    ``clock`` is in milliseconds of TPM time.
    """

    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware: int

    @classmethod
    def of(cls, attest: Attest) -> Self:
        """The state that ``attest`` bears."""
        info = attest.clock_info
        return cls(
            clock=info.clock,
            reset_count=info.reset_count,
            restart_count=info.restart_count,
            safe=info.safe,
            firmware=attest.firmware_version,
        )


@final
@dataclass(frozen=True, slots=True)
class VerifiedQuote:
    """PCR values as the TPM of ``ak`` held them when it was given ``qualifying_data``. Made by :func:`verify_quote`.

    ``pcrs`` are by number, in the bank ``bank``, and cannot be changed. ``state`` is the TPM's clock, counts and
    firmware at that moment. The seal is a guard against mistakes, not against hostile code.
    """

    ak: VerifiedAk
    qualifying_data: bytes
    bank: HashAlgorithm
    pcrs: Mapping[int, bytes]
    state: TpmState
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedQuote is made by verify_quote only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedQuote cannot be pickled")

    @property
    def clock(self) -> int:
        """Milliseconds of TPM time; not wall time."""
        return self.state.clock

    @property
    def reset_count(self) -> int:
        """How often the TPM was reset."""
        return self.state.reset_count

    @property
    def restart_count(self) -> int:
        """How often it was restarted or resumed since the last reset."""
        return self.state.restart_count

    @property
    def safe(self) -> bool:
        """Whether no greater clock value can have been shown before."""
        return self.state.safe

    @property
    def firmware(self) -> int:
        """The vendor's number of the TPM's firmware."""
        return self.state.firmware


def verify_quote(
    evidence: QuoteEvidence, ak: VerifiedAk, *, qualifying_data: bytes, selection: PcrSelection
) -> VerifiedQuote:
    """The PCR values that the TPM of ``ak`` vouches for, by the procedure in the module's docstring.

    Args:
        evidence: untrusted.
        ak: whose quote it must be.
        qualifying_data: the 32 bytes that it must bear, ``D("tpm", H_k, G_k, P_k)``.
        selection: what must have been quoted; one bank.

    Raises:
        NotAuthentic: ``TPM_SIGNATURE``, ``TPM_ALGORITHM``, ``TPM_ATTEST_TYPE``, ``AK_ATTRIBUTES``, ``TPM_NONCE``,
            ``TPM_PCR_SELECTION`` or ``TPM_PCR_VALUES``.
        MalformedEvidence: ``TPM_MAGIC``, ``TPM_ATTEST_TYPE``, or another code of the structures' parsers.
        ValueError: ``qualifying_data`` is not of 32 bytes, ``selection`` not of one accepted bank.
    """
    # 1. to 4.
    attest = check_attestation(evidence.attest, evidence.signature, ak, qualifying_data=qualifying_data)
    info = attest.attested
    if not isinstance(info, QuoteInfo):
        raise NotAuthentic(
            Code.TPM_ATTEST_TYPE,
            "not a quote",
            where="quote.attest",
            got=type(info).__name__,
            clause="TPM 2.0 Part 2 §10.12.10",
        )
    # 5.
    bank, indices = _demanded(selection)
    if info.selection != selection:
        raise NotAuthentic(
            Code.TPM_PCR_SELECTION,
            "quote is over other PCRs than demanded",
            where="quote.attest.pcrSelect",
            expected=str(selection),
            got=str(info.selection),
            clause="TPM 2.0 Part 2 §10.12.1",
        )
    # 6. Values are concatenated in the digest, which does not tell where one ends: their lengths come first.
    _check_shape(evidence.pcr_values, bank, len(indices))
    # 7.
    expected = pcr_digest(ak.public.signing_algorithm().hash, evidence.pcr_values)
    if not hmac.compare_digest(info.digest, expected):
        raise NotAuthentic(
            Code.TPM_PCR_VALUES,
            "PCR values are not the quoted ones",
            where="quote.pcrs",
            expected=info.digest,
            got=expected,
            clause="TPM 2.0 Part 2 §10.12.1",
        )
    # 8.
    return VerifiedQuote(
        ak=ak,
        qualifying_data=qualifying_data,
        bank=bank,
        pcrs=MappingProxyType(dict(zip(indices, evidence.pcr_values, strict=True))),
        state=TpmState.of(attest),
        seal=_SEAL,
    )


def check_attestation(attest: bytes, signature: bytes, ak: VerifiedAk, *, qualifying_data: bytes) -> Attest:
    """Steps 1 to 4 of the procedure, which a quote and a certification share; the kind is left to the caller.

    Returns:
        The attestation, authentic and fresh, of whichever kind.

    Raises:
        NotAuthentic, MalformedEvidence, ValueError: as :func:`verify_quote`, steps 1 to 4.
    """
    if len(qualifying_data) != limits.NONCE_SIZE:
        raise ValueError(f"qualifying data must be of {limits.NONCE_SIZE} bytes")
    # 1.
    signatures.verify(signatures.parse(signature), ak.public, attest)
    # 2. and 3.
    parsed = attests.parse(attest)
    if parsed.qualified_signer != ak.qualified_name:
        raise NotAuthentic(
            Code.AK_ATTRIBUTES,
            "signed by a key in another place than the attestation key's",
            where="attest.qualifiedSigner",
            expected=ak.qualified_name,
            got=parsed.qualified_signer,
            clause="TPM 2.0 Part 1 §16",
        )
    # 4.
    if not hmac.compare_digest(parsed.extra_data, qualifying_data):
        raise NotAuthentic(
            Code.TPM_NONCE,
            "qualifying data is not the demanded one",
            where="attest.extraData",
            expected=qualifying_data,
            got=parsed.extra_data,
            clause="TPM 2.0 Part 2 §10.12.11",
        )
    return parsed


def _demanded(selection: PcrSelection) -> tuple[HashAlgorithm, tuple[int, ...]]:
    try:
        return selection.one_bank()
    except MalformedEvidence as error:
        # The caller's own: nobody's evidence is to blame for it.
        raise ValueError(f"a quote must be demanded over one accepted bank, not {selection}") from error


def _check_shape(values: Sequence[bytes], bank: HashAlgorithm, count: int) -> None:
    size = digest_size(bank)
    lengths = [len(value) for value in values]
    if lengths != [size] * count:
        raise NotAuthentic(
            Code.TPM_PCR_VALUES,
            "PCR values are not as many as selected, each of its bank's length",
            where="quote.pcrs",
            expected=f"{count} of {size} bytes",
            got=f"{len(lengths)} of {', '.join(map(str, lengths))} bytes",
        )
