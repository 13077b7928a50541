"""Which models the measurement log says were loaded, compared with what was declared.

The log's records are the attester's words, but their order and content are fixed by the quoted register: a record can
neither be dropped nor changed afterwards. What is not proven: that a program outside the measured loader loaded
nothing (docs/trust-model.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.policy.engine import Denial
from weighbridge.proto import limits, measurement_log
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, shorten
from weighbridge.proto.manifest import Manifest, parse_manifests
from weighbridge.proto.manifest_diff import Difference, DifferenceKind, diff
from weighbridge.verifier.load_binding import Binding, binding, mismatches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from weighbridge.proto.measurement_log import Handed, Loaded, Record
    from weighbridge.proto.tpm.constants import HashAlgorithm

__all__ = ["LoadedModel", "LogState", "WeightsAppraisal", "appraise", "check_manifests", "open_manifests"]

# The log starts at a register that a reset has cleared; PCRs 0 to 15 reset to zero (TPM 2.0 Part 1 §17.2).
_CLEARED: Final = bytes(32)
# What is told of one window, however much there is to tell: whoever loads a thousand models must not be able to make a
# verdict that is too large to be recorded, nor one that takes minutes.
_DIFFERENCES_MAX: Final = 16
_UNDECLARED_MAX: Final = 32
_TEXT_MAX: Final = 256
_NOT_BYTES: Final = {
    DifferenceKind.ALGORITHM: "the model was measured by another algorithm than the declared one",
    DifferenceKind.IGNORED: "other paths were left out of the measurement than of the declared one",
}


@dataclass(frozen=True, slots=True)
class LogState:
    """A measurement log from boot on, replayed. Only what is new is hashed when it is extended.

    ``register`` is the 32-byte value that the log leads to; ``models`` are those loaded and not unloaded; ``fresh``
    are the models that the last extension loaded, unloaded since or not, and ``refused`` is what a guard refused in it.
    """

    records: tuple[Record, ...]
    head: bytes
    register: bytes
    models: tuple[Loaded, ...]
    fresh: tuple[Loaded, ...]
    refused: tuple[Handed, ...] = ()

    @classmethod
    def empty(cls, register: bytes = _CLEARED) -> Self:
        """The log before its first record, on a register that holds ``register``: what the boot's own logs explain."""
        return cls((), measurement_log.HEAD_ZERO, register, (), ())

    def beside(self, model: bytes) -> tuple[bytes, ...]:
        """The manifests of what is loaded beside ``model``, or was since the last window; ascending."""
        return tuple(sorted({item.manifest for item in (*self.models, *self.fresh)} - {model}))

    def extended(self, records: Sequence[Record], *, bank: HashAlgorithm, pcr: int) -> Self:
        """This log with ``records`` after it.

        Raises:
            NotAuthentic: ``LOG_GAP`` for a record out of order, ``LOG_REPLAY`` for one of another register,
                ``LOG_EVENT`` for the unloading of what is not loaded, ``TOO_LARGE`` beyond the limit of records.
        """
        if not records and not self.fresh and not self.refused:
            # As in nearly every window: a log may be long, and is not copied for nothing.
            return self
        measurement_log.check_gapless(records, first=len(self.records))
        if len(self.records) + len(records) > limits.LOG_RECORDS_MAX:
            raise NotAuthentic(
                Code.TOO_LARGE, "too many records in the log", where="log", expected=limits.LOG_RECORDS_MAX
            )
        return type(self)(
            (*self.records, *records),
            measurement_log.head(records, after=self.head),
            measurement_log.replay(self.register, records, bank, pcr=pcr),
            measurement_log.loaded(records, before=self.models),
            measurement_log.ever_loaded(records),
            measurement_log.refused(records),
        )


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is loaded, or was for a while since the last window.

    ``binding`` says what bound its files between measuring and loading; ``root`` is the kernel's, 32 bytes.
    """

    manifest: bytes
    name: str
    declared: bool
    recnum: int
    binding: Binding = "none"
    root: bytes | None = None


@dataclass(frozen=True, slots=True)
class WeightsAppraisal:
    """The comparison's outcome. ``denials`` are invariants: no policy sees past them."""

    loaded: tuple[LoadedModel, ...]
    differences: tuple[Difference, ...]
    denials: tuple[Denial, ...]


def open_manifests(data: bytes) -> dict[bytes, Manifest]:
    """The manifests that came with evidence, keyed by their recomputed digest.

    Raises:
        MalformedEvidence: for bytes that are not an array of manifests; ``DUPLICATE_KEY`` for one sent twice.
    """
    items = parse_manifests(data)
    manifests = {item.digest: item for item in items}
    if len(manifests) != len(items):
        raise MalformedEvidence(Code.DUPLICATE_KEY, "one manifest is sent twice", where="manifests")
    return manifests


