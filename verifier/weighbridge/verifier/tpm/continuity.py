"""From one attestation to the next: the TPM was neither reset, restarted nor exchanged for other firmware.

A reset clears the PCRs, so values that look the same afterwards may have been extended anew. The counts can be made
to match again by whoever holds the TPM's state; the telemetry key in the NULL hierarchy cannot be made to live on
(:mod:`weighbridge.verifier.tpm.certify`). Both are demanded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from weighbridge.proto.tpm.attest import Attest

__all__ = ["TpmState", "verify_continuity"]


@dataclass(frozen=True, slots=True)
class TpmState:
    """What an attestation says of the TPM's own time. A plain value: authentic only if its attestation was.

    ``clock`` is in milliseconds of TPM time.
    """

    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware: int

    @classmethod
    def of(cls, attest: Attest) -> Self:
        """The state that ``attest`` bears."""
        info = attest.clock_info
        return cls(
            clock=info.clock,
            reset_count=info.reset_count,
            restart_count=info.restart_count,
            safe=info.safe,
            firmware=attest.firmware_version,
        )


def verify_continuity(*, first: TpmState, previous: TpmState, current: TpmState) -> TpmState:
    """``current``, now known to follow ``previous`` in one power cycle of the TPM that showed ``first``.

    1. Reset and restart counts are those of the session's first attestation.
    2. The firmware is that of the first.
    3. The clock is safe: no greater value can have been shown before.
    4. The clock is greater than at the previous attestation.

    Args:
        first: of the session's enrolment.
        previous: of the last attestation accepted in it; ``first`` itself for the second.
        current: of a verified attestation by the same AK.

    Raises:
        NotAuthentic: ``TPM_RESET``, ``TPM_FIRMWARE`` or ``TPM_CLOCK``.
    """
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
    if not current.safe:
        raise NotAuthentic(
            Code.TPM_CLOCK,
            "TPM's clock is not safe: it may have shown greater values before",
            where="attest.clockInfo.safe",
            clause="TPM 2.0 Part 2 §10.11.1",
            hint="The TPM lost power without a shutdown; its clock is safe again after at most 2^22 ms.",
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
    return current
