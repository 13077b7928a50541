"""``weighbridge policy replay``: which recorded decisions would be others under a new policy, and by which rule."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import (
    Outcome,
    load_anchors,
    policy_named,
    read_manifest,
    read_reference,
    usage,
    with_sets,
)
from weighbridge.verifier.commands.policy_changes import (
    changes_document,
    changes_text,
    counted_windows,
    coverage_document,
    coverage_text,
    failures_document,
    failures_text,
    headline,
    status_of,
)
from weighbridge.verifier.commands.text import plain

if TYPE_CHECKING:
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.proto import strict
    from weighbridge.verifier.commands.policy_evidence import Found, Question, Task

__all__ = ["add_evidence", "configure", "jobs_of", "question_of", "tasks_named"]

_COMMAND: Final = "policy replay"
_JOBS_MAX: Final = 256
_EXAMPLES_MAX: Final = 1000
_EPILOG: Final = """\
examples:
  weighbridge policy replay STATE --policy my-policy --anchors shipped
  weighbridge policy replay monday.wb tuesday.wb --policy new.rego --anchors anchors.json
  weighbridge policy replay STATE --policy gate.policy --anchors shipped    # a signed bundle
  weighbridge policy replay STATE --policy my-policy --since 2026-11-01T00:00:00Z --json
  weighbridge policy replay STATE --policy production --reference next.json    # the same rules, other values

Each window is verified again, laid out as it was when it came, and decided at its recorded receipt time. A session's
state is the recorded one: where the new policy would have ended a session, its later windows are judged all the same.

Exit 0 when nothing would change, 5 when something would (0 with --exit-zero), 3, 4, 6, 7 or 8 when a session could not
be verified, 8 when interrupted; what was found by then is printed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy replay`` to ``parser``."""
    parser.description = "Say which recorded decisions would be others under a new policy, and by which of its rules."
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "evidence", nargs="+", metavar="STATE|BUNDLE", help="a verifier's directory, or a session.wb file"
    )
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        action="append",
        required=True,
        help="to judge by: a policy's directory or Rego file (several times for several), a signed bundle, or a "
        "shipped one's name",
    )
    add_evidence(parser)
    parser.add_argument("--exit-zero", action="store_true", help="exit 0 also when something would change")
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=_run)


def add_evidence(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how recorded evidence is looked at."""
    parser.add_argument(
        "--reference", metavar="FILE", help="reference values to judge by (default: those that the records name)"
    )
    parser.add_argument(
        "--models",
        "--hosts",
        dest="models",
        metavar="FILE",
        action="append",
        default=[],
        help="a signed set of a models' or a hosts' owner, beside --reference (several times)",
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="believe these keys; beside STATE's own; shipped: those shipped, the default (several times)",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        action="append",
        default=[],
        help="a manifest that `serve` was given: STATE does not have it, bundles do (several times)",
    )
    parser.add_argument(
        "--since", type=given.time, metavar="TIME", help="only windows received since, such as 2026-11-01T00:00:00Z"
    )
    parser.add_argument(
        "--jobs", type=_jobs, default=None, metavar="N", help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "--limit", type=_examples, default=3, metavar="N", help="name at most N windows for each rule (default: 3)"
    )


def tasks_named(arguments: argparse.Namespace, paths: list[str]) -> list[Task]:
    """The sessions in ``paths``, for :func:`.policy_evidence.ask`.

    Raises:
        WeighbridgeError: as :func:`.policy_evidence.tasks_of`.
    """
    from weighbridge.verifier.commands.policy_evidence import tasks_of  # noqa: PLC0415 - heavy, and only here

    return tasks_of(paths, since_ns=_since_ns(arguments))


