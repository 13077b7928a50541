"""The one way in which Weighbridge hashes structured data: ``D(label, part…)``.

``D(label, part…) = SHA-256(deterministic CBOR of ["weighbridge/v1/" label, part…])``. The encoding delimits the
parts, so there is nothing to concatenate and no length to guess; the label separates domains. Byte-exact worked
values are in ``docs/protocol.md`` §2.

>>> D("link", bytes(32), bytes(32)).hex()[:16]
'675324a9f05f840e'
"""

from __future__ import annotations

import hashlib
from typing import Literal

from weighbridge.proto import cbor

__all__ = ["D", "Label", "preimage", "sha256"]

Label = Literal[
    "window",  # H_k, over the header's bytes
    "link",  # prev of the next header
    "genesis",  # the first prev of an AK that has no history here
    "challenge",  # freshness challenge
    "enrolment",  # qualifying data of the enrolment's quote and of the telemetry key's certification
    "gpu",  # SPDM nonce
    "gpus",  # G_k
    "platform",  # P_k: reserved until platform evidence can be demanded
    "tpm",  # qualifying data of the quote
    "terms",  # digest of the signed terms, over the COSE payload
    "manifest",  # digest of a model manifest
    "parts",  # digest of a file that consists of several parts
    "shards",  # digest of a range that is hashed in several shards
    "collateral",  # digest of what makers of hardware published, as a verdict used it
    "verity",  # fs-verity digests of a model's files
    "log",  # head of the measurement log
    "policy",  # digest of a policy set
    "reference",  # digest of a reference set
    "work",  # leaf of the workload tree
    "pseudonym",  # what a redacted bundle calls a device, under its tenant's salt
]


def D(label: Label, *parts: cbor.CborValue) -> bytes:  # noqa: N802 - the name in the protocol document
    """The 32-byte digest of ``parts`` under ``label``."""
    return sha256(preimage(label, *parts))


def preimage(label: Label, *parts: cbor.CborValue) -> bytes:
    """What :func:`D` hashes: to keep content under the digest that names it."""
    return cbor.encode([f"weighbridge/v1/{label}", *parts])


def sha256(data: bytes) -> bytes:
    """Plain SHA-256: for digests of bytes that somebody else defined (a report, a DER chain, a file)."""
    return hashlib.sha256(data).digest()
