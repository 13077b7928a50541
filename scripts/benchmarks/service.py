"""A verifier that serves: what a window costs it, how many it judges in a second, how long they wait, what it holds.

`weighbridge serve` runs in a process of its own under the production policy, with ledger, contents and database on
disk. Attesters send windows of one GPU over gRPC and mutual TLS, a fresh GPU report in each; nothing is answered
before it is durable, and each answer carries a token. The load is made in this process, on the same cores: its CPU is
shown apart. The floor of a window are its signatures by `cryptography` alone, in the same run: GPU report (P-384),
quote and header (P-256) verified, a token signed.

- `cpu_vs_signature_floor`: CPU of the service for a window at the rate below, policy engine included.
- `windows_per_s_p99_250ms`: the highest rate tried at which 99 of 100 windows, arriving evenly, are answered within
  250 ms of when they were due; `p99_ms_half_load`: how long they wait at half of it.
- `open_sessions_10k_mib`: memory with 10,000 sessions, each with its connection: a line through what two smaller
  numbers of them take, unless `--sessions` says how many are really opened.

A window is of 10 s and has 100 samples of eleven channels. The verifier's wall clock is moved on by whoever sends, so
that nobody waits 10 s for the next one; a day of six hosts passes like this as well, in windows of 60 s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _attesters import Attester, Fleet
from _figures import Figure, report
from _served import Makers, Served, Use
from _timing import in_turns
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from fakes.soft_tpm import SoftAuthority
from support import wrong_clock
from support.world import manifest
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto import cose
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.tpm import signature as tpm_signature
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.window import Evidence

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

_PERIOD_NS: Final = 10_000_000_000
_LONG_NS: Final = 60_000_000_000
_P99_MS: Final = 250.0
_SESSIONS: Final = 10_000
_US: Final = 1e6
_UNIT: Final = "µs"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effort:
    """How much is done.

    Attributes:
        hosts: that send at once.
        seconds: of each rate that is tried.
        steps: rates that are tried, as parts of what the hosts reach when nobody waits.
        open: sessions opened for the memory of many, twice.
        day: windows of each of six hosts.
        gpus: numbers of them in a window.
        each: windows of each of four hosts, for a number of GPUs.
    """

    hosts: int
    seconds: float
    steps: tuple[float, ...]
    open: tuple[int, int]
    day: int
    gpus: tuple[int, ...]
    each: int


_FULL: Final = _Effort(
    hosts=96,
    seconds=6.0,
    steps=(0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5),
    open=(200, 600),
    day=1_440,
    gpus=(1, 2, 4, 8),
    each=40,
)
_QUICK: Final = _Effort(hosts=3, seconds=0.2, steps=(0.5,), open=(4, 5), day=4, gpus=(2,), each=2)
_DAY_HOSTS: Final = 6


@dataclass(frozen=True, slots=True)
class _Spent:
    """What a number of windows cost: microseconds of CPU for each, of the service and of the load."""

    service: float
    load: float


class _Meter:
    """What the service and this process use from now on."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._before, self._own = served.use(), time.process_time()

    def spent(self, windows: int) -> _Spent:
        """For each of so many windows."""
        service, own = self._served.use().cpu - self._before.cpu, time.process_time() - self._own
        return _Spent(service / windows * _US, own / windows * _US)


@dataclass(frozen=True)
class _Bench:
    """All that the measurements share."""

    effort: _Effort
    directory: Path
    makers: Makers
    clock: Path
    options: Sequence[str]

    @asynccontextmanager
    async def fleet(self, name: str, *, gpus: int = 1, period_ns: int = _PERIOD_NS) -> AsyncGenerator[Fleet]:
        """A new verifier under ``directory``, and attesters of it, none so far."""
        with Served(
            self.directory / name, self.makers, gpus=gpus, period_ns=period_ns, clock=self.clock, options=self.options
        ) as served:
            fleet = Fleet(served)
            try:
                yield fleet
            finally:
                await fleet.leave()
        shutil.rmtree(self.directory / name)


async def measure(bench: _Bench, sessions: int | None) -> AsyncIterator[Figure]:
    """All figures."""
    yield Figure("service: processors", os.cpu_count() or 0, "cores")
    yield Figure("service: load before", os.getloadavg()[0], "processes")
    async for figure in _loaded(bench):
        yield figure
    async for figure in _many(bench, sessions):
        yield figure
    async for figure in _day(bench):
        yield figure
    async for figure in _by_gpus(bench):
        yield figure
    yield Figure("service: load after", os.getloadavg()[0], "processes")


