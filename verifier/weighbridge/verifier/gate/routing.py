"""Which route a request takes. Pure; what a client sends chooses among the file's routes and nothing else.

A proxy that has chosen a route itself names it; else host and path do. A path that a server might read otherwise than
we do (escapes, dots, empty segments) takes no route at all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from weighbridge.verifier.gate.configuration import GateFile, Route

__all__ = ["PATH", "Router", "by_host"]

# RFC 3986 §3.3 without percent-encoding. Of dots, those that begin a segment are refused: `..`, and hidden files too.
_SEGMENT: Final = r"[A-Za-z0-9_~:@!$&'()*+,=-][A-Za-z0-9._~:@!$&'()*+,=-]*"
# What a path must be, without its query: a regular expression, of Python and of PCRE.
PATH: Final = f"/(?:{_SEGMENT}/)*(?:{_SEGMENT})?"
_PATH: Final = re.compile(PATH)
_PORT: Final = re.compile(r":[0-9]{1,5}\Z")
_PATH_MAX: Final = 8192
_SESSION: Final = re.compile(r"[0-9a-f]{32}")


@final
class Router:
    """The routes of one file."""

    __slots__ = ("_file", "_named", "_placed")

    def __init__(self, file: GateFile) -> None:
        self._file = file
        self._named = {route.name: self._sessions(route) for route in file.routes}
        # The longest path first: it says more.
        placed = ((host, route) for route in file.routes for host in route.hosts)
        self._placed = sorted(placed, key=lambda one: (one[0] == "*", -len(one[1].path)))

    def named(self, name: str) -> tuple[bytes, ...]:
        """The sessions of the route ``name``; none if there is no such route."""
        return self._named.get(name, ())

    def session(self, text: str) -> tuple[bytes, ...]:
        """The session that ``text`` names: by the file's name, or by its 32 hexadecimal digits."""
        number = text if _SESSION.fullmatch(text) else None
        matching = (one for one in self._file.sessions if one.name == text or one.session == number)
        return tuple(one.identifier for one in matching)

    def model(self, tenant: str, model: str) -> tuple[bytes, ...]:
        """The sessions of this tenant and model."""
        return tuple(one.identifier for one in self._file.sessions if (one.tenant, one.model) == (tenant, model))

    def placed(self, host: str, path: str) -> tuple[bytes, ...]:
        """The sessions of the route that a request takes; a route for its host goes before one for any.

        Args:
            host: untrusted, as the client named it; a port is cut off.
            path: untrusted, with its query.
        """
        plain = path.partition("?")[0]
        if len(path) > _PATH_MAX or not _PATH.fullmatch(plain):
            return ()
        name = _PORT.sub("", host).lower()
        for listed, route in self._placed:
            if listed in {"*", name} and _covers(route.path, plain):
                return self._named[route.name]
        return ()

    def _sessions(self, route: Route) -> tuple[bytes, ...]:
        return tuple(one.identifier for one in self._file.sessions_of(route))


def by_host(file: GateFile) -> dict[str, tuple[Route, ...]]:
    """The routes of each host of the file, and of ``*``: a request takes the first that covers it.

    Those for any host come last, without those that no request for this host can take.
    """
    made: dict[str, tuple[Route, ...]] = {}
    longest = sorted(file.routes, key=lambda route: -len(route.path))
    for host in sorted({host for route in file.routes for host in route.hosts}):
        own = [route for route in longest if host in route.hosts]
        hidden = {route.name for route in longest if any(_covers(one.path, route.path) for one in own)}
        others = [route for route in longest if "*" in route.hosts and route.name not in hidden]
        made[host] = (*own, *others)
    return made


def _covers(prefix: str, path: str) -> bool:
    """Whether ``path`` is ``prefix``, or below it."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")
