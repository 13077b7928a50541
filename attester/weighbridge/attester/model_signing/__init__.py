"""Signing a model's directory, and verifying such a signature, as OpenSSF Model Signing v1.0 does.

Where the files are: every one of them is read. :func:`verify` begins with the procedure, written once as a list.
"""

from __future__ import annotations

from weighbridge.attester.model_signing.keys import (
    SigningKey,
    TrustedKey,
    TrustedRoots,
    load_public_key,
    load_roots,
    load_signing_key,
)
from weighbridge.attester.model_signing.signing import GIT_PATHS, sign
from weighbridge.attester.model_signing.verification import CertifiedSigner, KeySigner, VerifiedModel, verify

__all__ = [
    "GIT_PATHS",
    "CertifiedSigner",
    "KeySigner",
    "SigningKey",
    "TrustedKey",
    "TrustedRoots",
    "VerifiedModel",
    "load_public_key",
    "load_roots",
    "load_signing_key",
    "sign",
    "verify",
]
