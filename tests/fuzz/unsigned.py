"""What of an admitted message something signs: its content without the published list of unsigned bytes.

The list is in ``docs/protocol.md`` §14; a test reads it there. :data:`UNSIGNED` has its words, and each function
takes out exactly what they name.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Final

from weighbridge.proto import cbor, note, zstd
from weighbridge.proto.enrolment import EnrolmentProof
from weighbridge.proto.manifest import parse_manifests
from weighbridge.proto.measurement_log import parse_records
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.window import Evidence
from weighbridge.verifier.bundle import Bundle

__all__ = ["UNSIGNED", "bundle_signed", "enrolment_signed", "framed", "window_signed", "without_its_end"]

UNSIGNED: Final = {
    "window": (
        "the signature of the COSE_Sign1",
        "the signature of the quote",
        "the order of devices",
        "the order of manifests",
        "the tables of manifests",
    ),
    "enrolment proof": (
        "the signature of the quote",
        "the signature of the certification",
        "the signatures of reports",
        "the certificates of devices",
        "the digests of records in other banks",
        "the logs of the boot",
        "the order of devices",
        "the order of manifests",
        "the tables of manifests",
    ),
    "bundle": (
        "the manifests",
        "the signature lines of the checkpoint",
        "the end",
    ),
}
"""By message; each is a row of the published list."""
_P384_SIGNATURE: Final = 96


def window_signed(data: bytes) -> object:
    """The parts of a window, without what is unsigned."""
    evidence = Evidence.parse(data)
    message = evidence.signed_header()
    devices = None if evidence.gpus is None else sorted(gpu_evidence.parse(evidence.gpus), key=lambda item: item.report)
    return (
        message.protected,
        message.payload,
        _quote(evidence.quote),
        devices,
        evidence.telemetry,
        evidence.log,
        _manifests(evidence.manifests),
        evidence.runtime,
    )


def enrolment_signed(data: bytes) -> object:
    """The parts of a proof, without what is unsigned."""
    proof = EnrolmentProof.parse(data)
    devices = sorted(item.report[:-_P384_SIGNATURE] for item in gpu_evidence.parse(proof.gpus))
    plain = replace(proof, quote=b"", certify_signature=b"", gpus=b"", log=b"", manifests=b"", boot=None)
    # A digest that is there is of the record's event, and the replay needs those of the quoted bank.
    records = [(record.recnum, record.pcr, record.event) for record in parse_records(proof.log)]
    return plain, _quote(proof.quote), devices, records, _manifests(proof.manifests)


def bundle_signed(content: bytes) -> object:
    """The members of a bundle, without what is unsigned: records and ledger commit to all the others."""
    bundle = Bundle.parse(framed(content))
    return replace(bundle, checkpoint=note.parse(bundle.checkpoint).claimed_text, manifests=())


def without_its_end(bundle: object, whole: object) -> bool:
    """Whether ``bundle`` is ``whole``, what :func:`bundle_signed` made of another, perhaps without its last entries.

    What only these name is left out with them, and of requests that are shown any.
    """
    assert isinstance(bundle, Bundle)
    assert isinstance(whole, Bundle)
    named = ("policies", "references", "collaterals", "baselines", "requests")
    return bundle.entries == whole.entries[: len(bundle.entries)] and all(
        set(getattr(bundle, field.name)) <= set(getattr(whole, field.name))
        if field.name in named
        else field.name == "entries" or getattr(bundle, field.name) == getattr(whole, field.name)
        for field in fields(bundle)
    )


def framed(content: bytes) -> bytes:
    """The bundle whose frame unpacks to ``content``."""
    return cbor.encode({0: "weighbridge/v2/bundle", 1: len(content), 2: zstd.compress(content)})


def _quote(data: bytes) -> object:
    quote = QuoteEvidence.parse(data)
    return quote.attest, quote.pcr_values


def _manifests(data: bytes) -> list[bytes]:
    return sorted(manifest.digest for manifest in parse_manifests(data))
