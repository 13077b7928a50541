"""Verifies receipts of consistency with the PyPI package ``scitt-cose``. Runs inside its environment, never in ours.

Usage: ``.peers/scitt-cose/bin/python -I tests/peers/scitt_cose_growth.py`` with a JSON object on each line of standard
input (``receipt``, ``old_root``, ``new_root``: hexadecimal; ``pem``: the key), and ``ok`` or ``refused`` with why on
standard output for each. Their command line verifies receipts of inclusion only; their functions verify this too, put
together here: the signature over the new root, and the proof from the old one to it.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def _module(name: str) -> Any:  # noqa: ANN401 - somebody else's
    """Imported here and nowhere else: this file is checked where theirs are not installed."""
    return importlib.import_module(name)


def main() -> int:
    """Answer until there is nothing more to read."""
    for line in sys.stdin:
        try:
            answer = f"ok: {_verify(**json.loads(line))}"
        except Exception as error:  # noqa: BLE001 - whatever they raise is the answer
            answer = f"refused: {type(error).__name__} {error}"
        sys.stdout.write(" ".join(answer.split()) + "\n")
    return 0


def _verify(receipt: str, old_root: str, new_root: str, pem: str) -> str:
    theirs = _module("scitt_cose.cose_sign1")
    message = theirs.verify_sign1(bytes.fromhex(receipt), public_key_pem=pem, detached_payload=bytes.fromhex(new_root))
    (proof,) = message.unprotected[396][-2]
    old, new, path = _module("cbor2").loads(proof)
    hashes = [value.hex() for value in path]
    if not _module("scitt_cose.merkle").verify_consistency(old_root, new_root, old, new, hashes):
        raise ValueError("not consistent")
    return f"{new} entries, which begin with all of the {old}"


if __name__ == "__main__":
    sys.exit(main())
