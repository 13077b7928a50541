"""What lies in a spool, for people and for what is said at a start. Reads only, also beside a running attester."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

from weighbridge.attester.spool_files import SESSION_NAME, read_progress, read_window, window_files, window_name
from weighbridge.proto.errors import EnvironmentFault, MalformedEvidence
from weighbridge.proto.window import Evidence, Header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weighbridge.proto.window import Interval

__all__ = ["SessionView", "SpoolState", "span_of", "survey", "view_of"]

SpoolState = Literal["waiting", "refused", "damaged"]
_ASIDE: Final = frozenset({"refused", "damaged"})


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session's windows on disk.

    ``state`` is ``waiting`` for the verifier, or why it was set aside. ``size`` is in bytes; ``first`` and ``last`` are
    numbers of windows, ``from_ns`` and ``until_ns`` what they span by the host's clock, nanoseconds since 1970, all
    ``None`` where there is no window.
    """

    session: str
    state: SpoolState
    path: Path
    windows: int
    size: int
    first: int | None = None
    last: int | None = None
    from_ns: int | None = None
    until_ns: int | None = None


def survey(root: Path) -> tuple[SessionView, ...]:
    """The sessions below ``root``, those that wait first. A damaged file is no reason to show nothing.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    found: list[SessionView] = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        session, _, aside = path.name.partition(".")
        if not SESSION_NAME.fullmatch(session) or (aside and aside not in _ASIDE):
            continue
        found.append(view_of(path))
    return tuple(sorted(found, key=lambda view: view.state != "waiting"))


def view_of(path: Path) -> SessionView:
    """The session whose directory is ``path``.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    session, _, aside = path.name.partition(".")
    state = cast("SpoolState", aside or "waiting")
    seq = 0
    with contextlib.suppress(EnvironmentFault):
        seq = read_progress(path / "progress").seq
    files = [file for file in window_files(path) if file[0] >= seq]
    if not files:
        return SessionView(session, state, path, 0, 0)
    from_ns, until_ns = span_of(path, files)
    size = sum(size for _, size in files)
    return SessionView(session, state, path, len(files), size, files[0][0], files[-1][0], from_ns, until_ns)


def span_of(path: Path, files: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """From when to when the windows ``files`` in the directory ``path`` are, by the host's clock, in nanoseconds.

    Of a window that cannot be read, the time at which it was written; of no windows, that of the last answer.
    """
    if not files:
        written = _written(path / "progress")
        return written, written
    (first, _), (last, _) = files[0], files[-1]
    start, end = _interval(path, first), _interval(path, last)
    return (
        _written(path / window_name(first)) if start is None else start.wall_start_ns,
        _written(path / window_name(last)) if end is None else end.wall_end_ns,
    )


def _interval(path: Path, seq: int) -> Interval | None:
    try:
        window = read_window(path / window_name(seq), seq)
        return Header.parse(Evidence.parse(window.evidence).signed_header().payload).interval
    except (EnvironmentFault, MalformedEvidence):
        return None


def _written(path: Path) -> int:
    """When the file was written, or its directory where it is gone; 0 where neither is there."""
    for place in (path, path.parent):
        with contextlib.suppress(OSError):
            return place.stat().st_mtime_ns
    return 0
