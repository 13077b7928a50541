"""``weighbridge-attester run`` as a process, against ``weighbridge serve`` as a process, on an emulated TPM."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from cryptography import x509

from fakes.models import write_model
from support.world import reference_for, requirements
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.tpm.emulator import PLATFORM, Swtpm, manufacture
from weighbridge.attester.weights import measure
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors

BIN = Path(sys.executable).parent
SERVER = """
import sys
from weighbridge.attester.workload.client import WorkloadClient, WorkloadError, commit, new_salt
with WorkloadClient.connect(ticks=True) as attester:
    attester.load(sys.argv[1], name="tiny")
    print("serving", flush=True)
    try:
        while True:
            seq = attester.next_tick()
            attester.done(commit(new_salt(), b"q", b"a"), tokens_in=3, tokens_out=4, batch=1)
            attester.ticked(seq)
    except WorkloadError:
        pass
"""


class Site:
    """A verifier, a host, and everything that they were told, in one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.verifier = root / "verifier"
        self.state = root / "state"
        self.made = manufacture(root / "tpm")
        gpus = EmulatedGpus.open(root / "vendor", 2)
        manifest = self._model()
        self._tool("weighbridge", "init", "--origin", "ledger.example/test", self.verifier)
        self._tool("weighbridge-attester", "init", "--state", self.state)
        self._tool("weighbridge", "admit", self.verifier, self.state / "channel.csr", "-o", self.state / "channel.pem")
        roots: dict[Purpose, bytes] = {
            "nvidia-device-root": gpus.vendor.root_certificate,
            "tpm-ek-root": self.made.root,
            "tpm-ek-intermediate": self.made.intermediate,
        }
        anchors = [
            Anchor.from_certificate(
                purpose, x509.load_der_x509_certificate(root_certificate), platform=PLATFORM, source="a test"
            )
            for purpose, root_certificate in roots.items()
        ]
        (root / "anchors.json").write_bytes(TrustAnchors(tuple(anchors)).encode())
        (root / "requirements.json").write_bytes(requirements().encode())
        (root / "reference.json").write_bytes(reference_for(gpus, [manifest]).to_json())

    def _model(self) -> Manifest:
        manifest = measure(write_model(self.root / "model"), name="tiny")
        (self.root / "manifest.json").write_bytes(manifest.to_json())
        (self.root / "server.py").write_text(SERVER)
        return manifest

    def _tool(self, name: str, *arguments: object) -> None:
        subprocess.run([BIN / name, *map(str, arguments)], check=True, capture_output=True)

    def serve(self) -> tuple[subprocess.Popen[bytes], int]:
        """The verifier as a process, and its port."""
        port_file = self.root / "port"
        port_file.unlink(missing_ok=True)
        options: dict[str, object] = {
            "requirements": self.root / "requirements.json",
            "policy": "insecure_development",
            "reference": self.root / "reference.json",
            "manifest": self.root / "manifest.json",
            "anchors": self.root / "anchors.json",
            "listen": "127.0.0.1:0",
            "port-file": port_file,
        }
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        process = subprocess.Popen(
            [BIN / "weighbridge", "serve", str(self.verifier), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while not port_file.exists() or not port_file.read_text().strip():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process, int(port_file.read_text())

    def command(self, tcti: str, port: int, *options: object) -> list[str]:
        """The attester's command line."""
        given: dict[str, object] = {
            "verifier": f"localhost:{port}",
            "verifier-ca": self.verifier / "tls" / "ca.pem",
            "verifier-key": self.verifier / "anchors.json",
            "manifest": self.root / "manifest.json",
            "state": self.state,
            "tenant": "tenant-a",
            "audience": "relying-party",
            "tcti": tcti,
            "gpu": "emulated:2",
            "gpu-vendor": self.root / "vendor",
            "seed": 1,
        }
        arguments = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
        server = [sys.executable, str(self.root / "server.py"), str(self.root / "model")]
        return [str(BIN / "weighbridge-attester"), "run", *arguments, *map(str, options), "--", *server]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def tcti(site: Site) -> Iterator[str]:
    """One TPM for all tests here: as on a real machine, the log goes on from run to run."""
    with Swtpm(site.made) as running:
        yield running.tcti


@pytest.fixture(scope="module")
def port(site: Site) -> Iterator[int]:
    process, number = site.serve()
    yield number
    process.terminate()
    process.wait()


def test_a_session_says_a_document_per_window(site: Site, tcti: str, port: int) -> None:
    done = subprocess.run(
        site.command(tcti, port, "--windows", 2, "--json"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [document["schema"].split("/")[1] for document in documents]
    assert kinds == ["attester-notice"] * 4 + ["attester-window"] * 2 + ["attester-summary"]
    windows = documents[4:6]
    assert [(window["seq"], window["status"], window["tokens_out"]) for window in windows] == [
        (0, "affirmed", 4),
        (1, "affirmed", 4),
    ]
    assert windows[0]["verdict"]["outcome"] == "affirmed"
    assert documents[-1]["verifier"]["state"] == "closed"
    # What the server prints is not our result.
    assert "serving" in done.stderr
    assert "INSECURE: the TPM is emulated" in done.stderr
    assert "INSECURE: 2 GPUs are emulated" in done.stderr


def test_an_attestation_key_below_the_storage_root_key(site: Site, tcti: str, port: int) -> None:
    """It outlives the process in a file of the state directory; nothing of this machine's own boot is sent."""
    key_file = site.state / "attestation-key.cbor"
    assert not key_file.exists()
    options = ("--windows", 1, "--ak", "srk", "--ek-handle", "0x81010016", "--boot-logs", "none")
    kept: list[bytes] = []
    for _ in ("made", "loaded"):
        command = site.command(tcti, port, *options)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        kept.append(key_file.read_bytes())
    assert kept[0] == kept[1]


def read_until(stream: IO[str], text: str) -> list[str]:
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError("".join(lines))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_session_in_good_order(site: Site, tcti: str, port: int, number: signal.Signals) -> None:
    with subprocess.Popen(
        site.command(tcti, port), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        read_until(process.stdout, "window     0  affirmed       1 request, 3+4 tokens")
        assert (site.state / "token").exists()
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(timeout=30) == 0
    assert rest.splitlines()[-1].startswith("session ")
    assert " closed: " in rest
    assert not (site.state / "token").exists()
    # Nothing waits. The list of losses may tell of an earlier run here that was killed.
    assert [path.name for path in (site.state / "spool").iterdir() if path.name != "losses"] == []


def test_a_killed_attester_takes_its_server_along(site: Site, tcti: str, port: int) -> None:
    with subprocess.Popen(
        site.command(tcti, port), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        read_until(process.stdout, "window     0")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    deadline = time.monotonic() + 10
    while any(_runs(int(child)) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    again = subprocess.run(
        site.command(tcti, port, "--windows", 1), capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "window     0  affirmed" in again.stdout


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_two_attesters_do_not_share_a_tpm(site: Site, tcti: str, port: int) -> None:
    with subprocess.Popen(
        site.command(tcti, port), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        read_until(process.stdout, "window     0")
        second = subprocess.run(site.command(tcti, port), capture_output=True, text=True, timeout=30, check=False)
        process.terminate()
        process.stdout.read()
        assert process.wait(timeout=30) == 0
    assert second.returncode == 8
    assert "error: TPM_BUSY" in second.stderr
    assert "hint: " in second.stderr


def test_without_a_verifier_nothing_starts(site: Site, tcti: str) -> None:
    done = subprocess.run(site.command(tcti, 1), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (8, "")
    lines = done.stderr.splitlines()
    assert lines[-2].startswith("weighbridge-attester: error: PEER_UNREACHABLE: cannot connect to the verifier")
    assert lines[-1].startswith("hint: ")
    assert "serving" not in done.stderr


def test_a_second_interrupt_ends_it_at_once(site: Site, tcti: str, port: int) -> None:
    script = site.root / "stubborn.py"
    script.write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('stubborn', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [*site.command(tcti, port)[:-3], sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        read_until(process.stderr, "stubborn")
        (pid,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
        assert process.wait(timeout=30) == 8
    assert error.splitlines()[-1] == "weighbridge-attester: interrupted"
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
