"""``weighbridge serve``: a verifier that judges attesters over gRPC, from one state directory, until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy import policy_set
from weighbridge.proto import limits
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.engines import add_engine
from weighbridge.verifier.commands.foreign import add_foreign, is_foreign, with_foreign
from weighbridge.verifier.commands.outcome import (
    Outcome,
    load_anchors,
    load_policy,
    read,
    read_manifest,
    read_reference,
    taken_for,
    usage,
)
from weighbridge.verifier.commands.state import deployment_class
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.requirements import Requirements
from weighbridge.verifier.telemetry.history import FINGERPRINTS_KEPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.verifier.core import Verifier
    from weighbridge.verifier.deployment import Deployment

__all__ = ["add_manifests", "configure"]

_NO_COLLATERAL: Final = (
    "no collateral: of GPUs neither revocation nor makers' manifests are known; `weighbridge collateral fetch` gets "
    "them, --collateral DIR judges by them"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve`` to ``parser``."""
    parser.description = (
        "Judge attesters over gRPC, from the directory that `weighbridge init` made, until SIGINT or SIGTERM. What "
        "is judged by is said in docs/operating.md, and stands in every verdict."
    )
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument("--requirements", required=True, metavar="FILE", help="what is demanded of every session")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        default=[],
        help=f"a policy that comes with Weighbridge ({', '.join(policy_set.SHIPPED)}), or a Rego file (several times "
        "for several modules), for every tenant that has no bundle of its own",
    )
    parser.add_argument(
        "--policy-bundle",
        metavar="FILE",
        action="append",
        default=[],
        type=Path,
        help="a signed policy (weighbridge policy bundle): one for each tenant, and at most one for all others in "
        "place of --policy (several times); looked at again before each window, and on SIGHUP",
    )
    add_foreign(parser)
    add_engine(parser)
    add_manifests(parser)
    parser.add_argument("--reference", required=True, metavar="FILE", help="reference values")
    parser.add_argument(
        "--models",
        "--hosts",
        "--baseline",
        dest="models",
        metavar="FILE",
        action="append",
        default=[],
        type=Path,
        help="a set that its owner signed, of models, hosts or baselines: three names of one option (several times); "
        "looked at again before each window, and on SIGHUP",
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
    parser.add_argument(
        "--fingerprints",
        default=FINGERPRINTS_KEPT,
        type=given.number,
        metavar="N",
        help="of GPUs' samples, remembered so that a recording shows that is played again; of what is too "
        f"much, the GPU with most loses its oldest (default: {FINGERPRINTS_KEPT})",
    )
    parser.add_argument(
        "--relying-parties",
        metavar="FILE",
        help="who may ask how sessions stand, by TLS key, for which tenants and audiences (docs/results.md); "
        "default: nobody",
    )
    parser.add_argument(
        "--relying-party-ca",
        metavar="FILE",
        type=Path,
        help="PEM: authorities of relying parties' certificates, beside the one of STATE; they admit no attester",
    )
    parser.add_argument("--port-file", type=Path, metavar="FILE", help="write the port here once listening")
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    parser.set_defaults(run=_run_serve)


def add_manifests(parser: argparse.ArgumentParser) -> None:
    """Add the declared manifests."""
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        action="append",
        default=[],
        help="a declared model's or adapter's manifest: refusals name file and tensor (several times)",
    )


