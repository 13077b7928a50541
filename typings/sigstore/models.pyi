from typing import Self

from cryptography import x509

class Bundle:
    @classmethod
    def from_json(cls, raw: bytes | str) -> Self: ...
    @property
    def signing_certificate(self) -> x509.Certificate: ...

class TrustedRoot:
    @classmethod
    def from_file(cls, path: str) -> Self: ...
