"""What of a store has run out and may be forgotten, and what trust is given back by forgetting a piece.

The steps of :func:`ended`, of which the outcome is that no judgement at the stated time or later gets better by it:

1. A manifest never: one that is over still replaces those before it (:mod:`weighbridge.verifier.gpu.rim.issues`).
   What takes trust away never. Nor Intel's documents, AMD's certificates and key sets, which judge old evidence.
2. A list without entries, which is over, where a newer one of its authority stays. But not beside an older one with
   entries: the older one might hold what it has released.
3. An OCSP response that says *good* or *unknown*, whose next update is over. But not beside one that stays, of the
   same serial number, that is as old or older and says something else: *unknown* hides an older *good*, and *good* ends
   an older *hold*. Nor is an *unknown* forgotten beside a list that is as old or older, which may say *good*.

A newer statement is no reason to forget one: nothing is verified here, and it may be anybody's.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from weighbridge.verifier.gpu import ocsp
from weighbridge.verifier.gpu.issuer_crl import parse_crl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from weighbridge.verifier.collateral.describe import Description

__all__ = ["ended", "is_over", "taken"]


def is_over(piece: Description, at: datetime) -> bool:
    """Whether ``piece`` says until when it may be used, and that was before ``at``."""
    return piece.expires is not None and piece.expires < at


def ended(pieces: Iterable[Description], at: datetime) -> tuple[Description, ...]:
    """What of ``pieces`` may be forgotten at ``at``, the oldest first: the steps in the module's docstring.

    Judgements of before ``at`` may get worse: records and bundles have what they were made by.

    Raises:
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    ordered = sorted(pieces, key=lambda piece: (piece.issued, piece.digest))
    # 2.
    lists = [piece for piece in ordered if piece.kind == "crl"]
    forgotten = {piece.digest for piece in lists if _is_replaced(piece, lists, at)}
    staying = [piece for piece in lists if piece.digest not in forgotten]
    # 3.
    by_serial: dict[int, list[Description]] = defaultdict(list)
    for piece in ordered:
        if piece.kind == "ocsp":
            by_serial[_serial(piece)].append(piece)
    for answers in by_serial.values():
        forgotten |= _answers(answers, staying, at)
    return tuple(piece for piece in ordered if piece.digest in forgotten)


def taken(piece: Description, staying: Iterable[Description]) -> str:
    """What ``piece`` took away that nothing of ``staying`` does, as a clause; empty where it is nothing.

    As far as unverified pieces say: what stays may be anybody's.
    """
    staying = tuple(staying)
    issues = [other for other in staying if (other.kind, other.subject) == (piece.kind, piece.subject)]
    older = [other for other in issues if other.issued <= piece.issued]
    if piece.revokes:
        return _revoked(piece, issues)
    if piece.kind in ("rim", "dcap") and older:
        return f"it replaced the issue of {max(other.issued for other in older):%Y-%m-%d}"
    if piece.kind == "ocsp" and piece.says == "unknown" and any(_is_hidden(other, piece) for other in staying):
        return "unknown, which hid an older statement that may say good"
    return ""


def _is_hidden(other: Description, unknown: Description) -> bool:
    """Whether ``other`` may say *good* of what ``unknown`` is about, and comes after it."""
    if other.kind == "crl":
        return other.issued <= unknown.issued
    return (
        other.kind == "ocsp"
        and other.says == "good"
        and other.issued <= unknown.issued
        and _serial(other) == _serial(unknown)
    )


def _serial(answer: Description) -> int:
    return ocsp.parse(answer.item.data).cert_id.serial


def _revoked(piece: Description, issues: Iterable[Description]) -> str:
    if piece.kind != "crl":
        return "on hold" if piece.says == "hold" else piece.says
    own = parse_crl(piece.item.data).entries
    for other in issues:
        listed = parse_crl(other.item.data).entries
        if other.issued >= piece.issued and all(
            listed.get(serial) in (says, "revoked") for serial, says in own.items()
        ):
            return f"{piece.says}, as the list of {other.issued:%Y-%m-%d} says too, if that is genuine"
    return piece.says


def _is_replaced(piece: Description, lists: Sequence[Description], at: datetime) -> bool:
    """Step 2. The newest of an authority always stays; so do all with entries."""
    own = [other for other in lists if other.subject == piece.subject]
    return (
        not piece.revokes
        and is_over(piece, at)
        and any(piece.issued < other.issued <= at for other in own)
        and not any(other.revokes and other.issued <= piece.issued for other in own)
    )


def _answers(answers: Sequence[Description], lists: Sequence[Description], at: datetime) -> set[bytes]:
    """Step 3, for those of one serial number, the oldest first."""
    over = [piece for piece in answers if is_over(piece, at) and not piece.revokes]
    staying = [piece for piece in answers if piece not in over]
    forgotten: set[bytes] = set()
    for piece in over:
        hidden = [other.says for other in staying if other.issued <= piece.issued]
        if piece.says == "unknown":
            hidden += ["good" for other in lists if other.issued <= piece.issued]
        if all(says == piece.says for says in hidden):
            forgotten.add(piece.digest)
        else:
            staying.append(piece)
    return forgotten