def check_manifests(sent: Iterable[bytes], *, named: set[bytes], known: Iterable[bytes] = ()) -> None:
    """Compare the manifests that came, by digest, with those that the log names: nothing else signs them.

    Raises:
        NotAuthentic: ``MANIFEST_DIGEST`` for one that is not ``named``, ``MANIFEST_MISSING`` for one that is named and
            neither sent nor ``known`` from before.
    """
    came = set(sent)
    if unnamed := sorted(came - named):
        raise NotAuthentic(
            Code.MANIFEST_DIGEST, "no new record of the log names this manifest", where="manifests", got=unnamed[0]
        )
    if missing := sorted(named - came - set(known)):
        raise NotAuthentic(
            Code.MANIFEST_MISSING, "a record names a manifest that did not come", where="manifests", expected=missing[0]
        )


def appraise(
    log: LogState,
    *,
    declared: Sequence[bytes],
    measured: Mapping[bytes, Manifest],
    references: Mapping[bytes, Manifest],
    window: int | None,
) -> WeightsAppraisal:
    """Compare what ``log`` says is loaded with the ``declared`` manifest digest.

    Args:
        log: replayed to the quoted register.
        declared: manifest digests from the terms: the model's, which must be loaded, then those that may be.
        measured: manifests that the attester sent, by digest.
        references: manifests that the verifier's operator accepts, by digest.
        window: the window's number, for the denials; ``None`` at enrolment.
    """
    # A model that was loaded and unloaded again since the last window counts too.
    seen = {item.recnum: item for item in (*log.models, *(log.fresh if window is not None else ()))}
    # Of those alone a bundle has the manifests, and so they alone may say something.
    known = {digest: references[digest] for digest in declared if digest in references}
    loaded = tuple(
        LoadedModel(
            item.manifest,
            item.name,
            item.manifest in declared,
            recnum,
            binding(item, measured.get(item.manifest) or known.get(item.manifest)),
            item.root,
        )
        for recnum, item in sorted(seen.items())
    )
    denials: list[Denial] = list(mismatches(log, window))
    differences: list[Difference] = []
    undeclared = [model for model in loaded if not model.declared]
    for model in undeclared[:_UNDECLARED_MAX]:
        if room := _DIFFERENCES_MAX - len(differences):
            found = _differences(list(known.values()), measured.get(model.manifest))[:room]
            differences += found
            denials += [_mismatch(difference, window) for difference in found]
        name = shorten(repr(model.name), _TEXT_MAX)
        denials.append(
            Denial(
                code=Code.MODEL_UNDECLARED,
                message=f"model {name} was loaded (log record {model.recnum}) but is not the declared one",
                window=window,
                device=None,
                expected=declared[0].hex(),
                got=model.manifest.hex(),
                hint="declare every model that is loaded, or restart the host: the log spans the boot",
            )
        )
    if more := len(undeclared[_UNDECLARED_MAX:]):
        denials.append(
            Denial(
                code=Code.MODEL_UNDECLARED,
                message=f"{more} more models were loaded that are not the declared one",
                window=window,
                device=None,
                expected=declared[0].hex(),
                got=None,
                hint=None,
            )
        )
    if window is not None and not any(item.manifest == declared[0] for item in log.models):
        denials.append(
            Denial(
                code=Code.MODEL_NOT_LOADED,
                message="the declared model is not loaded",
                window=window,
                device=None,
                expected=declared[0].hex(),
                got=None,
                hint="load it through the measured loader before the first window",
            )
        )
    return WeightsAppraisal(loaded, tuple(differences), tuple(denials))


def _differences(declared: Sequence[Manifest], measured: Manifest | None) -> tuple[Difference, ...]:
    """What to name when another model was loaded: how it differs from the declared one that it resembles most.

    Only worth it where the two share a file's name.
    """
    if measured is None:
        return ()
    paths = {entry.path for entry in measured.files}
    alike = [
        (len(paths & {entry.path for entry in manifest.files}), manifest.name == measured.name) for manifest in declared
    ]
    best = max(alike, default=(0, False))
    return diff(declared[alike.index(best)], measured) if best[0] else ()


def _mismatch(difference: Difference, window: int | None) -> Denial:
    if difference.kind is DifferenceKind.NAME:
        return Denial(
            code=Code.WEIGHTS_MISMATCH,
            message="the model was loaded under another name than the declared one",
            window=window,
            device=None,
            expected=None if difference.expected is None else shorten(difference.expected, _TEXT_MAX),
            got=None if difference.got is None else shorten(difference.got, _TEXT_MAX),
            hint="the name is part of the manifest: measure and load the model under one name",
        )
    if difference.kind in _NOT_BYTES:
        return Denial(
            code=Code.WEIGHTS_MISMATCH,
            message=_NOT_BYTES[difference.kind],
            window=window,
            device=None,
            expected=None if difference.expected is None else shorten(difference.expected, _TEXT_MAX),
            got=None if difference.got is None else shorten(difference.got, _TEXT_MAX),
            hint="measure as the declared manifest was measured",
        )
    return Denial(
        code=Code.WEIGHTS_MISMATCH,
        message=f"{difference.kind.value.replace('_', ' ')} in {shorten(difference.place, _TEXT_MAX)}",
        window=window,
        device=None,
        expected=None if difference.expected is None else shorten(difference.expected, _TEXT_MAX),
        got=None if difference.got is None else shorten(difference.got, _TEXT_MAX),
        hint="the bytes that were loaded are not the declared ones",
    )