def question_of(arguments: argparse.Namespace, after: PolicySet, before: PolicySet | None) -> Question:
    """What is asked of every session: how it would stand by ``after``.

    Raises:
        WeighbridgeError: a file that is named cannot be read, or is something else.
    """
    from weighbridge.verifier.commands.policy_evidence import Question  # noqa: PLC0415 - heavy, and only here

    anchors = load_anchors(arguments.anchors)
    own = None
    if arguments.reference is not None:
        own = with_sets(read_reference(arguments.reference), arguments.models, anchors)
    return Question(
        after=after.files,
        before=None if before is None else before.files,
        reference=None if own is None else own.to_json(),
        anchors=anchors,
        manifests=tuple(read_manifest(path).to_json() for path in arguments.manifest),
        since_ns=_since_ns(arguments),
        samples=arguments.limit,
    )


def _since_ns(arguments: argparse.Namespace) -> int:
    """Of ``--since``; 0 where it is not given."""
    from weighbridge.verifier.clock import nanoseconds  # noqa: PLC0415 - only here

    return 0 if arguments.since is None else nanoseconds(arguments.since)


def jobs_of(arguments: argparse.Namespace) -> int:
    """Of ``--jobs``; a process for each core that this one may use, where it is not given."""
    return arguments.jobs or len(os.sched_getaffinity(0))


def _run(arguments: argparse.Namespace) -> Outcome | int:
    from weighbridge.policy.engines.regorus import RegorusEngine  # noqa: PLC0415 - heavy, and only here
    from weighbridge.policy.values.reference import Reference  # noqa: PLC0415
    from weighbridge.verifier.commands.policy_evidence import ask  # noqa: PLC0415

    if arguments.models and arguments.reference is None:
        return usage("--models and --hosts need --reference", command=_COMMAND)
    policy = policy_named(arguments.policy, Reference({}, {}, {}))
    # Before anything is looked at: a policy that is refused would be refused for every session.
    RegorusEngine().load(policy).close()
    question = question_of(arguments, policy, None)
    tasks = tasks_named(arguments, arguments.evidence)
    found = ask(tasks, question, jobs=jobs_of(arguments), shown=not arguments.json)
    lines = [
        f"{headline(found, 'would be judged otherwise')} by {', '.join(map(plain, arguments.policy))}",
        *coverage_text(found),
        *_recorded_text(found),
        *changes_text(found.part.tally),
        *failures_text(found),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/policy-replay/v1",
        "complete": found.complete,
        "policy": {"names": list(arguments.policy), "digest": policy.digest.hex()},
        "reference": None if question.reference is None else arguments.reference,
        **coverage_document(found),
        "recorded_policy": _recorded_document(found),
        **changes_document(found.part.tally),
        "not_verified": failures_document(found),
    }
    return Outcome("".join(f"{line}\n" for line in lines), document, status_of(found, exit_zero=arguments.exit_zero))


def _recorded_text(found: Found) -> list[str]:
    """Whether the policies that judged then still say what is recorded."""
    part, lines = found.part, list[str]()
    asked, others = counted_windows(part.asked_again), part.other_verdict
    if others.changes:
        lines.append(f"  recorded     {others.changes:,} of {asked}: the policy that judged gives another verdict now")
        lines += [f"    {line}" for line in changes_text(others) if line]
    elif part.asked_again:
        lines.append(f"  recorded     {asked}: the policy that judged gives the recorded verdict again")
    if left := part.tally.windows - part.tally.before_any_policy - part.asked_again:
        lines.append(f"  not asked    {counted_windows(left)}: what the policy that judged says now is not known")
    if part.other_document:
        lines.append(f"  documents    {part.other_document:,} are not byte for byte those that were judged:")
        lines.append("               another version made them, or a manifest is not named (--manifest)")
    return lines


def _recorded_document(found: Found) -> strict.JsonObject:
    part = found.part
    return {
        "asked": part.asked_again,
        "other_documents": part.other_document,
        "other_verdicts": changes_document(part.other_verdict),
    }


def _jobs(text: str) -> int:
    found = given.decimal(text, what="the number of processes", limit=_JOBS_MAX)
    if not found:
        raise argparse.ArgumentTypeError("at least one process")
    return found


def _examples(text: str) -> int:
    return given.decimal(text, what="the number of windows", limit=_EXAMPLES_MAX)
