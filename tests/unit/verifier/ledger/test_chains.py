"""What a log's leaves tell of its sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.logs import POLICY, SECOND, START, Host, honest
from weighbridge.proto.digest import sha256
from weighbridge.verifier.ledger import chains as module
from weighbridge.verifier.ledger.chains import Chains, Event
from weighbridge.verifier.record import NO_DIGEST, Leaf

SILENCE = 300 * SECOND


def told(*entries: bytes, at: int | None = None, chains: Chains | None = None) -> list[Event]:
    """What is noticed of ``entries``; looked at, unless another time is given, when the last of them came."""
    followed = chains or Chains(SILENCE)
    for index, entry in enumerate(entries):
        followed.take(index, Leaf.parse(entry))
    followed.settle(followed.latest_ns if at is None else at)
    return list(followed.drain()[0])


def kinds(*entries: bytes, at: int | None = None) -> list[str]:
    return [event.kind for event in told(*entries, at=at)]


def test_honest_sessions_say_nothing() -> None:
    first, second = Host("first"), Host("second")
    mixed = [first.enrol(), second.enrol(), first.window(), second.window(), second.window(), first.window()]
    assert told(*mixed, first.close(), second.close()) == []


def test_a_closed_session_is_not_followed() -> None:
    chains = Chains(SILENCE)
    told(*honest(), chains=chains)
    assert (chains.sessions, list(chains.policies)) == ({}, [POLICY])


def test_the_last_window_once_more() -> None:
    """No loss of power leaves that; what follows is followed."""
    host = Host()
    entries = [host.enrol(), *host.windows(2)]
    (event,) = told(*entries, entries[-1], host.window(), host.close())
    assert (event.kind, event.index, event.expected) == ("twice", 3, "window 2")


def test_a_gap() -> None:
    host = Host()
    entries = [host.enrol(), *host.windows(5)]
    (event,) = told(*entries[:3], *entries[5:])
    assert (event.kind, event.text, event.index, event.session) == ("gap", "windows 2 to 3 missing", 3, host.session)
    assert (event.expected, event.got) == ("window 2", "window 4")
    (event,) = told(*entries[:3], *entries[4:])
    assert event.text == "window 2 missing"


def test_what_is_behind_a_gap_is_followed() -> None:
    host = Host()
    entries = [host.enrol(), *host.windows(5), host.close()]
    assert kinds(*entries[:3], *entries[5:]) == ["gap"]


def test_windows_cut_off_before_the_closing() -> None:
    entries = honest(windows=4)
    (event,) = told(*entries[:3], entries[-1])
    assert (event.kind, event.expected, event.got) == ("gap", "2 windows", "4 windows")


def test_a_chain_that_names_another_window() -> None:
    host = Host()
    entries = [host.enrol(), *host.windows(2)]
    host.previous = sha256(b"a window of nobody")
    (event,) = told(*entries, host.window())
    assert (event.kind, event.got) == ("broken", sha256(b"a window of nobody").hex())


def test_a_first_window_that_has_a_predecessor() -> None:
    host = Host()
    entry = host.enrol()
    host.previous = sha256(b"before the beginning")
    assert kinds(entry, host.window()) == ["broken"]


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_another_window_of_a_number(seq: int) -> None:
    host = Host()
    entries = [host.enrol(), *host.windows(3)]
    other = host.leaf("window", seq=seq, window=sha256(b"another"), previous=host.previous, policy=POLICY)
    assert kinds(*entries, other.encode()) == ["twice"]


def test_an_old_window_again() -> None:
    host = Host()
    entries = [host.enrol(), *host.windows(3)]
    assert kinds(*entries, entries[1])[-1] == "twice"


def test_a_session_is_not_heard_of_by_a_window_entered_again() -> None:
    """Silence cannot be put off by what was there before."""
    host = Host()
    entries = [host.enrol(), *host.windows(2)]
    last = Leaf.parse(entries[-1])
    again = [replace(last, received_ns=last.received_ns + turn * 200 * SECOND).encode() for turn in (1, 2, 3)]
    events = told(*entries, *again)
    assert [(event.kind, event.index) for event in events] == [
        ("twice", 3),
        ("silent", 4),
        ("twice", 4),
        ("twice", 5),
    ]
    host.at_ns = last.received_ns + 600 * SECOND
    assert [event.kind for event in told(*entries, *again, host.window(), host.window())][4:] == []


def test_a_session_that_is_enrolled_again() -> None:
    first, second = Host(), Host(at_ns=START + 60 * SECOND)
    entries = [first.enrol(), *first.windows(2), first.close(), second.enrol(), *second.windows(2), second.close()]
    (event,) = told(*entries)
    assert (event.kind, event.index, event.text) == ("reused", 4, "a session that had ended is enrolled again")
    third, fourth = Host(), Host()
    assert kinds(third.enrol(), fourth.enrol(), *third.windows(2), third.close()) == ["reused"]
    assert kinds(honest()[0], *honest()[1:3], honest()[0]) == ["backdated", "reused"]


def test_what_has_ended_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    chains, host = Chains(SILENCE), Host()
    told(*honest(), chains=chains)
    assert chains.copy().ended == chains.ended == {host.session: START + 30 * SECOND}
    told(at=START + 30 * SECOND + module.FORGET_NS, chains=chains)
    assert list(chains.ended) == [host.session]
    told(at=START + 31 * SECOND + module.FORGET_NS, chains=chains)
    assert chains.ended == {}
    monkeypatch.setattr(module, "SESSIONS_MAX", 2)
    told(*[entry for number in range(3) for entry in honest(f"session {number}")], chains=chains)
    assert list(chains.ended) == [Host(f"session {number}").session for number in (1, 2)]


def test_a_clock_that_creeps_back() -> None:
    """Each step is within what a batch takes to gather, and all of them are not."""
    entries = [Host(f"session {step}", at_ns=START - step * 5 * SECOND).enrol() for step in range(7)]
    assert [(event.kind, event.index) for event in told(*entries)] == [("backdated", step) for step in (2, 4, 6)]


@pytest.mark.parametrize(
    "entries",
    [
        lambda host: [host.window()],
        lambda host: [host.close()],
        lambda host: [host.enrol(), host.window(), host.close(), host.window()],
        lambda host: [host.enrol(), host.window(), host.close(), host.close()],
    ],
    ids=["window", "closing", "window after its closing", "closing twice"],
)
def test_sessions_that_were_not_enrolled_or_had_ended(entries: Callable[[Host], list[bytes]]) -> None:
    assert kinds(*entries(Host())) == ["unenrolled"]


def test_silence() -> None:
    host = Host()
    entries = [host.enrol(), *host.windows(2)]
    assert kinds(*entries, at=host.at_ns + SILENCE) == []
    (event,) = told(*entries, at=host.at_ns + SILENCE + SECOND)
    assert (event.kind, event.session, event.at_ns, event.index) == ("silent", host.session, host.at_ns, None)
    assert event.text.startswith("nothing for 301 s after window 1, and no closing")


def test_silence_is_told_once_and_again_after_windows() -> None:
    host, chains = Host(), Chains(SILENCE)
    told(host.enrol(), host.window(), chains=chains)
    assert [event.kind for event in told(at=host.at_ns + SILENCE + 1, chains=chains)] == ["silent"]
    assert told(at=host.at_ns + 2 * SILENCE, chains=chains) == []
    host.at_ns += 3 * SILENCE
    assert told(host.window(), chains=chains) == []
    assert [event.kind for event in told(at=host.at_ns + SILENCE + 1, chains=chains)] == ["silent"]


def test_silence_that_has_ended_before_anybody_looked() -> None:
    host = Host()
    entries = [host.enrol(), host.window()]
    host.at_ns += SILENCE
    (event,) = told(*entries, host.window())
    assert (event.kind, event.index, event.text) == ("silent", 2, "nothing for 310 s after window 0")


def test_sessions_that_never_began_and_those_that_closed_are_not_missed() -> None:
    host = Host("never began")
    assert told(host.enrol(), *honest(), at=START + 3600 * SECOND) == []


def test_a_session_is_forgotten_in_the_end() -> None:
    host, chains = Host(), Chains(SILENCE)
    told(host.enrol(), host.window(), Host("never began").enrol(), chains=chains)
    told(at=host.at_ns + module.FORGET_NS + 1, chains=chains)
    assert chains.sessions == {}


def test_another_policy() -> None:
    hosts = [Host(f"session {number}") for number in range(3)]
    before = [host.enrol() for host in hosts] + [host.window() for host in hosts]
    for host in hosts:
        host.policy = sha256(b"another policy")
    (event,) = told(*before, *[host.window() for host in hosts])
    assert (event.kind, event.text) == ("policy", "another policy judges, in 3 sessions")
    assert (event.expected, event.got) == (POLICY.hex(), sha256(b"another policy").hex())


def test_a_policy_that_was_never_there() -> None:
    new = Host("new", policy=sha256(b"another policy"), at_ns=START + 30 * SECOND)
    (event,) = told(*honest(), new.enrol(), new.window())
    assert (event.kind, event.expected, event.got) == ("policy", None, new.policy.hex())


def test_where_no_policy_judged_it_has_not_changed() -> None:
    host = Host()
    entries = [host.enrol(), host.window()]
    host.policy = NO_DIGEST
    entries.append(host.window())
    host.policy = POLICY
    assert told(*entries, host.window()) == []


def test_times_that_cannot_be() -> None:
    early, late = Host("early"), Host("late", at_ns=START + 3600 * SECOND)
    (event,) = told(late.enrol(), early.enrol())
    assert (event.kind, event.index) == ("backdated", 1)
    assert kinds(late.enrol(), at=START) == ["postdated"]
    # A batch takes its time to gather.
    assert told(Host("b", at_ns=START + 4 * SECOND).enrol(), early.enrol()) == []


def test_other_entries_are_nobodys() -> None:
    host = Host()
    assert told(*[host.leaf(kind).encode() for kind in ("junk", "clearing", "baseline")]) == []


def test_entries_that_are_no_leaves() -> None:
    chains, host = Chains(SILENCE), Host()
    chains.unreadable(7, "FIELD_MISSING")
    chains.take(8, host.leaf("window", window=sha256(b"a window without a number")))
    events, unlisted = chains.drain()
    assert ([(event.kind, event.index) for event in events], unlisted) == ([("unreadable", 7), ("unreadable", 8)], 0)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SESSIONS_MAX", "EVENTS_MAX", "POLICIES_MAX", "MOVES_MAX"):
        monkeypatch.setattr(module, name, 2)
    chains = Chains(SILENCE)
    hosts = [Host(f"session {number}", policy=sha256(b"%d" % number)) for number in range(4)]
    (event, *_) = told(*[host.enrol() for host in hosts], chains=chains)
    assert (event.kind, event.text[:10]) == ("crowded", "2 sessions")
    assert list(chains.sessions) == [host.session for host in hosts[2:]]
    for number in range(5):
        chains.unreadable(number, "why")
    assert (len(chains.events), chains.unlisted) == (2, 3)
    told(*[host.window() for host in hosts], chains=chains)
    assert len(chains.policies) == 2


def test_changes_of_policy_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOVES_MAX", 2)
    chains, host = Chains(SILENCE), Host()
    chains.take(0, Leaf.parse(host.enrol()))
    for number in range(5):
        host.policy = sha256(b"policy %d" % number)
        chains.take(number + 1, Leaf.parse(host.window()))
    chains.settle(host.at_ns)
    events, unlisted = chains.drain()
    assert ([event.kind for event in events], unlisted) == (["policy", "policy"], 2)


@given(
    order=st.lists(
        st.tuples(st.sampled_from(["enrolment", "window", "closing", "junk"]), st.integers(0, 4), st.integers(0, 2)),
        max_size=12,
    ),
    later=st.integers(0, 10**13),
)
def test_whatever_leaves_say_is_followed(order: list[tuple[str, int, int]], later: int) -> None:
    """No order of leaves stops whoever watches; and a copy goes its own way."""
    chains = Chains(SILENCE)
    for index, (kind, seq, which) in enumerate(order):
        host = Host(f"session {which}", at_ns=START + index)
        leaf = host.leaf(kind, seq=seq, window=sha256(b"%d" % seq))  # type: ignore[arg-type] # drawn from the kinds
        chains.take(index, leaf)
    before = dict(chains.sessions)
    chains.copy().settle(START + later)
    assert chains.sessions == before
