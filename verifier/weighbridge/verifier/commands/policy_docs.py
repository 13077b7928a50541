"""``weighbridge policy docs``: what there is to write rules about, as a tree, as Markdown, or as JSON Schema."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands.outcome import Outcome

if TYPE_CHECKING:
    from weighbridge.proto import strict

__all__ = ["configure"]

_EPILOG: Final = """\
examples:
  weighbridge policy docs                           # all of the input
  weighbridge policy docs input.gpus                # a part of it
  weighbridge policy docs data.reference            # what the relying party expects
  weighbridge policy docs lib                       # what the library has to say
  weighbridge policy docs lib.statement_within
  weighbridge policy docs --json >input.schema.json
  weighbridge policy docs --editor my-policy/       # schemas for editors, OPA and Regal beside a policy
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``docs`` to ``parser``."""
    parser.description = (
        "What policies see: every member of the input, of the reference values and of the library, its type, the words "
        "that may stand there and what it says. All of it is always there; what is not known is null, or a word."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "path",
        type=_path,
        nargs="?",
        metavar="PATH",
        help="a part: input.gpus, data.reference.models, lib; without it, all of the input",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown; without PATH, all there is")
    form.add_argument("--json", action="store_true", help="print JSON Schema (draft 07); of the library, a list")
    form.add_argument(
        "--editor", type=Path, metavar="DIR", help="write schemas, OPA's capabilities and Regal's settings into DIR"
    )
    parser.set_defaults(run=_run)


def _path(text: str) -> str:
    """A path to something there is."""
    from weighbridge.policy.authoring.reference_docs import NoSuchPath, find  # noqa: PLC0415 - of no use elsewhere

    try:
        _ = find(text)
    except NoSuchPath as error:
        meant = error.hint if error.hint.startswith(("there ", "write ")) else f"did you mean {error.hint}?"
        raise argparse.ArgumentTypeError(f"{error}" + (f"; {meant}" if error.hint else "")) from error
    return text


def _run(arguments: argparse.Namespace) -> Outcome:
    if arguments.editor is not None:
        return _write(arguments.editor)
    from weighbridge.policy.authoring.reference_docs import find, markdown  # noqa: PLC0415 - of no use elsewhere
    from weighbridge.verifier.commands.policy_docs_text import document_of, text_of  # noqa: PLC0415 - as above

    found = find(arguments.path or "input")
    text = markdown(arguments.path or "") if arguments.markdown else text_of(found, whole=arguments.path is None)
    return Outcome(text, document_of(found))


def _write(directory: Path) -> Outcome:
    from weighbridge.policy.authoring.editor import write_editor_files  # noqa: PLC0415 - of no use elsewhere

    written = write_editor_files(directory)
    names: list[strict.JsonValue] = [str(path) for path in written]
    text = "".join(f"{path}\n" for path in written)
    text += f"how to use them: {directory / '.weighbridge' / 'README.md'}\n"
    return Outcome(text, {"schema": "weighbridge/policy-editor-files/v1", "written": names})
