"""What the demonstration is played on: a verifier that serves, and hosts whose emulated hardware signs for real.

Everything runs as its users would run it: the verifier and the honest attesters are the installed commands, in
processes of their own, with the verifier's state, the attesters' and all evidence under one output directory.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from inference_server import ADAPTER
from minilm import ADAPTED, DIMENSIONS, packaged_model
from safetensors.numpy import save

from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.tpm.emulator import Manufactured, Swtpm, manufacture
from weighbridge.attester.weights import measure
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.anchors import Anchor, TrustAnchors, load
from weighbridge.verifier.certs import load_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from weighbridge.proto.manifest import Manifest

__all__ = [
    "ADAPTER",
    "AUDIENCE",
    "BIN",
    "SPOT_EVERY",
    "TENANT",
    "TEXTS",
    "Attester",
    "CommandFailed",
    "Host",
    "Stage",
    "command",
    "make_adapter",
]

TENANT: Final = "demo-tenant"
AUDIENCE: Final = "demo-gate"
PERIOD_NS: Final = 1_000_000_000
# Every second window is asked for bytes of the model, as long as there are challenges.
SPOT_EVERY: Final = 2
_SPOT_CHECKS: Final = 200
_PLATFORM: Final = "insecure-emulated"
_HERE: Final = Path(__file__).resolve().parent
BIN: Final = Path(sys.executable).parent
TEXTS: Final = _HERE / "texts.txt"
_STARTED_S: Final = 60.0
# Only a directory with this file in it is made anew.
_MARK: Final = ".made-by-the-demonstration"


class CommandFailed(RuntimeError):
    """A command of the demonstration itself did not do what the scene needs; its output is the message."""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished command."""

    status: int
    out: str
    err: str


