"""Two heads of one ledger: nobody can pretend a fork, and nobody can hide one from whoever has the tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.logs import KEY, ORIGIN, PRIVATE
from weighbridge.proto import limits, merkle, note, tlog
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.ledger.edge import Edge, grow
from weighbridge.verifier.ledger.heads import ForkEvidence, nodes_at, relate


@dataclass
class Tiles:
    """A log's files in memory."""

    files: dict[str, bytes]

    def read(self, path: str, *, limit: int) -> bytes | None:
        data = self.files.get(path)
        if data is not None and len(data) > limit:
            raise MalformedEvidence(Code.TOO_LARGE, "larger than a tile", where=path)
        return data

    def place(self, path: str) -> str:
        return path

    def close(self) -> None:
        """There is nothing to let go of."""


def head(leaves: list[bytes]) -> tlog.VerifiedCheckpoint:
    root = merkle.root([merkle.leaf_hash(leaf) for leaf in leaves])
    signed = note.sign(tlog.Checkpoint(ORIGIN, len(leaves), root).encode(), key=KEY, signer=PRIVATE.sign)
    return tlog.open_checkpoint(signed, KEY, origin=ORIGIN)


def tiles(leaves: list[bytes]) -> Tiles:
    return Tiles(grow(Edge(), leaves).files)


def entries(count: int, word: str = "entry") -> list[bytes]:
    return [f"{word} {number}".encode() for number in range(count)]


SIZES = st.sampled_from([1, 2, 3, 7, 8, 200, 255, 256, 257, 300, 512, 513, 700])


@settings(max_examples=30, deadline=None)
@given(sizes=st.tuples(SIZES, SIZES), at=st.integers(0, 699))
def test_growth_and_forks_of_any_size(sizes: tuple[int, int], at: int) -> None:
    earlier, later = sorted(sizes)
    whole = entries(later)
    nodes = nodes_at(tiles(whole), later)
    grown = relate(head(whole[:earlier]), head(whole), nodes=nodes)
    assert grown.word == ("same" if earlier == later else "grown")
    other = list(whole[:earlier])
    other[at % earlier] = b"another"
    for pair in ((head(other), head(whole)), (head(whole), head(other))):
        relation = relate(*pair, nodes=nodes)
        assert relation.word == "forked"
        evidence = ForkEvidence(pair[0].note, pair[1].note, relation.proof, relation.root_there)
        assert ForkEvidence.parse(evidence.encode()) == evidence
        assert evidence.relation(*pair).word == "forked"


WHOLE = entries(700)
FILES = tiles(WHOLE).files


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_tile_pretends_a_fork(data: st.DataObject) -> None:
    """Whatever is served in their place: an honest log has grown, or nobody knows."""
    files = dict(FILES)
    path = data.draw(st.sampled_from(sorted(path for path in files if "entries" not in path)))
    content = bytearray(files[path])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    files[path] = data.draw(st.sampled_from([bytes(content), bytes(content[:-1]), bytes(content) + b"x", files[path]]))
    earlier = data.draw(st.integers(1, 699))
    assert relate(head(WHOLE[:earlier]), head(WHOLE), nodes=nodes_at(Tiles(files), 700)).word in {"grown", "open"}


def test_an_empty_tree_is_the_beginning_of_any() -> None:
    assert relate(head([]), head(WHOLE), nodes=None).word == "grown"
    assert relate(head(WHOLE[:5]), head(WHOLE), nodes=None).word == "open"


def forked() -> tuple[tlog.VerifiedCheckpoint, tlog.VerifiedCheckpoint, ForkEvidence]:
    first, second = head(entries(5, "another")), head(WHOLE)
    relation = relate(first, second, nodes=nodes_at(Tiles(FILES), 700))
    return first, second, ForkEvidence(first.note, second.note, relation.proof, relation.root_there)


def test_evidence_that_shows_nothing() -> None:
    first, second, evidence = forked()
    root = evidence.root_there
    assert root is not None
    for changed in (
        replace(evidence, root_there=None),
        replace(evidence, root_there=bytes(limits.DIGEST_SIZE)),
        replace(evidence, proof=evidence.proof[:-1]),
        replace(evidence, proof=(*evidence.proof, root)),
    ):
        assert changed.relation(first, second).word == "open"


def test_evidence_of_growth_is_no_fork() -> None:
    first, second = head(WHOLE[:5]), head(WHOLE)
    relation = relate(first, second, nodes=nodes_at(Tiles(FILES), 700))
    evidence = ForkEvidence(second.note, first.note, relation.proof, relation.root_there)
    assert evidence.relation(second, first).word == "grown"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"proof": [', '"proof": [1, ', Code.FIELD_TYPE),
        ('"proof": [', '"proof": ["00", ', Code.FIELD_RANGE),
        ('"first"', '"another"', Code.LEDGER_MALFORMED),
        ("ledger-fork/v1", "ledger-fork/v2", Code.LEDGER_MALFORMED),
        ('"root_there": "', '"root_there": "x', Code.NOT_HEX),
        ("{", '{"more": 1, ', Code.LEDGER_MALFORMED),
    ],
)
def test_refused_evidence(old: str, new: str, code: Code) -> None:
    text = forked()[2].encode().decode()
    assert old in text
    with pytest.raises(MalformedEvidence) as refusal:
        ForkEvidence.parse(text.replace(old, new, 1).encode())
    assert refusal.value.code is code
