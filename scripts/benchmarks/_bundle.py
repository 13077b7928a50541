"""An hour of a host with eight GPUs as one proof bundle: how large it is, and how long it takes to verify again.

360 windows of 10 s, samples at 10 Hz, reports of all GPUs in every window, each window compared with a baseline. It is
verified as a relying party does it: by the command, in a fresh process, from the file and the anchors alone. The floor
is what its signatures cost on one core, by `cryptography` directly.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _figures import Figure, median_seconds
from _windows import PERIOD_NS, Line
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from corpus.bundle import believed, export
from support.world import World, requirements
from weighbridge.attester.gpu.emulated import EmulatedGpus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.verifier.bundle import Bundle

__all__ = ["bundle_hour"]

_GPUS: Final = 8
_WINDOWS: Final = 360
_MEGA: Final = 1_000_000
_MESSAGE: Final = bytes(4000)


def bundle_hour(directory: Path, *, windows: int = _WINDOWS) -> Iterator[Figure]:
    """The figures `bundle_1h_verify_s` and `bundle_1h_mb`, and what is behind them.

    Args:
        directory: an empty one; some 100 MB are written there.
        windows: as many as an hour has; fewer show that the benchmark runs.
    """
    bundle, anchors = _hour(directory / "verifier", windows)
    path = directory / "session.wb"
    path.write_bytes(bundle.encode())
    (directory / "anchors.json").write_bytes(anchors)
    began = time.perf_counter()
    _verify(path, directory / "anchors.json")
    took = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield Figure("bundle_1h_verify_s", took, "s", floor=windows * _signatures())
    yield Figure("bundle_1h_verify_cpu_s", used.ru_utime + used.ru_stime, "s")
    yield Figure("bundle_1h_verify_peak_mb", used.ru_maxrss * 1024 / _MEGA, "MB")
    yield Figure("bundle_1h_mb", path.stat().st_size / _MEGA, "MB")
    yield Figure("bundle_1h_unpacked_mb", len(bundle.content()) / _MEGA, "MB")


def _hour(directory: Path, windows: int) -> tuple[Bundle, bytes]:
    """The bundle of a session, and the anchors of whoever trusts its verifier."""
    directory.mkdir()
    world = World.make(
        directory,
        policy="production",
        platforms=("tpm", "nvidia"),
        source="nvml",
        wanted=requirements(gpus=_GPUS, period_ns=PERIOD_NS, gpu_every=1),
        gpus=EmulatedGpus.create(_GPUS),
    )
    line = Line(world)
    # Of what emulated sensors read in its first session, one GPU is one of those in a hundred that raise an alarm, in
    # window 292. That is as it should be, and ends a session before the hour is over.
    world.open_session()
    line.deliver(line.seal())
    line.baseline()
    for _ in range(windows - 1):
        line.deliver(line.seal())
    made = export(world), believed(world).encode()
    line.close()
    return made


def _verify(bundle: Path, anchors: Path) -> None:
    program = Path(sys.executable).parent / "weighbridge"
    command = [str(program), "verify", "bundle", str(bundle), "--anchors", str(anchors)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the bundle was not admitted: {done.stdout[-2000:]}{done.stderr}")


def _signatures() -> float:
    """Seconds for those of one window: header, quote, and a report of each GPU."""
    return 2 * _verification(ec.SECP256R1(), hashes.SHA256()) + _GPUS * _verification(ec.SECP384R1(), hashes.SHA384())


def _verification(curve: ec.EllipticCurve, algorithm: hashes.HashAlgorithm) -> float:
    private = ec.generate_private_key(curve)
    public, signed = private.public_key(), private.sign(_MESSAGE, ec.ECDSA(algorithm))
    return median_seconds(lambda: public.verify(signed, _MESSAGE, ec.ECDSA(algorithm)))
