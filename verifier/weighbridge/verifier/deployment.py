"""A verifier on disk: one directory that holds its keys, ledger, evidence, sessions and channel certificates.

::

    STATE/keys/       signing.pem, ledger.pem        private; 0600 in 0700
    STATE/keys/tokens/                               keys for tokens, where there are any
    STATE/tls/        ca, server                     channel keys; no verdict rests on them
    STATE/ledger/     C2SP tiles                     may be published as it is
    STATE/content/    evidence and records by digest
    STATE/ledger-storage                             in place of these two, where they lie in a bucket
    STATE/sessions.sqlite
    STATE/store                                      in its place, where sessions are in PostgreSQL: its address
    STATE/turns                                      held by whichever process is writing
    STATE/anchors.json                               the public halves, for whoever relies on this verifier
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto import note
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier import pki
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.archive import Archive, Records
from weighbridge.verifier.database.named import STORE, named_in
from weighbridge.verifier.database.sqlite import SqliteDatabase
from weighbridge.verifier.files import PosixFiles, fault
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.leadership import FileLeadership
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.ledger.places import Places
from weighbridge.verifier.ledger.reader import LedgerReader
from weighbridge.verifier.recovery import require_history
from weighbridge.verifier.service import TlsFiles
from weighbridge.verifier.store import Store
from weighbridge.verifier.telemetry.history import FINGERPRINTS_KEPT

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from weighbridge.verifier.database import PostgresAddress
    from weighbridge.verifier.leadership import Leadership
    from weighbridge.verifier.ledger.s3 import S3Address

__all__ = ["Deployment"]

_ORIGIN: Final = "origin"
_TURNS: Final = "turns"
_FOREVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_PRIVATE: Final = 0o700


@final
@dataclass(frozen=True, slots=True)
class Deployment:
    """An open state directory. Any number of processes of one machine may have it open: they write in turns."""

    directory: Path
    keys: VerifierKeys
    archive: Archive
    store: Store

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        origin: str,
        hosts: tuple[str, ...],
        at: datetime,
        ledger_storage: S3Address | None = None,
        store: PostgresAddress | None = None,
    ) -> None:
        """Make a new state directory, whole or not at all.

        Args:
            directory: must not exist; its parent does.
            origin: the ledger's name, such as ``ledger.example/windows``.
            hosts: names and addresses under which attesters reach this verifier.
            at: the present, aware UTC.
            ledger_storage: where ledger and contents are to lie instead.
            store: where sessions are to be remembered instead.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE`` (also when it exists), ``DISK_FULL``; of a bucket, as
                :meth:`.Ledger.create`; of a database, as :meth:`.Store.create`.
        """
        if directory.exists():
            raise EnvironmentFault(
                Code.FILE_UNWRITABLE, "it exists already", where=str(directory), hint="choose another directory"
            )
        files = PosixFiles()
        staging = directory.with_name(f".{directory.name}.new")
        try:
            files.remove(staging)
            files.make_directory(staging, mode=_PRIVATE)
            files.make_directory(staging / "tls", mode=_PRIVATE)
            keys = VerifierKeys.create(staging / "keys")
            FileLeadership(staging / _TURNS).close()
            if store is not None:
                files.write(staging / STORE, f"{store}\n".encode(), mode=0o644)
            Store.create(named_in(staging))
            pki.create_authority(staging / "tls", name=origin, at=at)
            pki.issue_server(staging / "tls", hosts=hosts, at=at)
            anchors = keys.anchors(
                name=f"verifier of {origin}", origin=origin, platform="weighbridge", not_before=at, not_after=_FOREVER
            )
            files.write(staging / "anchors.json", TrustAnchors(anchors).encode(), mode=0o644)
            files.write(staging / _ORIGIN, origin.encode(), mode=0o644)
            places = Places(staging, ledger_storage)
            places.write_down(files, staging)
            _ = places.contents()
            # Last: of what is made in a bucket nothing is taken away again.
            ledger = Ledger.create(places.ledger(), origin=origin, key=keys.ledger)
            ledger.close()
            with contextlib.closing(Store.open(named_in(staging))) as opened:
                opened.claim(ledger.key.vkey)
            files.sync_directory(staging)
            # If power fails before this: a hidden directory is left over, and the next attempt removes it.
            files.rename(staging, directory)
            files.sync_directory(directory.parent)
        except BaseException as error:
            with contextlib.suppress(OSError):
                files.remove(staging)
            if isinstance(error, OSError):
                raise fault(error, directory, "creating the verifier's state") from error
            raise

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        fingerprints_kept: int = FINGERPRINTS_KEPT,
        ledger_storage: S3Address | None = None,
        store: PostgresAddress | None = None,
    ) -> Self:
        """Open the state directory, its ledger recovered from whatever interrupted who wrote to it last.

        At most ``fingerprints_kept`` of GPUs' samples are remembered from now on (:mod:`.traces`). Where
        ``ledger_storage`` is given, that is where ledger and contents must lie. ``store`` is another address of the
        database than the one that is written there.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``, ``KEY_EXPOSED``, ``STATE_CORRUPT``; ``LEDGER_LOCKED`` when another
                process is writing for long; as :meth:`.Store.open` and :meth:`.Store.require_owner`.
            LedgerInconsistent: the ledger contradicts what was signed; ``LEDGER_ROLLBACK`` or ``LEDGER_FORK``: it was
                put back to an earlier state, or is not the one that the sessions were recorded in.
        """
        origin = _origin(directory)
        keys = VerifierKeys.open(directory / "keys")
        places = Places.of(directory, expected=ledger_storage)
        ledger = Ledger.open(places.ledger(), origin=origin, key=keys.ledger)
        sessions = Store.open(store or named_in(directory), fingerprints_kept=fingerprints_kept)
        archive = Archive(places.contents(), ledger, _leadership(sessions, directory))
        opened = cls(directory, keys, archive, sessions)
        try:
            sessions.require_owner(ledger.key.vkey)
            # Before anybody signs anything with it; and while nobody else lets the one or the other go on.
            with archive.turn():
                require_history(archive, sessions)
        except BaseException:
            opened.close()
            raise
        return opened

    @classmethod
    @contextlib.contextmanager
    def reading(cls, directory: Path) -> Generator[tuple[Records, LedgerReader]]:
        """Records and ledger as they stand, without the lock: also while the verifier serves.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``, ``KEY_EXPOSED``.
            LedgerInconsistent: the published checkpoint contradicts what was signed.
        """
        origin, keys = _origin(directory), VerifierKeys.open(directory / "keys")
        key = note.NoteKey.from_spki(origin, keys.ledger_spki)
        places = Places.of(directory)
        reader = LedgerReader.open(places.source(), key=key, origin=origin)
        yield Records(places.contents(), reader), reader

    @property
    def tls(self) -> TlsFiles:
        """The channel's key, certificate and client authority."""
        tls = self.directory / "tls"
        return TlsFiles(key=tls / "server-key.pem", certificate=tls / "server.pem", client_ca=tls / "ca.pem")

    def close(self) -> None:
        """Let go of all that is held open."""
        self.store.close()
        self.archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _leadership(store: Store, directory: Path) -> Leadership:
    """Turns among all that share the store: the processes of one machine, or replicas."""
    if isinstance(store.database, SqliteDatabase):
        return FileLeadership(directory / _TURNS)
    # Apart: it needs what only PostgreSQL takes.
    from weighbridge.verifier.database.postgres import PostgresDatabase  # noqa: PLC0415
    from weighbridge.verifier.postgres_leadership import PostgresLeadership  # noqa: PLC0415

    if not isinstance(store.database, PostgresDatabase):
        raise TypeError("turns on a database of another kind")
    return PostgresLeadership(store.database)


def _origin(directory: Path) -> str:
    try:
        return (directory / _ORIGIN).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            "no verifier's state here",
            where=str(directory),
            hint="name a directory that `weighbridge init` made, or make one: weighbridge init STATE --origin NAME",
        ) from error
