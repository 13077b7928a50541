"""The gRPC face of results: relying parties ask how sessions stand, and are told when that changes.

It stands beside the attestation service on the same port, and shares nothing with it but the store: neither waits for
the other. protobuf goes no further in. A refusal is a gRPC status whose details are the error's document.

A watch ends after an hour, in good order: whoever watches connects again, with a certificate that is still good. It
ends at once when the list of relying parties changes and has not the same to say of this one any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, final

import grpc

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import (
    Code,
    EnvironmentFault,
    ExitCode,
    MalformedEvidence,
    NotAuthentic,
    PolicyDenied,
    WeighbridgeError,
)
from weighbridge.proto.v1 import results_pb2, results_pb2_grpc
from weighbridge.verifier.peers import Shown
from weighbridge.verifier.quotas import Limited
from weighbridge.verifier.reading import taken_within
from weighbridge.verifier.result.serialisation import Serialisation
from weighbridge.verifier.result_source import Asked
from weighbridge.verifier.told import GateState, Model
from weighbridge.verifier.watching import Watches

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from weighbridge.verifier.peers import Peers
    from weighbridge.verifier.quotas import Quotas
    from weighbridge.verifier.result_source import Result, ResultSource
    from weighbridge.verifier.told import Told
    from weighbridge.verifier.watching import Watch

    _Context = grpc.aio.ServicerContext[object, object]

__all__ = ["SESSIONS_MAX", "ResultService"]

SESSIONS_MAX: Final = 1024
"""Sessions of one watch that names them."""
# A token's time is over within this of what the list says.
_ASK_AGAIN_S: Final = 30.0
_HEARTBEAT_S: Final = 5.0
# A clock that is set is noticed as soon.
_LOOK_S: Final = 1.0
_LEAST_S: Final = 0.01
# Without a look at the store for so long, nobody is told that nothing has changed.
_STALE_S: Final = 5.0
_CALL_S: Final = 10.0
_WATCH_S: Final = 3600.0
# For what is told to be taken by whoever watches, over a line that is alive.
_TAKEN_S: Final = 30.0
# So many sessions are looked up before others get their turn.
_AT_ONCE: Final = 32
_SESSION_SIZE: Final = 16
_SECOND_NS: Final = 1_000_000_000
_STATES: Final = {
    GateState.WAITING: results_pb2.STATE_WAITING,
    GateState.OPEN: results_pb2.STATE_OPEN,
    GateState.CLOSED: results_pb2.STATE_CLOSED,
    GateState.ENDED: results_pb2.STATE_ENDED,
}
_SERIALISATIONS: Final = {
    results_pb2.SERIALISATION_EAR_04_JWT: Serialisation.EAR_04,
    results_pb2.SERIALISATION_EAR_04_CWT: Serialisation.EAR_04_CWT,
    results_pb2.SERIALISATION_VERAISON_2023_JWT: Serialisation.VERAISON_2023,
}
_STATUSES: Final = {
    Code.SESSION_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Code.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.RELYING_PARTY_UNKNOWN: grpc.StatusCode.PERMISSION_DENIED,
    Code.WINDOW_PEER: grpc.StatusCode.UNAUTHENTICATED,
    Code.PEER_UNREACHABLE: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_BY_EXIT: Final = {
    ExitCode.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    ExitCode.NOT_AUTHENTIC: grpc.StatusCode.PERMISSION_DENIED,
    ExitCode.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    ExitCode.ENVIRONMENT: grpc.StatusCode.UNAVAILABLE,
}
_T = TypeVar("_T")


@final
class ResultService(results_pb2_grpc.ResultServiceServicer):
    """Serves ``ResultService``."""

    def __init__(self, source: ResultSource, peers: Peers, quotas: Quotas) -> None:
        self._source = source
        self._peers = peers
        self._quotas = quotas
        # The source is one caller at a time.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="results")
        self._watches = Watches(source.standings, self._run)
        self._ending = asyncio.Event()

    async def GetResult(self, request: results_pb2.GetResultRequest, context: _Context) -> results_pb2.Result:
        """How one session stands now."""

        async def result() -> results_pb2.Result:
            asked = self._asked(request, _shown(context))
            with self._quotas.call(asked.party):
                return _message(await self._run(partial(self._source.result, _session(request.session), asked)))

        return await self._answer(result, context)

    async def GetTokenKeys(self, request: results_pb2.GetTokenKeysRequest, context: _Context) -> results_pb2.TokenKeys:
        """The keys that tokens are verified by now."""
        del request  # It says nothing.

        async def keys() -> results_pb2.TokenKeys:
            party = self._peers.relying_party(_shown(context), at=self._source.now())
            with self._quotas.call(party):
                return results_pb2.TokenKeys(jwks=await self._run(self._source.jwks))

        return await self._answer(keys, context)

    async def _answer(self, make: Callable[[], Awaitable[_T]], context: _Context) -> _T:
        """What is made in time, or else the refusal."""
        try:
            async with asyncio.timeout(_CALL_S):
                return await make()
        except TimeoutError:
            failure = _refusal(EnvironmentFault(Code.PEER_UNREACHABLE, "no answer in time", hint="try again"))
        except Limited as limited:
            failure = _refusal(limited.fault)
        except WeighbridgeError as error:
            failure = _refusal(error)
        except Exception as error:  # noqa: BLE001 - the answer is "refused", never "go on"
            failure = _internal(error)
        return await context.abort(*failure)

    async def WatchResults(
        self, request: results_pb2.WatchResultsRequest, context: _Context
    ) -> AsyncIterator[results_pb2.WatchResultsResponse]:
        """How sessions stand, at once and at each change; something at least every five seconds."""
        try:
            shown = _shown(context)
            asked = self._asked(request, shown)
            with self._quotas.call(asked.party), await self._watched(request, asked) as watch:
                async with contextlib.aclosing(self._told(watch, asked, shown)) as told:
                    async for message in told:
                        with taken_within(_TAKEN_S):
                            yield message
        except Limited as limited:
            failure = _refusal(limited.fault)
        except WeighbridgeError as error:
            failure = _refusal(error)
        except Exception as error:  # noqa: BLE001 - as above
            failure = _internal(error)
        else:
            return
        await context.abort(*failure)

    async def follow(self) -> None:
        """Tell watches of changes, for as long as the task runs."""
        loop = asyncio.get_running_loop()

        def tell(sessions: frozenset[bytes]) -> None:
            # The verifier's thread may outlive the loop by a moment.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._watches.touch, sessions)

        with self._source.standings.told(tell):
            await self._watches.poll()

    def end(self) -> None:
        """Let all watches end, in good order."""
        self._ending.set()
        self._watches.touch_all()

    def close(self) -> None:
        """Wait for the answer in progress."""
        self._thread.shutdown()

    async def _watched(
        self, request: results_pb2.WatchResultsRequest, asked: Asked
    ) -> contextlib.AbstractContextManager[Watch]:
        if not request.HasField("model"):
            return self._watches.watch(_sessions(request.sessions))
        model = _model(request, asked)
        await self._watches.find_lately()
        return self._watches.watch_model(model)

    async def _told(self, watch: Watch, asked: Asked, shown: Shown) -> AsyncGenerator[results_pb2.WatchResultsResponse]:
        """What is said on one watch, for as long as it may last."""
        last: dict[bytes, Told] = {}
        said = identified = began = time.monotonic()
        listed = self._peers.listed
        changed = await watch.wait(0)
        while time.monotonic() < began + _WATCH_S and not self._ending.is_set():
            if self._peers.listed is not listed or time.monotonic() >= identified + _ASK_AGAIN_S:
                self._still(asked, shown)
                listed, identified = self._peers.listed, time.monotonic()
            async with contextlib.aclosing(self._results(changed, asked)) as results:
                async for result in results:
                    if result.session not in last or not last[result.session].same_as(result.told):
                        last[result.session] = result.told
                        yield results_pb2.WatchResultsResponse(result=_message(result))
                        said = time.monotonic()
                    if watch.grows and result.told.state is GateState.ENDED:
                        # It was told. There may be thousands of them in time.
                        self._watches.drop(watch, result.session)
                        del last[result.session]
            if time.monotonic() - said >= _HEARTBEAT_S:
                yield results_pb2.WatchResultsResponse(heartbeat=self._heartbeat())
                said = time.monotonic()
            silence = said + _HEARTBEAT_S - time.monotonic()
            expiries = {name: told.expires_ns for name, told in last.items() if told.expires_ns is not None}
            first = min(expiries.values(), default=2**63) - self._source.now_ns()
            changed = await watch.wait(max(_LEAST_S, min(_LOOK_S, silence, first / _SECOND_NS)))
            now_ns = self._source.now_ns()
            changed |= {name for name, expires_ns in expiries.items() if expires_ns <= now_ns}

    async def _results(self, sessions: Iterable[bytes], asked: Asked) -> AsyncGenerator[Result]:
        """In parts: the first are told, and taken, before the last are made."""
        wanted = sorted(sessions)
        for start in range(0, len(wanted), _AT_ONCE):
            for result in await self._run(partial(self._look, wanted[start : start + _AT_ONCE], asked)):
                yield result

    def _look(self, sessions: Sequence[bytes], asked: Asked) -> list[Result]:
        return [self._source.result(session, asked) for session in sessions]

    def _heartbeat(self) -> results_pb2.Heartbeat:
        if self._watches.age > _STALE_S:
            raise EnvironmentFault(Code.STATE_LOCKED, "the state could not be looked at for seconds", hint="try again")
        return results_pb2.Heartbeat(at_ns=self._source.now_ns())

    def _still(self, asked: Asked, shown: Shown) -> None:
        """Whoever asked may still ask for the same.

        Raises:
            NotAuthentic: ``RELYING_PARTY_UNKNOWN``: not any more, or for something else.
        """
        party = self._peers.relying_party(shown, at=self._source.now())
        if party != asked.party:
            raise NotAuthentic(
                Code.RELYING_PARTY_UNKNOWN, "what this relying party may ask for has changed", hint="ask again"
            )

    def _asked(self, request: results_pb2.GetResultRequest | results_pb2.WatchResultsRequest, shown: Shown) -> Asked:
        """Who asks, and for what. Who it is comes first: a stranger learns nothing, not even what is malformed."""
        party = self._peers.relying_party(shown, at=self._source.now())
        number = request.serialisation if request.HasField("serialisation") else results_pb2.SERIALISATION_EAR_04_JWT
        if number not in _SERIALISATIONS:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "unknown serialisation",
                where="request.serialisation",
                expected=", ".join(map(str, _SERIALISATIONS)),
                got=number,
            )
        audience = party.audience(request.audience if request.HasField("audience") else None)
        certificate = None
        if isinstance(request, results_pb2.GetResultRequest) and request.HasField("certificate"):
            certificate = request.certificate
        return Asked(party=party, audience=audience, serialisation=_SERIALISATIONS[number], certificate=certificate)

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _session(value: bytes) -> bytes:
    if len(value) != _SESSION_SIZE:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "a session has 16 bytes", where="request.session", got=f"{len(value)} bytes"
        )
    return value


def _sessions(values: Iterable[bytes]) -> tuple[bytes, ...]:
    sessions = tuple(map(_session, values))
    if not 0 < len(sessions) <= SESSIONS_MAX or len(set(sessions)) != len(sessions):
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            f"not 1 to {SESSIONS_MAX} different sessions",
            where="request.sessions",
            got=len(sessions),
        )
    return sessions


def _model(request: results_pb2.WatchResultsRequest, asked: Asked) -> Model:
    model = request.model
    if request.sessions or len(model.digest) != limits.DIGEST_SIZE:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            f"a watch is of sessions, or of one model by its digest of {limits.DIGEST_SIZE} bytes",
            where="request.model",
            got=f"{len(request.sessions)} sessions, {len(model.digest)} bytes",
        )
    if model.tenant not in asked.party.tenants:
        raise PolicyDenied(
            Code.RESULT_TENANT,
            "this relying party may not ask about this tenant",
            where="request.model.tenant",
            expected=", ".join(asked.party.tenants),
            got=model.tenant,
            hint="the verifier's operator lists what it may ask for: weighbridge serve --relying-parties",
        )
    return Model(model.tenant, model.digest)


def _shown(context: _Context) -> Shown:
    """By what the peer says who it is."""
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    return Shown(
        tuple(context.auth_context().get("x509_pem_cert", [])),
        tuple(value if isinstance(value, str) else "" for value in values),
    )


def _message(result: Result) -> results_pb2.Result:
    told = result.told
    return results_pb2.Result(
        session=result.session,
        state=_STATES[told.state],
        at_ns=told.at_ns,
        expires_ns=told.expires_ns,
        code=told.code,
        reason=told.reason or None,
        seq=told.seq,
        token=result.token,
    )


def _refusal(error: WeighbridgeError) -> tuple[grpc.StatusCode, str]:
    status = _STATUSES.get(error.code) or _BY_EXIT.get(error.exit_code, grpc.StatusCode.INTERNAL)
    return status, _details({**error.document(), "exit_code": error.exit_code.value})


def _internal(error: Exception) -> tuple[grpc.StatusCode, str]:
    """A defect of ours: told without detail to the peer, in full to the operator."""
    traceback.print_exception(error, file=sys.stderr)
    message = f"internal error: {type(error).__name__}"
    return grpc.StatusCode.INTERNAL, _details({"code": None, "message": message, "exit_code": ExitCode.INTERNAL.value})


def _details(document: strict.JsonObject) -> str:
    return strict.json_encode(document).decode()
