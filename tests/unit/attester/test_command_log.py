"""`weighbridge-attester log show | export`: the newest log as it lies on disk, also beside a running attester."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.pcrs import FakePcrs
from weighbridge.attester.cli import main
from weighbridge.attester.weights import Baseline, MeasurementLog
from weighbridge.attester.weights.stored import read_newest
from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.proto.eventlog import Format, Register, cel, read, records, require
from weighbridge.proto.measurement_log import AttesterStart, ModelLoad, ModelUnload, parse_records
from weighbridge.proto.tpm.constants import HashAlgorithm

SHA256 = HashAlgorithm.SHA256
PCR = 15


@pytest.fixture
def pcrs() -> FakePcrs:
    return FakePcrs()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def log(state: Path, pcrs: FakePcrs) -> Iterator[MeasurementLog]:
    """A log that its attester holds open, with its lock."""
    opened = MeasurementLog.open(state, pcrs, pcr=PCR, boot="3.0")
    opened.append(AttesterStart("0.1.0", bytes(16)))
    opened.append(ModelLoad(bytes(32), "declared"))
    yield opened
    opened.close()


def test_what_is_read_is_what_the_attester_wrote(log: MeasurementLog, state: Path, pcrs: FakePcrs) -> None:
    stored = read_newest(state)
    assert (stored.pcr, stored.records, stored.from_reset) == (PCR, log.records(), True)
    assert stored.start == log.start
    assert stored.values() == {bank: pcrs.values[bank, PCR] for bank in pcrs.banks}
    assert stored.directory.name == "00000000-3.0"
    log.append(ModelUnload(1))
    assert read_newest(state).records == log.records()


@pytest.mark.usefixtures("log")
def test_the_newest_boot_is_read(log: MeasurementLog, state: Path) -> None:
    log.close()
    fresh = FakePcrs()
    second = MeasurementLog.open(state, fresh, pcr=PCR, boot="2.0")
    second.append(AttesterStart("0.2.0", bytes(16)))
    second.close()
    stored = read_newest(state)
    assert (stored.directory.name, stored.records) == ("00000001-2.0", second.records())


def test_export_and_import(
    log: MeasurementLog, state: Path, pcrs: FakePcrs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_tlv, in_cbor = tmp_path / "log.cel", tmp_path / "log.cbor"
    assert main(["log", "export", "--state", str(state), "-o", str(in_tlv)]) == ExitCode.AFFIRMED
    assert main(["log", "export", "--state", str(state), "--format", "cbor", "-o", str(in_cbor)]) == ExitCode.AFFIRMED
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"{in_tlv}: 2 records, {in_tlv.stat().st_size} bytes"
    assert "--start" not in out
    assert records.from_cel(cel.parse(in_tlv.read_bytes())) == log.records()
    assert parse_records(in_cbor.read_bytes()) == log.records()
    for path, form in ((in_tlv, Format.CEL), (in_cbor, Format.WEIGHBRIDGE)):
        imported = read(path.read_bytes())
        assert imported.format is form
        require(imported, SHA256, {Register.pcr(PCR): pcrs.values[SHA256, PCR]})


def test_a_register_that_was_not_zero_is_said(
    state: Path, pcrs: FakePcrs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pcrs.extend(PCR, {bank: bytes([7] * len(pcrs.values[bank, PCR])) for bank in pcrs.banks})
    found = pcrs.values[SHA256, PCR]
    with_found = MeasurementLog.open(state, pcrs, pcr=PCR, boot="3.0", baseline=Baseline.FOUND)
    with_found.append(AttesterStart("0.1.0", bytes(16)))
    with_found.close()
    path = tmp_path / "log.cel"
    assert main(["log", "export", "--state", str(state), "-o", str(path)]) == ExitCode.AFFIRMED
    assert f"--start {PCR}=HEX of" in (out := capsys.readouterr().out)
    assert f"sha256:{found.hex()}" in out
    expected = {Register.pcr(PCR): pcrs.values[SHA256, PCR]}
    require(read(path.read_bytes()), SHA256, expected, start={Register.pcr(PCR): found})
    assert main(["log", "show", "--state", str(state)]) == ExitCode.AFFIRMED
    assert f"start    sha256  {found.hex()}" in capsys.readouterr().out


def test_show(log: MeasurementLog, state: Path, pcrs: FakePcrs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "show", "--state", str(state)]) == ExitCode.AFFIRMED
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "log      00000000-3.0, 2 records, PCR 15",
        f"head     {log.position.head.hex()}",
        f"    0    attester.start  version=0.1.0 start_id={'00' * 16}",
    ]
    assert "name=declared" in lines[3]
    assert f"leads to sha256  {pcrs.values[SHA256, PCR].hex()}" in lines


def test_show_json(log: MeasurementLog, state: Path, pcrs: FakePcrs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "show", "--state", str(state), "--json"]) == ExitCode.AFFIRMED
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["log"], document["pcr"]) == ("weighbridge/log/v1", "00000000-3.0", PCR)
    assert document["head"] == log.position.head.hex()
    assert [record["event"] for record in document["records"]] == ["attester.start", "model.load"]
    assert document["values"]["sha256"] == pcrs.values[SHA256, PCR].hex()


@pytest.mark.parametrize("made", ["", "log", "log/00000000-3.0"])
def test_no_log_is_said(state: Path, made: str) -> None:
    if made:
        (state / made).mkdir(parents=True)
    with pytest.raises(EnvironmentFault) as caught:
        read_newest(state)
    assert caught.value.code is Code.FILE_UNREADABLE


def start_cbor(fields: dict[int, object]) -> bytes:
    return cbor.encode({0: "weighbridge/v1/log-start", 1: PCR, 2: {11: bytes(32)}} | fields)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("start.cbor", b""),
        ("start.cbor", start_cbor({0: "weighbridge/v2/log-start"})),
        ("start.cbor", start_cbor({1: 24})),
        ("start.cbor", start_cbor({2: {11: bytes(31)}})),
        ("start.cbor", start_cbor({2: {99: bytes(32)}})),
        ("start.cbor", start_cbor({3: 0})),
        ("start.cbor", start_cbor({1: 14})),
        ("start.cbor", start_cbor({2: {13: bytes(64)}})),
        ("00000000.cbor", b"\0"),
        ("00000000.cbor", None),
        ("00000000.cbor", bytes(64 * 1024 + 1)),
    ],
)
@pytest.mark.usefixtures("log")
def test_a_damaged_log_is_said(state: Path, name: str, data: bytes | None) -> None:
    path = state / "log" / "00000000-3.0" / name
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(EnvironmentFault) as caught:
        read_newest(state)
    assert caught.value.code is Code.STATE_CORRUPT


@pytest.mark.parametrize(
    "arguments",
    [("log",), ("log", "show"), ("log", "export", "--state", "x"), ("log", "export", "--state", "x", "-o", "-")],
)
def test_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert "hint: " in capsys.readouterr().err
