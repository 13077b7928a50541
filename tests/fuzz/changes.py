"""One change for each kind of unsigned bytes (:data:`fuzz.unsigned.UNSIGNED`), made where a message has any."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from corpus.adapters import ADAPTER
from fakes.ocsp_responder import tlv
from fuzz.mutate import P384, other_signature
from support.forge import parts
from support.world import manifest
from weighbridge.proto import cbor, limits, note
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.enrolment import EnrolmentProof
from weighbridge.proto.manifest import Manifest, parse_manifests
from weighbridge.proto.measurement_log import encode_records, make_record, parse_records
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.window import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CHANGES"]

_LIMIT: Final = 16 * 1024 * 1024
_ECDSA_SHA384: Final = bytes.fromhex("300a06082a8648ce3d040303")


def _quote(data: bytes) -> bytes:
    quote = QuoteEvidence.parse(data)
    return replace(quote, signature=other_signature(quote.signature)).encode()


def _reversed(data: bytes) -> bytes:
    return gpu_evidence.encode(gpu_evidence.parse(data)[::-1])


def _other_way_round(data: bytes) -> bytes:
    manifests = cbor.decode(data, limit=_LIMIT, what="manifests")
    assert isinstance(manifests, list)
    return cbor.encode(manifests[::-1])


def _without_tables(data: bytes) -> bytes:
    manifests = cbor.decode(data, limit=_LIMIT, what="manifests")
    assert isinstance(manifests, list)
    opened = [cbor.decode(item, limit=_LIMIT, what="manifest") for item in manifests if isinstance(item, bytes)]
    return cbor.encode([cbor.encode([item[0], {}]) for item in opened if isinstance(item, list)])


def _with_tables(data: bytes) -> bytes:
    """With the tables that a host leaves out of its windows."""
    known = {model.digest: model for model in (manifest(), ADAPTER)}
    return cbor.encode([known[item.digest].pack() for item in parse_manifests(data)])


def _report(data: bytes) -> bytes:
    first, *others = gpu_evidence.parse(data)
    return gpu_evidence.encode([replace(first, report=other_signature(first.report, 48, P384)), *others])


def _chain(data: bytes) -> bytes:
    """The leaf with the other signature that its issuer might have made."""
    first, *others = gpu_evidence.parse(data)
    leaf = x509.load_der_x509_certificate(first.chain[0])
    r, s = decode_dss_signature(leaf.signature)
    signature = encode_dss_signature(r, P384 - s)
    changed = tlv(0x30, leaf.tbs_certificate_bytes, _ECDSA_SHA384, tlv(0x03, b"\0", signature))
    return gpu_evidence.encode([replace(first, chain=(changed, *first.chain[1:])), *others])


def _boot(data: bytes) -> bytes:
    """Without firmware's log: what it would have explained stays unexplained."""
    return replace(BootLogs.parse(data), firmware=None).encode()


def _in_one_bank(data: bytes) -> bytes:
    return encode_records(
        [
            make_record(record.event, recnum=record.recnum, pcr=record.pcr, algs=[HashAlgorithm.SHA256])
            for record in parse_records(data)
        ]
    )


def _of_proof(part: str, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        proof = EnrolmentProof.parse(data)
        value: bytes | None = getattr(proof, part)
        return data if value is None else replace(proof, **{part: change(value)}).encode()

    return changed


def _of_window(part: str, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        value: bytes | None = getattr(Evidence.parse(data), part)
        return data if value is None else parts(data, **{part: change(value)})

    return changed


def _of_bundle(member: int, change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        members = cbor.decode(content, limit=limits.BUNDLE_CONTENT_MAX, what="bundle")
        assert isinstance(members, dict)
        return cbor.encode({**members, member: change(members[member])})

    return changed


def _tables_of_nothing(manifests: list[bytes]) -> list[bytes]:
    """With bytes that are no tables."""
    return [cbor.encode([Manifest.unpack_head(data), {"any": b"thing"}]) for data in manifests]


def _signed_once_more(checkpoint: bytes) -> bytes:
    """With the line of somebody whom nobody knows."""
    return checkpoint + note.NoteSignature("somebody.example", bytes(4), bytes(64)).encode()


CHANGES: Final[dict[tuple[str, str], Callable[[bytes], bytes]]] = {
    ("window", "the signature of the COSE_Sign1"): _of_window("window", other_signature),
    ("window", "the signature of the quote"): _of_window("quote", _quote),
    ("window", "the order of devices"): _of_window("gpus", _reversed),
    ("window", "the order of manifests"): _of_window("manifests", _other_way_round),
    ("window", "the tables of manifests"): _of_window("manifests", _with_tables),
    ("enrolment proof", "the signature of the quote"): _of_proof("quote", _quote),
    ("enrolment proof", "the signature of the certification"): _of_proof("certify_signature", other_signature),
    ("enrolment proof", "the signatures of reports"): _of_proof("gpus", _report),
    ("enrolment proof", "the certificates of devices"): _of_proof("gpus", _chain),
    ("enrolment proof", "the digests of records in other banks"): _of_proof("log", _in_one_bank),
    ("enrolment proof", "the logs of the boot"): _of_proof("boot", _boot),
    ("enrolment proof", "the order of devices"): _of_proof("gpus", _reversed),
    ("enrolment proof", "the order of manifests"): _of_proof("manifests", _other_way_round),
    ("enrolment proof", "the tables of manifests"): _of_proof("manifests", _without_tables),
    ("bundle", "the manifests"): _of_bundle(5, _tables_of_nothing),
    ("bundle", "the signature lines of the checkpoint"): _of_bundle(1, _signed_once_more),
    ("bundle", "the end"): _of_bundle(2, lambda entries: entries[:-1]),
}
