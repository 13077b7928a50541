"""``weighbridge export``: a session's proof bundle, whole, a part of it, or without what names a device."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy import policy_set
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence, PolicyDenied
from weighbridge.verifier.bundle_assembly import assemble, declared, ending, redact
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.bundle_text import named
from weighbridge.verifier.commands.outcome import (
    Outcome,
    load_policy,
    read,
    read_manifest,
    read_reference,
    taken_for,
    usage,
    write,
)
from weighbridge.verifier.commands.state import deployment_class, open_store
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.identifiers import identifiers
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.record import Leaf
from weighbridge.verifier.recorded_state import chain_of
from weighbridge.verifier.redaction import SALT_SIZE, is_salt
from weighbridge.verifier.shown_requests import ClaimedWork, show
from weighbridge.verifier.tenancy import foreign

if TYPE_CHECKING:
    import argparse

    from weighbridge.proto.errors import ExitCode
    from weighbridge.verifier.archive import Records
    from weighbridge.verifier.bundle_format import Bundle

__all__ = ["configure", "run_export"]

_COMMAND: Final = "export"
_SEQ_MAX: Final = 2**53
# Hexadecimal digits, and a newline.
_SALT_FILE_MAX: Final = 2 * SALT_SIZE + 1
_DIGITS: Final = re.compile(r"[0-9A-Fa-f]{64}")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export`` to ``parser``."""
    parser.description = (
        "Write a session's proof bundle, with every policy, all reference values and the manifests by which it was "
        "judged: STATE has them. A whole bundle has permanent identifiers of devices, which are listed, and the "
        "samples of the tenant's GPUs: give it to the session's tenant alone. Windows in which another tenant has a "
        "part are withheld."
    )
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument("session", metavar="SESSION", type=given.session, help="32 hexadecimal digits")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="such as session.wb")
    parser.add_argument("--tenant", type=given.tenant, help="refuse, unless the session is this tenant's")
    parser.add_argument(
        "--windows",
        type=_windows,
        metavar="A..B",
        help="show these windows only, such as 3..5 or 4; of the others, that the ledger has them",
    )
    parser.add_argument(
        "--request",
        metavar="FILE",
        help="show requests: the commitments of the windows that count them, and what opens those to be shown "
        "(docs/protocol.md §9.6)",
    )
    parser.add_argument(
        "--redact",
        metavar="SALT",
        help="show no evidence, and the verdicts with pseudonyms for devices: under the tenant's salt, a file of 64 "
        "hexadecimal digits that the tenant made at random and keeps",
    )
    parser.add_argument("--reference", metavar="FILE", help="reference values, should STATE have lost them")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        default=[],
        help=f"a policy that comes with Weighbridge ({', '.join(policy_set.SHIPPED)}), or a Rego file (several times), "
        "should STATE have lost it",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        action="append",
        default=[],
        help="a manifest that `serve` was given, should STATE have lost it (several times)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> Outcome | ExitCode:
    """Write the bundle.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE``, ``DISK_FULL``, ``FILE_UNREADABLE``.
        Indeterminate: ``SESSION_UNKNOWN``; ``EVIDENCE_ABSENT`` where the store has lost something.
        PolicyDenied: ``BUNDLE_TENANT``: it is not the session of the tenant that was named.
        MalformedEvidence: a file that was named is not what it should be; ``BUNDLE_REQUEST`` where the requests are
            not those that the window counts.
    """
    if arguments.redact is not None and arguments.request is not None:
        return usage("--redact shows no window, and so no --request of one", command=_COMMAND)
    if arguments.redact is not None and arguments.windows is not None:
        return usage("--redact shows no window, and so no --windows", command=_COMMAND)
    session: bytes = arguments.session
    salt = None if arguments.redact is None else _salt(arguments.redact)
    works = () if arguments.request is None else _works(arguments.request)
    given_values = () if arguments.reference is None else (read_reference(arguments.reference),)
    given_policies = [load_policy(arguments.policy, Reference({}, {}, {})).files] if arguments.policy else []
    manifests = [read_manifest(path) for path in arguments.manifest]
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(open_store(arguments.state)))
        with store.reading() as tx:
            row = tx.session(session)
            others = () if row is None else tx.others_of(row.gpus, tenant=row.tenant)
        if row is None:
            raise Indeterminate(Code.SESSION_UNKNOWN, "no such session here", where="SESSION", got=session)
        if arguments.tenant not in {None, row.tenant}:
            raise PolicyDenied(
                Code.BUNDLE_TENANT,
                "the session is another tenant's",
                where="SESSION",
                expected=arguments.tenant,
                hint="`weighbridge sessions` lists sessions; a bundle is its tenant's alone",
            )
        records, reader = stack.enter_context(deployment_class().reading(arguments.state))
        windows = chain_of(store, reader, session)
        chain = (row.enrolment_index, *windows)
        indices = [*chain, *ending(reader, session, after=chain[-1], seq=len(windows))]
        withheld = foreign(records, indices, others)
        theirs = len(withheld)
        if (chosen := arguments.windows) is not None:
            leaves = (Leaf.parse(reader.entry(index)) for index in indices)
            count = sum(leaf.kind == "window" for leaf in leaves)
            if not chosen or chosen.stop > count:
                return usage(f"--windows: the session has {counted(count, 'window')}, counted from 0", command=_COMMAND)
            withheld |= _but(chosen, records, indices)
        if salt is None:
            bundle = assemble(
                records,
                reader,
                indices,
                policies=given_policies,
                references=[values.to_json() for values in given_values],
                manifests=declared(records, indices, given=manifests, withhold=withheld),
                withhold=withheld,
            )
            bundle = show(bundle, works)
        else:
            keys = VerifierKeys.open(arguments.state / "keys")
            bundle = redact(
                records,
                reader,
                indices,
                salt=salt,
                issued_ns=nanoseconds(datetime.now(UTC)),
                withhold=withheld,
                kid=keys.thumbprint,
                signer=keys.sign,
            )
    data = bundle.encode()
    write(arguments.output, data, doing="writing the bundle")
    return _outcome(arguments.output, bundle, data, theirs=theirs)


