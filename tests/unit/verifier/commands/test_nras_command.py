"""``weighbridge verify nras``: what a person and a program are told, and with which exit status."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.nras import NOON, Answer, EmulatedNras
from gpu_support import emulated_anchors
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto import binding
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from pathlib import Path

NONCE = binding.gpu_nonce(bytes(32))
SERVICE = EmulatedNras()
AT = "2026-06-01T12:05:00Z"
assert f"{NOON:%H:%M}" == "12:00"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "anchors.json").write_bytes(SERVICE.anchors().encode())
    (tmp_path / "jwks.json").write_bytes(SERVICE.jwks())
    return [
        *("verify", "nras", str(tmp_path / "answer.json"), "--jwks", str(tmp_path / "jwks.json")),
        *("--nonce", NONCE.hex(), "--at", AT, "--anchors", str(tmp_path / "anchors.json")),
    ]


def answer(tmp_path: Path, **claims: Any) -> None:  # noqa: ANN401 - whatever a device is said to be
    (tmp_path / "answer.json").write_bytes(SERVICE.answer(Answer(NONCE, devices={"GPU-0": {"ueid": "11", **claims}})))


def test_corroborating_is_not_affirming(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(tmp_path)
    assert main(arguments) == ExitCode.INDETERMINATE
    out = capsys.readouterr().out
    assert out.startswith("INDETERMINATE: UNPROVEN: corroborates: ")
    assert (
        "GPU-0    hwmodel GH100 A01 GSP BROM, measres success, secboot true, dbgstat disabled, serial number 11" in out
    )
    assert "the service is emulated" in out
    assert "that the devices are yours" in out


def test_what_speaks_against_a_device_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(tmp_path, dbgstat="enabled\x1b[2J")
    assert main(arguments) == ExitCode.DENIED
    out = capsys.readouterr().out
    assert out.startswith("REFUSED: NRAS_CONTRADICTS: ")
    assert "against  GPU-0.dbgstat is " in out
    assert "\x1b" not in out


def test_a_program_is_told_the_same(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(tmp_path, measres="fail")
    assert main([*arguments, "--json"]) == ExitCode.DENIED
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["result"], document["code"], document["says"]) == (
        "weighbridge/verify-nras/v1",
        "refused",
        "NRAS_CONTRADICTS",
        "contradicts",
    )
    assert document["contradictions"] == [{"claim": "GPU-0.measres", "expected": '"success"', "got": '"fail"'}]
    assert document["devices"]["GPU-0"]["ueid"] == "11"


def test_other_nonce(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(tmp_path)
    arguments[arguments.index("--nonce") + 1] = "00" * 32
    assert main([*arguments, "--json"]) == ExitCode.NOT_AUTHENTIC
    assert json.loads(capsys.readouterr().out)["code"] == "NRAS_NONCE"


@pytest.mark.parametrize("nonce", ["0x11", "11 11", "é"])
def test_nonce_that_is_not_hexadecimal(arguments: list[str], nonce: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments[arguments.index("--nonce") + 1] = nonce
    assert main(arguments) == ExitCode.USAGE
    assert "not hexadecimal" in capsys.readouterr().err


def test_key_that_is_not_in_the_set(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(tmp_path)
    (tmp_path / "jwks.json").write_bytes(replace(EmulatedNras(), kid="another").jwks())
    assert main(arguments) == ExitCode.INDETERMINATE
    err = capsys.readouterr().err
    assert "NRAS_KEY_ABSENT" in err
    assert "hint: fetch the service's key set" in err


def test_nobody_is_believed_unless_named(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The service does not publish its root, so none is shipped."""
    answer(tmp_path)
    assert main(arguments[:-2]) == ExitCode.NOT_AUTHENTIC
    assert "NRAS_ISSUER" in capsys.readouterr().err


def test_devices_of_the_reports(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vendor = EmulatedVendor.create()
    paths, serials = [], []
    for number in range(2):
        chain = [x509.load_der_x509_certificate(each) for each in EmulatedH100.make(vendor).attest(NONCE).chain]
        paths.append(tmp_path / f"chain-{number}.pem")
        paths[-1].write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
        serials.append(chain[0].serial_number)
    (tmp_path / "devices.json").write_bytes(emulated_anchors(vendor).encode())
    answer(tmp_path, ueid=str(serials[0]))
    believed = [*arguments, "--anchors", str(tmp_path / "devices.json")]
    assert main([*believed, "--chain", str(paths[0])]) == ExitCode.INDETERMINATE
    assert "that the devices are yours" not in capsys.readouterr().out
    assert main([*believed, "--chain", str(paths[1])]) == ExitCode.NOT_AUTHENTIC
    assert "NRAS_SUBMODS" in capsys.readouterr().err
    assert main([*arguments, "--chain", str(paths[0])]) == ExitCode.NOT_AUTHENTIC
    assert "CHAIN_UNTRUSTED" in capsys.readouterr().err


def test_intermediate_authority_is_imported_as_what_is_believed(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(tmp_path)
    (tmp_path / "authority.der").write_bytes(SERVICE.chain[1].public_bytes(Encoding.DER))
    arguments[-1] = str(tmp_path / "imported.json")
    imported = ["anchors", "import", str(tmp_path / "authority.der"), "--purpose", "nras-root", "--platform", "nvidia"]
    assert main([*imported, "--source", "a test", "-o", arguments[-1]]) == ExitCode.AFFIRMED
    assert main(arguments) == ExitCode.INDETERMINATE
    assert "platform nvidia" in capsys.readouterr().out
