"""A fast analogue-to-digital converter as a source of telemetry: a current clamp on a GPU's supply, or an EM probe.

A sensor outside of the GPU's driver, at kilohertz; in the hands of the same host all the same. The host reduces it:
one row per period (100 ms) with mean, rms, peak and energy in bands (:mod:`~weighbridge.attester.telemetry.adc_bands`);
the samples themselves go nowhere.

Two threads. The *pump* reads what the converter's program writes, decodes it and puts whole frames into a short queue.
The *sampler* takes one frame from it per period. Whatever the writer does, memory is bounded:

* too fast, or with more than half a second of samples at a time: what does not fit into the queue is dropped, and the
  pump slows down (*gap*; the channel ``dropped`` counts samples). A regular file is not read ahead of its rate instead;
* too slow or silent: the row is missing (*stall*), and half a frame that waits for its other half is dropped;
* at its end: ``clipped`` counts samples, with a *fault* of that channel;
* gone, or writing what is no sample: *fault*, and it is waited for, or looked for a next frame.

Times are the host's, of the period in which a frame was taken from the queue: up to some tenths of a second after the
last sample of it was.
"""

from __future__ import annotations

import math
import re
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import numpy as np

from weighbridge.attester.telemetry.adc_bands import BANDS_MAX, SAMPLES_MIN, Reduction
from weighbridge.attester.telemetry.adc_decode import FORMATS, Decoder
from weighbridge.attester.telemetry.adc_input import Input
from weighbridge.attester.telemetry.interface import Options
from weighbridge.attester.telemetry.sampler import Sampler
from weighbridge.proto.telemetry import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from weighbridge.attester.telemetry.adc_decode import Format
    from weighbridge.attester.telemetry.interface import HostFacts
    from weighbridge.attester.telemetry.sampler import SampleClock, Tick
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.workload import WorkSummary

__all__ = ["NAME", "Adc", "open_adc"]

NAME: Final = "adc"
# Frames that may wait. Two of them must before the first is taken, so that a writer may be late by one.
_QUEUE: Final = 8
_PRIMED: Final = 2
_RATE_MAX: Final = 1_000_000
_SLOW_DOWN_S: Final = 0.02
_JOIN_S: Final = 2.0
_CLIPS: Final[Mapping[str, float]] = {"int16": 32_767.0, "int32": 2_147_483_647.0}
_DECIMAL: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?(?:e-?[0-9]{1,2})?")
_WORD: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_UNIT: Final = re.compile(r"[A-Za-z]{1,8}")


@final
class FrameQueue:
    """Frames between pump and sampler: in order, none made of samples on both sides of an interruption.

    Args:
        reduction: how long frames are.
        paced: whoever puts looks at :attr:`full` first, so that nothing has to be dropped.
    """

    def __init__(self, reduction: Reduction, *, paced: bool) -> None:
        self._reduction = reduction
        self._paced = paced
        self._lock = threading.Lock()
        self._ready: deque[NDArray[np.float64]] = deque()
        self._open: list[NDArray[np.float64]] = []
        self._have = 0
        self._number = 0
        self._dropped = 0
        self._noted: list[EventKind] = []
        self._primed = False

    @property
    def full(self) -> bool:
        """Whether nothing more fits in."""
        with self._lock:
            return len(self._ready) >= _QUEUE

    def put(self, pieces: list[NDArray[np.float64] | EventKind]) -> bool:
        """Take ``pieces`` in; whether all fitted."""
        fitted = True
        with self._lock:
            for piece in pieces:
                if isinstance(piece, EventKind):
                    self._interrupt(piece)
                elif not self._fill(piece):
                    fitted = False
        return fitted

    def take(self) -> tuple[NDArray[np.float64] | None, int, list[EventKind]]:
        """The oldest frame or ``None``, how many samples were dropped since the last call, and what happened."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            noted, self._noted = self._noted, []
            if len(self._ready) >= _PRIMED:
                self._primed = True
            if self._primed and self._ready:
                return self._ready.popleft(), dropped, noted
            if self._primed:
                # Samples that come after this pause are not to be joined with those before.
                self._primed = False
                dropped += self._discard()
            return None, dropped, [*noted, EventKind.STALL]

    def _fill(self, samples: NDArray[np.float64]) -> bool:
        while len(samples):
            if len(self._ready) >= _QUEUE and not self._paced:
                self._dropped += len(samples) + self._discard()
                self._noted.append(EventKind.GAP)
                return False
            wanted = self._reduction.length(self._number) - self._have
            part, samples = samples[:wanted], samples[wanted:]
            self._open.append(part)
            self._have += len(part)
            if len(part) == wanted:
                self._ready.append(_joined(self._open))
                self._open, self._have = [], 0
                self._number += 1
        return True

    def _interrupt(self, kind: EventKind) -> None:
        self._dropped += self._discard()
        self._noted.append(kind)

    def _discard(self) -> int:
        had, self._open, self._have = self._have, [], 0
        return had


@final
class Adc:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource` of one converter.

    Args:
        source: what is read.
        decoder: of its bytes.
        reduction: of its samples.
        name: of the source, for hosts with several converters.
        clock: of the sampler, the host's by default.
    """

    def __init__(
        self, source: Input, decoder: Decoder, reduction: Reduction, *, name: str, clock: SampleClock | None = None
    ) -> None:
        self._input = source
        self._decoder = decoder
        self._reduction = reduction
        self._name = name
        channels = (*reduction.channels, ("dropped", "1"))
        self._names, self._units = tuple(item[0] for item in channels), tuple(item[1] for item in channels)
        self._clipped = self._names.index("clipped")
        self.queue = FrameQueue(reduction, paced=source.paced)
        self.sampler = Sampler(self.read, columns=len(channels), period_ns=reduction.period_ns, clock=clock)
        self._stop = threading.Event()
        self._pump = threading.Thread(target=self._run, name="weighbridge-adc", daemon=True)

    def start(self) -> None:
        """Begin to read and to sample."""
        self._pump.start()
        self.sampler.start()

    def read(self, tick: Tick) -> None:
        """One row of the sampler."""
        frame, dropped, noted = self.queue.take()
        for kind in dict.fromkeys(noted):
            tick.note(kind)
        tick.row[len(self._names) - 1] = dropped
        if frame is None:
            return
        for number, value in enumerate(self._reduction.of(frame)):
            if value is not None:
                tick.row[number] = value
            else:
                tick.note(EventKind.SENTINEL, number)
        if tick.row[self._clipped]:
            tick.note(EventKind.FAULT, self._clipped)

    def pump(self) -> bool:
        """Read once and put it into the queue; whether there may be more at once."""
        if self._input.paced and self.queue.full:
            return False
        data = self._input.read()
        if data is None:
            return False
        if not data:
            self.queue.put(self._decoder.end())
            return False
        return self.queue.put(self._decoder.feed(data))

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`TelemetrySource.window`."""
        _ = work
        samples = self.sampler.take(start_wall_ns=start_wall_ns, duration_ns=duration_ns)
        return [samples.source(device=None, name=self._name, columns=self._names, units=self._units)]

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`."""
        self._stop.set()
        self.sampler.close()
        if self._pump.is_alive():
            self._pump.join(_JOIN_S)
        self._input.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self.pump():
                # Full, silent or gone. A writer that is too fast is held up by its own full pipe in the meantime.
                self._stop.wait(_SLOW_DOWN_S)


