"""Envoy's external authorization (``envoy.service.auth.v3``): the adapter to it, and nothing more.

Which sessions a request may go to is said by Envoy's own configuration where it can say so: by a route's
``context_extensions``, which no client can write. Without any, the request's host and path choose among the file's
routes. What Envoy gets back: status, headers, a body that says why, and all of it as dynamic metadata.

If this process dies, Envoy refuses: as long as its ``failure_mode_allow`` is false, as it is by default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast, final

import grpc.aio
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from weighbridge.verifier.gate.checking import HEADER_PREFIX, header_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from envoy.config.core.v3.base_pb2 import HeaderValueOption

    from weighbridge.verifier.gate.checking import Answer, Gate

__all__ = ["EXTENSIONS", "EnvoyGate", "server"]

EXTENSIONS: Final = ("weighbridge_route", "weighbridge_session", "weighbridge_model", "weighbridge_tenant")
"""What a route's ``context_extensions`` may say: a route of the file, or a session, or a model and its tenant."""
# google.rpc.Code
_OK: Final = 0
_PERMISSION_DENIED: Final = 7
# envoy.config.core.v3.HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
_OVERWRITE: Final = 2
_FORBIDDEN: Final = 403
_MESSAGE_MAX: Final = 1 << 20
_STREAMS_MAX: Final = 4096


@final
class EnvoyGate(external_auth_pb2_grpc.AuthorizationServicer):
    """Answers Envoy for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def Check(
        self,
        request: external_auth_pb2.CheckRequest,
        context: grpc.aio.ServicerContext[external_auth_pb2.CheckRequest, external_auth_pb2.CheckResponse],  # noqa: ARG002 - gRPC passes it
    ) -> external_auth_pb2.CheckResponse:
        """Whether a request is let through. A failure is no answer, and no answer is a refusal."""
        http = request.attributes.request.http
        answer = self._gate.check(self._sessions(request))
        sent = {*http.headers, *(value.key for value in http.header_map.headers)}
        return _response(answer, sent)

    def _sessions(self, request: external_auth_pb2.CheckRequest) -> Sequence[bytes]:
        router, said = self._gate.router, request.attributes.context_extensions
        known = {name: said[name] for name in EXTENSIONS if name in said}
        match known:
            case {"weighbridge_route": name, **rest} if not rest:
                return router.named(name)
            case {"weighbridge_session": text, **rest} if not rest:
                return router.session(text)
            case {"weighbridge_model": model, "weighbridge_tenant": tenant, **rest} if not rest:
                return router.model(tenant, model)
            case _ if known:
                # Two answers to one question, or half of one.
                return ()
            case _:
                http = request.attributes.request.http
                return router.placed(http.host, http.path)


def server(gate: Gate) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """A server with the gate's service and that of health, which has yet to be started.

    Its health says that it answers, not that anything is open.
    """
    made = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", _MESSAGE_MAX),
            ("grpc.max_concurrent_streams", _STREAMS_MAX),
            ("grpc.so_reuseport", 0),
        ]
    )
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(EnvoyGate(gate), made)
    checker = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, made)
    return made, checker


SERVING: Final = health_pb2.HealthCheckResponse.SERVING
"""What the server's health says once it listens."""


def _response(answer: Answer, sent: set[str]) -> external_auth_pb2.CheckResponse:
    """What Envoy is told. ``sent``: the names of the headers that the client has sent."""
    response = external_auth_pb2.CheckResponse()
    response.dynamic_metadata.update(cast("Mapping[str, str | float | bool | None]", answer.document))
    if not answer.allowed:
        response.status.code = _PERMISSION_DENIED
        denied = response.denied_response
        denied.status.code = _FORBIDDEN
        denied.body = answer.body.decode()
        for name, value in answer.refusal_headers.items():
            _set(denied.headers.add(), name, value)
        return response
    response.status.code = _OK
    allowed, own = response.ok_response, answer.headers
    for name, value in own.items():
        _set(allowed.headers.add(), name, value)
    for name in sorted(sent):
        if header_key(name).startswith(HEADER_PREFIX) and name.lower() not in own:
            allowed.headers_to_remove.append(name)
    # The client learns by which result it was let through; a server's own word for it does not pass.
    result = f"{HEADER_PREFIX}result"
    _set(allowed.response_headers_to_add.add(), result, own[result])
    return response


def _set(option: HeaderValueOption, name: str, value: str) -> None:
    option.header.key, option.header.value, option.append_action = name, value, _OVERWRITE
