"""``weighbridge policy diff``: two policies side by side, as they are written and as they decide."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.verifier.commands.outcome import Outcome, policy_named, read, read_reference, taken_for, usage
from weighbridge.verifier.commands.policy_changes import (
    changes_document,
    changes_text,
    coverage_document,
    coverage_text,
    failures_document,
    failures_text,
    headline,
    status_of,
)
from weighbridge.verifier.commands.policy_replay import add_evidence, jobs_of, question_of, tasks_named
from weighbridge.verifier.commands.text import counted, plain

if TYPE_CHECKING:
    from weighbridge.policy.authoring.clauses import Clause
    from weighbridge.policy.authoring.difference import Difference, Looks
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.proto import strict
    from weighbridge.verifier.commands.policy_evidence import Found
    from weighbridge.verifier.rejudged import Part

__all__ = ["configure"]

_COMMAND: Final = "policy diff"
_WIDTH: Final = 96
_GOLDEN: Final = "*.golden.json"
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}
_EPILOG: Final = """\
examples:
  weighbridge policy diff old-policy my-policy
  weighbridge policy diff production my-policy --inputs my-policy
  weighbridge policy diff old-policy my-policy --recorded STATE --since 2026-11-01T00:00:00Z

Rules are compared by the syntax tree: comments, white space, order and file names make no difference. What they look at
is told with what the library looks at for them. Which decisions differ is told of what was recorded, by --recorded, or
of golden inputs, by --inputs.

Exit 0 when nothing differs, 5 when something does (0 with --exit-zero), 3, 4, 6, 7 or 8 when a session could not be
verified.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy diff`` to ``parser``."""
    parser.description = "Compare two policies: their rules, what they look at, and what they decide."
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    what = "a policy's directory or Rego file, or a shipped one's name"
    parser.add_argument("old", metavar="OLD", help=what)
    parser.add_argument("new", metavar="NEW", help=what)
    parser.add_argument(
        "--recorded",
        metavar="STATE|BUNDLE",
        action="append",
        default=[],
        help="have both decide what was recorded: a verifier's directory, or a session.wb file (several times)",
    )
    parser.add_argument(
        "--inputs",
        metavar="DIR|FILE",
        action="append",
        default=[],
        type=Path,
        help=f"have both decide golden inputs: files {_GOLDEN}, or directories with some (several times)",
    )
    add_evidence(parser)
    parser.add_argument("--exit-zero", action="store_true", help="exit 0 also when something differs")
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome | int:
    from weighbridge.policy.authoring.difference import difference, written  # noqa: PLC0415 - heavy, only here
    from weighbridge.policy.engines.regorus import RegorusEngine  # noqa: PLC0415
    from weighbridge.policy.values.reference import Reference  # noqa: PLC0415
    from weighbridge.verifier.commands.policy_evidence import ask  # noqa: PLC0415

    if arguments.models and arguments.reference is None:
        return usage("--models and --hosts need --reference", command=_COMMAND)
    nothing = Reference({}, {}, {})
    old, new = (policy_named([name], nothing) for name in (arguments.old, arguments.new))
    for policy in (old, new):
        RegorusEngine().load(policy).close()
    found = difference(written(old), written(new))
    recorded = None
    if arguments.recorded:
        tasks = tasks_named(arguments, arguments.recorded)
        recorded = ask(tasks, question_of(arguments, new, old), jobs=jobs_of(arguments), shown=not arguments.json)
    golden = _decided(arguments, old, new) if arguments.inputs else None
    lines = [
        f"{'NO DIFFERENCE' if found.none else 'DIFFERENT'}: {_summary(found)}",
        f"  old  {_named(arguments.old, old)}",
        f"  new  {_named(arguments.new, new)}",
        *_written_text(found),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/policy-diff/v1",
        "old": {"name": arguments.old, "digest": old.digest.hex()},
        "new": {"name": arguments.new, "digest": new.digest.hex()},
        **_written_document(found),
        "recorded": None if recorded is None else _found_document(recorded),
        "inputs": None if golden is None else _part_document(golden),
    }
    if recorded is not None:
        lines += ["", headline(recorded, "are judged otherwise"), *coverage_text(recorded)]
        lines += [*changes_text(recorded.part.tally), *failures_text(recorded)]
    if golden is not None:
        tally = golden.tally
        lines += ["", f"GOLDEN INPUTS: {tally.changes:,} of {tally.windows:,} are judged otherwise"]
        lines += changes_text(tally)
    status = ExitCode.AFFIRMED if recorded is None else status_of(recorded, exit_zero=arguments.exit_zero)
    differs = not found.none or (golden is not None and golden.tally.changes > 0)
    if status is ExitCode.AFFIRMED and differs and not arguments.exit_zero:
        status = ExitCode.DENIED
    return Outcome("".join(f"{line}\n" for line in lines), document, status)


def _decided(arguments: argparse.Namespace, old: PolicySet, new: PolicySet) -> Part:
    """What both say of golden inputs, each by the reference values in it or by the caller's."""
    from weighbridge.policy.authoring.golden import Golden  # noqa: PLC0415 - only here
    from weighbridge.proto import strict  # noqa: PLC0415
    from weighbridge.verifier.record import NO_DIGEST  # noqa: PLC0415
    from weighbridge.verifier.recorded import RecordedWindow  # noqa: PLC0415
    from weighbridge.verifier.rejudged import Part, Rejudge  # noqa: PLC0415

    part = Part.empty(arguments.limit)
    own = None if arguments.reference is None else read_reference(arguments.reference)
    with Rejudge(new.files, before=old.files, samples_max=arguments.limit) as rejudge:
        for path in _golden_files(arguments.inputs):
            data = read(path, limit=limits.JSON_MAX)
            with taken_for(path, what="a golden input", hint="`weighbridge policy eval --record FILE` writes one"):
                golden = Golden.parse(data)
            document = golden.input
            window = RecordedWindow(
                session=bytes(16),
                seq=document.window.seq,
                received=strict.time_decode(document.received_at, what="received_at"),
                held=document.window.freshness == "held",
                document=document,
                refused=(),
                recorded={},
                outcome="denied",
                policy=NO_DIGEST,
                reference=own or golden.reference,
            )
            rejudge.add(part, window, name=str(path))
    return part


