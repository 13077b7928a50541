"""A profile: what one GPU's power looks like under declared work, as whole numbers. Parsed, not verified.

Canonical JSON of integers and texts: sorted keys, no spaces, no fractions, one spelling only, so that its digest is
stable. What is derived from it, the verifier computes: nothing here decides. Byte layout: ``docs/baseline.md``.

A profile says what whoever fitted it has recorded on that GPU, whether that was good or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self, TypeVar, cast

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.definite import is_positive_definite
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_files import check_name
from weighbridge.proto.recording import Origin
from weighbridge.proto.scope import Scope

__all__ = [
    "FEATURE_SET",
    "FEATURES",
    "FEATURE_STEP",
    "PROFILE_TYPE",
    "REGRESSORS",
    "Bound",
    "CalibrationRun",
    "Checked",
    "Explained",
    "Profile",
    "Term",
    "whole",
]

PROFILE_TYPE: Final = "weighbridge/v1/profile"
FEATURE_SET: Final = "power-32/1"
"""Names the 32 features and how they are computed: another computation is another set."""
FEATURES: Final = 32
FEATURE_STEP: Final = 1_000_000
"""Features, their centre and their scale count millionths of the feature's own unit: milliwatts, shares, logarithms."""
REGRESSORS: Final = ("busy", "prefill", "decode", "tokens_in", "tokens_out")
"""What power is explained by, each in thousandths: share of the time in which anything was served, requests in prefill
and in decoding on average, tokens in and out per second."""

Basis = Literal["runs", "pooled"]
_Word = TypeVar("_Word", bound=str)

