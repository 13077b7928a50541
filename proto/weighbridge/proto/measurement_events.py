"""The events that a measurement log records, and their encoding: the content that is extended into the register.

An event says what the host's attester did or was told. Not proven by any: that the host told the truth, or that it told
everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast, final, get_args

from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import check_name, check_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CONTENT_MAX",
    "RECNUM_MAX",
    "AttesterStart",
    "Event",
    "ModelHanded",
    "ModelLoad",
    "ModelUnload",
    "Outcome",
    "Protection",
    "event_from_cbor",
    "event_to_cbor",
]

RECNUM_MAX: Final = 2**32
# A path of PATH_MAX bytes and the rest.
CONTENT_MAX: Final = 8 * 1024
_PATH_MAX: Final = 4096
_START_ID_SIZE: Final = 16
_LOAD: Final = "weighbridge/v1/model.load"
_HANDED: Final = "weighbridge/v1/model.handed"
_UNLOAD: Final = "weighbridge/v1/model.unload"
_START: Final = "weighbridge/v1/attester.start"

Protection = Literal["none", "fs-verity", "dm-verity"]
Outcome = Literal["match", "mismatch", "changed"]
_PROTECTIONS: Final[tuple[Protection, ...]] = get_args(Protection)
_OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


@final
@dataclass(frozen=True, slots=True)
class ModelLoad:
    """The measured loader is about to let a model be loaded: its manifest's digest (32 bytes) and its name.

    ``protection`` is what the kernel enforced beneath all of its files when they were measured, and ``root`` names
    it: for ``fs-verity`` ``D("verity", [[path, fs-verity digest] …])`` over the manifest's files in its order, for
    ``dm-verity`` the device's root hash, 32 bytes both. Of a hash tree with longer or shorter hashes nothing is said.
    """

    manifest: bytes
    name: str
    protection: Protection = "none"
    root: bytes | None = None


@final
@dataclass(frozen=True, slots=True)
class ModelHanded:
    """A guard in the serving process hashed what it hands to the framework of one file of record ``load``'s model.

    ``match``: ``tensors`` tensors, ``size`` bytes with the header and padding, have the manifest's digests; ``digest``
    is the file's when that was all of it, else ``None``. ``mismatch`` and ``changed``: ``detail`` names the tensor
    that was refused; the framework did not get it. Not said: that the process loaded nothing past its guard.
    """

    load: int
    path: str
    digest: bytes | None
    tensors: int
    size: int
    outcome: Outcome
    detail: str = ""


@final
@dataclass(frozen=True, slots=True)
class ModelUnload:
    """The model loaded by record ``load`` is no longer served."""

    load: int


@final
@dataclass(frozen=True, slots=True)
class AttesterStart:
    """An attester process began: its version and 16 random bytes that no other start of it has."""

    version: str
    start_id: bytes


Event = ModelLoad | ModelHanded | ModelUnload | AttesterStart


def event_to_cbor(event: Event) -> list[object]:
    """The array that an event is encoded as: its type and its fields."""
    if isinstance(event, ModelLoad):
        return [_LOAD, {0: event.manifest, 1: event.name, 2: event.protection, 3: event.root}]
    if isinstance(event, ModelHanded):
        return [
            _HANDED,
            {
                0: event.load,
                1: event.path,
                2: event.digest,
                3: event.tensors,
                4: event.size,
                5: event.outcome,
                6: event.detail,
            },
        ]
    if isinstance(event, ModelUnload):
        return [_UNLOAD, {0: event.load}]
    return [_START, {0: event.version, 1: event.start_id}]


def event_from_cbor(content: bytes) -> Event:
    """Parse an event from a record's content.

    Raises:
        MalformedEvidence: ``VERSION_UNSUPPORTED`` for an unknown type, or a decoding code.
    """
    value = cbor.decode(content, limit=CONTENT_MAX, what="record.content")
    kind, body = cbor.read_array(value, where="record.content", limit=2, size=2)
    fields = cbor.read_map(body, where="record.content[1]")
    event: Event
    if kind == _LOAD:
        event = _load_from_cbor(fields)
    elif kind == _HANDED:
        event = _handed_from_cbor(fields)
    elif kind == _UNLOAD:
        event = ModelUnload(load=fields.uint(0, limit=RECNUM_MAX))
    elif kind == _START:
        event = AttesterStart(version=fields.text(0), start_id=fields.octets(1, size=_START_ID_SIZE))
        check_name(event.version, where="record.content[1][0]")
    else:
        raise MalformedEvidence(Code.VERSION_UNSUPPORTED, "unknown event type", where="record.content[0]", got=kind)
    fields.end()
    return event


def _load_from_cbor(fields: cbor.Reader) -> ModelLoad:
    event = ModelLoad(
        manifest=fields.digest(0),
        name=fields.text(1),
        protection=cast(Protection, _one_of(fields, 2, _PROTECTIONS)),
        root=fields.optional_digest(3),
    )
    check_name(event.name, where=fields.path(1))
    if (event.protection == "none") != (event.root is None):
        raise MalformedEvidence(Code.FIELD_RANGE, "protection and root do not go together", where=fields.path(3))
    return event


def _handed_from_cbor(fields: cbor.Reader) -> ModelHanded:
    event = ModelHanded(
        load=fields.uint(0, limit=RECNUM_MAX),
        path=fields.text(1, limit=_PATH_MAX),
        digest=fields.optional_digest(2),
        tensors=fields.uint(3),
        size=fields.uint(4),
        outcome=cast(Outcome, _one_of(fields, 5, _OUTCOMES)),
        detail=fields.text(6),
    )
    check_path(event.path, where=fields.path(1))
    if event.detail:
        check_name(event.detail, where=fields.path(6))
    if event.outcome == "match" and event.detail:
        raise MalformedEvidence(Code.FIELD_RANGE, "a match has no detail", where=fields.path(6))
    if event.outcome != "match" and (event.digest is not None or not event.detail):
        raise MalformedEvidence(Code.FIELD_RANGE, "a refusal has a detail and no digest", where=fields.path(6))
    return event


def _one_of(fields: cbor.Reader, key: int, words: Sequence[str]) -> str:
    word = fields.text(key)
    if word not in words:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not a known word", where=fields.path(key), expected=", ".join(words), got=ascii(word)
        )
    return word
