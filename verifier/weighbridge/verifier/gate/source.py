"""Where a gate hears of sessions: a verifier over gRPC, each line over a channel of its own."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from weighbridge.verifier.result_client import Answered, Bearer, Credentials
    from weighbridge.verifier.told import Model

__all__ = ["GrpcSource", "Source"]


class Source(Protocol):
    """Where answers come from."""

    def watch(self, sessions: Sequence[bytes], *, audience: str) -> AsyncGenerator[Answered | None]:
        """How ``sessions`` stand, each at once and then at each change; ``None``: nothing has changed.

        Raises:
            WeighbridgeError: as :meth:`weighbridge.verifier.result_client.ResultClient.watch`.
        """
        ...

    def watch_model(self, model: Model, *, audience: str) -> AsyncGenerator[Answered | None]:
        """The same of all sessions of a model, those that come later as well.

        Raises:
            WeighbridgeError: as :meth:`watch`.
        """
        ...

    async def token_keys(self) -> bytes:
        """The verifier's keys for tokens: untrusted, a JSON Web Key Set.

        Raises:
            WeighbridgeError: as :meth:`weighbridge.verifier.result_client.ResultClient.token_keys`.
        """
        ...


@final
class GrpcSource:
    """A verifier.

    Args:
        target: ``HOST:PORT``; the host must be named in the verifier's certificate.
        credentials: of the channel.
    """

    __slots__ = ("_credentials", "_target")

    def __init__(self, target: str, credentials: Credentials | Bearer) -> None:
        self._target = target
        self._credentials = credentials

    async def watch(self, sessions: Sequence[bytes], *, audience: str) -> AsyncGenerator[Answered | None]:
        """See :meth:`Source.watch`."""
        from weighbridge.verifier.result_client import ResultClient  # noqa: PLC0415 - gRPC, which the base lacks

        async with (
            ResultClient(self._target, self._credentials) as client,
            aclosing(client.watch(sessions, audience=audience)) as told,
        ):
            async for answered in told:
                yield answered

    async def watch_model(self, model: Model, *, audience: str) -> AsyncGenerator[Answered | None]:
        """See :meth:`Source.watch_model`."""
        from weighbridge.verifier.result_client import ResultClient  # noqa: PLC0415 - gRPC, which the base lacks

        async with (
            ResultClient(self._target, self._credentials) as client,
            aclosing(client.watch_model(model.tenant, model.digest, audience=audience)) as told,
        ):
            async for answered in told:
                yield answered

    async def token_keys(self) -> bytes:
        """See :meth:`Source.token_keys`."""
        from weighbridge.verifier.result_client import ResultClient  # noqa: PLC0415 - gRPC, which the base lacks

        async with ResultClient(self._target, self._credentials) as client:
            return await client.token_keys()
