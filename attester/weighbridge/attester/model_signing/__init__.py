"""Signing a model's directory, and verifying such a signature, as OpenSSF Model Signing v1.0 does.

Where the files are: every one of them is read. :func:`verify` begins with the procedure, written once as a list.
"""

from __future__ import annotations

from weighbridge.attester.model_signing.keyless import KeylessSigner, TrustedIdentity
from weighbridge.attester.model_signing.keys import (
    SigningKey,
    TrustedKey,
    TrustedRoots,
    load_public_key,
    load_roots,
    load_signing_key,
)
from weighbridge.attester.model_signing.signing import GIT_PATHS, sign
from weighbridge.attester.model_signing.verification import (
    CertifiedSigner,
    KeySigner,
    Signer,
    Trust,
    VerifiedModel,
    verify,
)

__all__ = [
    "GIT_PATHS",
    "CertifiedSigner",
    "KeySigner",
    "KeylessSigner",
    "Signer",
    "SigningKey",
    "Trust",
    "TrustedIdentity",
    "TrustedKey",
    "TrustedRoots",
    "VerifiedModel",
    "load_public_key",
    "load_roots",
    "load_signing_key",
    "sign",
    "verify",
]