def _outcome(target: Path, bundle: Bundle, data: bytes, *, theirs: int) -> Outcome:
    kind = "redacted" if bundle.redaction is not None else "partial" if bundle.withheld else "full"
    windows = sum(entry.evidence is not None for entry in bundle.entries[1:])
    held = identifiers(bundle)
    if bundle.redaction is not None:
        told = sum(Leaf.parse(item.leaf).kind == "window" for item in bundle.withheld) - theirs
        has = f"{counted(told, 'verdict')} told, no evidence"
    else:
        has = counted(windows, "window")
        has += f", {counted(len(bundle.withheld), 'judgement')} withheld" if bundle.withheld else ""
    lines = [
        f"wrote {target}: {kind}, {has}, {counted(len(data), 'byte')}",
        *([f"  withheld   {counted(theirs, 'window')} in which another tenant has a part"] if theirs else []),
        *named(held),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/export/v2",
        "kind": kind,
        "windows": windows,
        "withheld": len(bundle.withheld),
        "another_tenants": theirs,
        "requests": len(bundle.requests),
        "identifiers": [{"what": item.what, "identity": item.identity.hex()} for item in held],
        "bytes": len(data),
    }
    return Outcome("\n".join(lines) + "\n", document)


def _windows(text: str) -> range:
    """``A..B``, both included, or one number."""
    first, dots, last = text.partition("..")
    begin = given.decimal(first, what="the window", limit=_SEQ_MAX)
    end = given.decimal(last, what="the window", limit=_SEQ_MAX) if dots else begin
    return range(begin, end + 1)


def _but(chosen: range, records: Records, indices: list[int]) -> frozenset[int]:
    """The ledger indices of the windows outside of ``chosen``; enrolment and closing are always shown."""
    windows = ((index, records.record(index)) for index in indices)
    return frozenset(index for index, record in windows if record.kind == "window" and record.seq not in chosen)


def _salt(path: str) -> bytes:
    if _DIGITS.fullmatch(path):
        # What was named is the secret: it is not said again.
        return usage("--redact takes the file in which the salt is, not the salt", command=_COMMAND)
    data = read(path, limit=_SALT_FILE_MAX)
    with taken_for(path, what="a salt", hint="make one of 64 hexadecimal digits: openssl rand -hex 32 > salt"):
        text = data.removesuffix(b"\n").decode("ascii", "replace")
        salt = strict.hex_decode(text, what="salt", size=SALT_SIZE)
        if not is_salt(salt):
            raise MalformedEvidence(Code.FIELD_RANGE, "not random: anybody would try it", where="salt")
        return salt


def _works(path: str) -> tuple[ClaimedWork, ...]:
    data = read(path, limit=limits.JSON_MAX)
    with taken_for(path, what="a list of requests", hint="docs/protocol.md §9.6 says what is in it"):
        return ClaimedWork.parse_all(data)
