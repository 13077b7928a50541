"""Versions of drivers and VBIOS: ordered number by number, and what is none is not taken for a new one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy.values.gpu_versions import Minimum, VersionKind, at_least, is_version

KINDS: tuple[VersionKind, ...] = ("driver", "vbios")
NUMBERS = {
    "driver": st.lists(st.integers(0, 999_999), min_size=1, max_size=6),
    "vbios": st.lists(st.integers(0, 255), min_size=1, max_size=8),
}
kinds = st.sampled_from(KINDS)


def written(numbers: list[int], kind: VersionKind) -> str:
    return ".".join(str(number) if kind == "driver" else f"{number:02X}" for number in numbers)


def versions(count: int) -> st.SearchStrategy[tuple[VersionKind, list[list[int]]]]:
    return kinds.flatmap(lambda kind: st.tuples(st.just(kind), st.lists(NUMBERS[kind], min_size=count, max_size=count)))


@pytest.mark.parametrize(
    ("version", "minimum", "kind", "found"),
    [
        ("580.95.05", "580.95.05", "driver", "met"),
        ("580.95.5", "580.95.05", "driver", "met"),
        ("550.144.03", "550.54.15", "driver", "met"),
        ("550.54.15", "550.144.03", "driver", "below"),
        ("550", "550.0.0", "driver", "met"),
        ("550", "550.0.1", "driver", "below"),
        ("1000", "999.9", "driver", "met"),
        ("96.00.9F.00.01", "96.00.9f.00.01", "vbios", "met"),
        ("96.00.74.00.1A", "96.00.9F.00.01", "vbios", "below"),
        # Hexadecimal: as decimal numbers, 9F would be none, and 10 less than 9.
        ("10", "0A", "vbios", "met"),
        (None, "550", "driver", "unknown"),
        ("", "550", "driver", "unknown"),
        ("550.x", "550", "driver", "unknown"),
        ("550 ", "550", "driver", "unknown"),
        ("550\n", "550", "driver", "unknown"),
        ("-1", "0", "driver", "unknown"),
        ("+999", "550", "driver", "unknown"),
        ("9_9_9", "550", "driver", "unknown"),
        ("٩٩٩", "550", "driver", "unknown"),
        ("999.", "550", "driver", "unknown"),
        ("9" * 7, "550", "driver", "unknown"),
        ("9.9.9.9.9.9.9", "550", "driver", "unknown"),
        ("0x.ff", "00", "vbios", "unknown"),
        ("9", "00", "vbios", "unknown"),
        ("FF.FFF", "00", "vbios", "unknown"),
        (".".join(["FF"] * 9), "00", "vbios", "unknown"),
        ("580.95.05", "96", "vbios", "unknown"),
    ],
)
def test_which_is_older(version: str | None, minimum: str, kind: VersionKind, found: Minimum) -> None:
    assert at_least(version, minimum, kind) == found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("minimum", ["", "x", "550.", "96.0G", "96\n"])
def test_a_minimum_that_is_no_version_is_the_callers_fault(minimum: str, kind: VersionKind) -> None:
    for version in ("550", "96", None):
        with pytest.raises(ValueError, match="not a version"):
            at_least(version, minimum, kind)


@given(versions(2))
def test_the_order_is_that_of_the_numbers(made: tuple[VersionKind, list[list[int]]]) -> None:
    kind, (one, other) = made
    padded = [[*numbers, *[0] * (8 - len(numbers))] for numbers in (one, other)]
    assert all(is_version(written(numbers, kind), kind) for numbers in (one, other))
    expected = "met" if padded[0] >= padded[1] else "below"
    assert at_least(written(one, kind), written(other, kind), kind) == expected


@given(versions(3))
def test_it_is_a_total_order(made: tuple[VersionKind, list[list[int]]]) -> None:
    kind, numbers = made
    a, b, c = (written(each, kind) for each in numbers)
    assert at_least(a, a, kind) == "met"
    assert "met" in {at_least(a, b, kind), at_least(b, a, kind)}
    if at_least(a, b, kind) == "met" == at_least(b, c, kind):
        assert at_least(a, c, kind) == "met"


@given(versions(1), st.integers(1, 3))
def test_numbers_that_are_left_out_are_nought(made: tuple[VersionKind, list[list[int]]], more: int) -> None:
    kind, (numbers,) = made
    longer = written([*numbers, *[0] * more], kind)
    if is_version(longer, kind):
        for one, other in ((written(numbers, kind), longer), (longer, written(numbers, kind))):
            assert at_least(one, other, kind) == "met"


@given(kinds, st.text())
def test_any_text_is_a_version_or_unknown(kind: VersionKind, text: str) -> None:
    found = at_least(text, "00", kind)
    assert found == ("met" if is_version(text, kind) else "unknown")
