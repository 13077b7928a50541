"""One session in memory, made from its records or brought up to them: by the procedures of when its evidence came.

From where it stood lately, if that was kept (:mod:`.kept_position`), or from its first window. What was kept is this
verifier's own word, in its own store. So :meth:`Restorer.leap` takes no more from it than what no window says:

1. It is of this session, and the last window before it is the ledger's entry that the store names for that number.
2. That window is read from the records. Header, quote and GPU reports are verified, as when it came.
3. Where it had no GPU reports, those of the last window that had some are, likewise.
4. What the measurement log and the kernel's list have gained since the enrolment is read from the windows that brought
   it, and leads to the log's head in that header and to the registers in that quote; manifests have the digests by
   which they are known.
5. The rest is taken from what was kept: what telemetry carries, how many windows were held, which spot check is owed.
   Profiles are those of the baselines that the record of that window names.

Left to the caller: that the ledger is the store's, and that what follows leads to the session's row. How windows follow
each other is not looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import binding, measurement_log
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, NotAuthentic
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.window import Evidence
from weighbridge.verifier import weights
from weighbridge.verifier.clock import moment
from weighbridge.verifier.kept_position import Sources
from weighbridge.verifier.procedure import authenticate, verify_signatures
from weighbridge.verifier.replay import RecordedBaselines, replay_enrolment, replay_telemetry, replay_window
from weighbridge.verifier.requirements import RUNTIME_PCR
from weighbridge.verifier.stood import Stood
from weighbridge.verifier.telemetry.kept import with_profiles
from weighbridge.verifier.window_claims import check_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.bench import Benches
    from weighbridge.verifier.boot.runtime import RuntimeLog
    from weighbridge.verifier.kept_position import KeptPosition
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.procedure import AuthenticWindow, Signatures, VerifiedWindow
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.session import Enrolled, Position, SessionState
    from weighbridge.verifier.store import Issued, SessionRow
    from weighbridge.verifier.telemetry.appraisal import TelemetryAppraisal
    from weighbridge.verifier.tpm.quote import VerifiedQuote
    from weighbridge.verifier.weights import LogState

__all__ = ["Live", "Restorer", "require_peer"]

# Windows whose records are asked for together, where each takes its time to come.
_AHEAD: Final = 32


@dataclass(slots=True)
class Live:
    """One session: what was proven, where its chain stands, and the challenge that is outstanding.

    ``known`` is how much of the ledger the store knew of when it was last asked about the session, ``sources`` are the
    windows of which ``position`` is made.
    """

    enrolled: Enrolled
    position: Position
    state: SessionState
    issued: Issued
    known: int = -1
    sources: Sources = field(default_factory=Sources)

    @property
    def terms(self) -> Terms:
        """The session's terms."""
        return self.enrolled.terms

    @property
    def stood(self) -> Stood:
        """Where it stands, as far as this process knows."""
        return Stood(self.state, self.position.seq, self.position.prev, self.issued.digest)


