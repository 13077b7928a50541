"""Writes the corpus of cases as files, for any verifier: `weighbridge conformance export` runs this.

    .venv/bin/python scripts/conformance_corpus.py DIR             all cases, to DIR, which must not exist
    .venv/bin/python scripts/conformance_corpus.py DIR PREFIX…     those whose names begin so
    .venv/bin/python scripts/conformance_corpus.py DIR --state     all, and what tests/vectors states of them
    .venv/bin/python scripts/conformance_corpus.py DIR --ticks     with a dot on standard output for each case

What is stated are the digests of all cases (tests/vectors/digests.txt), and why the others cannot be told in steps
(tests/vectors/left-out.txt); a test holds every case to them.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from corpus.manifests import manifests  # noqa: E402 - tests are no package
from forge.portable import export  # noqa: E402
from weighbridge.verifier.conformance.corpus import DIGESTS, LEFT_OUT  # noqa: E402


def main() -> int:
    """Writes them. Returns the exit status."""
    flags = {word for word in sys.argv[1:] if word.startswith("--")}
    words = [word for word in sys.argv[1:] if word not in flags]
    if not words or flags - {"--state", "--ticks"} or ("--state" in flags and len(words) > 1):
        print(__doc__, file=sys.stderr)
        return 2
    directory, prefixes = Path(words[0]), tuple(words[1:])
    names = [name for name in manifests() if not prefixes or name.startswith(prefixes)]
    export(directory, names, (lambda: os.write(1, b".")) if "--ticks" in flags else (lambda: None))
    if "--state" in flags:
        for file in (DIGESTS, LEFT_OUT):
            shutil.copyfile(directory / file, ROOT / "tests" / "vectors" / file)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell has it
