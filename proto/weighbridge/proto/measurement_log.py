"""The measurement log: our CBOR profile of TCG's Canonical Event Log, replayed to the PCR that a TPM quotes.

A record is the deterministic CBOR map ``{0: recnum, 1: pcr, 3: {TPM_ALG_ID: digest}, 87: content}`` (keys 0, 1 and 3 as
in TCG CEL v1.0; 87, "W", is private). ``content`` is a byte string that holds the deterministic CBOR array
``["weighbridge/v1/<type>", {…}]``, and each digest is ``H_alg(content)`` over exactly those bytes. The PCR is extended
with the digests, one record after the other::

    head_0 = 32 zero bytes       head_n = D("log", head_{n-1}, record_n)        pcr_n = H_alg(pcr_{n-1} || digest_n)

A record that parses has digests that fit its content. That it was extended is shown by :func:`replay` to a quoted
value, nothing less. Whoever can extend the PCR can add records (and be seen doing so); none can be taken away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import cbor, limits
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.manifest import SHARD_SIZE
from weighbridge.proto.measurement_events import (
    CONTENT_MAX,
    RECNUM_MAX,
    AttesterStart,
    Event,
    ModelHanded,
    ModelLoad,
    ModelUnload,
    Outcome,
    Protection,
    event_from_cbor,
    event_to_cbor,
)
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.proto.manifest import FileEntry, Manifest

__all__ = [
    "HEAD_ZERO",
    "AttesterStart",
    "Event",
    "Handed",
    "Loaded",
    "ModelHanded",
    "ModelLoad",
    "ModelUnload",
    "Outcome",
    "Protection",
    "Record",
    "bank_value",
    "check_gapless",
    "encode_record",
    "encode_records",
    "ever_loaded",
    "guarded",
    "head",
    "loaded",
    "make_record",
    "must_be_handed",
    "parse_record",
    "parse_records",
    "refused",
    "replay",
]

# Banks that a verdict may rest on. SHA-1 is extended where its bank is active, so that it is not left to others.
_REPLAYED: Final = frozenset({HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA512})

HEAD_ZERO: Final = bytes(limits.DIGEST_SIZE)

_RECNUM, _PCR, _DIGESTS, _CONTENT = 0, 1, 3, 87


@final
@dataclass(frozen=True, slots=True)
class Record:
    """A well-formed record. ``raw`` is its exact bytes; ``digests`` pairs ascending banks with H_alg(content)."""

    recnum: int
    pcr: int
    digests: tuple[tuple[HashAlgorithm, bytes], ...]
    event: Event
    raw: bytes

    def digest(self, alg: HashAlgorithm) -> bytes | None:
        """The digest for the bank ``alg``, or ``None`` when the record carries none."""
        # Not a dict: every record of a replay is asked, and has one bank to three.
        for bank, value in self.digests:
            if bank is alg:
                return value
        return None


@final
@dataclass(frozen=True, slots=True)
class Handed:
    """What the guard said of a file of a loaded model, and the number of the record in which it did."""

    event: ModelHanded
    recnum: int


@final
@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that a record loaded: its manifest's digest, its name, and that record's number.

    ``handed`` is what the guard said of its files so far, in order.
    """

    manifest: bytes
    name: str
    recnum: int
    protection: Protection = "none"
    root: bytes | None = None
    handed: tuple[Handed, ...] = ()


def make_record(event: Event, *, recnum: int, pcr: int, algs: Iterable[HashAlgorithm]) -> Record:
    """The record of ``event``, with a digest for every bank in ``algs``, SHA-256 always among them.

    Args:
        event: what happened.
        recnum: the record's number; the first of a boot is 0.
        pcr: the register that is extended.
        algs: the active banks.

    Raises:
        ValueError: when SHA-256 is not among the banks.
        MalformedEvidence: for an event whose fields a parser would refuse.
    """
    content = cbor.encode(event_to_cbor(event))
    banks = sorted(set(algs))
    if HashAlgorithm.SHA256 not in banks:
        raise ValueError("the SHA-256 bank must be active")
    digests = {alg.value: digest(alg, content) for alg in banks}
    return parse_record(cbor.encode({_RECNUM: recnum, _PCR: pcr, _DIGESTS: digests, _CONTENT: content}))


def encode_record(record: Record) -> bytes:
    """The exact bytes of ``record``."""
    return record.raw


