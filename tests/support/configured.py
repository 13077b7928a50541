"""A verifier's directory and all that a configuration names, of no real hardware."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from support.world import requirements
from weighbridge.verifier.deployment import Deployment

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = {"schema": "weighbridge/reference/v1", "models": {}, "gpu_measurements": {}, "unchecked": {}}


@dataclass(frozen=True)
class Configured:
    """A directory with a configuration, and what it names."""

    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "weighbridge.toml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def write(self, text: str) -> Path:
        self.file.write_text(text)
        return self.file


def configured(directory: Path, *tenants: str) -> Configured:
    """A verifier of no session yet, for each of ``tenants``: its requirements, and one reference for all."""
    directory.mkdir(exist_ok=True)
    Deployment.create(
        directory / "state", origin="ledger.example/test", hosts=("localhost", "127.0.0.1"), at=datetime.now(UTC)
    )
    for tenant in tenants or ("tenant-a",):
        wanted = requirements(tenant=tenant)
        (directory / f"{tenant}.json").write_bytes(wanted.encode())
    (directory / "reference.json").write_text(json.dumps(REFERENCE))
    made = Configured(directory)
    made.write(
        '[serve]\nstate = "state"\n\n[judging]\nrequirements = "tenant-a.json"\npolicy = ["insecure_development"]\n'
        'reference = "reference.json"\n'
    )
    return made