def _golden_files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob(_GOLDEN)) if path.is_dir() else [path]
    if not found:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            f"no golden inputs here: files {_GOLDEN}",
            where=", ".join(map(str, paths)),
            hint="`weighbridge policy eval --record FILE` writes one",
        )
    return found


def _named(name: str, policy: PolicySet) -> str:
    return f"{plain(name)}, {counted(len(policy.files), 'file')} with the library, digest {policy.digest.hex()[:16]}…"


def _summary(written: Difference) -> str:
    if written.none:
        return "the same rules and data"
    data = f", {counted(len(written.data), 'member')} of data.json" if written.data else ""
    return f"{counted(len(written.rules), 'rule')}{data}"


def _written_text(written: Difference) -> list[str]:
    lines: list[str] = []
    if written.rules:
        width = max(len(rule.name) for rule in written.rules)
        lines += ["", "rules"]
        for rule in written.rules:
            head = f"  {_SIGNS[rule.effect]} {rule.name:<{width}}  "
            places = [*(f"+ {clause}" for clause in rule.came), *(f"- {clause}" for clause in rule.went)]
            lines += _wrapped(head, places)
    if written.data:
        lines += ["", *_wrapped("data.json  ", [f"~ {name}" for name in written.data])]
    looks = [*_looks_text("+", written.came), *_looks_text("-", written.went)]
    return [*lines, *(["", "looks at", *looks] if looks else [])]


def _looks_text(sign: str, looks: Looks) -> list[str]:
    lines: list[str] = []
    for what, names in (("paths", looks.paths), ("library", looks.library), ("builtins", looks.builtins)):
        if names:
            lines += _wrapped(f"  {sign} {what:<8}  ", list(names))
    return lines


def _wrapped(head: str, words: list[str]) -> list[str]:
    """``words`` behind ``head``, on as many lines as they take."""
    lines, line = list[str](), head
    for number, word in enumerate(words):
        following = f"{word}{',' if number + 1 < len(words) else ''}"
        if line.strip() != head.strip() and len(line) + len(following) + 1 > _WIDTH:
            lines.append(line.rstrip())
            line = " " * len(head)
        line += following if line in (head, " " * len(head)) else f" {following}"
    return [*lines, line.rstrip()]


def _written_document(written: Difference) -> strict.JsonObject:
    return {
        "same": written.none,
        "rules": [
            {
                "rule": rule.name,
                "effect": rule.effect,
                "came": [_place(clause) for clause in rule.came],
                "went": [_place(clause) for clause in rule.went],
            }
            for rule in written.rules
        ],
        "data": list(written.data),
        "looks_at": {"came": _looks_document(written.came), "went": _looks_document(written.went)},
    }


def _looks_document(looks: Looks) -> strict.JsonObject:
    return {"paths": list(looks.paths), "library": list(looks.library), "builtins": list(looks.builtins)}


def _place(clause: Clause) -> strict.JsonObject:
    return {"module": clause.module, "line": clause.line}


def _found_document(found: Found) -> strict.JsonObject:
    return {
        "complete": found.complete,
        **coverage_document(found),
        **changes_document(found.part.tally),
        "not_verified": failures_document(found),
    }


def _part_document(part: Part) -> strict.JsonObject:
    return changes_document(part.tally)
