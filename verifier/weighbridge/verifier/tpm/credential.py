"""Makes a credential: a secret that only the TPM holding a given EK returns, and only if a given AK is loaded in it.

``TPM2_MakeCredential`` in software (TPM 2.0 Part 1 §24, with the key exchange of annex B.10.4 for RSA and C.6.4 for
elliptic curves). The secret travels under a seed that only the EK recovers; the AK's Name goes into the key
derivation, so that the TPM opens it for that Name only.

Activation convinces whoever made the credential, and nobody else: it leaves no signature.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size
from weighbridge.proto.tpm.wire import sized, u32

if TYPE_CHECKING:
    from weighbridge.verifier.tpm.ek import VerifiedEk

__all__ = ["Credential", "make_credential"]

_LABEL: Final = b"IDENTITY\0"
_HASHES: Final[dict[HashAlgorithm, tuple[str, hashes.HashAlgorithm]]] = {
    HashAlgorithm.SHA256: ("sha256", hashes.SHA256()),
    HashAlgorithm.SHA384: ("sha384", hashes.SHA384()),
}


@dataclass(frozen=True, slots=True)
class Credential:
    """What to send to the attester; both without the 16-bit length of their ``TPM2B``.

    ``id_object`` is the contents of TPM2B_ID_OBJECT, ``encrypted_secret`` of TPM2B_ENCRYPTED_SECRET.
    """

    id_object: bytes
    encrypted_secret: bytes


def make_credential(ek: VerifiedEk, ak_name: bytes, secret: bytes) -> Credential:
    """A credential that gives ``secret`` to the TPM of ``ek`` if an object named ``ak_name`` is loaded in it.

    Args:
        ek: whose TPM shall answer.
        ak_name: the Name *recomputed* from the AK's public area (:attr:`Public.name`), not one that was sent.
        secret: from 16 bytes up to the size of a digest of the EK's nameAlg; made for this one call, kept by the
            caller, compared once by :func:`weighbridge.verifier.tpm.ak.activated`.

    Raises:
        ValueError: the secret has a length that cannot be used.
    """
    name_algorithm = ek.public.name_algorithm
    size = digest_size(name_algorithm)
    if not _SECRET_MIN <= len(secret) <= size:
        raise ValueError(f"secret must be of {_SECRET_MIN} to {size} bytes")
    seed, encrypted_secret = _share_seed(ek, name_algorithm)
    storage_key = _kdfa(name_algorithm, seed, label=b"STORAGE\0", context=ak_name, bits=ek.symmetric.bits)
    # Part 1 §24.4: the IV is zero, since the key serves once.
    encryptor = Cipher(algorithms.AES(storage_key), CFB(bytes(16))).encryptor()
    encrypted_identity = encryptor.update(sized(secret)) + encryptor.finalize()
    integrity_key = _kdfa(name_algorithm, seed, label=b"INTEGRITY\0", context=b"", bits=8 * size)
    outer = hmac.digest(integrity_key, encrypted_identity + ak_name, _HASHES[name_algorithm][0])
    return Credential(id_object=sized(outer) + encrypted_identity, encrypted_secret=encrypted_secret)


# Shorter ones could be guessed online.
_SECRET_MIN: Final = 16


def _share_seed(ek: VerifiedEk, name_algorithm: HashAlgorithm) -> tuple[bytes, bytes]:
    """A seed, and the same seed for the EK's eyes only."""
    key = ek.public.public_key()
    algorithm = _HASHES[name_algorithm][1]
    if isinstance(key, rsa.RSAPublicKey):
        # Annex B.10.4: OAEP with nameAlg for both hashes; the label includes its terminating zero.
        seed = os.urandom(digest_size(name_algorithm))
        return seed, key.encrypt(seed, padding.OAEP(padding.MGF1(algorithm), algorithm, _LABEL))
    # Annex C.6.4: one-pass ECDH; party U is the ephemeral key, party V the EK, each by its x coordinate.
    ephemeral = ec.generate_private_key(key.curve)
    ours, theirs = ephemeral.public_key().public_numbers(), key.public_numbers()
    size = (key.curve.key_size + 7) // 8
    x, y = ours.x.to_bytes(size), ours.y.to_bytes(size)
    shared = ephemeral.exchange(ec.ECDH(), key)
    return _kdfe(name_algorithm, shared, u=x, v=theirs.x.to_bytes(size)), sized(x) + sized(y)


def _kdfa(name_algorithm: HashAlgorithm, key: bytes, *, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1 §11.4.10.2), NIST SP 800-108 in counter mode; never more than one block is needed here."""
    name = _HASHES[name_algorithm][0]
    block = hmac.digest(key, u32(1) + label + context + u32(bits), name)
    return block[: bits // 8]


def _kdfe(name_algorithm: HashAlgorithm, shared: bytes, *, u: bytes, v: bytes) -> bytes:
    """KDFe (Part 1 §11.4.10.3), NIST SP 800-56A; as long as the hash, so one round."""
    return digest(name_algorithm, u32(1), shared, _LABEL, u, v)
