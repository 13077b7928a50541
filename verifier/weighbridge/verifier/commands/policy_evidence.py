"""Recorded evidence for the tools of policy authors: named by files and directories, looked into by several processes.

A path is a proof bundle, or a verifier's state directory. Sessions are independent of each other: each is a task.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, ExitCode, Indeterminate, LedgerInconsistent
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.commands.bundle import read_bundle
from weighbridge.verifier.commands.outcome import load_document
from weighbridge.verifier.commands.progress import Progress
from weighbridge.verifier.commands.state import deployment_class, open_store
from weighbridge.verifier.pool import Failed, run
from weighbridge.verifier.recorded import windows
from weighbridge.verifier.recorded_state import RecordedSession, chain_of, recorded_sessions, session_windows
from weighbridge.verifier.rejudged import Part, Rejudge

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from weighbridge.policy.policy_set import PolicyFiles
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Records
    from weighbridge.verifier.ledger.reader import LedgerReader
    from weighbridge.verifier.recorded import RecordedWindow
    from weighbridge.verifier.store import Store

    _Policies = Callable[[bytes], PolicyFiles]

__all__ = ["Found", "Question", "Task", "ask", "tasks_of"]

# A window with the evidence of one GPU takes some 20 kB; this only feeds a progress bar.
_WINDOW_BYTES: Final = 20_000
_GRAVEST: Final = (
    ExitCode.LEDGER_INCONSISTENT,
    ExitCode.NOT_AUTHENTIC,
    ExitCode.MALFORMED,
    ExitCode.DENIED,
    ExitCode.INDETERMINATE,
    ExitCode.ENVIRONMENT,
)
# What a state directory, or a bundle, answers that has not kept a policy.
_NOT_KEPT: Final = frozenset({Code.EVIDENCE_ABSENT, Code.BUNDLE_VERDICT})


@dataclass(frozen=True, slots=True)
class Task:
    """One session to look at.

    Attributes:
        path: of its bundle, or of the state directory that has it.
        session: where its records are; ``None`` for a bundle.
        size: its windows; of a bundle, about as many as its size tells.
    """

    path: str
    session: RecordedSession | None
    size: int

    @property
    def name(self) -> str:
        """For people."""
        return self.path if self.session is None else f"{self.path}, session {self.session.session.hex()}"


def tasks_of(paths: Sequence[str], *, since_ns: int) -> list[Task]:
    """Every session in ``paths``, the longest first; those of a state directory that ended before are left out.

    Raises:
        WeighbridgeError: a state directory is none, or is damaged.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    found: list[Task] = []
    for path in paths:
        if not Path(path).is_dir():
            size = Path(path).stat().st_size if Path(path).exists() else 0
            found.append(Task(path, None, max(1, size // _WINDOW_BYTES)))
            continue
        store = open_store(Path(path))
        try:
            with deployment_class().reading(Path(path)) as (_, reader):
                listed = recorded_sessions(store, reader)
        finally:
            store.close()
        found += [Task(path, item, item.windows) for item in listed if item.last_ns >= since_ns]
    return sorted(found, key=lambda task: -task.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of every session, in a form that can be sent to another process.

    Attributes:
        after: files of the policy to judge by.
        before: of the one to compare with; ``None`` for the recorded verdicts.
        reference: values to judge by, canonical JSON; ``None`` for those that the records name.
        anchors: whose keys are believed; beside a state directory's own.
        manifests: the declared ones that the verifier was given, JSON.
        since_ns: windows received before are passed over.
        samples: how many windows are named for each rule.
    """

    after: PolicyFiles
    before: PolicyFiles | None
    reference: bytes | None
    anchors: TrustAnchors
    manifests: tuple[bytes, ...]
    since_ns: int
    samples: int

    @contextlib.contextmanager
    def open(self) -> Generator[Callable[[Task], Iterator[Part]]]:
        """What looks at one session after the other; see :class:`weighbridge.verifier.pool.Work`."""
        with contextlib.ExitStack() as stack:
            looker = _Looker(self, stack)
            yield looker.look


@dataclass(slots=True)
class Found:
    """What was found so far.

    Attributes:
        part: of all sessions.
        failed: sessions that could not be looked at to their end.
        complete: false where somebody interrupted it.
    """

    part: Part
    failed: list[Failed[Task]]
    complete: bool = True

    @property
    def status(self) -> ExitCode:
        """That of the gravest failure; 0 where there was none."""
        codes = {item.exit_code for item in self.failed}
        return next((code for code in _GRAVEST if code in codes), ExitCode.AFFIRMED)


def ask(tasks: Sequence[Task], question: Question, *, jobs: int, shown: bool) -> Found:
    """Look at every session; what stops one does not stop the others.

    Args:
        tasks: as :func:`tasks_of` gives them.
        question: what is asked of each.
        jobs: number of processes.
        shown: whether a person at a terminal sees how far it is.
    """
    found = Found(Part.empty(question.samples), [])
    results = run(tasks, question, jobs=max(1, min(jobs, len(tasks))))
    with Progress("windows", sum(task.size for task in tasks), shown=shown) as progress:
        done: dict[Task, int] = {}
        try:
            with contextlib.closing(results):
                for result in results:
                    if isinstance(result, Failed):
                        found.failed.append(result)
                        progress.total += done.pop(result.task, 0) - result.task.size
                        continue
                    task, part = result
                    if part is None:
                        progress.total += done.pop(task, 0) - task.size
                        continue
                    found.part.merge(part)
                    done[task] = done.get(task, 0) + part.looked_at
                    progress.note = f"{found.part.tally.changes:,} would change"
                    progress.advance(part.looked_at)
        except KeyboardInterrupt:
            found.complete = False
    found.failed.sort(key=lambda item: item.task.name)
    return found


class _Looker:
    """Holds what the sessions of one process have in common."""

    def __init__(self, question: Question, stack: contextlib.ExitStack) -> None:
        self._question: Question = question
        self._stack: contextlib.ExitStack = stack
        self._states: dict[str, tuple[Records, LedgerReader, Store, TrustAnchors]] = {}
        self._own: Reference | None = None if question.reference is None else Reference.recorded(question.reference)
        self._manifests = {item.digest: item for item in map(Manifest.from_json, question.manifests)}
        self._rejudge: Rejudge = stack.enter_context(
            Rejudge(question.after, before=question.before, samples_max=question.samples)
        )

    def look(self, task: Task) -> Iterator[Part]:
        """What is found of one session."""
        found, policies = (
            self._of_bundle(task.path) if task.session is None else self._of_state(task.path, task.session)
        )
        # By other values, nobody can say what the policy that judged then says now.
        recorded = _known(policies) if self._own is None else _nothing_known
        yield from self._rejudge.parts(found, recorded=recorded, since_ns=self._question.since_ns)

    def _of_bundle(self, path: str) -> tuple[Iterable[RecordedWindow], _Policies]:
        bundle = read_bundle(path)
        return windows(bundle, anchors=self._question.anchors, reference=self._own), bundle.policy_named

    def _of_state(self, path: str, session: RecordedSession) -> tuple[Iterable[RecordedWindow], _Policies]:
        if path not in self._states:
            store = open_store(Path(path))
            self._stack.callback(store.close)
            records, reader = self._stack.enter_context(deployment_class().reading(Path(path)))
            # Whoever believes them anyway may name the verifier's keys as well.
            named = self._question.anchors
            known = {(anchor.purpose, anchor.spki) for anchor in named.anchors}
            own = load_document(Path(path) / "anchors.json").anchors
            others = [item for item in own if (item.purpose, item.spki) not in known]
            self._states[path] = records, reader, store, named.with_anchors(others)
        records, reader, store, believed = self._states[path]
        indices = chain_of(store, reader, session.session)
        chain = indices[: session.windows - (session.ending is not None)]
        found = session_windows(
            records, session, chain, anchors=believed, reference=self._own, manifests=self._manifests
        )
        return found, records.policy


def _known(policies: _Policies) -> Callable[[bytes], PolicyFiles | None]:
    """The files of a policy by its digest; ``None`` where they are not kept."""

    def files(digest: bytes) -> PolicyFiles | None:
        try:
            return policies(digest)
        except (Indeterminate, LedgerInconsistent) as error:
            if error.code not in _NOT_KEPT:
                raise
            return None

    return files


def _nothing_known(_: bytes) -> None:
    return None
