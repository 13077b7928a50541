"""``weighbridge init | admit | sessions | export | clear``: what is done with a verifier's state directory."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from weighbridge.policy import policy_set
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import serve
from weighbridge.verifier.commands.outcome import Outcome, load_policy, no_state, read, read_manifest, read_reference
from weighbridge.verifier.commands.state import deployment_class, open_store

__all__ = ["configure_admit", "configure_clear", "configure_export", "configure_init", "configure_sessions"]


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
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run_init)


def _run_init(arguments: argparse.Namespace) -> Outcome:
    deployment = deployment_class()
    state: Path = arguments.state
    hosts = tuple(arguments.host) or ("localhost", "127.0.0.1")
    deployment.create(state, origin=arguments.origin, hosts=hosts, at=datetime.now(UTC))
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
    return Outcome(text, document)


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


# -- sessions, export, clear ------------------------------------------------------------------------------------------


def configure_sessions(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``weighbridge sessions``."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run_sessions)


def _run_sessions(arguments: argparse.Namespace) -> Outcome:
    from weighbridge.verifier.clock import moment  # noqa: PLC0415

    store = open_store(arguments.state)
    try:
        with store.transaction() as tx:
            rows = tx.sessions()
    finally:
        store.close()
    listed: list[strict.JsonValue] = [
        {
            "session": row.id.hex(),
            "state": row.state.value,
            "windows": row.next_seq,
            "ak": row.ak.hex(),
            "opened_at": strict.time_encode(moment(row.opened_ns)),
        }
        for row in rows
    ]
    lines = [f"{row.id.hex()}  {row.state.value:<11}  {row.next_seq:>6} windows\n" for row in rows]
    return Outcome("".join(lines) or "no sessions\n", {"schema": "weighbridge/sessions/v1", "sessions": listed})


def configure_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``weighbridge export``."""
    parser.description = (
        "Write a session's proof bundle, with every policy and all reference values by which it was judged: STATE has "
        "them."
    )
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument("session", metavar="SESSION", type=given.session, help="32 hexadecimal digits")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="such as session.wb")
    parser.add_argument("--reference", metavar="FILE", help="reference values, should STATE have lost them")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        default=[],
        help=f"a policy that comes with Weighbridge ({', '.join(policy_set.SHIPPED)}), or a Rego file (several times), "
        "should STATE have lost it",
    )
    serve.add_manifests(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run_export)


def _run_export(arguments: argparse.Namespace) -> Outcome:
    deployment = deployment_class()
    from weighbridge.verifier.bundle import assemble, ending  # noqa: PLC0415 - only here
    from weighbridge.verifier.files import PosixFiles, fault, install  # noqa: PLC0415

    session: bytes = arguments.session
    given_values = () if arguments.reference is None else (read_reference(arguments.reference),)
    given_policies = [load_policy(arguments.policy, Reference({}, {}, {})).files] if arguments.policy else []
    manifests = [read_manifest(path) for path in arguments.manifest]
    store = open_store(arguments.state)
    try:
        with store.transaction() as tx:
            row, indices = tx.session(session), tx.window_indices(session)
    finally:
        store.close()
    if row is None:
        raise Indeterminate(Code.SESSION_UNKNOWN, "no such session here", where="SESSION", got=session)
    chain = (row.enrolment_index, *indices)
    with deployment.reading(arguments.state) as (records, reader):
        bundle = assemble(
            records,
            reader,
            [*chain, *ending(reader, session, after=chain[-1], seq=len(indices))],
            policies=given_policies,
            references=[values.to_json() for values in given_values],
            manifests=manifests,
        )
    data = bundle.encode()
    target: Path = arguments.output
    try:
        install(PosixFiles(), data, target, staging=target.with_name(f".{target.name}.new"), mode=0o644)
    except OSError as error:
        raise fault(error, target, "writing the bundle") from error
    windows = sum(entry.evidence is not None for entry in bundle.entries[1:])
    text = f"wrote {target}: {windows} windows, {len(data)} bytes\n"
    return Outcome(text, {"schema": "weighbridge/export/v1", "windows": windows, "bytes": len(data)})


def configure_clear(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``weighbridge clear``."""
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory (not while it serves)")
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
