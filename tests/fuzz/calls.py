"""How parsers are called that take no plain bytes: files, connections, decoders that remember."""

from __future__ import annotations

import asyncio
import tempfile
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from google.protobuf.message import DecodeError

from weighbridge.attester.telemetry.adc_decode import Decoder, Format
from weighbridge.attester.telemetry.csv_trace import Column
from weighbridge.proto.v1 import results_pb2
from weighbridge.verifier import http_server, http_service, result_service
from weighbridge.verifier.http_messages import Request, Response, Route, json_response, tagged
from weighbridge.verifier.relying_parties import RelyingParty
from weighbridge.verifier.result.serialisation import Serialisation
from weighbridge.verifier.result_source import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adc", "csv", "form", "gguf", "http", "in_file", "safetensors", "watch"]

_FORMS: Final[tuple[Format, ...]] = ("int16", "int32", "float32", "text")
_STATUSES: Final = frozenset(
    {
        HTTPStatus.OK,
        HTTPStatus.NOT_MODIFIED,
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        HTTPStatus.NOT_IMPLEMENTED,
        HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    }
)


class _Writer:
    """The other end of a connection, which takes everything."""

    def __init__(self) -> None:
        self.written = bytearray()

    def get_extra_info(self, name: str) -> None:
        del name

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        pass


async def _hello(request: Request) -> Response:
    await asyncio.sleep(0)
    return tagged(json_response({"path": request.path, "got": len(request.body)}), request)


def http(server: Callable[..., Any], data: bytes) -> bytes:
    """All that a peer is answered that sends ``data`` and then no more."""
    routes = {"/": Route(_hello), "/form": Route(_hello, ("POST",))}

    async def answered() -> bytes:
        reader, writer = asyncio.StreamReader(), _Writer()
        reader.feed_data(data)
        reader.feed_eof()
        connection = http_server._Connection(server(routes), reader, cast("asyncio.StreamWriter", writer))
        await connection.run()
        return bytes(writer.written)

    answer = _loop().run_until_complete(answered())
    first = answer.split(b" ", 2)[:2]
    assert not answer or (first[0] == b"HTTP/1.1" and int(first[1]) in _STATUSES | {HTTPStatus.CONTINUE}), answer
    return answer


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def form(_: Callable[..., Any], data: bytes) -> bytes:
    """The token that a form asks about."""
    header = ("content-type", "application/x-www-form-urlencoded")
    return http_service._token(Request(method="POST", path="/introspect", headers=[header], body=data))


def watch(_: Callable[..., Any], data: bytes) -> object:
    """A relying party's request over gRPC, by a party of one tenant."""
    try:
        request = results_pb2.WatchResultsRequest.FromString(data)
    except DecodeError as error:
        # gRPC answers these itself.
        raise ValueError("not the message") from error
    if request.HasField("model"):
        party = RelyingParty(name="gate", key="00" * 32, tenants=("tenant-a",), audiences=("x",))
        return result_service._model(request, Asked(party=party, audience="x", serialisation=Serialisation.EAR_04))
    return result_service._sessions(request.sessions)


def in_file(load: Callable[..., Any], data: bytes) -> object:
    """A configuration file of these bytes, with nothing beside it."""
    file = _directory() / "config.toml"
    file.write_bytes(data)
    return load(file, {}, {})


@cache
def _directory() -> Path:
    memory = Path("/dev/shm")  # noqa: S108 - only the base of a private directory
    made = tempfile.TemporaryDirectory(prefix="weighbridge-", dir=memory if memory.is_dir() else None)
    _kept.append(made)
    return Path(made.name)


# Removed when the process ends.
_kept: Final[list[tempfile.TemporaryDirectory[str]]] = []


def adc(_: Callable[..., Any], data: bytes) -> object:
    """Bytes of an analogue converter, in two portions: the first byte says in which form and where they are cut."""
    form = _FORMS[data[0] % len(_FORMS)] if data else "text"
    decoder = Decoder(form, framed=bool(data) and data[0] & 4 == 4)
    cut = len(data) * data[0] // 256 if data else 0
    return [decoder.feed(data[1:cut]), decoder.feed(data[max(cut, 1) :]), decoder.end()]


def csv(parse: Callable[..., Any], data: bytes) -> object:
    """A table with a column of power."""
    return parse(data, [Column("power", "watts", "W")], time=Column("time", "t", "s"))


def gguf(parse: Callable[..., Any], data: bytes) -> object:
    """A whole file of llama.cpp's."""
    return parse(data, file_size=len(data), where="m.gguf")


def safetensors(parse: Callable[..., Any], data: bytes) -> object:
    """A header, of a file with sixteen bytes of tensors."""
    return parse(data, file_size=8 + len(data) + 16, where="m.safetensors")
