"""``weighbridge init | admit | serve | sessions | export | clear``: running a verifier from one state directory."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from weighbridge.policy.policy_set import PolicySet
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import (
    Outcome,
    load_anchors,
    load_policy,
    no_state,
    read,
    read_manifest,
    read_reference,
    taken_for,
)
from weighbridge.verifier.commands.state import deployment_class, open_store
from weighbridge.verifier.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weighbridge.verifier.core import Verifier
    from weighbridge.verifier.deployment import Deployment

__all__ = ["Commands", "configure"]

_NO_COLLATERAL: Final = (
    "no collateral: of GPUs neither revocation nor makers' manifests are known; `weighbridge collateral fetch` gets "
    "them, --collateral DIR judges by them"
)


class Commands(Protocol):
    """What argparse gives for sub-commands, which has no public name."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:  # noqa: A002 - argparse's word
        """Add a sub-command."""
        ...


def configure(commands: Commands) -> None:
    """Add the operator's commands to the command line's."""
    _configure_init(commands)
    _configure_admit(commands)
    _configure_serve(commands)
    _configure_sessions(commands)
    _configure_export(commands)
    _configure_clear(commands)


# -- init, admit ------------------------------------------------------------------------------------------------------


def _configure_init(commands: Commands) -> None:
    parser = commands.add_parser("init", help="make a new verifier: keys, ledger, store, channel certificates")
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


def _configure_admit(commands: Commands) -> None:
    parser = commands.add_parser("admit", help="issue a channel certificate for an attester's signing request")
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


# -- serve ------------------------------------------------------------------------------------------------------------


def _configure_serve(commands: Commands) -> None:
    parser = commands.add_parser("serve", help="judge attesters over gRPC")
    parser.description = (
        "Judge attesters over gRPC, from the directory that `weighbridge init` made, until SIGINT or SIGTERM. What "
        "is judged by is said in docs/operating.md, and stands in every verdict."
    )
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument("--requirements", required=True, metavar="FILE", help="what is demanded of every session")
    _add_judging(parser)
    parser.add_argument("--reference", required=True, metavar="FILE", help="reference values")
    parser.add_argument(
        "--models",
        "--hosts",
        dest="models",
        metavar="FILE",
        action="append",
        default=[],
        type=Path,
        help="a set signed by a models' or a hosts' owner (several times); looked at again before each window, and on "
        "SIGHUP",
    )
    parser.add_argument(
        "--collateral",
        metavar="DIR",
        type=Path,
        help="what makers of hardware publish (weighbridge collateral): manifests, revocations; looked at again before "
        "each window",
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="roots of TPMs and GPUs, keys of owners, of issuers; shipped: those shipped, the default (several times)",
    )
    parser.add_argument(
        "--listen",
        default=("127.0.0.1", 0),
        type=given.listen,
        metavar="HOST:PORT",
        help="port 0 takes any free one (default: 127.0.0.1:0)",
    )
    parser.add_argument("--port-file", type=Path, metavar="FILE", help="write the port here once listening")
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    parser.set_defaults(run=_run_serve)


def _add_judging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        required=True,
        help="production, insecure_development, or a Rego file (several times for several modules)",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        action="append",
        default=[],
        help="a declared model's or adapter's manifest: refusals name file and tensor (several times)",
    )


def _judging(arguments: argparse.Namespace, reference: Reference) -> tuple[PolicySet, Mapping[bytes, Manifest]]:
    policy = load_policy(arguments.policy, reference)
    manifests = [read_manifest(path) for path in arguments.manifest]
    return policy, {manifest.digest: manifest for manifest in manifests}


