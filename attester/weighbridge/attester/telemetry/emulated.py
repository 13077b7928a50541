"""Emulated H100s as a source of telemetry: what their sensors would read while they do the declared work.

Driven by *counted tokens* and by nominal time. How busy the machine is that computes it changes nothing: the same seed,
run, devices, durations and counts give the same bytes, but for the start time that the caller states.

Work to power: tokens in cost prefill time, tokens out decode time at the concurrency that was declared or that their
rate needs; so many steps of 10 ms are busy, in no rhythm (:mod:`~weighbridge.attester.telemetry.emulated_model`).
Power to sensors: a power cap, trailing means read every 100 ms, a monotone energy counter behind the same shunt, a
thermal network of two nodes read in whole degrees (:mod:`~weighbridge.attester.telemetry.emulated_device`). Every unit
has its own gains, drawn from the seed and its identity; every run of it differs by what runs of one unit differ by.

A file may say that the hardware computes more than is declared: the physical effect of hidden work, without hiding any.

>>> source = EmulatedTelemetry(1, [bytes(32)])
>>> (idle,) = source.window(start_wall_ns=0, duration_ns=10**9, work=WorkSummary.empty())
>>> len(idle.offsets), 100_000 < idle.channels["power"].values[-1] < 135_000
(10, True)
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.telemetry.emulated_device import SENSOR_WINDOWS_NS, STEP_NS, EmulatedDevice
from weighbridge.attester.telemetry.emulated_model import H100Model, load_of
from weighbridge.attester.telemetry.interface import Options
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.telemetry import UNITS, Channel, Source
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from weighbridge.attester.telemetry.interface import HostFacts

__all__ = ["NAME", "EmulatedTelemetry", "H100Model", "made_up", "open_emulated"]

NAME: Final = "emulated"
_SECOND_NS: Final = 1_000_000_000
# Quantities that real GPUs count and that this model has no word for.
_NOT_REPORTED: Final = ("pcie_tx", "pcie_rx")
_UNDECLARED_MAX: Final = 10_000_000
_DEVICES_MAX: Final = 64
_RUN_MAX: Final = 2**62


@final
class EmulatedTelemetry:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource` of emulated devices.

    Energy, temperature and noise go on from one window to the next; ``window`` must be called in order.

    Args:
        seed: what all units' gains and noise are drawn from, together with their identities.
        identities: of the devices, 32 bytes each; work is shared among them evenly.
        period_ns: between samples; a multiple of 10 ms.
        model: the parameters.
        run: which run of these units this is: another number is another draw of what differs between runs.
        undeclared: a file with tokens per second that the devices decode, all together, beside what is declared. It is
            read at the end of every window; none means none.
    """

    def __init__(
        self,
        seed: int,
        identities: Sequence[bytes],
        *,
        period_ns: int = 100_000_000,
        model: H100Model | None = None,
        run: int = 0,
        undeclared: Path | None = None,
    ) -> None:
        if period_ns <= 0 or period_ns % STEP_NS:
            raise ValueError("the period is a multiple of 10 ms")
        if not identities:
            raise ValueError("at least one device")
        self._model = model or H100Model()
        self._period_ns = period_ns
        self._devices = {
            identity: EmulatedDevice(self._model, seed=seed, identity=identity, run=run) for identity in identities
        }
        self._undeclared = undeclared
        # Nominal time since the start, and that of the next sample: a grid that windows do not disturb.
        self._now_ns = 0
        self._next_ns = 0
        # The wall clock at nominal time 0. A window that is cut late is labelled late; what was read in it was not.
        self._origin_ns: int | None = None
        self._late_ns = 0

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`TelemetrySource.window`.

        Of a process that stood still the next window begins late, and what was read before that is in it nevertheless:
        :func:`~weighbridge.attester.telemetry.bounds.within` leaves it out.

        Raises:
            EnvironmentFault: ``TELEMETRY_SOURCE``: the file of undeclared work cannot be read, or holds no number.
            ValueError: a window without a duration, or a negative count.
        """
        if duration_ns <= 0 or min(work.tokens_in, work.tokens_out, work.decode_ns) < 0:
            raise ValueError("a window has a duration, and counts are not negative")
        share, seconds = len(self._devices), duration_ns / _SECOND_NS
        hidden = 0 if self._undeclared is None else _rate(self._undeclared) * seconds
        load = load_of(
            self._model,
            seconds,
            tokens_in=work.tokens_in / share,
            tokens_out=(work.tokens_out + hidden) / share,
            decode_s=work.decode_ns / _SECOND_NS / share,
        )
        origin = self._origin(start_wall_ns, duration_ns)
        offsets = tuple(range(self._next_ns - self._now_ns, duration_ns, self._period_ns))
        sources = [
            Source(
                device=identity,
                name=NAME,
                start_wall_ns=origin + self._now_ns,
                period_ns=self._period_ns,
                offsets=offsets,
                channels=_channels(device.read(load, samples=len(offsets), steps=self._period_ns // STEP_NS)),
            )
            for identity, device in self._devices.items()
        ]
        self._next_ns += len(offsets) * self._period_ns
        self._now_ns += duration_ns
        return sources

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`: nothing to stop."""

    def _origin(self, start_wall_ns: int, duration_ns: int) -> int:
        """The wall clock at nominal time 0, found anew where the clock was set, or windows take less than they say.

        A process that stood still is late as well, and makes up for it: by no more than twice the window that follows,
        and less with every one after. A clock that was set stays where it is.
        """
        late = 0 if self._origin_ns is None else start_wall_ns - self._origin_ns - self._now_ns
        before = self._late_ns - self._period_ns if self._late_ns >= _SECOND_NS else 2 * duration_ns
        kept = -self._period_ns <= late < max(_SECOND_NS, before)
        if self._origin_ns is None or not kept:
            self._origin_ns, late = start_wall_ns - self._now_ns, 0
        self._late_ns = late
        return self._origin_ns


