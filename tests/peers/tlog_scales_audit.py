"""Audits a ledger with the PyPI package ``tlog-scales``. Runs inside its environment, never in ours.

Usage: ``.peers/tlog/bin/python -I tests/peers/tlog_scales_audit.py`` with a JSON object on each line of standard input
(``key``: the vkey; ``directory``; ``kept``: a checkpoint from before, or null), and one line on standard output for
each: ``ok`` and what was shown, or ``refused`` and why. What is called is theirs; which of it, and that the origin is
the key's name, is said here, since their command line verifies no signature.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def _module(name: str) -> Any:  # noqa: ANN401 - somebody else's
    """Imported here and nowhere else: this file is checked where theirs are not installed."""
    return importlib.import_module(f"tlog_scales.{name}")


def main() -> int:
    """Answer until there is nothing more to read."""
    for line in sys.stdin:
        try:
            answer = f"ok: {_audit(**json.loads(line))}"
        except Exception as error:  # noqa: BLE001 - whatever they raise is the answer
            answer = f"refused: {type(error).__name__} {error}"
        sys.stdout.write(" ".join(answer.split()) + "\n")
        sys.stdout.flush()
    return 0


def _audit(key: str, directory: str, kept: str | None) -> str:
    trusted = _module("signing").Vkey.from_string(key)
    reader = _module("reader").TilesReader(_module("backend").make_backend(directory))
    head = _verified(reader.get_checkpoint(), trusted)
    leaf_hash = _module("tiles").leaf_hash
    for index in range(head.size):
        reader.get_inclusion_proof(index, head.size).check(leaf_hash(reader.get_entry(index)), head.root_hash)
    if reader.calculate_root_hash() != head.root_hash:
        raise ValueError("tiles have another root")
    if kept is None:
        return f"{head.size} entries of {head.origin}"
    old = _verified(_module("tlog").Checkpoint.from_text(Path(kept).read_text(encoding="utf-8")), trusted)
    reader.get_consistency_proof(old.size, head.size).check(old.root_hash, head.root_hash)
    return f"{head.size} entries of {head.origin}, which begin with all of the {old.size}"


def _verified(checkpoint: Any, trusted: Any) -> Any:  # noqa: ANN401 - theirs
    checkpoint.verify(trusted)
    if checkpoint.origin != trusted.name:
        raise ValueError(f"not a checkpoint of {trusted.name}")
    return checkpoint


if __name__ == "__main__":
    sys.exit(main())