def _run_serve(arguments: argparse.Namespace) -> Outcome:
    deployment = deployment_class()
    from weighbridge.policy.engines.regorus import RegorusEngine  # noqa: PLC0415 - heavy, and only here
    from weighbridge.verifier.clock import SystemClock  # noqa: PLC0415
    from weighbridge.verifier.collateral.store import CollateralStore  # noqa: PLC0415
    from weighbridge.verifier.core import Verifier  # noqa: PLC0415
    from weighbridge.verifier.reference_watch import ReferenceWatch  # noqa: PLC0415

    data = read(arguments.requirements, limit=limits.TERMS_MAX)
    with taken_for(arguments.requirements, what="requirements", hint="docs/protocol.md §4.5 says what is in them"):
        requirements = Requirements.parse(data)
    policy, manifests = _judging(arguments, read_reference(arguments.reference))
    anchors = load_anchors(arguments.anchors)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(deployment.open(arguments.state))
        # A restart is no way to set the clock back.
        clock = SystemClock(opened.archive.latest())
        watch = ReferenceWatch(
            arguments.models,
            own=policy.reference,
            anchors=anchors,
            store=opened.store,
            prepare=lambda reference: RegorusEngine().load(PolicySet(policy.modules, reference)),
            manifests=manifests,
            report=_note,
            collateral=None if arguments.collateral is None else CollateralStore.open(arguments.collateral),
        )
        stack.callback(watch.close)
        verifier = Verifier(
            requirements=requirements,
            anchors=anchors,
            appraiser=watch.open(datetime.now(UTC)),
            keys=opened.keys,
            archive=opened.archive,
            store=opened.store,
            clock=clock,
            issuer=opened.archive.ledger.key.name,
        )
        if arguments.models or arguments.collateral is not None:
            verifier.follow(watch)
        _note(f"verifier {opened.keys.thumbprint.hex()}, policy {policy.digest.hex()}")
        if requirements.gpus and arguments.collateral is None:
            _note(_NO_COLLATERAL)
        asyncio.run(_serve(verifier, opened, arguments, watch.ask if arguments.models else None))
        size = opened.archive.ledger.size
    return Outcome(f"stopped; the ledger has {size} entries\n", {"schema": "weighbridge/serve/v1", "ledger_size": size})


async def _serve(
    verifier: Verifier, opened: Deployment, arguments: argparse.Namespace, hangup: Callable[[], None] | None
) -> None:
    from weighbridge.verifier.service import serve  # noqa: PLC0415 - gRPC, only here

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, hangup)
    host, port = arguments.listen

    def started(bound: int) -> None:
        _note(f"listening on {host}:{bound}")
        if arguments.port_file is not None:
            _write_port(arguments.port_file, bound)

    await serve(verifier, host=host, port=port, tls=opened.tls, started=started, stop=stop)


def _write_port(path: Path, port: int) -> None:
    from weighbridge.verifier.files import PosixFiles, fault, install  # noqa: PLC0415 - only here

    try:
        install(PosixFiles(), b"%d\n" % port, path, staging=path.with_name(f".{path.name}.new"), mode=0o644)
    except OSError as error:
        raise fault(error, path, "writing the port") from error


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress of a long-running command


# -- sessions, export, clear ------------------------------------------------------------------------------------------


def _configure_sessions(commands: Commands) -> None:
    parser = commands.add_parser("sessions", help="list the sessions that this verifier has recorded")
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


def _configure_export(commands: Commands) -> None:
    parser = commands.add_parser("export", help="write a session's proof bundle")
    parser.description = (
        "Write a session's proof bundle. Name the policy that serve was given: with another, whoever opens the bundle "
        "cannot check the recorded verdicts. The reference values by which it judged are in STATE."
    )
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument("session", metavar="SESSION", type=given.session, help="32 hexadecimal digits")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="such as session.wb")
    parser.add_argument("--reference", metavar="FILE", help="reference values, should STATE have lost them")
    _add_judging(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run_export)


def _run_export(arguments: argparse.Namespace) -> Outcome:
    deployment = deployment_class()
    from weighbridge.verifier.bundle import assemble, ending  # noqa: PLC0415 - only here
    from weighbridge.verifier.files import PosixFiles, fault, install  # noqa: PLC0415

    session: bytes = arguments.session
    given_values = () if arguments.reference is None else (read_reference(arguments.reference),)
    policy, manifests = _judging(arguments, Reference({}, {}, {}))
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
            modules=[(module.name, module.text) for module in policy.modules],
            references=[values.to_json() for values in given_values],
            manifests=list(manifests.values()),
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


def _configure_clear(commands: Commands) -> None:
    parser = commands.add_parser("clear", help="forgive a failure that sticks, for a recorded reason")
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
