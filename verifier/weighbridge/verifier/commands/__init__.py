"""The subcommands of ``weighbridge``: one module each, called by the command line."""

from __future__ import annotations

__all__: list[str] = []