def open_emulated(options: Mapping[str, str], host: HostFacts) -> EmulatedTelemetry:
    """The plug-in ``emulated``: the session's emulated GPUs, or as many made-up ones as ``devices`` says.

    Options: ``undeclared=FILE``, ``run=N`` (drawn anew for every session unless given: two sessions in which every
    sample is the same are a replay), and outside of a session ``devices=N``.

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE`` for options that will not do.
    """
    given = Options(NAME, options)
    undeclared = given.text("undeclared", default="")
    run = given.number("run", 0, _RUN_MAX, default=secrets.randbelow(_RUN_MAX))
    count = given.number("devices", 1, _DEVICES_MAX, default=1)
    given.end()
    if host.devices and "devices" in options:
        raise given.refusal("in a session, --gpu says how many devices there are", got=options["devices"])
    if host.period_ns % STEP_NS:
        raise given.refusal("emulated sensors are read at multiples of 10 ms", got=f"every {host.period_ns} ns")
    return EmulatedTelemetry(
        host.seed,
        host.devices or made_up(count),
        period_ns=host.period_ns,
        run=run,
        undeclared=Path(undeclared) if undeclared else None,
    )


def made_up(count: int) -> tuple[bytes, ...]:
    """Identities of ``count`` devices that are nobody's, the same ones every time."""
    return tuple(sha256(b"weighbridge/insecure-emulated/%d" % number) for number in range(count))


def _channels(readings: Mapping[str, NDArray[np.int64]]) -> dict[str, Channel]:
    read = {
        name: Channel(UNITS[name], tuple(values.tolist()), SENSOR_WINDOWS_NS.get(name))
        for name, values in readings.items()
    }
    return read | {name: Channel(UNITS[name], None) for name in _NOT_REPORTED}


def _rate(path: Path) -> int:
    """Tokens per second that ``path`` holds; 0 where there is no such file."""
    try:
        with path.open("rb") as file:
            text = file.read(64)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        return strict.decimal(text.decode("ascii").strip(), what="tokens per second", limit=_UNDECLARED_MAX)
    except (MalformedEvidence, UnicodeDecodeError) as error:
        raise _unreadable(path, f"must hold one whole number of tokens per second, up to {_UNDECLARED_MAX}") from error


def _unreadable(path: Path, text: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.TELEMETRY_SOURCE,
        f"cannot tell what is computed undeclared: {text}",
        where=str(path),
        hint="write one whole number into it, or remove it: then nothing is",
    )
