from typing import Protocol

from cryptography import x509

class VerificationPolicy(Protocol):
    def verify(self, cert: x509.Certificate) -> None: ...

class Identity:
    def __init__(self, *, identity: str, issuer: str | None = ...) -> None: ...
    def verify(self, cert: x509.Certificate) -> None: ...
