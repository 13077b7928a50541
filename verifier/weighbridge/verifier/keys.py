"""The verifier's own keys on disk.

Two keys with one purpose each: a P-256 key signs terms and result tokens; an Ed25519 key signs what the root of the
ledger is, as checkpoints and as receipts. They lie as PKCS #8 PEM files with mode 0600 in a directory with mode 0700.
Nothing is encrypted: whoever reads them is the verifier. Keys that others may read are refused, not repaired: they may
have been read.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from weighbridge.proto import cose
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.anchors import Anchor
from weighbridge.verifier.file_kinds import kind_of
from weighbridge.verifier.files import Files, PosixFiles, fault, install

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "VerifierKeys",
    "create_signing_key",
    "create_witness_key",
    "open_ledger_key",
    "open_signing_key",
    "sign_es256",
]

_SIGNING: Final = "signing.pem"
_LEDGER: Final = "ledger.pem"
_TOKENS: Final = "tokens"
_MODE: Final = 0o600
# A PKCS #8 PEM of either key is below 300 bytes.
_PEM_MAX: Final = 8 * 1024
_KEY_HINT: Final = (
    "a ledger's is STATE/keys/ledger.pem, a witness's what `weighbridge ledger witness-key` wrote, an owner's what "
    "`weighbridge model key` or `weighbridge reference key` wrote"
)


@final
@dataclass(frozen=True, slots=True)
class VerifierKeys:
    """The private keys of one verifier. Never printed.

    Attributes:
        signing: P-256; terms, result tokens.
        ledger: Ed25519; ledger checkpoints, and receipts for trees that have one.
        tokens: the directory of the keys that sign tokens instead (:mod:`.result.key_store`), which need not exist;
            ``None``: nothing but ``signing`` does.
    """

    signing: ec.EllipticCurvePrivateKey
    ledger: Ed25519PrivateKey
    tokens: Path | None = None

    def __repr__(self) -> str:
        return f"VerifierKeys(thumbprint={self.thumbprint.hex()})"

    @classmethod
    def create(cls, directory: Path, *, files: Files | None = None) -> Self:
        """New keys in ``directory``, which must not exist or be empty; its parent exists. Both keys appear or none.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``, also when there are keys already; ``DISK_FULL``.
        """
        files = files or PosixFiles()
        keys = cls(ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate(), directory / _TOKENS)
        staging: Path | None = None
        try:
            staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
            files.write(staging / _SIGNING, _pem(keys.signing), mode=_MODE)
            files.write(staging / _LEDGER, _pem(keys.ledger), mode=_MODE)
            files.sync_directory(staging)
            # If power fails here: a directory with another name is left over; no keys have been created.
            files.rename(staging, directory)
            files.sync_directory(directory.parent)
        except OSError as error:
            if staging is not None:
                with contextlib.suppress(OSError):
                    files.remove(staging)
            raise fault(error, directory, "creating the verifier's keys") from error
        return keys

    @classmethod
    def open(cls, directory: Path) -> Self:
        """The keys that :meth:`create` made.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE`` when they are not there, ``KEY_EXPOSED`` when others can read them
                or somebody else owns them, ``STATE_CORRUPT`` when a file is not such a key.
        """
        _check_directory(directory)
        try:
            signing, ledger = open_signing_key(directory / _SIGNING), open_ledger_key(directory / _LEDGER)
            return cls(signing, ledger, directory / _TOKENS)
        except MalformedEvidence as error:
            raise EnvironmentFault(Code.STATE_CORRUPT, error.message, where=error.where, got=error.got) from error

    @property
    def thumbprint(self) -> bytes:
        """SHA-256 of the signing key's SubjectPublicKeyInfo: what windows carry as their audience."""
        return cose.thumbprint(self.signing.public_key())

    def sign(self, data: bytes) -> bytes:
        """ES256 over ``data``: r then s, big-endian, 64 bytes (RFC 9053 §2.1)."""
        return sign_es256(self.signing, data)

    @property
    def signing_spki(self) -> bytes:
        """SubjectPublicKeyInfo of the signing key, DER."""
        return cose.spki(self.signing.public_key())

    @property
    def ledger_spki(self) -> bytes:
        """SubjectPublicKeyInfo of the ledger key, DER."""
        return self.ledger.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def anchors(
        self, *, name: str, origin: str, platform: str, not_before: datetime, not_after: datetime
    ) -> tuple[Anchor, Anchor]:
        """The public halves, as entries for the trust anchors of whoever relies on this verifier.

        Args:
            name: the verifier's, for people.
            origin: the ledger's; the name of its anchor, by which its checkpoints are opened.
            platform: what evidence under these anchors is called.
            not_before: aware UTC.
            not_after: aware UTC, inclusive.
        """
        source = "exported by the verifier that holds the private key"
        return (
            Anchor("verifier", name, platform, self.signing_spki, not_before, not_after, source),
            Anchor("ledger", origin, platform, self.ledger_spki, not_before, not_after, source),
        )


