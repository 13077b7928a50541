"""What a log's leaves say of its sessions, as whoever reads nothing else sees it: chains, silence, policies, time.

Shows a session's missing windows, two windows of one number, and that it fell silent; and that another policy judges.
Does not show what any verdict was: leaves only commit to records. Neither can a leaf tell a refused enrolment from one
that was never used: a session counts from its first window on. All of it is the writer's word until its root is known
to be signed: whoever feeds leaves in looks at what came of them only afterwards.

Memory is bounded: at most :data:`SESSIONS_MAX` sessions are followed, those that were heard of last. As many that ended
are remembered for :data:`FORGET_NS`: that one of them is enrolled again later than that is not seen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final, Literal, final

from weighbridge.verifier.record import NO_DIGEST, Leaf

__all__ = [
    "EVENTS_MAX",
    "FORGET_NS",
    "MOVES_MAX",
    "POLICIES_MAX",
    "SESSIONS_MAX",
    "Chains",
    "Event",
    "EventKind",
    "Followed",
]

SESSIONS_MAX: Final = 200_000
POLICIES_MAX: Final = 4096
MOVES_MAX: Final = 1024
EVENTS_MAX: Final = 10_000
# A session from which nothing came for so long is not followed any more: held windows are delivered within days.
FORGET_NS: Final = 7 * 24 * 3600 * 10**9
# Judgements are entered in the order in which they are received, but for what a batch takes to gather.
_DISORDER_NS: Final = 5 * 10**9
_AHEAD_NS: Final = 60 * 10**9

EventKind = Literal[
    "gap",
    "broken",
    "twice",
    "unenrolled",
    "reused",
    "silent",
    "policy",
    "backdated",
    "postdated",
    "unreadable",
    "crowded",
    "stalled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a person should look at.

    Attributes:
        kind: ``gap``: windows are missing. ``broken``: a window names another predecessor than the one before it.
            ``twice``: two windows of one number. ``unenrolled``: a window of a session that was not enrolled here, or
            had ended. ``reused``: a session that is under way, or had ended, is enrolled again. ``silent``: neither
            window nor closing. ``policy``: another policy judges. ``backdated``, ``postdated``: a receipt time that
            cannot be. ``unreadable``: no leaf. ``crowded``: more sessions than are followed. ``stalled``: the log does
            not grow.
        text: for people, in a few words.
        index: of the entry, where it is one.
        session: 16 bytes, where it is about one.
        at_ns: receipt time of the entry, or of what was seen last; nanoseconds since 1970.
        expected: what should have been there.
        got: what was there.
    """

    kind: EventKind
    text: str
    index: int | None = None
    session: bytes | None = None
    at_ns: int | None = None
    expected: str | None = None
    got: str | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """A session: the number that its next window has, and what the last one was; all of it zero before the first.

    Attributes:
        seq: how many windows it has.
        window: H of the last one.
        policy: the one that judged last.
        at_ns: when it was heard of: receipt time of the last window, as it was entered first.
        silent: whether it was told that nothing comes.
    """

    seq: int
    window: bytes
    policy: bytes
    at_ns: int
    silent: bool


