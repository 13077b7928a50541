"""One session in memory, made from its records or brought up to them: by the procedures of when its evidence came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.verifier.replay import RecordedBaselines, replay_enrolment, replay_telemetry, replay_window
from weighbridge.verifier.stood import Stood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.bench import Benches
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.session import Enrolled, Position, SessionState
    from weighbridge.verifier.store import Issued, SessionRow
    from weighbridge.verifier.telemetry.appraisal import TelemetryAppraisal

__all__ = ["Live", "Restorer", "require_peer"]

# Windows whose records are asked for together, where each takes its time to come.
_AHEAD: Final = 32


@dataclass(slots=True)
class Live:
    """One session: what was proven, where its chain stands, and the challenge that is outstanding.

    ``known`` is how much of the ledger the store knew of when it was last asked about the session.
    """

    enrolled: Enrolled
    position: Position
    state: SessionState
    issued: Issued
    known: int = -1

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
        replayed = replay_enrolment(
            record,
            self._archive.records.evidence(record),
            anchors=self._benches.judging(row.tenant).anchors,
            verifier_key=self._keys.signing.public_key(),
            collateral=self._archive.records.collateral(record.collateral),
        )
        # A stranger must not make us replay a long session by naming it.
        if peer is not None:
            require_peer(replayed.enrolled, peer)
        return Live(replayed.enrolled, replayed.position, row.state, issued)

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
            live.position = live.position.after(verified, obliged=record.obliges_spot_check, telemetry=physical.state)
        if (live.position.seq, live.position.prev) != (row.next_seq, row.prev):
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                "the session's row and its records disagree",
                where=row.id.hex(),
                expected=row.next_seq,
            )
        live.state = row.state
        if live.issued.digest != issued.digest:
            # Of one that is known, it is also known when its spot challenge left first.
            live.issued = issued

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


def require_peer(enrolled: Enrolled, peer: bytes) -> None:
    """Require that the session is that of ``peer``.

    Raises:
        NotAuthentic: ``WINDOW_PEER``.
    """
    if enrolled.terms.peer != peer:
        raise NotAuthentic(
            Code.WINDOW_PEER, "another peer's session", where="channel", expected=enrolled.terms.peer, got=peer
        )
