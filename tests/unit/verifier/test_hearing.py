"""Of a window on its way to a judgement: whether it is fresh, what is recorded of it, and what comes of its session."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from support.world import NOON
from weighbridge.proto.digest import sha256
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.hearing import Asked, Hearing, Judged, Sent
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from weighbridge.verifier.appraisal import Outcome, Verdict
    from weighbridge.verifier.live import Live

SESSION, WINDOW, SEQ = b"s" * 16, b"w" * 32, 1000
CHALLENGE = b"\x80" * 32
# The rest of a microsecond is nobody's.
PERIOD_NS: Final = 10_000_000_000
LATENESS_NS: Final = 1_000_000_700
ALLOWED: Final = timedelta(seconds=11)
TICK: Final = timedelta(microseconds=1)
# Carried on, and never looked at.
SPOT: Any = object()
HISTORY: Any = object()
TRACES: Any = (object(),)


def live() -> Live:
    """A session that waits for its window :data:`SEQ`, under :data:`CHALLENGE`, since noon."""
    made = SimpleNamespace(
        terms=SimpleNamespace(session=SESSION, period_ns=PERIOD_NS, lateness_ns=LATENESS_NS),
        issued=SimpleNamespace(
            digest=CHALLENGE, seq=SEQ, issued_ns=nanoseconds(NOON), ledger_root=b"l" * 32, random=b"r" * 32
        ),
        position=SimpleNamespace(window=b"p" * 32),
    )
    return cast("Live", made)


def hearing(after: timedelta = timedelta(0), *, challenge: bytes = CHALLENGE, seq: int = SEQ) -> Hearing:
    # Equal, and not the same: what is compared here came from two sides.
    header = SimpleNamespace(challenge=bytes(bytearray(challenge)), seq=int(str(seq)))
    window: Any = SimpleNamespace(header=header, digest=WINDOW)
    return Hearing(Sent(SESSION, b"evidence", b"peer"), NOON + after, live(), cast("Any", None), window, None)


@pytest.mark.parametrize("after", [timedelta(0), TICK, ALLOWED - TICK, ALLOWED])
def test_a_window_is_fresh_for_its_period_and_the_lateness_that_is_allowed(after: timedelta) -> None:
    assert not hearing(after).held


@pytest.mark.parametrize("after", [ALLOWED + TICK, timedelta(days=1)])
def test_a_window_that_comes_later_is_held(after: timedelta) -> None:
    assert hearing(after).held


@pytest.mark.parametrize(
    "changed", [{"challenge": bytes(32)}, {"challenge": b"\xff" * 32}, {"seq": SEQ - 1}, {"seq": SEQ + 1}]
)
def test_a_window_under_another_challenge_or_of_another_number_is_held(changed: dict[str, Any]) -> None:
    """A challenge serves one window: that of its number."""
    assert hearing(**changed).held


def verdict(**changes: object) -> Verdict:
    said = {
        "seq": SEQ, "held": False, "outcome": "affirmed", "opens": True, "decision": None, "reference": None,
        "collateral": None, "physical": None, "encode": lambda: b"verdict",
    }  # fmt: skip
    return cast("Verdict", SimpleNamespace(**{**said, **changes}))


def test_what_is_recorded_of_a_window_that_was_judged() -> None:
    it = hearing(timedelta(seconds=3))
    it.spot = SPOT
    decision, physical = SimpleNamespace(policy_digest=b"a" * 32), SimpleNamespace(history=HISTORY)
    made = it.record(verdict(decision=decision, physical=physical, reference=b"b" * 32, collateral=b"c" * 32))
    assert (made.kind, made.session, made.seq, made.held) == ("window", SESSION, SEQ, False)
    assert made.received_ns == nanoseconds(NOON) + 3_000_000_000
    assert made.preimage is not None
    assert (made.preimage.ledger_root, made.preimage.random) == (b"l" * 32, b"r" * 32)
    assert (made.window, made.evidence, made.previous) == (WINDOW, sha256(b"evidence"), b"p" * 32)
    assert (made.policy, made.reference, made.collateral) == (b"a" * 32, b"b" * 32, b"c" * 32)
    assert (made.verdict, made.spot, made.history) == (b"verdict", SPOT, HISTORY)


def test_what_is_recorded_of_a_window_that_no_policy_saw() -> None:
    """A held one reveals no challenge, which is not its own; what was not looked at has no digest."""
    made = hearing().record(verdict(held=True))
    assert (made.held, made.preimage) == (True, None)
    assert (made.policy, made.reference, made.collateral) == (NO_DIGEST, NO_DIGEST, NO_DIGEST)
    assert (made.spot, made.history) == (None, None)


def judged(outcome: Outcome = "affirmed", *, held: bool = False, refused: bool = False, unread: bool = False) -> Judged:
    """A judgement; ``refused`` by verification, or ``unread``: its samples were not looked at."""
    found = verdict(
        outcome="".join(outcome), held=held, opens=outcome == "affirmed", physical=None if unread else "the samples"
    )
    record: Any = SimpleNamespace(session=SESSION)
    asked = None if refused else Asked(TRACES, (), cast("Any", None))
    return Judged(
        live=live(), stood=cast("Any", None), peer=b"peer", verified=None if refused else cast("Any", "a window"),
        asked=asked, verdict=found, random=bytes(32), record=record, evidence=cast("Any", None), at=NOON,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("item", "goes_on", "shuts"),
    [
        (judged("affirmed"), True, False),
        (judged("held", held=True), True, False),
        (judged("indeterminate", held=True), True, False),
        (judged("indeterminate"), True, True),
        (judged("denied"), False, True),
        (judged("denied", held=True), False, True),
        (judged("denied", refused=True), False, True),
        (judged("denied", refused=True, held=True, unread=True), False, True),
        (judged("indeterminate", refused=True), False, True),
        (judged("indeterminate", unread=True), False, True),
    ],
    ids=lambda value: f"{value.verdict.outcome}" if isinstance(value, Judged) else "",
)
def test_a_session_goes_on_unless_it_is_denied_and_a_held_window_shuts_no_gate(
    item: Judged, *, goes_on: bool, shuts: bool
) -> None:
    assert (item.goes_on, item.shuts) == (goes_on, shuts)


def test_what_a_window_brings_is_told_to_those_behind_it() -> None:
    brought = judged()
    assert (brought.session, brought.traces) == (SESSION, TRACES)
    assert brought.beside == (SESSION, SEQ, TRACES)
    assert judged("denied", refused=True).traces == ()
