"""A configuration of nginx for a gate's file: a ``server`` block, each route asking the gate by ``auth_request``.

nginx cannot pin a key. What it can do is to trust one certificate and nobody else, for one location: the self-signed
certificate of the session's serving key. So each route leads to one session here, whose certificate must be given, and
be of the key that the gate's file names; a certificate that is issued by some authority, or has expired, does not do.

nginx takes the first regular expression that matches, so each server's locations are in the order in which a request
takes routes. It matches what it has normalised, and sends on what the client wrote: where the two could differ, 400.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import spki_der
from weighbridge.verifier.gate.checking import HEADER_PREFIX
from weighbridge.verifier.gate.envoy_config import pin, upstream_of
from weighbridge.verifier.gate.routing import PATH, by_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.gate.configuration import GateFile, Route, Session
    from weighbridge.verifier.gate.place import Place

__all__ = ["NginxConfig", "Pinned"]

# Between double quotes, what nginx takes as it is.
_QUOTABLE: Final = re.compile(r"[^\"\\$\x00-\x1f]+")
_TOLD: Final = ("result", "model", "session", "status")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A server's certificate: where nginx finds it, and its content (PEM)."""

    path: str
    pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxConfig:
    """What a configuration is made of; as :class:`.EnvoyConfig`, but for ``certificates``, by the session's name."""

    file: GateFile
    gate: Place
    listen: tuple[str, int]
    upstreams: Mapping[str, tuple[str, int]]
    certificates: Mapping[str, Pinned]
    request_s: int

    def text(self) -> str:
        """``server`` blocks, for nginx's ``http`` context.

        Raises:
            MalformedEvidence: ``FIELD_MISSING``: a session has no server, certificate or serving key; ``FIELD_RANGE``:
                a route leads to several sessions; ``CERT_MALFORMED``.
            NotAuthentic: ``UPSTREAM_KEY``: a certificate is of another key than the gate's file names.
        """
        # Without a default nginx gives the requests for other names to the first server.
        servers = {"*": (), **by_host(self.file)}
        return "\n".join(self._server(name, routes) for name, routes in servers.items())

    def _server(self, name: str, routes: tuple[Route, ...]) -> str:
        host, port = self.listen
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # nginx has no name for "any": the server that stands as the default is.
        head = f"    listen {place} default_server;\n    server_name _;\n"
        if name != "*":
            head = f"    listen {place};\n    server_name {name};\n"
        if not routes:
            return f"server {{\n{head}    return 404;\n}}\n"
        plain = f'    if ($request_uri !~ "^{PATH}([?]|$)") {{\n        return 400;\n    }}\n'
        return f"server {{\n{head}{plain}\n{''.join(map(self._location, routes))}}}\n"

    def _location(self, route: Route) -> str:
        sessions = self.file.sessions_of(route)
        if len(sessions) != 1:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                f"route {route.name} leads to {len(sessions)} sessions, of which nginx could pin none",
                where="routes.sessions",
                hint="for nginx give each session a route of its own",
            )
        session = sessions[0]
        host, port = upstream_of(self.upstreams, session)
        server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        asked = "".join(
            f"        auth_request_set $weighbridge_{name} $upstream_http_{_variable(name)};\n"
            f"        proxy_set_header {HEADER_PREFIX}{name} $weighbridge_{name};\n"
            for name in _TOLD
        )
        # `location /v1` would take /v1x as well.
        end = "" if route.path.endswith("/") else "(/|$)"
        return f"""\
    location ~ ^{route.path.replace(".", "[.]")}{end} {{
        auth_request /_weighbridge/{route.name};
{asked}        add_header {HEADER_PREFIX}result $weighbridge_result always;
        error_page 403 /_weighbridge/{route.name};
        proxy_set_header host $host;
        proxy_pass https://{server};
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate "{self._certificate(session)}";
        proxy_ssl_name {host};
        proxy_ssl_server_name on;
        proxy_read_timeout {self.request_s}s;
    }}
    location = /_weighbridge/{route.name} {{
        internal;
        proxy_method GET;
        proxy_pass_request_body off;
        proxy_pass_request_headers off;
        proxy_set_header content-length "";
        proxy_connect_timeout 1s;
        proxy_read_timeout 1s;
        proxy_pass http://{self.gate}/auth/{route.name};
    }}
"""

    def _certificate(self, session: Session) -> str:
        pinned = self.certificates.get(session.name)
        if pinned is None:
            raise MalformedEvidence(
                Code.FIELD_MISSING,
                f"session {session.name} has no certificate",
                where="--certificate",
                hint=f"--certificate {session.name}=FILE: the attester's serving.pem",
            )
        if not _QUOTABLE.fullmatch(pinned.path):
            raise MalformedEvidence(
                Code.FIELD_RANGE, "nginx would read this path in another way", where="--certificate", got=pinned.path
            )
        try:
            certificate = x509.load_pem_x509_certificate(pinned.pem)
        except (ValueError, x509.InvalidVersion) as error:
            raise MalformedEvidence(
                Code.CERT_MALFORMED, f"not a certificate in PEM: {error}", where=pinned.path
            ) from error
        pin(session)
        cnf, got = session.expected().cnf, sha256(spki_der(certificate))
        if got != cnf:
            raise NotAuthentic(
                Code.UPSTREAM_KEY,
                f"the certificate is of another key than that of session {session.name}",
                where=pinned.path,
                expected=cnf,
                got=got,
            )
        return pinned.path


def _variable(name: str) -> str:
    return f"{HEADER_PREFIX}{name}".replace("-", "_")
