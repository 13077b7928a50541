"""Structures of UEFI inside events: read where the data are exactly one, else none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.boot_logs import image, tag, variable
from weighbridge.proto.eventlog import uefi


def test_a_variable_is_read_whole() -> None:
    data = variable("SecureBoot", b"\1")
    assert uefi.variable(data) == uefi.Variable(uefi.GLOBAL_VARIABLE, "SecureBoot", b"\1")
    assert uefi.variable(data + b"\0") is None
    assert uefi.variable(data[:-1]) is None
    assert uefi.variable(variable("", b"").replace(bytes(8), b"\xff" * 8)) is None


def test_an_images_path_is_read() -> None:
    assert uefi.image_path(image(r"\EFI\Linux\uki.efi")) == r"\EFI\Linux\uki.efi"
    assert uefi.image_path(image("a\nb")) == ""
    assert uefi.image_path(b"") == ""
    assert uefi.image_path(bytes(24) + b"\4" + bytes(7) + b"\4\4\3\0") == ""


def test_a_tagged_event_is_read_whole() -> None:
    assert uefi.tagged(tag(7, b"x")) == (7, b"x")
    assert uefi.tagged(tag(7, b"x") + b"y") is None
    assert uefi.tagged(b"") is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("quiet\0".encode("utf-16-le"), "quiet"),
        ("quiet\0".encode("utf-16-le") + b"\0", "quiet"),
        ("quiet".encode("utf-16-le"), "quiet"),
        ("a\0b".encode("utf-16-le"), "a"),
        (b"\0\0", None),
        (b"\x00\xd8", None),
        ("a\nb".encode("utf-16-le"), None),
        (b"", None),
    ],
)
def test_utf16(data: bytes, text: str | None) -> None:
    assert uefi.utf16(data) == text


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_nothing(data: bytes) -> None:
    uefi.variable(data)
    uefi.tagged(data)
    assert uefi.image_path(data).isprintable()
    assert (uefi.utf16(data) or "").isprintable()
