"""Which engine evaluates policies, as arguments say it: ``regorus``, ``opa-go:DIR``, ``opa``, ``cross:…``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, final

if TYPE_CHECKING:
    from weighbridge.policy.engine import PolicyEngine
    from weighbridge.policy.engines.opa_binary import OpaBinaryEngine
    from weighbridge.policy.engines.opa_go import OpaGoEngine
    from weighbridge.policy.engines.regorus import RegorusEngine

__all__ = ["DEFAULT", "EngineChoice", "add_engine", "engine"]

Kind = Literal["regorus", "opa-go", "opa", "cross"]


@final
@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine by its name. Whether it is installed, :meth:`open` finds out.

    Attributes:
        kind: which engine.
        place: of ``opa-go`` the directory, of ``opa`` the program.
        both: of ``cross`` the two engines.
    """

    kind: Kind
    place: str = ""
    both: tuple[EngineChoice, ...] = ()

    def __str__(self) -> str:
        match self.kind:
            case "cross":
                return f"cross:{','.join(map(str, self.both))}"
            case "opa" if self.place == "opa":
                return "opa"
            case _:
                return f"{self.kind}:{self.place}" if self.place else self.kind

    def open(self) -> PolicyEngine:
        """The engine.

        Raises:
            EnvironmentFault: ``TOOL_MISSING``, ``COMMAND_FAILED``: it is not installed, or not as it should be.
        """
        if self.kind != "cross":
            return self.single()
        from weighbridge.policy.engines.cross_check import CrossCheck  # noqa: PLC0415 - as below

        first, second = self.both
        return CrossCheck(first.single(), second.single())

    def single(self) -> RegorusEngine | OpaGoEngine | OpaBinaryEngine:
        """The engine, which is not made of others.

        Raises:
            EnvironmentFault: as :meth:`open`.
            ValueError: it is.
        """
        # Heavy, and each only where it is asked for.
        match self.kind:
            case "opa-go":
                from weighbridge.policy.engines.opa_go import OpaGoEngine  # noqa: PLC0415

                return OpaGoEngine(Path(self.place))
            case "opa":
                from weighbridge.policy.engines.opa_binary import OpaBinaryEngine  # noqa: PLC0415

                return OpaBinaryEngine(self.place)
            case "regorus":
                from weighbridge.policy.engines.regorus import RegorusEngine  # noqa: PLC0415

                return RegorusEngine()
            case "cross":
                raise ValueError("an engine that is made of two")


DEFAULT: Final = EngineChoice("regorus")
_SPELT: Final = "regorus, opa-go:DIR, opa, opa:PROGRAM, or cross:ENGINE,ENGINE"


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add ``--engine`` to ``parser``."""
    parser.add_argument(
        "--engine",
        type=engine,
        default=DEFAULT,
        metavar="ENGINE",
        help="what evaluates the policy: regorus (default), opa-go:DIR (OPA's library), opa or opa:PROGRAM (installed) "
        "or cross:ENGINE,ENGINE: two that must agree (docs/policy-engines.md)",
    )


def engine(text: str) -> EngineChoice:
    """An engine by its name.

    Raises:
        ArgumentTypeError: there is none of this name, or its name lacks something.
    """
    if not text.startswith("cross:"):
        return _single(text)
    names = text.removeprefix("cross:").split(",")
    if len(names) != len({*names}) or len(names) != 2:  # noqa: PLR2004 - a pair
        raise argparse.ArgumentTypeError(f"{text!r} does not name two different engines: cross:regorus,opa-go:DIR")
    return EngineChoice("cross", both=tuple(map(_single, names)))


def _single(text: str) -> EngineChoice:
    kind, colon, place = text.partition(":")
    match kind:
        case "regorus" if not colon:
            return DEFAULT
        case "opa-go" if place:
            return EngineChoice("opa-go", place)
        case "opa" if place or not colon:
            return EngineChoice("opa", place or "opa")
        case _:
            raise argparse.ArgumentTypeError(f"{text!r} is no engine: {_SPELT}")