async def _loaded(bench: _Bench) -> AsyncIterator[Figure]:
    """Windows a second, how long they wait, and what they cost."""
    effort = bench.effort
    async with bench.fleet("loaded") as fleet:
        served = fleet.served
        await fleet.grow(effort.hosts)
        fleet.prepare(4)
        # What only the first windows cost is over after some.
        await fleet.race(2)
        meter, stored = _Meter(served), served.stored()
        reached = await fleet.race(_rounds(effort, 60.0))
        windows = _rounds(effort, 60.0) * effort.hosts
        spent = meter.spent(windows)
        yield Figure("service: windows a second, each as soon as the last is answered", reached, "per second")
        yield Figure("service: CPU for one of them", spent.service, _UNIT)
        yield Figure("service: evidence of a window", len(fleet.attesters[0].last), "bytes")
        yield Figure("service: a window on disk", (served.stored() - stored) / windows, "bytes")
        floor = _floor(fleet.attesters[0])
        rate, waited, spent = await _highest(fleet, effort, reached)
        yield Figure("windows_per_s_p99_250ms", rate, "per second")
        yield Figure("service: p99 at that rate", _percentile(waited, 99), "ms")
        yield Figure("service: p50 at that rate", _percentile(waited, 50), "ms")
        yield Figure("cpu_vs_signature_floor", spent.service / 1e3, "ms", floor=floor / 1e3)
        yield Figure("service: CPU of the load for a window, apart", spent.load, _UNIT)
        yield Figure("service: signatures of a window alone", floor, _UNIT)
        waited, spent = await _arrived(fleet, effort, rate / 2)
        yield Figure("p99_ms_half_load", _percentile(waited, 99), "ms")
        yield Figure("service: p50 at half of it", _percentile(waited, 50), "ms")
        yield Figure("service: CPU for a window at half of it", spent.service, _UNIT)


async def _highest(fleet: Fleet, effort: _Effort, reached: float) -> tuple[float, list[float], _Spent]:
    """The highest of the rates at which windows do not wait long, how long they do, and what they cost."""
    for step in effort.steps:
        rate = reached * step
        waited, spent = await _arrived(fleet, effort, rate)
        if _percentile(waited, 99) < _P99_MS or step == effort.steps[-1]:
            return rate, waited, spent
    raise RuntimeError("no rate to try")


async def _arrived(fleet: Fleet, effort: _Effort, rate: float) -> tuple[list[float], _Spent]:
    windows = _rounds(effort, rate)
    fleet.prepare(windows + 1)
    fleet.seal()
    meter = _Meter(fleet.served)
    waited = await fleet.arrive(rate, windows)
    return waited, meter.spent(windows * len(fleet.attesters))


async def _many(bench: _Bench, sessions: int | None) -> AsyncIterator[Figure]:
    """Memory with many open sessions."""
    few, more = bench.effort.open if sessions is None else (bench.effort.open[0], sessions)
    async with bench.fleet("many") as fleet:
        empty = fleet.served.use().memory
        started, meter = time.perf_counter(), _Meter(fleet.served)
        await fleet.grow(few)
        first = fleet.served.use().memory
        await fleet.grow(more)
        second = fleet.served.use().memory
        took = time.perf_counter() - started
        each = (second - first) / (more - few)
        yield Figure("open_sessions_10k_mib", second + each * (_SESSIONS - more), "MiB")
        yield Figure("service: sessions opened for it", more, "sessions")
        yield Figure("service: memory without any", empty, "MiB")
        yield Figure("service: memory for a session and its connection", each * 1024, "KiB")
        yield Figure("service: enrolments a second", more / took, "per second")
        yield Figure("service: CPU for an enrolment and a first window", meter.spent(more).service / 1e3, "ms")


