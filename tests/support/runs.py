"""Recordings of a made-up GPU whose power follows its work, for tests of baselines. No detection rate follows from it.

Power is a base, so much per request that is decoding, a shift that a whole run shares, and noise that is correlated
over half a second. Every seed is another run; ``extra_w`` is what it draws beside its declared work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.proto.digest import sha256
from weighbridge.proto.recording import RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.telemetry import Channel, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.proto.recording import Origin

__all__ = ["GPU", "SCOPE", "record_run", "write_runs"]

GPU: Final = sha256(b"a GPU of the recordings")
SCOPE: Final = Scope(
    gpu_model="NVIDIA H100 80GB HBM3",
    driver="580.159.04",
    vbios="96.00.5E.00.01",
    engine="vllm 0.11.0",
    model=sha256(b"a model's manifest"),
    workload="chat",
    power_limit_mw=700_000,
)
_START_NS: Final = 1_790_000_000_000_000_000
_WINDOW_NS: Final = 10_000_000_000
_PERIOD_NS: Final = 100_000_000
_SAMPLES: Final = 100
_BASE_W: Final = 418.0
_PER_REQUEST_W: Final = 2.1
_DECAY: Final = 0.8


def record_run(
    seed: int,
    *,
    windows: int = 12,
    extra_w: float = 0.0,
    since: int = 0,
    busy: tuple[int, int] = (4, 32),
    device: bytes = GPU,
    scope: Scope = SCOPE,
    origin: Origin = "session",
    start_ns: int | None = None,
    shift_w: float | None = None,
) -> Recording:
    """A run of ``windows`` of ten seconds at ten samples a second.

    Args:
        seed: of the run.
        windows: how many.
        extra_w: drawn beside the declared work.
        since: from this window on.
        busy: least and most requests that are decoding.
        device: whose readings.
        scope: its stack.
        origin: of the recording.
        start_ns: when it begins; runs of higher seeds begin later, by default.
        shift_w: what the whole run draws more; drawn by its seed, by default.
    """
    random = np.random.default_rng(seed)
    start = _START_NS + seed * 3600 * 10**9 if start_ns is None else start_ns
    shift = float(random.normal(0, 0.8)) if shift_w is None else shift_w
    noise = float(random.normal(0, 2))
    energy = 10**9
    made: list[RecordedWindow] = []
    for number in range(windows):
        decoding = int(random.integers(busy[0], busy[1] + 1))
        level = _BASE_W + _PER_REQUEST_W * decoding + shift + (extra_w if number >= since else 0.0)
        power = np.empty(_SAMPLES)
        for at, kick in enumerate(random.normal(0, 1.2, _SAMPLES).tolist()):
            noise = noise * _DECAY + kick
            power[at] = level + noise
        counted = energy + np.cumsum(power) * 100
        energy = int(counted[-1])
        begin = start + number * _WINDOW_NS
        source = Source(
            device=device,
            name="model",
            start_wall_ns=begin,
            period_ns=_PERIOD_NS,
            offsets=tuple(range(0, _WINDOW_NS, _PERIOD_NS)),
            channels={
                "power": Channel("mW", tuple(np.rint(power * 1000).astype(np.int64).tolist()), 1_000_000_000),
                "energy": Channel("mJ", tuple(np.rint(counted).astype(np.int64).tolist())),
            },
        )
        tokens = decoding * 10 * 80
        work = WorkSummary(
            root=sha256(b"%d" % number),
            requests=decoding,
            tokens_in=decoding * 64,
            tokens_out=tokens,
            batch_max=decoding,
            prefill_ns=decoding * 20_000_000,
            decode_ns=decoding * _WINDOW_NS,
        )
        telemetry = Telemetry(session=bytes(16), seq=number, sources=(source,)).encode()
        made.append(RecordedWindow(telemetry=telemetry, work=work, start_ns=begin, end_ns=begin + _WINDOW_NS))
    return Recording(origin=origin, label=f"run {seed}", scope=scope, windows=tuple(made))


def write_runs(directory: Path, name: str, runs: list[Recording]) -> list[str]:
    """The files ``NAME-01.wbr`` and so on, by their paths."""
    paths = [directory / f"{name}-{number:02}.wbr" for number in range(1, len(runs) + 1)]
    for path, run in zip(paths, runs, strict=True):
        path.write_bytes(run.encode())
    return [str(path) for path in paths]
