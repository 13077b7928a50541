"""On which line of a TOML file each key stands: the parser of the standard library does not say.

It is asked for errors alone, of texts that this parser has taken; of others the answer means nothing.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["Path", "lines_of"]

Path = tuple[str | int, ...]

_HEADER: Final = re.compile(r"[ \t]*+(\[\[?)([^\n]*?)(\]\]?)[ \t]*+(?:#[^\n]*+)?(?:\r?\n|\Z)")
_NAME: Final = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_KEY: Final = re.compile(rf"[ \t]*+({_NAME}(?:[ \t]*+\.[ \t]*+{_NAME})*+)[ \t]*+=")
_PART: Final = re.compile(_NAME)
# Ours have two parts, and those of tenants three.
_DEPTH: Final = 4
# Whatever a value is made of, in which line breaks, brackets and number signs may stand for themselves.
_TOKEN: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+"{3,5}'
    r"|'''(?:[^']|'(?!''))*+'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|#[^\n]*+"
    r"|[][{}\n]"
    r"|[^][{}\n\"'#]++"
    r"|.",
    re.DOTALL,
)


def lines_of(text: str) -> dict[Path, int]:
    """The line, counted from 1, on which each table and each key of ``text`` begins.

    Keys inside of inline tables have none. Items of an array of tables have their number in the path.
    """
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    at, line = 0, 1
    while at < len(text):
        if (header := _HEADER.match(text, at)) is not None:
            table = _table(_parts(header[2]), counts, is_item=header[1] == "[[")
            found.setdefault(table, line)
            end = header.end()
        elif (key := _KEY.match(text, at)) is not None:
            path = (*table, *_parts(key[1]))
            for size in range(len(table) + 1, min(len(path), _DEPTH) + 1):
                found.setdefault(path[:size], line)
            end = _end_of_value(text, key.end())
        else:
            end = text.find("\n", at) + 1 or len(text)
        line += text.count("\n", at, end)
        at = end
    return found


def _table(parts: Path, counts: dict[Path, int], *, is_item: bool) -> Path:
    """The path of a header's table: the last item of an array of tables is meant where one of its parts is one."""
    path: Path = ()
    for number, part in enumerate(parts):
        path = (*path, part)
        if is_item and number == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _parts(text: str) -> Path:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in _PART.findall(text))


def _end_of_value(text: str, at: int) -> int:
    """Behind the line on which the value ends that begins at ``at``."""
    depth = 0
    for token in _TOKEN.finditer(text, at):
        match token[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
            case "\n" if depth <= 0:
                return token.end()
            case _:
                pass
    return len(text)
