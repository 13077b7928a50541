"""What a verifier answers over HTTP: its keys, what it is, whether a token is good now, whether it works.

=========================================  ============================================================================
``GET /.well-known/jwks.json``             the keys that tokens are verified by (RFC 7517); with a tag, good for 5 min
``GET /.well-known/weighbridge-verifier``  what there is and where, by the names of RFC 8414 where it has them
``POST /introspect``                       whether a token is good now (RFC 7662), for relying parties alone
``GET /healthz``                           200 while the process answers
``GET /readyz``                            200 while sessions can be judged and recorded here, else 503 with the reason
=========================================  ============================================================================

Nothing here waits for the thread that judges, and what blocks is done in a thread of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar, final
from urllib.parse import parse_qsl

from weighbridge.proto import strict
from weighbridge.proto.errors import EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.verifier.http_messages import Response, Route, failure, json_response, tagged
from weighbridge.verifier.peers import Shown
from weighbridge.verifier.result import jwks
from weighbridge.verifier.result.introspection import introspect_bytes
from weighbridge.verifier.result.serialisation import PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.http_messages import Request
    from weighbridge.verifier.peers import Peers
    from weighbridge.verifier.readiness import Readiness
    from weighbridge.verifier.relying_parties import RelyingParty
    from weighbridge.verifier.result.key_store import TokenKeyStore
    from weighbridge.verifier.standing import Standing
    from weighbridge.verifier.standings import Standings

__all__ = ["DISCOVERY", "INTROSPECTION", "JWKS", "HttpService", "Identity"]

JWKS: Final = "/.well-known/jwks.json"
DISCOVERY: Final = "/.well-known/weighbridge-verifier"
INTROSPECTION: Final = "/introspect"
# Keys are announced a quarter of an hour before they sign.
_PUBLIC: Final = {"cache-control": "public, max-age=300"}
_FORM: Final = "application/x-www-form-urlencoded"
_FIELDS_MAX: Final = 16
# Of one relying party, under way at once.
_CALLS_MAX: Final = 64
_KEYS_S: Final = 1.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What discovery says of this verifier, beside where things are.

    Attributes:
        issuer: ``iss`` of its tokens.
        thumbprint: of its identity key, which relying parties pin.
        ledger_origin: the ledger's name.
        ledger_key: the ledger's key, as a vkey.
        version: of this program.
        url: under which this listener is reached, without a slash at the end.
        grpc: HOST:PORT of the services over gRPC.
        services: their names.
        bearer: HOST:PORT of those for relying parties with a token, where there are any.
        mutual: certificates of relying parties are taken here.
    """

    issuer: str
    thumbprint: bytes
    ledger_origin: str
    ledger_key: str
    version: str
    url: str
    grpc: str
    services: tuple[str, ...]
    bearer: str | None
    mutual: bool

    def document(self) -> strict.JsonObject:
        """The discovery document."""
        methods: list[strict.JsonValue] = ["Bearer"]
        profiles: list[strict.JsonValue] = [
            {"name": one.serialisation.value, "typ": one.typ, "eat_profile": one.uri, "media_type": one.media_type}
            for one in PROFILES.values()
        ]
        return {
            "schema": "weighbridge/discovery/v1",
            "issuer": self.issuer,
            "jwks_uri": f"{self.url}{JWKS}",
            "introspection_endpoint": f"{self.url}{INTROSPECTION}",
            "introspection_endpoint_auth_methods_supported": ["tls_client_auth", *methods] if self.mutual else methods,
            "verifier_thumbprint": self.thumbprint.hex(),
            "token_key_endorsement": jwks.ENDORSEMENT,
            "result_serialisations": profiles,
            "ledger": {"origin": self.ledger_origin, "vkey": self.ledger_key},
            "grpc": {"address": self.grpc, "bearer_address": self.bearer, "services": list(self.services)},
            "version": self.version,
        }


