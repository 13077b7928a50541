"""Verifies a session's telemetry key: in the AK's TPM, gone with the next reset, usable only under the measured boot.

The procedure of :func:`verify_telemetry_key`:

1. The certification is signed by the AK, made by a TPM, fresh and ours (steps 1 to 4 of
   :mod:`weighbridge.verifier.tpm.quote`), and is a certification (``TPM2_Certify``), not another attestation.
2. It is of this very key: the Name recomputed from the public area is the certified one.
3. The key is a primary of the *NULL* hierarchy, by its qualified name. That hierarchy's seed is drawn anew at every
   reset, so the key cannot outlive one, whatever becomes of counters, clock and state files.
4. P-256 with ECDSA and SHA-256, and exactly the attributes of our template: no copy can exist, and there is no
   authorisation value, only the policy.
5. The policy is the demanded one: PolicyPCR over the boot PCRs as enrolled.

Left to the caller: that the qualifying data is ``D("enrolment", challenge, cnf, peer)`` of a challenge used once, and
that the key is believed for this one session only.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, cast, final

from weighbridge.proto import cose, limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm.attest import CertifyInfo
from weighbridge.proto.tpm.constants import HashAlgorithm, Hierarchy
from weighbridge.proto.tpm.names import qualified_name_of_primary
from weighbridge.proto.tpm.pcr import PcrSelection, policy_pcr
from weighbridge.proto.tpm.templates import TELEMETRY_KEY_ATTRIBUTES
from weighbridge.verifier.tpm.quote import TpmState, VerifiedQuote, check_attestation

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.proto.tpm.public import Public
    from weighbridge.verifier.tpm.ak import VerifiedAk

__all__ = ["VerifiedTelemetryKey", "boot_policy_of", "verify_telemetry_key"]

_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True)
class VerifiedTelemetryKey:
    """A session's signing key, certified by the AK. Made by :func:`verify_telemetry_key` alone.

    ``spki`` is DER; ``thumbprint`` its SHA-256, by which headers name the key; ``state`` the TPM's clock, counts and
    firmware when it was certified. The seal is a guard against mistakes, not against hostile code.
    """

    key: ec.EllipticCurvePublicKey = field(repr=False)
    spki: bytes
    thumbprint: bytes
    state: TpmState
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedTelemetryKey is made by verify_telemetry_key only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedTelemetryKey cannot be pickled")


def boot_policy_of(quote: VerifiedQuote, boot: PcrSelection) -> bytes:
    """The policy that the telemetry key must carry: PolicyPCR over ``boot`` as ``quote`` found those PCRs.

    Args:
        quote: the session's enrolment quote.
        boot: the terms' boot PCRs, of the quoted bank and among the quoted PCRs.

    Raises:
        MalformedEvidence: ``TPM_PCR_SELECTION`` if ``quote`` does not cover ``boot``.
    """
    bank, _ = boot.one_bank()
    if bank is not quote.bank:
        raise MalformedEvidence(
            Code.TPM_PCR_SELECTION,
            "boot PCRs are of another bank than the quote's",
            expected=quote.bank.name,
            got=bank.name,
        )
    return policy_pcr(boot, quote.pcrs, algorithm=HashAlgorithm.SHA256)


def verify_telemetry_key(
    *, attest: bytes, signature: bytes, public: Public, ak: VerifiedAk, qualifying_data: bytes, boot_policy: bytes
) -> VerifiedTelemetryKey:
    """The telemetry key of a session, by the procedure in the module's docstring.

    Args:
        attest: marshalled TPMS_ATTEST, untrusted.
        signature: marshalled TPMT_SIGNATURE over it, untrusted.
        public: the key's public area, parsed, untrusted.
        ak: who must have certified it.
        qualifying_data: the 32 bytes that the certification must bear.
        boot_policy: the 32-byte policy digest that the key must carry (:func:`boot_policy_of`).

    Raises:
        NotAuthentic: ``TPM_SIGNATURE``, ``TPM_ALGORITHM``, ``TPM_ATTEST_TYPE``, ``AK_ATTRIBUTES``, ``TPM_NONCE``,
            ``TELEMETRY_KEY_MISMATCH``, ``TELEMETRY_KEY_HIERARCHY``, ``TELEMETRY_KEY_ATTRIBUTES`` or
            ``TELEMETRY_KEY_POLICY``.
        MalformedEvidence: ``TPM_MAGIC``, ``TPM_ATTEST_TYPE``, ``TPM_ALGORITHM``, or another code of the parsers.
        ValueError: ``qualifying_data`` or ``boot_policy`` is not of 32 bytes.
    """
    if len(boot_policy) != limits.DIGEST_SIZE:
        raise ValueError(f"boot policy must be of {limits.DIGEST_SIZE} bytes")
    # 1.
    parsed = check_attestation(attest, signature, ak, qualifying_data=qualifying_data)
    info = parsed.attested
    if not isinstance(info, CertifyInfo):
        raise NotAuthentic(
            Code.TPM_ATTEST_TYPE,
            "not a certification of a key",
            where="certify.attest",
            got=type(info).__name__,
            clause="TPM 2.0 Part 2 §10.12.10",
        )
    # 2.
    _require(Code.TELEMETRY_KEY_MISMATCH, "certified another key", "certify.name", expected=public.name, got=info.name)
    # 3.
    qualified = qualified_name_of_primary(Hierarchy.NULL, public.name)
    _require(
        Code.TELEMETRY_KEY_HIERARCHY,
        "telemetry key is no primary of the NULL hierarchy: it could outlive a reset",
        "certify.qualifiedName",
        expected=qualified,
        got=info.qualified_name,
    )
    # 4.
    row = public.signing_algorithm()
    if not row.telemetry or public.attributes != TELEMETRY_KEY_ATTRIBUTES:
        raise NotAuthentic(
            Code.TELEMETRY_KEY_ATTRIBUTES,
            "telemetry key is not of the one accepted kind",
            where="telemetry_key.attributes",
            expected=repr(TELEMETRY_KEY_ATTRIBUTES),
            got=f"{public.attributes!r}, {row.name}",
            clause="TPM 2.0 Part 2 §8.3",
        )
    # 5.
    _require(
        Code.TELEMETRY_KEY_POLICY,
        "telemetry key is not bound to the enrolled boot PCRs",
        "telemetry_key.authPolicy",
        expected=boot_policy,
        got=public.auth_policy,
    )
    key = cast("ec.EllipticCurvePublicKey", public.public_key())
    return VerifiedTelemetryKey(
        key=key, spki=cose.spki(key), thumbprint=cose.thumbprint(key), state=TpmState.of(parsed), seal=_SEAL
    )


def _require(code: Code, message: str, where: str, *, expected: bytes, got: bytes) -> None:
    if not hmac.compare_digest(expected, got):
        raise NotAuthentic(code, message, where=where, expected=expected, got=got)
