"""Recorded evidence in the shapes in which it is shipped."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import NONCE, wheel_bytes, wheel_chain, wheel_report
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.gpu.recorded import (
    RecordedDevice,
    load_bytes,
    load_chain,
    load_evidence,
    load_report,
    parse_evidence,
)

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


DEVICE = EmulatedH100.make(EmulatedVendor.create())
SENT = DEVICE.attest(NONCE)
BUNDLE = DEVICE.keys.to_pem().split(b"-----BEGIN PRIVATE")[0]
ENTRY: dict[str, object] = {
    "arch": "HOPPER",
    "nonce": NONCE.hex(),
    "evidence": base64.b64encode(SENT.report).decode(),
    "certificate": base64.b64encode(BUNDLE).decode(),
}


def document(value: object) -> bytes:
    return json.dumps(value).encode()


def test_evidence_of_several_devices(tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_bytes(
        document([ENTRY, ENTRY | {"version": "1.0", "nonce": NONCE.hex().upper()}])
    )
    device = RecordedDevice(SENT.report, SENT.chain, "HOPPER", NONCE)
    assert load_evidence(str(tmp_path / "evidence.json")) == (device, device)


def test_evidence_as_the_service_is_sent_it() -> None:
    bare = {key: ENTRY[key] for key in ("evidence", "certificate")}
    shared = {"nonce": NONCE.hex(), "arch": "HOPPER"}
    assert parse_evidence(document(shared | {"evidence_list": [bare, bare | {"arch": "LS10"}]})) == (
        RecordedDevice(SENT.report, SENT.chain, "HOPPER", NONCE),
        RecordedDevice(SENT.report, SENT.chain, "LS10", NONCE),
    )
    assert parse_evidence(document([bare])) == (RecordedDevice(SENT.report, SENT.chain, None, None),)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([], Code.FIELD_RANGE),
        ({}, Code.FIELD_RANGE),
        ("text", Code.FIELD_RANGE),
        ({"evidence_list": {}}, Code.FIELD_RANGE),
        ([ENTRY] * 65, Code.FIELD_RANGE),
        ([1], Code.FIELD_TYPE),
        ([{}], Code.FIELD_MISSING),
        ([{"evidence": ENTRY["evidence"]}], Code.FIELD_MISSING),
        ([ENTRY | {"evidence": 1}], Code.FIELD_TYPE),
        ([ENTRY | {"evidence": "é"}], Code.NOT_BASE64),
        ([ENTRY | {"certificate": "AAA"}], Code.NOT_BASE64),
        ([ENTRY | {"certificate": "AAAA"}], Code.CERT_MALFORMED),
        ([ENTRY | {"nonce": "0x00"}], Code.NOT_HEX),
        ([ENTRY | {"nonce": None}], Code.FIELD_TYPE),
        ([ENTRY | {"arch": 9}], Code.FIELD_TYPE),
    ],
)
def test_evidence_that_is_refused(value: object, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse_evidence(document(value))
    assert caught.value.code == code


@given(st.binary(max_size=60) | st.integers(0, 400).map(lambda cut: document([ENTRY])[: -cut or None]))
def test_any_evidence_is_parsed_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        parse_evidence(data)


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
