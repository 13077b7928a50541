"""Whose cosignatures on a checkpoint count: those of witnesses that are trusted, made while they were.

None is demanded here. The log's own key is no witness of it, whatever it is called: its word would count twice. A
witness states the time itself: whoever has a key that was given up can state an earlier one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto import cosignature, note
from weighbridge.proto.cosignature import WitnessKey
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.clock import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto import tlog
    from weighbridge.proto.cosignature import VerifiedCosignature
    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = ["cosignatures", "require_another", "verified_lines", "witness_key"]

_SECOND_NS: Final = 10**9


def witness_key(anchor: Anchor, *, where: str = "anchors") -> WitnessKey:
    """The key of ``anchor``, one of purpose ``witness``.

    Raises:
        MalformedEvidence: ``KEY_MALFORMED``: its name cannot stand on a signature line; ``KEY_UNSUPPORTED``.
    """
    if not note.is_key_name(anchor.name):
        raise MalformedEvidence(Code.KEY_MALFORMED, "not a witness's name", where=where, got=anchor.name)
    return WitnessKey.from_spki(anchor.name, anchor.spki)


def require_another(witness: WitnessKey, ledger: note.NoteKey) -> None:
    """Let ``witness`` be a witness of ``ledger``, whose key it has not.

    Raises:
        NotAuthentic: ``LEDGER_WITNESS``: it has.
    """
    if witness.public == ledger.public:
        raise NotAuthentic(
            Code.LEDGER_WITNESS, "the ledger's own key is no witness of it", where=witness.name, got=ledger.vkey,
            hint="a witness has a key of its own, which the ledger's operator has not: `weighbridge ledger "
            "witness-key` makes one",
        )  # fmt: skip


def cosignatures(checkpoint: tlog.VerifiedCheckpoint, anchors: TrustAnchors) -> tuple[VerifiedCosignature, ...]:
    """By which of the witnesses among ``anchors`` ``checkpoint`` is cosigned, in their order.

    One that was not trusted at the time that it states is no more than a stranger, and so is the log's own key.

    Raises:
        MalformedEvidence: as :func:`witness_key`.
        NotAuthentic: ``LEDGER_WITNESS`` when any line by one of them does not verify.
    """
    signed = note.parse(checkpoint.note)
    believed: dict[WitnessKey, VerifiedCosignature] = {}
    for anchor in anchors.select("witness"):
        key = witness_key(anchor)
        if key.public == checkpoint.key.public:
            continue
        for cosigned in cosignature.verify_all(signed, [key]):
            if anchor.not_before <= moment(cosigned.time * _SECOND_NS) <= anchor.not_after:
                believed[cosigned.key] = cosigned
    return tuple(believed.values())


def verified_lines(checkpoint: tlog.VerifiedCheckpoint, cosigned: Sequence[VerifiedCosignature]) -> str:
    """The note of ``checkpoint`` with the signature lines of its ledger and of ``cosigned``, and no stranger's."""
    signed = note.parse(checkpoint.note)
    keys = {(checkpoint.key.name, checkpoint.key.key_id), *((item.key.name, item.key.key_id) for item in cosigned)}
    head = signed.claimed_text.decode()
    lines = checkpoint.note.decode()[len(head) + 1 :].splitlines(keepends=True)
    found = zip(lines, signed.signatures, strict=True)
    return f"{head}\n" + "".join(line for line, of in found if (of.claimed_name, of.key_id) in keys)
