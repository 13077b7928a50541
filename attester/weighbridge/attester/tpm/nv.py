"""Certificates as TPMs store them: DER in an NV index that may be longer, or several in a row.

TCG EK Credential Profile v2.5 rev. 2 §2.2.1.4 and §2.2.1.5.2. Vendors pad with zeros or with 0xFF.
"""

from __future__ import annotations

from typing import Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["split_certificates", "trim_certificate"]

# SEQUENCE with a length of one or two bytes: no certificate is longer than limits.CERT_MAX, nor shorter than 128.
_SEQUENCE_1: Final = b"\x30\x81"
_SEQUENCE_2: Final = b"\x30\x82"


def trim_certificate(data: bytes) -> bytes:
    """The certificate at the start of ``data``, without what follows it.

    Only the outermost length is looked at; whether it is a certificate is for the verifier to say.

    Raises:
        EnvironmentFault: ``TPM_FAILED`` if ``data`` does not start with a certificate of an acceptable length.
    """
    if data.startswith(_SEQUENCE_1) and len(data) > len(_SEQUENCE_1):
        end = 3 + data[2]
    elif data.startswith(_SEQUENCE_2):
        end = 4 + int.from_bytes(data[2:4])
    else:
        raise EnvironmentFault(Code.TPM_FAILED, "TPM stores something else than a certificate", got=data[:8])
    if not end <= min(len(data), limits.CERT_MAX):
        raise EnvironmentFault(
            Code.TPM_FAILED, "certificate in the TPM is cut off", expected=f"{end} bytes", got=f"{len(data)} bytes"
        )
    return data[:end]


def split_certificates(data: bytes) -> tuple[bytes, ...]:
    """The certificates that stand one after the other in ``data``, up to the padding.

    Raises:
        EnvironmentFault: as :func:`trim_certificate`.
    """
    found: list[bytes] = []
    while data.strip(b"\0").strip(b"\xff"):
        found.append(trim_certificate(data))
        data = data[len(found[-1]) :]
    return tuple(found)
