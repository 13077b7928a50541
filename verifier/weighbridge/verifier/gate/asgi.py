"""A gate inside a Python server: ASGI middleware (version 3), of no framework.

.. code-block:: python

    gate = Gate(GateFile.parse(gates_json), Verifiers.of(anchors.load(anchors_json), None), SystemClocks())
    source = GrpcSource("verifier.example:8443", credentials)
    app = GateMiddleware(app, gate, Watcher(gate, source, report=print), route="chat")

It listens to the verifier while the server runs (by ASGI's ``lifespan``), answers 403 itself where no session is open,
and else calls the application. That finds the answer in ``scope["weighbridge"]``: which session, and the key that it
pins its connection to (:func:`.pinned_context`). A request that was let through goes on when the session closes; a web
socket is closed with the next that is sent over it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, final

from weighbridge.verifier.gate.checking import HEADER_PREFIX, header_key
from weighbridge.verifier.gate.holder import Grant

if TYPE_CHECKING:
    from weighbridge.verifier.gate.checking import Answer, Gate
    from weighbridge.verifier.gate.watcher import Watcher

__all__ = ["SCOPE_KEY", "Application", "GateMiddleware", "Message", "Receive", "Send"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

SCOPE_KEY: Final = "weighbridge"
"""Where the application finds the gate's :class:`.Answer`."""
_FORBIDDEN: Final = 403
# RFC 6455 §7.4.1: policy violation.
_POLICY: Final = 1008


@final
class GateMiddleware:
    """Lets requests through to ``app`` only while a session of their route is open.

    Args:
        app: any ASGI application.
        gate: what decides.
        watcher: of that gate; runs while the server does. ``None``: somebody else runs it.
        route: a route of the gate's file; ``None``: host and path choose.
    """

    def __init__(self, app: Application, gate: Gate, watcher: Watcher | None, *, route: str | None = None) -> None:
        self._app = app
        self._gate = gate
        self._watcher = watcher
        self._route = route

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """See the ASGI specification. Of any other kind of scope than it knows, nothing is let through."""
        match scope["type"]:
            case "lifespan":
                await self._live(scope, receive, send)
            case "http":
                answer = self._answer(scope)
                if answer.allowed:
                    await self._app(_told(scope, answer), receive, send)
                else:
                    await _refuse(answer, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case other:
                raise RuntimeError(f"a gate does not know the ASGI scope {other}")

    def _answer(self, scope: Message) -> Answer:
        if self._route is not None:
            return self._gate.check(self._gate.router.named(self._route))
        hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
        # Two hosts are none; what is not ASCII is no host either.
        host = hosts[0].decode("ascii", "replace") if len(hosts) == 1 else ""
        raw: bytes = scope.get("raw_path") or str(scope["path"]).encode()
        return self._gate.check(self._gate.router.placed(host, raw.decode("latin-1")))

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        """The application's own lifespan, and the watcher's beside it."""
        if self._watcher is None:
            await self._app(scope, receive, send)
            return
        watching = asyncio.create_task(self._watcher.run())
        try:
            await self._lived(scope, receive, send)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _lived(self, scope: Message, receive: Receive, send: Send) -> None:
        """The application's lifespan; one of our own, as long as the server runs, where it takes no part in it.

        It may say so by an exception (ASGI's lifespan protocol), which is one of its own only once it has answered.
        """
        heard = said = False

        async def hear() -> Message:
            nonlocal heard
            heard = True
            return await receive()

        async def say(message: Message) -> None:
            nonlocal said
            said = True
            await send(message)

        try:
            await self._app(scope, hear, say)
        except Exception:
            if said:
                raise
        if said:
            return
        if not heard:
            await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        answer = self._answer(scope)
        if not answer.allowed:
            # Before it was accepted, this is answered with 403.
            await receive()
            await send({"type": "websocket.close", "code": _POLICY, "reason": answer.code or ""})
            return

        session = answer.found.expected.identifier if isinstance(answer.found, Grant) else b""

        async def checked(message: Message) -> None:
            if message["type"] == "websocket.send" and not self._gate.check((session,)).allowed:
                await send({"type": "websocket.close", "code": _POLICY, "reason": "the session has closed"})
                raise ConnectionAbortedError("the session has closed")
            await send(message)

        await self._app(_told(scope, answer), receive, checked)


def _told(scope: Message, answer: Answer) -> Message:
    """The request as the application gets it: with the gate's headers, without a client's copies of them."""
    sent = ((header_key(name.decode("latin-1")), (name, value)) for name, value in scope["headers"])
    kept = [header for key, header in sent if not key.startswith(HEADER_PREFIX)]
    added = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    return {**scope, "headers": [*kept, *added], SCOPE_KEY: answer}


async def _refuse(answer: Answer, send: Send) -> None:
    body = answer.body
    headers = {**answer.refusal_headers, "content-length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": _FORBIDDEN,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
