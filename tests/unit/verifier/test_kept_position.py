"""What is kept of where a session stands: of which windows it is made, when it is kept, what is too large."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast
from unittest import mock

import pytest

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.kept_position import KEPT_EVERY, Sources, decode, keep, prepare
from weighbridge.verifier.telemetry.state import TelemetryState

if TYPE_CHECKING:
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Position

SESSION: Final = bytes([7, *range(100, 115)])
MIB: Final = 1024 * 1024


def position(
    seq: int = 9, *, records: int = 1, listed: int | None = None, window: bytes | None = b"w" * 32
) -> Position:
    made = SimpleNamespace(
        seq=seq, window=window, held=2, held_since_ns=3, spot_seq=None, spot_owed=True, telemetry=TelemetryState(),
        log=SimpleNamespace(records=range(records)), runtime=None if listed is None else SimpleNamespace(count=listed),
    )  # fmt: skip
    return cast("Position", made)


def verified(
    *, records: int = 1, manifests: int = 0, listed: int | None = None, reports: bool = False
) -> VerifiedWindow:
    made = SimpleNamespace(
        log=SimpleNamespace(records=range(records)), manifests=dict.fromkeys(range(manifests)),
        runtime=None if listed is None else SimpleNamespace(count=listed), gpus=("a report",) if reports else None,
    )  # fmt: skip
    return cast("VerifiedWindow", made)


@pytest.mark.parametrize(
    ("window", "before", "grew"),
    [
        ({}, {}, False),
        ({"records": 2}, {}, True),
        ({"records": 2}, {"records": 2}, False),
        ({"records": 1}, {"records": 2}, False),
        ({"manifests": 1}, {}, True),
        ({"listed": 1}, {}, True),
        ({"listed": 0}, {}, False),
        ({"listed": 5}, {"listed": 5}, False),
        ({"listed": 6}, {"listed": 5}, True),
        ({"listed": 4}, {"listed": 5}, False),
        ({}, {"listed": 0}, False),
    ],
)
def test_windows_that_brought_something_are_sources(
    window: dict[str, Any], before: dict[str, Any], *, grew: bool
) -> None:
    """Log records, manifests or entries of the kernel's list: each by itself."""
    sources = Sources(last=10, reports=4, grew=(2, 4)).after(verified(**window), index=11, before=position(**before))
    assert sources == Sources(last=11, reports=4, grew=(2, 4, 11) if grew else (2, 4))


def test_the_last_reports_are_where_they_came() -> None:
    assert Sources().after(verified(reports=True), index=3, before=position()).reports == 3
    assert Sources(reports=3).after(verified(), index=4, before=position()).reports == 3


def test_no_more_sources_are_listed_than_tell_that_there_are_too_many() -> None:
    grown = verified(records=2)
    for listed, then in ((4095, 4096), (4096, 4097), (4097, 4097)):
        after = Sources(grew=tuple(range(listed))).after(grown, index=9000, before=position())
        assert len(after.grew) == then


def test_a_position_comes_back_as_it_was_kept() -> None:
    sources = Sources(last=8, reports=7, grew=(1, 2))
    data = keep(SESSION, position(9), sources)
    assert data is not None
    kept = decode(data)
    assert (kept.session, kept.seq, kept.window, kept.sources) == (SESSION, 9, b"w" * 32, sources)
    assert (kept.held, kept.held_since_ns, kept.spot_seq, kept.spot_owed) == (2, 3, None, True)
    with pytest.raises(MalformedEvidence) as refusal:
        decode(data[1:])
    assert refusal.value.code is Code.VERSION_UNSUPPORTED


def test_one_in_sixteen_is_kept_and_not_of_all_sessions_at_once() -> None:
    due = [seq for seq in range(1, 60) if keep(SESSION, position(seq), Sources()) is not None]
    assert due == [9, 25, 41, 57]
    other = bytes([8]) + SESSION[1:]
    assert [seq for seq in range(1, 30) if keep(other, position(seq), Sources()) is not None] == [8, 24]
    assert KEPT_EVERY == 16


def test_what_is_prepared_takes_nobody_time_in_a_turn() -> None:
    prepare()
    with mock.patch("weighbridge.verifier.kept_position.form_of", side_effect=AssertionError):
        assert keep(SESSION, position(9), Sources()) is not None


def test_before_its_first_window_nothing_is_kept_of_a_session() -> None:
    assert keep(SESSION, position(9, window=None), Sources()) is None


@pytest.mark.parametrize(
    ("integers", "grew", "size", "is_kept"),
    [
        (128 * 1024, 4096, None, True),
        (128 * 1024 + 1, 1, None, False),
        (1, 4097, None, False),
        (1, 1, MIB - 32, True),
        (1, 1, MIB - 31, False),
    ],
)
def test_what_is_larger_is_not_kept(integers: int, grew: int, size: int | None, *, is_kept: bool) -> None:
    """Numbers of its telemetry, sources, bytes: such a session is replayed whole."""
    sources = Sources(grew=tuple(range(grew)))
    with mock.patch("weighbridge.verifier.kept_position.kept.integers", return_value=integers):
        if size is None:
            assert (keep(SESSION, position(), sources) is not None) == is_kept
            return
        with mock.patch("weighbridge.verifier.kept_position.cbor.encode", return_value=bytes(size)):
            assert (keep(SESSION, position(), sources) is not None) == is_kept
