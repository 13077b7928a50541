"""CPU, software, wall clock, state directory, model and verifier."""

from __future__ import annotations

import os
import types
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.doctor_host import Paper, put
from fakes.kernel_verity import FakeKernel
from fakes.models import write_model
from weighbridge.attester.doctor import disk
from weighbridge.attester.doctor.disk import MODEL_AREA, STATE_AREA, VERIFIER_AREA
from weighbridge.attester.doctor.findings import Area, Finding, Status
from weighbridge.attester.doctor.host import Host, KernelClock
from weighbridge.attester.doctor.machine import CLOCK_AREA, CPU_AREA, SOFTWARE_AREA
from weighbridge.attester.doctor.running import diagnose
from weighbridge.attester.keys import ensure_keys
from weighbridge.attester.weights.protection import Kernel
from weighbridge.attester.weights.verity import enable
from weighbridge.verifier.pki import create_authority, issue_client

OK, WARN, FAIL, SKIP = Status.OK, Status.WARN, Status.FAIL, Status.SKIP
GIB = 2**30


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    root = tmp_path / "root"
    root.mkdir()
    return Paper(root)


def look(area: Area, host: Host) -> dict[str, Finding]:
    report = diagnose(host, areas=[area])
    assert [finding.id for finding in report.findings] == list(area.ids)
    return {finding.id: finding for finding in report.findings}


# -- CPU, software, clock ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ((), WARN, "no TEE"),
        (("dev/sev-guest",), WARN, "AMD SEV-SNP, and the kernel has no"),
        (("dev/sev-guest", "sys/kernel/config/tsm/report/x"), OK, "AMD SEV-SNP, with"),
        (("dev/tdx_guest", "sys/kernel/config/tsm/report/x"), OK, "Intel TDX, with"),
    ],
)
def test_tee(paper: Paper, files: tuple[str, ...], status: Status, words: str) -> None:
    for name in files:
        put(paper.root, name)
    finding = look(CPU_AREA, paper.host())["cpu.tee"]
    assert finding.status is status
    assert words in finding.found


def test_software(paper: Paper) -> None:
    found = look(SOFTWARE_AREA, paper.host())
    assert {finding.status for finding in found.values()} == {OK}
    assert found["software.packages"].found.startswith("weighbridge 1.0, cryptography 1.0, tpm2-pytss 1.0")


def test_missing_software(paper: Paper) -> None:
    del paper.versions["tpm2-pytss"], paper.versions["blake3"]
    finding = look(SOFTWARE_AREA, paper.host())["software.packages"]
    assert (finding.status, finding.found) == (FAIL, "missing: tpm2-pytss, blake3")


def test_the_retired_package(paper: Paper) -> None:
    paper.versions["pynvml"] = "13.0.1"
    finding = look(SOFTWARE_AREA, paper.host())["software.packages"]
    assert (finding.status, finding.todo) == (WARN, "pip uninstall pynvml")


@pytest.mark.parametrize(
    ("clock", "status", "words"),
    [
        (KernelClock(1, 2_000), OK, "off by at most 2 ms"),
        (KernelClock(0x0040, 2_000), WARN, "no time service"),
        (KernelClock(0x1001, 2_000), WARN, "no time service"),
        (KernelClock(1, 16_000_000), WARN, "off by at most 16.0 s"),
        (None, SKIP, "adjtimex"),
    ],
)
def test_wall_clock(paper: Paper, clock: KernelClock | None, status: Status, words: str) -> None:
    paper.clock = clock
    finding = look(CLOCK_AREA, paper.host())["clock.synchronised"]
    assert finding.status is status
    assert words in finding.found


def test_the_kernel_says_how_its_clock_is() -> None:
    clock = Host().kernel_clock()
    assert clock is None or (clock.error_us >= 0 and 0 <= clock.status < 2**16)


