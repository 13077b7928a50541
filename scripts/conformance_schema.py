"""Writes docs/conformance.schema.json, the JSON Schema of cases and answers, and what docs/conformance.md states.

.venv/bin/python scripts/conformance_schema.py            write them
.venv/bin/python scripts/conformance_schema.py --check    exit 1 if one is out of date
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path

from pydantic.json_schema import models_json_schema

from weighbridge.verifier.conformance.capabilities import CAPABILITIES
from weighbridge.verifier.conformance.steps import Answered, Case, Expected

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "docs" / "conformance.schema.json"
DOCUMENT = ROOT / "docs" / "conformance.md"
VECTORS = ROOT / "tests" / "vectors"
_CORPUS, _CAPABILITIES, _END = "<!-- corpus -->\n", "<!-- capabilities -->\n", "<!-- end -->\n"


def schema() -> str:
    """The JSON Schema (2020-12) of what drivers are given and answer."""
    _, found = models_json_schema([(model, "validation") for model in (Case, Answered, Expected)], title="Conformance")
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def document(text: str) -> str:
    """``text`` with what is stated of the corpus, and of what its cases require, between their marks."""
    digests = (VECTORS / "digests.txt").read_bytes()
    apart = len((VECTORS / "left-out.txt").read_text(encoding="utf-8").splitlines())
    count = len(digests.splitlines())
    row = f"| {count} | `{sha256(digests).hexdigest()}` | {apart} |"
    corpus = f"| cases | SHA-256 of the corpus | in no corpus |\n|---|---|---|\n{row}\n"
    rows = "".join(f"| `{name}` | {says} |\n" for name, says in CAPABILITIES.items())
    capabilities = f"| capability | is |\n|---|---|\n{rows}"
    return _between(_between(text, _CORPUS, corpus), _CAPABILITIES, capabilities)


def _between(text: str, begin: str, stated: str) -> str:
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(_END)
    return f"{before}{begin}{stated}{_END}{after}"


def main() -> int:
    """Writes or checks them. Returns the exit status."""
    wanted = {SCHEMA: schema(), DOCUMENT: document(DOCUMENT.read_text(encoding="utf-8"))}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if sys.argv[1:] != ["--check"]:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)}: is out of date; run scripts/conformance_schema.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
