"""What is said of tables that are not those of this version of Weighbridge."""

from __future__ import annotations

from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["foreign", "wrong_version"]


def wrong_version(where: str, found: int, expected: int) -> EnvironmentFault:
    """The tables are those of version ``found``."""
    return EnvironmentFault(
        Code.STATE_VERSION,
        "another version of Weighbridge made the state",
        where=where,
        expected=f"version {expected}",
        got=f"version {found}",
        hint="bring it forward, and keep a copy first: weighbridge store migrate STATE"
        if found < expected
        else "use the version of Weighbridge that made it, or a newer one",
    )


def foreign(where: str, message: str, hint: str) -> EnvironmentFault:
    """What is there is not this verifier's."""
    return EnvironmentFault(Code.STATE_FOREIGN, message, where=where, hint=hint)
