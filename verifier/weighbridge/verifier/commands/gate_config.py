"""``weighbridge gate check | envoy-config | nginx-config``: a gate's file, read, and made into proxies' own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.gate_line import read_file
from weighbridge.verifier.commands.outcome import Outcome, read, write
from weighbridge.verifier.commands.text import counted, line
from weighbridge.verifier.gate.envoy_config import EnvoyConfig
from weighbridge.verifier.gate.nginx_config import NginxConfig, Pinned
from weighbridge.verifier.gate.place import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["configure_check", "configure_envoy", "configure_nginx"]

_REQUEST_S: Final = 120
_REQUEST_MAX: Final = 24 * 3600


def configure_check(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``gate check`` to ``parser``."""
    parser.description = "Read a gate's file as `gate serve` does, and say what it lets through. Nobody is asked."
    parser.add_argument("config", metavar="FILE", help="the gate's file")
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=_run_check)


def configure_envoy(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``gate envoy-config`` to ``parser``."""
    parser.description = (
        "Write a configuration of Envoy: routes that ask the gate, and for each session a cluster that takes no server "
        "but the one with the session's serving key."
    )
    _add_proxy(parser, gate="127.0.0.1:9001", listen="127.0.0.1:8080")
    parser.set_defaults(run=_run_envoy)


def configure_nginx(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``gate nginx-config`` to ``parser``."""
    parser.description = (
        "Write server blocks of nginx: locations that ask the gate, each trusting the certificate of one session's "
        "server and no other. nginx pins certificates, not keys: each must be self-signed, and still be valid."
    )
    _add_proxy(parser, gate="127.0.0.1:9002", listen="127.0.0.1:8080")
    parser.add_argument(
        "--certificate",
        metavar="NAME=FILE",
        action="append",
        default=[],
        type=_file,
        help="a session's server certificate, PEM, where nginx will find it (several times)",
    )
    parser.set_defaults(run=_run_nginx)


def _add_proxy(parser: argparse.ArgumentParser, *, gate: str, listen: str) -> None:
    parser.add_argument("config", metavar="FILE", help="the gate's file")
    parser.add_argument(
        "--upstream",
        metavar="NAME=HOST:PORT",
        action="append",
        default=[],
        type=_upstream,
        help="where a session's server is (several times)",
    )
    parser.add_argument(
        "--gate", metavar="HOST:PORT", default=gate, type=given.listen, help=f"where the gate answers (default {gate})"
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=listen,
        type=given.listen,
        help=f"where the proxy listens, in plain HTTP (default {listen})",
    )
    parser.add_argument(
        "--request-seconds",
        metavar="S",
        default=_REQUEST_S,
        type=_seconds,
        help=f"how long a request may take (default {_REQUEST_S}, as long as any token lives)",
    )
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="the file to write")
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")


def _seconds(text: str) -> int:
    found = given.decimal(text, what="the seconds", limit=_REQUEST_MAX)
    if found == 0:
        raise argparse.ArgumentTypeError("at least one second")
    return found


def _upstream(text: str) -> tuple[str, tuple[str, int]]:
    name, place = _named(text, "HOST:PORT")
    return name, given.listen(place)


def _file(text: str) -> tuple[str, str]:
    return _named(text, "FILE")


def _named(text: str, what: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise argparse.ArgumentTypeError(f"not NAME={what}")
    return name, value


def _run_check(arguments: argparse.Namespace) -> Outcome:
    file = read_file(arguments.config)
    routes: list[strict.JsonValue] = []
    lines: list[str] = []
    for route in file.routes:
        names = [one.name for one in file.sessions_of(route)]
        lines += [f"  {route.name:<16} {host}{route.path} -> {', '.join(names)}\n" for host in route.hosts]
        routes.append({"name": route.name, "hosts": list(route.hosts), "path": route.path, "sessions": list(names)})
    unpinned = [one.name for one in file.sessions if not isinstance(one.cnf, str)]
    warning = f"not pinned to a serving key: {', '.join(unpinned)}\n" if unpinned else ""
    sessions = counted(len(file.sessions), "session")
    text = f"{sessions} for {line(file.audience)}, accepted: {file.accept}\n{''.join(lines)}{warning}"
    document: strict.JsonObject = {
        "schema": "weighbridge/gate-check/v1",
        "audience": file.audience,
        "accept": file.accept,
        "routes": routes,
        "unpinned": list(unpinned),
    }
    return Outcome(text, document)


def _run_envoy(arguments: argparse.Namespace) -> Outcome:
    config = EnvoyConfig(
        file=read_file(arguments.config),
        gate=Place(*arguments.gate),
        listen=arguments.listen,
        upstreams=dict(arguments.upstream),
        request_s=arguments.request_seconds,
    )
    return _written(arguments.output, strict.json_encode(config.document(), indent=2) + b"\n", "envoy --config-path")


def _run_nginx(arguments: argparse.Namespace) -> Outcome:
    config = NginxConfig(
        file=read_file(arguments.config),
        gate=Place(*arguments.gate),
        listen=arguments.listen,
        upstreams=dict(arguments.upstream),
        certificates=_certificates(arguments.certificate),
        request_s=arguments.request_seconds,
    )
    return _written(arguments.output, config.text().encode(), "nginx: include it in http { }:")


def _certificates(listed: Sequence[tuple[str, str]]) -> dict[str, Pinned]:
    # nginx takes what is relative from a directory of its own.
    return {name: Pinned(str(Path(path).absolute()), read(path, limit=limits.CERT_MAX)) for name, path in listed}


def _written(path: Path, data: bytes, how: str) -> Outcome:
    write(path, data, doing="writing the configuration")
    return Outcome(f"wrote {path}\n  {how} {path}\n", {"schema": "weighbridge/gate-config/v1", "file": str(path)})
