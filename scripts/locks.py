"""Reads lock files as pip-compile writes them: releases, the hashes of their files, and who asks for each."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# How pip-compile names the project itself and the files of requirements among those who ask.
PROJECT: Final = "weighbridge"

_PIN: Final = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[^\s\\]+)(?: \\)?", re.IGNORECASE)
_HASH: Final = re.compile(r"    --hash=sha256:(?P<digest>[0-9a-f]{64})(?: \\)?")
_VIA: Final = re.compile(r"    #(?: via)?\s*(?P<who>.*)")


class MalformedLockError(ValueError):
    """A line is neither a pin, nor a hash of it, nor says who asks for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Locked:
    """One release, by its normalised name."""

    name: str
    version: str
    digests: tuple[str, ...]
    asked_by: frozenset[str]
    """Names of other releases, or `PROJECT`; files of requirements are left out."""


def parse(text: str) -> dict[str, Locked]:
    """The releases of a lock file by name.

    Raises:
        MalformedLockError: A line that pip-compile does not write with `--generate-hashes`, or no hash.
    """
    found: dict[str, tuple[str, list[str], set[str]]] = {}
    current: tuple[str, list[str], set[str]] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if pin := _PIN.fullmatch(line):
            current = (pin["version"], [], set())
            found[pin["name"].lower()] = current
        elif current is not None and (digest := _HASH.fullmatch(line)):
            current[1].append(digest["digest"])
        elif current is not None and (via := _VIA.fullmatch(line)):
            who = via["who"].split(" ")[0]
            if who and who != "-r":
                current[2].add(who)
        else:
            raise MalformedLockError(f"line {number}: {line!r}")
    for name, (_, digests, _) in found.items():
        if not digests:
            raise MalformedLockError(f"{name}: no hash")
    return {
        name: Locked(name, version, tuple(digests), frozenset(who)) for name, (version, digests, who) in found.items()
    }


def needed(locked: Iterable[Locked]) -> list[Locked]:
    """Those that the project itself or one of its extras leads to, ordered by name: what users may install."""
    releases = list(locked)
    names = {PROJECT}
    while more := {release.name for release in releases if release.asked_by & names} - names:
        names |= more
    return sorted((release for release in releases if release.name in names), key=lambda release: release.name)
