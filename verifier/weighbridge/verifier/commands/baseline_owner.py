"""``weighbridge baseline key | trust``: by whose word GPUs' baselines are believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands import owner_key
from weighbridge.verifier.commands.owner_key import Role

if TYPE_CHECKING:
    import argparse

__all__ = ["configure_key", "configure_trust"]

_ROLES: Final = (Role("--owner", "baseline-owner", "believe its baselines"),)


def configure_key(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``baseline key``."""
    owner_key.configure_key(
        parser, command="baseline", purpose="baseline-owner", signs="baselines", example="Acme Physics"
    )


def configure_trust(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``baseline trust``."""
    owner_key.configure_trust(parser, _ROLES, command="baseline")
