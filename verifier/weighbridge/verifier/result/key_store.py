"""The verifier's keys for tokens on disk, apart from its identity, which endorses each of them.

::

    STATE/keys/tokens/KID.pem        the private key; 0600, gone once the key is retired
    STATE/keys/tokens/KID.cose       the statement that endorses it (weighbridge.proto.token_key)
    STATE/keys/tokens/KID.retired    that it signs no more, and since when

KID is the key's thumbprint in hexadecimal. A key is announced first and signs later, so that whoever fetches keys now
and then has it before its first token. Of those whose time has come the one that came last signs; while there is none,
the identity key does. A key whose statement is missing was never announced: what a power cut left of it is passed over.

States: ``announced`` → ``current`` → ``replaced`` (by a later one) → ``expired``; ``retired`` and ``distrusted`` from
any of them, for good. Several processes may read while one command writes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, WeighbridgeError
from weighbridge.verifier.files import PosixFiles, fault, install
from weighbridge.verifier.keys import create_signing_key, open_signing_key
from weighbridge.verifier.result import jwks
from weighbridge.verifier.result.endorsement import endorse, endorsed
from weighbridge.verifier.result.trusted import TrustedKey, TrustedKeys

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.files import Files
    from weighbridge.verifier.keys import VerifierKeys

__all__ = ["ANNOUNCED_MIN", "KeyState", "StoredKey", "TokenKeyStore", "TokenSigner"]

TokenSigner = Callable[[datetime], "ec.EllipticCurvePrivateKey"]
"""The key that signs the tokens of windows received at a time. It may raise ``EnvironmentFault``."""

ANNOUNCED_MIN: Final = timedelta(minutes=15)
"""How long a key is announced at least before it signs: relying parties fetch keys more often than that."""

# No token lives longer (docs/protocol.md §8), and clocks differ by some seconds.
_TOKENS_LAST: Final = timedelta(seconds=130)
_PRIVATE: Final = 0o700
_PUBLIC: Final = 0o644


class KeyState(StrEnum):
    """What a key is good for."""

    ANNOUNCED = "announced"
    CURRENT = "current"
    REPLACED = "replaced"
    EXPIRED = "expired"
    RETIRED = "retired"
    DISTRUSTED = "distrusted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key that was announced.

    Attributes:
        trusted: its public half, and its period.
        statement: that endorses it.
        retired: since when it signs no more.
        distrusted: whether its tokens are not believed any more.
    """

    trusted: TrustedKey
    statement: bytes
    retired: datetime | None
    distrusted: bool

    @property
    def not_before(self) -> datetime:
        """From when on it signs."""
        if self.trusted.not_before is None:
            raise RuntimeError("an endorsed key has a period")
        return self.trusted.not_before

    @property
    def not_after(self) -> datetime:
        """Until when."""
        if self.trusted.not_after is None:
            raise RuntimeError("an endorsed key has a period")
        return self.trusted.not_after

    def signs(self, at: datetime) -> bool:
        """Whether it could sign at ``at``, were there no later one."""
        # The end of its period is that of its last token's `iat`, which is the receipt of a window, a little earlier.
        return self.retired is None and self.not_before <= at <= self.not_after

    def verifies(self, at: datetime) -> bool:
        """Whether tokens of it may still be good at ``at``, or will come to be."""
        last = self.not_after if self.retired is None else min(self.retired, self.not_after)
        return not self.distrusted and at <= last + _TOKENS_LAST


