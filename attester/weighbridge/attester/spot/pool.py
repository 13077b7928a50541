"""Makes pools of spot challenges from a model's files: what its owner does, who alone knows that they are right.

Every byte of the tensors is as likely to be asked for as any other: they are cut into blocks of one length (the last of
each tensor is what remains), and each challenge draws some of them at random, none twice.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.spot.reader import read_answer
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spot import PoolEntry, SpotChallenge, SpotExpectation, SpotPool, SpotRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from weighbridge.proto.manifest import Manifest

__all__ = ["Blocks", "make_pool"]

_ID_SIZE: Final = 16
_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class _Region:
    path: str
    tensor: str | None
    offset: int
    size: int


@final
class Blocks:
    """The bytes of a model that may be asked for, cut into blocks of ``length`` bytes."""

    def __init__(self, manifest: Manifest, length: int) -> None:
        """Cut up the tensors of ``manifest``; where it names none, all of every file.

        Raises:
            MalformedEvidence: ``FIELD_RANGE``: there is no byte to ask for.
        """
        self._length = length
        self._regions = tuple(_tensors(manifest)) or tuple(_files(manifest))
        self._ends = list(accumulate(-(-region.size // length) for region in self._regions))
        if not self._ends:
            raise MalformedEvidence(Code.FIELD_RANGE, "every file of the model is empty", where="manifest.files")

    def __len__(self) -> int:
        """How many there are."""
        return self._ends[-1]

    def draw(self, count: int) -> list[tuple[SpotRange, str | None]]:
        """``count`` of them at random, none twice (all, if there are fewer), each with its tensor's name."""
        numbers = secrets.SystemRandom().sample(range(len(self)), min(count, len(self)))
        return [self._block(number) for number in numbers]

    def _block(self, number: int) -> tuple[SpotRange, str | None]:
        index = bisect_right(self._ends, number)
        region = self._regions[index]
        begin = (number - (self._ends[index - 1] if index else 0)) * self._length
        length = min(self._length, region.size - begin)
        return SpotRange(region.path, region.offset + begin, length), region.tensor


def make_pool(
    manifest: Manifest,
    directory: Path,
    *,
    count: int,
    ranges: int,
    range_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> SpotPool:
    """``count`` new challenges about the files below ``directory``, with their answers.

    Whether these are the files that ``manifest`` names is not checked: the caller measures them.

    Args:
        manifest: of the model.
        directory: where it lies.
        count: how many challenges.
        ranges: how many blocks each asks for.
        range_bytes: the length of a block.
        progress: called with challenges made and challenges in all.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE``.
        MalformedEvidence: there is no byte to ask for, or the challenges are beyond the limits.
    """
    blocks = Blocks(manifest, range_bytes)
    entries: list[PoolEntry] = []
    for number in range(count):
        drawn = blocks.draw(ranges)
        made = SpotChallenge(
            id=secrets.token_bytes(_ID_SIZE),
            manifest=manifest.digest,
            key=secrets.token_bytes(_KEY_SIZE),
            ranges=tuple(place for place, _ in drawn),
        )
        # What a verifier would not read back is found out before the owner hands it over.
        challenge = SpotChallenge.parse(made.encode())
        answer = read_answer(challenge, directory)
        entries.append(PoolEntry(SpotExpectation(challenge, answer.mac), tuple(tensor for _, tensor in drawn)))
        if progress is not None:
            progress(number + 1, count)
    return SpotPool(manifest.digest, manifest.name, tuple(entries))


def _tensors(manifest: Manifest) -> Iterator[_Region]:
    for file in manifest.files:
        for part in file.tensors:
            if part.size:
                yield _Region(file.path, part.name, part.offset, part.size)


def _files(manifest: Manifest) -> Iterator[_Region]:
    for file in manifest.files:
        if file.size:
            yield _Region(file.path, None, 0, file.size)
