"""A configuration of Envoy for a gate's file: static, complete, each upstream pinned to a session's serving key.

How the pieces hold together:

1. Every route names itself to the gate in its ``context_extensions``, which no client can write.
2. The gate's answer names the session, in a header that overwrites a client's; the route is then chosen again by that
   header. So the session that was let through is the one whose cluster is used.
3. That cluster takes no server but one with the session's serving key (``verify_certificate_spki``: base64 of SHA-256
   of the SubjectPublicKeyInfo, which is what ``cnf`` is). There is no authority beside that.
4. A request with ``_`` in a header's name is refused: servers that take it for ``-`` would take a client's header for
   the gate's.
5. ``failure_mode_allow`` is false: without an answer in time, nothing is let through. No request takes longer than any
   token lives, unless whoever runs Envoy says so.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.gate.checking import HEADER_PREFIX
from weighbridge.verifier.gate.routing import by_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.gate.configuration import GateFile, Route, Session
    from weighbridge.verifier.gate.place import Place

__all__ = ["EnvoyConfig", "pin", "upstream_of"]

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_GATE: Final = "weighbridge-gate"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyConfig:
    """What a configuration is made of.

    Attributes:
        file: the gate's file.
        gate: where the gate answers Envoy.
        listen: where Envoy listens; plain HTTP, to be put behind whatever terminates clients' TLS, or edited.
        upstreams: each session's server, host and port, by the session's name.
        request_s: seconds that a request may take.
    """

    file: GateFile
    gate: Place
    listen: tuple[str, int]
    upstreams: Mapping[str, tuple[str, int]]
    request_s: int

    def document(self) -> strict.JsonObject:
        """The configuration, for ``envoy --config-path``.

        Raises:
            MalformedEvidence: ``FIELD_MISSING``: a session has no upstream, or no serving key to pin it to.
        """
        sessions = {one.name: one for route in self.file.routes for one in self.file.sessions_of(route)}
        return {
            "static_resources": {
                "listeners": [self._listener()],
                "clusters": [self._gate_cluster(), *(self._cluster(one) for one in sessions.values())],
            }
        }

    def _listener(self) -> strict.JsonObject:
        manager: strict.JsonObject = {
            "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "weighbridge",
            # The gate sees the path that the upstream gets.
            "normalize_path": True,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
            "route_config": {"virtual_hosts": self._hosts()},
            "http_filters": [
                {
                    "name": "envoy.filters.http.ext_authz",
                    "typed_config": {
                        "@type": f"{_TYPES}.filters.http.ext_authz.v3.ExtAuthz",
                        "transport_api_version": "V3",
                        "failure_mode_allow": False,
                        "clear_route_cache": True,
                        "grpc_service": {"envoy_grpc": {"cluster_name": _GATE}, "timeout": "0.5s"},
                    },
                },
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
                },
            ],
        }
        filters: list[strict.JsonValue] = [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
        return {"address": _address(*self.listen), "filter_chains": [{"filters": filters}]}

    def _hosts(self) -> list[strict.JsonValue]:
        """One virtual host per name."""
        hosts: list[strict.JsonValue] = []
        for name, ordered in by_host(self.file).items():
            domains = [name] if name == "*" else [name, f"{name}:*"]
            routes = [entry for route in ordered for entry in self._routes(route)]
            hosts.append({"name": name, "domains": list(domains), "routes": routes})
        return hosts

    def _routes(self, route: Route) -> list[strict.JsonValue]:
        """One entry per session, which the gate's answer chooses, and the one that a request takes before."""
        path: strict.JsonObject = (
            {"prefix": route.path} if route.path.endswith("/") else {"path_separated_prefix": route.path}
        )
        extensions: strict.JsonObject = {
            "envoy.filters.http.ext_authz": {
                "@type": f"{_TYPES}.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                "check_settings": {"context_extensions": {"weighbridge_route": route.name}},
            }
        }
        made: list[strict.JsonValue] = []
        for session in self.file.sessions_of(route):
            chosen: strict.JsonObject = {
                "name": f"{HEADER_PREFIX}session",
                "string_match": {"exact": session.name},
            }
            made.append(
                {
                    "match": {**path, "headers": [chosen]},
                    "route": {"cluster": _cluster_name(session), "timeout": f"{self.request_s}s"},
                    "typed_per_filter_config": extensions,
                }
            )
        made.append(
            {
                "match": path,
                "direct_response": {"status": 503, "body": {"inline_string": "no upstream for the session\n"}},
                "typed_per_filter_config": extensions,
            }
        )
        return made

    def _gate_cluster(self) -> strict.JsonObject:
        http2: strict.JsonObject = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
        if self.gate.socket is not None:
            address: strict.JsonObject = {"pipe": {"path": str(self.gate.socket)}}
            return {**_endpoints(_GATE, address, kind="STATIC"), "typed_extension_protocol_options": http2}
        kind = _kind(self.gate.host)
        address = _address(self.gate.host, self.gate.port)
        return {**_endpoints(_GATE, address, kind=kind), "typed_extension_protocol_options": http2}

    def _cluster(self, session: Session) -> strict.JsonObject:
        host, port = upstream_of(self.upstreams, session)
        tls: strict.JsonObject = {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                # As a client Envoy offers no more than TLS 1.2 of itself.
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "validation_context": {"verify_certificate_spki": [pin(session)]},
            },
            **({} if _kind(host) == "STATIC" else {"sni": host}),
        }
        return {
            **_endpoints(_cluster_name(session), _address(host, port), kind=_kind(host)),
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        }


def pin(session: Session) -> str:
    """What ``verify_certificate_spki`` pins the server of ``session`` by.

    Raises:
        MalformedEvidence: ``FIELD_MISSING``: its serving key is not in the gate's file.
    """
    cnf = session.expected().cnf
    if cnf is None:
        raise MalformedEvidence(
            Code.FIELD_MISSING,
            f"session {session.name} has no serving key to pin its server to",
            where="sessions.cnf",
            hint="`weighbridge-attester init` prints it as cnf, and the session's tokens say it",
        )
    return strict.base64_encode(cnf)


def upstream_of(upstreams: Mapping[str, tuple[str, int]], session: Session) -> tuple[str, int]:
    """Where the server of ``session`` is.

    Raises:
        MalformedEvidence: ``FIELD_MISSING``: nobody has said so.
    """
    if session.name not in upstreams:
        raise MalformedEvidence(
            Code.FIELD_MISSING,
            f"session {session.name} has no server",
            where="--upstream",
            hint=f"--upstream {session.name}=HOST:PORT",
        )
    return upstreams[session.name]


def _cluster_name(session: Session) -> str:
    return f"session-{session.name}"


def _kind(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "STRICT_DNS"
    return "STATIC"


def _address(host: str, port: int) -> strict.JsonObject:
    return {"socket_address": {"address": host, "port_value": port}}


def _endpoints(name: str, address: strict.JsonObject, *, kind: str) -> strict.JsonObject:
    return {
        "name": name,
        "type": kind,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
