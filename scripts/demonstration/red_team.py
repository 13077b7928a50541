"""The red team's part: relying parties that the verifier lets in for it, a gate of theirs, and attacks on all three.

The verifier has to be started with the list :attr:`RedTeam.listed`, and with :data:`ENVIRONMENT`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from stage import AUDIENCE, BIN, TENANT, CommandFailed, command

from weighbridge.proto.manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from stage import Done, Stage

__all__ = ["ENVIRONMENT", "RedTeam"]

ENVIRONMENT: Final = {"WEIGHBRIDGE_RELYING_PARTIES_LISTEN": "127.0.0.1:0"}
"""A port for relying parties with tokens, beside that of attesters."""
_LISTENS: Final = re.compile(r"relying parties with tokens on 127\.0\.0\.1:([0-9]+)")
_GATED: Final = "model.demo.invalid/v1"
_STARTED_S: Final = 60.0


@dataclass
class RedTeam:
    """Two relying parties with a token each: one for the demonstration's tenant, and one for somebody else's."""

    stage: Stage
    out: Path

    @classmethod
    async def let_in(cls, stage: Stage) -> Self:
        """Both are listed, before the verifier serves."""
        made = cls(stage, stage.out / "relying-parties")
        made.out.mkdir()
        for name, tenant in (("gate", TENANT), ("stranger", "another-tenant")):
            await command(
                "weighbridge", "relying-party", "add", made.listed, name, "--tenant", tenant,
                "--audience", AUDIENCE, "--new-token", made.out / f"{name}.token", check=True,
            )  # fmt: skip
        return made

    @property
    def listed(self) -> Path:
        """The verifier's list of relying parties."""
        return self.out / "list.json"

    async def play(self) -> Done:
        """Play the attacks against the verifier, which serves, and a gate, which listens; what the command printed."""
        stage = self.stage
        bearer = f"127.0.0.1:{self._bearer_port()}"
        gate = await self._gate(bearer)
        try:
            port = await self._gate_port(gate)
            return await command(
                "weighbridge", "redteam", "--target", f"127.0.0.1:{stage.port}", "--kit", stage.kit,
                "--state", stage.state, "--tenant", TENANT, "--audience", AUDIENCE,
                "--relying-party", bearer, "--token-file", self.out / "gate.token",
                "--stranger-token-file", self.out / "stranger.token",
                "--gate", f"127.0.0.1:{port}", "--gate-request", _GATED,
                "--report", stage.out / "redteam.md",
            )  # fmt: skip
        finally:
            if gate.returncode is None:
                gate.terminate()
            await gate.wait()

    def _bearer_port(self) -> str:
        said = (self.stage.out / "verifier.log").read_text(encoding="utf-8")
        found = _LISTENS.findall(said)
        if not found:
            raise CommandFailed(f"the verifier does not say where relying parties are served:\n{said}")
        return str(found[-1])

    async def _gate(self, verifier: str) -> asyncio.subprocess.Process:
        (self.out / "gates.json").write_text(json.dumps(self._gates()), encoding="utf-8")
        self._ports.unlink(missing_ok=True)
        with (self.out / "gate.log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                BIN / "weighbridge", "gate", "serve", "--config", self.out / "gates.json",
                "--verifier", verifier, "--verifier-ca", self.stage.state / "tls" / "ca.pem",
                "--token-file", self.out / "gate.token", "--anchors", self.stage.state / "anchors.json",
                "--listen", "127.0.0.1:0", "--port-file", self._ports,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def _ports(self) -> Path:
        return self.out / "gate.ports"

    async def _gate_port(self, gate: asyncio.subprocess.Process) -> int:
        until = time.monotonic() + _STARTED_S
        while not self._ports.exists():
            if gate.returncode is not None or time.monotonic() > until:
                raise CommandFailed(f"the gate did not start:\n{(self.out / 'gate.log').read_text(encoding='utf-8')}")
            await asyncio.sleep(0.02)
        port: int = json.loads(self._ports.read_text(encoding="utf-8"))["envoy"]
        return port

    def _gates(self) -> dict[str, Any]:
        """The gate's file: a route to whichever host of the red team's has a session."""
        manifest = Manifest.from_json((self.stage.kit / "model.json").read_bytes())
        host, slash, path = _GATED.partition("/")
        session: dict[str, Any] = {
            "name": "red-team", "session": "any", "tenant": TENANT, "model": manifest.digest.hex(), "adapters": [],
            "cnf": {"unchecked": "no server stands behind the red team's hosts"},
        }  # fmt: skip
        route = {"name": "red-team", "hosts": [host], "path": slash + path, "sessions": ["red-team"]}
        return {
            "schema": "weighbridge/gates/v1", "audience": AUDIENCE, "accept": "warning",
            "sessions": [session], "routes": [route],
        }  # fmt: skip
