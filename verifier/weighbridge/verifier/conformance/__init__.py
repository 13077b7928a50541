"""The corpus of what must be refused, and of what must be accepted, for any verifier: its files, its driver, its run.

:mod:`.steps` says what a case consists of, :mod:`.corpus` where it lies, :mod:`.replaying` how this verifier judges
it, and :mod:`.running` how any verifier is tested. ``docs/conformance.md`` has the contract in words.
"""

from __future__ import annotations

__all__: list[str] = []
