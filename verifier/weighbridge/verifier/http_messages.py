"""Requests and responses of the HTTP listeners, as their handlers see them: small, whole, and of no library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NO_STORE", "Handler", "Request", "Response", "Route", "failure", "json_response", "tagged"]

NO_STORE: Final = {"cache-control": "no-store"}
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request with its body, which is bounded. All of it is untrusted but ``certificate``.

    Attributes:
        method: such as ``GET``.
        path: without the query.
        headers: names in lower case, in the order in which they came.
        body: whole.
        certificate: of the peer, DER; TLS has verified it. ``None``: it has shown none.
    """

    method: str
    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes = b""
    certificate: bytes | None = None

    def header(self, name: str) -> tuple[str, ...]:
        """All values of a header."""
        return tuple(value for one, value in self.headers if one == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What is answered; the length and the connection's headers are the listener's to write."""

    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one path, and for which methods. Whoever answers GET answers HEAD too."""

    handler: Handler
    methods: tuple[str, ...] = ("GET",)

    @property
    def allowed(self) -> tuple[str, ...]:
        """All methods."""
        return (*self.methods, "HEAD") if "GET" in self.methods else self.methods


def json_response(
    document: strict.JsonObject,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    media_type: str = _JSON,
    headers: Mapping[str, str] = NO_STORE,
) -> Response:
    """``document``, and a line's end for people."""
    body = strict.json_encode(document) + b"\n"
    return Response(status=status, headers={"content-type": media_type, **headers}, body=body)


def failure(status: HTTPStatus, error: str, description: str, **headers: str) -> Response:
    """A refusal as OAuth writes it (RFC 6749 §5.2): a word for programs and a sentence for people."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return json_response(
        {"error": error, "error_description": description}, status=status, headers={**NO_STORE, **named}
    )


def tagged(response: Response, request: Request) -> Response:
    """``response`` with its tag; without a body where the peer has it already (RFC 9110 §13.1.2)."""
    tag = f'"{sha256(response.body).hex()[:32]}"'
    headers = {**response.headers, "etag": tag}
    wanted = {part.strip().removeprefix("W/") for value in request.header("if-none-match") for part in value.split(",")}
    if tag in wanted or "*" in wanted:
        kept = {name: value for name, value in headers.items() if name in {"etag", "cache-control"}}
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=kept)
    return Response(status=response.status, headers=headers, body=response.body)