@final
class Restorer:
    """Makes sessions from the records of ``archive``."""

    def __init__(self, *, archive: Archive, benches: Benches, keys: VerifierKeys) -> None:
        self._archive = archive
        self._benches = benches
        self._keys = keys
        self._baselines = RecordedBaselines(archive.records.baselines)

    def begin(self, row: SessionRow, issued: Issued, *, peer: bytes | None) -> Live:
        """The session of ``row`` before its first window; for ``peer``, if one is given, and for nobody else.

        Raises:
            NotAuthentic: ``WINDOW_PEER``.
            WeighbridgeError: as :func:`.replay_enrolment`, and :class:`.Records`.
        """
        record = self._archive.records.record(row.enrolment_index)
        bench = self._benches.judging(row.tenant)
        replayed = replay_enrolment(
            record,
            self._archive.records.evidence(record),
            anchors=bench.anchors,
            verifier_key=self._keys.signing.public_key(),
            collateral=self._archive.records.collateral(record.collateral),
            chains=bench.chains,
        )
        # A stranger must not make us replay a long session by naming it.
        if peer is not None:
            require_peer(replayed.enrolled, peer)
        return Live(replayed.enrolled, replayed.position, row.state, issued)

    def leap(self, live: Live, kept: KeptPosition, last: int) -> None:
        """Set ``live``, which is before its first window, to where it stood when ``kept`` was: the module's procedure.

        Args:
            live: as :meth:`begin` returns it.
            kept: what the store has kept of it.
            last: the ledger's index of the window before it, as the store's list of windows has it.

        Raises:
            LedgerInconsistent: what was kept and the records do not fit together. ``live`` stands where it stood.
            WeighbridgeError: as the procedure in :mod:`.procedure`, and :class:`.Records`.
        """
        start, sources = live.position, kept.sources
        # 1.
        if (kept.session, sources.last) != (live.terms.session, last):
            raise _unfit("of another session, or behind another window", last, sources.last)
        # 2.
        record, window = self._window(live, last)
        if (record.seq, window.digest) != (kept.seq - 1, kept.window):
            raise _unfit("behind another window", kept.window, window.digest)
        signed = self._signatures(live, record, window)
        # 3.
        gpus = start.gpus if sources.reports is None else signed.gpus
        if sources.reports not in {None, last}:
            gpus = self._signatures(live, *self._window(live, sources.reports or 0)).gpus
        if gpus is None:
            raise _unfit("without the reports of its GPUs", "reports", None)
        # 4.
        grown = [self._evidence(index) for index in sources.grew if index != last]
        log = _log(start.log, [*grown, window.evidence], window, signed.quote, live.terms)
        runtime = _runtime(start.runtime, grown, window.evidence, signed.quote)
        manifests = dict(start.manifests)
        for evidence in (*grown, window.evidence):
            manifests |= weights.open_manifests(evidence.manifests)
        # 5.
        telemetry = with_profiles(kept.telemetry, kept.profiles, self._baselines.of(record).profile)
        live.position = replace(
            start,
            seq=kept.seq,
            prev=binding.link(window.digest, signed.qualifying_data),
            window=window.digest,
            quote=signed.quote,
            log=log,
            manifests=manifests,
            gpus=gpus,
            wall_end_ns=window.header.interval.wall_end_ns,
            held=kept.held,
            held_since_ns=kept.held_since_ns,
            spot_seq=kept.spot_seq,
            spot_owed=kept.spot_owed,
            runtime=runtime,
            telemetry=telemetry,
        )
        live.sources = sources

    def extend(self, live: Live, indices: Sequence[int], row: SessionRow, issued: Issued) -> None:
        """Bring ``live`` up to ``row``, by the windows at ``indices`` of the ledger, which it does not know.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``: row and records disagree. What was replayed until then stands.
            WeighbridgeError: as :meth:`replay`, and :class:`.Records`.
        """
        for number, index in enumerate(indices):
            if number % _AHEAD == 0:
                self._archive.ahead(indices[number : number + _AHEAD])
            record = self._archive.records.record(index)
            verified, physical = self.replay(live, record, self._archive.records.evidence(record))
            live.sources = live.sources.after(verified, index=index, before=live.position)
            live.position = live.position.after(verified, obliged=record.obliges_spot_check, telemetry=physical.state)
        if (live.position.seq, live.position.prev) != (row.next_seq, row.prev):
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                "the session's row and its records disagree",
                where=row.id.hex(),
                expected=row.next_seq,
            )
        live.state, live.issued = row.state, issued

    def replay(self, live: Live, record: Record, evidence: bytes) -> tuple[VerifiedWindow, TelemetryAppraisal]:
        """The next window of ``live`` from its record, verified and its samples appraised as when it arrived."""
        bench = self._benches.judging(live.terms.tenant)
        window = replay_window(
            record,
            evidence,
            enrolled=live.enrolled,
            position=live.position,
            anchors=bench.anchors,
            chains=bench.chains,
        )
        physical = replay_telemetry(
            record, window, enrolled=live.enrolled, position=live.position, baselines=self._baselines.of(record)
        )
        return window, physical

    def _window(self, live: Live, index: int) -> tuple[Record, AuthenticWindow]:
        """The window of ``live`` that is the ledger's entry ``index``: authentic, with the header of its terms."""
        record = self._archive.records.record(index)
        window = authenticate(
            self._archive.records.evidence(record), enrolled=live.enrolled, peer=live.enrolled.terms.peer
        )
        check_header(window.header, live.enrolled)
        return record, window

    def _signatures(self, live: Live, record: Record, window: AuthenticWindow) -> Signatures:
        bench = self._benches.judging(live.terms.tenant)
        return verify_signatures(
            window,
            enrolled=live.enrolled,
            anchors=bench.anchors,
            at=moment(record.received_ns),
            chains=bench.chains,
        )

    def _evidence(self, index: int) -> Evidence:
        """What a window has brought. Not authentic by itself: what is taken of it has to lead to what is signed."""
        return Evidence.parse(self._archive.records.evidence(self._archive.records.record(index)))


def _log(
    log: LogState, brought: Sequence[Evidence], window: AuthenticWindow, quote: VerifiedQuote, terms: Terms
) -> LogState:
    """The measurement log with all that these windows brought, which leads to what ``window`` and ``quote`` say."""
    *before, last = (measurement_log.parse_records(evidence.log) for evidence in brought)
    bank = HashAlgorithm(terms.bank)
    # In two steps, so that what the last window brought stays known as that.
    log = log.extended([record for records in before for record in records], bank=bank, pcr=terms.log_pcr)
    log = log.extended(last, bank=bank, pcr=terms.log_pcr)
    if (len(log.records), log.head) != (window.header.log_length, window.header.log_head):
        raise _unfit("without all of the measurement log", window.header.log_head, log.head)
    if log.register != quote.pcrs[terms.log_pcr]:
        raise _unfit("with another measurement log", quote.pcrs[terms.log_pcr], log.register)
    return log


def _runtime(
    runtime: RuntimeLog | None, grown: Sequence[Evidence], last: Evidence, quote: VerifiedQuote
) -> RuntimeLog | None:
    """The kernel's list with all that these windows brought, which leads to what ``quote`` says.

    What is ``fresh`` in it says no more than that it came since the enrolment: of a position, nobody asks.
    """
    if runtime is None:
        return None
    quoted, bank = quote.pcrs[RUNTIME_PCR], quote.bank
    brought = b"".join(evidence.runtime or b"" for evidence in (*grown, last))
    runtime = runtime.extended(brought, quoted=quoted, bank=bank)
    return runtime if last.runtime else runtime.extended(b"", quoted=quoted, bank=bank)


def _unfit(what: str, expected: object, got: object) -> LedgerInconsistent:
    return LedgerInconsistent(
        Code.LEDGER_INCONSISTENT, f"a position was kept {what}", where="position", expected=expected, got=got
    )


def require_peer(enrolled: Enrolled, peer: bytes) -> None:
    """Require that the session is that of ``peer``.

    Raises:
        NotAuthentic: ``WINDOW_PEER``.
    """
    if enrolled.terms.peer != peer:
        raise NotAuthentic(
            Code.WINDOW_PEER, "another peer's session", where="channel", expected=enrolled.terms.peer, got=peer
        )
