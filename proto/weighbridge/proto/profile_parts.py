"""The parts of a profile, each with the parser of its JSON. Parsed, not verified: see :mod:`.profile`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeVar, cast

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_files import check_name

__all__ = [
    "GROSS_UNITS",
    "REGRESSORS",
    "Basis",
    "Bound",
    "CalibrationRun",
    "Checked",
    "Deviation",
    "Explained",
    "Gross",
    "Reported",
    "Term",
    "exactly",
    "one_of",
    "read_bounds",
    "read_channels",
    "read_checked",
    "read_deviations",
    "read_explained",
    "read_gross",
    "read_runs",
]

REGRESSORS: Final = ("busy", "prefill", "decode", "tokens_in", "tokens_out")
"""What power is explained by, each in thousandths: share of the time in which anything was served, requests in prefill
and in decoding on average, tokens in and out per second."""
GROSS_UNITS: Final = (1, 2, 3)
"""Of how many of the last units the median is taken, for each limit of :class:`Gross`."""

Basis = Literal["runs", "pooled"]
_Word = TypeVar("_Word", bound=str)

_BASES: Final[tuple[Basis, ...]] = ("runs", "pooled")
_SCORE_MAX: Final = 10**12
_POWER_MAX: Final = 10**12
_WINDOW_MAX_NS: Final = 2**53 - 1
_PPM: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Term:
    """One regressor: microwatts for each thousandth of it, and from where to where it went in the recordings."""

    name: str
    microwatts: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Explained:
    """What declared work explains: ``base_mw`` plus the terms. ``uncertainty_mw`` is for a whole run, one sigma."""

    base_mw: int
    uncertainty_mw: int
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """A run against a fit of the *other* runs, in thousandths.

    ``recording`` is the digest of its recording. ``statistic`` is the squared distance of the run as a whole, the
    largest of its blocks; ``scores`` are those of its units, in order.
    """

    recording: bytes
    statistic: int
    scores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """A false-alarm bound: a session's statistic passes ``limit`` in at most ``claimed_ppm``, if ``assumption`` holds.

    ``limit`` is in thousandths of the median of the runs' statistics. ``basis``: the profile's own ``runs``, or
    sessions ``pooled`` from other machines. ``assumption`` is a name that the verifier has a text for. ``runs`` is how
    many whole runs it rests on.
    """

    basis: Basis
    limit: int
    claimed_ppm: int
    runs: int
    assumption: str


@dataclass(frozen=True, slots=True)
class Gross:
    """How far power may be off, whatever else is: early, and of a full block the upper side.

    Power is off by the residual as a share of what is explained. The median of the last unit, of the last two and of
    the last three (:data:`GROSS_UNITS`) pass their limit of ``limits``, in thousandths, or all but a tenth of a full
    block's units do not stay below ``upper``, in at most ``claimed_ppm`` of sessions, if ``assumption`` holds. ``runs``
    is how many whole runs it rests on.
    """

    limits: tuple[int, int, int]
    upper: int
    claimed_ppm: int
    runs: int
    assumption: str


@dataclass(frozen=True, slots=True)
class Deviation:
    """What is seen after so many ``units``: the smallest sustained change of mean power that is flagged by then.

    In nine of ten of the runs; ``None`` where no change would be.
    """

    units: int
    milliwatts: int | None


@dataclass(frozen=True, slots=True)
class Reported:
    """A channel that every calibration run reported.

    ``window_ns`` is over what time its sensor takes the mean, as the source says, or ``None``; ``readings``, how many
    of them a unit has: 0 for a setting, which is read now and then.
    """

    name: str
    window_ns: int | None
    readings: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What happened on runs that were held out: alarms among them, and the 95 % interval of the rate (Clopper-Pearson).

    ``widened`` says that a bound was exceeded there, and its limit raised afterwards.
    """

    runs: int
    alarms: int
    low_ppm: int
    high_ppm: int
    widened: bool


