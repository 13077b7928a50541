"""One session of a host, from hardware to the wire: the state machine that the command line runs.

States, and what is durable in each::

    starting    keys; the measurement log of the boot, with this start in it; spools of earlier sessions
    delivering  each earlier session's windows go to the verifier; it ends there as interrupted (:mod:`.earlier`)
    loading     the inference server is launched or awaited; what it loads is measured, logged, extended
    enrolled    signed terms and the first challenge are in a new spool
    running     every period: cut, seal, spool, send; header before signature, window before sending
    ending      last window, unload record, closed at the verifier; the spool goes when it is empty

An illegal order raises ``RuntimeError``. An :class:`~weighbridge.proto.errors.EnvironmentFault` ends the process with
everything sealed in the spool; the next start delivers it and enrols anew. A disk that is full does not: what cannot be
written is not sealed, and that is said.

Decisions that are not obvious:

* The server loads *before* enrolment: loading can take minutes, and the first challenge would be stale after it.
* The last window is sealed before the model's unloading is logged: in the interval that it covers the model was loaded.
* A window whose answer is outstanding at the next boundary delays sealing (never cutting) by at most half a period:
  under the fresh challenge it opens a gate, under the old one it would be held.
* When the spool is full nothing is sealed, since a chain cannot leave out a window: the next one says by its interval
  what is missing, and the loss is reported here.
* Without a session nothing can be sealed: between a restart and the next enrolment nothing is. That is reported, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from weighbridge.attester.answering import Answering
from weighbridge.attester.courier import Backoff, Courier
from weighbridge.attester.earlier import EarlierSessions
from weighbridge.attester.enrolling import Enrolment, Identity, Prover, enrol
from weighbridge.attester.inference import InferenceServer, Launch
from weighbridge.attester.reaching import Reaching
from weighbridge.attester.report import Notice, SessionSummary
from weighbridge.attester.spool import Spools
from weighbridge.attester.spot import ModelDirectories, SpotReader
from weighbridge.attester.starting import open_log
from weighbridge.attester.token_file import TokenFile
from weighbridge.attester.waiting import cancel, first_of
from weighbridge.attester.windows import WindowLoop, WindowParts
from weighbridge.attester.workload.server import WorkloadServer
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.measurement_log import ModelLoad, ModelUnload

if TYPE_CHECKING:
    from weighbridge.attester.client import Line, Transport
    from weighbridge.attester.configuration import Devices, SessionConfig, Surroundings
    from weighbridge.attester.report import NoticeKind, Observer
    from weighbridge.attester.spool import Spool
    from weighbridge.attester.trust import TrustedVerifiers
    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.proto.manifest import Manifest

__all__ = ["AttesterSession"]

_SECOND_NS: Final = 1_000_000_000
# How long the end of a session waits for the answers that are still out.
_DRAIN_NS: Final = 30 * _SECOND_NS


class AttesterSession:
    """Runs one session to its end. Made once, run once, in one event loop.

    Args:
        config: what is asked.
        devices: the hardware.
        transport: lines to the verifier.
        trusted: whose terms are accepted.
        surroundings: time, chance, threads.
        observer: told what happens.
    """

    def __init__(
        self,
        config: SessionConfig,
        devices: Devices,
        transport: Transport,
        *,
        trusted: TrustedVerifiers,
        surroundings: Surroundings,
        observer: Observer,
    ) -> None:
        self._config = config
        self._devices = devices
        self._transport = transport
        self._trusted = trusted
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._offload = surroundings.offload
        self._observer = observer
        self._token = TokenFile(config.state / "token", surroundings.clock)
        self._stop = asyncio.Event()
        self._loaded = asyncio.Event()
        self._answering = Answering(self._token, self._offload, observer)
        self._directories = ModelDirectories(config.state / "model-directories")
        self._started = False
        self._reaching = Reaching(
            clock=surroundings.clock,
            rng=surroundings.rng,
            patient=config.patient,
            stop=self._stop,
            tell=lambda fault: self._notice("waiting", f"{fault}; nothing is sealed until there is a session"),
            backoff=surroundings.backoff,
        )

    def stop(self) -> None:
        """End the session in good order at once: last window, unload, close. May be called from a signal handler."""
        self._stop.set()

    async def run(self) -> SessionSummary:
        """Run the session until its command ends, its number of windows is reached, or :meth:`stop`.

        Raises:
            PolicyDenied: a window was denied, or enrolment was.
            WeighbridgeError: see the module's docstring; everything sealed is in the spool.
            RuntimeError: it has been run already.
        """
        if self._started:
            raise RuntimeError("a session runs once")
        self._started = True
        await self._offload(self._token.remove)
        spools = await self._offload(self._open_spools)
        log = await self._offload(self._open_log)
        try:
            workload = WorkloadServer(
                self._config.state / "workload.sock",
                log,
                declared=self._config.declared,
                on_load=self._on_load,
                on_measured=self._directories.remember,
            )
            async with workload:
                earlier = EarlierSessions(
                    spools,
                    courier=lambda spool: self._courier(spool, None),
                    offload=self._offload,
                    reaching=self._reaching,
                    notice=self._notice,
                )
                await self._deliver_earlier(earlier)
                first = len(log.records())
                server = await self._launch()
                try:
                    return await self._serve(earlier, log, workload, server, first)
                finally:
                    if server is not None:
                        await self._stop_server(server, log, first)
        finally:
            log.close()

    # -- starting, delivering, loading ---------------------------------------------------------------------------------

    def _open_spools(self) -> Spools:
        config = self._config
        return Spools(config.state / "spool", max_bytes=config.spool_bytes, storage=self._surroundings.storage)

    def _open_log(self) -> MeasurementLog:
        return open_log(self._config, self._devices, notice=lambda message: self._notice("boot-logs", message))

    async def _deliver_earlier(self, earlier: EarlierSessions) -> None:
        """Deliver what earlier runs left. A verifier that cannot be reached ends this run: nothing could be opened."""
        await earlier.deliver()
        # Before a server is launched that may load for minutes.
        line = await self._reaching(self._transport.connect)
        await line.disconnect()

    async def _launch(self) -> InferenceServer | None:
        config = self._config
        if not config.command:
            return None
        return await InferenceServer.launch(
            Launch(
                command=config.command,
                workload=config.state / "workload.sock",
                serving=config.serving,
                port_file=config.port_file,
            )
        )

    def _on_load(self, manifest: Manifest) -> None:
        self._notice("loaded", f"model {manifest.name}, manifest {manifest.digest.hex()}")
        self._loaded.set()

    async def _wait_loaded(self, server: InferenceServer | None) -> bool:
        """Whether a model was loaded; ``False`` when the session was stopped first."""
        ended = [] if server is None else [server.ended()]
        await first_of(_wait(self._loaded), _wait(self._stop), *ended)
        if self._stop.is_set():
            return False
        if not self._loaded.is_set():
            failure = None if server is None else server.failure()
            raise failure or EnvironmentFault(
                Code.COMMAND_FAILED,
                "the inference server ended before it loaded a model",
                where=self._config.command[0],
                hint="it has to load through the socket in $WEIGHBRIDGE_WORKLOAD",
            )
        return True

    # -- enrolled, running, ending -------------------------------------------------------------------------------------

    async def _serve(
        self,
        earlier: EarlierSessions,
        log: MeasurementLog,
        workload: WorkloadServer,
        server: InferenceServer | None,
        first: int,
    ) -> SessionSummary:
        spools = earlier.spools
        if not await self._wait_loaded(server):
            raise EnvironmentFault(Code.COMMAND_FAILED, "stopped before a model was loaded", hint="nothing was sealed")
        line, enrolment = await self._reaching(lambda: self._opened(log))
        try:
            terms = enrolment.terms.terms
            spool = await self._offload(
                lambda: spools.create(
                    terms.session,
                    enrolment.terms.raw,
                    prev=terms.prev,
                    challenge=enrolment.challenge,
                    spot=enrolment.spot,
                )
            )
        except BaseException:
            await line.disconnect()
            raise
        self._notice("enrolled", f"session {terms.session.hex()}, a window every {terms.period_ns / _SECOND_NS:g} s")
        await earlier.begin(self._clock.wall_ns())
        courier = self._courier(spool, line, credit=enrolment.credit, period_ns=terms.period_ns)
        delivery = asyncio.create_task(courier.run())
        windows = self._answering.windows = WindowLoop(
            WindowParts(
                enrolment=enrolment,
                spool=spool,
                losses=spools.losses,
                devices=self._devices,
                log=log,
                workload=workload,
                courier=courier,
                delivery=delivery,
                server=server,
                token=self._token,
                clock=self._clock,
                offload=self._offload,
                observer=self._observer,
                stop=self._stop,
                limit=self._config.windows,
                work=self._answering.work,
                power=self._answering.power,
                declared=self._config.declared,
                spots=SpotReader(self._directories),
            )
        )
        try:
            await windows.run()
            await self._finish(spool, courier, delivery)
            if server is not None:
                await self._stop_server(server, log, first)
            verifier = await self._close(spool, courier)
        finally:
            await cancel(delivery)
            await courier.disconnect()
            await self._offload(self._token.remove)
        if not spool.backlog:
            await self._offload(lambda: spools.remove(spool))
        failure = None if server is None else server.failure()
        if failure is not None:
            raise failure
        counts = self._answering.counts
        return SessionSummary(
            session=terms.session,
            sealed=windows.sealed,
            affirmed=counts["affirmed"],
            held=counts["held"],
            indeterminate=counts["indeterminate"],
            lost=windows.lost,
            backlog=spool.backlog,
            verifier=verifier,
            losses=tuple(lost for lost in spools.losses.spans if lost.session == terms.session),
        )

    async def _opened(self, log: MeasurementLog) -> tuple[Line, Enrolment]:
        line = await self._transport.connect()
        try:
            return line, await self._enrol(line, log)
        except BaseException:
            await line.disconnect()
            raise

    async def _enrol(self, line: Line, log: MeasurementLog) -> Enrolment:
        config = self._config
        return await enrol(
            line,
            Identity(
                tenant=config.tenant,
                audience=config.audience,
                cnf=config.serving.cnf,
                peer=config.peer,
                model=config.model.digest,
                adapters=tuple(sorted({adapter.digest for adapter in config.adapters})),
                pinned=config.pinned,
            ),
            prover=Prover(
                self._devices.tpm,
                self._devices.gpus,
                log,
                self._offload,
                config.declared,
                boot=self._devices.boot,
                runtime=self._devices.runtime,
                collateral=self._devices.collateral,
            ),
            trusted=self._trusted,
            clock=self._clock,
        )

    async def _finish(self, spool: Spool, courier: Courier, delivery: asyncio.Task[None]) -> None:
        """Wait until everything is answered, or cannot be now."""
        if spool.backlog and courier.connected:
            deadline = self._clock.monotonic_ns() + _DRAIN_NS
            await first_of(courier.settled(), self._clock.sleep_until(deadline), watched=delivery)
        if delivery.done():
            delivery.result()
        await cancel(delivery)

    async def _stop_server(self, server: InferenceServer, log: MeasurementLog, first: int) -> None:
        """Stop the server and log that what it loaded is not served any more."""
        await server.stop()
        # A TPM that is gone cannot be told, and is no reason to hide why the session ends.
        with contextlib.suppress(EnvironmentFault):
            await self._offload(lambda: _unload(log, first))

    async def _close(self, spool: Spool, courier: Courier) -> strict.JsonObject | None:
        """Close the session at the verifier; ``None`` when it cannot be now: it will be delivered by the next start."""
        line = courier.line
        if line is None or spool.backlog:
            return None
        try:
            summary = strict.json_decode(await line.close_session(spool.session), what="session summary")
        except EnvironmentFault as fault:
            self._notice("line-cut", str(fault))
            return None
        return summary if isinstance(summary, dict) else None

    def _courier(self, spool: Spool, line: Line | None, *, credit: int = 1, period_ns: int = 0) -> Courier:
        return Courier(
            spool,
            self._transport,
            line,
            clock=self._clock,
            offload=self._offload,
            rng=self._surroundings.rng,
            backoff=self._surroundings.backoff or (Backoff.of(period_ns) if period_ns else None),
            credit=credit,
            on_answer=lambda notice, answer: self._answering.answered(spool, notice, answer),
            on_line=self._answering.line,
            on_unheard=self._answering.unheard,
        )

    def _notice(self, kind: NoticeKind, message: str) -> None:
        self._observer.notice(Notice(kind, message))


def _unload(log: MeasurementLog, first: int) -> None:
    """Log the unloading of every model that records from ``first`` on loaded."""
    own = {record.recnum for record in log.records(first) if isinstance(record.event, ModelLoad)}
    for model in log.loaded():
        if model.recnum in own:
            log.append(ModelUnload(model.recnum))


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
