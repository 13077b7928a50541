"""Sigstore's keyless mode, by the ``sigstore`` library: the extra ``[sigstore]``. The only module that meets it.

Offline: the trusted root is a file that the operator has, never fetched. The library proves that the certificate was
issued by the instance's authority and promised to its certificate log, that the signature was recorded in the
transparency log while the certificate was valid, and that certificate and signature are this envelope's. A bundle with
an entry of Rekor v2 needs a timestamp of an authority that the trusted root names.

Not proven: that the log is append-only beyond what the bundle shows, and that the identity provider was not deceived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import spki_der

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sigstore.verify import Verifier

__all__ = ["KeylessSigner", "TrustedIdentity", "verify_bundle"]

# What the library lets out beside its own errors when certificates or entries are not what it expects.
_LEAKS: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class TrustedIdentity:
    """Whose signature is believed: ``identity`` as vouched for by ``issuer``, by the services in ``trusted_root``.

    ``identity`` is a mail address or URI, ``issuer`` the URL of an OpenID provider, both compared exactly.
    ``trusted_root`` is the file that Sigstore calls ``trusted_root.json``.
    """

    identity: str
    issuer: str
    trusted_root: Path

    def __post_init__(self) -> None:
        """Refuse to leave open who signed, or who says so."""
        if not self.identity or not self.issuer:
            raise ValueError("no identity or no issuer")


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """Who signed, as ``issuer`` vouched for within the ten minutes or so that the certificate was valid."""

    identity: str
    issuer: str
    not_before: datetime
    not_after: datetime
    fingerprint: bytes
    thumbprint: bytes


def verify_bundle(data: bytes, trust: TrustedIdentity) -> tuple[KeylessSigner, bytes]:
    """Who signed ``data``, a bundle of mode *keyless*, and the payload that was signed.

    Raises:
        NotAuthentic: ``MODEL_SIGNER`` for another identity or issuer, ``MODEL_SIGNATURE`` for anything else that does
            not verify.
        MalformedEvidence: ``ANCHORS_INVALID`` for a trusted root that is none.
        EnvironmentFault: ``FILE_UNREADABLE``, or ``TOOL_MISSING`` where the library is not installed.
    """
    try:
        from sigstore.errors import Error  # noqa: PLC0415 - optional
        from sigstore.models import Bundle  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING,
            "the sigstore library is not installed",
            where="sigstore",
            hint="pip install 'weighbridge[sigstore]', or verify with `model_signing verify sigstore`",
        ) from error
    verifier = _verifier(trust.trusted_root)
    try:
        bundle = Bundle.from_json(data)
        _, payload = verifier.verify_dsse(bundle, _Policy(trust))
    except (Error, *_LEAKS) as error:
        raise NotAuthentic(
            Code.MODEL_SIGNATURE,
            f"not a signature of this Sigstore instance: {error}",
            where="bundle.verificationMaterial",
            hint="is the trusted root that of the instance with which the model was signed?",
        ) from error
    certificate = bundle.signing_certificate
    return KeylessSigner(
        identity=trust.identity,
        issuer=trust.issuer,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=sha256(certificate.public_bytes(Encoding.DER)),
        thumbprint=sha256(spki_der(certificate)),
    ), payload


class _Policy:
    """The library's own comparison, with a code of ours where it fails."""

    def __init__(self, trust: TrustedIdentity) -> None:
        self._trust = trust

    def verify(self, cert: x509.Certificate) -> None:
        from sigstore.errors import VerificationError  # noqa: PLC0415 - optional
        from sigstore.verify.policy import Identity  # noqa: PLC0415 - optional

        try:
            Identity(identity=self._trust.identity, issuer=self._trust.issuer).verify(cert)
        except (VerificationError, *_LEAKS) as error:
            raise NotAuthentic(
                Code.MODEL_SIGNER,
                f"signed by another identity than the trusted one: {error}",
                where="bundle.verificationMaterial.certificate",
                expected=f"{self._trust.identity} by {self._trust.issuer}",
            ) from error


def _verifier(trusted_root: Path) -> Verifier:
    from sigstore.errors import Error  # noqa: PLC0415 - optional
    from sigstore.models import TrustedRoot  # noqa: PLC0415 - optional
    from sigstore.verify import Verifier  # noqa: PLC0415 - optional

    try:
        return Verifier(trusted_root=TrustedRoot.from_file(str(trusted_root)))
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, f"cannot read trusted root: {error.strerror or error}", where=str(trusted_root)
        ) from error
    except (Error, *_LEAKS) as error:
        raise MalformedEvidence(
            Code.ANCHORS_INVALID,
            f"not a trusted root of Sigstore: {error}",
            where=str(trusted_root),
            hint="the operator of the instance gives out its trusted_root.json",
        ) from error
