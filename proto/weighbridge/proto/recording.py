"""A recording: the telemetry and the declared work of one run of one host, as a baseline is fitted to it.

One file, ``.wbr``: CBOR map ``{0: version, 1: origin, 2: label, 3: scope, 4: [window, …]}``; a window is ``[telemetry,
work, start, end, H_k or null]`` with the telemetry as it was sent. Nothing in it is signed: whoever signs a baseline
that was fitted to it vouches for it by its digest, the SHA-256 of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self, cast, get_args

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.scope import Scope
from weighbridge.proto.telemetry import VALUE_MAX, Telemetry
from weighbridge.proto.workload import WorkSummary

__all__ = ["SUFFIX", "VERSION", "Origin", "RecordedWindow", "Recording"]

VERSION: Final = "weighbridge/v1/recording"
SUFFIX: Final = ".wbr"
Origin = Literal["session", "host", "emulated", "imported"]
_LABEL_MAX: Final = 128
_SCOPE_MAX: Final = 2048
_WINDOW_PARTS: Final = 5
_WHAT: Final = "recording"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedWindow:
    """One window of a run.

    Attributes:
        telemetry: as sent (:meth:`weighbridge.proto.telemetry.Telemetry.encode`).
        work: what was declared for it.
        start_ns: wall clock of the host, nanoseconds since 1970.
        end_ns: likewise, later.
        window: ``H_k`` where it was a signed window of a session, else ``None``. Not proven by the recording.
    """

    telemetry: bytes
    work: WorkSummary
    start_ns: int
    end_ns: int
    window: bytes | None = None

    def readings(self) -> Telemetry:
        """The telemetry, parsed: some milliseconds and a megabyte for eight GPUs, so one window at a time.

        Raises:
            MalformedEvidence: it is not telemetry.
        """
        return Telemetry.parse(self.telemetry)

    def to_cbor(self) -> list[cbor.CborValue]:
        """``[telemetry, work, start, end, H_k or null]``."""
        return [self.telemetry, self.work.to_cbor(), self.start_ns, self.end_ns, self.window]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self:
        """Read a window; its telemetry is not parsed yet.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` for one that does not end after it starts; a decoding code.
        """
        parts = cbor.read_array(value, where=where, limit=_WINDOW_PARTS, size=_WINDOW_PARTS)
        fields = cbor.Reader(dict(enumerate(parts)), where)
        window = cls(
            telemetry=fields.octets(0, limit=limits.TELEMETRY_MAX),
            work=WorkSummary.from_cbor(fields.take(1), where=f"{where}.work"),
            start_ns=fields.uint(2, limit=VALUE_MAX),
            end_ns=fields.uint(3, limit=VALUE_MAX),
            window=fields.optional_digest(4),
        )
        if window.end_ns <= window.start_ns:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "a window ends after it starts",
                where=where,
                expected=f"> {window.start_ns}",
                got=window.end_ns,
            )
        return window


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One run of one host, all its GPUs. Not checked: that anything of it is true, or that windows are complete.

    Attributes:
        origin: ``session``: windows that were signed; ``host``: read by the attester without a session; ``emulated``:
            by no hardware; ``imported``: from somebody else's file.
        label: the owner's, for people.
        scope: the stack it was made on.
        windows: in the order in which they were read.
    """

    origin: Origin
    label: str
    scope: Scope
    windows: tuple[RecordedWindow, ...]

    def encode(self) -> bytes:
        """The bytes of the file."""
        return cbor.encode(
            {
                0: VERSION,
                1: self.origin,
                2: self.label,
                3: strict.json_encode(self.scope.to_json()),
                4: [window.to_cbor() for window in self.windows],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a recording. Its windows' telemetry is parsed by :meth:`RecordedWindow.readings`.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written, and for sizes out of bounds.
        """
        value = cbor.decode(data, limit=limits.RECORDING_MAX, what=_WHAT, items=limits.RECORDING_ITEMS_MAX)
        fields = cbor.read_map(value, where=_WHAT)
        version = fields.text(0)
        if version != VERSION:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown version", where=_WHAT, expected=VERSION, got=version
            )
        origin = fields.text(1)
        if origin not in get_args(Origin):
            raise MalformedEvidence(Code.FIELD_RANGE, "unknown origin", where=_WHAT, got=origin)
        label = fields.text(2, limit=_LABEL_MAX)
        scope = _scope(fields.octets(3, limit=_SCOPE_MAX))
        windows = fields.array(4, limit=limits.RECORDING_WINDOWS_MAX)
        fields.end()
        return cls(
            origin=cast(Origin, origin),
            label=label,
            scope=scope,
            windows=tuple(
                RecordedWindow.from_cbor(window, where=f"{_WHAT}.window[{number}]")
                for number, window in enumerate(windows)
            ),
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 of the file."""
        return sha256(self.encode())


def _scope(data: bytes) -> Scope:
    scope = Scope.from_json(strict.json_decode(data, what="recording.scope", limit=_SCOPE_MAX), where="recording.scope")
    if strict.json_encode(scope.to_json()) != data:
        raise MalformedEvidence(Code.NOT_DETERMINISTIC, "the scope is not canonical JSON", where="recording.scope")
    return scope
