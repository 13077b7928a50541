"""Nothing left to chance: what is made inside is the same bytes on every machine, in every order, at any time.

Keys and random numbers are drawn from a generator that is seeded with a case's name; ECDSA signatures are those of
RFC 6979. RSA keys that have no name get a number: searching for primes takes its time, and cases may share them.
"""

# ruff: noqa: ANN401 - what stands in the place of a function has whatever types that one has
from __future__ import annotations

import hashlib
import os
import random
import secrets
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.soft_tpm import SoftTpm
from forge.rsa_keys import rsa_key

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import ModuleType
    from typing import Any

_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
    ),
}
_SERIAL_SIZE = 19


class Stream:
    """Bytes that follow from a seed: SHA-512 over the seed and a counter."""

    def __init__(self, seed: str) -> None:
        self._seed = hashlib.sha512(seed.encode()).digest()
        self._count = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        found = b""
        while len(found) < size:
            found += hashlib.sha512(self._seed + self._count.to_bytes(8)).digest()
            self._count += 1
        return found[:size]

    def key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        """The next private key on ``curve``."""
        number = int.from_bytes(self.take(64)) % (_ORDERS[curve.name] - 1)
        return ec.derive_private_key(number + 1, curve)


@contextmanager
def determined(seed: str) -> Generator[Stream]:
    """Everything that is made within follows from ``seed``."""
    stream = Stream(seed)
    with ExitStack() as stack:
        for target, name, value in (
            (secrets, "token_bytes", stream.take),
            (secrets, "SystemRandom", lambda: _Drawn(stream)),
            (os, "urandom", stream.take),
            (ec, "generate_private_key", lambda curve, backend=None: stream.key(curve)),  # noqa: ARG005 - its signature
            (rsa, "generate_private_key", _Numbered()),
            (_tpm(), "rsa_key", rsa_key),
            (Ed25519PrivateKey, "generate", lambda: Ed25519PrivateKey.from_private_bytes(stream.take(32))),
            (x509, "random_serial_number", lambda: int.from_bytes(stream.take(_SERIAL_SIZE)) | 1),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        _sign_without_chance(stack)
        yield stream


def _tpm() -> ModuleType:
    """Where software TPMs take their RSA keys from."""
    modules = [sys.modules[base.__module__] for base in SoftTpm.__mro__]
    return next(module for module in modules if hasattr(module, "rsa_key"))


class _Drawn(random.Random):
    """Numbers out of a stream; whoever asks for one is not told that it is no random one."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(0)
        self._stream = stream

    def random(self) -> float:
        return self.getrandbits(53) / 2**53

    def getrandbits(self, k: int, /) -> int:
        return int.from_bytes(self._stream.take((k + 7) // 8)) >> (-k % 8)


class _Numbered:
    """Makes RSA keys, the first one, the second one."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, public_exponent: int, key_size: int) -> rsa.RSAPrivateKey:
        assert (public_exponent, key_size) == (65537, 2048)
        self._count += 1
        return rsa_key(f"number {self._count}")


def _sign_without_chance(stack: ExitStack) -> None:
    made = ec.ECDSA.__init__

    def begin(self: ec.ECDSA, algorithm: Any, deterministic_signing: bool = True) -> None:
        del deterministic_signing
        made(self, algorithm, True)

    stack.enter_context(mock.patch.object(ec.ECDSA, "__init__", begin))
    for builder in (x509.CertificateBuilder, x509.CertificateRevocationListBuilder):
        sign = builder.sign

        def signed(self: Any, private_key: Any, *rest: Any, _sign: Any = sign, **options: Any) -> Any:
            if isinstance(private_key, ec.EllipticCurvePrivateKey):
                options["ecdsa_deterministic"] = True
            return _sign(self, private_key, *rest, **options)

        stack.enter_context(mock.patch.object(builder, "sign", signed))
