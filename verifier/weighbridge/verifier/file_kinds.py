"""What a file seems to be that is not what it was taken for: for the words of a refusal, and for no decision."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["kind_of"]

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 #]{1,60})-----")
_VKEY: Final = re.compile(rb"\s*[!-*,-~]{1,255}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{1,64}\s*")
_SCHEMA: Final = re.compile(rb'"schema"\s*:\s*"([a-z0-9/.-]{1,60})"')
_LABELS: Final = {
    b"PUBLIC KEY": "a public key",
    b"CERTIFICATE": "a certificate",
    b"CERTIFICATE REQUEST": "a request for a certificate",
    b"ENCRYPTED PRIVATE KEY": "an encrypted private key",
}
_BEGINNINGS: Final = {
    b"c2sp.org/tlog-proof@": "a proof of an entry (.tlog-proof)",
    b"\xd2": "a receipt, or another COSE_Sign1",
    b"PK\x03\x04": "a ZIP archive",
    b"\xe2\x80\x94 ": "signature lines",
}
_NOTE: Final = b"\n\n\xe2\x80\x94 "


def kind_of(data: bytes) -> str:
    """What ``data`` seems to be, such as ``a certificate``. A guess from how it begins: nothing is verified."""
    if not data:
        return "an empty file"
    return next((kind for guess in _GUESSES if (kind := guess(data))), f"{len(data)} bytes of another kind")


def _begun(data: bytes) -> str:
    return next((kind for head, kind in _BEGINNINGS.items() if data.startswith(head)), "")


def _pem(data: bytes) -> str:
    found = _PEM.search(data)
    if found is None:
        return ""
    label = found[1]
    if label.endswith(b"PRIVATE KEY") and label not in _LABELS:
        return _private(data)
    return _LABELS.get(label, f"PEM of {label.decode().lower()}")


def _private(data: bytes) -> str:
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "a private key that cannot be read"
    if isinstance(key, Ed25519PrivateKey):
        return "an Ed25519 private key"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "a P-256 private key" if isinstance(key.curve, ec.SECP256R1) else f"a private key on {key.curve.name}"
    return "a private key of another kind"


def _spelled(data: bytes) -> str:
    return "a key spelled name+keyid+base64" if _VKEY.fullmatch(data) else ""


def _note(data: bytes) -> str:
    return "a signed note, such as a checkpoint" if _NOTE in data else ""


def _json(data: bytes) -> str:
    if not data.lstrip().startswith(b"{"):
        return ""
    schema = _SCHEMA.search(data)
    return "a JSON document" if schema is None else f"a JSON document, {schema[1].decode()}"


_GUESSES: Final[tuple[Callable[[bytes], str], ...]] = (_begun, _pem, _spelled, _note, _json)