def parse_record(data: bytes) -> Record:
    """Parse one record and recompute its digests from its content.

    Raises:
        MalformedEvidence: ``LOG_DIGEST`` when a digest is not that of the content, or SHA-256 is absent;
            ``VERSION_UNSUPPORTED`` for an unknown type; or a decoding code.
    """
    fields = cbor.read_map(cbor.decode(data, limit=limits.LOG_RECORD_MAX, what="record"), where="record")
    recnum = fields.uint(_RECNUM, limit=RECNUM_MAX)
    pcr = fields.uint(_PCR, limit=limits.PCRS_MAX - 1)
    banks = fields.table(_DIGESTS)
    content = fields.octets(_CONTENT, limit=CONTENT_MAX)
    fields.end()
    digests = tuple((alg, _checked_digest(banks, alg, content)) for alg in HashAlgorithm if banks.has(alg))
    banks.end()
    if HashAlgorithm.SHA256 not in dict(digests):
        raise MalformedEvidence(
            Code.LOG_DIGEST, "record has no SHA-256 digest", where="record[3]", clause="TCG CEL v1.0"
        )
    return Record(recnum=recnum, pcr=pcr, digests=digests, event=event_from_cbor(content), raw=data)


def encode_records(records: Iterable[Record]) -> bytes:
    """The evidence part that carries records: an array of byte strings, in order."""
    return cbor.encode([record.raw for record in records])


def parse_records(data: bytes) -> tuple[Record, ...]:
    """Parse the evidence part that carries records. Their order and completeness are not checked.

    Raises:
        MalformedEvidence: a decoding code, or as :func:`parse_record`.
    """
    value = cbor.decode(data, limit=limits.EVIDENCE_MAX, what="log")
    items = cbor.read_array(value, where="log", limit=limits.LOG_RECORDS_MAX)
    reader = cbor.Reader(dict(enumerate(items)), "log")
    return tuple(parse_record(reader.octets(index, limit=limits.LOG_RECORD_MAX)) for index in range(len(items)))


def head(records: Iterable[Record], *, after: bytes = HEAD_ZERO) -> bytes:
    """The log's head once ``records`` are appended to a log whose head is ``after``."""
    value = after
    for record in records:
        value = D("log", value, record.raw)
    return value


def check_gapless(records: Sequence[Record], first: int) -> None:
    """Require that the records are numbered ``first``, ``first + 1``, … without a gap or a repetition.

    Raises:
        NotAuthentic: ``LOG_GAP``.
    """
    for expected, record in enumerate(records, start=first):
        if record.recnum != expected:
            raise NotAuthentic(
                Code.LOG_GAP,
                "record number out of sequence",
                where=f"log[{expected}]",
                expected=expected,
                got=record.recnum,
            )


def replay(initial_pcr: bytes, records: Iterable[Record], alg: HashAlgorithm, *, pcr: int) -> bytes:
    """The value of register ``pcr`` in bank ``alg`` after ``records`` were extended into it.

    Args:
        initial_pcr: the value before the first of ``records``; zeros at boot.
        records: in order.
        alg: the quoted bank; not SHA-1.
        pcr: the register that the terms name.

    Raises:
        NotAuthentic: ``LOG_REPLAY`` for a record of another register or without a digest for the bank.
        ValueError: for the SHA-1 bank, or a value of the wrong length.
    """
    if alg not in _REPLAYED:
        raise ValueError(f"no verdict rests on the {alg.name} bank")
    return bank_value(initial_pcr, records, alg, pcr=pcr)


def bank_value(initial_pcr: bytes, records: Iterable[Record], alg: HashAlgorithm, *, pcr: int) -> bytes:
    """As :func:`replay`, for any bank that records carry: for the host's own bookkeeping, never for judging."""
    if len(initial_pcr) != digest_size(alg):
        raise ValueError(f"a PCR of this bank has {digest_size(alg)} bytes, not {len(initial_pcr)}")
    value = initial_pcr
    for record in records:
        extended = record.digest(alg)
        if record.pcr != pcr or extended is None:
            raise NotAuthentic(
                Code.LOG_REPLAY,
                "record extends another register or lacks the bank",
                where=f"log[{record.recnum}]",
                expected=f"PCR {pcr}, {alg.name}",
                got=f"PCR {record.pcr}, {', '.join(bank.name for bank, _ in record.digests)}",
            )
        value = digest(alg, value, extended)
    return value


