"""The manifests of the corpus, and the cases that they belong to.

``tests/vectors/<stage>/<nnn-slug>/manifest.yaml`` is what a case says of itself; ``tests/corpus/<stage>.py`` has the
function ``case_nnn_slug`` that builds its input. A manifest is the plainest YAML: one ``key: text`` per line, every key
present, nothing nested, so that it is read here without a library that would guess types.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from corpus.arena import Signatures
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.conformance.result import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena, Shown

VECTORS: Final = Path(__file__).resolve().parent.parent / "vectors"
Afterwards = Literal["goes-on", "unchanged", "failed", "ended", "nothing"]
_KEYS: Final = (
    "id",
    "rows",
    "clause",
    "deviation",
    "signatures",
    "provenance",
    "at",
    "outcome",
    "codes",
    "exit",
    "window",
    "afterwards",
)
_ROW: Final = re.compile(r"A[0-9]{2}")
_CASE: Final = re.compile(r"case_([0-9]{3})_([a-z0-9_]+)")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a case shows, and what has to come of it.

    Attributes:
        id: ``<stage>/<nnn-slug>``.
        rows: of the table of refusals, ``A01`` to ``A84``; none for what is merely accepted.
        clause: of which specification, and what stops it.
        deviation: the one thing that is wrong.
        signatures: whether every signature in the evidence is good, ``none`` when there is none to look at.
        at: the verifier's time of judging.
        outcome, codes, exit, window: as :class:`weighbridge.verifier.conformance.result.Result`; no codes but for a
            refusal.
        afterwards: ``goes-on``: the next honest window is affirmed; ``unchanged``: the session stands where it stood;
            ``failed``: it has failed, and that sticks; ``ended``: it has failed for its model, and nothing sticks;
            ``nothing``: there is no session to look at.
    """

    id: str
    rows: tuple[str, ...]
    clause: str
    deviation: str
    signatures: Signatures
    provenance: str
    at: datetime
    outcome: Outcome
    codes: tuple[Code, ...]
    exit: ExitCode
    window: int | None
    afterwards: Afterwards


def read(path: Path) -> Manifest:
    """The manifest in ``path``; raises :class:`ValueError` for anything but the form above."""
    fields: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, text = line.partition(": ")
        if not colon or key in fields or text != text.strip():
            raise ValueError(f"{path}: not `key: text`, or again: {line!r}")
        fields[key] = text
    if tuple(fields) != _KEYS:
        raise ValueError(f"{path}: keys are {', '.join(fields)}")
    identity = f"{path.parent.parent.name}/{path.parent.name}"
    rows = _list(fields["rows"])
    if fields["id"] != identity or not all(_ROW.fullmatch(row) for row in rows):
        raise ValueError(f"{path}: wrong id or rows")
    return Manifest(
        id=identity,
        rows=rows,
        clause=fields["clause"],
        deviation=fields["deviation"],
        signatures=cast("Signatures", _one_of(fields["signatures"], get_args(Signatures))),
        provenance=_one_of(fields["provenance"], ("synthetic",)),
        at=strict.time_decode(fields["at"], what="at"),
        outcome=cast("Outcome", _one_of(fields["outcome"], get_args(Outcome))),
        codes=tuple(Code(code) for code in _list(fields["codes"])),
        exit=ExitCode(strict.decimal(fields["exit"], what="exit")),
        window=None if fields["window"] == "none" else strict.decimal(fields["window"], what="window"),
        afterwards=cast("Afterwards", _one_of(fields["afterwards"], get_args(Afterwards))),
    )


def write(manifest: Manifest, path: Path) -> None:
    """The inverse of :func:`read`."""
    texts = {
        **{key: str(getattr(manifest, key)) for key in _KEYS},
        "rows": ", ".join(manifest.rows) or "none",
        "at": strict.time_encode(manifest.at),
        "codes": ", ".join(manifest.codes) or "none",
        "exit": str(int(manifest.exit)),
        "window": "none" if manifest.window is None else str(manifest.window),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key}: {texts[key]}\n" for key in _KEYS), encoding="utf-8")


def manifests() -> dict[str, Manifest]:
    """Every manifest of the corpus by its id."""
    return {found.id: found for found in map(read, sorted(VECTORS.glob("*/*/manifest.yaml")))}


def cases() -> dict[str, Callable[[Arena], Shown]]:
    """Every case of the corpus by the id that its name says."""
    found: dict[str, Callable[[Arena], Shown]] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        module = importlib.import_module(f"corpus.{path.stem}")
        for name, case in inspect.getmembers(module, inspect.isfunction):
            match = _CASE.fullmatch(name)
            if match and case.__module__ == module.__name__:
                found[f"{path.stem}/{match[1]}-{match[2].replace('_', '-')}"] = case
    return found


def _list(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(", "))


def _one_of(text: str, words: tuple[str, ...]) -> str:
    if text not in words:
        raise ValueError(f"{text!r} is not one of {', '.join(words)}")
    return text
