"""What would change, for people and for programs: the tables of ``policy replay`` and ``policy diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.commands.text import counted, plain, table

if TYPE_CHECKING:
    from weighbridge.policy.authoring.comparison import Key, Row, Sample, Tally
    from weighbridge.proto import strict
    from weighbridge.verifier.commands.policy_evidence import Found

__all__ = [
    "changes_document",
    "changes_text",
    "counted_windows",
    "coverage_document",
    "coverage_text",
    "failures_document",
    "failures_text",
    "headline",
    "status_of",
]

# What was admitted and would not be comes first: it is what somebody notices.
_ORDER: Final = (
    "affirmed -> denied",
    "affirmed -> held",
    "affirmed -> indeterminate",
    "held -> denied",
    "indeterminate -> denied",
    "held -> indeterminate",
    "denied -> affirmed",
    "denied -> held",
    "denied -> indeterminate",
    "indeterminate -> affirmed",
    "indeterminate -> held",
    "held -> affirmed",
    "denied -> denied",
)
_SIGNS: Final = {"came": "+", "went": "-"}
_MESSAGE_WIDTH: Final = 88
_FAILURES_MAX: Final = 10


def headline(found: Found, what: str) -> str:
    """How many windows would change."""
    tally = found.part.tally
    if not found.complete:
        return f"INTERRUPTED: of the first {counted_windows(tally.windows)}, {tally.changes:,} {what}"
    if not tally.windows:
        return f"NOTHING TO COMPARE: no window {what}"
    return (
        f"{'CHANGES' if tally.changes else 'NO CHANGE'}: {tally.changes:,} of {counted_windows(tally.windows)} {what}"
    )


def coverage_text(found: Found) -> list[str]:
    """What was looked at."""
    part, tally = found.part, found.part.tally
    span = f", {part.first} to {part.last}" if part.first else ""
    lines = [f"  looked at    {counted(part.sessions, 'session')}, {counted_windows(tally.windows)}{span}"]
    if tally.windows:
        lines.append(f"  unchanged    {tally.same:,}")
    if tally.before_any_policy:
        lines.append(f"  no policy    {tally.before_any_policy:,} were refused before any policy: none changes that")
    return lines


def coverage_document(found: Found) -> strict.JsonObject:
    """The same."""
    return {"sessions": found.part.sessions, "first": found.part.first, "last": found.part.last}


def status_of(found: Found, *, exit_zero: bool) -> ExitCode:
    """Interrupted before failed, failed before changed."""
    if not found.complete:
        return ExitCode.ENVIRONMENT
    if found.status is not ExitCode.AFFIRMED:
        return found.status
    return ExitCode.DENIED if found.part.tally.changes and not exit_zero else ExitCode.AFFIRMED


def changes_text(tally: Tally) -> list[str]:
    """A table for each way in which windows change, the first windows below each row."""
    lines: list[str] = []
    for title in sorted(tally.changed, key=_ORDER.index):
        rows = sorted(((key, row) for key, row in tally.rows.items() if key.title == title), key=_by_weight)
        cells = [(f"{row.windows:,}", _SIGNS[key.effect], key.code or "no reason", _rule(key)) for key, row in rows]
        printed = table(("windows", "", "reason", "rule"), cells, right=1)
        words = title.replace("->", "→")
        if title == "denied -> denied":
            words += ", for other reasons"
        lines += ["", f"{words}: {counted_windows(tally.changed[title])}", f"  {printed[0]}"]
        for line, (_, row) in zip(printed[1:], rows, strict=True):
            lines += [f"  {line}", *(f"           {text}" for text in _samples(row))]
    return lines


def changes_document(tally: Tally) -> strict.JsonObject:
    """The same, with every field present."""
    rows = sorted(tally.rows.items(), key=lambda item: (_ORDER.index(item[0].title), _by_weight(item)))
    return {
        "windows": tally.windows,
        "same": tally.same,
        "before_any_policy": tally.before_any_policy,
        "changed": tally.changes,
        "changes": [
            {"from": _ends(title)[0], "to": _ends(title)[1], "windows": tally.changed[title]}
            for title in sorted(tally.changed, key=_ORDER.index)
        ],
        "rules": [
            {
                "from": _ends(key.title)[0],
                "to": _ends(key.title)[1],
                "effect": key.effect,
                "code": key.code or None,
                "rule": key.rule or None,
                "windows": row.windows,
                "examples": [_sample(sample) for sample in row.samples],
            }
            for key, row in rows
        ],
    }


def failures_text(found: Found) -> list[str]:
    """The sessions that were not looked at to their end."""
    if not found.failed:
        return []
    lines = ["", f"not verified: {counted(len(found.failed), 'session')}; what is told is of the others"]
    for item in found.failed[:_FAILURES_MAX]:
        lines.append(f"  {plain(item.task.name)}")
        lines.append(f"    {item.text}")
        lines += [f"    hint: {item.hint}"] if item.hint else []
    left = len(found.failed) - _FAILURES_MAX
    return [*lines, *([f"  … {left} more: --json names them"] if left > 0 else [])]


def failures_document(found: Found) -> strict.JsonValue:
    """The same."""
    return [
        {
            "path": item.task.path,
            "session": None if item.task.session is None else item.task.session.session.hex(),
            "error": {**item.document},
        }
        for item in found.failed
    ]


def counted_windows(number: int) -> str:
    """``1 window``, ``12,000 windows``."""
    return counted(number, "window", form=",")


def _samples(row: Row) -> list[str]:
    lines: list[str] = []
    for number, sample in enumerate(row.samples):
        if sample.message and (not number or sample.message != row.samples[number - 1].message):
            lines.append(_cut(plain(sample.message)))
        device = "" if sample.device is None else f", device {sample.device[:16]}…"
        lines.append(f"{sample.session} window {sample.seq}, {sample.received_at}{device}")
    return lines


def _rule(key: Key) -> str:
    return key.rule or ("recorded" if key.effect == "went" else "")


def _sample(sample: Sample) -> strict.JsonObject:
    return {
        "received_at": sample.received_at,
        "session": sample.session,
        "seq": sample.seq,
        "device": sample.device,
        "message": sample.message,
    }


def _by_weight(item: tuple[Key, Row]) -> tuple[int, Key]:
    return -item[1].windows, item[0]


def _ends(title: str) -> tuple[str, str]:
    before, _, after = title.partition(" -> ")
    return before, after


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_WIDTH else f"{text[: _MESSAGE_WIDTH - 1]}…"
