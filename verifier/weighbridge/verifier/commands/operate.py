"""``weighbridge init | admit | clear``: what is done with a verifier's state directory."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import EnvironmentFault
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, no_state, read
from weighbridge.verifier.commands.state import deployment_class

if TYPE_CHECKING:
    from weighbridge.verifier.database import PostgresAddress
    from weighbridge.verifier.ledger.s3 import S3Address

__all__ = ["configure_admit", "configure_clear", "configure_init"]


# -- init, admit ------------------------------------------------------------------------------------------------------


def configure_init(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``weighbridge init``."""
    parser.add_argument("state", type=Path, metavar="STATE", help="directory to make")
    parser.add_argument(
        "--origin", required=True, type=given.origin, help="the ledger's name, such as ledger.example/windows"
    )
    parser.add_argument(
        "--host",
        action="append",
        type=given.host,
        default=[],
        help="name or address under which attesters reach it (several times; default: localhost and 127.0.0.1)",
    )
    parser.add_argument(
        "--ledger-storage",
        type=_storage,
        metavar="URL",
        help="keep ledger and evidence in object storage, such as s3://BUCKET/PREFIX (default: in STATE); endpoint, "
        "region and credentials come from AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, …, now and for `serve`",
    )
    parser.add_argument(
        "--store",
        type=_store,
        metavar="URL",
        help="remember sessions in this PostgreSQL, an empty database, which replicas share: "
        "postgresql://USER@HOST/NAME (default: in STATE/sessions.sqlite); a password comes from PGPASSFILE, ~/.pgpass "
        "or PGPASSWORD, now and for `serve`",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run_init)


def _run_init(arguments: argparse.Namespace) -> Outcome:
    deployment = deployment_class()
    state: Path = arguments.state
    hosts = tuple(arguments.host) or ("localhost", "127.0.0.1")
    storage: S3Address | None = arguments.ledger_storage
    store: PostgresAddress | None = arguments.store
    at = datetime.now(UTC)
    deployment.create(state, origin=arguments.origin, hosts=hosts, at=at, ledger_storage=storage, store=store)
    with deployment.open(state) as opened:
        thumbprint, vkey = opened.keys.thumbprint.hex(), opened.archive.ledger.key.vkey
    text = (
        f"made a verifier in {state}\n"
        f"  verifier key  {thumbprint}\n"
        f"  ledger key    {vkey}\n"
        f"  anchors       {state / 'anchors.json'} (give it to attesters and relying parties)\n"
        f"  channel CA    {state / 'tls' / 'ca.pem'} (give it to attesters)\n"
    )
    document: strict.JsonObject = {"schema": "weighbridge/init/v1", "verifier": thumbprint, "ledger": vkey}
    if storage is not None:
        text += f"  ledger        {storage.below('ledger')} (all of it but writer/ may be public)\n"
        document["ledger_storage"] = str(storage)
    if store is not None:
        text += f"  sessions      {store}\n"
        document["store"] = str(store)
    return Outcome(text, document)


def _store(text: str) -> PostgresAddress:
    deployment_class()
    from weighbridge.verifier.database import PostgresAddress  # noqa: PLC0415 - needs what only the server has

    try:
        return PostgresAddress.parse(text)
    except EnvironmentFault as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.hint}") from error


def _storage(text: str) -> S3Address:
    from weighbridge.verifier.ledger.s3 import S3Address  # noqa: PLC0415 - only here

    try:
        return S3Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def configure_admit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``weighbridge admit``."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument("request", metavar="CSR", help="the attester's request (PEM), or - for standard input")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="where to write it")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run_admit)


def _run_admit(arguments: argparse.Namespace) -> Outcome:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - with pki, only here

    from weighbridge.proto.digest import sha256  # noqa: PLC0415
    from weighbridge.verifier import pki  # noqa: PLC0415
    from weighbridge.verifier.certs import spki_der  # noqa: PLC0415
    from weighbridge.verifier.files import PosixFiles, fault, install  # noqa: PLC0415

    request = read(arguments.request, limit=limits.CERT_MAX)
    try:
        certificate = pki.issue_client(arguments.state / "tls", request, at=datetime.now(UTC))
    except OSError as error:
        raise no_state(arguments.state) from error
    target: Path = arguments.output
    pem = certificate.public_bytes(Encoding.PEM)
    try:
        install(PosixFiles(), pem, target, staging=target.with_name(f".{target.name}.new"), mode=0o644)
    except OSError as error:
        raise fault(error, target, "writing the certificate") from error
    peer = sha256(spki_der(certificate)).hex()
    text = (
        f"admitted peer {peer}\n"
        f"  certificate   {target}, until {certificate.not_valid_after_utc:%Y-%m-%d}\n"
        "  compare the peer with the fingerprint that the host printed before you hand it over\n"
    )
    return Outcome(text, {"schema": "weighbridge/admit/v1", "peer": peer})


# -- clear -------------------------------------------------------------------------------------------------------------


def configure_clear(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``weighbridge clear``."""
    parser.description = (
        "Forgive a failure that sticks to one attestation key or GPU. `weighbridge failures` lists them, and clears "
        "those of one code together."
    )
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument("kind", choices=("ak", "gpu"), help="what failed")
    parser.add_argument("identity", metavar="IDENTITY", type=given.digest, help="64 hexadecimal digits")
    parser.add_argument("--reason", required=True, type=given.reason, help="why; it stays on record")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run_clear)


def _run_clear(arguments: argparse.Namespace) -> Outcome:
    deployment = deployment_class()
    from weighbridge.verifier.clearing import clear  # noqa: PLC0415 - only here

    identity: bytes = arguments.identity
    with deployment.open(arguments.state) as opened:
        code, index = clear(
            opened.archive, opened.store, arguments.kind, identity, reason=arguments.reason, at=datetime.now(UTC)
        )
    text = f"cleared {code.value} of {arguments.kind} {identity.hex()}; recorded at ledger index {index}\n"
    return Outcome(text, {"schema": "weighbridge/clear/v1", "code": code.value, "ledger_index": index})
