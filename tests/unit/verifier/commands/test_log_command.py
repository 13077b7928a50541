"""`weighbridge inspect log` and `weighbridge verify log`: what is printed, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eventlog_support import (
    ACTION,
    IPL,
    SEPARATOR,
    SHA1,
    SHA256,
    SHA384,
    boot_event,
    boot_log,
    cel_record,
    extended,
    ima_data,
    ima_entry,
    old_event,
    startup,
    tlv,
)
from fakes.boot_logs import Boot
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.eventlog import records
from weighbridge.proto.measurement_log import AttesterStart, Event, ModelLoad, encode_records, make_record
from weighbridge.proto.tpm.constants import digest
from weighbridge.verifier.cli import main

DATA = b"\0\0\0\0"
BOOT = boot_log(
    startup(3),
    boot_event(0, SEPARATOR, DATA),
    boot_event(7, SEPARATOR, DATA),
    boot_event(4, IPL, b"kernel", digests=[(SHA256, digest(SHA256, b"image"))]),
)
EXITED = b"Exit Boot Services Returned with Success"
# What firmware that has handed over says as well.
WHOLE = BOOT + boot_event(4, SEPARATOR, DATA) + boot_event(5, SEPARATOR, DATA) + boot_event(5, ACTION, EXITED)
PCR0 = extended(bytes(31) + b"\3", digest(SHA256, DATA)).hex()
PCR7 = extended(bytes(32), digest(SHA256, DATA)).hex()
PCR4 = extended(bytes(32), digest(SHA256, b"image")).hex()
PCR4_WHOLE = extended(bytes(32), digest(SHA256, b"image"), digest(SHA256, DATA)).hex()
EVENTS: list[Event] = [AttesterStart("0.1.0", bytes(16)), ModelLoad(bytes(32), "declared")]
OURS = tuple(make_record(event, recnum=number, pcr=15, algs=(SHA256, SHA384)) for number, event in enumerate(EVENTS))
PCR15 = extended(bytes(32), *(dict(record.digests)[SHA256] for record in OURS)).hex()


class Run:
    """The command line, its output, and a file for it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.capsys = capsys

    def __call__(self, verb: str, data: bytes, *arguments: str) -> tuple[int, str, str]:
        self.path.write_bytes(data)
        status = main([verb, "log", str(self.path), *arguments])
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path / "log", capsys)


def test_inspect_says_unverified_first_then_every_event_then_the_values(run: Run) -> None:
    status, out, err = run("inspect", BOOT)
    assert (status, err) == (ExitCode.AFFIRMED, "")
    lines = out.splitlines()
    assert lines[0].startswith("UNVERIFIED: ")
    assert lines[2] == "tcg2, 4 events, banks sha256, boot began at locality 3"
    assert lines[4:8] == [
        "    0 PCR 0    -         EV_NO_ACTION  StartupLocality 03",
        "    1 PCR 0    content   EV_SEPARATOR  4 bytes",
        "    2 PCR 7    content   EV_SEPARATOR  4 bytes",
        "    3 PCR 4    opaque    EV_IPL  kernel",
    ]
    assert lines[9:] == [
        "leads to, in the sha256 bank, from what a reset leaves",
        f"  PCR 0    {PCR0}",
        f"  PCR 4    {PCR4}",
        f"  PCR 7    {PCR7}",
    ]


def test_inspect_json(run: Run) -> None:
    status, out, _ = run("inspect", BOOT, "--json")
    document = json.loads(out)
    assert status == ExitCode.AFFIRMED
    assert (document["schema"], document["verified"]) == ("weighbridge/inspect-log/v1", False)
    assert (document["format"], document["locality"], document["violations"]) == ("tcg2", 3, [])
    assert document["values"] == {"sha256": {"PCR 0": PCR0, "PCR 4": PCR4, "PCR 7": PCR7}}
    assert [event["binding"] for event in document["events"]] == ["none", "content", "content", "opaque"]
    assert document["events"][1]["digests"] == {"sha256": digest(SHA256, DATA).hex()}


@pytest.mark.parametrize("data", [boot_log(), boot_log(startup(0)), b"\x80"])
def test_a_log_that_extends_nothing_leads_nowhere(run: Run, data: bytes) -> None:
    status, out, _ = run("inspect", data)
    assert status == ExitCode.AFFIRMED
    assert "banks none" in out
    assert "leads to," not in out


