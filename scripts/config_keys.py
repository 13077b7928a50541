#!/usr/bin/env python3
"""Writes the table of keys in docs/configuration.md: what `weighbridge config keys` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from weighbridge.verifier.settings.describe import markdown

FILE: Final = Path(__file__).parent.parent / "docs" / "configuration.md"
BEGIN: Final = "<!-- begin keys -->\n"
END: Final = "<!-- end keys -->"


def main() -> None:
    """Rewrite what stands between the two marks."""
    before, _, rest = FILE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    FILE.write_text(f"{before}{BEGIN}{markdown()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
