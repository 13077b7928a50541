"""TPM response codes as faults of this machine, with what to do about them.

Codes are those of TPM 2.0 Part 2 §6.6 and, for the layers above the TPM, of the TSS 2.0 Overview §3.6 (layer in bits
16 to 23). What each means in practice was observed on a TPM emulator, not only read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["RC_PCR_CHANGED", "base", "fault", "is_transient"]

_LAYER_TCTI: Final = 0x000A0000
_LAYER_MASK: Final = 0x00FF0000
# ESYS says "bad sequence" to everything once the connection below it broke.
_ESYS_BAD_SEQUENCE: Final = 0x00070007
_FORMAT_1: Final = 0x080
# Format-one codes bear in bits 6 and 8 to 11 which parameter, handle or session is meant.
_FORMAT_1_MASK: Final = 0x0BF

RC_HANDLE: Final = 0x08B
RC_POLICY_FAIL: Final = 0x09D
RC_INTEGRITY: Final = 0x09F
RC_PCR_CHANGED: Final = 0x128

# TESTING, YIELDED, RETRY, NV_RATE, NV_UNAVAILABLE: to be sent again, by the TPM's own word.
_TRANSIENT: Final = frozenset({0x90A, 0x908, 0x922, 0x920, 0x923})
# CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES: filled by somebody else.
_FULL: Final = frozenset({0x901, 0x902, 0x903, 0x904, 0x905, 0x906})
# INITIALIZE; REFERENCE_H0 to H6: a handle that we had loaded is gone.
_RESET: Final = frozenset({0x100, *range(0x910, 0x917)})
_LOCKOUT: Final = 0x921
_FAILURE: Final = 0x101


def is_transient(rc: int) -> bool:
    """Whether the TPM asks for the same command again."""
    return rc in _TRANSIENT


def base(rc: int) -> int:
    """``rc`` without the number of the parameter, handle or session that it blames."""
    return rc & _FORMAT_1_MASK if rc & _FORMAT_1 and not rc & _LAYER_MASK else rc


@dataclass(frozen=True, slots=True)
class _Meaning:
    code: Code
    message: str
    hint: str


_GONE: Final = _Meaning(Code.TPM_ABSENT, "TPM no longer answers", "Start it again, then the attester.")
_PATIENCE: Final = _Meaning(
    Code.TPM_BUSY, "TPM keeps asking for patience", "It is testing itself or resting its memory: try later."
)
_NO_SLOT: Final = _Meaning(
    Code.TPM_BUSY, "TPM has no slot left", "Others hold its slots: use /dev/tpmrm0, which shares them, not /dev/tpm0."
)
_WAS_RESET: Final = _Meaning(Code.TPM_RESET, "TPM was reset and its keys are gone", "Begin a new session.")
_POLICY: Final = _Meaning(
    Code.TPM_FAILED,
    "boot PCRs changed since the telemetry key was made",
    "Something was measured into a boot PCR: begin a new session.",
)
# The table: response codes without the number of the parameter, handle or session that they blame.
_MEANINGS: Final = {
    **dict.fromkeys(_TRANSIENT, _PATIENCE),
    **dict.fromkeys(_FULL, _NO_SLOT),
    **dict.fromkeys(_RESET, _WAS_RESET),
    RC_HANDLE: _WAS_RESET,
    RC_POLICY_FAIL: _POLICY,
    RC_PCR_CHANGED: _POLICY,
    RC_INTEGRITY: _Meaning(
        Code.TPM_FAILED,
        "credential was not made for this TPM and this attestation key",
        "Is the verifier answering this attester?",
    ),
    _LOCKOUT: _Meaning(
        Code.TPM_FAILED, "TPM is locked out", "Somebody guessed passwords: tpm2_dictionarylockout --clear-lockout."
    ),
    _FAILURE: _Meaning(Code.TPM_FAILED, "TPM is in failure mode", "Power the machine off and on again."),
}
_OTHER: Final = _Meaning(Code.TPM_FAILED, "TPM refuses", "tpm2_rc_decode explains the code.")


def fault(rc: int, action: str) -> EnvironmentFault:
    """What response code ``rc`` means to whoever runs the attester.

    Args:
        rc: from the TPM or the layers above it; not zero.
        action: what was attempted, such as ``quote``.
    """
    gone = rc & _LAYER_MASK == _LAYER_TCTI or rc == _ESYS_BAD_SEQUENCE
    meaning = _GONE if gone else _MEANINGS.get(base(rc), _OTHER)
    return EnvironmentFault(meaning.code, f"{action}: {meaning.message}", got=f"{rc:#x}", hint=meaning.hint)
