"""Cases that the corpus has no use for: they refuse nothing, and lead to parsers that no other case reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from unittest import mock

from corpus import adapters
from weighbridge.verifier import kept_position

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena
    from weighbridge.verifier.core import Answer, Opened

__all__ = ["EXTRA"]


def _restored(arena: Arena) -> Answer:
    """A verifier that comes up again, and reads where a session stood."""
    with mock.patch.object(kept_position, "KEPT_EVERY", 1):
        world = arena.settled(3)
        world.restart()
        return world.window()


def _enrolled_with_two_models(arena: Arena) -> Opened:
    """A host that enrols again, with a model and an adapter loaded already."""
    adapters.case_001_declared_and_loaded(arena)
    return arena.enrol(arena.worlds[-1])


EXTRA: Final[dict[str, Callable[[Arena], Answer | Opened]]] = {
    "extra/restored": _restored,
    "extra/enrolled-with-two-models": _enrolled_with_two_models,
}
