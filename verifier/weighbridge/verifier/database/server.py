"""Connects to a server of PostgreSQL, and looks at how it is set before anything rests on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.file_lock import PATIENCE

if TYPE_CHECKING:
    from weighbridge.verifier.database.address import PostgresAddress

__all__ = ["connect"]

# 14 is the oldest that ends idle sessions, and that is maintained.
_OLDEST: Final = 14
_NAME: Final = "weighbridge"
# Seconds. What an address names itself prevails.
_DEFAULTS: Final = {
    "application_name": _NAME,
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    # Milliseconds.
    "tcp_user_timeout": "30000",
    "client_encoding": "UTF8",
}
# All waiting has an end, and a client that is gone, or says nothing within a transaction, is not waited for.
_SETTINGS: Final = {
    "lock_timeout": f"{PATIENCE:.0f}s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "20s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
_SET: Final = "SELECT " + ", ".join(["set_config(%s, %s, false)"] * len(_SETTINGS))
_LOOK: Final = (
    "SELECT pg_backend_pid(), current_setting('server_version_num')::int, current_setting('server_encoding'),"
    " current_setting('transaction_read_only'), current_setting('fsync'), current_setting('full_page_writes'),"
    " current_setting('synchronous_commit')"
)
# With less, a standby that takes over, or a loss of power, takes away what was answered.
_SYNCHRONOUS: Final = ("on", "remote_apply")


def connect(address: PostgresAddress) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection to the database at ``address`` whose server keeps what it says it has written.

    Raises:
        psycopg.Error: the server cannot be reached, or does not let us in.
        EnvironmentFault: ``STATE_UNFIT``.
    """
    try:
        given = conninfo_to_dict(address.url)
    except psycopg.ProgrammingError as error:
        raise EnvironmentFault(Code.STATE_UNFIT, f"not an address: {error}", where=str(address)) from error
    parameters: dict[str, Any] = {name: value for name, value in _DEFAULTS.items() if name not in given}
    if "," in str(given.get("host", given.get("hostaddr", ""))):
        # Of several servers, the one that takes what is written.
        parameters.setdefault("target_session_attrs", given.get("target_session_attrs", "read-write"))
    if _needs_tls(given):
        parameters["sslmode"] = "verify-full"
    raw = psycopg.connect(address.url, autocommit=True, **parameters)
    try:
        _examine(raw, str(address))
        raw.autocommit = False
    except BaseException:
        raw.close()
        raise
    return raw


def _needs_tls(given: dict[str, Any]) -> bool:
    """Whether nobody has said how the line is secured, and it leaves this machine."""
    if any(name in given for name in ("sslmode", "service")) or {"PGSSLMODE", "PGSERVICE"} & os.environ.keys():
        return False
    hosts = str(given.get("hostaddr") or given.get("host") or os.environ.get("PGHOST") or "").split(",")
    return not all(host.startswith(("/", "@")) or host in ("", "localhost", "127.0.0.1", "::1") for host in hosts)


def _examine(raw: psycopg.Connection[tuple[Any, ...]], where: str) -> None:
    row = raw.execute(_LOOK).fetchone()
    if row is None:
        raise RuntimeError("one row without a condition")
    pid, version, encoding, read_only, fsync, full_page_writes, synchronous = row
    if read_only != "off":
        raise EnvironmentFault(Code.STATE_FORBIDDEN, "the database can only be read", where=where)
    # By what the server says itself; what arrived with the connection may be a pooler's.
    for fits, message, expected, got in (
        (version // 10_000 >= _OLDEST, "too old a server", f"PostgreSQL {_OLDEST} or newer", version // 10_000),
        (pid == raw.info.backend_pid, "a pooler stands between", "the server itself", "another process than it gave"),
        (encoding == "UTF8", "a database that does not keep all text", "UTF8", encoding),
        (fsync == "on", "the server does not wait for its disk", "fsync = on", fsync),
        (full_page_writes == "on", "the server may tear pages", "full_page_writes = on", full_page_writes),
        (synchronous in _SYNCHRONOUS, "a commit does not wait", "synchronous_commit = on", synchronous),
    ):
        if not fits:
            raise EnvironmentFault(Code.STATE_UNFIT, message, where=where, expected=expected, got=got)
    raw.execute(_SET.encode(), [part for pair in _SETTINGS.items() for part in pair])
