"""``weighbridge redteam``: attacks against a running verifier of one's own."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import ipaddress
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cose, limits
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.options import UsageFault
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.identity import read_token
from weighbridge.verifier.commands.outcome import Outcome, load_document, read, read_manifest, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.redteam.attack import Attack
    from weighbridge.redteam.field import Channels, Field, Target
    from weighbridge.redteam.playing import Played, Result

__all__ = ["configure"]

_GPUS: Final = 2
_GPUS_MAX: Final = 8  # of an emulated host
_LOG_PCR: Final = 15
_PEM_MAX: Final = 8 * limits.CERT_MAX
_ATTESTERS_MIN: Final = 2
_GIVEN: Final = "docs/redteam.md says what a deployment is given"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``redteam`` to ``parser``."""
    parser.description = (
        "Play attacks against a running verifier of your own, from emulated hosts that are made for it, and say which "
        "check refused each. Nothing is destroyed: sessions, windows and failed keys of these hosts are left behind. "
        "Exit status: 0 all refused as expected, 5 one was admitted or harmed another host, 6 one was not shown or "
        "refused by another check, 8 the verifier cannot be reached."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--target", metavar="HOST:PORT", type=given.listen, help="where the verifier listens")
    what.add_argument(
        "--make-kit",
        metavar="DIR",
        type=Path,
        help="play nothing: make a kit, whose anchors and model the verifier is to be given",
    )
    parser.add_argument("--kit", metavar="DIR", type=Path, help="what --make-kit made: what the hosts are made of")
    parser.add_argument(
        "--state",
        metavar="STATE",
        type=Path,
        help="the verifier's state directory: its channel authority admits the hosts, its anchors.json is believed",
    )
    parser.add_argument(
        "--attester",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="instead of --state: the state directory of an admitted attester (two at least)",
    )
    parser.add_argument("--verifier-ca", metavar="FILE", help="with --attester: PEM: who certifies its TLS key")
    parser.add_argument("--verifier-key", metavar="FILE", help="with --attester: the verifier's anchors document")
    parser.add_argument(
        "--relying-party",
        metavar="HOST:PORT",
        type=given.listen,
        help="attack its port for relying parties with tokens, too; takes the two token files",
    )
    parser.add_argument("--token-file", metavar="FILE", help="bearer token of one that may ask for the tenant")
    parser.add_argument("--stranger-token-file", metavar="FILE", help="bearer token of one that may not")
    parser.add_argument(
        "--gate", metavar="HOST:PORT", type=given.listen, help="attack a gate of its, too, as Envoy asks it (plain)"
    )
    parser.add_argument(
        "--gate-request",
        metavar="HOST/PATH",
        type=_request,
        help="with --gate: a request that it leads to the red team's sessions",
    )
    parser.add_argument("--tenant", metavar="NAME", help="of the sessions")
    parser.add_argument("--audience", metavar="NAME", help="whom their tokens are for")
    parser.add_argument("--manifest", metavar="FILE", help="declare this model instead of the kit's")
    parser.add_argument(
        "--model", metavar="DIR", type=Path, help="its files, where the verifier asks for bytes of them"
    )
    parser.add_argument("--gpus", metavar="N", type=_gpus, default=_GPUS, help=f"of each host (default: {_GPUS})")
    parser.add_argument("--attack", metavar="NAME", action="append", default=[], help="play only this one")
    parser.add_argument(
        "--i-own-this",
        action="store_true",
        help="a target that is not on this machine is yours, and you may attack it",
    )
    parser.add_argument("--report", metavar="FILE", type=given.output, help="write a report in Markdown")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    try:
        from weighbridge.redteam.kit import Kit  # noqa: PLC0415 - with the libraries of both roles, which not every install has
        from weighbridge.redteam.playing import exit_status  # noqa: PLC0415 - as above
        from weighbridge.redteam.telling import Told  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING, f"{error.name} is not installed", hint="pip install 'weighbridge[server]'"
        ) from error
    if arguments.make_kit is not None:
        Kit.create(arguments.make_kit)
        return _made(arguments.make_kit)
    _check(arguments)
    attacks = _chosen(arguments)
    manifest = None if arguments.manifest is None else read_manifest(arguments.manifest)
    kit = Kit.open(arguments.kit, manifest=manifest, model=arguments.model)
    at, began = datetime.now(UTC), time.monotonic()
    with ExitStack() as stack:
        from weighbridge.redteam.field import Field  # noqa: PLC0415 - as above

        field = Field(_target(arguments), kit, _channels(arguments, stack))
        played = asyncio.run(_play(field, attacks, quiet=arguments.json))
    told = Told(field.target, played, at, time.monotonic() - began)
    if arguments.report is not None:
        write(arguments.report, told.report().encode(), doing="writing the report")
    return Outcome(told.text(), told.document(), exit_status(played.results))


async def _play(field: Field, attacks: Sequence[Attack], *, quiet: bool) -> Played:
    from weighbridge.redteam.playing import play  # noqa: PLC0415 - as above

    def tell(result: Result) -> None:
        # It may take minutes where a peer's openings are few.
        sys.stderr.write(f"  {result.attack.name}: {result.status.value}\n")

    return await play(field, attacks, told=(lambda _: None) if quiet else tell)


