"""``weighbridge policy eval``: what a policy says of one document, or the value of any expression over it."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy.authoring import golden
from weighbridge.policy.authoring.golden import Expectation, Golden
from weighbridge.policy.authoring.sources import GOLDEN
from weighbridge.policy.authoring.trial import Fault, Trial
from weighbridge.policy.checker.check import AUTHOR_PACKAGE, LIBRARY_PACKAGE
from weighbridge.policy.document import PolicyInput
from weighbridge.policy.engines.workbench import Undefined
from weighbridge.policy.policy_set import DATA_MAX, AuthorData, shipped_name
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, PolicyDenied
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.bundle import read_bundle
from weighbridge.verifier.commands.foreign import add_foreign, with_foreign
from weighbridge.verifier.commands.outcome import (
    Outcome,
    load_anchors,
    policy_named,
    read,
    read_reference,
    sources_named,
    taken_for,
    usage,
    write,
)
from weighbridge.verifier.commands.policy_decision import decision_document, decision_lines
from weighbridge.verifier.commands.text import plain
from weighbridge.verifier.recorded import windows

if TYPE_CHECKING:
    from weighbridge.policy.authoring.trial import Tried
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["configure"]

_COMMAND: Final = "policy eval"
_WINDOW_MAX: Final = 2**53 - 1
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_LIBRARY: Final = re.compile(r"lib((?:\.[A-Za-z_][A-Za-z0-9_]*)+)")
_EPILOG: Final = """\
examples:
  weighbridge policy eval my-policy --input my-policy/golden/admitted.golden.json
  weighbridge policy eval production --bundle session.wb --window 3 --anchors anchors.json
  weighbridge policy eval my-policy --bundle session.wb --window 3 --query 'input.gpus[0].revocation'
  weighbridge policy eval my-policy --input document.json --record my-policy/golden/mine.golden.json

What `print` prints is shown. A query is an expression such as `input.work.requests * 2`; rules are named by their paths
(data.weighbridge.policy.deny, or `deny` alone; data.weighbridge.lib.unproven, or `lib.unproven`). Exit 0 when the
policy allows, or the query has a value; 5 when not.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy eval`` to ``parser``."""
    parser.description = "Evaluate a policy on one document. Admits nothing: the document is whatever you say it is."
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "policy",
        nargs="+",
        metavar="POLICY",
        help="a directory, modules, a signed bundle, or a shipped policy by its name",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="FILE", help="a document, or a golden input, or - for standard input")
    source.add_argument("--bundle", metavar="FILE", help="a proof bundle, which is verified first; with --window")
    parser.add_argument("--window", type=_window, metavar="N", help="which window of the bundle")
    parser.add_argument(
        "--anchors", action="append", default=[], metavar="FILE", help="who is believed in a bundle; may be repeated"
    )
    parser.add_argument(
        "--reference",
        metavar="FILE",
        help="reference values; else those of the golden input, of the bundle, or reference.json of the directory",
    )
    parser.add_argument("--data", metavar="FILE", help="instead of the policy's data.json")
    parser.add_argument("--at", type=given.date, metavar="TIME", help="as if the window had been received then")
    parser.add_argument("--query", metavar="EXPR", help="print the value of this instead of the decision")
    parser.add_argument(
        "--record", type=_golden, metavar="FILE", help=f"write a golden input: this document, this decision (*{GOLDEN})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_foreign(parser)
    parser.set_defaults(run=_run)


def _window(text: str) -> int:
    return given.decimal(text, what="the window", limit=_WINDOW_MAX)


def _golden(text: str) -> Path:
    if not text.endswith(GOLDEN):
        raise argparse.ArgumentTypeError(f"the name must end in {GOLDEN}, or `policy test` does not find it")
    return given.output(text)


@dataclass(frozen=True, slots=True)
class _Given:
    """A document, and what came with it: reference values, and of a golden input its title and the author's data."""

    document: PolicyInput
    reference: Reference | None = None
    title: str = ""
    author: strict.JsonObject = field(default_factory=dict)


def _run(arguments: argparse.Namespace) -> Outcome | ExitCode:
    if (arguments.bundle is None) != (arguments.window is None):
        return usage("--bundle and --window belong together", command=_COMMAND)
    if arguments.anchors and arguments.bundle is None:
        return usage("--anchors is for a bundle", command=_COMMAND)
    if arguments.query is not None and arguments.record is not None:
        return usage("--record is of a decision: leave out --query", command=_COMMAND)
    found = _recorded(arguments) if arguments.input is None else _read(arguments.input)
    if arguments.at is not None:
        found = replace(found, document=golden.at_time(found.document, arguments.at))
    policy = _policy(arguments, found)
    with Trial(policy) as trial:
        trial.refuse_errors()
        if arguments.query is not None:
            return _queried(trial, arguments.query, found.document)
        tried = trial.decide(found.document)
    if arguments.record is not None:
        expect = Expectation.of(tried.decision)
        made = Golden(found.title, found.document, policy.reference, expect, found.author)
        write(arguments.record, made.to_json(), doing="writing the golden input")
    return _decided(tried, found.document, arguments.record)


