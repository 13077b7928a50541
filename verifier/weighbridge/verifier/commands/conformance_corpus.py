"""``weighbridge conformance export``: the corpus as files. Cases are code in the project's tests: a checkout has them.

The generator is run as a process of its own, by this Python: nothing of the tests is loaded here.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.progress import Progress
from weighbridge.verifier.conformance.corpus import Corpus

__all__ = ["configure", "export"]

_SCRIPT: Final = Path("scripts") / "conformance_corpus.py"
_SCHEMA: Final = "weighbridge/conformance-export/v1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``conformance export`` to ``parser``."""
    parser.description = (
        "Write the corpus as files that need nothing of this project: the cases' bytes, what has to be said of each, "
        "their manifests, and the SHA-256 of every case and of all. The same bytes on every machine. Takes a checkout "
        "in which scripts/setup has run, and two minutes."
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="where to: a directory that does not exist")
    parser.add_argument("--checkout", metavar="DIR", type=Path, default=Path(), help="of the project (default: .)")
    parser.add_argument("--only", metavar="PREFIX", action="append", default=[], help="cases whose names begin so")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    corpus = export(arguments.directory, checkout=arguments.checkout, only=arguments.only)
    lines = [
        f"{len(corpus.digests)} cases in {arguments.directory}",
        f"{len(corpus.left_out)} cases of the checkout cannot be told in steps; left-out.txt says why",
        f"SHA-256 of the corpus: {corpus.digest.hex()}",
    ]
    document = {
        "schema": _SCHEMA,
        "cases": len(corpus.digests),
        "left_out": dict(corpus.left_out),
        "sha256": corpus.digest.hex(),
    }
    return Outcome("\n".join(lines) + "\n", document)  # type: ignore[arg-type] # texts and numbers


def export(directory: Path, *, checkout: Path, only: list[str] | None = None) -> Corpus:
    """Write the corpus of ``checkout`` to ``directory``, which must not exist, and open it.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``: this is no checkout; ``FILE_UNWRITABLE``: the directory exists;
            ``TOOL_MISSING``: the generator has failed, and has said why.
    """
    script = checkout / _SCRIPT
    if not script.is_file():
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            "no checkout of the project, whose tests have the cases",
            where=str(script),
            hint="run it in one, name one by `conformance export --checkout`, or an exported corpus by --corpus",
        )
    if directory.exists():
        raise EnvironmentFault(
            Code.FILE_UNWRITABLE, "it exists already", where=str(directory), hint="choose another directory"
        )
    command = [sys.executable, str(script), str(directory), "--ticks", *(only or [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - by this Python, in the caller's checkout
    try:
        with process, Progress("cases", _count(checkout, tuple(only or [])), shown=True) as progress:
            while process.stdout is not None and process.stdout.read(1):
                progress.advance(1)
    finally:
        process.kill()
        if process.wait():
            # A part of a corpus is none.
            shutil.rmtree(directory, ignore_errors=True)
    if process.returncode:
        raise EnvironmentFault(
            Code.TOOL_MISSING,
            f"the generator ended with status {process.returncode}",
            where=str(script),
            hint="run scripts/setup in the checkout, and this by its .venv/bin/weighbridge",
        )
    return Corpus.open(directory)


def _count(checkout: Path, prefixes: tuple[str, ...]) -> int:
    found = (checkout / "tests" / "vectors").glob("*/*/manifest.yaml")
    names = [f"{path.parent.parent.name}/{path.parent.name}" for path in found]
    return sum(not prefixes or name.startswith(prefixes) for name in names)
