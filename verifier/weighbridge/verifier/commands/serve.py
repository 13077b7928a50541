"""``weighbridge serve``: a verifier that judges attesters over gRPC, from one state directory, until it is stopped."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy import policy_set
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.basis import lacking, needed, read_basis
from weighbridge.verifier.commands.engines import add_engine
from weighbridge.verifier.commands.foreign import add_foreign
from weighbridge.verifier.commands.outcome import Outcome, usage
from weighbridge.verifier.commands.state import deployment_class
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.parties_watch import PartiesWatch
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.settings.kinds import Place
from weighbridge.verifier.settings.layers import load
from weighbridge.verifier.telemetry.history import FINGERPRINTS_KEPT

if TYPE_CHECKING:
    from weighbridge.verifier.parties_watch import Parties

__all__ = ["add_manifests", "configure"]

# The configuration's keys, their options, and what argparse calls those.
_OPTIONS: Final = {
    ("serve", "state"): ("STATE", "state"),
    ("serve", "listen"): ("--listen", "listen"),
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
    from weighbridge.verifier.baseline_watch import BaselineKeeper  # noqa: PLC0415 - heavy, and only here
    from weighbridge.verifier.clock import SystemClock  # noqa: PLC0415 - heavy, and only here
    from weighbridge.verifier.collateral.store import CollateralStore  # noqa: PLC0415
    from weighbridge.verifier.commands.serving import Serving, run  # noqa: PLC0415 - gRPC, only here
    from weighbridge.verifier.core import Verifier  # noqa: PLC0415
    from weighbridge.verifier.ledger.s3 import S3Address  # noqa: PLC0415
    from weighbridge.verifier.policy_watch import PolicyWatch  # noqa: PLC0415
    from weighbridge.verifier.reference_watch import ReferenceWatch  # noqa: PLC0415

    (basis,) = map(read_basis, settings.judged())
    requirements, judging = basis.requirements, basis.judging
    parties = _relying_parties(settings.relying_parties.file)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(
            deployment.open(
                needed(settings.serve.state),
                fingerprints_kept=settings.serve.fingerprints,
                ledger_storage=None if settings.ledger.storage is None else S3Address.parse(settings.ledger.storage),
            )
        )
        # A restart is no way to set the clock back.
        clock = SystemClock(opened.archive.latest())
        policies = PolicyWatch(
            judging.policy_bundles,
            own=basis.policy,
            anchors=basis.anchors,
            store=opened.store,
            load=judging.engine.open().load,
            report=_note,
        )
        watch = ReferenceWatch(
            judging.sets,
            own=basis.reference,
            anchors=basis.anchors,
            store=opened.store,
            policies=policies,
            manifests=basis.manifests,
            report=_note,
            collateral=None if judging.collateral is None else CollateralStore.open(judging.collateral),
            baselines=BaselineKeeper(anchors=basis.anchors, store=opened.store, archive=opened.archive),
        )
        stack.callback(watch.close)
        verifier = Verifier(
            requirements=requirements,
            anchors=basis.anchors,
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
        watched = [*judging.sets, *judging.policy_bundles]
        if watched or judging.collateral is not None:
            verifier.follow(watch)
        _note(f"verifier {opened.keys.thumbprint.hex()}, policy {judges.policy.digest.hex()}")
        if requirements.gpus and judging.collateral is None:
            _note(_NO_COLLATERAL)
        run(Serving(verifier, opened, clock, settings, parties, watch.ask if watched else None), note=_note)
        size = opened.archive.ledger.size
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


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress of a long-running command
