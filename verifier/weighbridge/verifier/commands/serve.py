"""``weighbridge serve``: a verifier that judges attesters over gRPC, from one state directory, until it is stopped."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy import policy_set
from weighbridge.verifier import notices
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.basis import lacking, needed
from weighbridge.verifier.commands.engines import add_engine
from weighbridge.verifier.commands.foreign import add_foreign
from weighbridge.verifier.commands.outcome import Outcome, usage
from weighbridge.verifier.commands.state import deployment_class
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.observed import UNOBSERVED
from weighbridge.verifier.parties_watch import PartiesWatch
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.settings.kinds import Place
from weighbridge.verifier.settings.layers import load
from weighbridge.verifier.telemetry.history import FINGERPRINTS_KEPT

if TYPE_CHECKING:
    from weighbridge.verifier.commands.basis import Basis
    from weighbridge.verifier.commands.benches import OpenBench
    from weighbridge.verifier.commands.workers import Worker
    from weighbridge.verifier.deployment import Deployment
    from weighbridge.verifier.observed import Observer
    from weighbridge.verifier.parties_watch import Parties

__all__ = ["add_manifests", "configure"]

# The configuration's keys, their options, and what argparse calls those.
_OPTIONS: Final = {
    ("serve", "state"): ("STATE", "state"),
    ("serve", "listen"): ("--listen", "listen"),
    ("serve", "workers"): ("--workers", "workers"),
    ("serve", "fingerprints"): ("--fingerprints", "fingerprints"),
    ("serve", "port_file"): ("--port-file", "port_file"),
    ("judging", "requirements"): ("--requirements", "requirements"),
    ("judging", "policy"): ("--policy", "policy"),
    ("judging", "policy_bundles"): ("--policy-bundle", "policy_bundle"),
    ("judging", "foreign"): ("--foreign", "foreign"),
    ("judging", "foreign_v0"): ("--foreign-v0", "foreign_v0"),
    ("judging", "foreign_values"): ("--foreign-values", "foreign_values"),
    ("judging", "engine"): ("--engine", "engine"),
    ("judging", "reference"): ("--reference", "reference"),
    ("judging", "sets"): ("--models", "models"),
    ("judging", "manifests"): ("--manifest", "manifest"),
    ("judging", "collateral"): ("--collateral", "collateral"),
    ("judging", "anchors"): ("--anchors", "anchors"),
    ("relying_parties", "file"): ("--relying-parties", "relying_parties"),
    ("relying_parties", "ca"): ("--relying-party-ca", "relying_party_ca"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve`` to ``parser``."""
    parser.description = (
        "Judge attesters over gRPC, from the directory that `weighbridge init` made, until SIGINT or SIGTERM. What "
        "is judged by is said in docs/operating.md, and stands in every verdict."
    )
    parser.add_argument("state", nargs="?", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a file with all that is said here and more (docs/configuration.md): what is said here wins over the "
        "environment, and that over the file",
    )
    parser.add_argument("--requirements", type=Path, metavar="FILE", help="what is demanded of every session")
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
    parser.add_argument("--reference", type=Path, metavar="FILE", help="reference values")
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
        type=_listen,
        metavar="HOST:PORT",
        help="port 0 takes any free one (default: 127.0.0.1:0)",
    )
    parser.add_argument(
        "--workers",
        type=given.number,
        metavar="N",
        help="processes that judge, on one port; those that die are started again (default: 1)",
    )
    # What a worker is told by the process that has started it.
    parser.add_argument("--worker", type=_worker, help=argparse.SUPPRESS)
    parser.add_argument(
        "--fingerprints",
        type=given.number,
        metavar="N",
        help="of GPUs' samples, remembered so that a recording shows that is played again; of what is too "
        f"much, the GPU with most loses its oldest (default: {FINGERPRINTS_KEPT})",
    )
    parser.add_argument(
        "--relying-parties",
        type=Path,
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
    # What is not given is what the environment or the file says.
    parser.set_defaults(run=_run_serve, engine=None)


def _listen(text: str) -> Place:
    return Place(*given.listen(text))


def _worker(text: str) -> Worker:
    from weighbridge.verifier.commands.workers import Worker as Told  # noqa: PLC0415 - heavy, and for workers alone

    return Told.parse(text)


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
    loaded = load(arguments.config, os.environ, _given(arguments))
    settings = loaded.settings
    for fault in lacking(settings):
        return usage(f"{fault.message} ({fault.where})", command="serve")
    deployment = deployment_class()
    worker: Worker | None = arguments.worker
    if settings.serve.workers > 1 and worker is None:
        from weighbridge.verifier.commands.workers import run_workers  # noqa: PLC0415 - heavy, and only here

        with deployment.reading(needed(settings.serve.state)):
            # What is wrong with it is told once, not by each.
            pass
        if status := run_workers(settings, note=_note):
            return status
        with deployment.reading(needed(settings.serve.state)) as (_, reader):
            return _stopped(reader.checkpoint.size)
    # Before gRPC is loaded, or it tells standard error of every handshake that fails: whoever can reach the port makes
    # as many of those as he likes.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from weighbridge.verifier.clock import SystemClock  # noqa: PLC0415 - heavy, and only here
    from weighbridge.verifier.commands.benches import read_bases  # noqa: PLC0415
    from weighbridge.verifier.commands.listeners import new_metrics  # noqa: PLC0415
    from weighbridge.verifier.commands.serving import Serving, run  # noqa: PLC0415 - gRPC, only here
    from weighbridge.verifier.core import Verifier  # noqa: PLC0415
    from weighbridge.verifier.database import PostgresAddress  # noqa: PLC0415
    from weighbridge.verifier.ledger.s3 import S3Address  # noqa: PLC0415

    bases = read_bases(settings)
    parties = _relying_parties(settings.relying_parties.file)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(
            deployment.open(
                needed(settings.serve.state),
                fingerprints_kept=settings.serve.fingerprints,
                ledger_storage=None if settings.ledger.storage is None else S3Address.parse(settings.ledger.storage),
                store=None if settings.store.url is None else PostgresAddress.parse(settings.store.url),
            )
        )
        # A restart is no way to set the clock back.
        clock = SystemClock(opened.archive.latest())
        metrics = None if settings.metrics.listen is None else new_metrics()
        observer = metrics or UNOBSERVED
        benches = [_opened(stack, basis, opened, observer) for basis in bases]
        first, *others = benches
        verifier = Verifier(
            requirements=first.bench.requirements,
            anchors=first.bench.anchors,
            appraiser=first.bench.appraiser,
            keys=opened.keys,
            archive=opened.archive,
            store=opened.store,
            clock=clock,
            issuer=opened.archive.ledger.key.name,
            others=[one.bench for one in others],
            attesters=first.bench.attesters,
            observer=observer,
            remembered=settings.serve.remembered,
            keep_ended=settings.store.kept,
        )
        verifier.follow(first.watch)
        asked = [one.watch.ask for one in benches if one.watched]
        # What is true of all workers is told by one.
        note = _note if worker is None or worker.number == 0 else _silence
        if others:
            note(f"verifier {opened.keys.thumbprint.hex()}, {len(benches)} tenants")
        for one in benches:
            whose = f"tenant {one.bench.requirements.tenant}" if others else f"verifier {opened.keys.thumbprint.hex()}"
            note(f"{whose}, policy {one.policy.hex()}")
            if one.unknown:
                note(one.unknown)

        def hangup() -> None:
            for ask in asked:
                ask()

        run(Serving(verifier, opened, clock, settings, parties, hangup if asked else None, worker, metrics), note=note)
        size = opened.archive.ledger.size
    return _stopped(size)


def _opened(stack: contextlib.ExitStack, basis: Basis, opened: Deployment, observer: Observer) -> OpenBench:
    """A tenant's bench, which is closed with the ``stack``."""
    from weighbridge.verifier.commands.benches import OpenBench as Opened  # noqa: PLC0415 - heavy, and only here

    found = Opened.open(basis, opened, note=_note, observer=observer)
    stack.callback(found.watch.close)
    return found


def _stopped(size: int) -> Outcome:
    return Outcome(
        f"stopped; the ledger has {counted(size, 'entry', 'entries')}\n",
        {"schema": "weighbridge/serve/v1", "ledger_size": size},
    )


def _given(arguments: argparse.Namespace) -> dict[tuple[str, str], tuple[str, object]]:
    """What the command line says, by the configuration's keys."""
    found: dict[tuple[str, str], tuple[str, object]] = {}
    for key, (option, name) in _OPTIONS.items():
        value: object = getattr(arguments, name)
        # Of lists that are not given, argparse makes empty ones.
        if value is not None and value != []:
            found[key] = option, value
    return found


def _relying_parties(path: Path | None) -> Parties:
    if path is None:
        return RelyingParties.none()
    return PartiesWatch(path, report=lambda says: _note(f"weighbridge: {says}"))


def _silence(_: str) -> None:
    """What another worker tells."""


def _note(line: str) -> None:
    notices.note(line)
