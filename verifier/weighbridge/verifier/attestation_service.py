"""The gRPC face of attestation: streams of attesters in, verdicts out, in order. It only moves bytes.

It names the peer by its TLS key, hands requests to :class:`~.core.Verifier` in one thread, each peer in its turn, and
turns answers into messages. protobuf goes no further in. Windows that came while the thread was busy are judged a few
at a time and then settled together.

A peer is not trusted to have manners: how much of each may be had is :mod:`.quotas`'s to say, how long a stream may be
silent :class:`.Limits`'s, what is more than can be judged :mod:`.shedding`'s. What a stream may not have is refused and
the stream goes on; the stream itself ends with a gRPC status: ``RESOURCE_EXHAUSTED`` there are too many,
``DEADLINE_EXCEEDED`` nothing came for too long, ``UNAVAILABLE`` it is old, or the service ends: resume, here or
elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, final

import grpc

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.v1 import attestation_pb2, attestation_pb2_grpc
from weighbridge.verifier.attester_stream import Requested, Stream
from weighbridge.verifier.hearing import AT_ONCE, Sent
from weighbridge.verifier.notices import Notices, note, warn
from weighbridge.verifier.observed import UNOBSERVED, Observer
from weighbridge.verifier.quotas import ROOM_S, Limited, Quotas
from weighbridge.verifier.reading import Ended, Reader, Received, taken_within
from weighbridge.verifier.settling import Judged
from weighbridge.verifier.shedding import Shedding
from weighbridge.verifier.transaction import Conflict
from weighbridge.verifier.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from weighbridge.verifier.core import Settled, Verifier
    from weighbridge.verifier.peers import Peers
    from weighbridge.verifier.quotas import Visit

    _Context = grpc.aio.ServicerContext[attestation_pb2.AttestRequest, attestation_pb2.AttestResponse]

__all__ = ["AttestationService"]

_T = TypeVar("_T")
_JUNK_PERIOD: Final = 60.0
# Windows look for changed reference values themselves; this is for when none comes.
_REFRESH_PERIOD: Final = 1.0
# So long are windows judged before those that have been are recorded: whoever came first waits no longer than that.
# What recording costs whatever is recorded is shared by all of a turn; only where many wait is a turn so long. As long
# as recording takes, where that is longer (object storage, other replicas' turns): else all would wait for it.
_TURN: Final = 0.075
_TURN_MOST: Final = 0.25
# For an answer to be taken by whoever asked: a few kilobytes, over a line that is alive.
_TAKEN: Final = 30.0
# Database, disk and object storage, without which nobody's windows are recorded.
_AWAY: Final = frozenset({Code.STATE_UNREACHABLE, Code.STORAGE_UNREACHABLE, Code.DISK_FULL})
_OVER: Final = "the verifier is ending: resume here or elsewhere"


@final
class AttestationService(attestation_pb2_grpc.AttestationServiceServicer):
    """Serves ``AttestationService.Attest``."""

    def __init__(
        self,
        verifier: Verifier,
        peers: Peers,
        quotas: Quotas,
        notices: Notices | None = None,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._verifier = verifier
        # How long it took to record the windows of the last turn, in seconds.
        self._settling = 0.0
        # How many windows may be judged together, as long as these took of late.
        # Fewer where they took longer than the longest turn, as slow policies do: all of one's windows have the time of
        # one together.
        self._at_once = AT_ONCE
        self._peers = peers
        self._quotas = quotas
        self._notices = notices or Notices(warn)
        self._observer = observer
        # The verifier is one caller at a time; a thread of its own keeps the event loop answering.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="verifier")
        self._turns = Turns(self._thread, self._turn)
        self._shedding = Shedding(quotas.limits.patience)
        self._readers: set[Reader] = set()
        self._empty = asyncio.Event()
        self._draining = False
        self._fault = ""
        # Without which nothing can be recorded, since it was found away.
        self._away: Code | None = None

    async def Attest(  # type: ignore[override]  # the generated class knows of iterators alone
        self, request_iterator: AsyncIterator[attestation_pb2.AttestRequest], context: _Context
    ) -> None:
        """One stream: requests in, exactly one response each, in order.

        Read and written by the context: iterators of gRPC's keep the last request and response until others come.
        """
        del request_iterator
        ended: Ended | None = None
        try:
            admitted = self._peers.attester(context.auth_context().get("x509_pem_cert", []))
            if self._draining:
                await context.abort(grpc.StatusCode.UNAVAILABLE, _OVER)
            with self._quotas.visit(admitted.key) as visit:
                stream = Stream(self._verifier, admitted, visit, self._quotas.limits)
                async with self._reading(context, visit) as reader:
                    while ended is None:
                        ended = await self._exchange(stream, reader, context)
        except NotAuthentic as error:
            self._observer.refused(error.code)
            self._notices.say(("peer", error.code), f"a peer is refused: {error}")
            ended = Ended(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except Limited as limited:
            self._observer.refused(limited.fault.code)
            self._notices.say(("stream", limited.fault.message), f"a stream is refused: {limited}")
            ended = Ended(grpc.StatusCode.RESOURCE_EXHAUSTED, str(limited))
        if ended.status is not grpc.StatusCode.OK:
            await context.abort(ended.status, ended.details)

    @property
    def waiting(self) -> int:
        """How many requests wait for the thread that judges."""
        return len(self._turns)

    async def _exchange(self, stream: Stream, reader: Reader, context: _Context) -> Ended | None:
        """Answer the next request, or say how the stream ended. Neither request nor response outlives the call."""
        received = await reader.next(stream.patience)
        if isinstance(received, Ended):
            return received
        response = await self._answer(stream, reader, received)
        with taken_within(_TAKEN):
            await context.write(response)
        reader.answered(received, credit=stream.credit)
        return None

    @contextlib.asynccontextmanager
    async def _reading(self, context: _Context, visit: Visit) -> AsyncGenerator[Reader]:
        async with Reader.reading(context.read, visit) as reader:
            self._readers.add(reader)
            try:
                if self._draining:
                    reader.end(grpc.StatusCode.UNAVAILABLE, _OVER)
                yield reader
            finally:
                self._readers.discard(reader)
                if not self._readers:
                    self._empty.set()

    async def _answer(self, stream: Stream, reader: Reader, received: Received) -> attestation_pb2.AttestResponse:
        """The response to one request: a refusal where it is more than may be had."""
        request = received.request
        window = request.HasField("window")
        if (refused := reader.refused_before(received)) is not None:
            return refused
        try:
            if received.limited is not None:
                raise received.limited
            if delay := stream.visit.request():
                await asyncio.sleep(delay)
            self._shedding.check(request.WhichOneof("request"), stream.peer, delay=self._turns.delay(stream.peer))
            if request.HasField("opening"):
                stream.visit.opening()
            sent = Requested(stream, request)
            response = await self._turns.take(sent, sender=stream.sender, owner=stream.peer)
            stream.settle()
        except Limited as limited:
            self._observer.refused(limited.fault.code)
            self._notices.say(("request", limited.fault.message), f"not judged, and to come again: {limited}")
            response = _refusal(limited.fault, retry_after=limited.retry_after)
        if window and response.HasField("refusal"):
            reader.refuse_those_behind(response)
        return response

    async def record_junk(self) -> None:
        """Enter counted junk into the ledger, once per period, for as long as the task runs."""
        while True:
            await asyncio.sleep(_JUNK_PERIOD)
            await self._run(self._record_junk)

    async def refresh(self) -> None:
        """Look for changed reference values once per period, for as long as the task runs."""
        while True:
            await asyncio.sleep(_REFRESH_PERIOD)
            await self._run(self._refresh)

    async def prune(self) -> None:
        """Take away rows of sessions that ended long ago, a few at a time, for as long as the task runs."""
        pause = _REFRESH_PERIOD
        while True:
            await asyncio.sleep(pause)
            pause = await self._run(self._prune)

    async def drain(self, seconds: float) -> None:
        """Take no more streams, answer what was read, end all streams: within ``seconds``, or as far as that goes."""
        self._draining = True
        for reader in self._readers:
            reader.end(grpc.StatusCode.UNAVAILABLE, _OVER)
        self._empty.clear()
        if self._readers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()

    async def settled(self) -> None:
        """Return when every request that came before has been judged."""
        await self._turns.done()
        await self._run(lambda: None)

    def _turn(self, sent: Sequence[Requested]) -> list[attestation_pb2.AttestResponse]:
        """Judge windows a few at a time, as many as there is time for, and settle them together; their responses.

        Anything else is done alone: nothing may come between windows' judgements and their being settled.
        """
        if not sent[0].request.HasField("window"):
            return [self._guarded(partial(sent[0].stream.handle, sent[0].request), junk=self._verifier.count_junk)]
        windows = list(itertools.takewhile(lambda one: one.request.HasField("window"), sent))
        outcomes: list[Judged | attestation_pb2.AttestResponse] = []
        judged: list[Judged] = []
        apart, began = False, time.monotonic()
        until = began + min(max(_TURN, self._settling), _TURN_MOST)
        while some := windows[len(outcomes) : len(outcomes) + (1 if apart else self._at_once)]:
            if not (made := self._judged(some, judged)):
                # Something is wrong with one of them, whatever it is: the others do not pay for it.
                apart = True
                continue
            outcomes += made
            judged = [item for item in outcomes if isinstance(item, Judged)]
            ended = time.monotonic()
            self._took(len(some), ended - began)
            if ended > until:
                break
            began = ended
        began = time.monotonic()
        settled = self._guarded(partial(self._verifier.settle, judged))
        self._settling = time.monotonic() - began
        if isinstance(settled, attestation_pb2.AttestResponse):
            # Nothing was recorded for certain: all of them may come again.
            return [settled if isinstance(item, Judged) else item for item in outcomes]
        if judged and self._away is not None:
            note(f"weighbridge: windows are recorded again, after {self._away.value}")
            self._away = None
        answers = iter(settled)
        return [
            self._guarded(partial(_answered, next(answers))) if isinstance(item, Judged) else item for item in outcomes
        ]

    def _took(self, count: int, seconds: float) -> None:
        """So many windows were judged together, in so long."""
        if seconds > _TURN_MOST:
            self._at_once = max(1, int(count * _TURN_MOST / seconds))
        elif count == self._at_once:
            self._at_once = min(count + 1, AT_ONCE)

    def _judged(
        self, windows: Sequence[Requested], beside: Sequence[Judged]
    ) -> list[Judged | attestation_pb2.AttestResponse]:
        """The judgements on ``windows``, or their refusals; none if several cannot be judged together."""
        # Of windows the verifier keeps count itself.
        if len(windows) == 1:
            return [self._guarded(partial(windows[0].stream.judge, windows[0].request.window, beside))]
        # A stream may have no session: that is not the others' fault.
        named = [self._guarded(partial(one.stream.sent, one.request.window)) for one in windows]
        try:
            made = iter(self._verifier.judge_all([one for one in named if isinstance(one, Sent)], beside=beside))
        except Exception:  # noqa: BLE001 - nothing goes on: each is judged by itself, and what is wrong shows there
            return []
        return [self._guarded(partial(_judgement, next(made))) if isinstance(one, Sent) else one for one in named]

    def _guarded(
        self, call: Callable[[], _T], *, junk: Callable[[WeighbridgeError], None] | None = None
    ) -> _T | attestation_pb2.AttestResponse:
        """What ``call`` returns, or the refusal it comes to; ``junk`` counts what was not well-formed or genuine."""
        try:
            return call()
        except WeighbridgeError as error:
            self._observer.refused(error.code)
            if isinstance(error, EnvironmentFault):
                self._notices.say(("fault", error.code), f"nothing was judged: {error}")
                self._away = error.code if error.code in _AWAY else self._away
            elif junk is not None and isinstance(error, MalformedEvidence | NotAuthentic):
                junk(error)
            return _refusal(error)
        except Exception as error:  # noqa: BLE001 - one of the two places: the answer is "refused", never "go on"
            return _internal(error)

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Wait for the judgement in progress and record what junk is left."""
        self._thread.submit(self._record_junk).result()
        self._thread.shutdown()
        self._notices.flush()

    def _refresh(self) -> None:
        """Told once, not every second: the next window is refused for the same reason."""
        fault = ""
        try:
            self._verifier.refresh()
        except EnvironmentFault as error:
            fault = str(error)
        if fault not in {"", self._fault}:
            warn(f"nothing is judged for now: {fault}")
        self._fault = fault

    def _prune(self) -> float:
        try:
            return self._verifier.prune()
        except WeighbridgeError as error:
            # What waits to be taken away is there the next time.
            self._notices.say(("prune", error.code), f"nothing is taken out of the store for now: {error}")
        except Conflict as error:
            # Somebody's own tables refer to these rows.
            self._notices.say(("prune", ""), f"nothing is taken out of the store for now: {error}")
        return _JUNK_PERIOD

    def _record_junk(self) -> None:
        try:
            self._verifier.record_junk()
        except WeighbridgeError as error:
            # What was counted is kept for the next time; nobody's window depends on it.
            self._notices.say(("junk", error.code), f"junk is not recorded yet: {error}")


