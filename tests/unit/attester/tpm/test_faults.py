"""Response codes become faults that say what to do."""

from __future__ import annotations

import pytest

from weighbridge.attester.tpm import faults
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, MalformedEvidence


@pytest.mark.parametrize(
    ("rc", "code"),
    [
        (0x000A000A, Code.TPM_ABSENT),
        (0x00070007, Code.TPM_ABSENT),
        (0x922, Code.TPM_BUSY),
        (0x908, Code.TPM_BUSY),
        (0x90A, Code.TPM_BUSY),
        (0x920, Code.TPM_BUSY),
        (0x902, Code.TPM_BUSY),
        (0x903, Code.TPM_BUSY),
        (0x100, Code.TPM_RESET),
        (0x910, Code.TPM_RESET),
        (0x916, Code.TPM_RESET),
        (0x18B, Code.TPM_RESET),
        (0x28B, Code.TPM_RESET),
        (0x99D, Code.TPM_FAILED),
        (0x128, Code.TPM_BUSY),
        (0x923, Code.TPM_BUSY),
        (0x909, Code.TPM_BUSY),
        (0x98E, Code.TPM_FAILED),
        (0x9A2, Code.TPM_FAILED),
        (0x185, Code.TPM_FAILED),
        (0x00080011, Code.TPM_FAILED),
        (0x0009000B, Code.TPM_FAILED),
        (0x3DF, Code.TPM_FAILED),
        (0x921, Code.TPM_FAILED),
        (0x101, Code.TPM_FAILED),
        (0x12F, Code.TPM_FAILED),
        (0x0007000B, Code.TPM_FAILED),
    ],
)
def test_meanings(rc: int, code: Code) -> None:
    fault = faults.fault(rc, "quote")
    assert fault.code is code
    assert fault.exit_code is ExitCode.ENVIRONMENT
    assert fault.got == f"{rc:#x}"
    assert fault.hint
    assert str(fault).startswith(f"{code}: quote: ")


def test_only_the_tpms_own_word_is_reason_to_try_again() -> None:
    assert all(faults.patience(rc) == 5 for rc in (0x922, 0x908, 0x909, 0x90A))
    assert all(faults.patience(rc) == 20 for rc in (0x920, 0x923))
    assert not any(faults.patience(rc) for rc in (0x902, 0x100, 0x99D, 0x000A000A))


def test_after_what_the_connection_is_of_no_use() -> None:
    assert all(faults.is_broken(rc) for rc in (0x000A000A, 0x00070007, 0x00080011, 0x0009000B))
    assert not any(faults.is_broken(rc) for rc in (0x902, 0x100, 0x99D, 0x000B0902))


def test_what_the_tpm_sent_is_its_own_fault() -> None:
    with pytest.raises(EnvironmentFault) as caught, faults.well_formed("quote"):
        raise MalformedEvidence(Code.TRUNCATED, "attest ends early")
    assert caught.value.code is Code.TPM_FAILED
    assert "quote: TPM's answer is not what it should be: TRUNCATED" in caught.value.message
