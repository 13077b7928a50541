"""Values of options: numbers, sizes and places, read strictly."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.attester.spool_files import FILE_MAX
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.proto.hosts import host_port

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["pcr", "place", "positive", "seed", "spool"]

_UNITS: Final = {"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = strict.decimal(text, what="argument", limit=high)
        except MalformedEvidence as error:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, not {text!r}") from error
        if value < low:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, not {text!r}")
        return value

    return parse


positive: Final = _number(1, 2**53)
pcr: Final = _number(0, limits.PCRS_MAX - 1)
seed: Final = _number(0, 2**63 - 1)


def spool(text: str) -> int:
    """A number of bytes, at least one window of the largest size."""
    number, power = text, 0
    for unit, of_two in _UNITS.items():
        if text.endswith(unit):
            number, power = text.removesuffix(unit), of_two
            break
    try:
        value = strict.decimal(number, what="argument", limit=2**53) << power
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(f"must be a number of bytes, such as 20GiB, not {text!r}") from error
    if not FILE_MAX <= value <= 2**53:
        raise argparse.ArgumentTypeError(f"must be at least {FILE_MAX} bytes: one window of the largest size")
    return value


def place(text: str) -> str:
    """``HOST:PORT``, as it stands."""
    try:
        host_port(text, what="--verifier")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {error.got!r}") from error
    return text
