"""Hand-written stub of `tpm2_pytss` 3: it carries no types: all is `Any` until a name is written down here."""

from typing import Any

def __getattr__(name: str) -> Any: ...