async def command(*arguments: str | Path, check: bool = False) -> Done:
    """Run one of the installed commands to its end."""
    process = await asyncio.create_subprocess_exec(
        BIN / str(arguments[0]),
        *map(str, arguments[1:]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    done = Done(process.returncode or 0, out.decode(), err.decode())
    if check and done.status:
        raise CommandFailed(f"{' '.join(map(str, arguments))}: exit {done.status}\n{done.err}{done.out}")
    return done


@dataclass
class Host:
    """One emulated host: a TPM of its own, GPUs of the common vendor, an attester's state directory."""

    name: str
    directory: Path
    manufactured: Manufactured
    tpm: Swtpm
    gpus: Path

    @property
    def state(self) -> Path:
        """The attester's state directory."""
        return self.directory / "attester"


@dataclass
class Attester:
    """A running ``weighbridge-attester run``: what it reports, line by line."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def start(cls, arguments: Sequence[str | Path], on_line: Callable[[dict[str, Any]], None]) -> Self:
        """Start the command; ``on_line`` sees each JSON document as it comes."""
        process = await asyncio.create_subprocess_exec(
            BIN / "weighbridge-attester",
            "run",
            "--json",
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        attester = cls(process)
        attester._readers = [
            asyncio.create_task(attester._read_out(on_line)),
            asyncio.create_task(attester._read_err()),
        ]
        return attester

    async def _read_out(self, on_line: Callable[[dict[str, Any]], None]) -> None:
        while line := await _lines_of(self.process.stdout).readline():
            document = json.loads(line)
            self.lines.append(document)
            on_line(document)

    async def _read_err(self) -> None:
        while line := await _lines_of(self.process.stderr).readline():
            self.errors.append(line.decode().rstrip())

    async def wait(self, seconds: float) -> int:
        """The exit status; kills the process if it takes longer."""
        try:
            status = await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            self.process.kill()
            status = await self.process.wait()
            self.errors.append(f"killed after {seconds:g} s")
        await asyncio.gather(*self._readers)
        return status

    def windows(self) -> list[dict[str, Any]]:
        """The reports of windows."""
        return [line for line in self.lines if line.get("schema", "").startswith("weighbridge/window")]


@dataclass
class Stage:
    """The verifier, the model, the vendors' roots, and the hosts."""

    out: Path
    model: Path
    manifest: Manifest
    manifest_file: Path
    adapter: Manifest
    adapter_file: Path
    hosts: dict[str, Host]
    port: int = 0
    verifier: asyncio.subprocess.Process | None = None
    log: Any = None

    @property
    def state(self) -> Path:
        """The verifier's state directory."""
        return self.out / "verifier"

    @property
    def kit(self) -> Path:
        """What the red team's hosts are made of; this verifier lets them in as it does the demonstration's own."""
        return self.out / "redteam"

    @property
    def anchors(self) -> Path:
        """Everything that must be believed to accept this demonstration: emulated roots, and this verifier's keys."""
        return self.out / "anchors.json"

    @property
    def baseline(self) -> Path:
        """What the physical record of one host is compared with, signed by its owner."""
        return self.out / "demo.baseline"

    def judging(self) -> list[str | Path]:
        """The options that say how sessions are judged."""
        return [
            "--policy", "insecure_development",
            "--reference", self.out / "reference.json",
            "--manifest", self.manifest_file, "--manifest", self.adapter_file,
            "--manifest", self.kit / "model.json",
        ]  # fmt: skip

    @classmethod
    async def build(cls, out: Path, names: Sequence[str]) -> Self:
        """Make everything new under ``out``: TPMs with their authorities, GPUs, the manifest, the verifier's state."""
        await asyncio.to_thread(_make_room, out)
        model = packaged_model()
        manifest = await asyncio.to_thread(lambda: measure(model, name="all-MiniLM-L6-v2"))
        manifest_file = out / "all-MiniLM-L6-v2.json"
        manifest_file.write_bytes(manifest.to_json())
        make_adapter(out / ADAPTER, seed=1)
        adapter = measure(out / ADAPTER)
        adapter_file = out / f"{ADAPTER}.json"
        adapter_file.write_bytes(adapter.to_json())
        made = await asyncio.to_thread(_manufacture, out, names)
        hosts = {name: _switch_on(out / "hosts" / name, factory) for name, factory in made.items()}
        _make_gpus(out / "gpu-vendor", [host.gpus for host in hosts.values()])
        stage = cls(out, model, manifest, manifest_file, adapter, adapter_file, hosts)
        await command("weighbridge", "init", stage.state, "--origin", "demo.weighbridge.example/windows", check=True)
        await command("weighbridge", "redteam", "--make-kit", stage.kit, check=True)
        await stage._write_anchors()
        await stage._collect()
        stage._write_reference()
        stage._write_requirements()
        await stage._make_spot_checks()
        await asyncio.gather(
            *(command("weighbridge-attester", "init", "--state", host.state, check=True) for host in hosts.values())
        )
        for host in hosts.values():
            await command(
                "weighbridge",
                "admit",
                stage.state,
                host.state / "channel.csr",
                "-o",
                host.state / "channel.pem",
                check=True,
            )
        return stage

    async def start_verifier(self, *options: str | Path, environment: Mapping[str, str] | None = None) -> None:
        """Start ``weighbridge serve`` and wait until it listens; with more ``options``, and more in its environment."""
        port_file = self.out / "port"
        port_file.unlink(missing_ok=True)
        self.log = (self.out / "verifier.log").open("ab")
        self.verifier = await asyncio.create_subprocess_exec(
            BIN / "weighbridge", "serve", self.state,
            "--requirements", self.out / "requirements.json", *map(str, self.judging()),
            "--anchors", self.out / "roots.json", "--anchors", self.out / "baseline-owner.json",
            "--collateral", self.out / "collateral", "--baseline", self.baseline,
            "--listen", "127.0.0.1:0", "--port-file", port_file, *options,
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        deadline = time.monotonic() + _STARTED_S
        while not port_file.exists():
            if self.verifier.returncode is not None or time.monotonic() > deadline:
                raise CommandFailed(f"the verifier did not start:\n{(self.out / 'verifier.log').read_text()}")
            await asyncio.sleep(0.02)
        self.port = strict.decimal(port_file.read_text().strip(), what="port")

    async def stop(self) -> None:
        """Stop the verifier and every TPM."""
        if self.verifier is not None and self.verifier.returncode is None:
            self.verifier.terminate()
            await self.verifier.wait()
        if self.log is not None:
            self.log.close()
        for host in self.hosts.values():
            host.tpm.close()

    def options(self, host: Host, *, port: int | None = None) -> list[str | Path]:
        """The options of an honest attester on ``host``, up to the inference server's command."""
        return [
            "--verifier", f"127.0.0.1:{port or self.port}",
            "--verifier-ca", self.state / "tls" / "ca.pem",
            "--verifier-key", self.state / "anchors.json",
            "--state", host.state,
            "--manifest", self.manifest_file,
            "--tenant", TENANT, "--audience", AUDIENCE,
            "--tcti", host.tpm.tcti,
            "--gpu", "emulated:2", "--gpu-vendor", host.gpus,
            "--seed", "7",
        ]  # fmt: skip

    def server(self, *options: str | Path) -> list[str | Path]:
        """The command of the demonstration's inference server."""
        return ["--", sys.executable, _HERE / "inference_server.py", *options]

    async def _make_spot_checks(self) -> None:
        """The owner's part: challenges that only the bytes of the model can answer, for this verifier alone."""
        pool = self.out / "spot-pool.json"
        await command(
            "weighbridge-attester", "spot-pool", self.model, "--manifest", self.manifest_file,
            "--count", str(_SPOT_CHECKS), "-o", pool, check=True,
        )  # fmt: skip
        await command("weighbridge", "spot", "import", self.state, pool, check=True)
        pool.unlink()

    async def _write_anchors(self) -> None:
        anchors: list[Anchor] = []
        for host in self.hosts.values():
            root = load_certificate(host.manufactured.root, what="TPM root")
            issuer = load_certificate(host.manufactured.intermediate, what="TPM intermediate")
            source = "swtpm_localca of this demonstration"
            anchors += [
                Anchor.from_certificate("tpm-ek-root", root, platform=_PLATFORM, source=source),
                Anchor.from_certificate("tpm-ek-intermediate", issuer, platform=_PLATFORM, source=source),
            ]
        roots = self.out / "roots.json"
        anchors += load((self.kit / "anchors.json").read_bytes()).anchors
        roots.write_bytes(TrustAnchors(tuple({(a.purpose, a.spki): a for a in anchors}.values())).encode())
        for name, purpose in (("device-root.pem", "nvidia-device-root"), ("rim-root.pem", "nvidia-rim-root")):
            await command(
                "weighbridge", "anchors", "import", self.out / "gpu-vendor" / name,
                "--purpose", purpose, "--platform", _PLATFORM,
                "--source", "emulated vendor of this demonstration", "-o", roots, check=True,
            )  # fmt: skip
        own = load((self.state / "anchors.json").read_bytes())
        self.anchors.write_bytes(load(roots.read_bytes()).with_anchors(own.anchors).encode())

    async def _collect(self) -> None:
        """Take in what the GPUs' vendor says that they should measure."""
        manifests = [
            *sorted((self.out / "gpu-vendor" / "rims").iterdir()),
            *sorted((self.kit / "gpus" / "rims").iterdir()),
        ]
        await command("weighbridge", "collateral", "import", *manifests, "--store", self.out / "collateral", check=True)

    def _write_reference(self) -> None:
        """The models, and nothing of GPUs: what is right there, their maker says."""
        own = Reference.parse((self.kit / "reference.json").read_bytes()).models
        models = {**own, **{manifest.digest.hex(): manifest.name for manifest in (self.manifest, self.adapter)}}
        (self.out / "reference.json").write_bytes(Reference(models, {}, {}).to_json())

    def _write_requirements(self) -> None:
        document = {
            "schema": "weighbridge/requirements/v1",
            "tenant": TENANT,
            "audience": AUDIENCE,
            "evidence": ["gpu", "telemetry", "tpm", "workload"],
            "gpus": 2,
            "pcrs": [0, 1, 2, 3, 4, 5, 6, 7, 15],
            "boot_pcrs": [0, 1, 2, 3, 4, 5, 6, 7],
            "log_pcr": 15,
            "period_ns": PERIOD_NS,
            "gpu_every": 1,
            "lateness_ns": PERIOD_NS,
            "spot_every": SPOT_EVERY,
        }
        (self.out / "requirements.json").write_bytes(strict.json_encode(document, indent=2))


def make_adapter(directory: Path, *, seed: int) -> None:
    """A LoRA adapter of rank 4 for the demonstration's model, with weights drawn by ``seed``."""
    random = np.random.default_rng(seed)
    shapes = {"lora_A.weight": (4, DIMENSIONS), "lora_B.weight": (DIMENSIONS, 4)}
    tensors = {name: (random.standard_normal(shape) * 0.01).astype(np.float32) for name, shape in shapes.items()}
    directory.mkdir()
    (directory / "adapter_config.json").write_bytes(strict.json_encode({"r": 4, "target": ADAPTED}) + b"\n")
    (directory / "adapter_model.safetensors").write_bytes(save(tensors))


def _lines_of(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise RuntimeError("the process was started without a pipe")
    return stream


def _make_room(out: Path) -> None:
    """Make ``out`` anew, unless there is something in it that no demonstration has made."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).exists())):
        raise EnvironmentFault(
            Code.FILE_UNWRITABLE,
            "there is something that the demonstration has not made",
            where=str(out),
            hint="name another directory: --out DIR",
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()


def _manufacture(out: Path, names: Sequence[str]) -> dict[str, Manufactured]:
    def make(name: str) -> Manufactured:
        directory = out / "hosts" / name
        directory.mkdir(parents=True)
        return manufacture(directory / "factory")

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return dict(zip(names, pool.map(make, names), strict=True))


def _make_gpus(vendor: Path, directories: Sequence[Path]) -> None:
    """Two GPUs in each of ``directories``, all of one new vendor, which is kept in ``vendor``."""
    EmulatedGpus.open(vendor, 1)
    for directory in directories:
        directory.mkdir()
        shutil.copy(vendor / "vendor.pem", directory)
        EmulatedGpus.open(directory, 2)


def _switch_on(directory: Path, manufactured: Manufactured) -> Host:
    # In the main thread: an emulated TPM ends with the thread that started it.
    tpm = Swtpm(manufactured)
    tpm.start()
    return Host(directory.name, directory, manufactured, tpm, directory / "gpus")
