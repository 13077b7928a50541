"""A second verifier over a world's directory, with nothing in common with the first but what is on disk."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.archive import Archive
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.leadership import FileLeadership
from weighbridge.verifier.ledger.content import ContentStore
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.store import Store

if TYPE_CHECKING:
    from collections.abc import Generator

    from support.world import Host, World
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.appraisal import Appraiser
    from weighbridge.verifier.clock import Clock

__all__ = ["another_process", "one_recording"]


@contextlib.contextmanager
def another_process(
    world: World, *, clock: Clock | None = None, appraiser: Appraiser | None = None
) -> Generator[Verifier]:
    """Another process that judges on the state of ``world``, as far as one process can be two."""
    ledger = Ledger.open(world.directory / "ledger", origin=world.ledger.key.name, key=world.keys.ledger)
    archive = Archive(ContentStore(world.directory / "content"), ledger, FileLeadership(world.directory / "turns"))
    store = Store.create_or_open(world.directory / "sessions.sqlite")
    try:
        yield Verifier(
            requirements=world.wanted,
            anchors=world.anchors,
            appraiser=appraiser or world.appraiser,
            keys=world.keys,
            archive=archive,
            store=store,
            clock=clock or world.clock,
            issuer=world.ledger.key.name,
        )
    finally:
        store.close()
        archive.close()


def one_recording(world: World, one: Host, two: Host) -> tuple[SealedWindow, SealedWindow]:
    """The next window of each of two hosts, which have sessions: both with what the sensors of ``one`` read."""
    for host in (one, two):
        # Idle samples are too much alike to be told apart.
        host.work = WorkSummary(root=bytes(32), requests=40, tokens_in=4000, tokens_out=4000, batch_max=40)
    world.clock.advance(1)
    first = one.seal()
    assert one.terms is not None
    assert two.terms is not None
    names = dict(zip(one.terms.terms.gpus, two.terms.terms.gpus, strict=True))
    two.sampled[two.session, two.seq] = tuple(
        replace(source, device=None if source.device is None else names[source.device])
        for source in one.sampled[one.session, one.seq]
    )
    return first, two.seal()
