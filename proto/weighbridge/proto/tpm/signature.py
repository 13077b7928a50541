"""TPMT_SIGNATURE (TPM 2.0 Part 2 §11.3.4), and the check of one against a TPM key.

The algorithm is fixed by the key: the message names it once more and must name the same. Nothing is tried until it
fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm.constants import Curve, HashAlgorithm, Scheme
from weighbridge.proto.tpm.wire import WireReader

if TYPE_CHECKING:
    from weighbridge.proto.tpm.public import Public

__all__ = ["EcdsaSignature", "RsaSignature", "Signature", "parse", "verify"]

_RSA_MAX: Final = 3072 // 8
_HASHES: Final[dict[HashAlgorithm, hashes.HashAlgorithm]] = {
    HashAlgorithm.SHA256: hashes.SHA256(),
    HashAlgorithm.SHA384: hashes.SHA384(),
    HashAlgorithm.SHA512: hashes.SHA512(),
}
_ECDSA: Final = {algorithm: ec.ECDSA(digest) for algorithm, digest in _HASHES.items()}


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """r and s as they came; the point of either is not checked."""

    r: bytes
    s: bytes


@dataclass(frozen=True, slots=True)
class RsaSignature:
    """The signature as a big-endian number of the length of the modulus."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A well-formed signature, not checked. ``scheme`` and ``hash`` are what it claims of itself."""

    scheme: Scheme
    hash: HashAlgorithm
    value: EcdsaSignature | RsaSignature

    def raw_p256(self) -> bytes:
        """Join r and s, 64 bytes: the form of COSE and JOSE.

        Raises:
            MalformedEvidence: ``TPM_ALGORITHM`` if it is not an ECDSA signature of that size.
        """
        size = Curve.NIST_P256.size
        if not isinstance(self.value, EcdsaSignature) or max(len(self.value.r), len(self.value.s)) > size:
            raise MalformedEvidence(Code.TPM_ALGORITHM, "not an ECDSA signature by a P-256 key", where="signature")
        return self.value.r.rjust(size, b"\0") + self.value.s.rjust(size, b"\0")


def parse(data: bytes) -> Signature:
    """Parse a marshalled TPMT_SIGNATURE.

    Raises:
        MalformedEvidence: ``TPM_ALGORITHM`` for a scheme or hash that is not accepted (SHA-1 is not), otherwise
            ``TRUNCATED``, ``TRAILING_BYTES``, ``TOO_LARGE`` or ``TPM_STRUCTURE``.
    """
    reader = WireReader(data, "signature")
    scheme = reader.u16()
    if scheme not in _SCHEMES:
        raise MalformedEvidence(
            Code.TPM_ALGORITHM, "scheme is not accepted", where="signature[0]", got=f"{scheme:#06x}"
        )
    hash_algorithm = reader.u16()
    if hash_algorithm not in _HASHES:
        raise MalformedEvidence(
            Code.TPM_ALGORITHM, "hash is not accepted", where="signature[2]", got=f"{hash_algorithm:#06x}"
        )
    value: EcdsaSignature | RsaSignature
    if scheme == Scheme.ECDSA:
        value = EcdsaSignature(r=reader.sized(Curve.NIST_P384.size), s=reader.sized(Curve.NIST_P384.size))
    else:
        value = RsaSignature(reader.sized(_RSA_MAX))
    reader.end()
    return Signature(scheme=Scheme(scheme), hash=HashAlgorithm(hash_algorithm), value=value)


_SCHEMES: Final = frozenset(Scheme)


def verify(signature: Signature, public: Public, message: bytes) -> None:
    """Require that ``public``'s key made ``signature`` over ``message``. Does not say whose key that is.

    Args:
        signature: parsed, untrusted.
        public: the key; its own fixed scheme decides the algorithm.
        message: the exact bytes as received.

    Raises:
        MalformedEvidence: ``TPM_ALGORITHM`` if the key is of no accepted kind.
        NotAuthentic: ``TPM_ALGORITHM`` if the signature names another algorithm than the key's, ``TPM_SIGNATURE``
            if it does not verify.
    """
    row = public.signing_algorithm()
    if (signature.scheme, signature.hash) != (row.scheme, row.hash):
        raise NotAuthentic(
            Code.TPM_ALGORITHM,
            "signature's algorithm is not the key's",
            where="signature",
            expected=row.name,
            got=f"{signature.scheme.name} with {signature.hash.name}",
        )
    key = public.public_key()
    digest = _HASHES[row.hash]
    try:
        match key, signature.value:
            case ec.EllipticCurvePublicKey(), EcdsaSignature(r, s):
                key.verify(encode_dss_signature(int.from_bytes(r), int.from_bytes(s)), message, _ECDSA[row.hash])
                return
            case rsa.RSAPublicKey(), RsaSignature(value):
                key.verify(value, message, _padding(row.scheme, digest), digest)
                return
            case _:  # pragma: no cover - a row's scheme decides both types
                raise RuntimeError("scheme and signature of different kinds")
    except InvalidSignature as error:
        raise NotAuthentic(
            Code.TPM_SIGNATURE, "signature does not verify", where="signature", clause="TPM 2.0 Part 1 §27"
        ) from error


def _padding(scheme: Scheme, digest: hashes.HashAlgorithm) -> padding.PKCS1v15 | padding.PSS:
    if scheme is Scheme.RSASSA:
        return padding.PKCS1v15()
    # Part 1 §B.7: the salt is as long as fits, or as the digest where FIPS 186-4 is followed; the TPM does not say.
    return padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.AUTO)
