"""Which process gets which tests: a module's tests in one of them, as its fixtures are made once for all of it.

Three differences from xdist's ``loadscope``, which deals out by numbers of tests. The corpus of refusals, more than a
minute in one piece, is shared by stages. What takes long by few tests is begun before the rest, at whose end it would
keep one process busy alone. And what mostly waits, whole processes that talk to each other, is begun early and in two
processes at most: left to the end, a demonstration runs alone for minutes, and three at once disturb each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_CORPUS: Final = "tests/conformance/test_corpus.py"
_WAITS: Final = ("tests/integration/", "tests/conformance/test_bad_environment.py")
_WAIT_AT_ONCE: Final = 2
# Half a minute in one test; ten seconds in seven; five in four and in six.
_LONG: Final = (
    "tests/conformance/test_engines_agree.py",
    "tests/unit/verifier/test_sessions_in_turn.py",
    "tests/conformance/test_baseline_document.py",
    "tests/conformance/test_spec_coverage.py",
)


class Sharing(LoadScopeScheduling):
    """Deals tests out to the processes."""

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return scope + nodeid.partition("[")[2].partition("/")[0] if scope == _CORPUS else scope

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Put what comes next in front of the queue, which is ordered by numbers of tests."""
        waiting = sum(self._has_waiting(other) for other in self.nodes if other is not node)
        if waiting < _WAIT_AT_ONCE:
            first = next((scope for scope in self.workqueue if scope.startswith(_WAITS)), None)
        else:
            others = [scope for scope in self.workqueue if not scope.startswith(_WAITS)]
            first = next((scope for scope in others if scope.startswith(_LONG)), others[0] if others else None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

    def _has_waiting(self, node: WorkerController) -> bool:
        return any(
            scope.startswith(_WAITS) and not all(done.values()) for scope, done in self.assigned_work[node].items()
        )
