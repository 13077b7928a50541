"""OpenSSF Model Signing v1.0: the signed statement about a model's files, and the bundle that carries it.

Structures only. Whose signature it is, whether it verifies, and whether a directory holds these files is found out
where the files are: ``weighbridge.attester.model_signing``.
"""

from __future__ import annotations

from weighbridge.proto.model_signing.bundle import (
    Bundle,
    CertificateChain,
    KeyHint,
    Keyless,
    Material,
    encode_bundle,
    pae,
)
from weighbridge.proto.model_signing.statement import (
    FILE_HASHES,
    FileHash,
    Method,
    Resource,
    Serialization,
    Statement,
    ignore_rule,
)

__all__ = [
    "FILE_HASHES",
    "Bundle",
    "CertificateChain",
    "FileHash",
    "KeyHint",
    "Keyless",
    "Material",
    "Method",
    "Resource",
    "Serialization",
    "Statement",
    "encode_bundle",
    "ignore_rule",
    "pae",
]
