"""What would change is told by reason, counted by rule, and adds up in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy.authoring.comparison import Change, Key, Reason, Sample, Standing, Tally, Word, compare

WORDS: st.SearchStrategy[Word] = st.sampled_from(["affirmed", "held", "denied"])
REASONS = st.frozensets(st.builds(Reason, st.sampled_from("ABC"), st.none() | st.sampled_from(["gpu"])))
STANDINGS = st.builds(Standing, WORDS, REASONS)
RULES = {Reason("A", None): (("new.rego:7 deny", "it is A"), ("new.rego:9 deny", "it is A, too"))}


def standing(word: Word, *codes: str) -> Standing:
    return Standing(word, frozenset(Reason(code, None) for code in codes))


def sample(seq: int, session: str = "s") -> Sample:
    return Sample(f"2026-06-01T12:00:{seq:02}Z", session, seq, "")


def test_admitted_is_admitted() -> None:
    assert compare(standing("affirmed"), standing("affirmed")) is None
    assert compare(standing("held", "WINDOW_HELD"), standing("held", "WINDOW_HELD", "MORE")) is None


def test_what_comes_and_what_goes_is_told() -> None:
    change = compare(standing("denied", "A", "B"), standing("denied", "C", "B"))
    assert change == Change("denied", "denied", came=(Reason("C", None),), went=(Reason("A", None),))
    change = compare(standing("affirmed"), standing("denied", "B", "A"))
    assert change is not None
    assert change == Change("affirmed", "denied", came=(Reason("A", None), Reason("B", None)), went=())
    assert change.title == "affirmed -> denied"


def test_another_wording_is_no_other_reason_and_another_device_is_one() -> None:
    said = Standing("denied", frozenset([Reason("A", None, "so")]))
    assert compare(said, Standing("denied", frozenset([Reason("A", None, "otherwise")]))) is None
    assert compare(said, Standing("denied", frozenset([Reason("A", "gpu", "so")]))) is not None


@given(STANDINGS, STANDINGS)
def test_nothing_changes_only_where_nothing_is_different(before: Standing, after: Standing) -> None:
    change = compare(before, after)
    back = compare(after, before)
    assert (change is None) == (back is None)
    if change is None:
        assert before.word == after.word
    else:
        assert set(change.came) == after.reasons - before.reasons
        assert back == Change(change.after, change.before, came=change.went, went=change.came)


def test_a_window_is_counted_once_for_each_rule() -> None:
    tally = Tally(windows=4, before_any_policy=1)
    change = compare(standing("affirmed"), standing("denied", "A", "B"))
    assert change is not None
    for seq in (1, 0):
        tally.add(change, sample=sample(seq), rules=RULES)
    assert (tally.changes, tally.same, tally.changed) == (2, 1, {"affirmed -> denied": 2})
    assert {(key.code, key.rule): row.windows for key, row in tally.rows.items()} == {
        ("A", "new.rego:7 deny"): 2,
        ("A", "new.rego:9 deny"): 2,
        ("B", ""): 2,
    }
    row = tally.rows[Key("affirmed -> denied", "came", "A", "new.rego:9 deny")]
    assert [(item.seq, item.message) for item in row.samples] == [(0, "it is A, too"), (1, "it is A, too")]


def test_a_change_without_a_reason_is_counted_too() -> None:
    tally = Tally(windows=1)
    tally.add(Change("denied", "affirmed", came=(), went=()), sample=sample(0), rules={})
    assert list(tally.rows) == [Key("denied -> affirmed", "came", "", "")]


@given(st.lists(st.tuples(STANDINGS, STANDINGS, st.integers(0, 59)), max_size=12), st.integers(0, 3), st.randoms())
def test_parts_add_up_in_any_order(given: list[tuple[Standing, Standing, int]], samples: int, random: object) -> None:
    parts: list[Tally] = []
    for number, (before, after, seq) in enumerate(given):
        part = Tally(samples, windows=1)
        change = compare(before, after)
        if change is not None:
            part.add(change, sample=sample(seq, f"s{number}"), rules=RULES)
        parts.append(part)
    straight, shuffled = Tally(samples), Tally(samples)
    for part in parts:
        straight.merge(part)
    random.shuffle(parts)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    for part in parts:
        shuffled.merge(part)
    assert straight == shuffled
    assert all(len(row.samples) <= samples for row in straight.rows.values())
    assert straight.windows == straight.same + straight.changes
