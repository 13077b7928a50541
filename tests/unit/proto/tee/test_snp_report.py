"""AMD's attestation report: what is read, and what is refused before any signature is looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.forged_snp import ForgedSnp
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tee import snp
from weighbridge.proto.tee.snp import GuestPolicy, PlatformInfo, SigningKey, Tcb, TcbLayout

FORGED = ForgedSnp.create("Genoa")
HONEST = FORGED.report(report_data=b"d" * 64)


def refused(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        snp.parse(data)
    return caught.value.code


def test_every_field() -> None:
    report = snp.parse(HONEST)
    assert report.signed == HONEST[:0x2A0]
    assert (report.version, report.vmpl, report.cpu) == (3, 0, (0x19, 0x11))
    assert report.policy == GuestPolicy.SMT | GuestPolicy.RESERVED_ONE | GuestPolicy(0x1F)
    assert report.platform == PlatformInfo.SMT_EN | PlatformInfo.ECC_EN | PlatformInfo.ALIAS_CHECK_COMPLETE
    assert (report.signing_key, report.chip_key_masked) == (SigningKey.VCEK, False)
    assert (report.report_data, report.chip_id) == (b"d" * 64, FORGED.chip_id)
    assert report.current_tcb == report.committed_tcb == report.reported_tcb == FORGED.tcb
    assert (report.smt, report.alias_check) == (True, True)


@pytest.mark.parametrize(("version", "cpu", "alias"), [(2, None, None), (3, (25, 17), True), (5, (25, 17), True)])
def test_versions(version: int, cpu: tuple[int, int] | None, alias: bool | None) -> None:
    report = snp.parse(FORGED.report(version=version))
    assert (report.cpu, report.alias_check) == (cpu, alias)


@pytest.mark.parametrize("version", [0, 1, 4, 6, 0x0300_0000])
def test_other_versions_are_refused(version: int) -> None:
    assert refused(FORGED.report(version=version)) is Code.SNP_REPORT


def test_mitigation_vectors_are_allowed_from_version_5_on() -> None:
    vectors = {0x1F8: b"\x01" * 16}
    assert snp.parse(FORGED.report(version=5, patches=vectors)).version == 5
    assert refused(FORGED.report(version=3, patches=vectors)) is Code.SNP_REPORT


@pytest.mark.parametrize(
    "offset", [0x4C, 0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F, 0x330, 0x49F], ids=lambda offset: f"{offset:#x}"
)
@pytest.mark.parametrize("version", [2, 3, 5])
def test_reserved_fields(version: int, offset: int) -> None:
    data = bytearray(FORGED.report(version=version))
    data[offset] = 1
    assert refused(bytes(data)) is Code.SNP_REPORT


def test_version_2_does_not_name_the_processor() -> None:
    assert refused(FORGED.report(version=2, patches={0x188: b"\x19"})) is Code.SNP_REPORT


@pytest.mark.parametrize("policy", [0x1001F, 0x3001F | 1 << 26, 0x3001F | 1 << 63])
def test_reserved_bits_of_the_policy(policy: int) -> None:
    assert refused(FORGED.report(policy=policy)) is Code.SNP_REPORT


@pytest.mark.parametrize("algorithm", [0, 2])
def test_another_algorithm(algorithm: int) -> None:
    assert refused(FORGED.report(algorithm=algorithm)) is Code.SNP_REPORT


@pytest.mark.parametrize("flags", [2 << 2, 6 << 2, 1 << 5])
def test_key_flags_that_there_are_not(flags: int) -> None:
    assert refused(FORGED.report(key_flags=flags)) is Code.SNP_REPORT


def test_unknown_bits_of_the_platform_are_left_alone() -> None:
    assert snp.parse(FORGED.report(platform_info=1 << 40)).smt is False


@pytest.mark.parametrize("size", [0, 1183, 1185])
def test_another_size(size: int) -> None:
    assert refused(HONEST.ljust(1185, b"\0")[:size]) is Code.SNP_REPORT


def test_tcb() -> None:
    milan = Tcb(TcbLayout.MILAN, bytes((4, 0, 9, 9, 9, 9, 22, 213)))
    assert str(milan) == "bootloader=4 tee=0 snp=22 microcode=213"
    turin = Tcb(TcbLayout.TURIN, bytes((1, 2, 3, 4, 9, 9, 9, 75)))
    assert str(turin) == "fmc=1 bootloader=2 tee=3 snp=4 microcode=75"
    assert milan.at_most(milan)
    for place in (0, 1, 6, 7):
        lower = bytearray(milan.raw)
        lower[place] += 1
        assert milan.at_most(Tcb(TcbLayout.MILAN, bytes(lower)))
        assert not Tcb(TcbLayout.MILAN, bytes(lower)).at_most(milan)


@given(st.binary(max_size=1300))
def test_any_bytes(data: bytes) -> None:
    assert refused(data) is Code.SNP_REPORT


@given(st.dictionaries(st.integers(0, 1183), st.integers(0, 255), min_size=1, max_size=8))
def test_any_bytes_changed(changes: dict[int, int]) -> None:
    data = bytearray(HONEST)
    for place, value in changes.items():
        data[place] = value
    try:
        report = snp.parse(bytes(data))
    except MalformedEvidence as error:
        assert error.code is Code.SNP_REPORT  # noqa: PT017 - most changes leave a report that can be read
    else:
        assert report.signed == bytes(data[:0x2A0])
