"""A report of tests as JUnit XML, the form that continuous integration reads. Written only, never parsed.

One ``testsuite`` a file, one ``testcase`` a test. What XML cannot say (control characters, halves of characters) is
written as an escape that people can read.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weighbridge.policy.authoring.testing import Report, Result

__all__ = ["encode"]

# XML 1.0 §2.2: what is a character, turned round.
_NO_CHARACTER: Final = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# In attributes, line ends would be read as spaces.
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\t": "&#9;"}
_SPECIAL: Final = re.compile('[&<>"\n\t]')


def encode(report: Report) -> bytes:
    """The report as a UTF-8 document. Times in seconds."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append(f"<testsuites{_counts(report.results)}>")
    for file, results in groupby(report.results, key=lambda result: result.file):
        lines += _suite(file, tuple(results))
    lines.append("</testsuites>")
    return ("\n".join(lines) + "\n").encode()


def _suite(file: str, results: tuple[Result, ...]) -> Iterator[str]:
    yield f'  <testsuite name="{_escape(file)}"{_counts(results)}>'
    for result in results:
        line = "" if result.line is None else f' line="{result.line}"'
        name = _escape(result.name or result.file)
        yield (
            f'    <testcase classname="{_escape(file)}" name="{name}" file="{_escape(file)}"{line}'
            f' time="{result.seconds:.6f}">'
        )
        if result.failure:
            text = _escape("\n".join([*result.failure, *result.because]))
            yield f'      <failure message="{_escape(result.failure[0])}">{text}</failure>'
        if result.prints:
            yield f"      <system-out>{_escape(chr(10).join(result.prints))}</system-out>"
        yield "    </testcase>"
    yield "  </testsuite>"


def _counts(results: Iterable[Result]) -> str:
    listed = tuple(results)
    failed = sum(not result.passed for result in listed)
    seconds = sum(result.seconds for result in listed)
    return f' tests="{len(listed)}" failures="{failed}" errors="0" skipped="0" time="{seconds:.6f}"'


def _escape(text: str) -> str:
    shown = _NO_CHARACTER.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
    return _SPECIAL.sub(lambda found: _ENTITIES[found.group()], shown)
