"""Names of hosts and places to connect to, as both command lines accept them.

Strict: a name that TLS or DNS would read in another way than a person is refused here, before it is in a certificate.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["host_name", "host_port"]

# RFC 1123 §2.1: letters, digits and inner hyphens, at most 63 per label, 253 in all.
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DIGITS: Final = re.compile(r"[0-9]+")
_NAME_MAX: Final = 253
_PORT_MAX: Final = 65_535
_BRACKETED: Final = re.compile(r"\[(.*)\]")


def host_name(text: str, *, what: str) -> str:
    """``text`` if it is a DNS name (RFC 1123 §2.1, as ASCII) or an IP address.

    What is not checked: that the host exists.

    Args:
        text: from the command line.
        what: where it stands, for the message.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    if _is_address(text):
        return text
    labels = text.split(".")
    # The last label of a name is not all digits (RFC 1123 §2.1): `10.0.0.300` is a mistyped address and no name.
    if len(text) > _NAME_MAX or not all(map(_LABEL.fullmatch, labels)) or _DIGITS.fullmatch(labels[-1]):
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "neither a DNS name nor an IP address",
            where=what,
            got=text,
            clause="RFC 1123 §2.1",
            hint="names with other letters are given in their ASCII form, such as xn--mnchen-3ya.example",
        )
    return text


def host_port(text: str, *, what: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; an IPv6 address stands in brackets, which are taken off.

    Raises:
        MalformedEvidence: ``FIELD_RANGE`` or ``NOT_A_NUMBER``.
    """
    host, colon, port = text.rpartition(":")
    bracketed = _BRACKETED.fullmatch(host)
    if not colon or (":" in host and bracketed is None):
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not HOST:PORT", where=what, got=text, hint="such as 127.0.0.1:8443 or [::1]:8443"
        )
    if bracketed is not None:
        host = bracketed[1]
        if ":" not in host or not _is_address(host):
            raise MalformedEvidence(Code.FIELD_RANGE, "not an IPv6 address in the brackets", where=what, got=text)
    return host_name(host, what=what), strict.decimal(port, what=what, limit=_PORT_MAX)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    # An address with a zone (fe80::1%eth0) means something on one host only.
    return "%" not in text