@pytest.mark.parametrize("encoded", [encode_records(OURS), records.to_cel(OURS)])
def test_a_log_of_ours_is_read_in_both_encodings(run: Run, encoded: bytes) -> None:
    status, out, _ = run("inspect", encoded)
    assert status == ExitCode.AFFIRMED
    assert f"    1 PCR 15   content   model.load  manifest={'00' * 32} name=declared" in out
    assert f"  PCR 15   {PCR15}" in out
    status, out, _ = run("verify", encoded, "--pcr", f"15={PCR15}")
    assert status == ExitCode.AFFIRMED
    assert "opaque" not in out


def test_verify_says_what_was_compared_and_what_is_not_proven(run: Run) -> None:
    status, out, err = run("verify", WHOLE, "--pcr", f"0={PCR0}", "--pcr", f"4={PCR4_WHOLE.upper()}")
    assert (status, err) == (ExitCode.AFFIRMED, "")
    lines = out.splitlines()
    assert lines[0] == "REPLAYS: 3 events lead to the given values"
    assert f"  PCR 4        {PCR4_WHOLE}" in lines
    assert "  not compared PCR 5, PCR 7" in lines
    assert "  content      vouched for by the digests in 2 events; of 1 only the digest is proven" in lines
    assert [line for line in lines if "TPM signed" in line]
    assert [line for line in lines if "marked opaque" in line]


def test_verify_json(run: Run) -> None:
    status, out, _ = run("verify", WHOLE, "--pcr", f"7={PCR7}", "--json")
    document = json.loads(out)
    assert (status, document["exit_code"], document["result"]) == (0, 0, "replays")
    assert document["schema"] == "weighbridge/verify-log/v1"
    assert document["values"] == {"PCR 7": PCR7}
    assert document["not_compared"] == ["PCR 0", "PCR 4", "PCR 5"]
    assert (document["events"], document["opaque"]) == (1, 0)


def test_another_value_is_not_authentic(run: Run) -> None:
    status, out, err = run("verify", WHOLE, "--pcr", f"7={PCR4}", "--json")
    document = json.loads(out)
    assert status == document["exit"] == ExitCode.NOT_AUTHENTIC
    assert document["code"] == "LOG_REPLAY"
    assert (document["expected"], document["got"]) == (PCR4, PCR7)
    assert "hint: no part of the log" in err


@pytest.mark.parametrize(
    ("data", "pcr", "value", "status", "words"),
    [
        (BOOT, 7, PCR7, ExitCode.INDETERMINATE, "before the boot services did"),
        (BOOT, 4, PCR4, ExitCode.NOT_AUTHENTIC, "PCR 4 is closed by 0 separators"),
        (
            WHOLE + boot_event(7, SEPARATOR, DATA),
            7,
            extended(bytes(32), digest(SHA256, DATA), digest(SHA256, DATA)).hex(),
            ExitCode.NOT_AUTHENTIC,
            "PCR 7 is closed by 2 separators, at log[7]",
        ),
    ],
)
def test_a_boot_that_was_cut_short_or_closed_twice_is_refused(
    run: Run, data: bytes, pcr: int, value: str, status: int, words: str
) -> None:
    """A52: its values are genuine all the same."""
    result = run("verify", data, "--pcr", f"{pcr}={value}")
    assert (result[0], result[1]) == (status, "")
    assert f"LOG_EVENT: {words}" in result[2] or words in result[2]


def test_a_stated_start(run: Run) -> None:
    start = digest(SHA256, b"before")
    value = extended(start, digest(SHA256, DATA)).hex()
    assert run("verify", WHOLE, "--pcr", f"7={value}")[0] == ExitCode.NOT_AUTHENTIC
    assert run("verify", WHOLE, "--pcr", f"7={value}", "--start", f"7={start.hex()}")[0] == ExitCode.AFFIRMED


def test_a_confidential_vms_register_in_another_bank(run: Run) -> None:
    content = tlv(80, tlv(10, b"ON"))
    data = cel_record(0, content, content, register=tlv(108, b"\4"), banks=(SHA384,))
    value = extended(bytes(48), digest(SHA384, content), bank=SHA384).hex()
    status, out, _ = run("verify", data, "--ccmr", f"4={value}", "--bank", "sha384")
    assert status == ExitCode.AFFIRMED
    assert f"CCMR 4       {value}" in out
    status, _, err = run("verify", data, "--ccmr", f"4={value[:64]}")
    assert (status, "LOG_REPLAY" in err) == (ExitCode.NOT_AUTHENTIC, True)


