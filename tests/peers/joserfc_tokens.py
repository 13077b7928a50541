"""Verifies result tokens with the PyPI package ``joserfc``. Runs inside its environment, never in ours.

Usage: ``.peers/joserfc/bin/python -I tests/peers/joserfc_tokens.py`` with a JSON object on each line of standard input
(``token``, ``jwks``, ``audience``, ``at``, ``typ``), and one with ``claims`` or ``refused`` on standard output for
each.
"""

from __future__ import annotations

import importlib
import json
import sys
from datetime import datetime
from typing import Any


def _module(name: str) -> Any:  # noqa: ANN401 - somebody else's
    """Imported here and nowhere else: this file is checked where theirs are not installed."""
    return importlib.import_module(name)


def main() -> int:
    """Answer until there is nothing more to read."""
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"claims": _verify(**json.loads(line))}
        except Exception as error:  # noqa: BLE001 - whatever they raise is the answer
            answer = {"refused": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _verify(token: str, jwks: dict[str, Any], audience: str, at: str, typ: str) -> dict[str, Any]:
    jwt, keys = _module("joserfc.jwt"), _module("joserfc.jwk").KeySet.import_key_set(jwks)
    opened = jwt.decode(token, keys, algorithms=["ES256"])
    if opened.header.get("typ") != typ:
        raise ValueError("another typ")
    now = int(datetime.fromisoformat(at).timestamp())
    registry = jwt.JWTClaimsRegistry(
        now=now, aud={"essential": True, "value": audience}, exp={"essential": True}, iat={"essential": True}
    )
    registry.validate(opened.claims)
    return dict(opened.claims)


if __name__ == "__main__":
    raise SystemExit(main())
