"""Whose ledger, and whose witnesses: the keys that ledger commands are given on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.proto import cosignature, limits, note
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier import anchors, witnesses
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands.ledger_errors import KEY_HINT, WITNESS_KEY_HINT
from weighbridge.verifier.commands.outcome import read
from weighbridge.verifier.file_kinds import kind_of
from weighbridge.verifier.ledger.published import open_head, told_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from weighbridge.proto import tlog
    from weighbridge.proto.cosignature import VerifiedCosignature, WitnessKey
    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = ["KEY_HELP", "WITNESS_HELP", "head_in", "ledger_key", "require_witnesses", "witness_keys"]

KEY_HELP: Final = (
    "the ledger's public key: name+keyid+base64, as `weighbridge init` prints it, or an anchors document with one "
    "ledger, such as STATE/anchors.json; its name is the ledger's origin"
)
WITNESS_HELP: Final = (
    "a witness's public key: name+keyid+base64, as witness-key prints it, or an anchors document with witnesses"
)

_Key = TypeVar("_Key")
_SECOND_NS: Final = 10**9
_VKEY_FILE: Final = "a key spelled name+keyid+base64"


def ledger_key(text: str) -> note.NoteKey:
    """The key that ``--key`` gives: itself, or the name of a document that holds it.

    Raises:
        WeighbridgeError: ``KEY_MALFORMED``, ``KEY_UNSUPPORTED``, or whatever is wrong with the document.
    """
    if "+" in text or not _is_file(text):
        return _spelled(text, "--key", note.parse_vkey, KEY_HINT)
    ledgers = _document(text, "--key", KEY_HINT).select("ledger")
    if len(ledgers) != 1:
        hint = f"name the key itself, as `weighbridge init` printed it: {_listed(ledgers)}" if ledgers else KEY_HINT
        raise MalformedEvidence(
            Code.KEY_MALFORMED, "not one ledger anchor", where=text, expected="one", got=len(ledgers), hint=hint
        )
    (anchor,) = ledgers
    if not note.is_key_name(anchor.name):
        raise MalformedEvidence(Code.KEY_MALFORMED, "not a ledger's name", where=text, got=anchor.name, hint=KEY_HINT)
    try:
        return note.NoteKey.from_spki(anchor.name, anchor.spki)
    except MalformedEvidence as error:
        raise told_of(error, text, hint=KEY_HINT) from error


def head_in(path: Path, key: note.NoteKey) -> tlog.VerifiedCheckpoint:
    """The signed head of the ledger of ``key`` in the file ``path``.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        WeighbridgeError: as :func:`.tlog.open_checkpoint`, naming the file.
    """
    return open_head(read(path, limit=limits.CHECKPOINT_MAX), key, origin=key.name, where=path)


def witness_keys(texts: Sequence[str], *, of: note.NoteKey) -> tuple[WitnessKey, ...]:
    """The witnesses that ``--witness`` gives, each once: keys, or the names of documents that hold them.

    Args:
        texts: what was given.
        of: the key of the ledger that they watch, which is no witness of itself.

    Raises:
        NotAuthentic: ``LEDGER_WITNESS``: one is the ledger's own key.
        WeighbridgeError: ``KEY_MALFORMED``, ``KEY_UNSUPPORTED``, or whatever is wrong with a document.
    """
    return tuple(dict.fromkeys(key for text in texts for key, _ in _witnesses(text, of)))


def require_witnesses(signed: bytes, texts: Sequence[str], *, of: note.NoteKey) -> tuple[VerifiedCosignature, ...]:
    """The cosignatures on the note ``signed`` of every witness that ``--witness`` gives.

    Raises:
        NotAuthentic: ``LEDGER_WITNESS``: one of them has not cosigned it, or is the ledger's own key;
            ``CHAIN_EXPIRED``: it states a time at which its anchor is not believed.
        WeighbridgeError: as :func:`witness_keys`, or the note is none.
    """
    parsed = note.parse(signed)
    required: dict[WitnessKey, VerifiedCosignature] = {}
    for text in texts:
        for key, anchor in _witnesses(text, of):
            required[key] = cosignature.verify(parsed, key)
            if anchor is not None:
                anchor.check_validity(moment(required[key].time * _SECOND_NS))
    return tuple(required.values())


def _witnesses(text: str, of: note.NoteKey) -> Iterable[tuple[WitnessKey, Anchor | None]]:
    """The keys that ``text`` gives, with the anchors that limit them."""
    for key, anchor in _given(text):
        witnesses.require_another(key, of)
        yield key, anchor


def _given(text: str) -> Iterable[tuple[WitnessKey, Anchor | None]]:
    if "+" in text or not _is_file(text):
        return ((_spelled(text, "--witness", cosignature.parse_vkey, WITNESS_KEY_HINT), None),)
    listed = _document(text, "--witness", WITNESS_KEY_HINT).select("witness")
    if not listed:
        raise MalformedEvidence(Code.KEY_MALFORMED, "no witness among the anchors", where=text, hint=WITNESS_KEY_HINT)
    return tuple((witnesses.witness_key(anchor, where=text), anchor) for anchor in listed)


def _spelled(text: str, option: str, parse: Callable[[str], _Key], hint: str) -> _Key:
    try:
        return parse(text)
    except MalformedEvidence as error:
        what = "" if "+" in text else "no such file, and "
        raise MalformedEvidence(
            error.code, f"{what}{error.message}", where=option, expected=error.expected, got=error.got,
            clause=error.clause, hint=hint,
        ) from error  # fmt: skip


def _document(path: str, option: str, hint: str) -> TrustAnchors:
    """The anchors in the file ``path``, or what it is instead.

    Raises:
        MalformedEvidence: ``KEY_MALFORMED``: it is something else; as :func:`.anchors.load`.
    """
    data = read(path, limit=limits.JSON_MAX)
    kind = kind_of(data)
    if not data.lstrip().startswith(b"{"):
        raise MalformedEvidence(
            Code.KEY_MALFORMED,
            "a file of another kind",
            where=path,
            expected="an anchors document",
            got=kind,
            hint=f'give the key itself: {option} "$(cat FILE)"' if kind == _VKEY_FILE else hint,
        )
    try:
        return anchors.load(data)
    except MalformedEvidence as error:
        raise error.in_file(path, what=f"an anchors document (it seems to be {kind})", hint=hint) from error


def _listed(found: Sequence[Anchor]) -> str:
    return ", ".join(anchor.name for anchor in found)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # longer than any file's name
        return False