def _read(path: str) -> _Given:
    data = read(path, limit=limits.JSON_MAX)
    with taken_for(path, what="a policy's input", hint="`weighbridge policy input` writes one of a recorded window"):
        value = strict.json_decode(data, what="input")
        if isinstance(value, dict) and value.get("schema") == golden.SCHEMA:
            made = Golden.parse(data)
            return _Given(made.input, made.reference, made.title, made.author)
        return _Given(PolicyInput.parse(data))


def _recorded(arguments: argparse.Namespace) -> _Given:
    """The document of a recorded window, which is verified up to it.

    Raises:
        WeighbridgeError: as :func:`weighbridge.verifier.recorded.windows`.
        EnvironmentFault: ``FILE_UNREADABLE``: there is no such window.
        PolicyDenied: it was refused before any policy was asked; with the code of that.
    """
    anchors = load_anchors(arguments.anchors)
    reference = None if arguments.reference is None else read_reference(arguments.reference)
    last = -1
    for window in windows(read_bundle(arguments.bundle), anchors=anchors, reference=reference):
        last = window.seq
        if window.seq != arguments.window:
            continue
        if window.document is not None:
            return _Given(window.document, window.reference)
        first, *_ = window.refused
        raise PolicyDenied(
            Code(first.code),
            first.message,
            where=f"window {window.seq}",
            expected=first.expected,
            got=first.got,
            hint="it was refused before any policy is asked: weighbridge policy explain says more",
        )
    raise EnvironmentFault(
        Code.FILE_UNREADABLE,
        "the bundle has no such window",
        where=arguments.bundle,
        expected=f"0 to {last}",
        got=arguments.window,
        hint="`weighbridge verify bundle` lists them",
    )


def _policy(arguments: argparse.Namespace, found: _Given) -> PolicySet:
    names: list[str] = arguments.policy
    reference = _reference(arguments.reference, found.reference, names)
    made = with_foreign(policy_named(names, reference), arguments)
    if arguments.data is not None:
        return replace(made, data=AuthorData(read(arguments.data, limit=DATA_MAX)))
    return golden.with_author(made, found.author)


def _reference(named: str | None, recorded: Reference | None, policy: list[str]) -> Reference:
    if named is not None:
        return read_reference(named)
    if recorded is not None:
        return recorded
    is_shipped = len(policy) == 1 and shipped_name(policy[0]) is not None
    beside = None if is_shipped else sources_named(policy).reference
    return Reference({}, {}, {}) if beside is None else read_reference(str(beside))


def _queried(trial: Trial, query: str, document: PolicyInput) -> Outcome:
    rules = {rule.name for module in trial.syntax if module.package == AUTHOR_PACKAGE for rule in module.rules}
    full = query.strip()
    if _NAME.fullmatch(full) and full in rules:
        full = f"data.{AUTHOR_PACKAGE}.{full}"
    elif match := _OF_LIBRARY.fullmatch(full):
        full = f"data.{LIBRARY_PACKAGE}{match.group(1)}"
    now = strict.decimal(document.received_ns, what="received_ns")
    found = trial.evaluate(full, document.to_json(), now_ns=now)
    if isinstance(found, Fault):
        hint = "rules are named by their paths, such as data.weighbridge.policy.deny"
        raise PolicyDenied(Code.POLICY_ERROR, f"the query has no value: {found.text}", where=query, hint=hint)
    result = None if isinstance(found.value, Undefined) else found.value
    is_defined = not isinstance(found.value, Undefined)
    text = strict.json_encode(result, indent=2).decode() if is_defined else "undefined"
    lines = [*(plain(line) for line in found.prints), text]
    value: strict.JsonObject = {
        "schema": "weighbridge/policy-query/v1",
        "query": full,
        "defined": is_defined,
        "value": result,
        "prints": [*found.prints],
    }
    return Outcome("\n".join(lines) + "\n", value, ExitCode.AFFIRMED if is_defined else ExitCode.DENIED)


def _decided(tried: Tried, document: PolicyInput, record: Path | None) -> Outcome:
    lines = decision_lines(tried.decision, document, prints=tried.prints)
    lines += [f"recorded: {record}"] if record is not None else []
    value: strict.JsonObject = {
        "schema": "weighbridge/policy-eval/v1",
        "decision": decision_document(tried.decision),
        "prints": [*tried.prints],
        "recorded": None if record is None else str(record),
    }
    status = ExitCode.AFFIRMED if tried.decision.allowed else ExitCode.DENIED
    return Outcome("".join(f"{line}\n" for line in lines), value, status)
