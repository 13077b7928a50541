"""Why a port cannot be had. gRPC tells that to standard error alone, in words of its own; so it is asked before."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_port", "unavailable"]


def check_port(host: str, port: int, *, where: str) -> None:
    """Require that this process can listen on one of the addresses of ``host``.

    What is not checked: that it still can a moment later.

    Args:
        host: a name or an address.
        port: 0 for any free one.
        where: the place, for the message.

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``.
    """
    failure = OSError(0, "no address")
    try:
        for family, address in _addresses(host, port):
            try:
                _bind(family, address)
            except OSError as error:
                failure = error
            else:
                return
    except OSError as error:
        failure = error
    raise unavailable(failure, where=where) from failure


def unavailable(failure: OSError, *, where: str) -> EnvironmentFault:
    """``PORT_UNAVAILABLE``, for the reason that the system gives: Python's own words name the address once more."""
    # Of a name that has no address it is negative, and no error of the system's.
    number = failure.errno or 0
    reason = os.strerror(number) if number > 0 else failure.strerror or "no reason"
    return EnvironmentFault(
        Code.PORT_UNAVAILABLE,
        f"cannot listen here: {reason.lower()}",
        where=where,
        hint="choose another address, or stop the program that has this one",
    )


def _addresses(host: str, port: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        yield family, address


def _bind(family: int, address: tuple[Any, ...]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As gRPC does: connections that linger after a restart are no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
