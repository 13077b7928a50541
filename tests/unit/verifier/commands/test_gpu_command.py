"""`weighbridge inspect gpu` and `weighbridge verify gpu`: what is printed, and the exit status."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from gpu_support import NONCE, emulated, emulated_anchors, wheel_report
from weighbridge.attester.gpu.emulated import EmulatedH100, Forgery
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier.commands import gpu

AT = "2026-06-01T00:00:00Z"


def inspect(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    gpu.configure_inspect(parser)
    return gpu.run_inspect(parser.parse_args(arguments))


def verify(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    gpu.configure_verify(parser)
    return gpu.run_verify(parser.parse_args(arguments))


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
    assert "96.10.55.00.01" in capsys.readouterr().out


def test_inspect_malformed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report").write_bytes(b"\x11\xe0")
    assert inspect(str(tmp_path / "report"), "--json") == ExitCode.MALFORMED
    out, err = capsys.readouterr()
    assert json.loads(out)["code"] == "TRUNCATED"
    assert err.startswith("weighbridge: error: TRUNCATED: ")


def test_verify_is_indeterminate_at_best(sample: str, chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(sample, "--chain", chain, "--nonce", NONCE.hex(), "--at", AT) == ExitCode.INDETERMINATE
    out, err = capsys.readouterr()
    assert out.startswith("INDETERMINATE: GPU_REFERENCE_ABSENT")
    assert "0456ef114633549618e8fbe54ece97118b2f034f11b036980137a15264a46d07" in out
    assert "GPU_REVOCATION_UNKNOWN" in out
    assert "warning: recorded evidence" in err
    assert "warning: nonce is published" in err


def test_verify_json(sample: str, chain: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (sample, "--chain", chain, "--nonce", NONCE.hex().upper(), "--at", "now", "--arch", "GH100", "--json")
    assert verify(*arguments) == ExitCode.INDETERMINATE
    document = output(capsys)
    assert (document["schema"], document["exit_code"]) == ("weighbridge/verify-gpu/v1", 6)
    assert (document["result"], document["code"]) == ("indeterminate", "GPU_REFERENCE_ABSENT")
    assert (document["verified"]["platform"], document["verified"]["fwid"]) == ("nvidia", "matches")
    assert len(document["warnings"]) == 2


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"--nonce": "00" * 32}, ExitCode.NOT_AUTHENTIC, "GPU_NONCE"),
        ({"--nonce": ""}, ExitCode.NOT_AUTHENTIC, "NONCE_LENGTH"),
        ({"--nonce": NONCE.hex()[:-2]}, ExitCode.NOT_AUTHENTIC, "NONCE_LENGTH"),
        ({"--at": "2020-01-01T00:00:00Z"}, ExitCode.NOT_AUTHENTIC, "CHAIN_EXPIRED"),
        ({"--arch": "GB100"}, ExitCode.NOT_AUTHENTIC, "GPU_ARCH"),
        ({"--chain": "/nowhere"}, ExitCode.ENVIRONMENT, "FILE_UNREADABLE"),
    ],
)
def test_verify_refuses(
    sample: str, chain: str, capsys: pytest.CaptureFixture[str], changes: dict[str, str], status: ExitCode, code: str
) -> None:
    options = {"--chain": chain, "--nonce": NONCE.hex(), "--at": AT} | changes
    flat = [item for pair in options.items() for item in pair]
    assert verify(sample, *flat, "--json") == status
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["result"], document["code"], document["exit_code"]) == ("refused", code, status)
    assert err.startswith(f"weighbridge: error: {code}: ")
    assert verify(sample, *flat) == status
    assert capsys.readouterr().out == ""


def test_verify_tells_what_decides_nothing(vectors_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A28: a genuine report with a byte behind its signature, which nothing reads; a live window refuses it."""
    folder = vectors_dir / "nvidia/coco-trustee"
    nonce = "87d8e24ab336adafe228d49e83d745f6dba4ae505372b6a5704820856b343fec"
    arguments = (str(folder / "hopper_coco_report1.txt"), "--chain", str(folder / "hopper_coco_certs1.txt"))
    assert verify(*arguments, "--nonce", nonce, "--at", AT, "--json") == ExitCode.INDETERMINATE
    document = output(capsys)
    assert [item["code"] for item in document["findings"]] == ["TRAILING_BYTES"]
    assert (document["verified"]["protected_pcie"], document["verified"]["feature"]) == (False, "spt")
    assert verify(*arguments, "--nonce", nonce, "--at", AT) == ExitCode.INDETERMINATE
    assert "TRAILING_BYTES: 1 unsigned byte after the signature" in capsys.readouterr().out


