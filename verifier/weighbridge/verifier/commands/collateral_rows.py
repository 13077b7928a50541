"""Pieces of collateral as people read them: one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.verifier.collateral.describe import Description

__all__ = ["HEAD", "in_order", "row"]

HEAD: Final = ("kind", "issued", "expires", "sha256", "subject: what it says")


def row(piece: Description) -> tuple[str, ...]:
    """The cells below :data:`HEAD`."""
    expires = "-" if piece.expires is None else f"{piece.expires:%Y-%m-%d}"
    says = plain(f"{piece.subject}: {piece.says}")
    return piece.kind, f"{piece.issued:%Y-%m-%d}", expires, piece.digest.hex()[:16], says


def in_order(pieces: Iterable[Description]) -> list[Description]:
    """By kind and subject, the newest issue first."""
    newest_first = sorted(pieces, key=lambda piece: (piece.issued, piece.digest), reverse=True)
    return sorted(newest_first, key=lambda piece: (piece.kind, piece.subject))