def exactly(fields: cbor.Reader, key: str, *, size: int, low: int, high: int) -> tuple[int, ...]:
    """The array ``key`` of ``size`` integers."""
    values = cbor.read_array(fields.take(key), where=fields.path(key), limit=size, size=size)
    return _integers(values, fields.path(key), low, high)


def _integers(values: list[cbor.CborValue], where: str, low: int, high: int) -> tuple[int, ...]:
    if not all(type(value) is int for value in values):
        raise MalformedEvidence(Code.FIELD_TYPE, "not all integers", where=where)
    numbers = cast("list[int]", values)
    if numbers and not (low <= min(numbers) and max(numbers) <= high):
        raise MalformedEvidence(Code.FIELD_RANGE, "out of range", where=where, expected=f"{low}..{high}")
    return tuple(numbers)


def one_of(value: cbor.CborValue, words: tuple[_Word, ...], where: str) -> _Word:
    """The one of ``words`` that ``value`` is."""
    for word in words:
        if value == word:
            return word
    raise MalformedEvidence(Code.FIELD_RANGE, "no such word", where=where, expected="|".join(words))


def read_explained(fields: cbor.Reader) -> Explained:
    """Read the member ``explained``."""
    base = fields.integer("base_mw", low=-_POWER_MAX, high=_POWER_MAX)
    uncertainty = fields.uint("uncertainty_mw", limit=_POWER_MAX)
    rows = cbor.read_array(
        fields.take("terms"), where=fields.path("terms"), limit=len(REGRESSORS), size=len(REGRESSORS)
    )
    where = fields.path("terms")
    fields.end()
    return Explained(
        base, uncertainty, tuple(_term(row, name, where) for row, name in zip(rows, REGRESSORS, strict=True))
    )


def _term(row: cbor.CborValue, name: str, where: str) -> Term:
    said, *numbers = cbor.read_array(row, where=where, limit=4, size=4)
    if said != name:
        raise MalformedEvidence(Code.FIELD_RANGE, "not the regressors in their order", where=where, expected=name)
    microwatts, low, high = _integers(numbers, where, 0, _POWER_MAX)
    if low > high:
        raise MalformedEvidence(Code.FIELD_RANGE, "a range ends before it begins", where=where, got=name)
    return Term(name, microwatts, low, high)


def read_runs(rows: list[cbor.CborValue], where: str) -> tuple[CalibrationRun, ...]:
    """Read the member ``runs``."""
    found: list[CalibrationRun] = []
    for row in rows:
        recording, statistic, scores = cbor.read_array(row, where=where, limit=3, size=3)
        if not isinstance(recording, str):
            raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="text")
        digest = strict.hex_decode(recording, what=where, size=limits.DIGEST_SIZE)
        values = cbor.read_array(scores, where=where, limit=limits.PROFILE_RUN_UNITS_MAX)
        (whole_run,) = _integers([statistic], where, 0, _SCORE_MAX)
        found.append(CalibrationRun(digest, whole_run, _integers(values, where, 0, _SCORE_MAX)))
    if not found or any(not run.scores for run in found):
        raise MalformedEvidence(Code.FIELD_RANGE, "no runs, or one without a unit", where=where)
    if [run.recording for run in found] != sorted({run.recording for run in found}):
        # A recording that counts twice would make a bound out of half the runs.
        raise MalformedEvidence(Code.NOT_DETERMINISTIC, "recordings are not distinct and ascending", where=where)
    return tuple(found)


def read_bounds(fields: cbor.Reader, *, runs: int) -> tuple[Bound, ...]:
    """Read the member ``bounds`` of a profile of so many ``runs``."""
    where = fields.path("bounds")
    found: list[Bound] = []
    for row in fields.array("bounds", limit=len(_BASES)):
        basis, limit, claimed, rests_on, assumption = cbor.read_array(row, where=where, limit=5, size=5)
        (limit_,) = _integers([limit], where, 1, _SCORE_MAX)
        claimed_, rests_on_ = _integers([claimed, rests_on], where, 1, _PPM)
        found.append(Bound(one_of(basis, _BASES, where), limit_, claimed_, rests_on_, _name(assumption, where)))
    if tuple(bound.basis for bound in found) != _BASES[: len(found)] or not found or found[0].runs != runs:
        raise MalformedEvidence(Code.FIELD_RANGE, "not the bound of its own runs first", where=where)
    return tuple(found)


