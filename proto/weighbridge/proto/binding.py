"""The links between the pieces of a window: one function per arrow of ``docs/protocol.md`` §3.

All results are 32 bytes. ``None`` stands for a kind of evidence that the terms do not demand in this window: it is
hashed as CBOR null, so absence is bound too.
"""

from __future__ import annotations

from weighbridge.proto.digest import D

__all__ = [
    "challenge",
    "enrolment_qualifying_data",
    "genesis",
    "gpu_nonce",
    "link",
    "qualifying_data",
    "terms_digest",
    "window_digest",
]


def window_digest(header: bytes) -> bytes:
    """``H_k``, over the exact bytes of the header."""
    return D("window", header)


def link(previous_window: bytes, previous_qualifying_data: bytes) -> bytes:
    """``prev`` of the header that follows the window with digest ``previous_window``."""
    return D("link", previous_window, previous_qualifying_data)


def genesis(ak: bytes) -> bytes:
    """The first ``prev`` of an attestation key (named by its thumbprint) that has no history in this ledger."""
    return D("genesis", ak)


def gpu_nonce(window: bytes) -> bytes:
    """The SPDM nonce for every GPU of the window with digest ``window``."""
    return D("gpu", window)


def qualifying_data(window: bytes, gpus: bytes, platform: bytes | None) -> bytes:
    """``qualifyingData`` of the TPM quote: seals header, GPU evidence and platform evidence together."""
    return D("tpm", window, gpus, platform)


def challenge(ledger_root: bytes, session: bytes, seq: int | None, random: bytes) -> bytes:
    """A freshness challenge for window ``seq`` of ``session``, or for its enrolment when ``seq`` is ``None``."""
    return D("challenge", ledger_root, session, seq, random)


def enrolment_qualifying_data(enrolment_challenge: bytes, cnf: bytes, peer: bytes) -> bytes:
    """``qualifyingData`` of the enrolment's quote and of the telemetry key's certification.

    Binds the serving key (``cnf``) and the attester's channel key (``peer``) to the AK from the first moment.
    """
    return D("enrolment", enrolment_challenge, cnf, peer)


def terms_digest(terms: bytes) -> bytes:
    """The digest of the signed terms' payload that every header carries."""
    return D("terms", terms)
