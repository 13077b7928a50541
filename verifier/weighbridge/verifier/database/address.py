"""Where a verifier's state lies: a file, or a database of PostgreSQL by its URL.

No password stands in a URL: it would stand in files, lists of processes and messages as well. libpq takes it from
``PGPASSFILE`` (or ``~/.pgpass``), ``PGPASSWORD``, or a service that the URL names (``?service=weighbridge``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final
from urllib.parse import parse_qsl, urlsplit

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Address", "PostgresAddress", "SqliteAddress"]

_SCHEME: Final = "postgresql"
_URL_MAX: Final = 2048
_SECRETS: Final = frozenset({"password", "sslpassword", "oauth_client_secret"})
_EXAMPLE: Final = "such as postgresql://weighbridge@db.example/weighbridge"


@final
@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """A file, for the processes of one machine."""

    path: Path

    def __str__(self) -> str:
        """For messages."""
        return str(self.path)


@final
@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """A database by its URL (PostgreSQL, "Connection URIs"), without a password. Made by :meth:`parse`."""

    url: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address spelled ``text``. Whether libpq knows all that it names is seen when it is opened.

        Raises:
            EnvironmentFault: ``STATE_UNFIT``: it is none, or has a password in it.
        """
        if len(text) > _URL_MAX or not text.isascii() or not text.isprintable() or " " in text:
            raise _unfit(f"not an address of at most {_URL_MAX} printable characters", text[:80], _EXAMPLE)
        try:
            parts = urlsplit(text)
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            secret = parts.password is not None or any(name.lower() in _SECRETS for name, _ in query)
        except ValueError as error:
            raise _unfit(f"not an address: {error}", _EXAMPLE, _EXAMPLE) from error
        if secret:
            # Not shown: messages are kept.
            raise _unfit(
                "there is a password in the address",
                f"{_SCHEME}://…",
                "leave it out: give it by PGPASSFILE, ~/.pgpass, PGPASSWORD or ?service=NAME",
            )
        if parts.scheme != _SCHEME or not text.startswith(f"{_SCHEME}://") or parts.fragment:
            raise _unfit("not an address of PostgreSQL", text, _EXAMPLE)
        return cls(text)

    def __str__(self) -> str:
        """For messages: nothing in it is secret."""
        return self.url


Address = SqliteAddress | PostgresAddress


def _unfit(message: str, where: str, hint: str) -> EnvironmentFault:
    return EnvironmentFault(Code.STATE_UNFIT, message, where=where, hint=hint)
