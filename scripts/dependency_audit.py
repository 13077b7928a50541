"""Says of which locked releases an advisory is known, and which of these are accepted for now.

Usage:
    scripts/audit             tell; fails only for what this repository says wrongly (docs/adr/0045)
    scripts/audit --strict    before a release: fails too for an advisory that is not accepted, and for any release of
                              which nothing could be learned

pip-audit asks, release by release. It passes over a release that its source does not know, and then says that no
vulnerability is known: here that is *not audited*. Accepted advisories stand in requirements/advisories.toml, each with
a reason and a last day.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import locks

ROOT: Final = Path(__file__).resolve().parent.parent
# What users may install, what builds it, and what gates and tests run. Peers are old on purpose, and not shipped.
AUDITED: Final = ("build", "dev", "data")
ACCEPTED: Final = ROOT / "requirements" / "advisories.toml"
# Of all questions together, in seconds: an advisory source that hangs holds no gate up for longer.
PATIENCE_S: Final = 120
_SHORTEST_REASON: Final = 12


class MalformedListError(ValueError):
    """The list of accepted advisories says something that it cannot."""


class UnreachableError(Exception):
    """Nothing was learned: the source did not answer, or not in time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """One advisory that is known to be there, until a day."""

    id: str
    package: str
    reason: str
    until: date


@dataclasses.dataclass(frozen=True, slots=True)
class Advisory:
    """One advisory about one locked release."""

    package: str
    version: str
    ids: tuple[str, ...]
    fixed_in: tuple[str, ...]
    shipped: bool

    def __str__(self) -> str:
        """One line."""
        where = "which users install" if self.shipped else "a tool of ours"
        fixed = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no release fixes it"
        return f"{self.package} {self.version} ({where}): {', '.join(self.ids)}; {fixed}"


@dataclasses.dataclass(frozen=True, slots=True)
class Audit:
    """What was learned."""

    asked: int
    unknown: tuple[str, ...]
    """Releases that the source does not know, of which nothing was learned."""
    advisories: tuple[Advisory, ...]


def parse_accepted(text: str, locked: set[str]) -> list[Accepted]:
    """The accepted advisories.

    Raises:
        MalformedListError: An entry lacks its reason or its day, stands twice, or names a release that is not locked.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MalformedListError(str(error)) from error
    if set(document) - {"accepted"}:
        raise MalformedListError(f"expected [[accepted]] alone, got {sorted(document)}")
    found: list[Accepted] = []
    for entry in document.get("accepted", []):
        if set(entry) != {"id", "package", "reason", "until"}:
            raise MalformedListError(f"expected id, package, reason, until, got {sorted(entry)}")
        until = entry["until"]
        if type(until) is not date:
            raise MalformedListError(f"{entry['id']}: until is no day: {until!r}")
        made = Accepted(entry["id"], entry["package"], entry["reason"], until)
        if len(made.reason) < _SHORTEST_REASON:
            raise MalformedListError(f"{made.id}: no reason: {made.reason!r}")
        if made.package not in locked:
            raise MalformedListError(f"{made.id}: {made.package} is not locked any more")
        if any((made.id, made.package) == (other.id, other.package) for other in found):
            raise MalformedListError(f"{made.id}: stands twice")
        found.append(made)
    return found


def read_report(document: dict[str, Any], shipped: set[str]) -> Audit:
    """What pip-audit's JSON says."""
    entries = document["dependencies"]
    advisories = [
        Advisory(
            entry["name"],
            entry["version"],
            (known["id"], *known["aliases"]),
            tuple(known["fix_versions"]),
            entry["name"] in shipped,
        )
        for entry in entries
        for known in entry.get("vulns", [])
    ]
    return Audit(len(entries), tuple(entry["name"] for entry in entries if "skip_reason" in entry), tuple(advisories))


def ask(files: list[Path]) -> dict[str, Any]:
    """What pip-audit says of these lock files.

    Raises:
        UnreachableError: It learned nothing.
    """
    command = [sys.executable, "-Im", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner=off"]
    command += ["--format=json", "--desc=off", "--aliases=on", *(f"--requirement={file}" for file in files)]
    try:
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(f"no answer within {PATIENCE_S} s") from error
    try:
        # Its exit status is 1 for a finding and for a failure alike; only with a finding is there a document.
        document: dict[str, Any] = json.loads(ran.stdout)
    except ValueError as error:
        last = ran.stderr.strip().splitlines() or ["it said nothing"]
        raise UnreachableError(last[-1].partition(":")[0][:100]) from error
    return document


def tell(audit: Audit, accepted: list[Accepted], today: date) -> tuple[list[str], int]:
    """What to say, one line each, and how many of these lines stand in the way of a release."""
    lines: list[str] = []
    in_the_way = 0
    used: set[Accepted] = set()
    for advisory in audit.advisories:
        known = [a for a in accepted if a.package == advisory.package and a.id in advisory.ids]
        used.update(known)
        if any(today <= a.until for a in known):
            lines.append(f"accepted until {max(a.until for a in known)}: {advisory}")
        else:
            lines.append(f"{'accepted no longer' if known else 'not accepted'}: {advisory}")
            in_the_way += 1
    if audit.unknown:
        lines.append(f"not audited: {len(audit.unknown)} of {audit.asked} releases, which the source does not know")
        in_the_way += 1
    if not audit.unknown:
        # Only then: of a release that nobody told us about it may still hold.
        lines += [f"accepted, and nothing says it any more: {a.package} {a.id}" for a in accepted if a not in used]
    return lines, in_the_way


def main(arguments: list[str]) -> int:
    """Asks and tells. Returns the exit status."""
    if arguments == ["--help"]:
        print(__doc__)
        return 0
    if arguments not in ([], ["--strict"]):
        print(__doc__, file=sys.stderr)
        return 2
    files = [ROOT / "requirements" / f"{name}.lock" for name in AUDITED]
    locked = [release for file in files for release in locks.parse(file.read_text()).values()]
    try:
        accepted = parse_accepted(ACCEPTED.read_text(encoding="utf-8"), {release.name for release in locked})
    except (MalformedListError, OSError) as error:
        print(f"{ACCEPTED.relative_to(ROOT)}: {error}")
        return 1
    try:
        audit = read_report(ask(files), {release.name for release in locks.needed(locked)})
    except UnreachableError as error:
        lines, in_the_way = [f"not audited: unreachable: {error}"], 1
    else:
        lines, in_the_way = tell(audit, accepted, datetime.now(UTC).date())
        lines.append(f"{audit.asked - len(audit.unknown)} releases audited, {len(audit.advisories)} advisories")
    for line in lines:
        print(f"told: {line}")
    if not arguments or not in_the_way:
        return 0
    print("audit: error: no release is made of this (docs/adr/0045)", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
