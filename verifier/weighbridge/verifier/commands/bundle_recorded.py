"""What ``verify bundle --records-only`` says: what a verifier recorded, by its word alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.commands.bundle_text import caveats, rests_on, so_far, tree
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.text import counted, line
from weighbridge.verifier.commands.tree import labelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.proto import strict
    from weighbridge.verifier.bundle_records import RecordsVerdict

__all__ = ["records", "records_status"]

_BY_ITS_WORD: Final = "the verifier's word: what it recorded; nothing was judged again, and no evidence was looked at"


def records_status(result: RecordsVerdict) -> ExitCode:
    """The exit status for what was recorded."""
    if result.admitted:
        return ExitCode.AFFIRMED
    return ExitCode.DENIED if result.denied else ExitCode.INDETERMINATE


def records(result: RecordsVerdict) -> Outcome:
    """The outcome of a bundle of which it was asked what was recorded."""
    status = records_status(result)
    withheld = status == ExitCode.INDETERMINATE and result.untold
    said = {ExitCode.AFFIRMED: "ADMITTED", ExitCode.DENIED: "DENIED"}.get(status, "INDETERMINATE")
    word = "EVIDENCE WITHHELD" if withheld else f"RECORDED AS {said}"
    kind = "redacted" if result.redacted else "partial" if len(result.shown) < len(result.windows) else "full"
    outcomes = [window.outcome for window in result.shown]
    counts = ", ".join(f"{outcomes.count(word)} {word}" for word in ("affirmed", "held", "indeterminate", "denied"))
    unchecked = sorted(_unchecked(result))
    emulated = any(name.partition(":")[0] == EMULATED_PLATFORM for name in _platforms(result))
    known = caveats(emulated=emulated, unchecked=(check for check, _ in unchecked))
    lines = [
        f"{word}: session {result.session.hex()}, by its verifier's word alone{known}{so_far(result)}",
        *([] if result.model is None else [f"  model      {result.model.hex()}"]),
        *(said for name in sorted(_platforms(result)) for said in labelled("platform", name)),
        *labelled("attester", _code(result)),
        f"  windows    {len(result.windows)}, of which {counted(len(result.shown), 'is', 'are')} told: {counts}",
        f"  ledger     {result.origin}, {counted(result.size, 'entry', 'entries')}, every judgement proven to be in it",
        *(["  devices    go by pseudonyms under the tenant's salt"] if result.redacted else []),
        *([f"  not told   {_untold(result.untold)}"] if result.untold else []),
        *(said for check, reason in unchecked for said in labelled("unchecked", check + reason)),
        *labelled("rests on", rests_on(_BY_ITS_WORD, closed=result.closed)),
        *tree(result.checks).splitlines(),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/verify-bundle-records/v1",
        "kind": kind,
        "outcome": word.lower(),
        "untold": result.untold,
        "closed": result.closed,
        "session": result.session.hex(),
        "model": None if result.model is None else result.model.hex(),
        "windows": [
            {"seq": window.seq, "ledger_index": window.index, "recorded": window.document} for window in result.windows
        ],
        "ledger": {"origin": result.origin, "size": result.size, "cosigned": list(result.cosigned)},
        "rests_on": rests_on(_BY_ITS_WORD, closed=result.closed),
        "checks": [check.document() for check in result.checks],
    }
    return Outcome("".join(f"{line(said)}\n" for said in lines), document, status)


def _untold(untold: int) -> str:
    return f"{counted(untold, 'judgement')}: {'it' if untold == 1 else 'any of them'} may be a denial"


def _platforms(result: RecordsVerdict) -> set[str]:
    """What vouches for the attestation key, in each window of which something is said: all of them say the same."""
    found: set[str] = set()
    for said in _documents(result):
        match said.get("platform"):
            case {"name": str(name), "provenance": str(provenance), **rest}:
                anchor = rest.get("anchor")
                found.add(f"{name}: {provenance}" + (f" under {anchor}" if isinstance(anchor, str) else ""))
            case _:
                pass
    return found


def _code(result: RecordsVerdict) -> str:
    """What was shown of the attester's code in the window that showed the least; a redacted bundle has only a word."""
    words: set[str] = set()
    missing: list[str] = []
    for said in _documents(result):
        match said.get("attester_code"):
            case {"status": str(word), "missing": [*items]}:
                words.add(word)
                missing = max(missing, [item for item in items if isinstance(item, str)], key=len)
            case str(word):
                words.add(word)
            case _:
                words.add("unproven")
    if words != {"proven"}:
        return f"unproven: {', '.join(missing)}" if missing else "unproven"
    return "proven"


def _unchecked(result: RecordsVerdict) -> set[tuple[str, str]]:
    """The checks that policies left out, each with a colon and the reason; a redacted bundle has no reasons."""
    found: set[tuple[str, str]] = set()
    for said in _documents(result):
        items = said.get("unchecked")
        for item in items if isinstance(items, list) else []:
            match item:
                case {"check": str(check), "reason": str(reason)}:
                    found.add((check, f": {reason}"))
                case str(check):
                    found.add((check, ""))
                case _:
                    pass
    return found


def _documents(result: RecordsVerdict) -> Iterator[strict.JsonObject]:
    return (window.document for window in result.windows if window.document is not None)