def _check(arguments: argparse.Namespace) -> None:
    """Require what a play takes, and the owner's word where the target is on another machine."""
    missing = [name for name in ("kit", "tenant", "audience") if getattr(arguments, name) is None]
    if missing:
        told = " and ".join(f"--{name}" for name in missing)
        raise UsageFault(f"--target takes {told} as well", hint=_GIVEN)
    if (arguments.state is None) == (not arguments.attester):
        raise UsageFault(
            "by whom hosts are admitted: --state, or --attester several times",
            hint="on the verifier's machine its own directory, from elsewhere two attesters that were admitted",
        )
    if arguments.attester and None in {arguments.verifier_ca, arguments.verifier_key}:
        raise UsageFault("--attester takes --verifier-ca and --verifier-key as well")
    if arguments.attester and len(arguments.attester) < _ATTESTERS_MIN:
        raise UsageFault("--attester twice at least: half of the attacks take somebody else")
    tokens = {arguments.relying_party, arguments.token_file, arguments.stranger_token_file}
    if None in tokens and len(tokens) > 1:
        raise UsageFault("--relying-party, --token-file and --stranger-token-file: all of them or none", hint=_GIVEN)
    if (arguments.gate is None) != (arguments.gate_request is None):
        raise UsageFault("--gate and --gate-request: both or neither", hint=_GIVEN)
    for place in (arguments.target, arguments.relying_party, arguments.gate):
        if place is not None and not arguments.i_own_this and not _is_here(place[0]):
            raise UsageFault(
                f"{place[0]} is not this machine",
                hint="attack nothing but a deployment of your own; if it is one: --i-own-this",
            )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _chosen(arguments: argparse.Namespace) -> tuple[Attack, ...]:
    """Those that are named, or all at the ports that are."""
    from weighbridge.redteam.playing import ATTACKS  # noqa: PLC0415 - as above

    ports = {"attesters", *_named_ports(arguments)}
    known = {attack.name: attack for attack in ATTACKS}
    for name in arguments.attack:
        if name not in known:
            raise UsageFault(f"no attack is called {name}", hint=f"there are: {', '.join(known)}")
        if known[name].needs not in ports:
            raise UsageFault(f"{name} takes --{known[name].needs}", hint=_GIVEN)
    return tuple(known[name] for name in arguments.attack) or tuple(one for one in ATTACKS if one.needs in ports)


def _named_ports(arguments: argparse.Namespace) -> list[str]:
    """Those beside that of attesters; what asks at them is installed.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``.
    """
    if arguments.gate is not None and importlib.util.find_spec("envoy") is None:
        raise EnvironmentFault(
            Code.TOOL_MISSING, "Envoy's messages are not installed", hint="pip install 'weighbridge[gate]'"
        )
    pairs = (("relying-party", arguments.relying_party), ("gate", arguments.gate))
    return [name for name, place in pairs if place is not None]


def _target(arguments: argparse.Namespace) -> Target:
    from weighbridge.attester.keys import load_authority  # noqa: PLC0415 - as above
    from weighbridge.attester.trust import TrustedVerifiers  # noqa: PLC0415 - as above
    from weighbridge.redteam.field import Door, RelyingParty, Target  # noqa: PLC0415 - as above
    from weighbridge.verifier.result.trusted import TrustedKeys  # noqa: PLC0415 - as above

    state: Path | None = arguments.state
    authority = Path(arguments.verifier_ca) if state is None else state / "tls" / "ca.pem"
    anchors = Path(arguments.verifier_key) if state is None else state / "anchors.json"
    party, gate = arguments.relying_party, arguments.gate
    return Target(
        address=_address(arguments.target),
        authority=load_authority(authority),
        trusted=TrustedVerifiers.load(read(anchors, limit=limits.JSON_MAX)),
        tokens=TrustedKeys.of(
            *(cose.load_p256(anchor.spki, what="verifier") for anchor in load_document(anchors).select("verifier"))
        ),
        tenant=arguments.tenant,
        audience=arguments.audience,
        gpus=arguments.gpus,
        log_pcr=_LOG_PCR,
        relying_party=None
        if party is None
        else RelyingParty(
            address=_address(party),
            token=read_token(arguments.token_file),
            stranger=read_token(arguments.stranger_token_file),
        ),
        gate=None if gate is None else Door(_address(gate), *arguments.gate_request),
    )


def _address(place: tuple[str, int]) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _channels(arguments: argparse.Namespace, stack: ExitStack) -> Channels:
    from weighbridge.attester.keys import load_channel  # noqa: PLC0415 - as above
    from weighbridge.redteam.field import Given, Issued  # noqa: PLC0415 - as above

    if arguments.state is None:
        return Given([load_channel(directory) for directory in arguments.attester])
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="weighbridge-redteam-"))
    return Issued(arguments.state / "tls", Path(scratch))


def _gpus(text: str) -> int:
    found = given.decimal(text, what="the number of GPUs", limit=_GPUS_MAX)
    if not found:
        raise argparse.ArgumentTypeError("one at least")
    return found


def _request(text: str) -> tuple[str, str]:
    host, slash, path = text.partition("/")
    if not host or not slash or "?" in path:
        raise argparse.ArgumentTypeError("a host and a path without a query: model.example/v1")
    return host, slash + path


def _made(directory: Path) -> Outcome:
    text = (
        f"made a kit in {directory}; give the verifier that is to be attacked, and no other:\n"
        f"  weighbridge collateral import {directory}/gpus/rims/* --store COLLATERAL\n"
        f"  weighbridge serve … --collateral COLLATERAL --anchors {directory}/anchors.json \\\n"
        f"      --manifest {directory}/model.json, and what {directory}/reference.json accepts\n"
        "  whoever has the kit can make hosts that such a verifier lets in: its policy must not be a production one,\n"
        "  or the hosts are refused, and most attacks cannot be shown\n"
    )
    return Outcome(text, {"schema": "weighbridge/redteam-kit/v1", "kit": str(directory)})
