"""``weighbridge failures list | clear``: what sticks to attestation keys and GPUs. Both work beside `serve`."""

from __future__ import annotations

import argparse
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import listed
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.state import deployment_class, open_store
from weighbridge.verifier.commands.text import counted, line, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto import strict
    from weighbridge.verifier.clearing import Cleared
    from weighbridge.verifier.failures import Failure, FailureCount, Which

__all__ = ["configure"]

_EPILOG: Final = """\
examples:
  weighbridge failures list /var/lib/verifier --code CHALLENGE_UNKNOWN --full
  weighbridge failures clear /var/lib/verifier --code CHALLENGE_UNKNOWN --since 2026-05-20T10:00:00Z \\
      --before 2026-05-20T11:00:00Z --reason 'store restored, ticket 17' --dry-run
  weighbridge clear /var/lib/verifier gpu IDENTITY --reason 'replaced under contract 17'    # a single one
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``failures`` to ``parser``."""
    parser.description = (
        "Failures that stick to attestation keys and GPUs: no session of theirs is taken until somebody\n"
        "forgives them, for a reason that stays in the ledger. Both verbs work beside `serve`."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    one = verbs.add_parser("list", help="what sticks to whom, since when, and in which session it failed")
    one.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    _add_which(one, code_required=False)
    one.add_argument("--full", action="store_true", help="print identities in full, as `weighbridge clear` takes them")
    listed.add_limit(one)
    one.add_argument("--json", action="store_true", help="print one JSON document")
    one.set_defaults(run=_run_list)
    one = verbs.add_parser("clear", help="forgive all that stick with one code, each recorded for itself")
    one.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    _add_which(one, code_required=True)
    one.add_argument("--reason", required=True, type=given.reason, help="why; it stays on record, with each of them")
    one.add_argument("--dry-run", action="store_true", help="only say which would be forgiven")
    one.add_argument("--json", action="store_true", help="print one JSON document")
    one.set_defaults(run=_run_clear)


def _add_which(parser: argparse.ArgumentParser, *, code_required: bool) -> None:
    parser.add_argument(
        "--code", required=code_required, type=_code, help="only what failed with this code, such as CHALLENGE_UNKNOWN"
    )
    parser.add_argument("--kind", choices=("ak", "gpu"), help="only attestation keys, or only GPUs")
    parser.add_argument(
        "--tenant", type=given.tenant, help="only what failed in a session of this tenant's, once that was enrolled"
    )
    time = "now, or UTC, such as 2026-01-31T12:00:00Z"
    parser.add_argument("--since", type=given.date, metavar="TIME", help=f"only what failed then or later: {time}")
    parser.add_argument("--before", type=given.date, metavar="TIME", help="only what failed before that")


def _run_list(arguments: argparse.Namespace) -> Outcome:
    with contextlib.closing(open_store(arguments.state)) as store, store.reading() as tx:
        which = _which(arguments)
        counts = tx.failures.counts(which)
        rows = tx.failures.latest(which, most=listed.most(arguments))
    left = _total(counts) - len(rows)
    lines = [*_counted(counts), *(_line(row, full=arguments.full) for row in rows), *listed.rest(left)]
    document: strict.JsonObject = {
        "schema": "weighbridge/failures/v1",
        "failures": [_document(row) for row in rows],
        "left_out": left,
        "codes": [_count(count) for count in counts],
    }
    return Outcome("".join(lines) or "nothing sticks\n", document)


def _run_clear(arguments: argparse.Namespace) -> Outcome:
    if arguments.dry_run:
        return _would_clear(arguments)
    deployment = deployment_class()
    from weighbridge.verifier.clearing import clear_all  # noqa: PLC0415 - only here

    done, most = _Done(), listed.shown(as_json=arguments.json)
    with deployment.open(arguments.state) as opened:
        clearing = clear_all(
            opened.archive, opened.store, _which(arguments), reason=arguments.reason, at=datetime.now(UTC)
        )
        try:
            for some in clearing:
                done.add(some, most=most)
        except WeighbridgeError as error:
            if not done.count:
                raise
            # What was forgiven stays so, and is told.
            return done.outcome(arguments.code, error)
    return done.outcome(arguments.code, None)


def _would_clear(arguments: argparse.Namespace) -> Outcome:
    deployment_class()
    from weighbridge.verifier.clearing import nothing_named  # noqa: PLC0415 - needs what only the server has

    with contextlib.closing(open_store(arguments.state)) as store, store.reading() as tx:
        which = _which(arguments)
        counts = tx.failures.counts(which)
        rows = tx.failures.following(None, which, most=listed.shown(as_json=arguments.json))
    if not counts:
        raise nothing_named()
    left = _total(counts) - len(rows)
    text = "would clear:\n" + "".join([*_counted(counts), *(_line(row, full=True) for row in rows), *_more(left)])
    document: strict.JsonObject = {
        "schema": "weighbridge/failures-clear/v1",
        "code": arguments.code.value,
        "dry_run": True,
        "count": _total(counts),
        "cleared": [_document(row) for row in rows],
        "left_out": left,
    }
    return Outcome(text, document)


class _Done:
    """What was forgiven: how many, and the first of them."""

    __slots__ = ("count", "shown")

    def __init__(self) -> None:
        self.count = 0
        self.shown: list[Cleared] = []

    def add(self, some: Sequence[Cleared], *, most: int) -> None:
        """``some`` more; ``most`` are kept in all."""
        self.count += len(some)
        self.shown += some[: most - len(self.shown)]

    def outcome(self, code: Code, error: WeighbridgeError | None) -> Outcome:
        """What is printed, with the ``error`` that stopped it."""
        left = self.count - len(self.shown)
        rows = [_line(one.failure, full=True, index=one.index) for one in self.shown]
        text = f"cleared {code.value} of {counted(self.count, 'attestation key or GPU', 'attestation keys and GPUs')}\n"
        text += "".join([*rows, *_more(left)])
        cleared: list[strict.JsonValue] = [{**_document(one.failure), "ledger_index": one.index} for one in self.shown]
        document: strict.JsonObject = {
            "schema": "weighbridge/failures-clear/v1",
            "code": code.value,
            "dry_run": False,
            "count": self.count,
            "cleared": cleared,
            "left_out": left,
        }
        return Outcome(text, document) if error is None else Outcome(text, document, error.exit_code, error)


def _which(arguments: argparse.Namespace) -> Which:
    from weighbridge.verifier.failures import Which as Asked  # noqa: PLC0415 - needs what only the server has

    return Asked(
        code=arguments.code,
        kind=arguments.kind,
        tenant=arguments.tenant,
        since_ns=None if arguments.since is None else nanoseconds(arguments.since),
        before_ns=None if arguments.before is None else nanoseconds(arguments.before),
    )


def _code(text: str) -> Code:
    found = next((code for code in Code if code.value == text), None)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no code: `weighbridge failures list` says which stick")
    return found


def _total(counts: Sequence[FailureCount]) -> int:
    return sum(count.aks + count.gpus for count in counts)


def _counted(counts: Sequence[FailureCount]) -> list[str]:
    return [
        f"{count.code.value}: {counted(count.aks, 'attestation key')}, {counted(count.gpus, 'GPU')}, "
        f"from {listed.second(count.first_ns)} to {listed.second(count.last_ns)}\n"
        for count in counts
    ]


def _count(count: FailureCount) -> strict.JsonObject:
    return {
        "code": count.code.value,
        "aks": count.aks,
        "gpus": count.gpus,
        "first_at": listed.instant(count.first_ns),
        "last_at": listed.instant(count.last_ns),
    }


def _line(row: Failure, *, full: bool, index: int | None = None) -> str:
    identity = row.identity.hex() if full else short(row.identity.hex())
    session = "-" if row.session is None else row.session.hex()
    parts = [f"  {row.kind:<3}", identity, row.code.value, f"since {listed.second(row.failed_ns)}"]
    parts += [f"session {session:<32}", row.tenant or "-"] if index is None else [f"ledger index {index}"]
    return line("  ".join(parts)) + "\n"


def _document(row: Failure) -> strict.JsonObject:
    return {
        "kind": row.kind,
        "identity": row.identity.hex(),
        "code": row.code.value,
        "failed_at": listed.instant(row.failed_ns),
        "session": None if row.session is None else row.session.hex(),
        "tenant": row.tenant,
    }


def _more(left: int) -> list[str]:
    return [f"… and {left} more\n"] if left else []