@final
class HttpService:
    """Answers by what the verifier lets any thread look at. Its handlers run in one event loop.

    Args:
        keys: for tokens; nobody else uses this object.
        standings: of the verifier.
        clock: of the verifier.
        peers: tells relying parties; of this event loop.
        readiness: whether sessions can be judged here.
    """

    def __init__(
        self,
        *,
        keys: TokenKeyStore,
        standings: Standings,
        clock: Clock,
        peers: Peers,
        readiness: Readiness,
    ) -> None:
        self._document: strict.JsonObject | None = None
        self._keys = keys
        self._standings = standings
        self._clock = clock
        self._peers = peers
        self._readiness = readiness
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="http")
        self._calls: Counter[str] = Counter()
        self._known: tuple[float, Response] | None = None

    def routes(self) -> Mapping[str, Route]:
        """What answers which path."""
        return {
            JWKS: Route(self._jwks),
            DISCOVERY: Route(self._discovery),
            INTROSPECTION: Route(self._introspect, ("POST",)),
            "/healthz": Route(self._health),
            "/readyz": Route(self._ready),
        }

    def identify(self, identity: Identity) -> None:
        """Say from now on what this verifier is."""
        self._document = identity.document()

    def close(self) -> None:
        """Wait for the answer in progress."""
        self._thread.shutdown()

    async def _jwks(self, request: Request) -> Response:
        known = self._known
        if known is None or time.monotonic() - known[0] > _KEYS_S:
            try:
                document = await self._run(lambda: self._keys.jwks(self._clock.now()))
            except EnvironmentFault as error:
                return _unavailable(error)
            response = json_response(document, media_type="application/jwk-set+json", headers=_PUBLIC)
            known = self._known = time.monotonic(), response
        return tagged(known[1], request)

    async def _discovery(self, request: Request) -> Response:
        if self._document is None:
            return failure(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", "it is starting", retry_after="1")
        return tagged(json_response(self._document, headers=_PUBLIC), request)

    async def _health(self, request: Request) -> Response:  # noqa: ARG002 - one is as the other
        return json_response({"status": "ok"})

    async def _ready(self, request: Request) -> Response:  # noqa: ARG002 - one is as the other
        reasons = await self._readiness.reasons()
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return json_response({"ready": not reasons, "reasons": [*reasons]}, status=status)

    async def _introspect(self, request: Request) -> Response:
        try:
            at = self._clock.now()
            shown = Shown.of_der(request.certificate, request.header("authorization"))
            # Who it is comes first: a stranger learns nothing.
            party = self._peers.relying_party(shown, at=at)
        except (NotAuthentic, MalformedEvidence) as error:
            challenge = 'Bearer error="invalid_token"' if request.header("authorization") else "Bearer"
            return failure(HTTPStatus.UNAUTHORIZED, "invalid_client", str(error), www_authenticate=challenge)
        except EnvironmentFault as error:
            return _unavailable(error)
        if self._calls[party.name] >= _CALLS_MAX:
            return failure(
                HTTPStatus.TOO_MANY_REQUESTS, "slow_down", "too many questions of this relying party", retry_after="1"
            )
        try:
            token = _token(request)
        except ValueError as error:
            return failure(HTTPStatus.BAD_REQUEST, "invalid_request", str(error))
        self._calls[party.name] += 1
        try:
            return json_response(await self._run(partial(self._answer, token, party)))
        except EnvironmentFault as error:
            return _unavailable(error)
        finally:
            self._calls[party.name] -= 1
            if not self._calls[party.name]:
                del self._calls[party.name]

    def _answer(self, token: bytes, party: RelyingParty) -> strict.JsonObject:
        at = self._clock.now()

        def standing_of(session: bytes) -> Standing | None:
            try:
                standing = self._standings.of(session)
            except NotAuthentic:
                return None
            return standing if standing.tenant in party.tenants else None

        return introspect_bytes(
            token, self._keys.trusted(at), audiences=party.audiences, at=at, standing_of=standing_of
        )

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _unavailable(error: EnvironmentFault) -> Response:
    """This machine is at fault; in which way, its operator knows."""
    return failure(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", error.code.value, retry_after="1")


def _token(request: Request) -> bytes:
    """The token that a form asks about; a CWT stands there in base64url.

    Raises:
        ValueError: it is no such form.
    """
    types = request.header("content-type")
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != _FORM:
        raise ValueError(f"the body is not {_FORM}")
    try:
        fields = parse_qsl(
            request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=_FIELDS_MAX
        )
    except ValueError as error:
        raise ValueError("the form cannot be read") from error
    tokens = [value for name, value in fields if name == "token"]
    names = [name for name, _ in fields]
    if len(tokens) != 1 or len(set(names)) != len(names):
        raise ValueError("the form must have one token, and nothing twice")
    text = tokens[0]
    if "." not in text:
        try:
            return strict.base64url_decode(text, what="token")
        except MalformedEvidence:
            # Whatever it is, it is not active.
            return b""
    return text.encode("utf-8", "replace")
