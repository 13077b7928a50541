"""What an operator says of TPM, platform and boot: parsed, read, and refused with what to do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.soft_tpm import SoftAuthority
from weighbridge.attester.boot import BootFiles
from weighbridge.attester.commands import tpm_arguments
from weighbridge.attester.report import Notice
from weighbridge.attester.tpm.options import AkChoice, TpmOptions
from weighbridge.proto import limits
from weighbridge.proto.collateral import CollateralItem
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, WeighbridgeError

AUTHORITY = SoftAuthority()
DER = AUTHORITY.intermediate.public_bytes(Encoding.DER)
PEM = AUTHORITY.intermediate.public_bytes(Encoding.PEM)
FIRMWARE = "sys/kernel/security/tpm0/binary_bios_measurements"
LIST = "sys/kernel/security/ima/binary_runtime_measurements"


def crl() -> x509.CertificateRevocationList:
    now = datetime(2025, 1, 1, tzinfo=UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(AUTHORITY.intermediate.subject)
    return builder.last_update(now).next_update(now).sign(AUTHORITY.key, hashes.SHA256())


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def window(self, report: object) -> None:
        raise AssertionError(report)

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice)


def parsed(*arguments: str, tcti: str = "device:/dev/tpmrm0") -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    tpm_arguments.configure(parser)
    args = parser.parse_args(arguments)
    args.state, args.tcti = Path("/state"), tcti
    return args


def refused(code: Code, operation: Callable[[], object]) -> WeighbridgeError:
    with pytest.raises((EnvironmentFault, MalformedEvidence)) as caught:
        operation()
    assert caught.value.code is code
    return caught.value


# which keys


def test_by_default_those_of_any_tpm() -> None:
    assert tpm_arguments.tpm_options(parsed()) == TpmOptions(key_file=Path("/state/attestation-key.cbor"))


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("endorsement", AkChoice()),
        ("srk", AkChoice("srk")),
        ("gce", AkChoice("gce")),
        ("handle:0x81000003", AkChoice("handle", 0x81000003)),
        ("handle:0x81ffffff", AkChoice("handle", 0x81FFFFFF)),
    ],
)
def test_kinds_of_attestation_key(text: str, choice: AkChoice) -> None:
    assert tpm_arguments.tpm_options(parsed("--ak", text)).ak == choice


@pytest.mark.parametrize(
    "text",
    ["", "handle", "handle:", "handle:0x80000000", "handle:0x8100000", "handle:0x81000003 ", "SRK", "0x81000003"],
)
def test_no_kinds_of_attestation_key(text: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="must be"):
        parsed("--ak", text)


def test_where_the_endorsement_key_is() -> None:
    assert tpm_arguments.tpm_options(parsed("--ek-handle", "0x81010001")).ek_handle == 0x81010001
    with pytest.raises(argparse.ArgumentError, match="persistent handle"):
        parsed("--ek-handle", "0x01c00002")


# files


def test_certificates_and_quote(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_bytes(PEM * 3)
    (tmp_path / "quote").write_bytes(b"quote")
    options = tpm_arguments.tpm_options(
        parsed("--platform-certificates", str(tmp_path / "chain.pem"), "--td-quote", str(tmp_path / "quote"))
    )
    assert (options.certificates, options.td_quote) == ((DER, DER, DER), b"quote")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_bytes(b"no certificate")
    (tmp_path / "many.pem").write_bytes(PEM * 5)
    (tmp_path / "quote").write_bytes(bytes(limits.TD_QUOTE_MAX + 1))
    for option, name, code in (
        ("--platform-certificates", "chain.pem", Code.CERT_MALFORMED),
        ("--platform-certificates", "many.pem", Code.TOO_LARGE),
        ("--platform-certificates", "absent", Code.FILE_UNREADABLE),
        ("--td-quote", "quote", Code.TOO_LARGE),
        ("--td-quote", "absent", Code.FILE_UNREADABLE),
    ):
        args = parsed(option, str(tmp_path / name))
        assert name in str(refused(code, partial(tpm_arguments.tpm_options, args)))


def test_collateral(tmp_path: Path) -> None:
    der = crl().public_bytes(Encoding.DER)
    (tmp_path / "crl.der").write_bytes(der)
    (tmp_path / "crl.pem").write_bytes(b"\n" + crl().public_bytes(Encoding.PEM))
    (tmp_path / "dcap.json").write_bytes(b'{"tcb_info": "{}"}\n')
    named = [word for name in ("crl.der", "crl.pem", "dcap.json") for word in ("--collateral", str(tmp_path / name))]
    items = tpm_arguments.collateral(parsed(*named)).items
    assert CollateralItem("dcap", b'{"tcb_info": "{}"}\n') in items
    assert CollateralItem("crl", der) in items
    assert tpm_arguments.collateral(parsed()).items == ()


def test_collateral_that_is_none(tmp_path: Path) -> None:
    for name, data, code in (
        ("text", b"text", Code.FIELD_RANGE),
        ("empty", b"", Code.FIELD_RANGE),
        ("pem", b"-----BEGIN X509 CRL-----\n!\n-----END X509 CRL-----\n", Code.CRL_INVALID),
        ("large", b"{" * (limits.COLLATERAL_ITEM_MAX + 1), Code.TOO_LARGE),
    ):
        (tmp_path / name).write_bytes(data)
        args = parsed("--collateral", str(tmp_path / name))
        assert name in str(refused(code, partial(tpm_arguments.collateral, args)))
    named: list[str] = []
    for number in range(limits.COLLATERAL_ITEMS_MAX + 1):
        (tmp_path / f"{number}.json").write_bytes(b"{" + number.to_bytes(1))
        named += ["--collateral", str(tmp_path / f"{number}.json")]
    refused(Code.TOO_LARGE, lambda: tpm_arguments.collateral(parsed(*named)))


# logs of the boot


def test_an_emulator_has_seen_no_boot() -> None:
    told = Told()
    assert tpm_arguments.boot_logs(parsed(tcti="swtpm:path=s"), told) == (None, None)
    assert tpm_arguments.boot_logs(parsed("--boot-logs", "none"), told) == (None, None)
    assert told.notices == []


def test_logs_below_a_directory(tmp_path: Path) -> None:
    """Also of an emulated TPM, if that is asked for: tests boot it."""
    told, args = Told(), parsed("--boot-logs", str(tmp_path), tcti="swtpm:path=s")
    # The mistake of naming /sys: everything would be kept back without a word.
    assert "none of a boot's logs" in str(refused(Code.FILE_UNREADABLE, lambda: tpm_arguments.boot_logs(args, told)))
    (tmp_path / FIRMWARE).parent.mkdir(parents=True)
    (tmp_path / FIRMWARE).touch()
    assert tpm_arguments.boot_logs(args, told) == (BootFiles(tmp_path), None)
    (tmp_path / LIST).parent.mkdir(parents=True)
    (tmp_path / LIST).touch()
    _, runtime = tpm_arguments.boot_logs(args, told)
    assert runtime is not None
    assert told.notices == []
    assert (
        "sys and run"
        in refused(
            Code.FILE_UNREADABLE, lambda: tpm_arguments.boot_logs(parsed("--boot-logs", str(tmp_path / "absent")), told)
        ).hint
    )


def test_a_list_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a directory that was named that is an error; elsewhere it is told, and verifiers decide."""

    def unreadable(_: BootFiles) -> object:
        raise EnvironmentFault(Code.FILE_UNREADABLE, "cannot read IMA's list")

    (tmp_path / LIST).parent.mkdir(parents=True)
    (tmp_path / LIST).touch()
    monkeypatch.setattr(BootFiles, "runtime", unreadable)
    told = Told()
    assert tpm_arguments.boot_logs(parsed(), told) == (BootFiles(Path("/")), None)
    assert [notice.kind for notice in told.notices] == ["boot-logs"]
    fault = refused(Code.FILE_UNREADABLE, lambda: tpm_arguments.boot_logs(parsed("--boot-logs", str(tmp_path)), told))
    assert "cannot read IMA's list" in str(fault)


def test_a_directory_that_may_not_be_looked_into() -> None:
    """What is said of it is what the system says, not that nothing is there."""
    args = parsed("--boot-logs", "x" * 300)
    assert "name too long" in str(refused(Code.FILE_UNREADABLE, lambda: tpm_arguments.boot_logs(args, Told())))
