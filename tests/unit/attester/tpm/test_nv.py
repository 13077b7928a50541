"""Certificates as TPMs store them: padded, or several in a row."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import SoftAuthority, SoftTpm
from weighbridge.attester.tpm.nv import split_certificates, trim_certificate
from weighbridge.proto.errors import Code, EnvironmentFault

LEAF = SoftTpm().certificate
(ISSUER,) = SoftAuthority().intermediates
SHORT = b"\x30\x81\x80" + bytes(128)


@pytest.mark.parametrize("padding", [b"", b"\0" * 9, b"\xff" * 9])
def test_padding_is_cut(padding: bytes) -> None:
    assert trim_certificate(LEAF + padding) == LEAF
    assert trim_certificate(SHORT + padding) == SHORT
    assert split_certificates(LEAF + ISSUER + padding) == (LEAF, ISSUER)
    assert split_certificates(padding) == ()


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x81", b"\x30\x82", b"junk", LEAF[:-1], b"\x30\x82\xff\xff"])
def test_other_contents(data: bytes) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        trim_certificate(data)
    assert caught.value.code is Code.TPM_FAILED


def test_longer_than_any_certificate() -> None:
    with pytest.raises(EnvironmentFault):
        trim_certificate(b"\x30\x82\xf0\0" + bytes(0xF000))


@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(EnvironmentFault):
        assert data.startswith(b"".join(split_certificates(data)))
