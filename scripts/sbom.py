"""Writes the bill of materials of what users install, CycloneDX 1.6 in JSON, from the lock files alone.

Usage:
    scripts/sbom [FILE]    to FILE, or to standard output

The same commit gives the same bytes: time and serial number come from the commit (or SOURCE_DATE_EPOCH) and from what
the bill says. Base dependencies are `required`, those of extras `optional`. A release is named with the digests of all
its files; which of them pip takes depends on the machine. What is compiled into those files is not seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import locks

ROOT: Final = Path(__file__).resolve().parent.parent
# Serial numbers are UUIDs of version 5 under a name that nobody else uses.
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "tag:weighbridge:bill-of-materials")


def bill(project: dict[str, str], base: set[str], releases: list[locks.Locked], at: datetime) -> str:
    """The document.

    Args:
        project: `name`, `version`, `description` and `license` (SPDX) of pyproject.toml.
        base: Names of the releases that are installed without any extra.
        releases: All that users may install.
        at: When it was made.
    """
    root = {
        **_named(project["name"], project["version"], "application"),
        "description": project["description"],
        "licenses": [{"expression": project["license"]}],
    }
    refs = {release.name: _purl(release.name, release.version) for release in releases}
    askers = {locks.PROJECT: root["bom-ref"], **refs}
    asked = {ref: sorted(refs[r.name] for r in releases if name in r.asked_by) for name, ref in askers.items()}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": at.isoformat(), "component": root},
        "components": [_component(release, required=release.name in base) for release in releases],
        "dependencies": [{"ref": ref, "dependsOn": asked[ref]} for ref in sorted(asked)],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(document, sort_keys=True))
    return json.dumps({**document, "serialNumber": serial.urn}, indent=2, sort_keys=True) + "\n"


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{quote(version, safe='')}"


def _named(name: str, version: str, kind: str) -> dict[str, Any]:
    purl = _purl(name, version)
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _component(release: locks.Locked, *, required: bool) -> dict[str, Any]:
    files = {
        "type": "distribution",
        "url": _purl(release.name, release.version),
        "comment": "each of the files that requirements/ locks of this release",
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in release.digests],
    }
    return {
        **_named(release.name, release.version, "library"),
        "scope": "required" if required else "optional",
        "externalReferences": [files],
    }


def made_at() -> datetime:
    """SOURCE_DATE_EPOCH where it is set, else the time of the last commit."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if seconds is None:
        command = ["git", "log", "-1", "--format=%ct"]
        seconds = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return datetime.fromtimestamp(int(seconds), tz=UTC)


def of_checkout() -> str:
    """The bill of this checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = {name: locks.parse((ROOT / "requirements" / f"{name}.lock").read_text()) for name in ("base", "dev")}
    return bill(project, set(lock["base"]), locks.needed(lock["dev"].values()), made_at())


def main(arguments: list[str]) -> int:
    """Writes it. Returns the exit status."""
    if arguments == ["--help"]:
        print(__doc__)
        return 0
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    text = of_checkout()
    if arguments:
        try:
            Path(arguments[0]).write_text(text, encoding="utf-8")
        except OSError as error:
            print(f"sbom: error: {arguments[0]}: {error.strerror}", file=sys.stderr)
            return 1
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