def _run_serve(arguments: argparse.Namespace) -> Outcome | int:
    if not arguments.policy and not arguments.policy_bundle:
        return usage("nothing to judge by: --policy or --policy-bundle", command="serve")
    if is_foreign(arguments) and not arguments.policy:
        return usage("--foreign needs --policy: a bundle has its own", command="serve")
    if arguments.relying_party_ca is not None and arguments.relying_parties is None:
        return usage("--relying-party-ca needs --relying-parties: nobody is one yet", command="serve")
    deployment = deployment_class()
    from weighbridge.verifier.baseline_watch import BaselineKeeper  # noqa: PLC0415 - heavy, and only here
    from weighbridge.verifier.clock import SystemClock  # noqa: PLC0415 - heavy, and only here
    from weighbridge.verifier.collateral.store import CollateralStore  # noqa: PLC0415
    from weighbridge.verifier.core import Verifier  # noqa: PLC0415
    from weighbridge.verifier.policy_watch import PolicyWatch  # noqa: PLC0415
    from weighbridge.verifier.reference_watch import ReferenceWatch  # noqa: PLC0415

    data = read(arguments.requirements, limit=limits.TERMS_MAX)
    with taken_for(arguments.requirements, what="requirements", hint="docs/protocol.md §4.5 says what is in them"):
        requirements = Requirements.parse(data)
    parties = _relying_parties(arguments.relying_parties)
    reference = read_reference(arguments.reference)
    own = with_foreign(load_policy(arguments.policy, reference), arguments) if arguments.policy else None
    manifests = {manifest.digest: manifest for manifest in map(read_manifest, arguments.manifest)}
    anchors = load_anchors(arguments.anchors)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(deployment.open(arguments.state, fingerprints_kept=arguments.fingerprints))
        # A restart is no way to set the clock back.
        clock = SystemClock(opened.archive.latest())
        policies = PolicyWatch(
            arguments.policy_bundle,
            own=own,
            anchors=anchors,
            store=opened.store,
            load=arguments.engine.open().load,
            report=_note,
        )
        watch = ReferenceWatch(
            arguments.models,
            own=reference,
            anchors=anchors,
            store=opened.store,
            policies=policies,
            manifests=manifests,
            report=_note,
            collateral=None if arguments.collateral is None else CollateralStore.open(arguments.collateral),
            baselines=BaselineKeeper(anchors=anchors, store=opened.store, archive=opened.archive),
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
        # Before any attester is asked for anything that nobody could judge.
        judges = policies.in_force.of(requirements.tenant)
        for other in policies.in_force.besides(requirements.tenant):
            _note(f"weighbridge: warning: the policy for {other} judges nothing: the tenant is {requirements.tenant}")
        watched = [*arguments.models, *arguments.policy_bundle]
        if watched or arguments.collateral is not None:
            verifier.follow(watch)
        _note(f"verifier {opened.keys.thumbprint.hex()}, policy {judges.policy.digest.hex()}")
        if requirements.gpus and arguments.collateral is None:
            _note(_NO_COLLATERAL)
        asyncio.run(_serve(verifier, opened, arguments, parties, watch.ask if watched else None))
        size = opened.archive.ledger.size
    return Outcome(
        f"stopped; the ledger has {counted(size, 'entry', 'entries')}\n",
        {"schema": "weighbridge/serve/v1", "ledger_size": size},
    )


async def _serve(
    verifier: Verifier,
    opened: Deployment,
    arguments: argparse.Namespace,
    parties: RelyingParties,
    hangup: Callable[[], None] | None,
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

    tls = opened.tls.with_relying_parties(arguments.relying_party_ca)
    await serve(verifier, host=host, port=port, tls=tls, started=started, stop=stop, parties=parties)


def _relying_parties(path: str | None) -> RelyingParties:
    if path is None:
        return RelyingParties.none()
    data = read(path, limit=limits.REFERENCE_SET_MAX)
    with taken_for(path, what="a list of relying parties", hint="docs/results.md says what is in it"):
        return RelyingParties.parse(data)


def _write_port(path: Path, port: int) -> None:
    from weighbridge.verifier.files import PosixFiles, fault, install  # noqa: PLC0415 - only here

    try:
        install(PosixFiles(), b"%d\n" % port, path, staging=path.with_name(f".{path.name}.new"), mode=0o644)
    except OSError as error:
        raise fault(error, path, "writing the port") from error


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress of a long-running command
