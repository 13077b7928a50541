"""Verifies an OpenSSF model signature against the directory that it is about.

The procedure of :func:`verify`, in the order in which it is done:

1. The bundle is well-formed and the digest over all resources is theirs (:class:`Bundle`).
2. It is of the mode for which trust was given: a public key, root certificates, or an identity. No mode stands in for
   another.
3. Mode *key*: the key that the bundle names is the trusted one.
   Mode *certificate*: the chain ends at a trusted root, all of it valid at the stated time, and the signer's
   certificate is for signing.
   Mode *keyless*: :mod:`weighbridge.attester.model_signing.keyless`, which includes step 4.
4. The signature over the exact bytes of the statement is by that key, with the hash that its curve fixes.
5. Every file that the statement names is in the directory, with the size that its shards add up to.
6. No other file is, except below the paths that the signer, or the caller, ignores; what lies there is listed.
7. No link leads to a file, unless the signer allowed links; none ever leaves the directory.
8. Every byte is hashed, and every digest is the signed one. The directory did not change meanwhile.

Left to the caller: whether this signer may speak for this model, whether its key or certificate has been revoked, and
when it signed: only a bundle of mode *keyless* carries a time. Not proven: that a server loads these bytes later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester.model_signing.algorithms import hint_of, scheme
from weighbridge.attester.model_signing.certificates import check_purpose, verify_chain
from weighbridge.attester.model_signing.content import content_of, digests, ranges_of
from weighbridge.attester.model_signing.keyless import KeylessSigner, TrustedIdentity, verify_bundle
from weighbridge.attester.model_signing.keys import TrustedKey, TrustedRoots
from weighbridge.attester.weights.directory import resolved
from weighbridge.proto import cose
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.model_signing import Bundle, CertificateChain, KeyHint, Keyless

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.attester.model_signing.content import Content
    from weighbridge.attester.weights.hashing import Progress
    from weighbridge.proto.model_signing import Material, Statement

__all__ = ["CertifiedSigner", "KeySigner", "Signer", "Trust", "VerifiedModel", "verify"]

Trust = TrustedKey | TrustedRoots | TrustedIdentity

_SEAL: Final = object()
_ANEW: Final = "fetch the model again; if its owner has changed it, the signature too"


@dataclass(frozen=True, slots=True)
class KeySigner:
    """Who holds the trusted key. ``thumbprint`` is the SHA-256 of its SubjectPublicKeyInfo, 32 bytes."""

    thumbprint: bytes


@dataclass(frozen=True, slots=True)
class CertifiedSigner:
    """Who holds the certified key. Names are as the issuer wrote them; ``fingerprint`` is the certificate's SHA-256.

    ``root`` is the subject of the trusted root; ``at`` is the time at which all were valid.
    """

    subject: str
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    fingerprint: bytes
    thumbprint: bytes
    root: str
    at: datetime


Signer = KeySigner | CertifiedSigner | KeylessSigner


@final
@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A directory that held, when it was read, exactly what ``signer`` signed. Made by :func:`verify`.

    ``left_out`` are files that lie there and that nobody signed, below paths that are ignored: by the signer
    (``statement.serialization.ignore_paths``) or by the caller (``ignored``). ``size`` counts the bytes of what is
    signed. The seal is a guard against mistakes, not against hostile code.
    """

    signer: Signer
    statement: Statement
    ignored: tuple[str, ...]
    left_out: tuple[str, ...]
    size: int
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedModel is made by verify only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedModel cannot be pickled")


