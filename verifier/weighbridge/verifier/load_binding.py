"""What ties the bytes that were loaded to the bytes that were measured, and when the log itself says that they differ.

Everything here is read from the measurement log, so it is the host's word like the log's every record: the kernel's
answer as the attester heard it, and the guard's digests as the attester compared them. Not proven: that code in the
guest loaded nothing past the guard, or that the kernel is the one it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy.engine import Denial
from weighbridge.proto import measurement_log
from weighbridge.proto.errors import Code, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.measurement_log import Handed, Loaded
    from weighbridge.verifier.weights import LogState

__all__ = ["Binding", "binding", "mismatches"]

Binding = Literal["none", "fs-verity", "dm-verity", "guarded"]

# What is told of one window, however much there is to tell.
_DENIALS_MAX: Final = 16
_TEXT_MAX: Final = 256
_REASONS: Final = {
    "mismatch": "the loader was about to hand over something else than was measured",
    "changed": "the loader found the file changed since it was measured",
}


def binding(model: Loaded, manifest: Manifest | None) -> Binding:
    """What bound the files of ``model`` between measuring and loading: the kernel first, else a guard, else nothing.

    Args:
        model: as the log says.
        manifest: its manifest; ``None`` when it did not come, so that nothing is known of its files.
    """
    if model.protection != "none":
        return model.protection
    return "guarded" if manifest is not None and measurement_log.guarded(model, manifest) else "none"


def mismatches(log: LogState, window: int | None) -> tuple[Denial, ...]:
    """A denial for each file of which a guard says that it is not what was measured, as long as its model is loaded.

    In a window also for a model that was unloaded since the last one.

    Args:
        log: replayed to the quoted register.
        window: the window's number; ``None`` at enrolment.
    """
    found = {item.recnum: item for item in _refused(log.models)}
    if window is not None:
        found |= {item.recnum: item for item in log.refused}
    items = [found[number] for number in sorted(found)]
    denials = [_denial(item, window) for item in items[:_DENIALS_MAX]]
    if more := len(items) - len(denials):
        denials.append(
            Denial(
                code=Code.LOAD_MISMATCH,
                message=f"the loader refused {more} more files",
                window=window,
                device=None,
                expected=None,
                got=None,
                hint=None,
            )
        )
    return tuple(denials)


def _refused(models: Iterable[Loaded]) -> Iterable[Handed]:
    return (item for model in models for item in model.handed if item.event.outcome != "match")


def _denial(item: Handed, window: int | None) -> Denial:
    event = item.event
    place = shorten(f"{event.path}, {event.detail}", _TEXT_MAX)
    return Denial(
        code=Code.LOAD_MISMATCH,
        message=f"{_REASONS[event.outcome]}: {place} (log record {item.recnum}, loaded by record {event.load})",
        window=window,
        device=None,
        expected="match",
        got=event.outcome,
        hint="let nothing write to the model's directory while it is loaded; unload the model, and load it again",
    )
