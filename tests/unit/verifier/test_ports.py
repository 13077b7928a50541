"""Ports that cannot be had, and why."""

from __future__ import annotations

import socket

import pytest

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.ports import check_port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_free_port(host: str) -> None:
    check_port(host, 0, where="here")


@pytest.mark.parametrize(
    ("host", "reason"), [("203.0.113.1", "cannot assign requested address"), ("nowhere.invalid", "cannot listen here")]
)
def test_not_this_machine(host: str, reason: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        check_port(host, 0, where=f"{host}:0")
    assert (caught.value.code, caught.value.where) == (Code.PORT_UNAVAILABLE, f"{host}:0")
    assert reason in caught.value.message
    assert "another address" in caught.value.hint


def test_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = int(other.getsockname()[1])
        with pytest.raises(EnvironmentFault) as caught:
            check_port("127.0.0.1", port, where=f"127.0.0.1:{port}")
    assert "address already in use" in caught.value.message
