"""The public areas from which our keys are created, and those a standard endorsement key has.

Templates are inputs of ``TPM2_CreatePrimary``: a TPMT_PUBLIC whose ``unique`` is not yet a key. A primary key is a
function of the hierarchy's seed and its template, so equal templates give the same key until the seed changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weighbridge.proto.tpm.constants import (
    EK_POLICY_A_SHA256,
    EK_POLICY_B_SHA384,
    TPM_ALG_AES,
    TPM_ALG_CFB,
    TPM_ALG_NULL,
    Curve,
    HashAlgorithm,
    KeyType,
    ObjectAttributes,
    Scheme,
    Symmetric,
    digest_size,
)
from weighbridge.proto.tpm.wire import sized, u16, u32

__all__ = [
    "ATTESTATION_KEY_ATTRIBUTES",
    "ENDORSEMENT_KEYS",
    "TELEMETRY_KEY_ATTRIBUTES",
    "EndorsementTemplate",
    "attestation_key_template",
    "storage_root_key_template",
    "telemetry_key_template",
]

_A = ObjectAttributes
_OURS: Final = _A.FIXED_TPM | _A.FIXED_PARENT | _A.SENSITIVE_DATA_ORIGIN | _A.SIGN | _A.NO_DA

# NO_DA: a wrong authorisation must not lock the key out. RESTRICTED: signs only what the TPM itself made.
ATTESTATION_KEY_ATTRIBUTES: Final = _OURS | _A.RESTRICTED | _A.USER_WITH_AUTH
# Without USER_WITH_AUTH it signs only under its policy. Certification is of the ADMIN role, which the (empty)
# authorisation value still satisfies, since ADMIN_WITH_POLICY is clear (Part 1 §19.2).
TELEMETRY_KEY_ATTRIBUTES: Final = _OURS

_UNIQUE_SIZE: Final = 32
_EK_ATTRIBUTES: Final = (
    _A.FIXED_TPM | _A.FIXED_PARENT | _A.SENSITIVE_DATA_ORIGIN | _A.ADMIN_WITH_POLICY | _A.RESTRICTED | _A.DECRYPT
)


@dataclass(frozen=True, slots=True)
class EndorsementTemplate:
    """A default EK template of the TCG EK Credential Profile v2.5 revision 2, annex B.

    ``size`` is the modulus in bits or the curve. ``certificate_index`` and ``persistent_handle`` are where TPMs keep
    the certificate and, if at all, the key.
    """

    name: str
    key_type: KeyType
    size: int
    name_algorithm: HashAlgorithm
    attributes: ObjectAttributes
    auth_policy: bytes
    symmetric: Symmetric
    certificate_index: int
    persistent_handle: int

    def parameters(self) -> bytes:
        """The marshalled TPMT_PUBLIC up to ``unique``: with this every such key begins."""
        head = _head(self.key_type, self.name_algorithm, attributes=self.attributes, policy=self.auth_policy)
        symmetric = u16(TPM_ALG_AES) + u16(self.symmetric.bits) + u16(TPM_ALG_CFB)
        # RSA: scheme, size, exponent 0, which means 65537; elliptic curves: scheme, curve, KDF.
        rest = u32(0) if self.key_type is KeyType.RSA else u16(TPM_ALG_NULL)
        return head + symmetric + u16(TPM_ALG_NULL) + u16(self.size) + rest

    def encode(self) -> bytes:
        """The marshalled TPMT_PUBLIC template."""
        # Annex B.3: for RSA as many zeros as the modulus has bytes; for high-range elliptic curves nothing.
        unique = sized(bytes(self.size // 8)) if self.key_type is KeyType.RSA else sized(b"") + sized(b"")
        return self.parameters() + unique


# In the order of preference: P-384 if the TPM has a certificate for it.
ENDORSEMENT_KEYS: Final = (
    EndorsementTemplate(
        name="H-3",
        key_type=KeyType.ECC,
        size=Curve.NIST_P384,
        name_algorithm=HashAlgorithm.SHA384,
        attributes=_EK_ATTRIBUTES | _A.USER_WITH_AUTH,
        auth_policy=EK_POLICY_B_SHA384,
        symmetric=Symmetric(256),
        certificate_index=0x01C00016,
        persistent_handle=0x81010016,
    ),
    EndorsementTemplate(
        name="L-1",
        key_type=KeyType.RSA,
        size=2048,
        name_algorithm=HashAlgorithm.SHA256,
        attributes=_EK_ATTRIBUTES,
        auth_policy=EK_POLICY_A_SHA256,
        symmetric=Symmetric(128),
        certificate_index=0x01C00002,
        persistent_handle=0x81010001,
    ),
)


def attestation_key_template() -> bytes:
    """A restricted P-256 signing key; created in the endorsement hierarchy it is the same until that is cleared."""
    head = _head(KeyType.ECC, HashAlgorithm.SHA256, attributes=ATTESTATION_KEY_ATTRIBUTES, policy=b"")
    return head + _ECDSA_P256 + sized(b"") + sized(b"")


def storage_root_key_template() -> bytes:
    """The P-256 storage root key that every owner makes alike (TCG TPM v2.0 Provisioning Guidance 1.0 §7.5.1)."""
    attributes = _A.FIXED_TPM | _A.FIXED_PARENT | _A.SENSITIVE_DATA_ORIGIN | _A.USER_WITH_AUTH | _A.NO_DA
    head = _head(KeyType.ECC, HashAlgorithm.SHA256, attributes=attributes | _A.RESTRICTED | _A.DECRYPT, policy=b"")
    symmetric = u16(TPM_ALG_AES) + u16(128) + u16(TPM_ALG_CFB)
    unique = sized(bytes(Curve.NIST_P256.size))
    return head + symmetric + u16(TPM_ALG_NULL) + u16(Curve.NIST_P256) + u16(TPM_ALG_NULL) + unique + unique


def telemetry_key_template(*, auth_policy: bytes, unique: bytes) -> bytes:
    """An unrestricted P-256 signing key, usable under ``auth_policy`` only.

    Args:
        auth_policy: SHA-256 policy digest, 32 bytes.
        unique: 32 bytes that set this session's key apart from any other of the same boot.

    Raises:
        ValueError: for any other length.
    """
    if len(auth_policy) != digest_size(HashAlgorithm.SHA256) or len(unique) != _UNIQUE_SIZE:
        raise ValueError("policy and unique must be of 32 bytes each")
    head = _head(KeyType.ECC, HashAlgorithm.SHA256, attributes=TELEMETRY_KEY_ATTRIBUTES, policy=auth_policy)
    return head + _ECDSA_P256 + sized(unique) + sized(b"")


# No symmetric algorithm; ECDSA with SHA-256; P-256; no KDF.
_ECDSA_P256: Final = b"".join(
    u16(value) for value in (TPM_ALG_NULL, Scheme.ECDSA, HashAlgorithm.SHA256, Curve.NIST_P256, TPM_ALG_NULL)
)


def _head(key_type: KeyType, name_algorithm: HashAlgorithm, *, attributes: ObjectAttributes, policy: bytes) -> bytes:
    return u16(key_type) + u16(name_algorithm) + u32(attributes) + sized(policy)
