"""What explains the others is told first."""

from __future__ import annotations

from weighbridge.policy.engine import Denial
from weighbridge.proto.errors import Code
from weighbridge.verifier.denial_order import explaining_first


def denial(code: Code, device: str | None = None) -> Denial:
    return Denial(code.value, 0, device, None, None, None, "said")


def test_what_explains_comes_first_and_what_is_not_shown_last() -> None:
    told = explaining_first(
        [
            denial(Code.GPU_REVOCATION_UNKNOWN),
            denial(Code.LOG_GAP),
            denial(Code.PLATFORM_EMULATED, "ab"),
            denial(Code.PLATFORM_EMULATED),
            denial(Code.SUBJECT_FAILED),
            denial(Code.UNPROVEN),
            denial(Code.WEIGHTS_MISMATCH),
        ]
    )
    assert [(item.code, item.device) for item in told] == [
        ("PLATFORM_EMULATED", None),
        ("PLATFORM_EMULATED", "ab"),
        ("WEIGHTS_MISMATCH", None),
        ("LOG_GAP", None),
        ("SUBJECT_FAILED", None),
        ("UNPROVEN", None),
        ("GPU_REVOCATION_UNKNOWN", None),
    ]


def test_what_is_alike_stays_in_its_order() -> None:
    alike = [denial(Code.GPU_NONCE), denial(Code.LOG_GAP), denial(Code.BOOT_LOG)]
    assert explaining_first(alike) == alike
