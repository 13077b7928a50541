"""A server of object storage that tests start: SeaweedFS, which speaks S3's protocol, in one process on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
from obstore.store import S3Store

from support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = ROOT / ".peers" / "seaweedfs" / "bin" / "weed"
BUCKETS: Final = ("public", "private")
ABSENT: Final = "no server of object storage: run scripts/setup --peers"
_READY: Final = 60.0
_PORTS: Final = ("master.port", "volume.port", "filer.port", "s3.port")


class ObjectStorage:
    """A running server with the buckets :data:`BUCKETS`; ``public`` may be read by anybody."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        taken = free_ports(2 * len(_PORTS))
        self._ports = dict(zip((*_PORTS, *(f"{name}.grpc" for name in _PORTS)), taken, strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint: Final = f"http://127.0.0.1:{self._ports['s3.port']}"
        (directory / "s3.json").write_text(
            json.dumps(
                {
                    "identities": [
                        _identity("writer", ["Admin", "Read", "Write", "List"]),
                        _identity("reader", ["Read", "List"]),
                        {"name": "anonymous", "actions": ["Read:public"]},
                    ]
                }
            )
        )

    def environment(self, *, who: str = "writer") -> dict[str, str]:
        """What a program finds in its environment that is to use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": who,
            "AWS_SECRET_ACCESS_KEY": f"{who} secret",
        }

    def start(self) -> None:
        """Let it run, and return when it takes requests."""
        folder = self._directory
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PROGRAM, f"-logdir={folder}", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                    "-filer", "-s3", f"-s3.config={folder / 's3.json'}",
                    "-s3.port.iceberg=0", "-s3.port.lance=0", *ports,
                    "-master.telemetry=false", "-master.electionTimeout=1s", "-volume.max=50",
                    # Small objects lie with their names: no volume has to be made for them.
                    "-filer.saveToFilerLimit=8388608", "-s3.autoCreateBucket=false",
                ],
                stdout=log, stderr=subprocess.STDOUT, cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            )  # fmt: skip
        until = time.monotonic() + _READY
        while not (self._makes_buckets() and self._takes_objects()):
            assert self._process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, "the server does not become ready"
            time.sleep(0.05)

    def stop(self) -> None:
        """Let it be gone at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _makes_buckets(self) -> bool:
        """A bucket is a folder below `/buckets/` of the server's own interface."""
        line = http.client.HTTPConnection("127.0.0.1", self._ports["filer.port"], timeout=5)
        try:
            for name in BUCKETS:
                line.request("POST", f"/buckets/{name}/", body=b"")
                _ = line.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            line.close()
        return True

    def _takes_objects(self) -> bool:
        try:
            store = S3Store(
                "public",
                endpoint=self.endpoint,
                access_key_id="writer",
                secret_access_key="writer secret",
                client_options={"allow_http": True, "timeout": "2s"},
                retry_config={"max_retries": 0},
            )
            obstore.put(store, "ready", b"ready")
        except (obstore.exceptions.BaseError, FileNotFoundError):
            return False
        return True


@contextlib.contextmanager
def running(directory: Path) -> Generator[ObjectStorage]:
    """A server whose data lie in ``directory``, which exists."""
    server = ObjectStorage(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _identity(name: str, actions: list[str]) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": name, "secretKey": f"{name} secret"}],
        "actions": actions,
    }
