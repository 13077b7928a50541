"""Where the ledger and the contents of a verifier lie: in its directory, or in the bucket that a file there names.

::

    STATE/ledger-storage     s3://BUCKET/PREFIX, where they lie in a bucket; what it takes to ask it is not in here
    PREFIX/ledger/           the ledger: all of it but `writer/` may be public
    PREFIX/content/          evidence and records

They stay where they were made: a verifier that looked for its ledger elsewhere would begin a second history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.ledger.bucket import Bucket
from weighbridge.verifier.ledger.bucket_content import BucketContents
from weighbridge.verifier.ledger.content import ContentStore
from weighbridge.verifier.ledger.s3 import S3Address, S3Objects
from weighbridge.verifier.ledger.source import BucketSource, DirectorySource

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.verifier.files import Files
    from weighbridge.verifier.ledger.contents import Contents
    from weighbridge.verifier.ledger.source import Source

__all__ = ["Places"]

_FILE: Final = "ledger-storage"
_LEDGER: Final = "ledger"
_CONTENT: Final = "content"
_FILE_MAX: Final = 1024
_MODE: Final = 0o644


@final
@dataclass(frozen=True, slots=True)
class Places:
    """Of the verifier whose state is ``directory``; in the bucket ``address``, where there is one."""

    directory: Path
    address: S3Address | None = None

    @classmethod
    def of(cls, directory: Path, *, expected: S3Address | None = None) -> Self:
        """What the verifier in ``directory`` was made with.

        Args:
            directory: its state.
            expected: what somebody has configured, where anybody has.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``: it says something else than an address, or another than is expected;
                ``FILE_UNREADABLE``.
        """
        path = directory / _FILE
        try:
            with path.open(encoding="ascii") as file:
                text = file.read(_FILE_MAX).strip()
            address = S3Address.parse(text)
        except FileNotFoundError:
            address = None
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise EnvironmentFault(Code.FILE_UNREADABLE, reason, where=str(path)) from error
        except ValueError as error:
            raise EnvironmentFault(Code.STATE_CORRUPT, f"no address: {error}", where=str(path)) from error
        if expected is not None and expected != address:
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                "the ledger lies elsewhere than is configured",
                where=str(path),
                expected=expected,
                got=address or directory / _LEDGER,
                hint="it stays where it was made: correct `[ledger] storage`; a new one begins with `weighbridge init`",
            )
        return cls(directory, address)

    def write_down(self, files: Files, directory: Path) -> None:
        """Have the state in ``directory``, which is being made, say so.

        Raises:
            OSError: it cannot be written.
        """
        if self.address is not None:
            files.write(directory / _FILE, f"{self.address}\n".encode(), mode=_MODE)

    def ledger(self) -> Path | Bucket:
        """Where the ledger is written.

        Raises:
            EnvironmentFault: as :class:`.s3.S3Objects`.
        """
        if self.address is None:
            return self.directory / _LEDGER
        return Bucket(S3Objects(self.address.below(_LEDGER)))

    def source(self) -> Source:
        """Where the ledger is read.

        Raises:
            EnvironmentFault: as :class:`.s3.S3Objects`.
        """
        where = self.ledger()
        return BucketSource(where) if isinstance(where, Bucket) else DirectorySource(where)

    def contents(self) -> Contents:
        """What keeps evidence and records; made, where it is a directory that is not there.

        Raises:
            EnvironmentFault: as :class:`.s3.S3Objects`, or :class:`.content.ContentStore`.
        """
        if self.address is None:
            return ContentStore(self.directory / _CONTENT)
        return BucketContents(Bucket(S3Objects(self.address.below(_CONTENT))))
