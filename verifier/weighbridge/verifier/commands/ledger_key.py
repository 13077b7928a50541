"""Whose ledger, and whose witnesses: the keys that ledger commands are given on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cosignature, note
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands.outcome import load_anchors
from weighbridge.verifier.witnesses import witness_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.proto.cosignature import VerifiedCosignature, WitnessKey
    from weighbridge.verifier.anchors import Anchor

__all__ = ["KEY_HELP", "WITNESS_HELP", "ledger_key", "require_witnesses", "witness_keys"]

KEY_HELP: Final = (
    "the ledger's public key: name+keyid+base64, as init prints it, or an anchors document with one ledger; its name "
    "is the ledger's origin"
)
WITNESS_HELP: Final = (
    "a witness's public key: name+keyid+base64, as witness-key prints it, or an anchors document with witnesses"
)

_SECOND_NS: Final = 10**9


def ledger_key(text: str) -> note.NoteKey:
    """The key that ``--key`` gives: itself, or the name of a document that holds it.

    Raises:
        WeighbridgeError: ``KEY_MALFORMED``, or whatever is wrong with the document.
    """
    if "+" in text or not _is_file(text):
        return note.parse_vkey(text)
    ledgers = load_anchors([text]).select("ledger")
    if len(ledgers) != 1:
        raise MalformedEvidence(
            Code.KEY_MALFORMED, "not one ledger anchor", where=text, got=len(ledgers), hint="name the key itself"
        )
    return note.NoteKey.from_spki(ledgers[0].name, ledgers[0].spki)


def witness_keys(texts: Sequence[str]) -> tuple[WitnessKey, ...]:
    """The witnesses that ``--witness`` gives, each once: keys, or the names of documents that hold them.

    Raises:
        WeighbridgeError: ``KEY_MALFORMED``, ``KEY_UNSUPPORTED``, or whatever is wrong with a document.
    """
    return tuple(dict.fromkeys(key for text in texts for key, _ in _witnesses(text)))


def require_witnesses(signed: bytes, texts: Sequence[str]) -> tuple[VerifiedCosignature, ...]:
    """The cosignatures on the note ``signed`` of every witness that ``--witness`` gives.

    Raises:
        NotAuthentic: ``LEDGER_WITNESS``: one of them has not cosigned it; ``CHAIN_EXPIRED``: it states a time at which
            its anchor is not believed.
        WeighbridgeError: as :func:`witness_keys`, or the note is none.
    """
    parsed = note.parse(signed)
    required: dict[WitnessKey, VerifiedCosignature] = {}
    for text in texts:
        for key, anchor in _witnesses(text):
            required[key] = cosignature.verify(parsed, key)
            if anchor is not None:
                anchor.check_validity(moment(required[key].time * _SECOND_NS))
    return tuple(required.values())


def _witnesses(text: str) -> Iterable[tuple[WitnessKey, Anchor | None]]:
    """The keys that ``text`` gives, with the anchors that limit them."""
    if "+" in text or not _is_file(text):
        return ((cosignature.parse_vkey(text), None),)
    witnesses = load_anchors([text]).select("witness")
    if not witnesses:
        raise MalformedEvidence(
            Code.KEY_MALFORMED, "no witness among the anchors", where=text, hint="name the key itself"
        )
    return tuple((witness_key(anchor, where=text), anchor) for anchor in witnesses)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # longer than any file's name
        return False
