"""A profile: what one GPU's power looks like under declared work, as whole numbers. Parsed, not verified.

Canonical JSON of integers and texts: sorted keys, no spaces, no fractions, one spelling only, so that its digest is
stable. What is derived from it, the verifier computes: nothing here decides. Byte layout: ``docs/baseline.md``.

A profile says what whoever fitted it has recorded on that GPU, whether that was good or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self, cast

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.definite import is_positive_definite
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_files import check_name
from weighbridge.proto.profile_parts import (
    GROSS_UNITS,
    REGRESSORS,
    Basis,
    Bound,
    CalibrationRun,
    Checked,
    Deviation,
    Explained,
    Gross,
    Reported,
    Term,
    exactly,
    one_of,
    read_bounds,
    read_channels,
    read_checked,
    read_deviations,
    read_explained,
    read_gross,
    read_runs,
)
from weighbridge.proto.recording import Origin
from weighbridge.proto.scope import Scope

__all__ = [
    "FEATURE_SET",
    "FEATURES",
    "FEATURE_STEP",
    "GROSS_UNITS",
    "PROFILE_TYPE",
    "REGRESSORS",
    "Basis",
    "Bound",
    "CalibrationRun",
    "Checked",
    "Deviation",
    "Explained",
    "Gross",
    "Profile",
    "Reported",
    "Term",
    "whole",
]

PROFILE_TYPE: Final = "weighbridge/v1/profile"
FEATURE_SET: Final = "power-32/1"
"""Names the 32 features and how they are computed: another computation is another set."""
FEATURES: Final = 32
FEATURE_STEP: Final = 1_000_000
"""Features, their centre and their scale count millionths of the feature's own unit: milliwatts, shares, logarithms."""

_ORIGINS: Final[tuple[Origin, ...]] = ("session", "host", "emulated", "imported")
_TRIANGLE: Final = FEATURES * (FEATURES + 1) // 2
# Beyond what any sensor says, and small enough that sums of products stay within 64 bits.
_FEATURE_MAX: Final = 10**15
_PRECISION_MAX: Final = 10**12
_PPM: Final = 1_000_000
_UNIT_MAX_NS: Final = 3600 * 10**9
_UNIT_SAMPLES_MIN: Final = 16
_UNIT_SAMPLES_MAX: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A well-formed profile. Says nothing of truth.

    ``device`` is the GPU's identity, 32 bytes, or ``None`` for a source that is no GPU. ``source`` is the name of the
    sensor path and ``channel`` whose samples of it are scored, ``unit_ns`` how long a unit is, ``period_ns`` the time
    between samples. ``channels`` are what the source has to report for its units to be scored. ``precision`` is the
    upper triangle, row by row, in millionths.
    ``delta_ppm`` is the chance, over calibrations, that the p-values derived from ``runs`` are too small.
    ``deviations`` say what is seen after how many units, the last of them after a whole block.
    """

    device: bytes | None
    scope: Scope
    origin: Origin
    source: str
    channel: str
    unit_ns: int
    period_ns: int
    channels: tuple[Reported, ...]
    explained: Explained
    centre: tuple[int, ...]
    scale: tuple[int, ...]
    precision: tuple[int, ...]
    runs: tuple[CalibrationRun, ...]
    bounds: tuple[Bound, ...]
    gross: Gross
    evidence_ppm: int
    delta_ppm: int
    deviations: tuple[Deviation, ...]
    checked: Checked | None = None

    def __hash__(self) -> int:
        """Of what hardly ever is the same in two profiles: all of it takes longer than most that is looked up by it."""
        return hash((self.device, self.centre))

    def document(self) -> strict.JsonObject:
        """The profile as JSON's own types."""
        return {
            "type": PROFILE_TYPE,
            "features": FEATURE_SET,
            "device": None if self.device is None else self.device.hex(),
            "scope": self.scope.to_json(),
            "origin": self.origin,
            "source": self.source,
            "channel": self.channel,
            "unit_ns": self.unit_ns,
            "period_ns": self.period_ns,
            "channels": [[channel.name, channel.window_ns, channel.readings] for channel in self.channels],
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
            "gross": [
                list(self.gross.limits),
                self.gross.upper,
                self.gross.claimed_ppm,
                self.gross.runs,
                self.gross.assumption,
            ],
            "evidence_ppm": self.evidence_ppm,
            "delta_ppm": self.delta_ppm,
            "deviations": [[seen.units, seen.milliwatts] for seen in self.deviations],
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
        origin: Origin = one_of(fields.text("origin"), _ORIGINS, fields.path("origin"))
        source, channel = fields.text("source"), fields.text("channel")
        check_name(source, where=fields.path("source"))
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
        channels = read_channels(fields, scored=channel, samples=unit_ns // period_ns)
        explained = read_explained(fields.table("explained"))
        centre = exactly(fields, "centre", size=FEATURES, low=-_FEATURE_MAX, high=_FEATURE_MAX)
        scale = exactly(fields, "scale", size=FEATURES, low=1, high=_FEATURE_MAX)
        precision = exactly(fields, "precision", size=_TRIANGLE, low=-_PRECISION_MAX, high=_PRECISION_MAX)
        if not is_positive_definite(precision, FEATURES):
            # A direction in which distance shrinks would hide whatever lies along it.
            raise MalformedEvidence(Code.FIELD_RANGE, "not positive definite", where=fields.path("precision"))
        runs = read_runs(fields.array("runs", limit=limits.PROFILE_RUNS_MAX), fields.path("runs"))
        bounds = read_bounds(fields, runs=len(runs))
        gross = read_gross(fields.take("gross"), fields.path("gross"))
        evidence_ppm = fields.integer("evidence_ppm", low=1, high=_PPM - 1)
        delta_ppm = fields.integer("delta_ppm", low=1, high=_PPM - 1)
        deviations = read_deviations(fields, units=min(len(run.scores) for run in runs))
        checked = fields.optional_table("checked")
        fields.end()
        return cls(
            device=device,
            scope=scope,
            origin=origin,
            source=source,
            channel=channel,
            unit_ns=unit_ns,
            period_ns=period_ns,
            channels=channels,
            explained=explained,
            centre=centre,
            scale=scale,
            precision=precision,
            runs=runs,
            bounds=bounds,
            gross=gross,
            evidence_ppm=evidence_ppm,
            delta_ppm=delta_ppm,
            deviations=deviations,
            checked=None if checked is None else read_checked(checked),
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


def _optional_digest(fields: cbor.Reader, key: str) -> bytes | None:
    text = fields.optional_text(key)
    return None if text is None else strict.hex_decode(text, what=fields.path(key), size=limits.DIGEST_SIZE)
