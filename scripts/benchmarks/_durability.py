"""What it costs to record a judgement so that a power failure cannot take it away, and to answer.

The floor is one file of the evidence's bytes, written and synced. How long a sync takes is a matter of the disk: the
number of syncs is given beside the times, so that both can be known of another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from _figures import Figure
from _timing import WARM_UP, one_after_another

from weighbridge.proto.digest import sha256
from weighbridge.verifier import result_token
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.files import PosixFiles
from weighbridge.verifier.ledger.content import ContentStore
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.record import Leaf
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.store import Issued, Store
from weighbridge.verifier.transaction import Move

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from _windows import Case, Line

__all__ = ["durability"]

_UNIT: Final = "µs"
_EVIDENCE: Final = "evidence into the content store"

_Prepare = Callable[[int], Callable[[], object]]
"""Given a number, a call that can be made once."""


def durability(label: str, line: Line, case: Case, directory: Path, *, rounds: int) -> Iterator[Figure]:
    """Each step of recording ``case`` in stores of its own under ``directory``, then whole windows of ``line``."""
    directory.mkdir()
    files = _Counting()
    floor = one_after_another(_written(case.raw, directory / "floor"), rounds=rounds).wall
    records, key = line.world.archive.records, line.world.keys.ledger
    record = records.record(line.world.ledger.size - 1)
    content = ContentStore(directory / "content", files=files)
    ledger = Ledger.create(directory / "ledger", origin="bench.example", key=key, files=files)
    store = Store.create_or_open(directory / "sessions.sqlite")
    try:
        steps = {
            _EVIDENCE: _put(content, case.raw),
            "record into the content store": _put(content, record.encode()),
            "leaf into the ledger": _append(ledger, Leaf.of(record).encode()),
            "session advanced in the database": _advance(store, case),
            "result token signed": _issue(line, case),
        }
        yield Figure(f"{label}: bare write and sync of the evidence", floor, _UNIT)
        files.syncs = 0
        for name, prepare in steps.items():
            cost = one_after_another(prepare, rounds=rounds)
            yield Figure(f"{label}: {name}", cost.wall, _UNIT, floor if name == _EVIDENCE else None)
            yield Figure(f"{label}: {name}, CPU", cost.cpu, _UNIT)
        yield Figure(f"{label}: syncs in content store and ledger", files.syncs / (rounds + WARM_UP), "syncs")
    finally:
        store.close()
        ledger.close()
    whole = one_after_another(lambda _: _next(line, case), rounds=rounds)
    yield Figure(f"{label}: judged, recorded and answered", whole.wall, _UNIT)
    yield Figure(f"{label}: judged, recorded and answered, CPU", whole.cpu, _UNIT)


@final
class _Counting:
    """The local file system, counting what has to reach the disk."""

    def __init__(self) -> None:
        self.syncs = 0
        self._files = PosixFiles()

    def write(self, path: Path, data: bytes, *, mode: int) -> None:
        self.syncs += 1
        self._files.write(path, data, mode=mode)

    def write_all(self, contents: Mapping[Path, bytes], *, mode: int, directories: Iterable[Path] = ()) -> None:
        named = tuple(directories)
        self.syncs += len(contents) + len(named)
        self._files.write_all(contents, mode=mode, directories=named)

    def extend(self, path: Path, data: bytes, *, at: int, mode: int) -> None:
        self.syncs += 1
        self._files.extend(path, data, at=at, mode=mode)

    def sync(self, path: Path) -> None:
        self.syncs += 1
        self._files.sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self._files.rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self.syncs += 1
        self._files.sync_directory(path)

    def make_directory(self, path: Path, *, mode: int) -> None:
        self._files.make_directory(path, mode=mode)

    def remove(self, path: Path) -> None:
        self._files.remove(path)


def _written(data: bytes, path: Path) -> _Prepare:
    files = PosixFiles()
    return lambda number: lambda: files.write(path.with_suffix(f".{number}"), data, mode=0o600)


def _put(content: ContentStore, data: bytes) -> _Prepare:
    # Each time something else: what is there already is not written again.
    return lambda number: lambda: content.put(data + number.to_bytes(8))


def _append(ledger: Ledger, leaf: bytes) -> _Prepare:
    return lambda _: lambda: ledger.append([leaf])


def _advance(store: Store, case: Case) -> _Prepare:
    """What a fresh window changes in the database, in one transaction."""
    terms = case.enrolled.terms
    log = LedgeredLog(0, 1, bytes(32))
    with store.transaction() as tx:
        tx.open_session(
            session=terms.session,
            tenant=terms.tenant,
            ak=terms.ak,
            gpus=terms.gpus,
            prev=_digest(0),
            enrolment_index=0,
            state=SessionState.ENROLLED,
            opened_ns=0,
        )
        tx.subjects.advance(terms.ak, head=_digest(0), log=log)

    def advance(seq: int) -> None:
        following = _digest(seq + 1)
        with store.transaction() as tx:
            move = Move(
                session=terms.session,
                ak=terms.ak,
                before=SessionState.RUNNING if seq else SessionState.ENROLLED,
                seq=seq,
                prev=_digest(seq),
                after=SessionState.RUNNING,
                head=following,
                window=following,
                index=seq + 1,
                held=False,
                received_ns=0,
                log=log,
            )
            tx.advance([move])
            tx.challenges.issue([(terms.session, Issued(seq + 1, following, following, following, 0))])

    return lambda seq: lambda: advance(seq)


def _issue(line: Line, case: Case) -> _Prepare:
    terms, decision = case.enrolled.terms, case.appraise(case.verify()).decision
    if decision is None:
        raise RuntimeError("an affirmed verdict without a decision")
    claims = result_token.Claims(
        issuer="bench.example",
        audience=terms.audience,
        session=terms.session,
        tenant=terms.tenant,
        seq=0,
        model=terms.model,
        adapters=(),
        cnf=terms.cnf,
        policy=decision.policy_digest,
        reference=decision.reference_digest,
        nonces=dict.fromkeys(decision.trust_claims, _digest(0)),
        vectors=decision.trust_claims,
        unchecked={item.check: item.reason for item in decision.unchecked},
        ledger_origin="bench.example",
        ledger_index=0,
        ledger_leaf=_digest(0),
    )
    key = line.world.keys.signing
    return lambda _: lambda: result_token.issue(claims, key, received=case.at, period_ns=terms.period_ns)


def _next(line: Line, case: Case) -> Callable[[], object]:
    sealed = line.seal_next(report=True)
    # Sealing has emptied the caches, which no host does on the verifier's machine: a busy one has just judged another.
    case.appraise(case.verify())
    return lambda: line.deliver(sealed)


def _digest(number: int) -> bytes:
    return sha256(number.to_bytes(8))
