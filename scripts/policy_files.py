"""Writes what is made from the types of a policy's documents: JSON Schemas, OPA's capabilities, the input's reference.

Usage:
    policy_files.py            write them
    policy_files.py --check    write nothing; exit 1 if one is stale
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from weighbridge.policy.authoring.editor import generated
from weighbridge.policy.authoring.reference_docs import markdown

ROOT: Final = Path(__file__).resolve().parent.parent
REGO: Final = ROOT / "policy" / "weighbridge" / "policy" / "rego"


def files() -> dict[Path, bytes]:
    """Every file with what belongs into it."""
    made = {REGO / name: data for name, data in generated().items()}
    return {**made, ROOT / "docs" / "policy-input.md": markdown().encode()}


def stale() -> list[Path]:
    """Those that hold something else."""
    return [path for path, data in files().items() if not path.exists() or path.read_bytes() != data]


def main(arguments: list[str]) -> int:
    """Write or compare; returns the exit status."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    old = stale()
    for path in old:
        print(path.relative_to(ROOT))
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files()[path])
    return 1 if arguments and old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
