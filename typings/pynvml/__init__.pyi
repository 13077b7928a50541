"""Hand-written stub of `pynvml` (nvidia-ml-py): it carries no types, so everything is `Any` until written down here."""

from typing import Any

# The loaded library; set, it is what every call goes to.
nvmlLib: Any

class NVMLError(Exception):
    value: int

def __getattr__(name: str) -> Any: ...
