"""GPU evidence as a window carries it: each device's report and certificate chain, and their digest ``G_k``.

Encoded as deterministic CBOR ``[[report, [certificate, … leaf first]], …]`` in any order; certificates are DER. Byte
layout: ``docs/protocol.md`` §6. A device's identity is the SHA-256 of the SubjectPublicKeyInfo in its BROM
certificate, the one that signed the leaf: fused into the chip, unlike the attestation key, which firmware derives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cbor, limits
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.x509 import load_certificate, spki_der

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GpuEvidence", "binding_rows", "chains_of", "encode", "gpus_binding", "parse", "rows_binding"]

# A leaf and the certificate that says whose it is.
_CERTS_MIN: Final = 2
_BROM: Final = 1


@dataclass(frozen=True, slots=True)
class GpuEvidence:
    """One device's evidence, verbatim: ``report`` as the device returned it, ``chain`` in DER, leaf first.

    Nothing is verified; the report is not even parsed.
    """

    report: bytes
    chain: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Refuse sizes that no device produces, before anything else looks at the bytes."""
        _bound(len(self.report), limits.GPU_REPORT_MAX, "gpu.report")
        _bound(sum(map(len, self.chain)), limits.GPU_CHAIN_MAX, "gpu.chain")
        if not _CERTS_MIN <= len(self.chain) <= limits.GPU_CHAIN_CERTS_MAX:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "wrong number of certificates",
                where="gpu.chain",
                expected=f"{_CERTS_MIN}..{limits.GPU_CHAIN_CERTS_MAX}",
                got=len(self.chain),
            )

    @property
    def claimed_identity(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo in ``chain[1]``. Proven only by verifying chain and report.

        Raises:
            MalformedEvidence: ``CERT_MALFORMED`` and what else :func:`load_certificate` raises.
        """
        return _identity_in(self.chain[_BROM])

    @property
    def chain_digest(self) -> bytes:
        """SHA-256 of the chain's DER certificates, concatenated leaf first."""
        return sha256(b"".join(self.chain))


def encode(evidence: Sequence[GpuEvidence]) -> bytes:
    """The bytes that a window carries."""
    return cbor.encode([[item.report, list(item.chain)] for item in evidence])


def parse(data: bytes) -> tuple[GpuEvidence, ...]:
    """The evidence in ``data``, in the order sent; possibly none. Reports and certificates are not parsed yet.

    Raises:
        MalformedEvidence: for any bytes that :func:`encode` would not have written, and for sizes out of bounds.
    """
    items = cbor.read_array(
        cbor.decode(data, limit=limits.EVIDENCE_MAX, what="gpus"), where="gpus", limit=limits.GPUS_MAX
    )
    return tuple(_item(item, f"gpus[{number}]") for number, item in enumerate(items))


def chains_of(evidence: Sequence[GpuEvidence]) -> tuple[bytes, ...]:
    """Each device's certificate chain as :func:`encode` writes it, in the order sent: what windows have in common."""
    return tuple(cbor.encode(list(item.chain)) for item in evidence)


def binding_rows(evidence: Sequence[GpuEvidence]) -> list[list[bytes]]:
    """``[identity, SHA-256(report), SHA-256(chain)]`` per device, sorted by identity.

    Raises:
        MalformedEvidence: as :attr:`GpuEvidence.claimed_identity`.
    """
    return sorted([item.claimed_identity, sha256(item.report), item.chain_digest] for item in evidence)


def gpus_binding(evidence: Sequence[GpuEvidence] | None) -> bytes:
    """``G_k``: the digest that the TPM quote of window k covers; ``None`` where the terms demand no report.

    The order of ``evidence`` does not matter. An empty sequence is not ``None``: it is a host that sent no device.

    Raises:
        MalformedEvidence: as :attr:`GpuEvidence.claimed_identity`.
    """
    return rows_binding(None if evidence is None else binding_rows(evidence))


def rows_binding(rows: Sequence[list[bytes]] | None) -> bytes:
    """``G_k`` from the rows of :func:`binding_rows`, or the same rows of evidence that is verified already."""
    return D("gpus", None if rows is None else [list[cbor.CborValue](row) for row in sorted(rows)])


@lru_cache(maxsize=256)
def _identity_in(certificate: bytes) -> bytes:
    """Remembered: a host seals each window under the same few certificates, and reading one takes a tenth of that."""
    return sha256(spki_der(load_certificate(certificate, "gpu.chain[1]")))


def _item(value: cbor.CborValue, where: str) -> GpuEvidence:
    report, chain = cbor.read_array(value, where=where, limit=2, size=2)
    if not isinstance(report, bytes):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"{where}[0]", expected="byte string")
    certificates: list[bytes] = []
    for item in cbor.read_array(chain, where=f"{where}[1]", limit=limits.GPU_CHAIN_CERTS_MAX):
        if not isinstance(item, bytes):
            raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"{where}[1]", expected="byte string")
        certificates.append(item)
    return GpuEvidence(report, tuple(certificates))


def _bound(size: int, limit: int, where: str) -> None:
    if size > limit:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too large", where=where, expected=f"<= {limit} bytes", got=f"{size} bytes"
        )