def verify(
    data: bytes,
    directory: Path,
    trust: Trust,
    *,
    at: datetime,
    ignore: Iterable[str] = (),
    progress: Progress | None = None,
) -> VerifiedModel:
    """What ``data``, a bundle, proves of ``directory``, by the procedure in the module's docstring.

    Args:
        data: untrusted.
        directory: the model's directory, untrusted.
        trust: whose signature is believed.
        at: aware; when certificates must be valid. Of no effect on a key, nor on mode *keyless*.
        ignore: paths below the directory that the caller does not ask about, such as the signature's own.
        progress: called with bytes done and bytes in all, from several threads but never from two at once.

    Raises:
        MalformedEvidence: step 1.
        NotAuthentic: ``MODEL_SIGNATURE_MODE`` (step 2), ``MODEL_SIGNER``, ``CHAIN_EXPIRED``, ``CHAIN_UNTRUSTED`` or
            ``CERT_PURPOSE`` (3), ``MODEL_SIGNATURE`` (4), ``MODEL_FILE_MISSING`` or ``MODEL_FILE_DIFFERS`` (5),
            ``MODEL_FILE_UNSIGNED`` (6, 7), ``MODEL_FILE_DIFFERS`` (8). Those of files name the path.
        EnvironmentFault: ``WEIGHTS_UNREADABLE``, ``WEIGHTS_CHANGED``, or ``TOOL_MISSING`` for BLAKE3 or Sigstore.
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    # 1.
    bundle = Bundle.parse(data)
    # 2. to 4.
    signer = _authenticate(data, bundle, trust, at)
    statement = bundle.statement
    ignored = tuple(sorted(set(ignore)))
    content = content_of(resolved(directory), tuple(sorted({*statement.serialization.ignore_paths, *ignored})))
    # 5.
    _check_present(statement, content, ignored)
    # 6.
    unsigned = content.files.keys() - statement.files().keys()
    if unsigned:
        raise _unsigned("not in the signature", unsigned, hint=_unsigned_hint(statement, content, unsigned))
    # 7.
    if content.links and not statement.serialization.allow_symlinks:
        raise _unsigned("reached through a symbolic link, and the signer allowed none", content.links)
    # 8.
    _check_digests(statement, content, progress)
    return VerifiedModel(signer, statement, ignored, content.left_out, content.size, _SEAL)


def _authenticate(data: bytes, bundle: Bundle, trust: Trust, at: datetime) -> Signer:
    match bundle.material, trust:
        case KeyHint() as material, TrustedKey(key):
            if material.claimed_key != hint_of(key):
                raise NotAuthentic(
                    Code.MODEL_SIGNER,
                    "signed by another key than the trusted one",
                    where="bundle.verificationMaterial.publicKey",
                    expected=hint_of(key),
                    got=material.claimed_key,
                )
            _check_signature(bundle, key)
            return KeySigner(cose.thumbprint(key))
        case CertificateChain(certificates), TrustedRoots(roots):
            chain = verify_chain(certificates, roots, at=at)
            key = check_purpose(certificates[0], "bundle.certificates[0]")
            _check_signature(bundle, key)
            return _certified(certificates[0], chain[-1], key, at)
        case Keyless(), TrustedIdentity():
            signer, payload = verify_bundle(data, trust)
            if payload != bundle.statement.raw:
                raise NotAuthentic(Code.MODEL_SIGNATURE, "another payload was signed", where="bundle.dsseEnvelope")
            return signer
        case _:
            mode, advice = _MODES[type(bundle.material)]
            raise NotAuthentic(
                Code.MODEL_SIGNATURE_MODE,
                f"signed in mode {mode}, which is not the one for which trust was given",
                where="bundle.verificationMaterial",
                hint=advice,
            )


_MODES: Final[dict[type[Material], tuple[str, str]]] = {
    KeyHint: ("key", "name the signer's public key, if you believe it"),
    CertificateChain: ("certificate", "name the root certificates that you believe"),
    Keyless: ("keyless", "name the signer's identity, its issuer, and Sigstore's trusted root"),
}


def _check_signature(bundle: Bundle, key: ec.EllipticCurvePublicKey) -> None:
    try:
        key.verify(bundle.signature, bundle.signed, scheme(key))
    except InvalidSignature as error:
        raise NotAuthentic(
            Code.MODEL_SIGNATURE,
            "the signature does not verify under the signer's key",
            where="bundle.dsseEnvelope.signatures[0]",
            clause="DSSE v1.0",
        ) from error


def _certified(
    own: x509.Certificate, root: x509.Certificate, key: ec.EllipticCurvePublicKey, at: datetime
) -> CertifiedSigner:
    return CertifiedSigner(
        subject=own.subject.rfc4514_string(),
        issuer=own.issuer.rfc4514_string(),
        serial=own.serial_number,
        not_before=own.not_valid_before_utc,
        not_after=own.not_valid_after_utc,
        fingerprint=sha256(own.public_bytes(Encoding.DER)),
        thumbprint=cose.thumbprint(key),
        root=root.subject.rfc4514_string(),
        at=at,
    )


def _check_present(statement: Statement, content: Content, ignored: tuple[str, ...]) -> None:
    signed = statement.files()
    missing = sorted(signed.keys() - content.files.keys())
    if missing:
        hidden = sorted(set(missing).intersection(content.left_out))
        raise NotAuthentic(
            Code.MODEL_FILE_MISSING,
            f"signed, but {'ignored' if hidden else 'not in the directory'}{_more(missing)}",
            where=(hidden or missing)[0],
            hint=f"ignored by the caller: {', '.join(ignored)}" if hidden else _ANEW,
        )
    for path, parts in signed.items():
        size = parts[-1].end
        if size is not None and content.files[path].size != size:
            raise NotAuthentic(
                Code.MODEL_FILE_DIFFERS,
                "of another size than was signed",
                where=path,
                expected=f"{size} bytes",
                got=f"{content.files[path].size} bytes",
                hint=_ANEW,
            )


def _check_digests(statement: Statement, content: Content, progress: Progress | None) -> None:
    how = statement.serialization
    signed = [part for parts in statement.files().values() for part in parts]
    ranges = [part for path in statement.files() for part in ranges_of(content.files[path], how.shard_size)]
    found = digests(content, ranges, algorithm=how.hash_type, progress=progress)
    wrong = [
        (part.name, part.digest, digest) for part, digest in zip(signed, found, strict=True) if part.digest != digest
    ]
    if wrong:
        name, expected, got = wrong[0]
        raise NotAuthentic(
            Code.MODEL_FILE_DIFFERS,
            f"of another content than was signed{_more(wrong)}",
            where=name,
            expected=f"{how.hash_type} {expected.hex()}",
            got=got.hex(),
            hint=_ANEW,
        )


def _unsigned(reason: str, paths: Collection[str], *, hint: str = "") -> NotAuthentic:
    return NotAuthentic(Code.MODEL_FILE_UNSIGNED, f"{reason}{_more(paths)}", where=min(paths), hint=hint)


def _unsigned_hint(statement: Statement, content: Content, unsigned: Collection[str]) -> str:
    if statement.serialization.method == "shards" and not any(content.files[path].size for path in unsigned):
        return "an empty file has no shard, so that this method cannot sign it: remove it, or ignore it by name"
    return "remove it, or ignore it by name if nothing loads it"


def _more(found: Collection[object]) -> str:
    return f" ({len(found)} in all)" if len(found) > 1 else ""
