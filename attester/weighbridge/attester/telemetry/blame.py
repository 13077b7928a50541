"""Where code of a plug-in is called: whatever it raises is said of the plug-in, and is no defect of this package."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["BROKEN", "blamed"]

BROKEN: Final = "the plug-in is broken"
_TEXT_MAX: Final = 200


@contextmanager
def blamed(plugin: str, *, hint: str) -> Generator[None]:
    """Have an error of the code inside name ``plugin``. What a plug-in refuses by our own errors stays as it is.

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE``: it raised anything else, or wanted to end the process.
    """
    try:
        yield
    except WeighbridgeError:
        raise
    except (Exception, SystemExit) as error:
        # Not ours to know what others' code raises; an exit of its would be an exit status of ours, and may be 0.
        first = str(error).strip().split("\n", 1)[0]
        text = f"{type(error).__name__}: {first}" if first else type(error).__name__
        text = text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"
        raise EnvironmentFault(
            Code.TELEMETRY_SOURCE, f"{BROKEN}: {text}", where=f"--telemetry {plugin}", hint=hint
        ) from error
