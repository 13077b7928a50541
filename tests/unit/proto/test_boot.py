"""The logs of a boot in a message: carried byte for byte, bounded, and unread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor, limits
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.errors import Code, MalformedEvidence

PART = st.none() | st.binary(max_size=40)


def refused(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        BootLogs.parse(data)
    return caught.value.code


@given(PART, PART, PART)
def test_what_is_carried_comes_back(firmware: bytes | None, userspace: bytes | None, runtime: bytes | None) -> None:
    logs = BootLogs(firmware=firmware, userspace=userspace, runtime=runtime)
    assert BootLogs.parse(logs.encode()) == logs


def test_absent_is_not_empty() -> None:
    assert BootLogs().encode() == bytes.fromhex("83f6f6f6")
    assert BootLogs(runtime=b"").encode() == bytes.fromhex("83f6f640")


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([None, None], Code.FIELD_RANGE),
        ([None, None, None, None], Code.TOO_LARGE),
        ({0: None}, Code.FIELD_TYPE),
        (["", None, None], Code.FIELD_TYPE),
        ([None, 1, None], Code.FIELD_TYPE),
        ([bytes(limits.BOOT_LOG_MAX + 1), None, None], Code.TOO_LARGE),
        ([None, bytes(limits.BOOT_LOG_MAX + 1), None], Code.TOO_LARGE),
        ([None, None, bytes(limits.RUNTIME_LOG_MAX + 1)], Code.TOO_LARGE),
    ],
)
def test_refusals(parts: object, code: Code) -> None:
    assert refused(cbor.encode(parts)) is code


def test_together_they_fit_into_one_message() -> None:
    most = {"firmware": bytes(limits.BOOT_LOG_MAX), "userspace": bytes(limits.BOOT_LOG_MAX)}
    with pytest.raises(ValueError, match="one message takes"):
        BootLogs(**most).encode()
    assert refused(cbor.encode([*most.values(), None])) is Code.TOO_LARGE


@pytest.mark.parametrize(
    ("logs", "name"),
    [
        (BootLogs(firmware=bytes(limits.BOOT_LOG_MAX + 1)), "firmware"),
        (BootLogs(userspace=bytes(limits.BOOT_LOG_MAX + 1)), "userspace"),
        (BootLogs(runtime=bytes(limits.RUNTIME_LOG_MAX + 1)), "runtime"),
    ],
)
def test_what_no_parser_takes_is_not_encoded(logs: BootLogs, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        logs.encode()


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        logs = BootLogs.parse(data)
    except MalformedEvidence:
        return
    assert logs.encode() == data
