"""``weighbridge gate serve``: a gate for proxies."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.proto import strict
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.options import UsageFault
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.gate_line import Inputs, add_line, credentials_of, missing, note, source_of
from weighbridge.verifier.commands.outcome import Outcome, write
from weighbridge.verifier.gate.checking import Gate
from weighbridge.verifier.gate.instant import SystemClocks
from weighbridge.verifier.gate.place import Place
from weighbridge.verifier.gate.watcher import Watcher

if TYPE_CHECKING:
    from weighbridge.verifier.gate.serving import Listening
    from weighbridge.verifier.result_client import Credentials

__all__ = ["configure"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``gate serve`` to ``parser``."""
    parser.description = (
        "Answer proxies whether a request may go to a model's session, by what a verifier tells. On SIGHUP the gate's "
        "file, the anchors and the keys are read again; if any of them is no good, those in force stay. On SIGTERM it "
        "ends; a proxy that is not answered refuses."
    )
    add_line(parser)
    parser.add_argument(
        "--listen",
        metavar="PLACE",
        type=_place,
        help="HOST:PORT, or unix:PATH, for Envoy's ext_authz over gRPC; beyond the loopback interface only with "
        "--listen-key and its like",
    )
    parser.add_argument(
        "--http", metavar="HOST:PORT", type=given.listen, help="for auth_request over HTTP, on the loopback interface"
    )
    for name, what in (
        ("key", "the gate's key for --listen"),
        ("certificate", "its certificate"),
        ("client-ca", "who certifies Envoy's key"),
    ):
        parser.add_argument(f"--listen-{name}", metavar="FILE", help=f"PEM: {what}")
    parser.add_argument(
        "--port-file", type=Path, metavar="FILE", help="write the ports there as JSON, once they listen"
    )
    parser.set_defaults(run=_run)


def _place(text: str) -> Place:
    if text.startswith("unix:"):
        return Place(socket=Path(text.removeprefix("unix:")))
    return Place(*given.listen(text))


def _run(arguments: argparse.Namespace) -> Outcome:
    envoy: Place | None = arguments.listen
    http = None if arguments.http is None else Place(*arguments.http)
    tls = _tls(arguments, envoy, http)
    inputs = Inputs(arguments.config, arguments.anchors, arguments.jwks)
    gate = Gate(*inputs.read(), SystemClocks())
    watcher = Watcher(gate, source_of(arguments), report=note)
    asyncio.run(_serve(gate, watcher, arguments, inputs, (envoy, http, tls)))
    return Outcome("stopped\n", {"schema": "weighbridge/gate-serve/v1"})


def _tls(arguments: argparse.Namespace, envoy: Place | None, http: Place | None) -> Credentials | None:
    if envoy is None and http is None:
        raise UsageFault("nobody to answer: --listen or --http", hint="`weighbridge gate serve --help` shows both")
    if http is not None and not http.is_local:
        raise UsageFault(
            f"--http is for the loopback interface, not {http.host}", hint="run the gate on the proxy's own host"
        )
    given_ = [arguments.listen_client_ca, arguments.listen_key, arguments.listen_certificate]
    if all(given_):
        return credentials_of(authority=given_[0], key=given_[1], certificate=given_[2])
    if any(given_):
        raise UsageFault("--listen-key, --listen-certificate and --listen-client-ca go together")
    if envoy is not None and not envoy.is_local:
        raise UsageFault(
            f"whoever answers in the gate's place opens it: {envoy.host} needs --listen-key, --listen-certificate and "
            "--listen-client-ca",
            hint="or listen on the loopback interface, or on unix:PATH",
        )
    return None


async def _serve(
    gate: Gate,
    watcher: Watcher,
    arguments: argparse.Namespace,
    inputs: Inputs,
    places: tuple[Place | None, Place | None, Credentials | None],
) -> None:
    try:
        from weighbridge.verifier.gate.serving import serve  # noqa: PLC0415 - gRPC and Envoy's messages
    except ModuleNotFoundError as error:
        raise missing(error) from error
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def again() -> None:
        try:
            gate.take(*inputs.read())
        except WeighbridgeError as error:
            note(f"warning: what is in force stays: {error}")
        else:
            watcher.renew()
            note("read again: the gate's file, the anchors and the keys")

    def started(listening: Listening) -> None:
        for what, place, port in (("Envoy", places[0], listening.envoy), ("HTTP", places[1], listening.http)):
            if place is not None:
                note(f"{what} is answered at {place if port is None else f'{place.host}:{port}'}")
        if arguments.port_file is not None:
            document = strict.json_encode({"envoy": listening.envoy, "http": listening.http})
            write(arguments.port_file, document + b"\n", doing="writing the ports")

    loop.add_signal_handler(signal.SIGHUP, again)
    await serve(gate, watcher, envoy=places[0], http=places[1], tls=places[2], started=started, stop=stop)
