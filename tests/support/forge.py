"""Seals windows that are wrong in one place, with every signature good: what is wrong comes before what signs it.

:func:`seal` follows :meth:`weighbridge.attester.sealing.Sealer.seal` step by step on the host's own devices, and lets a
test change what goes into the next step. The host does not notice: its chain, its log and its sealer stay where they
were, so that an honest window can follow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weighbridge.attester.sealing import Observed, SealedWindow, runtime_entries
from weighbridge.proto import binding, cbor, cose, measurement_log
from weighbridge.proto.digest import sha256
from weighbridge.proto.manifest import encode_manifests
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.window import WINDOW_TYP, Evidence, Header, Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.world import Host
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.measurement_log import Record
    from weighbridge.proto.spdm.evidence import GpuEvidence
    from weighbridge.proto.tpm.evidence import QuoteEvidence

Reports = list["GpuEvidence"] | None


@dataclass(frozen=True, kw_only=True)
class Seals:
    """What one window's digests are: ``H_k``, ``G_k`` and what the quote is to bear."""

    window: bytes
    gpus: bytes
    qualifying_data: bytes


@dataclass(frozen=True, kw_only=True)
class Forgery:
    """The steps of sealing, each with a way to change its result; what is left out is honest.

    Attributes:
        header: the claims, before they are encoded.
        claims: the header's bytes, for what no :class:`Header` can say.
        records: the records that are sent; the header's length and head follow those of the log, not these.
        manifests: the manifests that are sent.
        gpu_nonce: from ``H_k`` to the nonce that the GPUs sign.
        reports: the GPU evidence, before ``G_k``; ``None`` for none.
        qualifying_data: what the quote bears.
        selection: which PCRs are quoted.
        quote: the quote, after it was signed.
        telemetry: the bytes that are sent; the header's digest follows those that were observed.
        kid: whose signature it is said to be.
        signer: who signs the header.
    """

    header: Callable[[Header], Header] = lambda header: header
    claims: Callable[[bytes], bytes] = lambda claims: claims
    records: Callable[[tuple[Record, ...]], Sequence[Record]] = lambda records: records
    manifests: Callable[[list[Manifest]], list[Manifest]] = lambda manifests: manifests
    gpu_nonce: Callable[[bytes], bytes] = binding.gpu_nonce
    reports: Callable[[Reports], Reports] = lambda reports: reports
    qualifying_data: Callable[[Seals], bytes] = lambda seals: seals.qualifying_data
    selection: Callable[[PcrSelection], PcrSelection] = lambda selection: selection
    quote: Callable[[QuoteEvidence], QuoteEvidence] = lambda quote: quote
    telemetry: Callable[[bytes], bytes] = lambda telemetry: telemetry
    runtime: Callable[[bytes | None], bytes | None] = lambda runtime: runtime
    kid: Callable[[bytes], bytes] = lambda kid: kid
    signer: Callable[[bytes], bytes] | None = None


HONEST = Forgery()


def seal(host: Host, forgery: Forgery = HONEST, *, observed: Observed | None = None) -> SealedWindow:
    """The host's next window, as ``forgery`` would have it."""
    assert host.terms is not None
    assert host.sealer is not None
    sealer, terms, seen = host.sealer, host.terms.terms, observed or host.observe()
    records = host.log.records(sealer._log_sent)
    manifests = sealer._manifests(records)
    head = measurement_log.head(records, after=sealer._head)
    length = sealer._log_sent + len(records)
    honest = Header.parse(sealer._header(seen, host.gpus.cc_state(), length=length, head=head))
    header = forgery.claims(forgery.header(honest).encode())
    digest = binding.window_digest(header)
    due: Reports = host.gpus.attest(forgery.gpu_nonce(digest)) if terms.gpu_due(seen.seq) else None
    reports = forgery.reports(due)
    gpus = gpu_evidence.gpus_binding(reports)
    seals = Seals(window=digest, gpus=gpus, qualifying_data=binding.qualifying_data(digest, gpus, None))
    qualifying_data = forgery.qualifying_data(seals)
    selection = forgery.selection(PcrSelection.of(HashAlgorithm(terms.bank), terms.pcrs))
    quote = forgery.quote(host.tpm.quote(selection, qualifying_data))
    signed = cose.sign(
        header, kid=forgery.kid(terms.telemetry_key), typ=WINDOW_TYP, signer=forgery.signer or host.tpm.sign
    )
    evidence = Evidence(
        window=signed,
        quote=quote.encode(),
        gpus=None if reports is None else gpu_evidence.encode(reports),
        telemetry=forgery.telemetry(seen.telemetry),
        log=measurement_log.encode_records(forgery.records(records)),
        manifests=encode_manifests(forgery.manifests(manifests)),
        runtime=forgery.runtime(_runtime(host, quote)),
    ).encode()
    return SealedWindow(seq=seen.seq, evidence=evidence, digest=digest, qualifying_data=qualifying_data)


def _runtime(host: Host, quote: QuoteEvidence) -> bytes | None:
    """What an honest host would send of its kernel's list; nothing moves."""
    assert host.terms is not None
    assert host.sealer is not None
    terms, sealer = host.terms.terms, host.sealer
    if "runtime" not in terms.evidence:
        return None
    return runtime_entries(sealer._runtime, sealer._runtime_sent, quote, sealer._selection)


def claim(**changes: object) -> Forgery:
    """A header with other claims, signed, reported and quoted over as if they were true."""
    return Forgery(header=lambda header: replace(header, **changes))  # type: ignore[arg-type] # a test names claims


def interval(**changes: int) -> Forgery:
    """A header with another interval."""

    def changed(header: Header) -> Header:
        return replace(header, interval=replace(header.interval, **changes))

    return Forgery(header=changed)


def shifted(span: Interval, *, wall_ns: int = 0, tpm_ms: int = 0) -> Interval:
    """``span``, moved."""
    return Interval(
        tpm_start_ms=span.tpm_start_ms + tpm_ms,
        tpm_end_ms=span.tpm_end_ms + tpm_ms,
        wall_start_ns=span.wall_start_ns + wall_ns,
        wall_end_ns=span.wall_end_ns + wall_ns,
    )


def with_telemetry(data: bytes, observed: Observed) -> Observed:
    """What was observed, with other telemetry: the header will name its digest."""
    return replace(observed, telemetry=data)


def parts(evidence: bytes, **changes: bytes | None) -> bytes:
    """The evidence with parts exchanged: nothing is signed again."""
    return replace(Evidence.parse(evidence), **changes).encode()  # type: ignore[arg-type] # a test names parts


def header_of(evidence: bytes) -> Header:
    """The claims inside a window's evidence, unverified."""
    return Header.parse(Evidence.parse(evidence).signed_header().payload)


def resealed(evidence: bytes, header: bytes, host: Host) -> bytes:
    """The evidence with another header, signed by the host's own telemetry key; quote and reports stay."""
    assert host.terms is not None
    signed = cose.sign(header, kid=host.terms.terms.telemetry_key, typ=WINDOW_TYP, signer=host.tpm.sign)
    return parts(evidence, window=signed)


def unsigned(evidence: bytes, header: bytes) -> bytes:
    """The evidence with another header under the old signature."""
    old = Evidence.parse(evidence).signed_header()
    message = b"\xd2" + cbor.encode([old.protected, {}, header, old.signature])
    return parts(evidence, window=message)


def random_bytes(seed: str) -> bytes:
    """32 bytes that are nobody's, and the same in every run."""
    return sha256(seed.encode())
