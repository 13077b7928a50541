"""``weighbridge conformance list`` and ``show``: which cases a corpus has, and what one of them consists of."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto.options import UsageFault
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.text import line
from weighbridge.verifier.conformance.corpus import Corpus
from weighbridge.verifier.conformance.steps import Case

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto import strict
    from weighbridge.verifier.conformance.steps import Said

__all__ = ["chosen", "configure_list", "configure_show"]

_LIST: Final = "weighbridge/conformance-list/v1"
_SHOW: Final = "weighbridge/conformance-show/v1"
# Of what a step holds, what is short and says something.
_SHORT: Final = ("verifier", "state", "at", "session", "audience", "kind", "reason", "policy")
_LONGEST: Final = 64


def configure_list(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``conformance list`` to ``parser``."""
    parser.description = "List the cases of an exported corpus: name, attacks, what has to come of it, what is wrong."
    _add_corpus(parser)
    parser.add_argument("--only", metavar="PREFIX", action="append", default=[], help="cases whose names begin so")
    parser.add_argument("--row", metavar="A00", action="append", default=[], help="cases that show this attack")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run_list)


def configure_show(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``conformance show`` to ``parser``."""
    parser.description = "Show one case of an exported corpus: its manifest, and what has to come of each of its steps."
    parser.add_argument("case", metavar="CASE", help="its name, such as freshness/001-old-quote")
    _add_corpus(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document, with the case as drivers get it")
    parser.set_defaults(run=_run_show)


def chosen(corpus: Corpus, prefixes: Sequence[str], rows: Sequence[str]) -> list[str]:
    """The names of the cases that begin with one of ``prefixes`` and show one of ``rows``; no ``rows``: any.

    Raises:
        UsageFault: there are none.
    """
    names = [name for name in corpus.digests if not prefixes or name.startswith(tuple(prefixes))]
    if rows:
        names = [name for name in names if set(corpus.item(name).rows) & set(rows)]
    if not names:
        raise UsageFault("no case of the corpus is meant", hint="`weighbridge conformance list` shows their names")
    return names


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", metavar="DIR", type=Path, required=True, help="where it was exported to")


def _run_list(arguments: argparse.Namespace) -> Outcome:
    corpus = Corpus.open(arguments.corpus)
    items = [(name, corpus.item(name)) for name in chosen(corpus, arguments.only, arguments.row)]
    lines = [
        line(f"{name}  {item.manifest['rows']}  {_words(item.expected.said[-1])}  {item.manifest['deviation']}")
        for name, item in items
    ]
    document: strict.JsonObject = {
        "schema": _LIST,
        "corpus": corpus.digest.hex(),
        "cases": [
            {
                "id": name,
                "rows": list(item.rows),
                "requires": list(item.requires),
                "expected": item.expected.said[-1].model_dump(mode="json"),
                "deviation": item.manifest["deviation"],
                "sha256": corpus.digests[name].hex(),
            }
            for name, item in items
        ],
        "not_in_corpus": dict(corpus.left_out),
    }
    return Outcome("\n".join(lines) + "\n", document)


def _run_show(arguments: argparse.Namespace) -> Outcome:
    corpus = Corpus.open(arguments.corpus)
    if arguments.case not in corpus.digests:
        reason = corpus.left_out.get(arguments.case)
        raise UsageFault(
            f"it cannot be told in steps: {reason}" if reason else "there is no such case in the corpus",
            hint="`weighbridge conformance list` shows their names",
        )
    item = corpus.item(arguments.case)
    case = Case.model_validate_json(item.line)
    lines = [line(f"{key}: {text}") for key, text in item.manifest.items()]
    lines += [f"sha256: {corpus.digests[arguments.case].hex()}", ""]
    for number, (step, said) in enumerate(zip(case.steps, item.expected.said, strict=True), 1):
        fields = step.model_dump(mode="json")
        told = " ".join(f"{key}={fields[key]}" for key in _SHORT if _is_short(fields.get(key)))
        lines.append(line(f"{number:>3}  {step.op:<10} {told}  ->  {_words(said)}"))
    document: strict.JsonObject = {
        "schema": _SHOW,
        "manifest": dict(item.manifest),
        "sha256": corpus.digests[arguments.case].hex(),
        "case": case.model_dump(mode="json", by_alias=True),
        "expected": item.expected.model_dump(mode="json"),
    }
    return Outcome("\n".join(lines) + "\n", document)


def _is_short(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST)


def _words(said: Said) -> str:
    return " ".join((said.outcome, *said.codes))
