"""The subcommands of ``weighbridge-attester``: one module each, with ``configure`` and ``run``."""

from __future__ import annotations

__all__: list[str] = []
