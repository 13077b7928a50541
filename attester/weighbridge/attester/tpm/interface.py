"""What the attester needs of a TPM, whatever it is: hardware, an emulator, or a fake that signs for real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weighbridge.proto.endorsement import Endorsement
    from weighbridge.proto.tpm.attest import ClockInfo
    from weighbridge.proto.tpm.constants import HashAlgorithm
    from weighbridge.proto.tpm.evidence import QuoteEvidence
    from weighbridge.proto.tpm.pcr import PcrSelection

__all__ = ["EndorsementKey", "RegisterHistory", "TpmDevice"]


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """The endorsement key that the TPM has a certificate for.

    ``public`` is its TPMT_PUBLIC; ``certificate`` DER, without the padding of its NV index; ``intermediates`` are
    DER, the certificate's issuer first, as far as the TPM stores them.
    """

    public: bytes
    certificate: bytes
    intermediates: tuple[bytes, ...]


class RegisterHistory(Protocol):
    """What a register held, as a list on this host has it. Not proven: whoever uses it compares it with a quote."""

    def after(self, value: bytes, bank: HashAlgorithm) -> Iterator[bytes]:
        """The values that the register took after ``value`` in ``bank``, oldest first; none if it never had that."""
        ...


class TpmDevice(Protocol):
    """A TPM with one attestation key and at most one telemetry key.

    Every method may raise :class:`~weighbridge.proto.errors.EnvironmentFault` with ``TPM_ABSENT`` (it is not there,
    or no longer answers: a later call finds it when it is back), ``TPM_BUSY`` (somebody else has it, or it asks for
    more patience than we have), ``TPM_RESET`` (it was reset: keys and PCRs are gone, the session is over) or
    ``TPM_FAILED`` (anything else). Methods may be called from several threads.
    """

    def endorsement_key(self) -> EndorsementKey:
        """The endorsement key with its certificate; P-384 where the TPM has a certificate for one, else RSA-2048."""
        ...

    def endorsement(self) -> Endorsement | None:
        """Why a verifier should believe the AK: what this kind of host can show for it; ``None`` if nothing."""
        ...

    def attestation_key(self) -> bytes:
        """The TPMT_PUBLIC of the AK: a restricted signing key with a scheme of its own, the same every time."""
        ...

    def attestation_parent(self) -> bytes | None:
        """The TPMT_PUBLIC of the storage root key above the AK; ``None`` if the AK is a primary key, or not known."""
        ...

    def activate_credential(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """The secret in a credential that was made for this endorsement key and this AK.

        Args:
            id_object: contents of the TPM2B_ID_OBJECT, untrusted.
            encrypted_secret: contents of the TPM2B_ENCRYPTED_SECRET, untrusted.
        """
        ...

    def create_telemetry_key(self, *, unique: bytes, boot: PcrSelection) -> bytes:
        """The TPMT_PUBLIC of a new telemetry key, which replaces the one before.

        A P-256 primary of the NULL hierarchy that signs only while the PCRs ``boot`` keep their present values.

        Args:
            unique: 32 bytes that no other session of this boot has used.
            boot: one bank.
        """
        ...

    def certify_telemetry_key(self, qualifying_data: bytes) -> tuple[bytes, bytes]:
        """The certification of the telemetry key by the AK: TPMS_ATTEST and TPMT_SIGNATURE."""
        ...

    def sign(self, data: bytes) -> bytes:
        """ECDSA signature, r || s of 64 bytes, over the SHA-256 of ``data`` by the telemetry key."""
        ...

    def active_banks(self) -> Sequence[HashAlgorithm]:
        """The PCR banks that are allocated."""
        ...

    def extend(self, pcr: int, digests: Mapping[HashAlgorithm, bytes]) -> None:
        """Extend ``pcr`` in every active bank by one command.

        Args:
            pcr: from 0 to 23.
            digests: one for each active bank and no other: a bank left out could be extended by anybody later.

        Raises:
            ValueError: a bank is missing or not active, or a digest has the wrong length.
        """
        ...

    def read_pcrs(self, selection: PcrSelection) -> Mapping[int, bytes]:
        """The values of one bank's PCRs, all of one moment, by number in ascending order."""
        ...

    def read_clock(self) -> ClockInfo:
        """Clock, counts and whether the clock is safe, now; not signed."""
        ...

    def quote(self, selection: PcrSelection, qualifying_data: bytes) -> QuoteEvidence:
        """A quote by the AK over one bank's PCRs, with their values."""
        ...

    def close(self) -> None:
        """Flush what was loaded and let the TPM go. Calling it again does nothing."""
        ...