def open_adc(options: Mapping[str, str], host: HostFacts) -> Adc:
    """The plug-in ``adc``, sampling already.

    Options: ``path`` of a file, FIFO, character device or Unix socket and ``rate`` in samples a second; ``format``
    (int16, int32, float32, text; int16), ``framing`` (frames, raw; frames), ``bands`` (8), ``unit`` (A), ``scale``
    (units per count, 1), ``name`` (adc).

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE`` for options that will not do, or a path that cannot be opened.
    """
    given = Options(NAME, options)
    path = Path(given.text("path"))
    rate = given.number("rate", 1, _RATE_MAX)
    form = _format(given)
    framing = _one_of(given, "framing", ("frames", "raw"), default="frames")
    bands = given.number("bands", 1, BANDS_MAX, default=8)
    unit = _like(given, "unit", _UNIT, "up to eight letters", default="A")
    scale = _scale(given)
    name = _like(given, "name", _WORD, "up to 32 letters, digits, - and _", default=NAME)
    given.end()
    if rate * host.period_ns < SAMPLES_MIN * 1_000_000_000:
        least = math.ceil(SAMPLES_MIN * 1_000_000_000 / host.period_ns)
        raise given.refusal(f"rate must be at least {least}: {SAMPLES_MIN} samples in a period", got=str(rate))
    source = Adc(
        Input(path),
        Decoder(form, framed=framing == "frames"),
        Reduction(rate=rate, period_ns=host.period_ns, bands=bands, unit=unit, scale=scale, clip=_CLIPS.get(form)),
        name=name,
    )
    source.start()
    return source


def _joined(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _one_of(given: Options, key: str, known: tuple[str, ...], *, default: str) -> str:
    text = given.text(key, default=default)
    if text not in known:
        raise given.refusal(f"{key} must be one of {', '.join(known)}", got=text)
    return text


def _format(given: Options) -> Format:
    text = _one_of(given, "format", FORMATS, default="int16")
    return next(form for form in FORMATS if form == text)


def _like(given: Options, key: str, pattern: re.Pattern[str], what: str, *, default: str) -> str:
    text = given.text(key, default=default)
    if not pattern.fullmatch(text):
        raise given.refusal(f"{key} must be {what}", got=text)
    return text


def _scale(given: Options) -> float:
    text = given.text("scale", default="1")
    scale = float(text) if _DECIMAL.fullmatch(text) else 0.0
    if scale <= 0:
        raise given.refusal("scale must be a positive decimal number: units per count", got=text)
    return scale
