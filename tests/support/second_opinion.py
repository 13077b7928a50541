"""NVIDIA's verifiers, and ours, as a function each: recorded evidence in, the answer out.

Theirs (`nvidia_peer.py`) run in an environment of their own, which `scripts/setup --peers` makes, without a network and
under a clock that is set.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from support import wrong_clock
from support.wrong_clock import WrongClock
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.verifier.anchors import EMULATED_PLATFORM, Anchor, Purpose, TrustAnchors
from weighbridge.verifier.certs import load_certificate
from weighbridge.verifier.gpu.chain import GPUS, Kind, verify_chain
from weighbridge.verifier.gpu.report import verify_recorded_report
from weighbridge.verifier.gpu.rim import RimSet, compare, verify_rim
from weighbridge.verifier.gpu.set import verify_gpus

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = ROOT / ".peers" / "nvidia" / "bin" / "python"
PEER: Final = ROOT / "tests" / "support" / "nvidia_peer.py"
ABSENT: Final = "NVIDIA's verifiers are not installed: run scripts/setup --peers"
# Nobody listens there, so that whoever tries the network fails at once.
_NOWHERE: Final = "http://127.0.0.1:9/"


class Recorded(NamedTuple):
    """A report and its chain, of whatever length and content."""

    report: bytes
    chain: tuple[bytes, ...]


@dataclass(frozen=True)
class Answer:
    """What they say.

    Attributes:
        result: what their call returned; ``None`` where it raised.
        error: name of the error that ended it. They return a result beside it.
        text: what it says.
        asked: the RIM ids that they asked for.
        claims: of each device, as in their tokens.
        seconds: their call's alone, on the clock.
        cpu: seconds of the processor.
    """

    result: bool | None
    error: str | None = None
    text: str | None = None
    asked: list[str] = field(default_factory=list[str])
    claims: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def verdict(self) -> str:
        """``accepted``, or why not: the error's name, or ``refused`` where no error was raised."""
        return "accepted" if self.result else self.error or "refused"


class NvidiaPeer:
    """A process of theirs, which answers each question in a fork of itself, or itself where ``keep`` is given."""

    def __init__(self, *, clock: bool = True, environment: Mapping[str, str] | None = None) -> None:
        self._clock = clock
        self._environment = dict(environment or {})
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="weighbridge-nvidia-")))
        environment = {"PATH": os.environ["PATH"], "NV_OCSP_URL": _NOWHERE, "NV_RIM_URL": _NOWHERE}
        environment.update(self._environment)
        if self._clock:
            environment.update(WrongClock(wrong_clock.build(folder), folder / "offset").env)
        # Their log goes to the working directory.
        self._process = subprocess.Popen(
            [str(PYTHON), "-I", str(PEER)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._exit:
            if self._process.stdin is not None and self._process.stdout is not None:
                self._process.stdin.close()
                self._process.stdout.close()
            self._process.wait(timeout=60)

    def ask(self, evidence: Sequence[Recorded], *, at: datetime, **question: object) -> Answer:
        """Their answer to ``evidence`` at ``at``; the rest of ``question`` is as in `nvidia_peer.py`."""
        question["devices"] = [device(item) for item in evidence]
        return self.put(question, at=at)

    def put(self, question: dict[str, object], *, at: datetime) -> Answer:
        """Their answer to a question that is whole."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question["clock"] = int(at.timestamp() - time.time()) if self._clock else 0
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "NVIDIA's verifier ended without an answer"
        return Answer(**json.loads(line))


@dataclass(frozen=True)
class Emulation:
    """Devices of one emulated vendor, their manifests, and the roots of both: as anchors, and as files for NVIDIA's."""

    devices: tuple[EmulatedH100, ...]
    rims: dict[str, bytes]
    trust: TrustAnchors
    roots: dict[str, str]

    @classmethod
    def make(cls, folder: Path, *, devices: int = 1, vendor: EmulatedVendor | None = None) -> Self:
        """New ones. ``folder`` takes the roots."""
        vendor = vendor or EmulatedVendor.create()
        made = tuple(EmulatedH100.make(vendor) for _ in range(devices))
        firmware = made[0].firmware
        board = f"{firmware.project}_{firmware.project_sku}_{firmware.chip_sku}"
        names = (
            f"NV_GPU_DRIVER_GH100_{firmware.driver}",
            f"NV_GPU_VBIOS_{board}_{firmware.vbios.replace('.', '')}",
        )
        purposes: tuple[tuple[str, Purpose, bytes], ...] = (
            ("device_root", "nvidia-device-root", vendor.root_certificate),
            ("rim_root", "nvidia-rim-root", vendor.rim_root_certificate),
        )
        roots: dict[str, str] = {}
        believed: list[Anchor] = []
        for name, purpose, der in purposes:
            roots[name] = str(folder / f"{name}.pem")
            Path(roots[name]).write_text(pem([der]))
            root = load_certificate(der, name)
            believed.append(Anchor.from_certificate(purpose, root, platform=EMULATED_PLATFORM, source="a test"))
        rims = dict(zip(names, vendor.rims(firmware), strict=True))
        return cls(made, rims, TrustAnchors(tuple(believed)), roots)


def device(evidence: Recorded) -> dict[str, object]:
    """One device of a question. The architecture is what NVML would say: from the certificates."""
    leaf = load_certificate(evidence.chain[0], "chain[0]").subject.rfc4514_string() if evidence.chain else ""
    return {
        "report": evidence.report.hex(),
        "chain": pem(evidence.chain),
        "architecture": 10 if "GB1" in leaf else 9,
    }


def pem(chain: Sequence[bytes]) -> str:
    """A PEM bundle, as NVML gives it. It is only unwrapped here: a broken certificate stays broken."""
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in chain)


def ours(
    evidence: Sequence[Recorded],
    rims: Iterable[bytes],
    *,
    trust: TrustAnchors,
    at: datetime,
    accept: frozenset[Kind] = GPUS,
    nonce: bytes | None = None,
) -> str:
    """What our verifier says of recorded evidence: a status of the comparison, or the code of the refusal."""
    nonce = nonce or evidence[0].report[4:36]
    try:
        chains = [verify_chain(item.chain, trust, at=at, accept=accept) for item in evidence]
        verified = [
            verify_recorded_report(spdm.parse(item.report), chain, nonce=nonce)
            for item, chain in zip(evidence, chains, strict=True)
        ]
        if len(evidence) > 1:
            sent = [GpuEvidence(item.report, item.chain) for item in evidence]
            verify_gpus(sent, nonce=nonce, anchors=trust, at=at, expected=None, accept=accept)
        known = RimSet.of([verify_rim(data, anchors=trust, at=at) for data in rims])
    except WeighbridgeError as error:
        return error.code
    found = {compare(item.report, item.chain, known).status for item in verified}
    return next(status for status in ("mismatch", "absent", "match") if status in found)
