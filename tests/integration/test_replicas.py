"""Two replicas over one PostgreSQL: any takes any window of any session, whichever is killed, and a fork is found."""

from __future__ import annotations

import json
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.replicas import ORIGIN, Fleet
from support.world import WORK
from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.verifier.deployment import Deployment
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.record import Leaf
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from pathlib import Path

    from support.postgres import Server
    from support.replicas import Attester


def test_replicas_that_are_killed_lose_nothing_and_double_nothing(postgres: Server, quick_dir: Path) -> None:
    directory = quick_dir / "killed"
    directory.mkdir()
    with Fleet(directory, postgres.database()) as fleet:
        one, other = fleet.replicas
        attesters = [fleet.attester(number) for number in range(2)]
        with fleet.load(attesters) as more:
            more(2)
            one.kill()
            more(2)
            one.start()
            one.ready()
            other.kill()
            more(2)
            # The database goes as by a loss of power, and comes back.
            postgres.stop(signal.SIGQUIT)
            postgres.start()
            more(2)
            other.start()
            other.ready()
            more(2)
        forked = attesters.pop()
        for attester in attesters:
            attester.close()
        a_fork_is_found(fleet, forked)
        assert [replica.stop() for replica in fleet.replicas] == [0, 0]
        check(fleet, attesters, forked)


def a_fork_is_found(fleet: Fleet, attester: Attester) -> None:
    """Two windows of one number, each honest by itself, reach the two replicas at once."""
    host = attester.host
    attester.cut()
    heads = host.seal(), host.seal(replace(host.observe(), work=replace(WORK, root=bytes(range(32)))))
    lines = [attester.connect(replica) for replica in fleet.replicas]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(attester.send, lines, heads))
    verdicts = [json.loads(answer.verdict) for answer in answers]
    # Taken up at both, the session has two challenges out, of which one is outstanding: the other head may be held.
    (denied,) = [verdict for verdict in verdicts if verdict["outcome"] == "denied"]
    assert [item["code"] for item in denied["denials"]] == [Code.WINDOW_FORK]
    for line in lines:
        with pytest.raises(PolicyDenied) as refused:
            fleet.loop.run(line.resume(host.session))
        assert refused.value.code is Code.SESSION_FAILED
        fleet.loop.run(line.disconnect())


def check(fleet: Fleet, closed: list[Attester], forked: Attester) -> None:
    """Each window that was sealed is in its session's chain and in the ledger, once; and nothing else is."""
    with Deployment.open(fleet.state) as opened:
        reader, store = opened.archive.ledger.reader(), opened.store
        size = reader.checkpoint.size
        assert audit(fleet.state / "ledger", opened.archive.ledger.key, ORIGIN).size == size
        leaves = [Leaf.parse(reader.entry(index)) for index in range(size)]
        with store.reading() as tx:
            assert tx.progress.settled() == size
            for attester in [*closed, forked]:
                row = tx.session(attester.host.session)
                assert row is not None
                ended = SessionState.FAILED if attester is forked else SessionState.CLOSED
                windows = attester.recorded + (attester is forked)
                assert (row.state, row.next_seq) == (ended, windows)
                assert len(tx.window_indices(row.id)) == windows
                assert set(attester.outcomes) <= {"affirmed", "held", "unheard"}
                found = Counter(leaf.seq for leaf in leaves if leaf.kind == "window" and leaf.session == row.id)
                twice = {windows - 1: 2} if attester is forked else {}
                assert found == dict.fromkeys(range(windows), 1) | twice
