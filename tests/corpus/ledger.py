"""The log itself: what its key's holder signs twice, takes back or rewrites, and who finds it out."""

from __future__ import annotations

import contextlib
import shutil
from argparse import Namespace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from weighbridge.proto import cosignature, note, tlog
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.commands.ledger_witness import run_compare
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.ledger.monitor import Monitor
from weighbridge.verifier.ledger.source import DirectorySource

if TYPE_CHECKING:
    from pathlib import Path

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.ledger.watched import Watched


def watched(arena: Arena, windows: int = 2) -> tuple[World, Watched]:
    """A session under way, and what a monitor has seen of its log."""
    world = arena.settled(windows)
    arena.forget()
    return world, look(world, world.directory / "ledger", None)


def look(world: World, log: Path, seen: Watched | None) -> Watched:
    """One look of a monitor at ``log``, which is said to be the world's."""

    def keep(name: str, data: bytes) -> Path:
        path = world.directory / name
        path.write_bytes(data)
        return path

    monitor = Monitor(DirectorySource(log), world.ledger.key, silence_ns=300 * 10**9, stall_ns=None, keep=keep)
    found = monitor.look(seen, now_ns=nanoseconds(world.clock.at))
    assert found.events == ()
    return found.watched


def entries(world: World) -> list[bytes]:
    """All that is in the world's log."""
    return [world.ledger.entry(index) for index in range(world.ledger.size)]


def rewritten(world: World, history: list[bytes]) -> Path:
    """Another log of the same name, signed by the same key."""
    directory = world.directory / "rewritten"
    with Ledger.create(directory, origin=world.ledger.key.name, key=world.keys.ledger) as ledger:
        ledger.append(history)
    return directory


def replica(world: World, *more: bytes) -> Path:
    """A copy of the log, as a second verifier with the same key would go on with it: with ``more``."""
    directory = world.directory / "replica"
    shutil.copytree(world.directory / "ledger", directory)
    with contextlib.closing(Ledger.open(directory, origin=world.ledger.key.name, key=world.keys.ledger)) as ledger:
        ledger.append(list(more))
    return directory


def case_001_grown(arena: Arena) -> None:
    world, seen = watched(arena)
    world.window()
    arena.forget()
    assert look(world, world.directory / "ledger", seen).tree.size == seen.tree.size + 1


def case_002_another_tree_of_its_size(arena: Arena) -> None:
    world, seen = watched(arena)
    *history, _ = entries(world)
    look(world, rewritten(world, [*history, b"another"]), seen)


def case_003_another_tree_that_is_larger(arena: Arena) -> None:
    world, seen = watched(arena)
    history = entries(world)
    look(world, rewritten(world, [b"another", *history[1:], *history]), seen)


def case_004_replicas_that_each_go_on(arena: Arena) -> None:
    """Two who were each shown one of them put the heads side by side."""
    world = arena.settled(2)
    other = replica(world, b"a window that the first one never saw")
    world.window()
    world.window()
    arena.forget()
    heads = world.directory / "ledger" / "checkpoint", other / "checkpoint"
    tiles = DirectorySource(world.directory / "ledger")
    run_compare(Namespace(key=world.ledger.key.vkey, first=heads[0], second=heads[1], log=tiles))


def case_005_put_back_to_an_earlier_state(arena: Arena) -> None:
    world = arena.settled(1)
    earlier = world.directory / "earlier"
    shutil.copytree(world.directory / "ledger", earlier)
    world.window()
    arena.forget()
    look(world, earlier, look(world, world.directory / "ledger", None))


def case_006_put_back_and_gone_on(arena: Arena) -> None:
    world = arena.settled(1)
    other = replica(world, b"another window", b"and one more")
    world.window()
    arena.forget()
    look(world, other, look(world, world.directory / "ledger", None))


def case_007_a_window_left_out(arena: Arena) -> None:
    """The whole log is written anew without it, right in itself."""
    world, seen = watched(arena, 3)
    history = entries(world)
    del history[2]
    look(world, rewritten(world, [*history, b"instead"]), seen)


def case_008_entries_edited_under_their_head(arena: Arena) -> None:
    world = arena.settled(2)
    arena.forget()
    log = rewritten(world, entries(world))
    (file,) = (log / "tile/entries/000.p").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    look(world, log, None)


def case_009_a_witness_that_saw_another_tree(arena: Arena) -> None:
    """A cosignature is demanded, and the one that is there is over another head of this log."""
    world = arena.settled(2)
    arena.forget()
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    witness = cosignature.WitnessKey("witness.example/w1", private.public_key().public_bytes_raw())
    shown = tlog.open_checkpoint(
        (rewritten(world, [b"another"]) / "checkpoint").read_bytes(), world.ledger.key, origin=world.ledger.key.name
    )
    at = nanoseconds(world.clock.at) // 10**9
    line = cosignature.sign(note.parse(shown.note).claimed_text, key=witness, time=at, signer=private.sign)
    cosignature.verify(note.parse(world.ledger.checkpoint() + line), witness)