def loaded(records: Iterable[Record], *, before: tuple[Loaded, ...] = ()) -> tuple[Loaded, ...]:
    """Every model loaded and not unloaded since, in the order of loading.

    A restart of the attester unloads nothing. For every model that was *ever* loaded, see :func:`ever_loaded`.

    Args:
        records: all records of the boot, or those since ``before`` was computed.
        before: the models loaded before the first of ``records``.

    Raises:
        NotAuthentic: ``LOG_EVENT`` for the unloading of what is not loaded.
    """
    models = {model.recnum: model for model in before}
    handed: dict[int, list[Handed]] = {}
    for record in records:
        event = record.event
        if isinstance(event, ModelLoad):
            models[record.recnum] = _loaded(event, record.recnum)
        elif isinstance(event, ModelHanded):
            if event.load not in models:
                raise _not_loaded("hands over what is not loaded", record, event.load)
            handed.setdefault(event.load, []).append(Handed(event, record.recnum))
        elif isinstance(event, ModelUnload) and models.pop(event.load, None) is None:
            raise _not_loaded("unloads what is not loaded", record, event.load)
    return _with_handed(models, handed)


def ever_loaded(records: Iterable[Record]) -> tuple[Loaded, ...]:
    """Every model that ``records`` loaded, unloaded since or not, in order."""
    models: dict[int, Loaded] = {}
    handed: dict[int, list[Handed]] = {}
    for record in records:
        event = record.event
        if isinstance(event, ModelLoad):
            models[record.recnum] = _loaded(event, record.recnum)
        elif isinstance(event, ModelHanded) and event.load in models:
            handed.setdefault(event.load, []).append(Handed(event, record.recnum))
    return _with_handed(models, handed)


def refused(records: Iterable[Record]) -> tuple[Handed, ...]:
    """Every record of ``records`` in which a guard says that it handed over something else than was measured."""
    return tuple(
        Handed(record.event, record.recnum)
        for record in records
        if isinstance(record.event, ModelHanded) and record.event.outcome != "match"
    )


def must_be_handed(file: FileEntry) -> bool:
    """Whether a guard has to hand over a file for its model to count as guarded: wherever weights may be.

    Safetensors and GGUF files, and every other of more than 64 MiB. What a guard does not cover of a model (its
    configuration, its tokenizer) only fs-verity or dm-verity does.
    """
    return file.kind != "plain" or file.size > SHARD_SIZE


def guarded(model: Loaded, manifest: Manifest) -> bool:
    """Whether a guard handed over, whole and as measured, every file of ``model`` that has to be, and at least one.

    Args:
        model: as the log says.
        manifest: the one whose digest the record of loading names.

    Raises:
        ValueError: for another model's manifest.
    """
    if manifest.digest != model.manifest:
        raise ValueError("this is another model's manifest")
    whole = {(item.event.path, item.event.digest) for item in model.handed if item.event.outcome == "match"}
    refused_any = any(item.event.outcome != "match" for item in model.handed)
    due = [file for file in manifest.files if must_be_handed(file)]
    return bool(due) and not refused_any and all((file.path, file.digest) in whole for file in due)


def _with_handed(models: dict[int, Loaded], handed: dict[int, list[Handed]]) -> tuple[Loaded, ...]:
    """``models`` with what was handed over of them since. Most logs have none of it: nothing is copied then."""
    for load, more in handed.items():
        if load in models:
            model = models[load]
            models[load] = replace(model, handed=(*model.handed, *more))
    return tuple(models.values())


def _loaded(event: ModelLoad, recnum: int) -> Loaded:
    return Loaded(event.manifest, event.name, recnum, event.protection, event.root)


def _not_loaded(what: str, record: Record, load: int) -> NotAuthentic:
    return NotAuthentic(Code.LOG_EVENT, what, where=f"log[{record.recnum}]", got=f"record {load}")


def _checked_digest(banks: cbor.Reader, alg: HashAlgorithm, content: bytes) -> bytes:
    got = banks.octets(alg, size=digest_size(alg))
    expected = digest(alg, content)
    if got != expected:
        raise MalformedEvidence(
            Code.LOG_DIGEST, "digest is not that of the content", where=f"record[3][{alg}]", expected=expected, got=got
        )
    return got
