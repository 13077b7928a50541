"""Seals one window: from what was observed to the evidence that is sent. ``docs/protocol.md`` §3 to §6.

::

    header ──► on disk ──► H_k ──► GPU reports over D("gpu", H_k) ──► G_k ──► quote over D("tpm", H_k, G_k, null)
                                                                                  └──► COSE_Sign1 ──► evidence

The procedure of :meth:`Sealer.seal`:

1.  The header names the measurement log as it is now, and the records since the last window go with it.
2.  The header is written to disk, synced, before anything is signed over it.
3.  Every GPU signs a report over it, in the windows for which the terms demand one.
4.  The TPM quotes the terms' PCRs over header and reports together; of the kernel's list, where the terms demand it,
    what leads to the quoted PCR 10 is taken afterwards.
5.  If something was loaded since 1, the quoted register is not that of the header's log: back to 1 with a new header.
    The telemetry key has signed nothing yet, so no two windows of one number ever exist. If nothing was, and the
    register is not what the log leads to even so, somebody else has extended it: no verifier can take that for
    anything but a hidden load, so after another look nothing is signed, and nothing sent.
6.  The telemetry key signs the header.

Nothing here decides: what is sealed is judged elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from weighbridge.attester.boot import IMA_PCR
from weighbridge.proto import cose, limits, measurement_log
from weighbridge.proto.binding import gpu_nonce, link, window_digest
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.manifest import encode_manifests
from weighbridge.proto.manifest_diff import unlike
from weighbridge.proto.measurement_log import ModelLoad
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.tpm import attest as tpm_attest
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.window import WINDOW_TYP, Evidence, Header, Interval, audience_of, seal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from weighbridge.attester.gpu.interface import GpuSource
    from weighbridge.attester.tpm.interface import TpmDevice
    from weighbridge.proto.cc_state import CcState
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.measurement_log import Record
    from weighbridge.proto.spdm.evidence import GpuEvidence
    from weighbridge.proto.spot import SpotAnswer
    from weighbridge.proto.terms import SignedTerms
    from weighbridge.proto.tpm.evidence import QuoteEvidence
    from weighbridge.proto.workload import WorkSummary

__all__ = [
    "Carried",
    "LogView",
    "Observed",
    "RuntimeView",
    "SealedWindow",
    "Sealer",
    "quoted_value",
    "runtime_entries",
    "unexplained",
]

# A load takes longer than a window's sealing; more of them in a row means that somebody loads without end.
_ATTEMPTS: Final = 8
# A register is never what it was: looking again helps only where a record was on its way into the log.
_UNEXPLAINED_MAX: Final = 2


class LogView(Protocol):
    """What sealing reads of the measurement log; :class:`~weighbridge.attester.weights.MeasurementLog` is one."""

    @property
    def start(self) -> Mapping[HashAlgorithm, bytes]:
        """The register's value in every active bank before the first record."""
        ...

    def records(self, first: int = 0) -> tuple[Record, ...]:
        """The records from number ``first`` on, all of which are in the register."""
        ...

    def manifest(self, digest: bytes) -> Manifest:
        """The manifest that a record names."""
        ...


