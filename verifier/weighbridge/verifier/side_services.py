"""Health and reflection beside the service's own calls: of each, one peer has no more than of its other calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from weighbridge.verifier.quotas import Limited

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2

    from weighbridge.verifier.quotas import Quotas

    _Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["Health", "Reflection"]


@final
class Health(health.aio.HealthServicer):
    """``grpc.health.v1``."""

    def __init__(self, quotas: Quotas) -> None:
        super().__init__()
        self._quotas = quotas

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: _Context) -> None:
        """As the standard has it."""
        try:
            with self._quotas.aside(_peer(context)):
                await super().Watch(request, context)
        except Limited as limited:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(limited))


@final
class Reflection:
    """``grpc.reflection.v1alpha``."""

    def __init__(self, names: Iterable[str], quotas: Quotas) -> None:
        self._described: Any = reflection.aio.ReflectionServicer(names)
        self._quotas = quotas

    async def ServerReflectionInfo(
        self, request_iterator: AsyncIterable[reflection_pb2.ServerReflectionRequest], context: _Context
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """As the standard has it."""
        try:
            with self._quotas.aside(_peer(context)):
                async for response in self._described.ServerReflectionInfo(request_iterator, context):
                    yield response
        except Limited as limited:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(limited))

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have ``server`` answer."""
        # The module has no types.
        module: Any = reflection_pb2_grpc
        module.add_ServerReflectionServicer_to_server(self, server)


def _peer(context: _Context) -> bytes:
    """Whoever it is: the certificate."""
    return b"".join(context.auth_context().get("x509_pem_cert", []))