_ORIGINS: Final[tuple[Origin, ...]] = ("session", "host", "emulated", "imported")
_BASES: Final[tuple[Basis, ...]] = ("runs", "pooled")
_TRIANGLE: Final = FEATURES * (FEATURES + 1) // 2
# Beyond what any sensor says, and small enough that sums of products stay within 64 bits.
_FEATURE_MAX: Final = 10**15
_PRECISION_MAX: Final = 10**12
_SCORE_MAX: Final = 10**12
_POWER_MAX: Final = 10**12
_PPM: Final = 1_000_000
_UNIT_MAX_NS: Final = 3600 * 10**9
_UNIT_SAMPLES_MIN: Final = 16
_UNIT_SAMPLES_MAX: Final = 100_000


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
class Checked:
    """What happened on runs that were held out: alarms among them, and the 95 % interval of the rate (Clopper-Pearson).

    ``widened`` says that a bound was exceeded there, and its limit raised afterwards.
    """

    runs: int
    alarms: int
    low_ppm: int
    high_ppm: int
    widened: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A well-formed profile. Says nothing of truth.

    ``device`` is the GPU's identity, 32 bytes, or ``None`` for a source that is no GPU. ``channel`` is whose samples
    are scored, ``unit_ns`` how long a unit is, ``period_ns`` the time between samples. ``precision`` is the upper
    triangle, row by row, in millionths. ``delta_ppm`` is the chance, over calibrations, that the p-values derived from
    ``runs`` are too small. ``smallest_deviation_mw`` is the smallest sustained change of mean power that would have
    been flagged in nine of ten of ``runs``; ``None`` where no change would.
    """

    device: bytes | None
    scope: Scope
    origin: Origin
    channel: str
    unit_ns: int
    period_ns: int
    explained: Explained
    centre: tuple[int, ...]
    scale: tuple[int, ...]
    precision: tuple[int, ...]
    runs: tuple[CalibrationRun, ...]
    bounds: tuple[Bound, ...]
    evidence_ppm: int
    delta_ppm: int
    smallest_deviation_mw: int | None
    checked: Checked | None = None

    def document(self) -> strict.JsonObject:
        """The profile as JSON's own types."""
        return {
            "type": PROFILE_TYPE,
            "features": FEATURE_SET,
            "device": None if self.device is None else self.device.hex(),
            "scope": self.scope.to_json(),
            "origin": self.origin,
            "channel": self.channel,
            "unit_ns": self.unit_ns,
            "period_ns": self.period_ns,
            "explained": {
                "base_mw": self.explained.base_mw,
                "uncertainty_mw": self.explained.uncertainty_mw,
                "terms": [[term.name, term.microwatts, term.low, term.high] for term in self.explained.terms],
            },
            "centre": list(self.centre),
            "scale": list(self.scale),
            "precision": list(self.precision),
            "runs": [[run.recording.hex(), run.statistic, list(run.scores)] for run in self.runs],
            "bounds": [
                [bound.basis, bound.limit, bound.claimed_ppm, bound.runs, bound.assumption] for bound in self.bounds
            ],
            "evidence_ppm": self.evidence_ppm,
            "delta_ppm": self.delta_ppm,
            "smallest_deviation_mw": self.smallest_deviation_mw,
            "checked": None
            if self.checked is None
            else {
                "runs": self.checked.runs,
                "alarms": self.checked.alarms,
                "low_ppm": self.checked.low_ppm,
                "high_ppm": self.checked.high_ppm,
                "widened": self.checked.widened,
            },
        }

    def encode(self) -> bytes:
        """The profile's bytes."""
        return strict.json_encode(self.document())

    @property
    def digest(self) -> bytes:
        """SHA-256 of :meth:`encode`: what a verdict cites."""
        return sha256(self.encode())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a profile.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` of a consistent profile would not have written.
        """
        profile = cls.of_document(whole(strict.json_decode(data, what="profile", limit=limits.PROFILE_MAX), "profile"))
        if profile.encode() != data:
            raise MalformedEvidence(Code.NOT_DETERMINISTIC, "not the one spelling of its values", where="profile")
        return profile

    @classmethod
    def of_document(cls, value: cbor.CborValue, *, where: str = "profile") -> Self:
        """Read what :meth:`document` writes. Spelling is the caller's business.

        Raises:
            MalformedEvidence: a field is missing, unknown, of another type, out of range, or contradicts another.
        """
        fields = cbor.read_map(value, where=where)
        for key, expected in (("type", PROFILE_TYPE), ("features", FEATURE_SET)):
            if (got := fields.text(key)) != expected:
                raise MalformedEvidence(
                    Code.VERSION_UNSUPPORTED, "unknown version", where=fields.path(key), expected=expected, got=got
                )
        device = _optional_digest(fields, "device")
        scope = Scope.from_json(cast("strict.JsonValue", fields.take("scope")), where=fields.path("scope"))
        origin: Origin = _one_of(fields.text("origin"), _ORIGINS, fields.path("origin"))
        channel = fields.text("channel")
        check_name(channel, where=fields.path("channel"))
        unit_ns = fields.integer("unit_ns", low=1, high=_UNIT_MAX_NS)
        period_ns = fields.integer("period_ns", low=1, high=unit_ns)
        if not _UNIT_SAMPLES_MIN <= unit_ns // period_ns <= _UNIT_SAMPLES_MAX or unit_ns % period_ns:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "a unit is not a fit number of samples",
                where=fields.path("unit_ns"),
                expected=f"{_UNIT_SAMPLES_MIN} to {_UNIT_SAMPLES_MAX} periods",
                got=f"{unit_ns}/{period_ns}",
            )
        explained = _explained(fields.table("explained"))
        centre = _exactly(fields, "centre", size=FEATURES, low=-_FEATURE_MAX, high=_FEATURE_MAX)
        scale = _exactly(fields, "scale", size=FEATURES, low=1, high=_FEATURE_MAX)
        precision = _exactly(fields, "precision", size=_TRIANGLE, low=-_PRECISION_MAX, high=_PRECISION_MAX)
        if not is_positive_definite(precision, FEATURES):
            # A direction in which distance shrinks would hide whatever lies along it.
            raise MalformedEvidence(Code.FIELD_RANGE, "not positive definite", where=fields.path("precision"))
        runs = _runs(fields.array("runs", limit=limits.PROFILE_RUNS_MAX), fields.path("runs"))
        bounds = _bounds(fields.array("bounds", limit=len(_BASES)), fields.path("bounds"), runs=len(runs))
        evidence_ppm = fields.integer("evidence_ppm", low=1, high=_PPM - 1)
        delta_ppm = fields.integer("delta_ppm", low=1, high=_PPM - 1)
        smallest = fields.take("smallest_deviation_mw")
        if smallest is not None and (isinstance(smallest, bool) or not isinstance(smallest, int) or smallest < 1):
            raise MalformedEvidence(
                Code.FIELD_RANGE, "not milliwatts or null", where=fields.path("smallest_deviation_mw")
            )
        checked = fields.optional_table("checked")
        fields.end()
        return cls(
            device=device,
            scope=scope,
            origin=origin,
            channel=channel,
            unit_ns=unit_ns,
            period_ns=period_ns,
            explained=explained,
            centre=centre,
            scale=scale,
            precision=precision,
            runs=runs,
            bounds=bounds,
            evidence_ppm=evidence_ppm,
            delta_ppm=delta_ppm,
            smallest_deviation_mw=smallest,
            checked=None if checked is None else _checked(checked),
        )


def whole(value: strict.JsonValue, where: str) -> cbor.CborValue:
    """JSON without fractions.

    Raises:
        MalformedEvidence: ``FIELD_TYPE`` where there is one.
    """
    if isinstance(value, float):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="integer", got=value)
    if isinstance(value, list):
        return [whole(item, where) for item in value]
    if isinstance(value, dict):
        return {key: whole(item, where) for key, item in value.items()}
    return value


def _exactly(fields: cbor.Reader, key: str, *, size: int, low: int, high: int) -> tuple[int, ...]:
    values = cbor.read_array(fields.take(key), where=fields.path(key), limit=size, size=size)
    return _integers(values, fields.path(key), low, high)


def _integers(values: list[cbor.CborValue], where: str, low: int, high: int) -> tuple[int, ...]:
    if not all(type(value) is int for value in values):
        raise MalformedEvidence(Code.FIELD_TYPE, "not all integers", where=where)
    numbers = cast("list[int]", values)
    if numbers and not (low <= min(numbers) and max(numbers) <= high):
        raise MalformedEvidence(Code.FIELD_RANGE, "out of range", where=where, expected=f"{low}..{high}")
    return tuple(numbers)


def _one_of(value: cbor.CborValue, words: tuple[_Word, ...], where: str) -> _Word:
    for word in words:
        if value == word:
            return word
    raise MalformedEvidence(Code.FIELD_RANGE, "no such word", where=where, expected="|".join(words))


def _optional_digest(fields: cbor.Reader, key: str) -> bytes | None:
    text = fields.optional_text(key)
    return None if text is None else strict.hex_decode(text, what=fields.path(key), size=limits.DIGEST_SIZE)


def _explained(fields: cbor.Reader) -> Explained:
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


def _runs(rows: list[cbor.CborValue], where: str) -> tuple[CalibrationRun, ...]:
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


def _bounds(rows: list[cbor.CborValue], where: str, *, runs: int) -> tuple[Bound, ...]:
    found: list[Bound] = []
    for row in rows:
        basis, limit, claimed, rests_on, assumption = cbor.read_array(row, where=where, limit=5, size=5)
        if not isinstance(assumption, str):
            raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="text")
        check_name(assumption, where=where)
        (limit_,) = _integers([limit], where, 1, _SCORE_MAX)
        claimed_, rests_on_ = _integers([claimed, rests_on], where, 1, _PPM)
        found.append(Bound(_one_of(basis, _BASES, where), limit_, claimed_, rests_on_, assumption))
    if tuple(bound.basis for bound in found) != _BASES[: len(found)] or not found or found[0].runs != runs:
        raise MalformedEvidence(Code.FIELD_RANGE, "not the bound of its own runs first", where=where)
    return tuple(found)


def _checked(fields: cbor.Reader) -> Checked:
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
