from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttestRequest(_message.Message):
    __slots__ = ("opening", "proof", "resume", "window", "close")
    OPENING_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    opening: bytes
    proof: bytes
    resume: Resume
    window: bytes
    close: Close
    def __init__(self, opening: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., window: _Optional[bytes] = ..., close: _Optional[_Union[Close, _Mapping]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class AttestResponse(_message.Message):
    __slots__ = ("challenge", "opened", "resumed", "answer", "closed", "refusal")
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    challenge: bytes
    opened: Opened
    resumed: Resumed
    answer: Answer
    closed: Closed
    refusal: Refusal
    def __init__(self, challenge: _Optional[bytes] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., resumed: _Optional[_Union[Resumed, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("terms", "challenge", "spot", "credit")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    SPOT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    terms: bytes
    challenge: bytes
    spot: bytes
    credit: int
    def __init__(self, terms: _Optional[bytes] = ..., challenge: _Optional[bytes] = ..., spot: _Optional[bytes] = ..., credit: _Optional[int] = ...) -> None: ...

class Resumed(_message.Message):
    __slots__ = ("next_seq", "challenge", "spot", "credit")
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    SPOT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    next_seq: int
    challenge: bytes
    spot: bytes
    credit: int
    def __init__(self, next_seq: _Optional[int] = ..., challenge: _Optional[bytes] = ..., spot: _Optional[bytes] = ..., credit: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("seq", "verdict", "token", "challenge", "spot")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    SPOT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    verdict: bytes
    token: str
    challenge: bytes
    spot: bytes
    def __init__(self, seq: _Optional[int] = ..., verdict: _Optional[bytes] = ..., token: _Optional[str] = ..., challenge: _Optional[bytes] = ..., spot: _Optional[bytes] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("summary",)
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    summary: bytes
    def __init__(self, summary: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("error", "exit_code", "retry_after_ms")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    error: bytes
    exit_code: int
    retry_after_ms: int
    def __init__(self, error: _Optional[bytes] = ..., exit_code: _Optional[int] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...
