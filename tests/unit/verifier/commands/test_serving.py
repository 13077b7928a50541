"""The event loop of ``weighbridge serve``."""

from __future__ import annotations

import gc

from weighbridge.verifier.commands.serving import _seldom_collected


def test_the_end_does_not_look_through_all_that_was_there_before() -> None:
    """Of a process without a session that took 0.4 s, in which nobody answered any more."""
    before = gc.get_threshold()
    gc.unfreeze()
    try:
        with _seldom_collected():
            assert gc.get_threshold() != before
        assert gc.get_threshold() == before
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
