"""``weighbridge reference learn | sign | show | diff | key | trust``: an owner's word about hosts."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence
from weighbridge.proto.host_set import AcceptedFile, HostSet
from weighbridge.verifier import anchors as anchors_module
from weighbridge.verifier import learning
from weighbridge.verifier.bundle import assemble
from weighbridge.verifier.bundle_proof import open_enrolment
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import owner_key, reference_show
from weighbridge.verifier.commands.bundle import read_bundle
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, no_state, read, usage
from weighbridge.verifier.commands.owner_key import Role
from weighbridge.verifier.commands.reference_sign import (
    add_validity,
    configure_sign,
    previous_set,
    register,
    sign_content,
)
from weighbridge.verifier.commands.state import deployment_class, open_store
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.keys import open_signing_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle import Bundle
    from weighbridge.verifier.learning import Learned

__all__ = ["configure"]

_ROLES: Final = (Role("--owner", "host-owner", "believe its host sets"),)
_CAUTION: Final = (
    "this is what the host was, whether good or not: sign it only for a host that you have installed and booted "
    "yourself, before anybody else could reach it"
)
# PC Client Platform Firmware Profile 1.06: firmware extends each of them, with a separator at least.
_FIRMWARE_PCRS: Final = range(8)
_EPILOG: Final = """\
a hosts' owner's key, and the document by which verifiers believe it:
  weighbridge reference key "Acme Hosting" -o hosts.pem --anchors hosts.json

what a known-good host was when it enrolled, signed for 90 days:
  weighbridge reference learn verifier/ --session HEX --anchors roots.json --name gpu-node --owner "Acme Hosting" \\
      --number 1 --days 90 --attester '/usr/bin/python3*' --attester '/opt/weighbridge/*' \\
      --key hosts.pem -o gpu-node.set

another host of that class, or the next kernel beside the old one:
  weighbridge reference learn verifier/ --session HEX --anchors roots.json --merge gpu-node.set --days 90 \\
      --key hosts.pem -o gpu-node.set

judge by it; a newer set in its place counts from the next window on:
  weighbridge serve verifier/ … --hosts gpu-node.set --anchors roots.json --anchors hosts.json

