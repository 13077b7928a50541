"""What every gate takes: its file, the verifier that it listens to, and whom it believes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier import notices
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.identity import add_identity, identity_of
from weighbridge.verifier.commands.outcome import load_anchors, read, taken_for
from weighbridge.verifier.gate.configuration import GateFile
from weighbridge.verifier.gate.verifiers import Verifiers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.gate.source import GrpcSource
    from weighbridge.verifier.result_client import Credentials

__all__ = ["Inputs", "add_line", "credentials_of", "missing", "note", "read_file", "source_of"]

_PEM_MAX: Final = 8 * limits.CERT_MAX


def add_line(parser: argparse.ArgumentParser) -> None:
    """Add the gate's file, the line to the verifier, and the anchors."""
    parser.add_argument("--config", required=True, metavar="FILE", help="the gate's file (docs/gates/README.md)")
    parser.add_argument(
        "--verifier", required=True, metavar="HOST:PORT", type=given.listen, help="where the verifier listens"
    )
    parser.add_argument(
        "--verifier-ca", required=True, metavar="FILE", help="PEM: who certifies the verifier's TLS key"
    )
    add_identity(parser)
    parser.add_argument(
        "--anchors", metavar="FILE", action="append", required=True, help="the verifier's identity (several times)"
    )
    parser.add_argument(
        "--jwks",
        metavar="FILE",
        help="the verifier's keys for tokens, as `weighbridge token jwks` prints them: these and no others (default: "
        "the verifier is asked for them; those count that the anchors' identity endorses)",
    )


def read_file(path: str) -> GateFile:
    """The gate's file.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :meth:`.GateFile.parse`, naming the file.
    """
    data = read(path, limit=limits.REFERENCE_SET_MAX)
    with taken_for(path, what="a gate's file", hint="docs/gates/README.md says what is in it"):
        return GateFile.parse(data)


class Inputs:
    """The files that a gate decides by, which may be read again while it runs."""

    def __init__(self, config: str, anchors: Sequence[str], jwks: str | None) -> None:
        self._config = config
        self._anchors = anchors
        self._jwks = jwks
        self._seen: tuple[bytes, bytes | None] | None = None
        self._verifiers: Verifiers | None = None

    def read(self) -> tuple[GateFile, Verifiers]:
        """All of them. Verifiers of which nothing has changed are the very same object.

        Raises:
            WeighbridgeError: one cannot be read, or is not what it should be.
        """
        file = read_file(self._config)
        anchors = load_anchors(self._anchors)
        jwks = None if self._jwks is None else read(self._jwks, limit=limits.JWKS_MAX)
        seen = anchors.encode(), jwks
        if self._verifiers is None or seen != self._seen:
            self._verifiers, self._seen = Verifiers.of(anchors, jwks), seen
        return file, self._verifiers


def credentials_of(*, authority: str, key: str, certificate: str) -> Credentials:
    """PEM files of a channel.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``, or ``TOOL_MISSING`` where gRPC is not installed.
    """
    try:
        from weighbridge.verifier.result_client import Credentials as Made  # noqa: PLC0415 - gRPC, only here
    except ModuleNotFoundError as error:
        raise missing(error) from error
    authority_, key_, certificate_ = (read(path, limit=_PEM_MAX) for path in (authority, key, certificate))
    return Made(authority=authority_, key=key_, certificate=certificate_)


def source_of(arguments: argparse.Namespace) -> GrpcSource:
    """The verifier that the arguments name.

    Raises:
        WeighbridgeError: as :func:`.identity_of`.
        UsageFault: as that.
    """
    from weighbridge.verifier.gate.source import GrpcSource as Made  # noqa: PLC0415 - only where it is listened to

    host, port = arguments.verifier
    return Made(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", identity_of(arguments))


def missing(error: ModuleNotFoundError) -> EnvironmentFault:
    """The fault of an installation without gates."""
    return EnvironmentFault(Code.TOOL_MISSING, f"{error.name} is not installed", hint="pip install 'weighbridge[gate]'")


def note(line: str) -> None:
    """Tell whoever runs the gate, on standard error."""
    notices.note(f"weighbridge: {line}")
