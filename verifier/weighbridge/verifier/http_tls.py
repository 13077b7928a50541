"""TLS of the HTTP listener, by the files of the channel: a certificate is asked for, and nobody needs to have one."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from weighbridge.verifier.service import TlsFiles

__all__ = ["server_context"]


def server_context(tls: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or later. A certificate that is shown must be of one of the authorities, or there is no connection.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``: a file cannot be read, is not PEM, or the key is another's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    place = tls.certificate
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        for authority in (tls.client_ca, tls.relying_party_ca, *tls.attester_cas):
            if authority is not None:
                place = authority
                context.load_verify_locations(authority)
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            f"cannot use TLS material: {error.strerror or error}",
            where=str(place),
            hint="does the certificate fit its key? `weighbridge config check` says more",
        ) from error
    return context
