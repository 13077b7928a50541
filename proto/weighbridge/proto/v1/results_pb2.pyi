from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Serialisation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERIALISATION_UNSPECIFIED: _ClassVar[Serialisation]
    SERIALISATION_EAR_04_JWT: _ClassVar[Serialisation]
    SERIALISATION_EAR_04_CWT: _ClassVar[Serialisation]
    SERIALISATION_VERAISON_2023_JWT: _ClassVar[Serialisation]

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_WAITING: _ClassVar[State]
    STATE_OPEN: _ClassVar[State]
    STATE_CLOSED: _ClassVar[State]
    STATE_ENDED: _ClassVar[State]
SERIALISATION_UNSPECIFIED: Serialisation
SERIALISATION_EAR_04_JWT: Serialisation
SERIALISATION_EAR_04_CWT: Serialisation
SERIALISATION_VERAISON_2023_JWT: Serialisation
STATE_UNSPECIFIED: State
STATE_WAITING: State
STATE_OPEN: State
STATE_CLOSED: State
STATE_ENDED: State

class GetResultRequest(_message.Message):
    __slots__ = ("session", "audience", "serialisation", "certificate")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SERIALISATION_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    audience: str
    serialisation: Serialisation
    certificate: bytes
    def __init__(self, session: _Optional[bytes] = ..., audience: _Optional[str] = ..., serialisation: _Optional[_Union[Serialisation, str]] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class WatchResultsRequest(_message.Message):
    __slots__ = ("sessions", "audience", "serialisation", "model")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SERIALISATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedScalarFieldContainer[bytes]
    audience: str
    serialisation: Serialisation
    model: Model
    def __init__(self, sessions: _Optional[_Iterable[bytes]] = ..., audience: _Optional[str] = ..., serialisation: _Optional[_Union[Serialisation, str]] = ..., model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("tenant", "digest")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    digest: bytes
    def __init__(self, tenant: _Optional[str] = ..., digest: _Optional[bytes] = ...) -> None: ...

class WatchResultsResponse(_message.Message):
    __slots__ = ("result", "heartbeat")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    result: Result
    heartbeat: Heartbeat
    def __init__(self, result: _Optional[_Union[Result, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("at_ns",)
    AT_NS_FIELD_NUMBER: _ClassVar[int]
    at_ns: int
    def __init__(self, at_ns: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("session", "state", "at_ns", "expires_ns", "code", "reason", "seq", "token")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AT_NS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    state: State
    at_ns: int
    expires_ns: int
    code: str
    reason: str
    seq: int
    token: bytes
    def __init__(self, session: _Optional[bytes] = ..., state: _Optional[_Union[State, str]] = ..., at_ns: _Optional[int] = ..., expires_ns: _Optional[int] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., seq: _Optional[int] = ..., token: _Optional[bytes] = ...) -> None: ...

class GetTokenKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TokenKeys(_message.Message):
    __slots__ = ("jwks",)
    JWKS_FIELD_NUMBER: _ClassVar[int]
    jwks: bytes
    def __init__(self, jwks: _Optional[bytes] = ...) -> None: ...
