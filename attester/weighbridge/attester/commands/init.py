"""``weighbridge-attester init``: the host's two TLS keys, and the request for a certificate of one of them."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from weighbridge.attester.keys import ensure_keys
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode, MalformedEvidence
from weighbridge.proto.hosts import host_name

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
Keys that are there are kept. Both are made on this host and never leave the state directory (mode 0600):
  serving.key, serving.pem   the inference server's; named in every window as `cnf`
  channel.key, channel.csr   the attester's own; put the signed certificate beside them as channel.pem

example:
  weighbridge-attester init --state /var/lib/weighbridge --name gpu-7.example --name 10.0.0.7
"""

_SCHEMA: Final = "weighbridge/attester-keys/v1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``init`` to ``parser``."""
    parser.add_argument("--state", metavar="DIR", type=Path, required=True, help="the attester's state directory")
    parser.add_argument(
        "--name",
        metavar="NAME",
        action="append",
        type=_host,
        help="DNS name or IP address in the serving certificate (default: localhost, 127.0.0.1)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _host(text: str) -> str:
    try:
        return host_name(text, what="--name")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {error.got!r}") from error


def run(args: argparse.Namespace) -> int:
    """Make what is missing and print where it is.

    Raises:
        WeighbridgeError: ``DISK_FULL``, ``FILE_UNWRITABLE`` or ``STATE_CORRUPT``.
    """
    state: Path = args.state
    names: list[str] = args.name or ["localhost", "127.0.0.1"]
    cnf, peer = ensure_keys(state, names=names, at=datetime.now(UTC))
    request, certificate = state / "channel.csr", state / "channel.pem"
    if args.json:
        document = {
            "schema": _SCHEMA,
            "cnf": cnf.hex(),
            "peer": peer.hex(),
            "request": str(request),
            "certificate": str(certificate),
        }
        sys.stdout.write(strict.json_encode(document).decode() + "\n")
        return ExitCode.AFFIRMED
    sys.stdout.write(
        f"serving key  {cnf.hex()}  (cnf: relying parties pin it)\n"
        f"channel key  {peer.hex()}  (peer)\n"
        f"request      {request}\n"
    )
    if not certificate.exists():
        sys.stdout.write(
            f"next         have the verifier's operator sign it: weighbridge admit STATE {request} -o {certificate}\n"
        )
    return ExitCode.AFFIRMED
