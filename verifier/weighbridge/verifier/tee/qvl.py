"""The library ``dcap_qvl``, the extra ``[tdx]``: the only module that meets it (ADR 0020).

It is asked two things: which kind of processor a PCK certificate names, and what Intel's documents say of a quote: that
the quoting enclave is the one they describe, which TCB level the processor, the TDX module and the enclave reach, and
what follows from the worst of the three. Both are asked only after :mod:`.tdx` and :mod:`.dcap` have authenticated
everything that goes in. The library verifies the same signatures again, which costs a millisecond.

It does no IO here: of its functions those that fetch are not called.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime

    from cryptography import x509

    from weighbridge.verifier.tee.dcap import Chosen, PckChain

__all__ = ["Judgement", "judge", "processor"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Intel's word on a quote's TCB, such as ``UpToDate``, and the advisories that apply."""

    status: str
    advisories: tuple[str, ...]


def processor(pck: x509.Certificate) -> bytes:
    """The FMSPC that a PCK certificate names, 6 bytes. The certificate has been verified.

    Raises:
        NotAuthentic: ``CERT_PURPOSE``; the certificate names no processor.
        EnvironmentFault: ``TOOL_MISSING``.
    """
    _check_installed()
    import dcap_qvl  # noqa: PLC0415 - optional

    with _refusing(Code.CERT_PURPOSE, "the certificate is not that of a processor", "td_quote.pck[0]"):
        return dcap_qvl.parse_pck_extension_from_pem(pck.public_bytes(Encoding.PEM)).fmspc


def judge(quote: bytes, chain: PckChain, collateral: Chosen, *, at: datetime) -> Judgement:
    """What Intel's documents say of a quote that has been verified.

    Args:
        quote: without what it was padded with.
        chain: the quote's own, verified.
        collateral: authenticated and current.
        at: aware; cut to seconds.

    Raises:
        NotAuthentic: ``TDX_TCB``; revoked, below every level, or not by the enclave or the module they describe.
        EnvironmentFault: ``TOOL_MISSING``.
    """
    _check_installed()
    import dcap_qvl  # noqa: PLC0415 - optional

    documents = collateral.tcb_info, collateral.qe_identity
    info, identity = ((_pem(document.signer, chain.root), document.text, document.signature) for document in documents)
    issuers = _pem(chain.authority, chain.root)
    root = chain.root.public_bytes(Encoding.DER)
    with _refusing(Code.TDX_TCB, "Intel's documents do not admit the quote", "td_quote"):
        published = dcap_qvl.QuoteCollateralV3(issuers, collateral.root_crl, collateral.pck_crl, *info, *identity)
        report = dcap_qvl.verify_with_root_ca(quote, published, root, int(at.timestamp()))
    return Judgement(report.status, tuple(report.advisory_ids))


def _check_installed() -> None:
    if find_spec("dcap_qvl") is None:
        raise EnvironmentFault(
            Code.TOOL_MISSING,
            "the library that judges TDX quotes is not installed",
            where="dcap_qvl",
            hint="pip install 'weighbridge[tdx]'",
        )


@contextmanager
def _refusing(code: Code, message: str, where: str) -> Generator[None]:
    """Refuse what the library refuses, and what it dies of."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise NotAuthentic(code, f"{message}: {error}", where=where) from error
    except BaseException as error:
        # A panic of Rust is no Exception, and of a class that no module names.
        if type(error).__name__ != "PanicException":
            raise
        raise NotAuthentic(code, f"{message}: the library gave up", where=where, hint=str(error)) from error


def _pem(*certificates: x509.Certificate) -> str:
    return "".join(certificate.public_bytes(Encoding.PEM).decode("ascii") for certificate in certificates)
