"""What a corpus begins with: the project's own seeds, and captured evidence where there is any."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuzz.mutate import Choices, Tree, damage
from weighbridge.proto.digest import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuzz.target import Target

__all__ = ["captured", "damaged", "seed"]

_SMALL: Final = 32 * 1024
_TREES: Final = 4


def seed(target: Target, corpus: Path, *, limit: int) -> None:
    """Put the target's seeds into its corpus, and what it accepts of captured evidence; nothing is put there twice."""
    for data in target.seeds:
        if len(data) <= limit:
            (corpus / sha256(data).hex()[:40]).write_bytes(data)
    for data in captured(limit):
        try:
            accepted = target.accepts(data)
        except Exception:  # noqa: BLE001 - the fuzzer meets it again, and keeps it
            accepted = True
        if accepted:
            (corpus / sha256(data).hex()[:40]).write_bytes(data)


def captured(limit: int) -> Iterator[bytes]:
    """Evidence of real hardware, which the repository does not carry; see ``tests/vectors/README.md``."""
    folder = os.environ.get("WEIGHBRIDGE_VECTORS")
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        if path.is_file() and path.stat().st_size <= limit:
            yield path.read_bytes()


def damaged(target: Target, *, count: int) -> Iterator[bytes]:
    """``count`` inputs: the target's seeds with values exchanged where they have a structure, and with bytes damaged.

    The same in every run.
    """
    chosen = random.Random(target.name)
    seeds = [data for data in target.seeds if len(data) <= _SMALL] or [b""]
    trees = [Tree(data) for data in seeds[:_TREES]]
    for number in range(count):
        program = Choices(chosen.randbytes(24))
        if number % 2:
            yield trees[number % len(trees)].changed(program, trees)
        else:
            yield damage(seeds[number % len(seeds)], program)