def _judgement(made: Judged | WeighbridgeError) -> Judged:
    if isinstance(made, WeighbridgeError):
        raise made
    return made


def _answered(settled: Settled) -> attestation_pb2.AttestResponse:
    answer = settled()
    message = attestation_pb2.Answer(
        seq=answer.verdict.seq,
        verdict=answer.verdict.encode(),
        token=answer.token,
        challenge=answer.challenge,
        spot=answer.spot,
    )
    return attestation_pb2.AttestResponse(answer=message)


def _refusal(error: WeighbridgeError, *, retry_after: float | None = None) -> attestation_pb2.AttestResponse:
    refusal = attestation_pb2.Refusal(error=strict.json_encode(error.document()), exit_code=error.exit_code.value)
    if retry_after is None and error.code is Code.RATE_LIMITED:
        # Enrolments that are open wait for their attesters: nobody knows for how long.
        retry_after = ROOM_S
    if retry_after is not None:
        refusal.retry_after_ms = max(1, round(retry_after * 1000))
    return attestation_pb2.AttestResponse(refusal=refusal)


def _internal(error: Exception) -> attestation_pb2.AttestResponse:
    """A defect of ours: told without detail to the peer, in full to the operator."""
    traceback.print_exception(error)
    document = {"code": None, "message": f"internal error: {type(error).__name__}"}
    refusal = attestation_pb2.Refusal(error=strict.json_encode(document), exit_code=ExitCode.INTERNAL.value)
    return attestation_pb2.AttestResponse(refusal=refusal)
