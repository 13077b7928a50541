"""NVIDIA's verifiers as a function: evidence in, their answer out. Their side of it is `nvidia_peer.py`.

They run in an environment of their own (`scripts/setup --peers`), without a network, under a clock that is set.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from weighbridge.verifier.certs import load_certificate

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = ROOT / ".peers" / "nvidia" / "bin" / "python"
ABSENT: Final = "NVIDIA's verifiers are not installed: run scripts/setup --peers"
# Nobody listens there, so that whoever tries the network fails at once.
_NOWHERE: Final = "http://127.0.0.1:9/"
_HERE: Final = Path(__file__).resolve().parent


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
        seconds: their call's alone.
    """

    result: bool | None
    error: str | None = None
    text: str | None = None
    asked: list[str] = field(default_factory=list[str])
    claims: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    seconds: float = 0.0

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
            library = folder / "wrong_clock.so"
            build = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_HERE / "wrong_clock.c")]
            subprocess.run(build, check=True, timeout=60)
            environment.update(LD_PRELOAD=str(library), WRONG_CLOCK=str(folder / "offset"))
        # Their log goes to the working directory.
        self._process = subprocess.Popen(
            [str(PYTHON), "-I", str(_HERE / "nvidia_peer.py")],
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
