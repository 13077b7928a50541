"""`weighbridge inspect gpu`: what is printed, and the exit status."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gpu_support import NONCE
from weighbridge.attester.gpu.emulated import EmulatedH100, Forgery
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.options import UsageFault
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier.commands import gpu

AT = "2026-06-01T00:00:00Z"


def inspect(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    gpu.configure_inspect(parser)
    return gpu.run_inspect(parser.parse_args(arguments))


@pytest.fixture
def sample(nvidia_wheel: Path) -> str:
    """NVIDIA's own report, inside its wheel."""
    return f"{nvidia_wheel}!verifier/samples/hopperAttestationReport.txt"


@pytest.fixture
def chain(nvidia_wheel: Path) -> str:
    """Its chain."""
    return f"{nvidia_wheel}!verifier/samples/hopperCertChain.txt"


def output(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one JSON document on standard output."""
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_inspect_says_unverified_first(sample: str, chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(sample, "--chain", chain) == ExitCode.AFFIRMED
    out, err = capsys.readouterr()
    assert out.startswith("UNVERIFIED: ")
    assert "550.90.07" in out
    assert "GH100 A01 GSP BROM" in out
    assert "NONCE_DENIED" in out
    assert err == ""


def test_inspect_json(sample: str, chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(sample, "--json") == ExitCode.AFFIRMED
    document = output(capsys)
    assert document["schema"] == "weighbridge/inspect-gpu/v1"
    assert (document["verified"], document["chain"]) == (False, None)
    assert document["report"]["vbios"] == "96.00.9F.00.01"
    assert inspect(sample, "--chain", chain, "--json") == ExitCode.AFFIRMED
    assert len(output(capsys)["chain"]) == 5


@pytest.mark.parametrize(
    ("forgery", "code"),
    [
        (Forgery(trailing=b"\0"), "TRAILING_BYTES"),
        (Forgery(opaque={OpaqueType.FWID: None}), "GPU_FWID"),
        (Forgery(opaque={OpaqueType.FWID: bytes(48)}), "GPU_FWID"),
        (Forgery(nonce=bytes(32)), "NONCE_DENIED"),
    ],
)
def test_inspect_reports_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], forgery: Forgery, code: str
) -> None:
    device = EmulatedH100.make(EmulatedVendor.create())
    evidence = device.attest(bytes(range(1, 33)), forgery=forgery)
    (tmp_path / "report").write_bytes(evidence.report)
    (tmp_path / "chain").write_bytes(device.keys.to_pem().split(b"-----BEGIN PRIVATE")[0])
    assert inspect(str(tmp_path / "report"), "--chain", str(tmp_path / "chain"), "--json") == ExitCode.AFFIRMED
    assert [finding["code"] for finding in output(capsys)["findings"]] == [code]


def test_inspect_names_entries_that_have_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = EmulatedH100.make(EmulatedVendor.create())
    (tmp_path / "report").write_bytes(device.attest(NONCE, forgery=Forgery(opaque={99: b"x"})).report)
    assert inspect(str(tmp_path / "report")) == ExitCode.AFFIRMED
    assert "TYPE_99" in capsys.readouterr().out


def test_inspect_a_switch(vectors_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(str(vectors_dir / "nvidia/attsdk-testdata/switchAttestationReport.txt")) == ExitCode.AFFIRMED
    out = capsys.readouterr().out
    assert "96.10.55.00.01" in out
    assert re.search("^claimed kind +switch$", out, re.MULTILINE)


def test_inspect_says_what_a_report_passes_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent = EmulatedFabric.create(gpus=1, switches=1).attest(NONCE)
    for evidence, kind in zip(sent, ("gpu", "switch"), strict=True):
        (tmp_path / "report").write_bytes(evidence.report)
        assert inspect(str(tmp_path / "report"), "--json") == ExitCode.AFFIRMED
        assert output(capsys)["claimed_kind"] == kind


def test_inspect_malformed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report").write_bytes(b"\x11\xe0")
    assert inspect(str(tmp_path / "report"), "--json") == ExitCode.MALFORMED
    out, err = capsys.readouterr()
    assert json.loads(out)["code"] == "TRUNCATED"
    assert err.startswith("weighbridge: error: TRUNCATED: not an SPDM report: ")
    assert f"at {tmp_path / 'report'}: report[" in err


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_inspect_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "report").write_bytes(content)
    assert inspect(str(tmp_path / "report")) == ExitCode.MALFORMED
    assert f"TRUNCATED: the file is empty, at {tmp_path / 'report'}\nhint: " in capsys.readouterr().err


def test_inspect_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect("/nowhere") == ExitCode.ENVIRONMENT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("weighbridge: error: FILE_UNREADABLE: ")
    assert "\nhint: Name a file" in err


def test_standard_input_is_read_once() -> None:
    with pytest.raises(UsageFault, match="standard input"):
        inspect("-", "--chain", "-")


def test_nothing_from_a_certificate_reaches_the_terminal_raw() -> None:
    assert gpu._printable("a\x1b[2Jb") == "a\ufffd[2Jb"