@final
class TokenKeyStore:
    """The keys in one directory. Not for several threads at once."""

    __slots__ = ("_files", "_identity", "_keys", "_place", "_read", "_signer")

    def __init__(self, identity: VerifierKeys, *, files: Files | None = None) -> None:
        """Read what there is.

        Args:
            identity: the verifier's own keys, which say where those for tokens are.
            files: the file system.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``, or ``STATE_CORRUPT`` where a statement is not one of this verifier.
        """
        self._place = identity.tokens
        self._identity = identity
        self._files = files or PosixFiles()
        self._keys: tuple[StoredKey, ...] = ()
        # The directory's time, and the names in it: times are told in ticks, and two changes fall into one.
        self._read: tuple[int, list[str]] | None = None
        self._signer: tuple[bytes, ec.EllipticCurvePrivateKey] | None = None
        self._refresh()

    def known(self) -> tuple[StoredKey, ...]:
        """All keys that were ever announced, the one that signs first of all first.

        Raises:
            EnvironmentFault: as :meth:`__init__`.
        """
        self._refresh()
        return self._keys

    def state(self, key: StoredKey, at: datetime) -> KeyState:
        """What ``key`` is good for at ``at``."""
        if key.distrusted:
            return KeyState.DISTRUSTED
        if key.retired is not None:
            return KeyState.RETIRED
        if at < key.not_before:
            return KeyState.ANNOUNCED
        if at > key.not_after:
            return KeyState.EXPIRED
        current = self._current(at)
        return KeyState.CURRENT if current is not None and current.trusted.kid == key.trusted.kid else KeyState.REPLACED

    def signer(self, at: datetime) -> ec.EllipticCurvePrivateKey:
        """The key that signs the tokens of windows received at ``at``.

        Raises:
            EnvironmentFault: as :meth:`__init__`; ``KEY_EXPOSED``.
        """
        self._refresh()
        current = self._current(at)
        if current is None:
            return self._identity.signing
        kid = current.trusted.kid
        if self._signer is None or self._signer[0] != kid:
            self._signer = (kid, self._private(kid))
        return self._signer[1]

    def signer_thumbprint(self, at: datetime) -> bytes:
        """The thumbprint of the same, which is not opened.

        Raises:
            EnvironmentFault: as :meth:`__init__`.
        """
        self._refresh()
        current = self._current(at)
        return self._identity.thumbprint if current is None else current.trusted.kid

    def trusted(self, at: datetime) -> TrustedKeys:
        """The keys that tokens may still be verified by at ``at``: the identity, and all that it has endorsed.

        Raises:
            EnvironmentFault: as :meth:`__init__`.
        """
        endorsed_keys = [key.trusted for key in self.known() if key.verifies(at)]
        return TrustedKeys([TrustedKey(self._identity.signing.public_key()), *endorsed_keys])

    def jwks(self, at: datetime) -> strict.JsonObject:
        """The same as a JSON Web Key Set, those announced among them.

        Raises:
            EnvironmentFault: as :meth:`__init__`.
        """
        listed: list[tuple[ec.EllipticCurvePublicKey, bytes | None]] = [
            (key.trusted.key, key.statement) for key in self.known() if key.verifies(at)
        ]
        return jwks.write([*listed, (self._identity.signing.public_key(), None)])

    def new(self, *, at: datetime, not_before: datetime, not_after: datetime) -> StoredKey:
        """Make and announce a key that signs from ``not_before`` to ``not_after``, whatever else is announced.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``, ``DISK_FULL``.
            ValueError: it is announced for less than :data:`ANNOUNCED_MIN`, or its period is empty or too long.
        """
        if not_before < at + ANNOUNCED_MIN:
            raise ValueError(f"a key is announced {ANNOUNCED_MIN} before it signs")
        try:
            self._files.make_directory(self._directory, mode=_PRIVATE)
            self._files.sync_directory(self._directory.parent)
        except OSError as error:
            raise fault(error, self._directory, "making room for keys") from error
        staging = self._directory / f".{secrets.token_hex(8)}.new"
        key = create_signing_key(staging, files=self._files)
        kid = cose.thumbprint(key.public_key())
        statement = endorse(key.public_key(), self._identity, not_before=not_before, not_after=not_after, at=at)
        try:
            self._files.rename(staging, self._path(kid, "pem"))
        except OSError as error:
            raise fault(error, self._directory, "keeping the key") from error
        # If power fails before this: a private key that nobody was told of, and that signs nothing.
        self._write(self._path(kid, "cose"), statement, "announcing the key")
        self._refresh()
        return self._find(kid)

    def retire(self, kid: bytes, *, at: datetime, distrust: bool) -> StoredKey:
        """Have a key sign no more from ``at`` on, for good, and delete its private half.

        Tokens of it go on to be believed until they expire, unless ``distrust``: then the key leaves the key set at
        once. Relying parties that are offline believe it until its period ends.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``, ``DISK_FULL``; ``FILE_UNREADABLE`` when there is no such key.
        """
        key = self._find(kid)
        since = key.retired or at
        mark = {"retired": strict.time_encode(since), "distrusted": distrust or key.distrusted}
        self._write(self._path(kid, "retired"), strict.json_encode(mark) + b"\n", "retiring the key")
        self._remove(self._path(kid, "pem"))
        self._signer = None
        self._refresh()
        return self._find(kid)

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _directory(self) -> Path:
        if self._place is None:
            raise RuntimeError("this verifier has no directory")
        return self._place

    def _current(self, at: datetime) -> StoredKey | None:
        signing = [key for key in self._keys if key.signs(at)]
        return max(signing, key=lambda key: (key.not_before, key.trusted.kid), default=None)

    def _find(self, kid: bytes) -> StoredKey:
        found = next((key for key in self.known() if key.trusted.kid == kid), None)
        if found is None:
            raise EnvironmentFault(
                Code.FILE_UNREADABLE,
                "no such key",
                where=str(self._directory),
                got=kid.hex(),
                hint="`weighbridge token keys list` shows those there are",
            )
        return found

    def _refresh(self) -> None:
        """Read the directory again when names in it have changed: a command has been at work."""
        if self._place is None:
            return
        try:
            seen = (self._place.stat().st_mtime_ns, sorted(path.name for path in self._place.iterdir()))
        except FileNotFoundError:
            self._keys, self._read = (), None
            return
        except OSError as error:
            raise _unreadable(error, self._place) from error
        if seen == self._read:
            return
        paths = [self._place / name for name in seen[1] if name.endswith(".cose")]
        self._keys = tuple(sorted(map(self._load, paths), key=lambda key: (key.not_before, key.trusted.kid)))
        self._read = seen

    def _load(self, path: Path) -> StoredKey:
        identity = TrustedKeys.of(self._identity.signing.public_key())
        try:
            statement = _read(path)
            trusted = endorsed(statement, identity)
            if path.stem != trusted.kid.hex():
                raise MalformedEvidence(Code.KEY_MALFORMED, "it is of another key", where=str(path))
            retired, distrusted = self._retirement(trusted.kid)
        except OSError as error:
            raise _unreadable(error, path) from error
        except WeighbridgeError as error:
            raise EnvironmentFault(
                Code.STATE_CORRUPT, f"not a statement of this verifier: {error}", where=str(path)
            ) from error
        return StoredKey(trusted=trusted, statement=statement, retired=retired, distrusted=distrusted)

    def _retirement(self, kid: bytes) -> tuple[datetime | None, bool]:
        try:
            data = _read(self._path(kid, "retired"))
        except FileNotFoundError:
            return None, False
        mark = strict.json_decode(data, what="retired")
        match mark:
            case {"retired": str(since), "distrusted": bool(distrusted), **rest} if not rest:
                return strict.time_decode(since, what="retired"), distrusted
            case _:
                raise MalformedEvidence(Code.FIELD_TYPE, "not a mark of retirement", where="retired")

    def _private(self, kid: bytes) -> ec.EllipticCurvePrivateKey:
        path = self._path(kid, "pem")
        try:
            key = open_signing_key(path)
        except MalformedEvidence as error:
            raise EnvironmentFault(Code.STATE_CORRUPT, f"not a key: {error}", where=str(path)) from error
        if cose.thumbprint(key.public_key()) != kid:
            raise EnvironmentFault(Code.STATE_CORRUPT, "it is another key", where=str(path))
        return key

    def _path(self, kid: bytes, kind: str) -> Path:
        return self._directory / f"{kid.hex()}.{kind}"

    def _write(self, path: Path, data: bytes, doing: str) -> None:
        try:
            install(self._files, data, path, staging=path.with_name(f".{path.name}.new"), mode=_PUBLIC)
        except OSError as error:
            raise fault(error, path, doing) from error

    def _remove(self, path: Path) -> None:
        try:
            self._files.remove(path)
            self._files.sync_directory(path.parent)
        except OSError as error:
            raise fault(error, path, "removing a private key") from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(limits.TOKEN_KEY_MAX + 1)


def _unreadable(error: OSError, path: Path) -> EnvironmentFault:
    reason = (error.strerror or type(error).__name__).lower()
    return EnvironmentFault(Code.FILE_UNREADABLE, reason, where=str(path))
