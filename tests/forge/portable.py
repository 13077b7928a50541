"""From a case that drives the product to one that any verifier can be told: its files, always the same bytes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from corpus.arena import Arena, judged
from corpus.manifests import VECTORS, cases, manifests
from forge.determined import determined
from forge.recorder import NotPortable, Recorder
from forge.recording import recording
from support.world import Engines
from weighbridge.proto import strict
from weighbridge.proto.collateral import Collateral
from weighbridge.verifier.conformance.capabilities import CAPABILITIES
from weighbridge.verifier.conformance.corpus import BLOBS, DIGESTS, LEFT_OUT, case_digest, packed
from weighbridge.verifier.conformance.steps import CASE, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from corpus.arena import Shown
    from corpus.manifests import Manifest
    from forge.probing import Probe
    from weighbridge.verifier.conformance.result import Result


@dataclass(frozen=True)
class Told:
    """What came of a case, and its files; without any, why it cannot be told in steps."""

    result: Result
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    reason: str = ""

    @property
    def digest(self) -> str:
        """Of the case, in hexadecimal; empty where it cannot be told."""
        return case_digest(*self.files.values()).hex() if self.files else ""


@dataclass(frozen=True)
class Stated:
    """What ``tests/vectors`` states: the digest of every case, or why it cannot be told in steps."""

    digests: dict[str, str]
    left_out: dict[str, str]

    @classmethod
    def read(cls) -> Self:
        """As ``scripts/conformance_corpus.py`` wrote it."""
        digests = (line.split("  ", 1) for line in (VECTORS / DIGESTS).read_text(encoding="utf-8").splitlines())
        left_out = (line.split("  ", 1) for line in (VECTORS / LEFT_OUT).read_text(encoding="utf-8").splitlines())
        return cls({name: digest for digest, name in digests}, dict(left_out))


def tell(manifest: Manifest, case: Callable[[Arena], Shown], arena: Arena, *, probe: Probe | None = None) -> Told:
    """Build and judge one case under its own seed, and write down what the product was told.

    ``probe`` has what is to be accepted judged with changes as well, before.
    """
    recorder = Recorder(probe)
    with determined(manifest.id), recording(recorder):
        result = judged(case, arena)
        try:
            steps = recorder.finished(result)
        except NotPortable as reason:
            return Told(result, reason=_OF_NO_VERIFIER.get(manifest.id.partition("/")[0], str(reason)))
    required = requires(manifest, steps)
    blobs: dict[str, bytes] = {}
    document: Any = {"schema": CASE, "id": manifest.id, "requires": list(required), "steps": steps}
    answers: list[Any] = [said(each).model_dump(mode="json") for each in recorder.results]
    text = (VECTORS / manifest.id / "manifest.yaml").read_text(encoding="utf-8")
    files = {
        "input.json": _text(packed(document, blobs)),
        "expected.json": _text({"id": manifest.id, "said": cast("strict.JsonValue", answers)}),
        "manifest.yaml": f"{text}requires: {', '.join(required)}\n".encode(),
    }
    return Told(result, files, blobs)


def export(directory: Path, names: Iterable[str], tick: Callable[[], object] = lambda: None) -> None:
    """Write the cases called ``names`` to ``directory``, which does not exist; ``tick`` is called after each."""
    listed, every = manifests(), cases()
    engines = Engines()
    digests, left_out = [], []
    (directory / BLOBS).mkdir(parents=True)
    try:
        for name in names:
            with tempfile.TemporaryDirectory(dir=_quick()) as work:
                arena = Arena(Path(work), engines)
                told = tell(listed[name], every[name], arena)
                arena.close()
            if told.reason:
                left_out.append(f"{name}  {told.reason}\n")
            else:
                digests.append(f"{told.digest}  {name}\n")
                _write(directory, name, told)
            tick()
    finally:
        engines.close()
    (directory / DIGESTS).write_text("".join(digests), encoding="utf-8")
    (directory / LEFT_OUT).write_text("".join(left_out), encoding="utf-8")


def requires(manifest: Manifest, steps: list[dict[str, Any]]) -> tuple[str, ...]:
    """What a verifier has to be able to do, to be told these steps at all; in alphabetical order."""
    found = {_OF_STEPS[step["op"]] for step in steps if step["op"] in _OF_STEPS}
    starts = [step for step in steps if step["op"] == "start"]
    if any(step["baselines"] for step in starts):
        found.add("baselines")
    if any(step["collateral"] != _NOTHING for step in starts):
        found.add("published-collateral")
    if any(step["owners"] is not None for step in starts):
        found.add("owners-files")
    if len({step["state"] for step in starts}) < len(starts):
        found.add("restarts")
    found |= _OF_STAGES.get(manifest.id.partition("/")[0], set())
    assert found <= set(CAPABILITIES), found
    return tuple(sorted(found))


_OF_NO_VERIFIER = {
    "ledger": "heads of a log that two were shown are compared, or a witness's are: no step has more than one log's own"
}
_NOTHING = strict.base64_encode(Collateral().encode())
_OF_STEPS = {
    "open": "sessions",
    "window": "sessions",
    "spot-pool": "spot-checks",
    "token": "result-tokens",
    "terms": "attester",
    "nras": "nras",
    "event-log": "event-logs",
    "gpu-report": "gpu-reports",
    "bundle": "proof-bundles",
    "watch": "logs",
    "read": "documents",
}
_OF_STAGES = {"platform": {"confidential-machines"}, "boot": {"boot-logs"}}


def _write(directory: Path, name: str, told: Told) -> None:
    (directory / name).mkdir(parents=True)
    for file, content in told.files.items():
        (directory / name / file).write_bytes(content)
    for digest, content in told.blobs.items():
        (directory / BLOBS / digest).write_bytes(content)


def _quick() -> Path | None:
    memory = Path("/dev/shm")  # noqa: S108 - only the base of a private directory
    return memory if memory.is_dir() else None


def _text(document: strict.JsonValue) -> bytes:
    return strict.json_encode(document, indent=1) + b"\n"
