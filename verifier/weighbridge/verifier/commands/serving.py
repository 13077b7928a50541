"""The event loop of ``weighbridge serve``: everything that listens, and what signals do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvloop

from weighbridge.verifier.commands.listeners import over_http, over_metrics
from weighbridge.verifier.commands.workers import write_port
from weighbridge.verifier.ledger.places import Places
from weighbridge.verifier.observed import UNOBSERVED
from weighbridge.verifier.readiness import Readiness, reachable_ledger, writable_directory, writable_store
from weighbridge.verifier.service import Options, TlsFiles, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.commands.workers import Worker
    from weighbridge.verifier.core import Verifier
    from weighbridge.verifier.deployment import Deployment
    from weighbridge.verifier.metrics import Metrics
    from weighbridge.verifier.parties_watch import Parties
    from weighbridge.verifier.service import Listening
    from weighbridge.verifier.settings.model import Settings

__all__ = ["Serving", "run"]

# When Python looks for cycles: in its young objects after so many more, in older ones after so many looks before.
_COLLECT: Final = (10_000, 10, 10)


@dataclass(frozen=True, slots=True)
class Serving:
    """A verifier that is ready to serve, and by what it was made.

    Attributes:
        verifier: what judges.
        opened: its state.
        clock: by which it judges.
        settings: what it was told.
        parties: the relying parties.
        hangup: called on SIGHUP; ``None``: there is nothing to read again.
        worker: which of several processes this is; ``None``: the only one.
        metrics: what counts; ``None``: nobody reads it.
    """

    verifier: Verifier
    opened: Deployment
    clock: Clock
    settings: Settings
    parties: Parties
    hangup: Callable[[], None] | None
    worker: Worker | None
    metrics: Metrics | None

    @property
    def tls(self) -> TlsFiles:
        """The channel's files."""
        own, tls = self.settings.channel, self.opened.tls
        if own.certificate is not None and own.key is not None:
            tls = TlsFiles(key=own.key, certificate=own.certificate, client_ca=tls.client_ca)
        attesters = tuple(one.attester_ca for one in self.settings.judged() if one.attester_ca is not None)
        return tls.with_authorities(self.settings.relying_parties.ca, attesters)


def run(serving: Serving, *, note: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; the second of them ends the process at once.

    Args:
        serving: what serves.
        note: takes lines for the operator.

    Raises:
        EnvironmentFault: as :func:`.service.serve`, or ``FILE_UNWRITABLE`` for the port's file.
        MalformedEvidence: as there.
    """
    with _seldom_collected(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(serving, note))
    if serving.worker is not None:
        serving.worker.close()


@contextlib.contextmanager
def _seldom_collected() -> Generator[None]:
    """While the block lasts, cycles are looked for seldom, and never among what was there before.

    What windows leave behind is hardly ever part of one, and a look through everything takes 80 ms without a session.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    try:
        yield
    finally:
        # What was there before stays apart: the process ends, and would look through all of it once more for that.
        gc.set_threshold(*before)


async def _serve(serving: Serving, note: Callable[[str], None]) -> None:
    settings, opened = serving.settings, serving.opened
    stop, worker = asyncio.Event(), serving.worker
    _heed(serving, stop)
    listen, bearer = settings.serve.listen, settings.relying_parties.listen
    checks = {"store": writable_store(opened.store), "state": writable_directory(opened.directory)}
    places = Places.of(opened.directory)
    if places.address is not None:
        checks["ledger"] = reachable_ledger(places.source())
    readiness = Readiness(checks)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(readiness.close)
        identify = await stack.enter_async_context(
            over_http(
                verifier=serving.verifier,
                opened=opened,
                clock=serving.clock,
                settings=settings,
                tls=serving.tls,
                parties=serving.parties,
                readiness=readiness,
                note=note,
            )
        )

        measured = await stack.enter_async_context(
            over_metrics(
                serving.metrics,
                verifier=serving.verifier,
                opened=opened,
                settings=settings,
                tls=serving.tls,
                number=0 if worker is None else worker.number,
                note=note,
            )
        )

        def listening(bound: Listening) -> None:
            identify(bound)
            readiness.begin()
            if bearer is not None and bound.bearer is not None:
                note(f"listening for relying parties with tokens on {bearer.at(bound.bearer)}")

        def started(port: int) -> None:
            if worker is not None:
                # All of them listen there: the parent tells it, once.
                worker.listening()
                return
            note(f"listening on {listen.host}:{port}")
            if settings.serve.port_file is not None:
                write_port(settings.serve.port_file, port)

        options = Options(
            bounds=settings.service_limits(),
            bearer=None if bearer is None else (bearer.host, bearer.port),
            shared=settings.serve.workers > 1,
            listening=listening,
            draining=readiness.drain,
            observer=serving.metrics or UNOBSERVED,
            measured=measured,
        )
        await serve(
            serving.verifier,
            host=listen.host,
            port=listen.port if worker is None else worker.port,
            tls=serving.tls,
            started=started,
            stop=stop,
            parties=serving.parties,
            options=options,
        )


def _heed(serving: Serving, stop: asyncio.Event) -> None:
    """Do as signals say, and as the parent's end does."""
    loop = asyncio.get_running_loop()

    def ask(number: int) -> None:
        if not stop.is_set():
            stop.set()
            return
        # Who asks twice does not want to wait: what was not answered comes again.
        loop.remove_signal_handler(number)
        os.kill(os.getpid(), number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask, number)
    hangup = serving.hangup
    if serving.worker is not None:
        serving.worker.watch(stop.set)
        # The parent passes it on, whether there is something to read again or not.
        hangup = hangup or (lambda: None)
    if hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, hangup)