def read_gross(value: cbor.CborValue, where: str) -> Gross:
    """Read the member ``gross``."""
    rows, upper, claimed, rests_on, assumption = cbor.read_array(value, where=where, limit=5, size=5)
    limits_ = cbor.read_array(rows, where=where, limit=len(GROSS_UNITS), size=len(GROSS_UNITS))
    one, two, three, upper_ = _integers([*limits_, upper], where, 1, _SCORE_MAX)
    claimed_, rests_on_ = _integers([claimed, rests_on], where, 1, _PPM)
    return Gross((one, two, three), upper_, claimed_, rests_on_, _name(assumption, where))


def read_deviations(fields: cbor.Reader, *, units: int) -> tuple[Deviation, ...]:
    """Read the member ``deviations`` of a profile whose runs have so many ``units`` at least."""
    where = fields.path("deviations")
    found: list[Deviation] = []
    for row in fields.array("deviations", limit=limits.PROFILE_DEVIATIONS_MAX):
        after, milliwatts = cbor.read_array(row, where=where, limit=2, size=2)
        (after_,) = _integers([after], where, 1, units)
        seen = None if milliwatts is None else _integers([milliwatts], where, 1, _POWER_MAX)[0]
        found.append(Deviation(after_, seen))
    if not found or found[0].units != 1 or any(first.units >= second.units for first, second in pairwise(found)):
        raise MalformedEvidence(Code.FIELD_RANGE, "numbers of units do not ascend from 1", where=where)
    for first, second in pairwise(found):
        # What was flagged is flagged for good.
        if first.milliwatts is not None and (second.milliwatts is None or second.milliwatts > first.milliwatts):
            raise MalformedEvidence(Code.FIELD_RANGE, "more units see less", where=where, got=second.units)
    return tuple(found)


def read_channels(fields: cbor.Reader, *, scored: str, samples: int) -> tuple[Reported, ...]:
    """Read the member ``channels`` of a profile whose units have so many ``samples`` of the channel ``scored``."""
    where = fields.path("channels")
    found: list[Reported] = []
    for row in fields.array("channels", limit=limits.TELEMETRY_CHANNELS_MAX):
        name, window, readings = cbor.read_array(row, where=where, limit=3, size=3)
        window_ = None if window is None else _integers([window], where, 1, _WINDOW_MAX_NS)[0]
        (readings_,) = _integers([readings], where, 0, samples)
        found.append(Reported(_name(name, where), window_, readings_))
    names = [channel.name for channel in found]
    if names != sorted(set(names)):
        raise MalformedEvidence(Code.NOT_DETERMINISTIC, "channels are not distinct and ascending", where=where)
    if not any(channel.name == scored and channel.readings for channel in found):
        raise MalformedEvidence(Code.FIELD_RANGE, "without readings of what is scored", where=where, expected=scored)
    return tuple(found)


def read_checked(fields: cbor.Reader) -> Checked:
    """Read the member ``checked``."""
    runs = fields.integer("runs", low=1, high=_PPM)
    found = Checked(
        runs=runs,
        alarms=fields.uint("alarms", limit=runs),
        low_ppm=fields.uint("low_ppm", limit=_PPM),
        high_ppm=fields.uint("high_ppm", limit=_PPM),
        widened=fields.boolean("widened"),
    )
    fields.end()
    if found.low_ppm > found.high_ppm:
        raise MalformedEvidence(Code.FIELD_RANGE, "an interval ends before it begins", where="profile[checked]")
    return found


def _name(value: cbor.CborValue, where: str) -> str:
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="text")
    check_name(value, where=where)
    return value
