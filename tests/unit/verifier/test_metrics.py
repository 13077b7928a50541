"""Figures: what is told is counted, labels are of closed sets, and the text is what Prometheus reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.world import Engines, World, requirements
from weighbridge.policy import policy_set
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.verifier.attestation_service import AttestationService
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.metrics import Metrics, Sources
from weighbridge.verifier.observed import UNOBSERVED, ObservedPolicy, Stage, timed
from weighbridge.verifier.peers import Peers
from weighbridge.verifier.quotas import Quotas
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.service import _measured
from weighbridge.verifier.service_limits import Limits
from weighbridge.verifier.session import SessionState

SECOND = 1_000_000_000


def samples(metrics: Metrics, **gauges: float) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.text({name: ("a test", value) for name, value in gauges.items()}).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def world(tmp_path: Path, engines: Engines) -> Iterator[World]:
    made = World.make(tmp_path, engines=engines)
    yield made
    made.close()


def observe(world: World, metrics: Metrics) -> None:
    """The verifier comes up again, and tells."""
    appraiser = world.appraiser
    world.verifier = Verifier(
        requirements=world.wanted,
        anchors=world.anchors,
        appraiser=appraiser,
        keys=world.keys,
        archive=world.archive,
        store=world.store,
        clock=world.clock,
        issuer="ledger.example/test",
        observer=metrics,
    )


def test_each_window_is_counted_by_what_came_of_it(world: World) -> None:
    metrics = Metrics(version="1")
    observe(world, metrics)
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"
    world.clock.advance(1)
    late = world.host.seal()
    world.clock.advance(30)
    assert world.deliver(late).verdict.held
    with pytest.raises(NotAuthentic):
        world.send(late.evidence)
    found = samples(metrics)
    windows = {labels: value for (name, labels), value in found.items() if name == "weighbridge_windows_total"}
    assert windows == {
        (("held", "false"), ("outcome", "affirmed"), ("tenant", "tenant-a")): 1,
        (("held", "true"), ("outcome", "held"), ("tenant", "tenant-a")): 1,
    }
    assert found["weighbridge_window_lateness_seconds_count", ()] == 2
    assert found["weighbridge_window_lateness_seconds_sum", ()] >= 30
    counts = {
        dict(labels)["stage"]: value for (name, labels), value in found.items() if name.endswith("stage_seconds_count")
    }
    # The engine of this world is shared, and not observed.
    assert counts == {
        "authenticate": 3, "verify": 2, "appraise": 2, "policy": 0, "turn": 2, "ledger": 2, "store": 2, "answer": 2
    }  # fmt: skip


def test_a_policys_own_codes_are_one(world: World) -> None:
    metrics = Metrics(version="1")
    codes = [Code.WINDOW_PREV.value, *(f"AUTHORS_{number}" for number in range(1000))]
    metrics.judged(tenant="a", outcome="denied", held=False, codes=codes, late_ns=None)
    for number in range(1000):
        metrics.judged(tenant=f"t{number}", outcome="denied", held=False, codes=(), late_ns=None)
    metrics.refused(Code.RATE_LIMITED)
    found = samples(metrics)
    assert found["weighbridge_denials_total", (("code", "WINDOW_PREV"),)] == 1
    assert found["weighbridge_denials_total", (("code", "POLICY_DENIED"),)] == 1000
    assert found["weighbridge_refusals_total", (("code", "RATE_LIMITED"),)] == 1
    tenants = {dict(labels)["tenant"] for (name, labels) in found if name == "weighbridge_windows_total"}
    assert len(tenants) == 257
    assert world.wanted == requirements()


def test_what_is_looked_at_is_left_out_where_it_cannot_be(world: World) -> None:
    metrics = Metrics(version="1", now_ns=lambda: 100 * SECOND)
    broken = False

    def sessions() -> dict[SessionState, int]:
        if broken:
            raise EnvironmentFault(Code.STATE_LOCKED, "a test")
        with world.store.reading() as tx:
            return tx.sessions_by_state()

    world.open_session()
    metrics.look_at(
        Sources(
            sessions=sessions,
            waiting=lambda: 2,
            entries=lambda: world.ledger.published().checkpoint.size,
            latest=90 * SECOND,
            junk=lambda: world.verifier.junk,
            ends=lambda: {"server": 3.0},
        )
    )
    found = samples(metrics, queue=3)
    assert found["weighbridge_sessions", (("state", "enrolled"),)] == 1
    assert found["weighbridge_store_sessions_waiting", ()] == 2
    assert found["weighbridge_ledger_entries", ()] == 1
    assert found["weighbridge_ledger_head_age_seconds", ()] == 10
    assert (found["weighbridge_queue", ()], found["weighbridge_junk_waiting", ()]) == (3, 0)
    assert found["weighbridge_certificate_expiry_timestamp_seconds", (("certificate", "server"),)] == 3
    assert found["weighbridge_build_info", (("version", "1"),)] == 1
    broken = True
    again = samples(metrics)
    assert ("weighbridge_sessions", (("state", "enrolled"),)) not in again
    assert ("weighbridge_ledger_entries", ()) in again


def test_histograms_add_up() -> None:
    metrics = Metrics(version="1")
    for seconds in (0.0001, 0.00011, 3.0, 1e9):
        metrics.took(Stage.VERIFY, seconds)
    found = samples(metrics)
    buckets = [
        found["weighbridge_stage_seconds_bucket", (("le", le), ("stage", "verify"))]
        for le in ("0.0001", "0.00025", "2.5", "10.0", "+Inf")
    ]
    assert buckets == [1, 2, 2, 3, 4]
    assert found["weighbridge_stage_seconds_count", (("stage", "verify"),)] == 4


def test_a_policy_is_timed_and_closed(world: World, engines: Engines) -> None:
    metrics = Metrics(version="1")
    world.prepared = ObservedPolicy(engines.load(policy_set.shipped(world.policy, reference=world.reference)), metrics)
    observe(world, metrics)
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"
    assert samples(metrics)["weighbridge_stage_seconds_count", (("stage", "policy"),)] == 1


def test_what_telling_costs() -> None:
    """All that is told of a window takes less than 20 µs; ten times that is still a pass on a busy machine."""
    metrics = Metrics(version="1")
    began, rounds = time.process_time(), 2000
    for _ in range(rounds):
        for stage in Stage:
            with timed(metrics, stage):
                pass
        metrics.judged(tenant="a", outcome="affirmed", held=False, codes=(), late_ns=SECOND)
    assert (time.process_time() - began) / rounds < 200e-6
    with timed(UNOBSERVED, Stage.VERIFY):
        pass


def test_the_documents_name_them_all(root: Path) -> None:
    metrics = Metrics(version="1")
    metrics.judged(tenant="a", outcome="denied", held=False, codes=[Code.WINDOW_PREV], late_ns=0)
    metrics.refused(Code.RATE_LIMITED)
    running = {SessionState.RUNNING: 1}
    looked_at = dict.fromkeys(("waiting", "entries", "junk"), lambda: 1)
    metrics.look_at(Sources(sessions=lambda: running, latest=0, ends=lambda: {"server": 1.0}, **looked_at))
    quotas = Quotas(Limits())
    service = AttestationService(mock.create_autospec(Verifier), Peers(RelyingParties.none()), quotas)
    text = metrics.text(_measured(service, quotas)).decode()
    made = {family.name: family for family in text_string_to_metric_families(text)}
    names = {f"{name}_total" if family.type == "counter" else name for name, family in made.items()}
    page = (root / "docs" / "metrics.md").read_text()
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `weighbridge_")}
    assert rows == {name for name in names if name.startswith("weighbridge_")}
    cells = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    assert {cell[1].strip(" `") for cell in cells if " window" in cell[2]} == {stage.value for stage in Stage}
