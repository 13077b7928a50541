"""Follows a log from what it last saw of it: that it only grew, and what its new entries tell.

A look at the log, in this order; whatever fails, what is remembered stays as it was:

1. The checkpoint: signature, text, origin.
2. Against the one seen last: not another root for its size, not a smaller tree.
3. The new entries, and no old ones: each is hashed into the tree that is remembered. Its hash tiles are not read.
4. The root of that tree is the signed one. So the new tree begins with the old one, without a proof by anybody.
   Where it is not, tiles are asked what else the signed tree can be: a fork is told from damaged files.
5. What the leaves tell (:mod:`.chains`), now that they are known to be the log's.
6. The caller tells it, and then remembers it: what is told twice does less harm than what is told never.

Does not show that others are given the same checkpoints: that takes what others saw, or witnesses. Does not read
records: leaves commit to them. The very first look believes the log's key that this is its tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.proto import limits, merkle, tlog
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.ledger.chains import Chains, Event
from weighbridge.verifier.ledger.heads import ForkEvidence, Relation, nodes_at, relate
from weighbridge.verifier.ledger.published import CHECKPOINT, open_head
from weighbridge.verifier.ledger.watched import Watched
from weighbridge.verifier.record import Leaf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weighbridge.proto.note import NoteKey
    from weighbridge.verifier.ledger.source import Source

__all__ = ["Keep", "Look", "Monitor", "Reading"]

_CLAUSE: Final = "C2SP tlog-checkpoint@v1.0.0"


class Keep(Protocol):
    """Where evidence is kept."""

    def __call__(self, name: str, data: bytes) -> Path:
        """Put ``data`` under ``name``, durably."""
        ...


class Reading(Protocol):
    """Who wants to know how far the reading is."""

    def __call__(self, count: int, total: int) -> None:
        """``count`` more of ``total`` new entries have been read."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a log has come to; there is none of one that failed.

    Attributes:
        watched: what is to be remembered now.
        before: number of entries seen before.
        events: what a person should look at.
        unlisted: how many more of these there were.
        is_news: whether anything is to be remembered that was not before.
        first: whether nothing was remembered before: there was nothing to compare with.
    """

    watched: Watched
    before: int
    events: tuple[Event, ...]
    unlisted: int
    is_news: bool
    first: bool


@final
class Monitor:
    """One log under watch.

    Args:
        source: its files; untrusted.
        key: its key, trusted by the caller; the key's name is the log's origin.
        silence_ns: for how long nothing may come of a session that has begun and was not closed.
        stall_ns: for how long the log may stay as it is; ``None``: for ever.
        keep: where two heads that do not agree are kept.
        reading: who wants to know how far it is.
    """

    __slots__ = ("_keep", "_key", "_reading", "_silence_ns", "_source", "_stall_ns")

    def __init__(
        self,
        source: Source,
        key: NoteKey,
        *,
        silence_ns: int,
        stall_ns: int | None,
        keep: Keep,
        reading: Reading | None = None,
    ) -> None:
        self._source = source
        self._key = key
        self._silence_ns = silence_ns
        self._stall_ns = stall_ns
        self._keep = keep
        self._reading = reading

    def look(self, seen: Watched | None, *, now_ns: int) -> Look:
        """Look at the log once.

        Args:
            seen: what is remembered of it; ``None`` before the first look.
            now_ns: nanoseconds since 1970.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``, ``LEDGER_UNREACHABLE``.
            MalformedEvidence: a decoding code, for the checkpoint.
            NotAuthentic: ``LEDGER_SIGNATURE``.
            LedgerInconsistent: ``LEDGER_ORIGIN``, ``LEDGER_FORK``, ``LEDGER_ROLLBACK``; ``LEDGER_INCONSISTENT`` or
                ``LEDGER_MALFORMED`` where the entries are not those of the signed tree.
        """
        # 1.
        shown = self._checkpoint()
        # 2.
        if seen is not None:
            self._check_size(seen.checkpoint, shown)
        # 3.
        tree = merkle.CompactRange() if seen is None else seen.tree
        chains = Chains(self._silence_ns) if seen is None else seen.chains.copy()
        before = tree.size
        for entries in self._entries(before, shown.size):
            for number, entry in enumerate(entries, start=tree.size):
                _take(chains, number, entry)
            tree = tree.extend([merkle.leaf_hash(entry) for entry in entries])
            if self._reading is not None:
                self._reading(len(entries), shown.size - before)
        # 4.
        if tree.root != shown.root:
            raise self._another_root(None if seen is None else seen.checkpoint, shown, before)
        # 5.
        chains.settle(now_ns)
        grew_ns = now_ns if seen is None or shown.size > before else seen.grew_ns
        is_stalled = self._stall_ns is not None and now_ns - grew_ns > self._stall_ns
        events, unlisted = chains.drain()
        if is_stalled and (seen is None or not seen.stalled):
            text = f"it has not grown for {(now_ns - grew_ns) // 10**9} s"
            events = (*events, Event(kind="stalled", text=text, at_ns=chains.latest_ns))
        watched = Watched(shown, tree, chains, grew_ns, is_stalled)
        return Look(watched, before, events, unlisted, is_news=_is_news(seen, watched), first=seen is None)

    def _checkpoint(self) -> tlog.VerifiedCheckpoint:
        data = self._source.read(CHECKPOINT, limit=limits.CHECKPOINT_MAX)
        return open_head(data, self._key, origin=self._key.name, where=self._source.place(CHECKPOINT))

    def _check_size(self, seen: tlog.VerifiedCheckpoint, shown: tlog.VerifiedCheckpoint) -> None:
        """Refuse a head that contradicts the one seen last, or is older: an append-only log does neither."""
        if shown.size > seen.size or (shown.size, shown.root) == (seen.size, seen.root):
            return
        relation = relate(seen, shown, nodes=nodes_at(self._source, seen.size))
        if relation.word == "forked":
            raise self._forked(seen, shown, relation)
        what = "an earlier state of the same tree" if relation.word == "grown" else f"unknown: {relation.why}"
        raise LedgerInconsistent(
            Code.LEDGER_ROLLBACK, f"the head is older than the one seen before ({what})",
            where=self._source.place(CHECKPOINT),
            expected=f">= {seen.size}", got=shown.size, clause=_CLAUSE,
            hint="a cache may have answered; if it stays, the log was put back to an earlier state",
        )  # fmt: skip

    def _another_root(
        self, seen: tlog.VerifiedCheckpoint | None, shown: tlog.VerifiedCheckpoint, before: int
    ) -> LedgerInconsistent:
        """What it means that the tree seen before and the new entries do not lead to the signed root."""
        where = f"{self._source.place('tile/entries')}: entries {before} to {shown.size - 1}"
        if seen is None or seen.size == 0:
            return LedgerInconsistent(
                Code.LEDGER_INCONSISTENT, "the entries do not lead to the signed root", where=where, expected=shown.root
            )
        relation = relate(seen, shown, nodes=nodes_at(self._source, shown.size))
        if relation.word == "forked":
            return self._forked(seen, shown, relation)
        if relation.word == "grown":
            return LedgerInconsistent(
                Code.LEDGER_INCONSISTENT, "the entries are not those of the tree, which has only grown", where=where,
                hint="its files are damaged, or were altered: ask who serves them",
            )  # fmt: skip
        path = self._evidence("unshown", seen, shown, relation)
        return LedgerInconsistent(
            Code.LEDGER_INCONSISTENT, f"nothing shows that the log has only grown: {relation.why}", where=where,
            expected=shown.root, hint=f"both heads are kept in {path}",
        )  # fmt: skip

    def _forked(
        self, seen: tlog.VerifiedCheckpoint, shown: tlog.VerifiedCheckpoint, relation: Relation
    ) -> LedgerInconsistent:
        path = self._evidence("fork", seen, shown, relation)
        smaller = min(seen.size, shown.size)
        first = seen.root if seen.size == smaller else shown.root
        second = relation.root_there or (shown.root if first == seen.root else seen.root)
        return LedgerInconsistent(
            Code.LEDGER_FORK, f"the log has signed two histories: two trees of its first {smaller} entries",
            where=self._key.name, expected=first, got=second, clause=_CLAUSE,
            hint=f"both heads are kept in {path}: `weighbridge ledger compare` shows it to anybody",
        )  # fmt: skip

    def _evidence(
        self, what: str, seen: tlog.VerifiedCheckpoint, shown: tlog.VerifiedCheckpoint, relation: Relation
    ) -> Path:
        """Keep both notes. The same contradiction, seen again, is kept once."""
        evidence = ForkEvidence(seen.note, shown.note, relation.proof, relation.root_there).encode()
        name = sha256(b"".join(sorted((seen.root, shown.root)))).hex()[:16]
        return self._keep(f"{what}-{name}.json", evidence)

    def _entries(self, first: int, size: int) -> Iterator[tuple[bytes, ...]]:
        """Entries ``first`` to ``size``, a bundle at a time; untrusted."""
        at = first
        while at < size:
            number, skip = divmod(at, tlog.TILE_WIDTH)
            width = min(tlog.TILE_WIDTH, size - number * tlog.TILE_WIDTH)
            yield self._bundle(number, width)[skip:width]
            at = number * tlog.TILE_WIDTH + width

    def _bundle(self, number: int, width: int) -> tuple[bytes, ...]:
        for stored in dict.fromkeys((width, tlog.TILE_WIDTH)):
            # A partial bundle may go as soon as the full one is there, of which it is the beginning.
            path = tlog.entries_path(number, stored)
            try:
                data = self._source.read(path, limit=tlog.BUNDLE_MAX)
                if data is not None:
                    return tlog.parse_bundle(data, width=stored)
            except MalformedEvidence as error:
                raise LedgerInconsistent(
                    Code.LEDGER_MALFORMED, f"entry bundle is malformed: {error.message}",
                    where=self._source.place(path), expected=error.expected, got=error.got, clause="C2SP tlog-tiles",
                ) from error  # fmt: skip
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "entries are missing",
            where=self._source.place(tlog.entries_path(number, width)),
            clause="C2SP tlog-tiles",
        )


def _take(chains: Chains, index: int, entry: bytes) -> None:
    try:
        leaf = Leaf.parse(entry)
    except MalformedEvidence as error:
        chains.unreadable(index, f"{error.code.value}, {error.message}")
    else:
        chains.take(index, leaf)


def _is_news(seen: Watched | None, watched: Watched) -> bool:
    """Whether ``watched`` is worth writing: a look at a log that stands still mostly changes nothing."""
    return (
        seen is None
        or seen.checkpoint.note != watched.checkpoint.note
        or seen.stalled != watched.stalled
        or seen.chains.sessions != watched.chains.sessions
    )
