"""PCR selections keep the wire's order; what a quote may not have is refused; policies are the TPM's."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tpm import pcr
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrBank, PcrSelection, pcr_digest, policy_pcr

SHA256 = HashAlgorithm.SHA256
_banks = st.builds(
    PcrBank,
    st.integers(0, 0xFFFF),
    st.sets(st.integers(0, 23)).map(lambda indices: tuple(sorted(indices))),
)


@given(st.lists(_banks, max_size=16).map(tuple))
def test_encoding_is_read_back_with_order_and_duplicates(banks: tuple[PcrBank, ...]) -> None:
    selection = PcrSelection(banks)
    assert pcr.parse(selection.encode()) == selection


@given(st.binary(max_size=64))
def test_parse_is_total(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert pcr.parse(data).encode() == data


def test_known_bytes() -> None:
    selection = PcrSelection.of(SHA256, [15, 0, 8])
    assert selection.encode().hex() == "00000001000b03018100"
    assert selection.one_bank() == (SHA256, (0, 8, 15))
    assert str(selection) == "sha256:0,8,15"
    assert str(PcrSelection(())) == "nothing"
    assert str(PcrSelection((PcrBank(4, (1,)), PcrBank(0x12, ())))) == "sha1:1+0x0012:"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("00000011", Code.TPM_PCR_SELECTION),
        ("00000001000b0400000000", Code.TPM_PCR_SELECTION),
        ("00000001000b020000", Code.TPM_PCR_SELECTION),
        ("00000001000b030000", Code.TRUNCATED),
        ("0000000000", Code.TRAILING_BYTES),
    ],
)
def test_malformed_selections(data: str, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        pcr.parse(bytes.fromhex(data))
    assert caught.value.code is code


@pytest.mark.parametrize(
    "banks",
    [
        (),
        (PcrBank(SHA256, (0,)), PcrBank(SHA256, (0,))),
        (PcrBank(SHA256, (0,)), PcrBank(HashAlgorithm.SHA384, (0,))),
        (PcrBank(SHA256, ()),),
        (PcrBank(HashAlgorithm.SHA1, (0,)),),
        (PcrBank(0x12, (0,)),),
    ],
    ids=["none", "twice", "two", "empty", "sha1", "unknown"],
)
def test_only_one_accepted_bank_may_be_quoted(banks: tuple[PcrBank, ...]) -> None:
    """A47: duplicate, several, empty, SHA-1 and unknown banks."""
    with pytest.raises(MalformedEvidence) as caught:
        PcrSelection(banks).one_bank()
    assert caught.value.code is Code.TPM_PCR_SELECTION


@pytest.mark.parametrize(
    ("algorithm", "indices"),
    [(HashAlgorithm.SHA1, [0]), (SHA256, []), (SHA256, [1, 1]), (SHA256, [24]), (SHA256, [-1])],
)
def test_selections_that_cannot_be_demanded(algorithm: HashAlgorithm, indices: list[int]) -> None:
    with pytest.raises(ValueError, match=r"SHA-1|PCR numbers"):
        PcrSelection.of(algorithm, indices)


def test_policy_pcr_is_that_of_part_3() -> None:
    """TPM 2.0 Part 3 §23.7: H(zeros || TPM_CC_PolicyPCR || selection || digest of the values)."""
    selection, values = PcrSelection.of(SHA256, [0, 7]), {0: bytes(32), 7: b"\1" * 32, 9: b"?"}
    pcrs = hashlib.sha256(bytes(32) + b"\1" * 32).digest()
    assert pcr_digest(SHA256, [bytes(32), b"\1" * 32]) == pcrs
    expected = hashlib.sha256(bytes(32) + bytes.fromhex("0000017f00000001000b03810000") + pcrs).digest()
    assert policy_pcr(selection, values, algorithm=SHA256) == expected


@pytest.mark.parametrize("values", [{0: bytes(32)}, {0: bytes(32), 7: bytes(31)}], ids=["absent", "short"])
def test_policy_needs_every_value_whole(values: dict[int, bytes]) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        policy_pcr(PcrSelection.of(SHA256, [0, 7]), values, algorithm=SHA256)
    assert caught.value.code is Code.TPM_PCR_SELECTION
