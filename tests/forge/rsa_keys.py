"""RSA keys and signatures that follow from names: primes are searched from where a hash points to."""

from __future__ import annotations

import hashlib
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

_EXPONENT = 65537
_SMALL = [n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]
_ROUNDS = 8


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """The RSA-2048 key that ``name`` stands for. For tests only: whoever knows the name has it."""
    p, q = _prime(f"{name}/p"), _prime(f"{name}/q")
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(_EXPONENT, p * q)
    return rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    ).private_key()


def _prime(name: str) -> int:
    """The first prime of 1024 bits behind a number that follows from ``name``, with the two highest bits set."""
    blocks = (hashlib.sha512(f"{name}/{number}".encode()).digest() for number in (0, 1))
    candidate = int.from_bytes(b"".join(blocks)) | (3 << 1022) | 1
    while not (all(candidate % small for small in _SMALL) and _probably(candidate) and (candidate - 1) % _EXPONENT):
        candidate += 2
    return candidate


def _probably(number: int) -> bool:
    """Miller and Rabin's test by fixed bases: nobody has chosen this number."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in _SMALL[:_ROUNDS]:
        value = pow(base, odd, number)
        if value in {1, number - 1}:
            continue
        for _ in range(twos - 1):
            value = value * value % number
            if value == number - 1:
                break
        else:
            return False
    return True


def sign_pss(key: rsa.RSAPrivateKey, data: bytes, algorithm: hashes.HashAlgorithm, *, salt: int) -> bytes:
    """RSASSA-PSS (RFC 8017 §8.1) whose salt follows from ``data``; MGF1 over the same hash."""
    numbers, name = key.private_numbers(), algorithm.name
    digest = hashlib.new(name, data).digest()
    salted = hashlib.sha512(b"salt" + digest).digest()[:salt]
    bits = key.key_size - 1
    size = (bits + 7) // 8
    hashed = hashlib.new(name, bytes(8) + digest + salted).digest()
    block = bytes(size - len(salted) - len(hashed) - 2) + b"\x01" + salted
    mask = b"".join(
        hashlib.new(name, hashed + count.to_bytes(4)).digest() for count in range(-(-len(block) // len(hashed)))
    )
    masked = int.from_bytes(block) ^ int.from_bytes(mask[: len(block)])
    masked &= (1 << (8 * len(block) - (8 * size - bits))) - 1
    message = int.from_bytes(masked.to_bytes(len(block)) + hashed + b"\xbc")
    left, right = pow(message, numbers.dmp1, numbers.p), pow(message, numbers.dmq1, numbers.q)
    value = right + numbers.q * ((left - right) * numbers.iqmp % numbers.p)
    return value.to_bytes(key.key_size // 8)


def signed_again(item: x509.Certificate | x509.CertificateRevocationList, key: rsa.RSAPrivateKey, salt: int) -> bytes:
    """``item`` in DER, which ``key`` has signed by RSASSA-PSS, with a signature of :func:`sign_pss` in its place."""
    assert item.signature_hash_algorithm is not None
    der = item.public_bytes(Encoding.DER)
    signed = item.tbs_certificate_bytes if isinstance(item, x509.Certificate) else item.tbs_certlist_bytes
    return der[: -len(item.signature)] + sign_pss(key, signed, item.signature_hash_algorithm, salt=salt)
