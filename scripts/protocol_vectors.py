"""Fills in the generated parts of docs/protocol.md (vectors, lists, sizes, codes); extracts docs/weighbridge.cddl.

Usage:
    protocol_vectors.py            write both files
    protocol_vectors.py --check    write nothing; exit 1 if either is not what would be written

A generated part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`. Everything outside these marks is written
by hand. The CDDL file is all ```cddl blocks of the document, in order.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

import protocol_tables as tables
from protocol_items import Vector, render, vectors
from protocol_judgement import judge

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "protocol.md"
CDDL: Final = ROOT / "docs" / "weighbridge.cddl"

_PART: Final = re.compile(r"<!-- begin (?P<name>[a-z0-9:-]+) -->\n(?P<body>.*?)<!-- end (?P=name) -->\n", re.DOTALL)
_CDDL_BLOCK: Final = re.compile(r"^```cddl\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CDDL_HEAD: Final = "; All CDDL (RFC 8610, RFC 9165) of docs/protocol.md, extracted by scripts/protocol_vectors.py.\n"


def parts() -> dict[str, str]:
    """Every generated part by its name."""
    made: dict[str, str] = {f"vector:{vector.name}": render(vector) for vector in vectors(judge())}
    return {
        **made,
        "list:labels": tables.labels(),
        "list:limits": tables.limits_table(),
        "list:codes": tables.codes(),
    }


def fill(document: str, made: dict[str, str]) -> str:
    """``document`` with its generated parts as they should be.

    Raises:
        ValueError: a part of the document is not generated any more, is there twice, or is missing.
    """
    seen: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        seen.append(name)
        if name not in made:
            raise ValueError(f"nothing generates the part {name}")
        return f"<!-- begin {name} -->\n{made[name]}<!-- end {name} -->\n"

    filled = _PART.sub(replaced, document)
    if sorted(seen) != sorted(made):
        raise ValueError(f"missing or repeated parts: {sorted(set(made) ^ set(seen)) or seen}")
    return filled


def cddl_of(document: str) -> str:
    """All CDDL of ``document`` as one file."""
    return "\n".join([_CDDL_HEAD, *_CDDL_BLOCK.findall(document)])


def read_vectors(document: str) -> dict[str, Vector]:
    """The vectors as they stand in ``document``: what a reader of it would take."""
    return {
        match["name"].removeprefix("vector:"): Vector.read(match["name"].removeprefix("vector:"), match["body"])
        for match in _PART.finditer(document)
        if match["name"].startswith("vector:")
    }


def main(arguments: list[str]) -> int:
    """Write or compare; returns the exit status."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    before = DOCUMENT.read_text(encoding="utf-8")
    after = fill(before, parts())
    schema = cddl_of(after)
    stale = [
        path for path, text in ((DOCUMENT, after), (CDDL, schema)) if not path.exists() or path.read_text() != text
    ]
    if arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run scripts/protocol_vectors.py")
        return 1 if stale else 0
    DOCUMENT.write_text(after, encoding="utf-8")
    CDDL.write_text(schema, encoding="utf-8")
    print(f"wrote {len(stale)} of 2 files")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
