"""Intel TDX: a quote is verified up to Intel's root, and judged by what Intel publishes.

The procedure of :func:`verify_td_quote`; it stops at the first step that fails:

1. the quote is well-formed (:mod:`weighbridge.proto.tee.td_quote`);
2. its chain is three certificates: a PCK certificate, one of the two authorities for those, and a root that signed
   itself, whose key is an anchor of purpose ``intel-sgx-root`` (:mod:`weighbridge.verifier.certs`);
3. the quoting enclave's report is signed by the PCK certificate's key;
4. it names the attestation key: its report data is the hash of that key and of the data beside it, then zeros;
5. header and body are signed by the attestation key;
6. the machine is not under debug, and has no attribute that is unknown here, lets it migrate, or binds a service
   machine to it: whoever could do that could read it;
7. there is authentic and current collateral, and nothing in the chain is revoked (:mod:`.dcap`);
8. pages that are not the machine's own do not fault into it (``SEPT_VE_DISABLE``);
9. Intel's documents admit processor, module and quoting enclave (:mod:`.qvl`). ``Revoked`` is refused; every other word
   of Intel's is a claim, :attr:`~weighbridge.verifier.tee.model.VerifiedTee.tcb_status`, and policy decides.

Left to the caller: what the report data must be, which measurement is expected, whether the machine is fresh.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, Indeterminate, NotAuthentic
from weighbridge.proto.tee.td_quote import parse_td_quote
from weighbridge.verifier import certs
from weighbridge.verifier.tee import dcap, qvl
from weighbridge.verifier.tee.model import SEAL, VerifiedTee

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.tee.td_quote import TdQuote
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = ["verify_td_quote"]

_CLAUSE: Final = "Intel TDX DCAP Quoting Library API, appendix 3"
_ATTRIBUTES_CLAUSE: Final = "Intel TDX Module ABI Specification, TD_PARAMS.ATTRIBUTES"
_LEAF: Final = "Intel SGX PCK Certificate"
_AUTHORITIES: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
_CHAIN_LENGTH: Final = 3
# Where the quoting enclave's report has its report data.
_QE_REPORT_DATA: Final = slice(320, 384)

_DEBUG: Final = 1 << 0
_SEPT_VE_DISABLE: Final = 1 << 28
# What a machine may have: LASS, PKS and KL protect it from itself, PERFMON lets it count. Everything else is refused by
# absence, bit 29 (MIGRATABLE) and the profiling bits among it.
_ALLOWED: Final = _SEPT_VE_DISABLE | 1 << 27 | 1 << 30 | 1 << 31 | 1 << 63


def verify_td_quote(quote: bytes, *, collateral: Sequence[bytes], anchors: TrustAnchors, at: datetime) -> VerifiedTee:
    """The machine that a TD quote speaks for, by the procedure in the module's docstring.

    Not proven: where the machine stands, what it runs beyond its first contents, that nobody sits on its memory bus.

    Args:
        quote: untrusted.
        collateral: pieces of kind ``dcap``, untrusted, from whoever has them.
        anchors: those of purpose ``intel-sgx-root`` are used; without one nothing is trusted.
        at: aware; validity is judged at this time.

    Raises:
        MalformedEvidence: ``TDX_QUOTE``, ``TOO_LARGE``, a code for certificates, or one of
            :func:`~weighbridge.verifier.tee.dcap.choose`.
        NotAuthentic: ``CHAIN_LENGTH``, ``CHAIN_BROKEN``, ``CHAIN_EXPIRED``, ``CHAIN_UNTRUSTED``, ``CERT_PURPOSE``,
            ``CERT_REVOKED``, ``TDX_SIG``, ``TDX_DEBUG``, ``TDX_ATTRIBUTES``, ``TDX_TCB``.
        Indeterminate: ``TDX_COLLATERAL``; absent, or past its time.
        EnvironmentFault: ``TOOL_MISSING``, where the extra ``[tdx]`` is not installed.
        ValueError: ``at`` is naive.
    """
    # 1.
    parsed = parse_td_quote(quote)
    # 2.
    chain = _verify_chain(parsed, anchors, at=at)
    # 3. to 5.
    _check_signatures(parsed, chain)
    # 6.
    _check_attributes(parsed)
    # 7.
    if not collateral:
        raise Indeterminate(
            Code.TDX_COLLATERAL,
            "the quote is authentic, but Intel's word on its processor is absent",
            where="collateral.dcap",
            hint="deliver collateral of kind dcap for this processor",
        )
    chosen = dcap.choose(collateral, chain, fmspc=qvl.processor(chain.pck), at=at)
    # 8.
    if not parsed.attributes & _SEPT_VE_DISABLE:
        raise NotAuthentic(
            Code.TDX_ATTRIBUTES,
            "the host may make the machine fault on pages that are not its own",
            where="td_quote.attributes",
            expected="SEPT_VE_DISABLE",
            got=f"{parsed.attributes:016x}",
            clause=_ATTRIBUTES_CLAUSE,
        )
    # 9.
    judged = qvl.judge(parsed.quote, chain, chosen, at=at)
    return VerifiedTee(
        kind="tdx",
        anchor=chain.anchor,
        not_after=certs.valid_until((chain.pck, chain.authority, chain.root), chain.anchor),
        report_data=parsed.report_data,
        measurement=parsed.mr_td,
        product="",
        tcb=parsed.tee_tcb_svn.hex(),
        tcb_status=judged.status,
        advisories=judged.advisories,
        revocation="good",
        smt=None,
        alias_check=None,
        vmpl=None,
        seal=SEAL,
    )


def _verify_chain(quote: TdQuote, anchors: TrustAnchors, *, at: datetime) -> dcap.PckChain:
    what = "td_quote.pck"
    chain = [
        certs.load_certificate(der, f"{what}[{number}]")
        for number, der in enumerate(certs.pem_certificates(quote.pck_chain, what=what))
    ]
    if len(chain) != _CHAIN_LENGTH:
        raise NotAuthentic(
            Code.CHAIN_LENGTH, "wrong number of certificates", where=what, expected=_CHAIN_LENGTH, got=len(chain)
        )
    trusted = anchors.select("intel-sgx-root")
    anchor = certs.verify_chain(chain, trusted, at=at, what=what)
    pck, authority, root = chain
    # The library is given this certificate as its root: it must be the anchor's own, not one that it issued.
    if certs.spki_der(root) != anchor.spki or root.subject != root.issuer:
        raise NotAuthentic(
            Code.CHAIN_UNTRUSTED,
            "the last certificate is not the anchor's own",
            where=f"{what}[2]",
            expected=anchor.name,
            got=root.subject.rfc4514_string(),
        )
    for number, certificate, names in ((0, pck, (_LEAF,)), (1, authority, _AUTHORITIES)):
        where = f"{what}[{number}]"
        if certs.common_name(certificate.subject, where) not in names:
            raise NotAuthentic(
                Code.CERT_PURPOSE,
                "the certificate has another purpose",
                where=where,
                expected=" or ".join(f"CN={name}" for name in names),
                got=certificate.subject.rfc4514_string(),
            )
    return dcap.PckChain(pck=pck, authority=authority, root=root, anchor=anchor)


def _check_signatures(quote: TdQuote, chain: dcap.PckChain) -> None:
    # 3.
    _verify(chain.pck.public_key(), quote.qe_signature, quote.qe_report, "td_quote.qe.signature")
    # 4.
    named = sha256(quote.attestation_key + quote.qe_authentication) + bytes(32)
    if not hmac.compare_digest(quote.qe_report[_QE_REPORT_DATA], named):
        raise NotAuthentic(
            Code.TDX_SIG,
            "the quoting enclave's report names another attestation key",
            where="td_quote.qe.report_data",
            expected=named,
            got=quote.qe_report[_QE_REPORT_DATA],
            clause=_CLAUSE,
        )
    # 5.
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.attestation_key)
    except ValueError as error:
        raise NotAuthentic(
            Code.TDX_SIG, "the attestation key is not a point of P-256", where="td_quote.attestation_key"
        ) from error
    _verify(key, quote.signature, quote.signed, "td_quote.signature")


def _verify(key: object, signature: bytes, data: bytes, where: str) -> None:
    try:
        dcap.verify_p256(key, signature, data)
    except InvalidSignature as error:
        raise NotAuthentic(Code.TDX_SIG, "signature does not verify", where=where, clause=_CLAUSE) from error


def _check_attributes(quote: TdQuote) -> None:
    if quote.attributes & _DEBUG:
        raise NotAuthentic(
            Code.TDX_DEBUG,
            "the machine is under debug: its host reads and writes its memory",
            where="td_quote.attributes",
            got=f"{quote.attributes:016x}",
            clause=_ATTRIBUTES_CLAUSE,
        )
    if quote.attributes & ~_ALLOWED:
        raise NotAuthentic(
            Code.TDX_ATTRIBUTES,
            "the machine has attributes that are not accepted",
            where="td_quote.attributes",
            expected=f"none but {_ALLOWED:016x}",
            got=f"{quote.attributes:016x}",
            clause=_ATTRIBUTES_CLAUSE,
        )
    if quote.mr_service_td is not None and any(quote.mr_service_td):
        raise NotAuthentic(
            Code.TDX_ATTRIBUTES,
            "a service machine is bound to the machine",
            where="td_quote.mr_service_td",
            expected=bytes(48),
            got=quote.mr_service_td,
            clause=_ATTRIBUTES_CLAUSE,
        )
