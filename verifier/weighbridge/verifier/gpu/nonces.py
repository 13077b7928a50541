"""Which nonces are fit for a live session.

A nonce that somebody published has reports signed over it that anybody can copy, and a constant one will have. Both
are refused before anything is compared (CVE-2026-6420 is a hard-coded challenge).
"""

from __future__ import annotations

from typing import Final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, NotAuthentic

__all__ = ["PUBLISHED", "check_nonce"]

# Nonces of genuine reports and of recorded evidence in public repositories and packages, by where they were seen.
PUBLISHED: Final[frozenset[bytes]] = frozenset(
    strict.hex_decode(text, what="published nonce", size=limits.NONCE_SIZE)
    for text in (
        # nv-local-gpu-verifier 2.7.3 samples; NVIDIA/nvtrust; confidential-containers/trustee; NVIDIA/attestation-sdk
        "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb",
        # nv-local-gpu-verifier 2.7.3 BaseSettings.NONCE; confidentsecurity/go-nvtrust
        "4cff7f5380ead8fad8ec2c531c110aca4302a88f603792801a8ca29ee151af2e",
        # NVIDIA/attestation-sdk unit tests and common test data
        "5bb22e377702d4e1e8215a903ba094826b9ac7f731dee1fe8102958bf2840aca",
        "27a328247bf7935c993341cf587be6f05986ccce4fe7ba2c54100bd616a58f66",
        "e97b23a1718095a0e9e35edca810768c70a6a5a389b705e753b197912bc11576",
        "ea038ed507a451e005bae91186bc9403150a3cb8971fdebd05ffed65eeb6a997",
        "50e4490df1dadcc80d42038cfc91c023f55f1cd914e540641bf770d7bdfe6f4e",
        # confidential-containers/trustee, hopper_coco_report1
        "87d8e24ab336adafe228d49e83d745f6dba4ae505372b6a5704820856b343fec",
    )
)
_COUNTING: Final = bytes(range(limits.NONCE_SIZE))
# A pattern that repeats at this period or a divisor of it is a constant in disguise: deadbeefdeadbeef…
_PERIOD: Final = 8


def check_nonce(nonce: bytes) -> None:
    """Require a nonce that nobody can hold an old report for.

    Not checked: that this verifier issued it, and that it was never used.

    Args:
        nonce: the challenge of a session or the SPDM nonce derived from it.

    Raises:
        NotAuthentic: ``NONCE_LENGTH`` unless it has exactly 32 bytes; ``NONCE_DENIED`` when it is zero, constant,
            periodic, counting, or published.
    """
    check_length(nonce)
    if nonce[_PERIOD:] == nonce[:-_PERIOD] or nonce == _COUNTING:
        raise NotAuthentic(Code.NONCE_DENIED, "nonce is constant or a pattern", where="nonce", got=nonce)
    if nonce in PUBLISHED:
        raise NotAuthentic(
            Code.NONCE_DENIED, "nonce is published: anybody has a report for it", where="nonce", got=nonce
        )


def check_length(nonce: bytes) -> None:
    """Require exactly 32 bytes.

    Raises:
        NotAuthentic: ``NONCE_LENGTH``.
    """
    if len(nonce) != limits.NONCE_SIZE:
        raise NotAuthentic(
            Code.NONCE_LENGTH,
            "nonce has the wrong length",
            where="nonce",
            expected=f"{limits.NONCE_SIZE} bytes",
            got=f"{len(nonce)} bytes",
        )
