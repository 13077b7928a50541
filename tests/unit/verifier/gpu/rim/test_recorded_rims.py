"""NVIDIA's own manifests: every one that is recorded, and reports of real devices against them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from gpu_support import vector_chain, vector_report
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm import report
from weighbridge.verifier import anchors
from weighbridge.verifier.gpu.chain import GPUS_AND_SWITCHES, verify_chain
from weighbridge.verifier.gpu.rim import RimSet, check_named, compare, verify_rim

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.verifier.gpu.rim import Measured, VerifiedRim

LGV: Final = "nvtrust-lgv"
SDK: Final = "attsdk-testdata"
SAMPLES: Final = "attsdk-testdata-sample_rims"
E0001: Final = "1010_0200_882_96005E0001"
# Each file, a time at which its signer is valid (the year's first of June), and what comes of it then.
TABLE: Final[dict[str, tuple[int, str | Code]]] = {
    f"{LGV}/Driver_RIM_test_no_gpu.swidtag": (2025, "GH100 driver 545.00"),
    f"{LGV}/{E0001}_PROD.swidtag": (2025, "GH100 vbios 96.00.5E.00.01"),
    f"{LGV}/{E0001}_test_no_gpu.swidtag": (2025, "GH100 vbios 96.00.5E.00.01"),
    **{
        f"{LGV}/{board}_9600{version.replace('.', '')}_PROD.swidtag": (2025, f"GH100 vbios 96.00.{version}")
        for board, version in (
            ("1010_0200_882", "5E.00.03"),
            ("1010_0200_882", "74.00.1A"),
            ("1010_0200_882", "74.00.1C"),
            ("1010_0205_862", "5E.00.02"),
            ("1010_0205_862", "5E.00.04"),
            ("1010_0205_862", "74.00.1F"),
            ("1010_0205_862", "74.00.20"),
            ("1010_0210_886", "74.00.11"),
            ("1010_0215_866", "74.00.10"),
            ("g520_0200_885", "74.00.01"),
            ("g520_0200_885", "74.00.0D"),
            ("g520_0202_885", "6D.00.08"),
            ("g520_0202_885", "6D.00.27"),
            ("g520_0202_885", "74.00.14"),
            ("g520_0202_885", "74.00.18"),
            ("g520_0205_865", "74.00.06"),
            ("g520_0205_865", "74.00.0F"),
            ("g520_0207_865", "74.00.15"),
            ("g520_0207_865", "74.00.19"),
            ("g520_0213_881", "6D.00.07"),
            ("g520_0213_881", "6D.00.26"),
            ("g520_0228_889", "6D.00.0A"),
            ("g520_0228_889", "6D.00.29"),
        )
    },
    f"{SDK}/NV_GPU_DRIVER_GH100_550.144.03.xml": (2026, "GH100 driver 550.144.03"),
    f"{SDK}/switchVBIOSRim_NV_SWITCH_BIOS_5612_0002_890_9610550001.xml": (2026, "LS10 switch 96.10.55.00.01"),
    # The root is one for debugging, and has not signed the leaf that comes with it.
    f"{SDK}/incorrect_cert_chain_driver_rim.xml": (2026, Code.RIM_CHAIN),
    f"{SDK}/incorrect_signature_driver_rim.xml": (2026, Code.RIM_SIG),
    # The version and hashes were edited.
    f"{SAMPLES}/NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml": (2026, Code.RIM_SIG),
    f"{SAMPLES}/NV_GPU_DRIVER_GH100_570.124.03_expired.xml": (2026, Code.RIM_EXPIRED),
    # Genuine: the second issue, whose hash at index 9 is not the first one's.
    f"{SAMPLES}/NV_GPU_VBIOS_{E0001}_measurement_mismatch.xml": (2025, "GH100 vbios 96.00.5E.00.01"),
    f"{SAMPLES}/NV_SWITCH_BIOS_5612_0002_890_9610550001_invalid_signature.xml": (2025, Code.RIM_SIG),
    # A GPU's, edited to name a switch's version.
    f"{SAMPLES}/NV_SWITCH_BIOS_5612_0002_890_9610550001_measurement_mismatch.xml": (2025, Code.RIM_SIG),
    "coco-trustee/test-rim.b64": (2025, "GH100 vbios 96.00.74.00.1C"),
}


def june(year: int) -> datetime:
    """The first of June."""
    return datetime(year, 6, 1, tzinfo=UTC)


def read(folder: Path, name: str) -> bytes:
    """The manifest's bytes."""
    data = (folder / "nvidia" / name).read_bytes()
    return strict.base64_decode(data.strip(), what=name) if name.endswith(".b64") else data


def load(folder: Path, name: str, *, year: int = 2025) -> VerifiedRim:
    """The manifest, verified with the shipped anchors."""
    return verify_rim(read(folder, name), anchors=anchors.default(), at=june(year))


def measured(folder: Path, device: tuple[str, str], *names: str, year: int = 2025) -> Measured:
    """A recorded report against recorded manifests. Its signature is other tests' matter."""
    chain = verify_chain(vector_chain(folder, device[1]), anchors.default(), at=june(year), accept=GPUS_AND_SWITCHES)
    rims = RimSet.of(load(folder, name, year=year) for name in names)
    return compare(report.parse(vector_report(folder, device[0])), chain, rims)