class RuntimeView(Protocol):
    """What sealing reads of the kernel's list; :class:`~weighbridge.attester.boot.RuntimeList` is one."""

    def since(self, offset: int, quoted: bytes, bank: HashAlgorithm) -> bytes:
        """The entries from byte ``offset`` on that lead to the ``quoted`` value of PCR 10, and none behind them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a window is about, besides the measurement log. ``challenge`` and ``prev`` are 32 bytes.

    ``telemetry`` is the encoded :class:`weighbridge.proto.telemetry.Telemetry` of window ``seq``; ``interval`` ends
    before the sealing begins and starts after the last window's quote. ``spot`` answers what came with ``challenge``.
    """

    seq: int
    prev: bytes
    challenge: bytes
    interval: Interval
    telemetry: bytes
    work: WorkSummary
    spot: SpotAnswer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedWindow:
    """A window ready to be sent. ``digest`` is ``H_k``; ``next_prev`` is what the next header must name as ``prev``."""

    seq: int
    evidence: bytes
    digest: bytes
    qualifying_data: bytes

    @property
    def next_prev(self) -> bytes:
        """``D("link", H_k, qualifyingData_k)``."""
        return link(self.digest, self.qualifying_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What an enrolment carried already: records of the log, manifests by digest, bytes of the kernel's list.

    ``reset_count`` is the TPM's, as its quotes by the session's attestation key state it.
    """

    records: int
    manifests: frozenset[bytes]
    reset_count: int
    runtime: int = 0


class _Draft(NamedTuple):
    """A window that is quoted and not signed: what steps 1 to 4 made. ``head`` and ``register`` are the log's then."""

    records: tuple[Record, ...]
    head: bytes
    register: bytes
    header: bytes
    reports: Sequence[GpuEvidence] | None
    digest: bytes
    qualifying_data: bytes
    quote: QuoteEvidence


class Sealer:
    """Seals the windows of one session. Remembers how much of the measurement log has been sent, and where it led to.

    Args:
        terms: the session's, verified.
        tpm: with the session's telemetry key in it.
        gpus: the enrolled devices; ``None`` where the terms demand none.
        log: the boot's measurement log.
        carried: what the enrolment carried of log, manifests and list.
        declared: the manifests that were declared; of another one, tables travel of files that differ from theirs.
        runtime: the kernel's list of measured files; ``None`` where the terms do not demand it.
    """

    def __init__(
        self,
        terms: SignedTerms,
        *,
        tpm: TpmDevice,
        gpus: GpuSource | None,
        log: LogView,
        carried: Carried,
        declared: tuple[Manifest, ...],
        runtime: RuntimeView | None = None,
    ) -> None:
        self._runtime = runtime
        self._runtime_sent = carried.runtime
        self._signed_terms = terms
        self._terms = terms.terms
        self._tpm = tpm
        self._gpus = gpus
        self._log = log
        self._selection = PcrSelection.of(HashAlgorithm(self._terms.bank), self._terms.pcrs)
        sent = log.records()[: carried.records]
        self._head = measurement_log.head(sent)
        self._register = self._replayed(log.start[HashAlgorithm(self._terms.bank)], sent)
        self._reset_count = carried.reset_count
        self._log_sent = carried.records
        self._manifests_sent = carried.manifests
        self._declared = declared

    def seal(self, observed: Observed, *, begin: Callable[[bytes], None]) -> SealedWindow:
        """The sealed window. Blocks for as long as GPUs and TPM take to sign.

        Args:
            observed: what the window is about.
            begin: makes the header durable; nothing is signed over it before that has returned.

        Raises:
            EnvironmentFault: a TPM or GPU code, or that of ``begin``: nothing was sealed, and the same call may be
                made again. ``BASELINE_UNEXPLAINED`` where the log's register holds what the log does not lead to:
                nothing was signed, and no later window of this boot can be.
        """
        terms = self._terms
        draft = self._settled(observed, begin)
        manifests = self._manifests(draft.records)
        entries = None
        if "runtime" in terms.evidence:
            entries = runtime_entries(self._runtime, self._runtime_sent, draft.quote, self._selection)
        # 6.
        signed = cose.sign(draft.header, kid=terms.telemetry_key, typ=WINDOW_TYP, signer=self._tpm.sign)
        evidence = Evidence(
            window=signed,
            quote=draft.quote.encode(),
            gpus=None if draft.reports is None else gpu_evidence.encode(draft.reports),
            telemetry=observed.telemetry,
            log=measurement_log.encode_records(draft.records),
            manifests=encode_manifests(manifests),
            runtime=entries,
        ).encode()
        if len(evidence) > limits.EVIDENCE_MAX:
            raise EnvironmentFault(
                Code.TOO_LARGE,
                "the window is larger than a verifier accepts",
                where=f"window {observed.seq}",
                expected=f"<= {limits.EVIDENCE_MAX} bytes",
                got=len(evidence),
                hint="sample telemetry more slowly, or load fewer models at a time",
            )
        self._log_sent += len(draft.records)
        self._head, self._register = draft.head, draft.register
        self._runtime_sent += 0 if entries is None else len(entries)
        self._manifests_sent |= {manifest.digest for manifest in manifests}
        return SealedWindow(
            seq=observed.seq, evidence=evidence, digest=draft.digest, qualifying_data=draft.qualifying_data
        )

    def _settled(self, observed: Observed, begin: Callable[[bytes], None]) -> _Draft:
        """A draft whose quoted register is that of its header's log."""
        cc_state = None if self._gpus is None else self._gpus.cc_state()
        strange = 0
        for _ in range(_ATTEMPTS):
            draft = self._draft(observed, cc_state, begin)
            # 5.
            if len(self._log.records(self._log_sent)) != len(draft.records):
                continue
            got = quoted_value(draft.quote, self._selection, self._terms.log_pcr)
            if got == draft.register:
                return draft
            strange += 1
            if strange == _UNEXPLAINED_MAX:
                raise self._strange(observed.seq, draft, got)
        raise EnvironmentFault(
            Code.TPM_FAILED,
            "models are loaded faster than a window can be sealed",
            where=f"window {observed.seq}",
            hint="load models one after the other",
        )

    def _draft(self, observed: Observed, cc_state: CcState | None, begin: Callable[[bytes], None]) -> _Draft:
        # 1.
        records = self._log.records(self._log_sent)
        head = measurement_log.head(records, after=self._head)
        header = self._header(observed, cc_state, length=self._log_sent + len(records), head=head)
        # 2.
        begin(header)
        # 3.
        digest = window_digest(header)
        reports = None
        if self._terms.gpu_due(observed.seq):
            reports = () if self._gpus is None else self._gpus.attest(gpu_nonce(digest))
        # 4.
        digest, qualifying_data = seal(header, gpu_evidence.gpus_binding(reports), None)
        quote = self._tpm.quote(self._selection, qualifying_data)
        register = self._replayed(self._register, records)
        return _Draft(records, head, register, header, reports, digest, qualifying_data, quote)

    def _replayed(self, register: bytes, records: Sequence[Record]) -> bytes:
        terms = self._terms
        return measurement_log.replay(register, records, HashAlgorithm(terms.bank), pcr=terms.log_pcr)

    def _strange(self, seq: int, draft: _Draft, got: bytes) -> EnvironmentFault:
        """Why the register is not what the log leads to."""
        if tpm_attest.parse(draft.quote.attest).clock_info.reset_count != self._reset_count:
            return EnvironmentFault(
                Code.TPM_RESET,
                "the TPM was reset during the session",
                where=f"window {seq}",
                hint="Begin a new session.",
            )
        return unexplained(self._terms.log_pcr, expected=draft.register, got=got, where=f"window {seq}")

    def _header(self, observed: Observed, cc_state: CcState | None, *, length: int, head: bytes) -> bytes:
        terms = self._terms
        return Header(
            tenant=terms.tenant,
            session=terms.session,
            audience=audience_of(terms.verifier),
            terms=self._signed_terms.digest,
            seq=observed.seq,
            prev=observed.prev,
            challenge=observed.challenge,
            interval=observed.interval,
            telemetry=sha256(observed.telemetry),
            work=observed.work,
            log_length=length,
            log_head=head,
            model=terms.model,
            telemetry_key=terms.telemetry_key,
            cnf=terms.cnf,
            peer=terms.peer,
            kem=terms.kem,
            spot=observed.spot,
            cc_state=cc_state,
        ).encode()

    def _manifests(self, records: Sequence[Record]) -> list[Manifest]:
        """The manifests that ``records`` name and that were not sent yet, each once."""
        named = dict.fromkeys(record.event.manifest for record in records if isinstance(record.event, ModelLoad))
        found = [self._log.manifest(digest) for digest in named if digest not in self._manifests_sent]
        return [manifest.telling(unlike(manifest, self._declared)) for manifest in found]


def quoted_value(quote: QuoteEvidence, selection: PcrSelection, pcr: int) -> bytes:
    """The value that comes with ``quote`` for register ``pcr`` of ``selection``, which names it and one bank."""
    _, indices = selection.one_bank()
    return quote.pcr_values[indices.index(pcr)]


def unexplained(pcr: int, *, expected: bytes, got: bytes, where: str) -> EnvironmentFault:
    """The refusal of this host to show a register that holds what its measurement log does not lead to.

    A verifier would have to take it for a load that is kept from it, and that sticks to the TPM and the GPUs.
    """
    return EnvironmentFault(
        Code.BASELINE_UNEXPLAINED,
        f"PCR {pcr} was extended, and not by the measurement log",
        where=where,
        expected=expected,
        got=got,
        hint="nothing of it was sent, and nothing is held against this host: find out what extended the register "
        "(systemd does for file systems with x-systemd.pcrfs) and keep it from that, or let the log have another one "
        "(--log-pcr, a new state directory, and the verifier's log_pcr); then reboot",
    )


def runtime_entries(runtime: RuntimeView | None, offset: int, quote: QuoteEvidence, selection: PcrSelection) -> bytes:
    """The entries of the kernel's list from ``offset`` on that lead to PCR 10 as ``quote`` has it.

    Raises:
        EnvironmentFault: ``EVIDENCE_ABSENT`` on a host without such a list, or as :meth:`RuntimeView.since`.
    """
    bank, indices = selection.one_bank()
    if runtime is None or IMA_PCR not in indices:
        raise EnvironmentFault(
            Code.EVIDENCE_ABSENT,
            "the verifier demands the kernel's list of measured files, and there is none",
            where="runtime",
            hint="boot with ima_policy=tcb on the kernel's command line; do not run with --boot-logs none",
        )
    return runtime.since(offset, quote.pcr_values[indices.index(IMA_PCR)], bank)
