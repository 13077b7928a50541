"""Buckets of S3 and of what speaks its protocol, by `obstore`. Writes on a condition are demanded, and tried.

Endpoint, region and credentials come from where every client of S3 takes them: ``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, a web identity, or the machine's own role.
Without TLS, only this very machine is asked, unless ``AWS_ALLOW_HTTP`` is ``true``: evidence would be read on its way.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Self, final
from urllib.parse import urlsplit

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.ledger.bucket import Object, Refused, Unanswered

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from obstore import Attributes, GetOptions, ObjectMeta
    from obstore.store import S3Store

    from weighbridge.verifier.ledger.bucket import Served

__all__ = ["S3Address", "S3Objects"]

_SCHEME: Final = "s3://"
# What every service takes: no upper case, no underscore, no dots, which TLS cannot name.
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_PART: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_PARTS_MAX: Final = 8
_CONNECT: Final = timedelta(seconds=5)
_REQUEST: Final = timedelta(seconds=10)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_STATUS: Final = re.compile(r"status code: ([0-9]{3})")
_REASON: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_FULL: Final = re.compile(r"status code: 507|QuotaExceeded|StorageFull|InsufficientStorage")
_NO_BUCKET: Final = "NoSuchBucket"
_TRY_AGAIN: Final = frozenset({408, 409, 429})
_SERVER_FAULT: Final = 500
_UNIMPLEMENTED: Final = 501


@dataclass(frozen=True, slots=True)
class S3Address:
    """``s3://BUCKET`` or ``s3://BUCKET/PREFIX``: made by :meth:`parse`."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that ``text`` is. What is none is not repeated: some write keys into addresses.

        Raises:
            ValueError: it is none, or has in it what not every service takes.
        """
        bucket, *parts = text.removeprefix(_SCHEME).rstrip("/").split("/")
        if not text.startswith(_SCHEME) or _BUCKET.fullmatch(bucket) is None:
            raise ValueError("not s3://BUCKET/PREFIX, with 3 to 63 lower-case letters, digits and '-'")
        if len(parts) > _PARTS_MAX or any(_PART.fullmatch(part) is None for part in parts):
            raise ValueError("a prefix has letters, digits, '.', '_' and '-' between its slashes")
        return cls(bucket, "/".join(parts))

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether ``text`` is meant to be one."""
        return text.startswith(_SCHEME)

    def below(self, part: str) -> S3Address:
        """The address of what lies below this one."""
        return S3Address(self.bucket, f"{self.prefix}/{part}" if self.prefix else part)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


