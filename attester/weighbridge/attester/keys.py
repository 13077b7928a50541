"""The two TLS keys of an attester, made on the host and kept in its state directory (mode 0600).

=============  =====================================================================================
*serving*      the inference server's; self-signed, since relying parties pin its key (``cnf``), not its name
*channel*      the attester's own towards the verifier (``peer``); certified by the verifier's client authority
=============  =====================================================================================

Both are P-256. A key is named by the SHA-256 of its SubjectPublicKeyInfo. Not proven by either: where the key is held;
whoever reads the state directory has both.
"""

from __future__ import annotations

import ipaddress
import stat
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weighbridge.attester.durable import make_directory, read_file, write_file
from weighbridge.proto import cose, limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ChannelKey", "ServingKey", "ensure_keys", "load_authority", "load_channel", "load_serving"]

_VALIDITY: Final = timedelta(days=825)
# A host whose clock is a little slow must not refuse its own certificate.
_BACKDATE: Final = timedelta(hours=1)
_CHAIN_MAX: Final = 8 * limits.CERT_MAX
_INIT_HINT: Final = "run `weighbridge-attester init --state DIR` first"


@dataclass(frozen=True, slots=True)
class ServingKey:
    """The inference server's TLS key. ``cnf`` is its thumbprint, 32 bytes, named in every header."""

    key_file: Path
    certificate_file: Path
    cnf: bytes


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """The attester's own TLS key. ``peer`` is its thumbprint; ``key`` and ``certificate`` are PEM, leaf first."""

    key: bytes
    certificate: bytes
    peer: bytes


def ensure_keys(state: Path, *, names: Sequence[str], at: datetime) -> tuple[bytes, bytes]:
    """Make what is missing of both keys, the serving certificate and the channel's request; keep what is there.

    Args:
        state: the attester's state directory; made when absent.
        names: DNS names and IP addresses for the serving certificate.
        at: the present.

    Returns:
        ``cnf`` and ``peer``: SHA-256 of each key's SubjectPublicKeyInfo.

    Raises:
        EnvironmentFault: ``DISK_FULL``, ``FILE_UNWRITABLE``, or ``STATE_CORRUPT`` for a key that cannot be read.
    """
    make_directory(state)
    serving = _ensure_key(state / "serving.key")
    certificate = state / "serving.pem"
    if not certificate.exists():
        write_file(certificate, _self_signed(serving, names, at), mode=0o644)
    channel = _ensure_key(state / "channel.key")
    request = state / "channel.csr"
    if not request.exists():
        write_file(request, _request(channel), mode=0o644)
    return cose.thumbprint(serving.public_key()), cose.thumbprint(channel.public_key())


def load_serving(state: Path) -> ServingKey:
    """The serving key.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``, ``KEY_EXPOSED`` or ``STATE_CORRUPT``.
    """
    key_file, certificate_file = state / "serving.key", state / "serving.pem"
    key = _load_key(key_file)
    _check_belongs(certificate_file, key)
    return ServingKey(key_file, certificate_file, cose.thumbprint(key.public_key()))


def load_channel(state: Path, *, certificate: Path | None = None) -> ChannelKey:
    """The channel's key and the certificate that the verifier's client authority made for it.

    Args:
        state: the attester's state directory.
        certificate: PEM, leaf first; ``channel.pem`` in ``state`` by default.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``, ``KEY_EXPOSED`` or ``STATE_CORRUPT``.
    """
    key_file = state / "channel.key"
    key = _load_key(key_file)
    certificate_file = certificate or state / "channel.pem"
    if not certificate_file.exists():
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            "there is no certificate for the attester's channel key yet",
            where=str(certificate_file),
            hint=f"have the verifier's client authority sign {state / 'channel.csr'} and put the certificate there",
        )
    chain = _check_belongs(certificate_file, key)
    return ChannelKey(key=_key_pem(key), certificate=chain, peer=cose.thumbprint(key.public_key()))


def load_authority(path: Path) -> bytes:
    """The PEM certificates in ``path``: whom the operator lets certify the verifier's TLS key.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: ``CERT_MALFORMED``: gRPC would only say that it cannot connect.
    """
    data = read_file(path, limit=_CHAIN_MAX, what="verifier's certificate authority")
    try:
        x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise MalformedEvidence(
            Code.CERT_MALFORMED,
            "no certificate in PEM",
            where=str(path),
            hint="the verifier's operator gives out STATE/tls/ca.pem",
        ) from error
    return data


def _ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        return _load_key(path)
    key = ec.generate_private_key(ec.SECP256R1())
    write_file(path, _key_pem(key))
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    data = _read(path, limits.CERT_MAX, "TLS key")
    _check_unexposed(path)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _corrupt(path, "it holds no private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _corrupt(path, "its key is not a P-256 key")
    return key


def _check_unexposed(path: Path) -> None:
    """Require that strangers cannot use the key. A group may: the inference server can be another user."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IRWXO:
        raise EnvironmentFault(
            Code.KEY_EXPOSED,
            "key can be read or replaced by others",
            where=str(path),
            got=f"mode {mode:04o}",
            hint="make new keys: it may have been copied; if you know that it was not, chmod o= the path",
        )


def _check_belongs(path: Path, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The PEM certificates in ``path``, the first of which is for ``key``."""
    data = _read(path, _CHAIN_MAX, "TLS certificate")
    try:
        public = x509.load_pem_x509_certificates(data)[0].public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise _corrupt(path, "it holds no certificate") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or cose.spki(public) != cose.spki(key.public_key()):
        raise _corrupt(path, "its certificate is for another key")
    return data


def _read(path: Path, limit: int, what: str) -> bytes:
    try:
        return read_file(path, limit=limit, what=what)
    except MalformedEvidence as error:
        raise _corrupt(path, str(error)) from error
    except EnvironmentFault as error:
        raise EnvironmentFault(error.code, error.message, where=error.where, hint=_INIT_HINT) from error


def _corrupt(path: Path, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.STATE_CORRUPT,
        f"TLS key material cannot be used: {reason}",
        where=str(path),
        hint="move the file away and run `weighbridge-attester init` again: the verifier will see a new key",
    )


def _self_signed(key: ec.EllipticCurvePrivateKey, names: Sequence[str], at: datetime) -> bytes:
    subject = _name("weighbridge serving key")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _BACKDATE)
        .not_valid_after(at + _VALIDITY)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _request(key: ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name("weighbridge attester"))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return builder.add_extension(usage, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