def test_violations_are_neither_hidden_nor_accepted(run: Run) -> None:
    first = ima_data(b"/x", bytes([1] * 32))
    data = ima_entry(first) + ima_entry(ima_data(b"/var/log/x", bytes(32)), hashed=bytes(20))
    value = extended(bytes(32), digest(SHA256, first), b"\xff" * 32).hex()
    status, out, _ = run("inspect", data)
    assert status == ExitCode.AFFIRMED
    assert "1 VIOLATIONS" in out
    assert "    1 PCR 10   violation ima-ng  /var/log/x" in out
    status, out, err = run("verify", data, "--pcr", f"10={value}")
    assert (status, out) == (ExitCode.INDETERMINATE, "")
    assert "LOG_VIOLATION" in err
    # Violations of a register that is not compared say nothing of the others.
    assert run("verify", data, "--pcr", f"7={'00' * 32}")[0] == ExitCode.AFFIRMED


def test_the_rule_of_older_kernels_has_to_be_stated(run: Run) -> None:
    first = ima_data(b"/x", bytes([1] * 32))
    padded = extended(bytes(32), digest(SHA1, first) + bytes(12)).hex()
    assert run("verify", ima_entry(first), "--pcr", f"10={padded}")[0] == ExitCode.NOT_AUTHENTIC
    status, out, _ = run("verify", ima_entry(first), "--pcr", f"10={padded}", "--ima-rule", "padded")
    assert status == ExitCode.AFFIRMED
    assert "  not proven   paths: they are hints" in out.splitlines()


@pytest.mark.parametrize(
    ("data", "arguments", "code"),
    [
        (old_event(0, 8, b"1.0"), (), "LOG_SHA1_ONLY"),
        (b"10 919d ima-ng", (), "VERSION_UNSUPPORTED"),
        (BOOT, ("--format", "ima"), "VERSION_UNSUPPORTED"),
        (BOOT[:-1], (), "TRUNCATED"),
    ],
)
def test_what_is_no_log_is_malformed(run: Run, data: bytes, arguments: tuple[str, ...], code: str) -> None:
    status, out, err = run("inspect", data, *arguments)
    assert (status, out) == (ExitCode.MALFORMED, "")
    assert code in err


def test_a_log_with_a_gap_is_not_authentic(run: Run) -> None:
    status, _, err = run("inspect", encode_records(OURS[1:]))
    assert (status, "LOG_GAP" in err) == (ExitCode.NOT_AUTHENTIC, True)


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "log", str(tmp_path / "none")]) == ExitCode.ENVIRONMENT
    assert "FILE_UNREADABLE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--pcr", "7"),
        ("--pcr", f"7:{PCR7}"),
        ("--pcr", f"24={PCR7}"),
        ("--pcr", f"07={PCR7}"),
        ("--pcr", "7=xy"),
        ("--pcr", "7="),
        ("--pcr", f"7={PCR7[:-2]}"),
        ("--pcr", f"7={PCR7}", "--pcr", f"7={PCR7}"),
        ("--pcr", f"7={PCR7}", "--start", "7=00"),
        ("--pcr", f"7={PCR7}", "--bank", "sha384"),
        ("--pcr", f"7={PCR7}", "--bank", "sha1"),
        ("--ccmr", f"0={PCR7}"),
        ("--ccmr", f"5={PCR7}"),
    ],
)
def test_usage(run: Run, arguments: tuple[str, ...]) -> None:
    status, out, err = run("verify", WHOLE, *arguments)
    assert (status, out) == (ExitCode.USAGE, "")
    assert "error: " in err
    assert "hint: " in err


def test_systemds_log_is_inspected_and_replayed(run: Run) -> None:
    boot = Boot()
    boot.systemd(11, "phase", "ready")
    boot.systemd(15, "volume-key", "root", b"a key")
    data = b"".join(boot.userspace)
    status, out, _ = run("inspect", data)
    assert status == ExitCode.AFFIRMED
    assert "systemd, 2 events, banks sha256" in out
    assert "    0 PCR 11   content   phase  ready" in out.splitlines()
    assert "    1 PCR 15   opaque    volume-key  root" in out.splitlines()
    status, out, _ = run("verify", data, "--pcr", f"11={boot.values[SHA256, 11].hex()}", "--format", "systemd")
    assert status == ExitCode.AFFIRMED
    assert "not proven   the type of an event, its boot and its time: no digest covers them" in out
    status, _, err = run("verify", data, "--pcr", f"11={PCR7}")
    assert status == ExitCode.NOT_AUTHENTIC
    assert "LOG_REPLAY" in err
