"""Whether a verifier is ready: whether sessions can be judged here, and the judgements kept.

Not ready does not mean not alive: a process that drains, or whose disk is full, is to get no new streams, and is not to
be restarted for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import limits
from weighbridge.proto.errors import EnvironmentFault, LedgerInconsistent
from weighbridge.verifier.files import fault
from weighbridge.verifier.ledger.published import CHECKPOINT, no_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from weighbridge.verifier.ledger.source import Source
    from weighbridge.verifier.store import Store

__all__ = ["Readiness", "reachable_ledger", "writable_directory", "writable_store"]

_KEPT_S: Final = 2.0
_WAIT_S: Final = 5.0


@final
class Readiness:
    """Looks at what judgements need, now and then. Used in one event loop.

    Args:
        checks: by name, what raises ``EnvironmentFault`` where something is not as it must be; each in a thread.
    """

    def __init__(self, checks: Mapping[str, Callable[[], None]]) -> None:
        self._checks = checks
        self._state = "starting"
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="readiness")
        self._looking: asyncio.Future[tuple[str, ...]] | None = None
        self._found: tuple[float, tuple[str, ...]] | None = None

    def begin(self) -> None:
        """From now on it may be ready."""
        self._state = ""

    def drain(self) -> None:
        """From now on it is not ready any more."""
        self._state = "draining"

    async def reasons(self) -> tuple[str, ...]:
        """Why it is not ready; nothing: it is. At most two seconds old."""
        if self._state:
            return (self._state,)
        if self._found is not None and time.monotonic() - self._found[0] < _KEPT_S:
            return self._found[1]
        if self._looking is None:
            self._looking = asyncio.get_running_loop().run_in_executor(self._thread, self._look)
            self._looking.add_done_callback(self._looked)
        try:
            async with asyncio.timeout(_WAIT_S):
                return await asyncio.shield(self._looking)
        except TimeoutError:
            return ("no answer within seconds",)

    def close(self) -> None:
        """Wait for the look in progress."""
        self._thread.shutdown()

    def _looked(self, looking: asyncio.Future[tuple[str, ...]]) -> None:
        self._looking = None
        if not looking.cancelled() and looking.exception() is None:
            self._found = time.monotonic(), looking.result()

    def _look(self) -> tuple[str, ...]:
        found: list[str] = []
        for name, check in self._checks.items():
            try:
                check()
            except (EnvironmentFault, LedgerInconsistent) as error:
                # The code alone: whoever asks may be anybody, and paths are the operator's business.
                found.append(f"{name}: {error.code.value}")
        return tuple(found)


def writable_store(store: Store) -> Callable[[], None]:
    """Checks that a transaction can begin and end."""

    def check() -> None:
        with store.transaction():
            pass

    return check


def writable_directory(directory: Path) -> Callable[[], None]:
    """Checks that a file can be made, filled and synced beside those that count."""
    probe = directory / f".ready-{os.getpid()}"

    def check() -> None:
        try:
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, bytes(4096))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    probe.unlink()
        except OSError as error:
            raise fault(error, directory, "looking whether it can be written") from error

    return check


def reachable_ledger(source: Source) -> Callable[[], None]:
    """Checks that the ledger can be read where it lies. Whether it can be written, an append shows."""

    def check() -> None:
        if source.read(CHECKPOINT, limit=limits.CHECKPOINT_MAX) is None:
            raise no_ledger(source.place(CHECKPOINT))

    return check