@final
class S3Objects:
    """See :class:`.bucket.Objects`; ``seconds`` is what one request may take.

    Each request also raises ``EnvironmentFault``: ``TOOL_MISSING`` without the extra ``[fleet]``, and
    ``STORAGE_UNREACHABLE`` when the environment has settings that are none.
    """

    def __init__(self, address: S3Address, *, seconds: float = _REQUEST.total_seconds()) -> None:
        self._address = address
        self._seconds = seconds

    @cached_property
    def _store(self) -> S3Store:
        return _store(self._address.bucket, timedelta(seconds=self._seconds))

    def place(self, name: str) -> str:
        """See :meth:`.bucket.Objects.place`."""
        return f"{self._address}/{name}"

    def get(self, name: str, *, limit: int, unless: str | None = None) -> Object | None:
        """See :meth:`.bucket.Objects.get`."""
        with self._asking(name):
            import obstore  # noqa: PLC0415 - optional

            try:
                found = obstore.get(self._store, self._key(name), options=_unless(unless))
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise
                return None
            if found.meta["size"] > limit:
                raise MalformedEvidence(
                    Code.TOO_LARGE,
                    "an object is larger than it can be",
                    where=self.place(name),
                    expected=f"<= {limit} bytes",
                    got=found.meta["size"],
                )
            return Object(bytes(found.bytes()), found.meta["e_tag"] or "")

    def create(self, name: str, data: bytes, served: Served) -> str:
        """See :meth:`.bucket.Objects.create`."""
        with self._asking(name):
            import obstore  # noqa: PLC0415 - optional

            put = obstore.put(self._store, self._key(name), data, mode="create", attributes=_attributes(served))
            return _tag(put["e_tag"])

    def replace(self, name: str, data: bytes, served: Served, *, tag: str) -> str:
        """See :meth:`.bucket.Objects.replace`."""
        with self._asking(name):
            import obstore  # noqa: PLC0415 - optional

            put = obstore.put(self._store, self._key(name), data, mode={"e_tag": tag}, attributes=_attributes(served))
            return _tag(put["e_tag"])

    def names(self, prefix: str, *, after: str, limit: int) -> Sequence[str]:
        """See :meth:`.bucket.Objects.names`."""
        below = len(self._key(""))
        offset = self._key(after) if after else None
        with self._asking(prefix):
            import obstore  # noqa: PLC0415 - optional

            # Another of its overloads names types of Arrow, which is not installed.
            listed: Iterable[Sequence[ObjectMeta]] = obstore.list(  # pyright: ignore[reportUnknownMemberType]
                self._store, prefix=self._key(prefix), offset=offset, chunk_size=limit
            )
            first: Sequence[ObjectMeta] = next(iter(listed), ())
            return [meta["path"][below:] for meta in first]

    def delete(self, names: Sequence[str]) -> None:
        """See :meth:`.bucket.Objects.delete`."""
        with self._asking(names[0]), contextlib.suppress(FileNotFoundError):
            import obstore  # noqa: PLC0415 - optional

            obstore.delete(self._store, [self._key(name) for name in names])

    def close(self) -> None:
        """See :meth:`.bucket.Objects.close`."""

    def _key(self, name: str) -> str:
        return f"{self._address.prefix}/{name}" if self._address.prefix else name

    @contextlib.contextmanager
    def _asking(self, name: str) -> Generator[None]:
        """Say of what the library raises what it means to a caller."""
        _require_library()
        from obstore import exceptions  # noqa: PLC0415 - optional

        try:
            yield
        except (exceptions.PreconditionError, exceptions.NotModifiedError) as error:
            raise Refused from error
        except exceptions.AlreadyExistsError as error:
            # Of two that come at once, a service may send both away for another try.
            raise (Unanswered(_said(error)) if _status(error) in _TRY_AGAIN else Refused()) from error
        except FileNotFoundError as error:
            raise self._fault(Code.STORAGE_ABSENT, "there is no such bucket", name, error) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            if _FULL.search(str(error)):
                raise self._meaning(error, name) from error
            raise self._fault(Code.STORAGE_FORBIDDEN, "object storage refuses this", name, error) from error
        except exceptions.NotSupportedError as error:
            raise self._fault(Code.STORAGE_UNFIT, "object storage cannot do this", name, error) from error
        except exceptions.BaseError as error:
            raise self._meaning(error, name) from error

    def _meaning(self, error: Exception, name: str) -> Exception:
        status = _status(error)
        if _FULL.search(str(error)):
            return self._fault(Code.DISK_FULL, "object storage is full", name, error)
        if status == _UNIMPLEMENTED:
            return self._fault(Code.STORAGE_UNFIT, "object storage cannot do this", name, error)
        if status is None or status >= _SERVER_FAULT or status in _TRY_AGAIN:
            return Unanswered(_said(error))
        return self._fault(Code.STORAGE_UNREACHABLE, "object storage answers otherwise than it should", name, error)

    def _fault(self, code: Code, message: str, name: str, error: Exception) -> EnvironmentFault:
        return EnvironmentFault(code, message, where=self.place(name), got=_said(error))


def _require_library() -> None:
    if find_spec("obstore") is None:
        raise EnvironmentFault(
            Code.TOOL_MISSING,
            "the library for object storage is not installed",
            where="obstore",
            hint="pip install 'weighbridge[fleet]'",
        )


def _store(bucket: str, seconds: timedelta) -> S3Store:
    from obstore.exceptions import BaseError  # noqa: PLC0415 - optional
    from obstore.store import S3Store  # noqa: PLC0415 - optional

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
    allow = os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true" or urlsplit(endpoint).hostname in _LOOPBACK
    if endpoint.startswith("http://") and not allow:
        raise EnvironmentFault(
            Code.STORAGE_UNREACHABLE,
            "object storage is not asked in the clear",
            where="AWS_ENDPOINT_URL",
            got=endpoint,
            hint="name its https:// address; or set AWS_ALLOW_HTTP=true where nobody can listen",
        )
    try:
        return S3Store(
            bucket,
            client_options={"connect_timeout": _CONNECT, "timeout": seconds, "allow_http": allow},
            # Whether a request was carried out is ours to find out.
            retry_config={"max_retries": 0},
        )
    except (BaseError, ValueError) as error:
        raise EnvironmentFault(
            Code.STORAGE_UNREACHABLE,
            "these settings of object storage are none",
            where="AWS_… in the environment",
            got=_said(error),
        ) from error


def _attributes(served: Served) -> Attributes:
    return {"Content-Type": served.content_type, "Cache-Control": served.cache_control}


def _unless(tag: str | None) -> GetOptions:
    return {} if tag is None else {"if_none_match": tag}


def _tag(tag: str | None) -> str:
    """The tag of an object that was written: without one it could not be replaced."""
    if tag is None:
        raise EnvironmentFault(Code.STORAGE_UNFIT, "object storage gives its objects no tags", where="ETag")
    return tag


def _status(error: Exception) -> int | None:
    found = _STATUS.search(str(error))
    return None if found is None else int(found[1])  # lenient: three digits were matched


def _said(error: Exception) -> str:
    """What the service said, in a word, or what the library did."""
    text = str(error)
    status, reason = _STATUS.search(text), _REASON.search(text)
    if status is not None:
        return status[1] + ("" if reason is None else f" {reason[1]}")
    return text.partition("\n")[0][:200]
