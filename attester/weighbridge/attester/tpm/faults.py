"""TPM response codes as faults of this machine, with what to do about them.

Codes are those of TPM 2.0 Part 2 §6.6 and, for the layers above the TPM, of the TSS 2.0 Overview §3.6 (layer in bits
16 to 23). What each means in practice was observed on a TPM emulator, not only read.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["RC_BAD_SEQUENCE", "RC_PCR_CHANGED", "base", "fault", "is_broken", "is_full", "patience", "well_formed"]

_LAYER_MASK: Final = 0xFFFF0000
_LAYER_TCTI: Final = 0x000A0000
# The TPM, and the resource manager on its behalf and on its own. After an error of any other layer, ESYS says "bad
# sequence" to everything.
_FROM_THE_TPM: Final = frozenset({0, 0x000B0000, 0x000C0000})
RC_BAD_SEQUENCE: Final = 0x00070007
# What SYS or MU make of an answer that they cannot read.
_UNREADABLE: Final = frozenset(
    {
        *(0x00080000 | code for code in (0x01, 0x06, 0x07, 0x11, 0x12, 0x15)),
        *(0x00090000 | code for code in (0x06, 0x0B, 0x0C, 0x10)),
    }
)
_FORMAT_1: Final = 0x080
# Format-one codes bear in bits 6 and 8 to 11 which parameter, handle or session is meant.
_FORMAT_1_MASK: Final = 0x0BF

RC_HIERARCHY: Final = 0x085
RC_HANDLE: Final = 0x08B
RC_AUTH_FAIL: Final = 0x08E
RC_BAD_AUTH: Final = 0x0A2
RC_POLICY_FAIL: Final = 0x09D
RC_INTEGRITY: Final = 0x09F
RC_PCR_CHANGED: Final = 0x128

# TESTING, YIELDED, CANCELED, RETRY: to be sent again, by the TPM's own word.
_TRANSIENT: Final = frozenset({0x90A, 0x908, 0x909, 0x922})
# NV_RATE, NV_UNAVAILABLE: to be sent again when its memory has rested. Microsoft's reference implementation, which
# most firmware is made from, lets one write pass in some seconds.
_NV: Final = frozenset({0x920, 0x923})
_PATIENCE: Final = 5.0
_NV_PATIENCE: Final = 20.0
# CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES: filled by somebody else.
_FULL: Final = frozenset({0x901, 0x902, 0x903, 0x904, 0x905, 0x906})
_NO_OBJECT_SLOT: Final = frozenset({0x902, 0x906})
# INITIALIZE; REFERENCE_H0 to H6: a handle that we had loaded is gone.
_RESET: Final = frozenset({0x100, *range(0x910, 0x917)})
_LOCKOUT: Final = 0x921
_FAILURE: Final = 0x101


def patience(rc: int) -> float:
    """For how many seconds in all the same command is sent again after ``rc``; 0 if the TPM does not ask for that."""
    return _PATIENCE if rc in _TRANSIENT else _NV_PATIENCE if rc in _NV else 0.0


def is_full(rc: int) -> bool:
    """Whether the TPM has no slot left for an object."""
    return rc in _NO_OBJECT_SLOT


def is_broken(rc: int) -> bool:
    """Whether the connection is of no use after ``rc``, which did not come from the TPM."""
    return rc & _LAYER_MASK not in _FROM_THE_TPM


@contextmanager
def well_formed(action: str) -> Generator[None]:
    """What is not well-formed in here came from the TPM, and is a fault of this machine."""
    try:
        yield
    except MalformedEvidence as error:
        raise EnvironmentFault(
            Code.TPM_FAILED, f"{action}: TPM's answer is not what it should be: {error}", hint=_UNREADABLE_HINT
        ) from error


def base(rc: int) -> int:
    """``rc`` without the number of the parameter, handle or session that it blames."""
    return rc & _FORMAT_1_MASK if rc & _FORMAT_1 and not rc & _LAYER_MASK else rc


@dataclass(frozen=True, slots=True)
class _Meaning:
    code: Code
    message: str
    hint: str


_UNREADABLE_HINT: Final = "Is there a TPM 2.0 at the other end? If so, update its firmware."
_GONE: Final = _Meaning(Code.TPM_ABSENT, "TPM no longer answers", "Start it again; the attester finds it by itself.")
_GARBLED: Final = _Meaning(Code.TPM_FAILED, "TPM's answer cannot be read", _UNREADABLE_HINT)
_ASKS_PATIENCE: Final = _Meaning(
    Code.TPM_BUSY, "TPM keeps asking for patience", "It is testing itself or resting its memory: try later."
)
_NO_SLOT: Final = _Meaning(
    Code.TPM_BUSY, "TPM has no slot left", "Others hold its slots: use /dev/tpmrm0, which shares them, not /dev/tpm0."
)
_PASSWORD: Final = _Meaning(
    Code.TPM_FAILED,
    "TPM wants a password",
    "The owner or endorsement hierarchy has one, or the key: the attester knows none. Clear it, or use another key.",
)
_RESTLESS: Final = _Meaning(
    Code.TPM_BUSY, "PCRs keep changing", "Another program extends PCRs without pause: try later, or find it."
)
_WAS_RESET: Final = _Meaning(Code.TPM_RESET, "TPM was reset and its keys are gone", "Begin a new session.")
_POLICY: Final = _Meaning(
    Code.TPM_FAILED,
    "boot PCRs changed since the telemetry key was made",
    "Something was measured into a boot PCR: begin a new session.",
)
# The table: response codes without the number of the parameter, handle or session that they blame.
_MEANINGS: Final = {
    **dict.fromkeys(_TRANSIENT | _NV, _ASKS_PATIENCE),
    **dict.fromkeys(_UNREADABLE, _GARBLED),
    **dict.fromkeys(_FULL, _NO_SLOT),
    **dict.fromkeys(_RESET, _WAS_RESET),
    RC_HANDLE: _WAS_RESET,
    RC_POLICY_FAIL: _POLICY,
    RC_PCR_CHANGED: _RESTLESS,
    RC_AUTH_FAIL: _PASSWORD,
    RC_BAD_AUTH: _PASSWORD,
    RC_HIERARCHY: _Meaning(
        Code.TPM_FAILED, "TPM's hierarchy is switched off", "Enable the TPM's hierarchies in the firmware's setup."
    ),
    RC_INTEGRITY: _Meaning(
        Code.TPM_FAILED,
        "not made for this TPM and this attestation key",
        "A credential: is the verifier answering this attester? A key's file: does it belong to this TPM?",
    ),
    _LOCKOUT: _Meaning(
        Code.TPM_FAILED,
        "TPM is locked out",
        "Somebody guessed passwords; our own keys have none to guess, the one in use does. Wait, or clear it: "
        "tpm2_dictionarylockout --clear-lockout.",
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
    # After the TCTI's errors, and ESYS's for what follows one, nobody is there.
    gone = rc & _LAYER_MASK == _LAYER_TCTI or rc == RC_BAD_SEQUENCE
    meaning = _GONE if gone else _MEANINGS.get(base(rc), _OTHER)
    return EnvironmentFault(meaning.code, f"{action}: {meaning.message}", got=f"{rc:#x}", hint=meaning.hint)