async def _day(bench: _Bench) -> AsyncIterator[Figure]:
    """A day of some hosts: memory and CPU stay what they are."""
    parts = 4
    windows = bench.effort.day // parts
    async with bench.fleet("day", period_ns=_LONG_NS) as fleet:
        await fleet.grow(_DAY_HOSTS)
        uses: list[Use] = []
        costs: list[float] = []
        for _ in range(parts):
            fleet.prepare(windows)
            meter = _Meter(fleet.served)
            await fleet.race(windows)
            uses.append(fleet.served.use())
            costs.append(meter.spent(windows * _DAY_HOSTS).service)
        yield Figure("service: hours of a day simulated", windows * parts * _LONG_NS / 3.6e12, "hours")
        yield Figure("service: windows in it", windows * parts * _DAY_HOSTS, "windows")
        yield Figure("service: memory after a quarter of it", uses[0].memory, "MiB")
        yield Figure("service: memory after all of it", uses[-1].memory, "MiB")
        hours = windows * (parts - 1) * _LONG_NS / 3.6e12
        yield Figure("service: memory grows by", (uses[-1].memory - uses[0].memory) * 1024 / hours, "KiB an hour")
        yield Figure("service: CPU for a window in its first quarter", costs[0], _UNIT)
        yield Figure("service: CPU for a window in its last quarter", costs[-1], _UNIT)


async def _by_gpus(bench: _Bench) -> AsyncIterator[Figure]:
    """What a window costs with so many GPUs."""
    for gpus in bench.effort.gpus:
        async with bench.fleet(f"{gpus}gpu", gpus=gpus) as fleet:
            await fleet.grow(4)
            fleet.prepare(bench.effort.each + 1)
            await fleet.race(1)
            meter = _Meter(fleet.served)
            await fleet.race(bench.effort.each)
            spent = meter.spent(4 * bench.effort.each).service
            yield Figure(f"service: CPU for a window of {gpus} GPU{'s' * (gpus > 1)}", spent, _UNIT)


def _floor(attester: Attester) -> float:
    """Microseconds of CPU for the signatures of a window and nothing else."""
    evidence, host = Evidence.parse(attester.last), attester.host
    signed, quote = evidence.signed_header(), QuoteEvidence.parse(evidence.quote)
    telemetry_key, ak = host.tpm.telemetry_key, host.tpm.ak_key
    if telemetry_key is None or not isinstance(ak, ec.EllipticCurvePrivateKey) or evidence.gpus is None:
        raise TypeError("not a window of this benchmark")
    p256, p384 = ec.ECDSA(hashes.SHA256()), ec.ECDSA(hashes.SHA384())
    message = cose.to_be_signed(signed.protected, signed.payload)
    checks = [
        _check(telemetry_key.public_key(), signed.signature, message, p256),
        _check(ak.public_key(), tpm_signature.parse(quote.signature).raw_p256(), quote.attest, p256),
    ]
    keys = {device.identity: device.keys.key.public_key() for device in host.gpus.devices}
    (key,) = keys.values()
    for item in gpu_evidence.parse(evidence.gpus):
        sent = spdm.parse(item.report)
        checks.append(_check(key, sent.signature, sent.signed, p384))
    own, text = ec.generate_private_key(ec.SECP256R1()), bytes(1500)
    work: dict[str, Callable[[], object]] = {str(number): check for number, check in enumerate(checks)}
    work["token"] = lambda: own.sign(text, p256)
    return sum(cost.cpu for cost in in_turns(work, rounds=200).values())


def _check(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, algorithm: ec.ECDSA
) -> Callable[[], object]:
    half = len(signature) // 2
    der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
    return lambda: key.verify(der, message, algorithm)


def _rounds(effort: _Effort, rate: float) -> int:
    """Windows of each host, so that all of them take as long as is wanted."""
    return max(2, round(rate * effort.seconds / effort.hosts))


def _percentile(waited: Sequence[float], percent: int) -> float:
    """Milliseconds."""
    return sorted(waited)[min(len(waited) - 1, len(waited) * percent // 100)] * 1e3


async def _figures(bench: _Bench, sessions: int | None) -> list[Figure]:
    return [figure async for figure in measure(bench, sessions)]


def _command(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench service", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="where the verifier's state is (default: the temporary directory)")
    parser.add_argument("--quick", action="store_true", help="a few windows: the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object per figure")
    parser.add_argument("--sessions", type=int, help="so many are opened for open_sessions_10k_mib: takes minutes")
    parser.add_argument("serve", nargs="*", help="options of weighbridge serve, behind --")
    args = parser.parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="weighbridge-bench-", dir=args.dir))
    try:
        makers = Makers(SoftAuthority(), EmulatedVendor.create(), manifest())
        effort = _QUICK if args.quick else _FULL
        bench = _Bench(effort, directory, makers, wrong_clock.build(directory), args.serve)
        report(asyncio.run(_figures(bench, args.sessions)), as_json=args.json)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
