"""Processes whose coverage is not asked for: they do again what others have shown, and for much longer."""

from __future__ import annotations

import os

__all__ = ["untraced"]


def untraced() -> dict[str, str]:
    """This process's environment, without what has a process that is started count the lines it runs.

    Traced, a demonstration or a benchmark takes half as long again, and a benchmark's figures are the tracer's.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS_")}
