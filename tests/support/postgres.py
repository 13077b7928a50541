"""A real PostgreSQL, started by whoever needs it: a private cluster in a temporary directory, on a Unix socket.

From Debian's packages or any other installation whose programs are found; each user gets a database of its own.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import psycopg

from weighbridge.verifier.database import PostgresAddress

__all__ = ["Server", "programs"]

_ROLE: Final = "weighbridge"
_USER: Final = "nobody"
_SECONDS: Final = 30


def programs() -> Path | None:
    """The directory with `initdb` and `postgres`: the newest there is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    other = shutil.which("postgres")
    return None if other is None else Path(other).resolve().parent


@final
@dataclass
class Server:
    """A cluster, running or not.

    ``fsync`` stays on, as the store asks for it: in memory it costs nothing.
    """

    directory: Path
    port: int = 5432
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(cls, base: Path) -> Server:
        """A new cluster, running, in a directory below ``base``."""
        bin_directory = programs()
        if bin_directory is None:
            raise FileNotFoundError("no PostgreSQL")
        # The name of a socket has 107 characters at most.
        directory = Path(tempfile.mkdtemp(prefix="wb-pg-", dir=base))
        user, group = _owner()
        if user is not None and group is not None:
            os.chown(directory, user, group)
        server = cls(directory)
        server._run(
            bin_directory / "initdb", "--pgdata", str(directory / "data"), "--username", _ROLE, "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        with (directory / "data" / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(
                f"listen_addresses = ''\nunix_socket_directories = '{directory}'\n"
                "shared_buffers = 16MB\nmax_connections = 60\nautovacuum = off\nmax_wal_size = 64MB\n"
                "dynamic_shared_memory_type = mmap\nshared_memory_type = mmap\n"
            )
        server.start()
        return server

    def start(self) -> None:
        """Start it, and wait until it answers."""
        bin_directory = programs()
        assert bin_directory is not None
        # A group of its own: a key pressed at the tests' terminal is not for it.
        user, group = _owner()
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(bin_directory / "postgres"), "-D", str(self.directory / "data")],
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
                group=group,
            )
        until = time.monotonic() + _SECONDS
        while True:
            try:
                psycopg.connect(self.address("postgres").url, connect_timeout=2).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self.directory / "log").read_text(encoding="utf-8")) from None
                time.sleep(0.02)
            else:
                return

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """Stop it: cutting all lines (SIGINT), or as a loss of power would (SIGQUIT)."""
        if self._process is not None:
            self._process.send_signal(sign)
            self._process.wait(_SECONDS)
            self._process = None

    def address(self, database: str) -> PostgresAddress:
        """The address of a database."""
        return PostgresAddress.parse(f"postgresql://{_ROLE}@/{database}?host={self.directory}&port={self.port}")

    def database(self) -> PostgresAddress:
        """A new database, empty."""
        name = f"db_{secrets.token_hex(6)}"
        self.command(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.address(name)

    def command(self, statement: str, database: str = "postgres") -> None:
        """Carry out one statement as the superuser."""
        with psycopg.connect(self.address(database).url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def reload(self) -> None:
        """Let it read its settings again, and wait until new connections have them."""
        with psycopg.connect(self.address("postgres").url, autocommit=True) as connection:
            before = connection.execute("SELECT pg_conf_load_time()").fetchone()
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SELECT pg_conf_load_time()").fetchone() == before:
                time.sleep(0.005)

    def remove(self) -> None:
        """Stop it and forget it."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, *command: str | Path) -> None:
        user, group = _owner()
        words = [str(part) for part in command]
        subprocess.run(words, check=True, capture_output=True, cwd="/", user=user, group=group)


def _owner() -> tuple[int | None, int | None]:
    """As whom to run: PostgreSQL refuses root."""
    if os.getuid() != 0:
        return None, None
    owner = pwd.getpwnam(_USER)
    return owner.pw_uid, owner.pw_gid