take the old kernel's values out, and look at what has changed:
  weighbridge reference sign gpu-node.set --drop 4=HEX --drop sha256:HEX --days 90 --key hosts.pem -o next.set
  weighbridge reference diff gpu-node.set next.set
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an :class:`Outcome`."""
    parser.epilog, parser.formatter_class = f"examples:\n\n{_EPILOG}", argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    owner_key.configure_key(
        verbs.add_parser("key", help="make a hosts' owner's key, and the anchors document for it"),
        command="reference",
        purpose="host-owner",
        signs="host sets",
        example="Acme Hosting",
    )
    owner_key.configure_trust(
        verbs.add_parser("trust", help="make an anchors document for somebody else's public key"),
        _ROLES,
        command="reference",
    )
    _configure_learn(verbs.add_parser("learn", help="sign what a known-good host was when it enrolled"))
    configure_sign(
        verbs.add_parser("sign", help="sign the set that follows, with values and files put in or taken out")
    )
    reference_show.configure_show(verbs.add_parser("show", help="print a host set as a table"))
    reference_show.configure_diff(verbs.add_parser("diff", help="print in which values and files two host sets differ"))
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print one JSON document")


# -- learn ------------------------------------------------------------------------------------------------------------


def _configure_learn(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Verify a recorded enrolment again, and sign what the host was then: the quoted registers, and the files in "
        f"IMA's list where the enrolment carried it. Beware: {_CAUTION}."
    )
    parser.add_argument("source", metavar="STATE|BUNDLE", help="a verifier's directory, or a session.wb file")
    parser.add_argument(
        "--session", metavar="HEX", type=given.session, help="which one; needed for a directory, checked for a bundle"
    )
    parser.add_argument(
        "--pcrs",
        metavar="N,…",
        type=_registers,
        help="which registers to learn (default: those to which the session's keys were bound)",
    )
    parser.add_argument("--firmware", action="store_true", help="accept only this version of the TPM's firmware")
    parser.add_argument("--name", metavar="NAME", type=given.name, help="of the class of hosts, such as gpu-node")
    parser.add_argument("--owner", metavar="OWNER", type=given.name, help="as in the anchors")
    parser.add_argument(
        "--number", metavar="N", type=given.number, help="higher than ever before (default: one more than --merge has)"
    )
    parser.add_argument(
        "--merge", metavar="OLD.set", help="accept beside it all that this set accepts; name and owner are its"
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="whose keys are believed: of TPMs and GPUs; for a bundle, of its verifier; for --merge, an older key of "
        "yours; shipped: those shipped (several times; default: shipped)",
    )
    add_validity(parser)
    parser.set_defaults(run=_run_learn)


def _run_learn(arguments: argparse.Namespace) -> Outcome | int:
    key = open_signing_key(arguments.key)
    trusted = load_anchors(arguments.anchors)
    before = None if arguments.merge is None else previous_set(arguments.merge, key, trusted)
    place = _place(arguments, before)
    if isinstance(place, str):
        return usage(place, command="reference learn")
    owner, name, number = place
    bundle, believed = _bundle(arguments.source, arguments.session, trusted)
    replayed, proof, record = open_enrolment(bundle, believed)
    if arguments.session not in {None, record.session}:
        raise MalformedEvidence(
            Code.BUNDLE_MALFORMED,
            "the bundle is of another session",
            where="bundle",
            expected=arguments.session,
            got=record.session,
        )
    found = learning.learn(replayed, proof, pcrs=arguments.pcrs, attester=arguments.attester)
    if found.unmatched and found.listed:
        return usage(f"--attester {found.unmatched[0]} matches no path in IMA's list", command="reference learn")
    firmware = () if before is None else before.firmware
    accepts_any = not arguments.firmware and not firmware
    now = datetime.now(UTC).replace(microsecond=0)
    made = HostSet(
        owner=owner,
        name=name,
        number=number,
        issued_ns=nanoseconds(now),
        not_before_ns=nanoseconds(now),
        not_after_ns=nanoseconds(now + arguments.days),
        pcrs=_merged({} if before is None else before.pcrs, found.pcrs),
        firmware=None if accepts_any else tuple(sorted({*(firmware or ()), found.firmware})),
        files=_united(before, found, marks=bool(arguments.attester)),
        note=arguments.note or ("" if before is None else before.note),
    )
    at = strict.time_encode(moment(record.received_ns).replace(microsecond=0))
    head = f"learned from session {record.session.hex()}, enrolled {at}\n"
    learned: strict.JsonObject = {
        "session": record.session.hex(),
        "enrolled_at": at,
        "pcrs": {str(index): value.hex() for index, value in found.pcrs.items()},
        "firmware": f"{found.firmware:016x}",
        "files": len(found.files),
        "violations": found.violations,
        "left_out": found.others,
    }
    return sign_content(made, key, arguments.output, head=head, told=_told(found), also={"learned": learned})


def _place(arguments: argparse.Namespace, before: HostSet | None) -> tuple[str, str, int] | str:
    """Owner, class and number of the set to make, or what is wrong with the arguments."""
    owner: str | None = arguments.owner or (None if before is None else before.owner)
    name: str | None = arguments.name or (None if before is None else before.name)
    number: int | None = arguments.number or (None if before is None else before.number + 1)
    if owner is None or name is None or number is None:
        return "--owner, --name and --number are needed where there is no --merge"
    if before is not None and ((owner, name) != (before.owner, before.name) or number <= before.number):
        return (
            f"--merge is number {before.number} of {before.owner}, {before.name}: this set has its owner, its name and "
            "a higher number"
        )
    if before is not None and arguments.firmware and before.firmware is None:
        return "--merge accepts any firmware: --firmware would take that back"
    if Path(arguments.source).is_dir() and arguments.session is None:
        return "a directory needs --session: `weighbridge sessions` lists them"
    return owner, name, number


def _told(found: Learned) -> list[str]:
    """What the owner should know before handing the set out."""
    told = [f"  BEWARE    {_CAUTION}"]
    if empty := [str(index) for index, value in found.pcrs.items() if index in _FIRMWARE_PCRS and not any(value)]:
        told.append(
            f"  BEWARE    firmware measured nothing into PCR {', '.join(empty)}: every host of which that is true has "
            "this value, an emulator's too"
        )
    if not found.listed:
        told.append(
            "  no files  the enrolment carried no list of IMA, or did not quote PCR 10: by this set, no host's running "
            "code is proven"
        )
    elif not any(file.attester for file in found.files):
        told.append("  attester  no file is said to be of the attester's own code: name its paths, --attester")
    if found.violations:
        told.append(
            f"  BEWARE    {counted(found.violations, 'violation')} in the list: the kernel could not say what it "
            "measured, and no host with one is proven"
        )
    if found.others:
        told.append(f"  left out  {found.others} of the list whose digest is not SHA-256: boot with ima_hash=sha256")
    return told


def _united(before: HostSet | None, found: Learned, *, marks: bool) -> tuple[AcceptedFile, ...]:
    """All files of both. A host must have run every one of the attester's: those of another version would refuse it."""
    old = () if before is None else before.files
    kept = [replace(file, attester=False) for file in old] if marks else old
    return learning.order([*kept, *found.files])


def _merged(before: Mapping[int, tuple[bytes, ...]], found: Mapping[int, bytes]) -> dict[int, tuple[bytes, ...]]:
    """Every register that both name, with all values; a register that only one names would refuse the other's hosts."""
    if not before:
        return {index: (value,) for index, value in found.items()}
    missing = sorted(before.keys() - found.keys())
    if missing:
        raise Indeterminate(
            Code.UNPROVEN,
            "the set names registers of which nothing was learned",
            where="--merge",
            expected=", ".join(map(str, sorted(before))),
            got=", ".join(map(str, sorted(found))),
            hint="name them all: --pcrs " + ",".join(map(str, sorted(before))),
        )
    return {index: tuple(sorted({*values, found[index]})) for index, values in sorted(before.items())}


def _bundle(source: str, session: bytes | None, trusted: TrustAnchors) -> tuple[Bundle, TrustAnchors]:
    """The file, or the same made from a verifier's directory, whose own keys are then believed, too."""
    if not Path(source).is_dir():
        return read_bundle(source), trusted
    state = Path(source)
    store = open_store(state)
    try:
        with store.reading() as tx:
            row = None if session is None else tx.session(session)
    finally:
        store.close()
    if row is None:
        raise Indeterminate(
            Code.SESSION_UNKNOWN,
            "no such session here",
            where="--session",
            got=session,
            hint=f"`weighbridge sessions {source}` lists them",
        )
    with deployment_class().reading(state) as (records, reader):
        bundle = assemble(records, reader, [row.enrolment_index], manifests=())
    if not (path := state / "anchors.json").is_file():
        raise no_state(state)
    own = anchors_module.load(read(path, limit=limits.JSON_MAX)).anchors
    return bundle, trusted.with_anchors(anchor for anchor in own if anchor not in trusted.anchors)


def _registers(text: str) -> tuple[int, ...]:
    return tuple(sorted({register(part) for part in text.split(",")}))
