"""``weighbridge-attester doctor`` as a process: on a host with nothing, and on one with swtpm, a real TPM 2.0."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from weighbridge.attester.doctor.catalogue import CHECKS
from weighbridge.attester.doctor.tpm_commands import TpmAsked
from weighbridge.attester.tpm.device import Tpm
from weighbridge.attester.tpm.emulator import Manufactured, Swtpm, manufacture
from weighbridge.attester.tpm.transport import connect
from weighbridge.proto.tpm.constants import HashAlgorithm

PROGRAM = Path(sys.executable).parent / "weighbridge-attester"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manufactured:
    return manufacture(tmp_path_factory.mktemp("doctor") / "made")


@pytest.fixture
def swtpm(made: Manufactured) -> Iterator[Swtpm]:
    with Swtpm(made) as running:
        yield running


def doctor(*arguments: object) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status and findings by check."""
    done = subprocess.run(
        [str(PROGRAM), "doctor", "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    document = json.loads(done.stdout)
    found = {check["id"]: check for check in document["checks"]}
    assert list(found) == list(CHECKS)
    assert document["failed"] == sum(check["status"] == "fail" for check in found.values())
    assert all(check["todo"] for check in found.values() if check["status"] in {"warn", "fail"})
    return done.returncode, found


def state_of(swtpm: Swtpm) -> object:
    """Handles of every kind, and the PCRs."""
    with TpmAsked(connect(swtpm.tcti)) as tpm:
        handles = [tpm.handles(first) for first in (0x01000000, 0x02000000, 0x03000000, 0x80000000, 0x81000000)]
        return handles, [tpm.pcr(HashAlgorithm.SHA256, range(start, start + 8)) for start in (0, 8, 16)]


def test_a_host_with_nothing(tmp_path: Path) -> None:
    code, found = doctor("--root", tmp_path)
    assert code == 8
    assert found["tpm.device"]["status"] == "fail"
    assert "there is no TPM" in found["tpm.device"]["found"]
    assert {check["status"] for name, check in found.items() if name.startswith("tpm.") and name != "tpm.device"} == {
        "skip"
    }
    assert found["boot.secure-boot"]["status"] == found["cpu.tee"]["status"] == found["gpu.present"]["status"] == "warn"


def test_a_host_with_a_software_tpm(swtpm: Swtpm, tmp_path: Path) -> None:
    before = state_of(swtpm)
    code, found = doctor("--root", tmp_path, "--tcti", swtpm.tcti)
    assert code == 0, [check for check in found.values() if check["status"] == "fail"]
    tpm = {name: check["status"] for name, check in found.items() if name.startswith("tpm.")}
    assert tpm == {
        "tpm.device": "ok",
        "tpm.maker": "warn",
        "tpm.lockout": "ok",
        "tpm.clock": "ok",
        "tpm.banks": "warn",
        "tpm.ek": "ok",
        "tpm.kind": "ok",
        "tpm.ak": "ok",
    }
    assert found["tpm.maker"]["found"].startswith("IBM SW")
    assert "PCRs 0 to 7 of sha256 are zero" in found["tpm.banks"]["found"]
    assert "(L-1, RSA-2048): by CN=swtpm-localca" in found["tpm.ek"]["found"]
    assert "(H-3, P-384): by CN=swtpm-localca" in found["tpm.ek"]["found"]
    # It found the TPM and left it as it was.
    assert state_of(swtpm) == before


def test_a_software_tpm_that_somebody_uses(swtpm: Swtpm, tmp_path: Path) -> None:
    tpm = Tpm.open(swtpm.tcti)
    try:
        code, found = doctor("--root", tmp_path, "--tcti", swtpm.tcti)
    finally:
        tpm.close()
    assert code == 8
    assert found["tpm.device"]["found"].startswith("TPM_BUSY")


def test_a_software_tpm_after_a_loss_of_power(swtpm: Swtpm, tmp_path: Path) -> None:
    clocks: list[dict[str, str]] = []
    # Some seconds after starting it has written its clock again, and all is well: a busy machine may be as slow.
    while len(clocks) < 3 and (not clocks or clocks[-1]["status"] == "ok"):
        swtpm.power_cycle()
        _, found = doctor("--root", tmp_path, "--tcti", swtpm.tcti)
        clocks.append(found["tpm.clock"])
    assert clocks[-1]["status"] == "warn"
    assert clocks[-1]["found"].startswith("not safe after a power failure")


def test_a_software_tpm_that_is_gone(swtpm: Swtpm, tmp_path: Path) -> None:
    swtpm.kill()
    code, found = doctor("--root", tmp_path, "--tcti", swtpm.tcti)
    assert code == 8
    assert found["tpm.device"]["found"].startswith("TPM_ABSENT")


def test_not_a_way_to_reach_a_tpm(tmp_path: Path) -> None:
    code, found = doctor("--root", tmp_path, "--tcti", "mssim:host=1")
    assert code == 8
    assert "swtpm:path=SOCKET" in found["tpm.device"]["todo"]
