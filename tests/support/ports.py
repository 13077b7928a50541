"""Ports that nobody has now: another process may take one before it is used."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["free_port", "free_ports"]


def free_port() -> int:
    """One of this machine's."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """As many as are asked for, each another one."""
    with contextlib.ExitStack() as opened:
        probes = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]
