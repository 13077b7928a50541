"""From one attestation to the next: the TPM was neither reset, restarted nor exchanged for other firmware.

A reset clears the PCRs, so values that look the same afterwards may have been extended anew. The counts can be made
to match again by whoever holds the TPM's state; the telemetry key in the NULL hierarchy cannot be made to live on
(:mod:`weighbridge.verifier.tpm.certify`). Both are demanded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from weighbridge.verifier.tpm.quote import VerifiedQuote

__all__ = ["check_continuity"]


def check_continuity(*, first: VerifiedQuote, previous: VerifiedQuote, current: VerifiedQuote) -> None:
    """Require that ``current`` follows ``previous`` in the one power cycle of the TPM that gave ``first``.

    1. Reset and restart counts are those of the session's first attestation.
    2. The firmware is that of the first.
    3. The clock does not become unsafe: only a disorderly shutdown makes it so. One that was unsafe from the start may
       stay so (Part 1 §36.3: for up to 2^22 ms): it has been counting up ever since that shutdown.
    4. The clock is greater than at the previous attestation.

    Args:
        first: the session's enrolment quote.
        previous: the last quote accepted in it; ``first`` itself for the second.
        current: the next one.

    Raises:
        NotAuthentic: ``TPM_RESET``, ``TPM_FIRMWARE`` or ``TPM_CLOCK``.
        ValueError: the quotes are not all by one AK: their counts mean nothing to each other.
    """
    if len({quote.ak.name for quote in (first, previous, current)}) != 1:
        raise ValueError("quotes of different attestation keys")
    # 1.
    for what, then, now in (
        ("resetCount", first.reset_count, current.reset_count),
        ("restartCount", first.restart_count, current.restart_count),
    ):
        if now != then:
            raise NotAuthentic(
                Code.TPM_RESET,
                "TPM was reset or restarted within the session",
                where=f"attest.clockInfo.{what}",
                expected=then,
                got=now,
                clause="TPM 2.0 Part 1 §36",
                hint="Begin a new session; the PCRs of this one are gone.",
            )
    # 2.
    if current.firmware != first.firmware:
        raise NotAuthentic(
            Code.TPM_FIRMWARE,
            "TPM's firmware changed within the session",
            where="attest.firmwareVersion",
            expected=f"{first.firmware:#x}",
            got=f"{current.firmware:#x}",
        )
    # 3.
    if previous.safe and not current.safe:
        raise NotAuthentic(
            Code.TPM_CLOCK,
            "TPM's clock is safe no more: it may have shown greater values before",
            where="attest.clockInfo.safe",
            clause="TPM 2.0 Part 2 §10.11.1",
            hint="The TPM lost power without a shutdown: begin a new session.",
        )
    # 4.
    if current.clock <= previous.clock:
        raise NotAuthentic(
            Code.TPM_CLOCK,
            "TPM's clock did not advance",
            where="attest.clockInfo.clock",
            expected=f"> {previous.clock}",
            got=current.clock,
            clause="TPM 2.0 Part 1 §36.3",
        )