def test_table_is_complete(vectors_dir: Path) -> None:
    base = vectors_dir / "nvidia"
    found = [path for pattern in ("*.swidtag", "*.xml", "*rim*.b64") for path in base.rglob(pattern)]
    assert {str(path.relative_to(base)) for path in found} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_recorded(vectors_dir: Path, name: str) -> None:
    year, expected = TABLE[name]
    if isinstance(expected, Code):
        with pytest.raises(NotAuthentic) as caught:
            load(vectors_dir, name, year=year)
        assert caught.value.code is expected
        return
    rim = load(vectors_dir, name, year=year)
    assert (rim.id, rim.platform) == (expected, "nvidia")
    assert len(rim.active) == {"driver": 21, "vbios": 12, "switch": 31}[rim.kind]
    assert rim.issued < june(year) < rim.not_after
    # Ten years on, none of them is.
    with pytest.raises(NotAuthentic) as caught:
        load(vectors_dir, name, year=year + 10)
    assert caught.value.code is Code.RIM_EXPIRED


def test_genuine_manifests_are_of_the_names_under_which_they_are_kept(vectors_dir: Path) -> None:
    for name, (year, expected) in TABLE.items():
        board, _, rest = name.rpartition("/")[2].partition("_PROD")
        if rest and not isinstance(expected, Code):
            check_named(load(vectors_dir, name, year=year), f"NV_GPU_VBIOS_{board.upper()}")


def test_a_byte_in_a_thousand_flipped(vectors_dir: Path) -> None:
    data = read(vectors_dir, f"{SDK}/NV_GPU_DRIVER_GH100_550.144.03.xml")
    for position in range(0, len(data), 997):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with pytest.raises((NotAuthentic, MalformedEvidence)):
            verify_rim(bytes(changed), anchors=anchors.default(), at=june(2026))


H100_545: Final = ("go-nvtrust/attestationReport.txt", "go-nvtrust/gpuAkCertChain.txt")
H100_535: Final = (
    "attsdk-testdata-sample_attestation_data-gpu/hopperAttestationReport.txt",
    "attsdk-testdata-sample_attestation_data-gpu/hopperCertChain.txt",
)
H100_580: Final = ("attsdk-testdata/hopperAttestationReport.txt", "attsdk-testdata/hopperCertChain.txt")
LS10: Final = ("attsdk-testdata/switchAttestationReport.txt", "attsdk-testdata/switchCertChain.txt")
FIRST_ISSUE: Final = f"{LGV}/{E0001}_PROD.swidtag"
TEST_ISSUE: Final = f"{LGV}/{E0001}_test_no_gpu.swidtag"
SECOND_ISSUE: Final = f"{SAMPLES}/NV_GPU_VBIOS_{E0001}_measurement_mismatch.xml"
DRIVER_545: Final = f"{LGV}/Driver_RIM_test_no_gpu.swidtag"


def test_all_33_measurements_of_an_h100(vectors_dir: Path) -> None:
    found = measured(vectors_dir, H100_545, DRIVER_545, TEST_ISSUE)
    assert (found.status, found.compared) == ("match", 33)
    assert (found.mismatches, found.conflicts, found.uncovered, found.skipped) == ((), (), (), ())
    assert found.wanted == ("NV_GPU_DRIVER_GH100_545.00", f"NV_GPU_VBIOS_{E0001}")


def test_all_31_measurements_of_a_switch(vectors_dir: Path) -> None:
    name = f"{SDK}/switchVBIOSRim_NV_SWITCH_BIOS_5612_0002_890_9610550001.xml"
    found = measured(vectors_dir, LS10, name, year=2026)
    assert (found.status, found.compared, found.uncovered) == ("match", 31, ())


@pytest.mark.parametrize("order", [(TEST_ISSUE, SECOND_ISSUE), (SECOND_ISSUE, TEST_ISSUE)])
def test_a81_only_the_newest_genuine_issue_counts(vectors_dir: Path, order: tuple[str, ...]) -> None:
    """All 33 match the issue of June 2023; with that of December at hand, the device does not."""
    found = measured(vectors_dir, H100_545, DRIVER_545, *order)
    assert found.status == "mismatch"
    assert found.vbios is not None
    assert found.vbios.issued == datetime(2023, 12, 13, 23, 58, 3, tzinfo=UTC)


def test_two_issues_differ_in_index_9_alone(vectors_dir: Path) -> None:
    first, second = load(vectors_dir, FIRST_ISSUE), load(vectors_dir, SECOND_ISSUE)
    assert (first.id, first.tag_id) == (second.id, second.tag_id)
    differing = [index for index in first.entries if first.entries[index].hashes != second.entries[index].hashes]
    assert differing == [9]


@pytest.mark.parametrize(
    ("device", "manifest", "missing"),
    [
        (H100_535, SECOND_ISSUE, "NV_GPU_DRIVER_GH100_535.86.09"),
        (H100_580, f"{LGV}/1010_0205_862_9600740020_PROD.swidtag", "NV_GPU_DRIVER_GH100_580.159.03"),
    ],
)
def test_mismatch_at_index_9_as_users_meet_it(
    vectors_dir: Path, device: tuple[str, str], manifest: str, missing: str
) -> None:
    """The measurement changes with the manifest's issue: the first question of NVIDIA's users."""
    found = measured(vectors_dir, device, manifest)
    (mismatch,) = found.mismatches
    assert (mismatch.index, mismatch.owner, mismatch.name) == (9, "vbios", "Measurement_9")
    assert any("issued again" in cause for cause in mismatch.causes)
    assert found.missing == (missing,)
