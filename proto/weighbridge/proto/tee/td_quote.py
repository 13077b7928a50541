"""One quote of an Intel TDX machine (Intel TDX DCAP Quoting Library API, appendix 3: quote versions 4 and 5).

=========== ==== ====================================================================================================
offset      size content, little-endian
=========== ==== ====================================================================================================
0           48   header: version 4 or 5, key type 2 (ECDSA P-256), TEE type 0x81, 4 bytes, vendor of the quoting
                 enclave, 20 bytes
48          6    version 5 only: type of the body, 2 (TDX 1.0) or 3 (TDX 1.5), and its size
48 or 54    584  **body**: TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM, SEAMATTRIBUTES, TD attributes, XFAM, MRTD, seven more
                 registers of 48 bytes, report data; type 3 adds TEE_TCB_SVN_2 and MR_SERVICETD
then        4    size of what follows
            64   signature over header, descriptor and body by the attestation key, r then s, big-endian
            64   the attestation key: a point of P-256
            6    type 6 and size of what follows
            384  report of the quoting enclave
            64   signature over it by the PCK certificate's key
            2+32 size, and data that the report's hash covers beside the key
            6    type 5 and size of what follows
                 PCK certificate chain, PEM, leaf first; zeros may follow
=========== ==== ====================================================================================================

Zeros after the quote are what hosts pad their buffers with: they are accepted, signed by nobody, and hashed by nothing.
Anything else there is refused. Body type 4 of version 5 is refused by absence: no sample of it was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["TdQuote", "parse_td_quote"]

_CLAUSE: Final = "Intel TDX DCAP Quoting Library API, appendix 3"
_VERSION_4: Final = 4
_VERSION_5: Final = 5
_KEY_P256: Final = 2
_TEE_TDX: Final = 0x81
_BODY_SIZES: Final = {2: 584, 3: 648}
_QE_CERTIFICATION: Final = 6
_PCK_CHAIN: Final = 5
_QE_AUTHENTICATION_SIZE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TdQuote:
    """A well-formed quote. Every field is claimed until the signatures are verified.

    Attributes:
        quote: the quote without what it was padded with.
        signed: the exact bytes under ``signature``.
        signature: r then s, big-endian, 64 bytes.
        attestation_key: x then y, big-endian, 64 bytes; whether that is a point is not checked.
        qe_report: the quoting enclave's report, 384 bytes.
        qe_signature: over ``qe_report``, r then s, 64 bytes.
        qe_authentication: 32 bytes.
        pck_chain: PEM, leaf first; not parsed here.
        tee_tcb_svn: security version numbers of the TDX module, 16 bytes.
        attributes: of the machine, a 64-bit number.
        mr_td: measurement of the machine's initial contents, 48 bytes.
        mr_service_td: hash of the service machines bound to it, 48 bytes, zero for none; ``None`` where TDX is 1.0.
        report_data: 64 bytes that the guest chose.
    """

    quote: bytes
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_signature: bytes
    qe_authentication: bytes
    pck_chain: bytes
    tee_tcb_svn: bytes
    attributes: int
    mr_td: bytes
    mr_service_td: bytes | None
    report_data: bytes


def parse_td_quote(data: bytes) -> TdQuote:
    """The quote that ``data`` is, all of it but zeros at its end.

    Signatures, certificates and what the fields say are **not** checked.

    Raises:
        MalformedEvidence: ``TOO_LARGE``; ``TDX_QUOTE`` for anything else.
    """
    if len(data) > limits.TD_QUOTE_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "the quote is too large",
            where="td_quote",
            expected=f"<= {limits.TD_QUOTE_MAX} bytes",
            got=f"{len(data)} bytes",
        )
    fields = _Fields(data, "td_quote")
    version = _header(fields)
    body = _Fields(fields.take(_body_size(fields, version)), "td_quote.body")
    signed = data[: fields.offset]
    authentication = _Fields(fields.sized(), "td_quote.authentication")
    end = fields.offset
    if data[end:].strip(b"\0"):
        raise _malformed("something other than zeros follows the quote", f"td_quote[{end}]")
    signature, key = authentication.take(64), authentication.take(64)
    certified = _Fields(authentication.typed(_QE_CERTIFICATION), "td_quote.qe")
    authentication.end()
    qe_report, qe_signature = certified.take(384), certified.take(64)
    place, size = certified.place, certified.number(2)
    if size != _QE_AUTHENTICATION_SIZE:
        raise _malformed("authentication data has the wrong size", place, _QE_AUTHENTICATION_SIZE, size)
    extra = certified.take(size)
    chain = certified.typed(_PCK_CHAIN)
    certified.end()
    tee_tcb_svn = body.take(16)
    body.take(48 + 48 + 8)
    attributes = body.number(8)
    body.take(8)
    mr_td = body.take(48)
    body.take(48 * 7)
    report_data = body.take(64)
    return TdQuote(
        quote=data[:end],
        signed=signed,
        signature=signature,
        attestation_key=key,
        qe_report=qe_report,
        qe_signature=qe_signature,
        qe_authentication=extra,
        pck_chain=chain.rstrip(b"\0"),
        tee_tcb_svn=tee_tcb_svn,
        attributes=attributes,
        mr_td=mr_td,
        mr_service_td=body.service_td(),
        report_data=report_data,
    )


class _Fields:
    """Takes little-endian fields off the front; raises ``TDX_QUOTE`` and nothing else."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self.offset = 0

    @property
    def place(self) -> str:
        """Where the next field starts."""
        return f"{self._what}[{self.offset}]"

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        left = len(self._data) - self.offset
        if size > left:
            raise _malformed("ends early", self.place, f"{size} bytes", f"{left} bytes")
        self.offset += size
        return self._data[self.offset - size : self.offset]

    def number(self, size: int) -> int:
        """An unsigned number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def sized(self) -> bytes:
        """A 32-bit size and so many bytes."""
        return self.take(self.number(4))

    def typed(self, kind: int) -> bytes:
        """A 16-bit type, which must be ``kind``, a 32-bit size and so many bytes."""
        place, got = self.place, self.number(2)
        if got != kind:
            raise _malformed("unsupported type of certification data", place, kind, got)
        return self.sized()

    def service_td(self) -> bytes | None:
        """The end of a body of TDX 1.5, ``None`` where the body ends here."""
        if self.offset == len(self._data):
            return None
        self.take(16)
        last = self.take(48)
        self.end()
        return last

    def end(self) -> None:
        """Require that nothing is left."""
        left = len(self._data) - self.offset
        if left:
            raise _malformed("bytes are left over", self.place, None, f"{left} bytes")


def _header(fields: _Fields) -> int:
    """The version, once the header is that of a TDX quote signed with P-256."""
    version, key, tee = fields.number(2), fields.number(2), fields.number(4)
    for what, known, got in (
        ("version", (_VERSION_4, _VERSION_5), version),
        ("attestation key type", (_KEY_P256,), key),
        ("TEE type", (_TEE_TDX,), tee),
    ):
        if got not in known:
            raise _malformed(f"unsupported {what}", "td_quote[0..8]", " or ".join(map(str, known)), got)
    fields.take(4 + 16 + 20)
    return version


def _body_size(fields: _Fields, version: int) -> int:
    if version == _VERSION_4:
        return _BODY_SIZES[2]
    place = fields.place
    kind, size = fields.number(2), fields.number(4)
    if _BODY_SIZES.get(kind) != size:
        raise _malformed("unsupported type or size of body", place, str(_BODY_SIZES), f"type {kind}, {size} bytes")
    return size


def _malformed(message: str, where: str, expected: object = None, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(Code.TDX_QUOTE, message, where=where, expected=expected, got=got, clause=_CLAUSE)
