"""Nonces that a live session refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import NONCE, vector_report
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.spdm import report
from weighbridge.verifier.gpu.nonces import PUBLISHED, check_nonce


def refusal(nonce: bytes) -> Code:
    with pytest.raises(NotAuthentic) as caught:
        check_nonce(nonce)
    return caught.value.code


@pytest.mark.parametrize("nonce", [b"", b"challenge", bytes(31), bytes(33), bytes(48), NONCE[:31], NONCE + b"\0"])
def test_length(nonce: bytes) -> None:
    """A02, A03."""
    assert refusal(nonce) == Code.NONCE_LENGTH


@pytest.mark.parametrize(
    "nonce", [bytes(32), b"\xff" * 32, b"\xde\xad\xbe\xef" * 8, b"01234567" * 4, bytes(range(32)), b"\x01\x00" * 16]
)
def test_constant_or_pattern(nonce: bytes) -> None:
    """A03, A04: what a broken random number generator returns."""
    assert refusal(nonce) == Code.NONCE_DENIED


@pytest.mark.parametrize("nonce", sorted(PUBLISHED), ids=bytes.hex)
def test_published(nonce: bytes) -> None:
    """A03: anybody has a genuine report for these."""
    assert refusal(nonce) == Code.NONCE_DENIED


def test_every_captured_report_has_a_published_nonce(vectors_dir: Path) -> None:
    folder = vectors_dir / "nvidia"
    names = [*folder.glob("*/*AttestationReport*.txt"), folder / "coco-trustee/hopper_coco_report1.txt"]
    names += [folder / "go-nvtrust/attestationReport.txt", folder / "attsdk-2.0.0-nvdaod/sample_nvdaod_transcript.txt"]
    nonces = {
        report.parse(vector_report(vectors_dir, str(path.relative_to(folder)))).nonce
        for path in names
        if "claims" not in path.name
    }
    assert len(nonces) >= 7
    assert nonces <= PUBLISHED


@given(st.binary(max_size=64))
def test_derived_nonces_are_fit(data: bytes) -> None:
    check_nonce(D("gpu", data))
