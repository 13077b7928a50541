"""By what a relying party says who it is: its TLS key and certificate, or a bearer token."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.options import UsageFault
from weighbridge.verifier.commands.outcome import read

if TYPE_CHECKING:
    from weighbridge.verifier.result_client import Bearer, Credentials

__all__ = ["add_identity", "identity_of", "read_token"]

_PEM_MAX: Final = 8 * limits.CERT_MAX
_TOKEN_MAX: Final = 256


def add_identity(parser: argparse.ArgumentParser) -> None:
    """Add the options of either way."""
    parser.add_argument("--key", metavar="FILE", help="PEM: the relying party's TLS key")
    parser.add_argument("--certificate", metavar="FILE", help="PEM: its certificate")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="its bearer token, in the place of key and certificate; for the verifier's port for those",
    )


def identity_of(arguments: argparse.Namespace) -> Credentials | Bearer:
    """What was given.

    Raises:
        UsageFault: both, neither, or half of one.
        EnvironmentFault: ``FILE_UNREADABLE``, or ``TOOL_MISSING`` where gRPC is not installed.
        MalformedEvidence: ``FIELD_RANGE``: the file is no token.
    """
    try:
        from weighbridge.verifier.result_client import Bearer, Credentials  # noqa: PLC0415 - gRPC, only here
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING, f"{error.name} is not installed", hint="pip install 'weighbridge[server]'"
        ) from error
    pair = [path for path in (arguments.key, arguments.certificate) if path is not None]
    if len(pair) != (2 if arguments.token_file is None else 0):
        raise UsageFault("who asks: --key and --certificate, or --token-file")
    authority = read(arguments.verifier_ca, limit=_PEM_MAX)
    if arguments.token_file is not None:
        return Bearer(authority, read_token(arguments.token_file))
    return Credentials(authority, *(read(path, limit=_PEM_MAX) for path in pair))


def read_token(path: str) -> str:
    """The bearer token in a file.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: ``FIELD_RANGE``: it is none.
    """
    text = read(path, limit=_TOKEN_MAX).removesuffix(b"\n")
    if not text.isascii() or not text.decode("ascii", "replace").isprintable() or b" " in text or not text:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "not a bearer token: one word and nothing else",
            where=path,
            hint="`weighbridge relying-party token` makes one",
        )
    return text.decode("ascii")