@final
@dataclass(slots=True)
class Chains:
    """The sessions of a log, the policies that judged in it, and how far its time has come.

    Attributes:
        sessions: those that have not ended, by identifier; the one that was heard of longest ago is the first.
        policies: digests of those that have judged, in the order of their first appearance.
        latest_ns: the latest receipt time since the last one that was told to be too early; 0 before the first.
        ended: receipt times of the closings of sessions, in their order: at most :data:`SESSIONS_MAX`.
        events: what was noticed since it was emptied: at most :data:`EVENTS_MAX`.
        unlisted: how many more there were.
    """

    silence_ns: int
    sessions: dict[bytes, Followed] = field(default_factory=dict)
    policies: dict[bytes, None] = field(default_factory=dict)
    latest_ns: int = 0
    ended: dict[bytes, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    unlisted: int = 0
    _moves: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)
    _crowded: int = 0

    @property
    def silent(self) -> int:
        """Of how many sessions it was told that nothing comes, and nothing has come since."""
        return sum(followed.silent for followed in self.sessions.values())

    def copy(self) -> Chains:
        """Another one that stands where this one does, with no events."""
        return Chains(self.silence_ns, dict(self.sessions), dict(self.policies), self.latest_ns, dict(self.ended))

    def take(self, index: int, leaf: Leaf) -> None:
        """Follow the log's next entry."""
        if leaf.received_ns < self.latest_ns - _DISORDER_NS:
            self._note(
                "backdated", f"received more than {_seconds(_DISORDER_NS)} before an entry in front of it", index, leaf,
                expected=f">= {self.latest_ns}", got=f"{leaf.received_ns}",
            )  # fmt: skip
            # From here on: one clock that was wrong once is told once.
            self.latest_ns = leaf.received_ns
        # The latest, not the one before: else a clock could creep back, entry by entry.
        self.latest_ns = max(self.latest_ns, leaf.received_ns)
        match leaf.kind:
            case "enrolment":
                self._enrolment(index, leaf)
            case "window":
                self._window(index, leaf)
            case "closing":
                self._closing(index, leaf)
            case "junk" | "clearing" | "baseline":
                pass

    def unreadable(self, index: int, why: str) -> None:
        """Follow an entry that is no leaf."""
        self._add(Event(kind="unreadable", text=f"the entry is no leaf that is known here: {why}", index=index))

    def settle(self, now_ns: int) -> None:
        """Look at the time, after all entries were taken: who fell silent, which policies changed, what came too early.

        Args:
            now_ns: nanoseconds since 1970, by the clock of whoever watches.
        """
        if self.latest_ns > now_ns + _AHEAD_NS:
            self._add(
                Event(
                    kind="postdated", text=f"received more than {_seconds(_AHEAD_NS)} in the future, by the clock here",
                    at_ns=self.latest_ns,
                    expected=f"<= {now_ns}", got=f"{self.latest_ns}",
                )
            )  # fmt: skip
        for session in [session for session, at_ns in self.ended.items() if now_ns - at_ns > FORGET_NS]:
            del self.ended[session]
        for session, followed in list(self.sessions.items()):
            quiet = now_ns - followed.at_ns
            if quiet > FORGET_NS:
                del self.sessions[session]
            elif followed.seq and not followed.silent and quiet > self.silence_ns:
                self.sessions[session] = replace(followed, silent=True)
                self._add(_silent(session, followed, quiet, index=None))
        for (before, after), sessions in self._moves.items():
            which = (
                "a policy that has not judged in this log before" if before == NO_DIGEST else "another policy judges"
            )
            text = f"{which}, in {sessions} session{'s' if sessions > 1 else ''}"
            expected = None if before == NO_DIGEST else before.hex()
            self._add(Event(kind="policy", text=text, expected=expected, got=after.hex(), at_ns=self.latest_ns))
        if self._crowded:
            self._add(
                Event(kind="crowded", text=f"{self._crowded} sessions are not followed any more: there are too many")
            )
        self._moves.clear()
        self._crowded = 0

    def drain(self) -> tuple[tuple[Event, ...], int]:
        """The events, and how many more there were; they are forgotten here."""
        told = tuple(self.events), self.unlisted
        self.events, self.unlisted = [], 0
        return told

    def _enrolment(self, index: int, leaf: Leaf) -> None:
        # A challenge is met once, whatever fails: no verifier enters two.
        if leaf.session in self.sessions:
            # Its windows still have to follow each other.
            self._note("reused", "a session that has not ended is enrolled again", index, leaf)
            return
        if self.ended.pop(leaf.session, None) is not None:
            self._note("reused", "a session that had ended is enrolled again", index, leaf)
        self._put(leaf.session, Followed(0, NO_DIGEST, NO_DIGEST, leaf.received_ns, silent=False))

    def _window(self, index: int, leaf: Leaf) -> None:
        if leaf.seq is None or leaf.window is None:
            self.unreadable(index, "a window without its number or digest")
            return
        known = self.sessions.get(leaf.session)
        if known is None:
            self._note(
                "unenrolled", f"window {leaf.seq} of a session that was not enrolled here, or had ended", index, leaf
            )
            known = Followed(leaf.seq, leaf.previous or NO_DIGEST, NO_DIGEST, leaf.received_ns, silent=False)
        elif known.seq and not known.silent and (quiet := leaf.received_ns - known.at_ns) > self.silence_ns:
            self._add(_silent(leaf.session, known, quiet, index=index))
            known = replace(known, silent=True)
        if leaf.seq < known.seq:
            self._again(index, leaf, known)
            return
        if leaf.seq > known.seq:
            missing = f"window {known.seq}" if leaf.seq == known.seq + 1 else f"windows {known.seq} to {leaf.seq - 1}"
            self._note(
                "gap", f"{missing} missing", index, leaf, expected=f"window {known.seq}", got=f"window {leaf.seq}"
            )
        elif (leaf.previous or NO_DIGEST) != known.window:
            self._note(
                "broken", f"window {leaf.seq} does not follow the one before it", index, leaf,
                expected=known.window.hex(), got=(leaf.previous or NO_DIGEST).hex(),
            )  # fmt: skip
        policy = self._policy(leaf, known)
        self._put(leaf.session, Followed(leaf.seq + 1, leaf.window, policy, leaf.received_ns, silent=False))

    def _again(self, index: int, leaf: Leaf, known: Followed) -> None:
        """A number that was there before: none is to be, and nothing was heard of the session by it.

        Neither is the last window itself once more: a verifier finishes what a loss of power cut off by what the ledger
        tells, and enters no window twice. Whoever does has two writers that do not know of each other.
        """
        self._note(
            "twice", f"another window {leaf.seq}, or an old one again", index, leaf,
            expected=f"window {known.seq}", got=f"window {leaf.seq}, {(leaf.window or NO_DIGEST).hex()}",
        )  # fmt: skip
        self.sessions[leaf.session] = known

    def _closing(self, index: int, leaf: Leaf) -> None:
        known = self.sessions.pop(leaf.session, None)
        self.ended.pop(leaf.session, None)
        self.ended[leaf.session] = leaf.received_ns
        if len(self.ended) > SESSIONS_MAX:
            del self.ended[next(iter(self.ended))]
        if known is None:
            self._note("unenrolled", "the closing of a session that was not enrolled here, or had ended", index, leaf)
        elif leaf.seq != known.seq:
            self._note(
                "gap", "the closing counts other windows than were entered", index, leaf,
                expected=f"{known.seq} windows", got=f"{leaf.seq} windows",
            )  # fmt: skip

    def _policy(self, leaf: Leaf, known: Followed) -> bytes:
        """The policy that judges the session from now on; where none judged, the one before."""
        if leaf.policy == NO_DIGEST:
            return known.policy
        is_new = leaf.policy not in self.policies
        if is_new and len(self.policies) < POLICIES_MAX:
            self.policies[leaf.policy] = None
        if known.policy not in {NO_DIGEST, leaf.policy}:
            self._move(known.policy, leaf.policy)
        elif is_new and len(self.policies) > 1:
            # The first of all is no change.
            self._move(NO_DIGEST, leaf.policy)
        return leaf.policy

    def _move(self, before: bytes, after: bytes) -> None:
        if len(self._moves) < MOVES_MAX or (before, after) in self._moves:
            self._moves[before, after] += 1
        else:
            self.unlisted += 1

    def _put(self, session: bytes, followed: Followed) -> None:
        """Follow ``session``, as the one that was heard of last; for one too many, the quietest is let go."""
        self.sessions.pop(session, None)
        self.sessions[session] = followed
        if len(self.sessions) > SESSIONS_MAX:
            del self.sessions[next(iter(self.sessions))]
            self._crowded += 1

    def _note(
        self,
        kind: EventKind,
        text: str,
        index: int,
        leaf: Leaf,
        *,
        expected: str | None = None,
        got: str | None = None,
    ) -> None:
        self._add(
            Event(
                kind=kind,
                text=text,
                index=index,
                session=leaf.session,
                at_ns=leaf.received_ns,
                expected=expected,
                got=got,
            )
        )

    def _add(self, event: Event) -> None:
        if len(self.events) < EVENTS_MAX:
            self.events.append(event)
        else:
            self.unlisted += 1


def _seconds(span_ns: int) -> str:
    return f"{span_ns // 10**9} s"


def _silent(session: bytes, followed: Followed, quiet_ns: int, *, index: int | None) -> Event:
    """Nothing came for ``quiet_ns``: up to entry ``index``, or up to now."""
    since = f"nothing for {_seconds(quiet_ns)} after window {followed.seq - 1}"
    return Event(
        kind="silent",
        text=since
        if index is not None
        else f"{since}, and no closing: it failed, was cut off, or is kept from the log",
        index=index,
        session=session,
        at_ns=followed.at_ns,
    )