def create_signing_key(path: Path, *, files: Files | None = None) -> ec.EllipticCurvePrivateKey:
    """A new P-256 key in the file ``path``, which must not exist; its directory does.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE``, also when it exists; ``DISK_FULL``.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    _create(path, key, files)
    return key


def create_witness_key(path: Path, *, files: Files | None = None) -> Ed25519PrivateKey:
    """A new Ed25519 key in the file ``path``, as :func:`create_signing_key` does it; :func:`open_ledger_key` reads it.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE``, also when it exists; ``DISK_FULL``.
    """
    key = Ed25519PrivateKey.generate()
    _create(path, key, files)
    return key


def open_signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in the file ``path``, which nobody else may read.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE`` or ``KEY_EXPOSED``.
        MalformedEvidence: ``KEY_MALFORMED`` for what is no private key, ``KEY_UNSUPPORTED`` for another kind of key.
    """
    key, data = _load(path, "a P-256 private key")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _another(Code.KEY_UNSUPPORTED, path, "a P-256 private key", data)
    return key


def open_ledger_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in the file ``path``, which nobody else may read.

    Raises:
        EnvironmentFault: as :func:`open_signing_key`.
        MalformedEvidence: as :func:`open_signing_key`.
    """
    key, data = _load(path, "an Ed25519 private key")
    if not isinstance(key, Ed25519PrivateKey):
        raise _another(Code.KEY_UNSUPPORTED, path, "an Ed25519 private key", data)
    return key


def sign_es256(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ES256 over ``data`` by a P-256 key: r then s, big-endian, 64 bytes (RFC 9053 §2.1)."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def _create(path: Path, key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey, files: Files | None) -> None:
    if path.exists():
        raise EnvironmentFault(
            Code.FILE_UNWRITABLE,
            "it exists already",
            where=str(path),
            hint="choose another file: keys are not replaced",
        )
    try:
        install(files or PosixFiles(), _pem(key), path, staging=path.with_name(f".{path.name}.new"), mode=_MODE)
    except OSError as error:
        raise fault(error, path, "creating the key") from error


def _pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _check_directory(directory: Path) -> None:
    try:
        status = directory.stat()
    except OSError as error:
        raise _unreadable(error, directory) from error
    if not stat.S_ISDIR(status.st_mode):
        raise EnvironmentFault(Code.FILE_UNREADABLE, "not a directory", where=str(directory))
    _check_private(status, directory)


def _load(path: Path, wanted: str) -> tuple[object, bytes]:
    """The private key in ``path``, of whatever kind, and the file's bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(error, path) from error
    try:
        # Of the file that is open, not of whatever has its name by now.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise EnvironmentFault(Code.FILE_UNREADABLE, "not a file", where=str(path))
        data = os.read(descriptor, _PEM_MAX + 1)
    finally:
        os.close(descriptor)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _another(Code.KEY_MALFORMED, path, wanted, data) from error
    # Only now: what is no private key is no secret that others may have copied.
    _check_private(status, path)
    return key, data


def _another(code: Code, path: Path, wanted: str, data: bytes) -> MalformedEvidence:
    return MalformedEvidence(
        code,
        "a file of another kind",
        where=str(path),
        expected=f"{wanted}, unencrypted PKCS #8 PEM",
        got=kind_of(data),
        hint=_KEY_HINT,
    )


def _check_private(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise EnvironmentFault(
            Code.KEY_EXPOSED,
            "key belongs to somebody else",
            where=str(path),
            expected=f"uid {os.geteuid()}",
            got=f"uid {status.st_uid}",
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EnvironmentFault(
            Code.KEY_EXPOSED,
            "key can be read or replaced by others",
            where=str(path),
            got=f"mode {stat.S_IMODE(status.st_mode):04o}",
            hint="make new keys: these may have been copied; if you know that they were not, chmod go= the path",
        )


def _unreadable(error: OSError, path: Path) -> EnvironmentFault:
    reason = (error.strerror or type(error).__name__).lower()
    return EnvironmentFault(Code.FILE_UNREADABLE, reason, where=str(path))