def test_verify_a_switch(vectors_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A15: it is verified as what it is, and is no GH100."""
    folder = vectors_dir / "nvidia/attsdk-testdata"
    arguments = (str(folder / "switchAttestationReport.txt"), "--chain", str(folder / "switchCertChain.txt"))
    options = ("--nonce", NONCE.hex(), "--at", AT, "--json")
    assert verify(*arguments, *options) == ExitCode.INDETERMINATE
    verified = output(capsys)["verified"]
    assert (verified["kind"], verified["architecture"], verified["fwid"]) == ("switch", "LS_10", "missing")
    assert verify(*arguments, *options, "--arch", "GH100") == ExitCode.NOT_AUTHENTIC
    assert output(capsys)["code"] == "GPU_ARCH"


@pytest.mark.parametrize("position", [0, 4, 36, 100, 3600, 4000, 4100])
def test_a_flipped_bit_exits_3_or_4(tmp_path: Path, nvidia_wheel: Path, chain: str, position: int) -> None:
    data = bytearray(wheel_report(nvidia_wheel))
    data[position] ^= 0x10
    (tmp_path / "report").write_bytes(data)
    status = verify(str(tmp_path / "report"), "--chain", chain, "--nonce", NONCE.hex(), "--at", AT)
    assert status in {ExitCode.MALFORMED, ExitCode.NOT_AUTHENTIC}


def test_emulated_evidence_needs_its_anchors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (device,), _ = emulated()
    vendor = EmulatedVendor.create()
    device = EmulatedH100.make(vendor)
    nonce = bytes(range(1, 33))
    (tmp_path / "report").write_text(device.attest(nonce).report.hex())
    (tmp_path / "chain").write_bytes(device.keys.to_pem().split(b"-----BEGIN PRIVATE")[0])
    (tmp_path / "anchors").write_bytes(emulated_anchors(vendor).encode())
    arguments = (str(tmp_path / "report"), "--chain", str(tmp_path / "chain"), "--nonce", nonce.hex(), "--at", AT)
    assert verify(*arguments) == ExitCode.NOT_AUTHENTIC
    assert "CHAIN_UNTRUSTED" in capsys.readouterr().err
    assert verify(*arguments, "--anchors", str(tmp_path / "anchors")) == ExitCode.INDETERMINATE
    out, err = capsys.readouterr()
    assert "insecure-emulated" in out
    assert "warning: the device is emulated" in err
    assert "nonce is" not in err


def test_malformed_anchors(tmp_path: Path, sample: str, chain: str) -> None:
    (tmp_path / "anchors").write_bytes(b"{}")
    arguments = (sample, "--chain", chain, "--nonce", NONCE.hex(), "--at", AT, "--anchors", str(tmp_path / "anchors"))
    assert verify(*arguments) == ExitCode.MALFORMED


@pytest.mark.parametrize("bad", [("--nonce", "xyz"), ("--at", "yesterday"), ("--at", "2026-06-01")])
def test_usage(sample: str, chain: str, bad: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    options = {"--chain": chain, "--nonce": NONCE.hex(), "--at": AT} | dict([bad])
    with pytest.raises(SystemExit) as caught:
        verify(sample, *[item for pair in options.items() for item in pair])
    assert caught.value.code == ExitCode.USAGE
    assert bad[0] in capsys.readouterr().err


def test_standard_input_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("-", "--chain", "-", "--nonce", NONCE.hex(), "--at", AT) == ExitCode.USAGE
    assert inspect("-", "--chain", "-") == ExitCode.USAGE
    assert "standard input" in capsys.readouterr().err


def test_nothing_from_a_certificate_reaches_the_terminal_raw() -> None:
    assert gpu._printable("a\x1b[2Jb") == "a\ufffd[2Jb"
