"""Recorded evidence in the shapes in which it is shipped."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from gpu_support import wheel_bytes, wheel_chain, wheel_report
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.gpu.recorded import load_bytes, load_chain, load_report

HEX = "11e001ff" + "00" * 60


def test_out_of_a_wheel(nvidia_wheel: Path) -> None:
    assert load_report(f"{nvidia_wheel}!verifier/samples/hopperAttestationReport.txt") == wheel_report(nvidia_wheel)
    assert load_chain(f"{nvidia_wheel}!verifier/samples/hopperCertChain.txt") == wheel_chain(nvidia_wheel)


@pytest.mark.parametrize(
    "text", [HEX, HEX.upper(), HEX + "\n", "\n".join([HEX[:64], HEX[64:]]), f" {HEX[:2]} {HEX[2:]}\r\n"]
)
def test_hexadecimal_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.txt").write_text(text)
    assert load_report(str(tmp_path / "report.txt")) == bytes.fromhex(HEX)


def test_binary(tmp_path: Path) -> None:
    (tmp_path / "report!bin").write_bytes(bytes.fromhex(HEX))
    assert load_report(str(tmp_path / "report!bin")) == bytes.fromhex(HEX)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(HEX.encode())))
    assert load_report("-") == bytes.fromhex(HEX)


@pytest.mark.parametrize("data", [b"hello", b"\xff\xfe", b"11e", "²".encode(), b"0x11e0"])
def test_neither(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "report").write_bytes(data)
    with pytest.raises(MalformedEvidence) as caught:
        load_report(str(tmp_path / "report"))
    assert (caught.value.code, bool(caught.value.hint)) == (Code.NOT_HEX, True)


def test_too_large(tmp_path: Path, nvidia_wheel: Path) -> None:
    """A70: a member that expands is read no further than the limit."""
    (tmp_path / "large").write_bytes(bytes(0x8001))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", bytes(50_000_000))
    for place in (tmp_path / "large", f"{tmp_path}/bomb.zip!member"):
        with pytest.raises(MalformedEvidence) as caught:
            load_report(str(place))
        assert caught.value.code == Code.TOO_LARGE
    assert load_bytes(str(tmp_path / "large"), limit=0x8001) == bytes(0x8001)
    assert len(wheel_bytes(nvidia_wheel, "certs/verifier_device_root.pem")) < 1000


def test_unreadable(tmp_path: Path, nvidia_wheel: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"no zip file")
    with zipfile.ZipFile(tmp_path / "torn.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", bytes(range(256)) * 40)
    torn = bytearray((tmp_path / "torn.zip").read_bytes())
    torn[60:80] = bytes(20)
    (tmp_path / "torn.zip").write_bytes(torn)
    for place in (
        tmp_path,
        tmp_path / "nothing",
        f"{tmp_path}/nothing!member",
        f"{tmp_path}/no.zip!member",
        f"{tmp_path}/torn.zip!member",
        f"{nvidia_wheel}!nothing",
        f"{tmp_path}/a\0b",
    ):
        with pytest.raises(EnvironmentFault) as caught:
            load_report(str(place))
        assert caught.value.code == Code.FILE_UNREADABLE
