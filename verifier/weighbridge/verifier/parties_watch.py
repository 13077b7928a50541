"""The list of relying parties as it is in force: its file is looked at again, and a bad new one changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from weighbridge.proto import limits
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.watched import look, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Parties", "PartiesWatch"]


class Parties(Protocol):
    """Where the list comes from."""

    def current(self) -> RelyingParties:
        """The list in force: the very same object as before, unless it has changed."""
        ...


@final
class PartiesWatch:
    """A file with the list. Used in one thread.

    Args:
        path: of the file; replaced in one step, by a rename.
        report: told, for people, that a new list is in force, or why not; once for each.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :meth:`.RelyingParties.parse`, naming the file.
    """

    __slots__ = ("_looks", "_parties", "_path", "_refused", "_report")

    def __init__(self, path: Path, *, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._refused = False
        self._looks, self._parties = self._read()

    def current(self) -> RelyingParties:
        """See :meth:`Parties.current`."""
        return self._parties

    def look(self) -> None:
        """Take up a list that has changed. Costs one ``stat`` where it has not."""
        looks = look(self._path)
        if looks == self._looks:
            return
        try:
            self._looks, parties = self._read()
        except WeighbridgeError as error:
            # Said once; the next change is looked at again.
            self._looks, self._refused = looks, True
            self._report(f"warning: the relying parties in force stay: {error}")
            return
        refused, self._refused = self._refused, False
        if parties != self._parties:
            self._parties = parties
            self._report(f"relying parties: {len(parties.relying_parties)} listed from now on")
        elif refused:
            self._report(f"relying parties: the list is taken again, {len(parties.relying_parties)} listed as before")

    def _read(self) -> tuple[tuple[int, ...], RelyingParties]:
        looks, data = read(self._path, limit=limits.REFERENCE_SET_MAX)
        try:
            return looks, RelyingParties.parse(data)
        except WeighbridgeError as error:
            # NOTE: `where` names the place within it.
            raise type(error)(
                error.code,
                error.message,
                where=f"{self._path}: {error.where}",
                expected=error.expected,
                got=error.got,
                hint=error.hint or "docs/results.md says what is in it",
            ) from error
