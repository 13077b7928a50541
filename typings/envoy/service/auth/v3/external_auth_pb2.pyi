"""Hand-written stub of `xds-protos` 1.85: of Envoy's ext_authz v3, what a gate reads and writes, and who asks it."""
from collections.abc import Mapping, MutableMapping, Sequence

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

class _HttpRequest:
    method: str
    host: str
    path: str
    @property
    def headers(self) -> MutableMapping[str, str]: ...
    @property
    def header_map(self) -> _HeaderMap: ...

class _HeaderMap:
    @property
    def headers(self) -> Sequence[HeaderValue]: ...

class _Request:
    @property
    def http(self) -> _HttpRequest: ...

class _AttributeContext:
    @property
    def request(self) -> _Request: ...
    @property
    def context_extensions(self) -> Mapping[str, str]: ...

class CheckRequest(Message):
    @property
    def attributes(self) -> _AttributeContext: ...

class _Options:
    def add(self) -> HeaderValueOption: ...

class _Status:
    # google.rpc.Code
    code: int

class _HttpStatus:
    # envoy.type.v3.StatusCode: the number itself
    code: int

class _Texts:
    def append(self, value: str) -> None: ...

class _OkHttpResponse:
    @property
    def headers(self) -> _Options: ...
    @property
    def headers_to_remove(self) -> _Texts: ...
    @property
    def response_headers_to_add(self) -> _Options: ...

class _DeniedHttpResponse:
    body: str
    @property
    def status(self) -> _HttpStatus: ...
    @property
    def headers(self) -> _Options: ...

class CheckResponse(Message):
    def __init__(self) -> None: ...
    @property
    def status(self) -> _Status: ...
    @property
    def ok_response(self) -> _OkHttpResponse: ...
    @property
    def denied_response(self) -> _DeniedHttpResponse: ...
    @property
    def dynamic_metadata(self) -> Struct: ...