# -- state ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with keys and a certificate."""
    made, authority = tmp_path / "state", tmp_path / "authority"
    at = datetime.fromtimestamp(1.8e9, UTC)
    ensure_keys(made, names=["localhost"], at=at)
    authority.mkdir()
    create_authority(authority, name="test", at=at)
    certificate = issue_client(authority, (made / "channel.csr").read_bytes(), at=at)
    (made / "channel.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return made


def mounts(paper: Paper, state: Path, kind: str) -> None:
    device = state.stat().st_dev
    place = f"{os.major(device)}:{os.minor(device)}"
    lines = f"1 0 0:99 / /elsewhere rw - proc proc rw\njunk\n36 1 {place} / / rw - {kind} x rw\n"
    put(paper.root, "proc/self/mountinfo", lines)


def test_a_state_directory_in_order(paper: Paper, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: types.SimpleNamespace(f_bavail=40 * GIB // 4096, f_frsize=4096))
    mounts(paper, state, "ext4")
    found = look(STATE_AREA, paper.host(state=state))
    assert {finding.status for finding in found.values()} == {OK}
    assert found["state.disk"].found.startswith("ext4, 40.0 GiB free, a sync takes ")
    assert found["state.keys"].found.startswith("serving and channel key; certificate until 20")
    # Nothing was left behind.
    assert sorted(path.name for path in state.iterdir()) == [
        "channel.csr",
        "channel.key",
        "channel.pem",
        "serving.key",
        "serving.pem",
    ]


def test_no_state_directory(paper: Paper, tmp_path: Path) -> None:
    assert {finding.status for finding in look(STATE_AREA, paper.host()).values()} == {SKIP}
    found = look(STATE_AREA, paper.host(state=tmp_path / "absent"))
    assert found["state.directory"].status is FAIL
    assert found["state.directory"].todo == f"weighbridge-attester init --state {tmp_path / 'absent'}"
    assert found["state.keys"].status is SKIP
    assert not (tmp_path / "absent").exists()


def test_a_file_in_its_place(paper: Paper, tmp_path: Path) -> None:
    found = look(STATE_AREA, paper.host(state=put(tmp_path, "file")))
    assert found["state.directory"].found.endswith("is not a directory")
    assert look(STATE_AREA, paper.host(state=tmp_path / "file" / "below"))["state.directory"].status is FAIL


@pytest.mark.parametrize(("mode", "status"), [(0o700, OK), (0o750, OK), (0o755, WARN), (0o770, WARN), (0o702, WARN)])
def test_who_else_may_enter(paper: Paper, state: Path, mode: int, status: Status) -> None:
    state.chmod(mode)
    assert look(STATE_AREA, paper.host(state=state))["state.directory"].status is status


def test_a_directory_of_somebody_else(paper: Paper, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    finding = look(STATE_AREA, paper.host(state=state))["state.directory"]
    assert finding.status is FAIL
    assert "cannot be written by this user" in finding.found


@pytest.mark.parametrize(
    ("kind", "free", "status", "words"),
    [
        ("ext4", GIB * 9, OK, "9.0 GiB free"),
        ("ext4", GIB // 2, WARN, "512 MiB free"),
        ("ext4", GIB // 32, FAIL, "32 MiB free"),
        ("tmpfs", GIB * 2, WARN, "gone after a restart"),
        ("overlay", GIB * 2, WARN, "gone with the container"),
        ("nfs4", GIB * 2, WARN, "another machine"),
        ("e\x1b[2J", GIB * 9, OK, r"e\x1b[2J, 9.0 GiB"),
    ],
)
def test_disks(
    paper: Paper, state: Path, monkeypatch: pytest.MonkeyPatch, kind: str, free: int, status: Status, words: str
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: types.SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))
    mounts(paper, state, kind)
    finding = look(STATE_AREA, paper.host(state=state))["state.disk"]
    assert finding.status is status
    assert words in finding.found


def test_a_disk_that_is_slow_or_refuses(paper: Paper, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: types.SimpleNamespace(f_bavail=GIB, f_frsize=4096))
    monkeypatch.setattr(disk, "_SYNC_SLOW", -1.0)
    finding = look(STATE_AREA, paper.host(state=state))["state.disk"]
    assert (finding.status, finding.found.split(",")[0]) == (WARN, "unknown file system")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    finding = look(STATE_AREA, paper.host(state=state))["state.disk"]
    assert finding.status is FAIL
    assert finding.found.startswith("DISK_FULL")


@pytest.mark.parametrize(("days", "status"), [(0, OK), (820, WARN), (365 * 30, FAIL)])
def test_the_certificate_ends(paper: Paper, state: Path, days: int, status: Status) -> None:
    found = look(STATE_AREA, paper.host(state=state, wall=lambda: 1.8e9 + days * 86_400))
    assert found["state.keys"].status is status


def test_keys_that_strangers_can_read(paper: Paper, state: Path) -> None:
    (state / "channel.key").chmod(0o644)
    finding = look(STATE_AREA, paper.host(state=state))["state.keys"]
    assert finding.status is FAIL
    assert finding.found.startswith("KEY_EXPOSED")


# -- model, verifier --------------------------------------------------------------------------------------------------


def test_protection_of_a_model(paper: Paper, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    ioctl = FakeKernel()
    kernel = Kernel(ioctl=ioctl, devices=paper.host().kernel.devices)
    host = paper.host(model=model, kernel=kernel)
    files = sorted(path for path in model.rglob("*") if path.is_file())
    finding = look(MODEL_AREA, host)["model.protection"]
    assert (finding.status, finding.found) == (WARN, f"fs-verity can be enabled, and is on 0 of {len(files)} files")
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        enable(handle, where=str(path), ioctl=ioctl)
        os.close(handle)
    assert look(MODEL_AREA, host)["model.protection"].found == f"fs-verity on all of {len(files)} files"
    ioctl.supported = False
    assert look(MODEL_AREA, host)["model.protection"].found.startswith("neither dm-verity nor fs-verity")


def test_a_model_that_is_not_there(paper: Paper, tmp_path: Path) -> None:
    assert look(MODEL_AREA, paper.host())["model.protection"].status is SKIP
    assert look(MODEL_AREA, paper.host(model=tmp_path / "absent"))["model.protection"].status is FAIL


def test_the_verifier(paper: Paper) -> None:
    assert look(VERIFIER_AREA, paper.host())["verifier.reachable"].status is SKIP
    assert look(VERIFIER_AREA, paper.host(verifier=("v.example", 8443)))["verifier.reachable"].status is OK

    def refused(_: tuple[str, int]) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    finding = look(VERIFIER_AREA, paper.host(verifier=("v.example", 8443), connect=refused))["verifier.reachable"]
    assert (finding.status, finding.found) == (FAIL, "v.example:8443: Connection refused")
