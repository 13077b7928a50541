"""The manifest that a command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.attester.durable import read_file
from weighbridge.proto import limits
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.proto.manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_manifest"]


def read_manifest(path: Path) -> Manifest:
    """The manifest in the file ``path``. That a directory holds it is not checked.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :meth:`Manifest.from_json`, naming the file, or ``TOO_LARGE``.
    """
    data = read_file(path, limit=limits.MANIFEST_JSON_MAX, what="manifest")
    try:
        return Manifest.from_json(data)
    except MalformedEvidence as error:
        raise error.in_file(
            path, what="a manifest", hint="name a file that `weighbridge-attester measure -o` wrote"
        ) from error
