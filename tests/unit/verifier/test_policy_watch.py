"""Policies that change while a verifier serves: a good one judges from the next window on, a bad one never."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Self
from unittest import mock

import pytest

from corpus.bundle import Exported, export
from support.authors import ADMITS, LIMITS, Author, PolicyGate
from support.owners import DAY
from support.world import manifest, requirements
from weighbridge.policy import policy_set
from weighbridge.policy.document import instant
from weighbridge.policy.engine import Decision
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, PolicyDenied, WeighbridgeError
from weighbridge.verifier import owners
from weighbridge.verifier.policy_watch import PoliciesInForce
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from corpus.arena import Arena
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.verifier.core import Answer

BUSY = {"gate.rego": LIMITS, "data.json": b'{"most": 0}'}
CALM = {"gate.rego": LIMITS, "data.json": b'{"most": 1}'}


@pytest.fixture
def gate(arena: Arena) -> PolicyGate:
    return PolicyGate.make(arena)


def codes(answer: Answer) -> list[str]:
    return [denial.code for denial in answer.verdict.denials]


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


def named(answer: Answer) -> strict.JsonObject | None:
    """The bundle that the verdict names."""
    policy = answer.verdict.document()["policy"]
    assert isinstance(policy, dict)
    bundle = policy["bundle"]
    assert bundle is None or isinstance(bundle, dict)
    return bundle


def number(answer: Answer) -> object:
    """Its number."""
    return (named(answer) or {}).get("number")


# -- from the opening to the proof bundle ------------------------------------------------------------------------------


def test_a_newer_policy_judges_from_the_next_window_on(gate: PolicyGate, arena: Arena) -> None:
    world = gate.world
    gate.opened(gate.author.content(CALM))
    path = gate.publish(gate.author.content(BUSY, number=2))
    answer = world.window()
    assert codes(answer) == ["TOO_BUSY"]
    assert named(answer) == {
        "owner": "Acme Safety",
        "name": "gate",
        "number": 2,
        "digest": sha256(path.read_bytes()).hex(),
        "tenant": None,
    }
    # Later and offline, from the file alone: each window by its own policy, both verdicts byte for byte.
    bundle = export(world)
    assert [dict(files)["data.json"] for files in bundle.policies] == [b'{"most": 1}', b'{"most": 0}']
    result = Exported(arena.engines, world, bundle).verify()
    assert [verdict.outcome for verdict in result.verdicts] == ["affirmed", "denied"]
    assert (result.same_policy, result.recorded_policy) == (True, True)
    revisions = [verdict.decision.revision for verdict in result.verdicts if verdict.decision is not None]
    assert [revision and revision.number for revision in revisions] == [1, 2]


def test_each_record_names_the_policy_and_the_state_has_its_files(gate: PolicyGate) -> None:
    world = gate.world
    gate.opened(gate.author.content(CALM))
    gate.publish(gate.author.content(number=2))
    assert world.window().verdict.opens
    with world.store.transaction() as tx:
        indices = tx.window_indices(world.host.session)
    digests = [world.archive.records.record(index).policy for index in indices]
    assert len(set(digests)) == 2
    for digest in digests:
        files = world.archive.records.policy(digest)
        assert policy_set.recorded(files, reference=Reference({}, {}, {})).digest == digest


def test_the_policies_of_a_bundle_cannot_be_exchanged(gate: PolicyGate, arena: Arena) -> None:
    """A64: an operator exports the session as if the stricter policy had never come."""
    gate.opened(gate.author.content(CALM))
    gate.publish(gate.author.content(BUSY, number=2))
    gate.world.window()
    made = Exported(arena.engines, gate.world, export(gate.world))
    first, second = made.bundle.policies
    for kept in ((first,), (second,), (first, first), ()):
        with pytest.raises(LedgerInconsistent) as refusal:
            made.verify(replace(made.bundle, policies=kept))
        assert refusal.value.code is Code.BUNDLE_VERDICT
    assert made.verify(replace(made.bundle, policies=(second, first))).denied


def test_every_running_session_is_judged_by_it(gate: PolicyGate, arena: Arena) -> None:
    world = gate.world
    gate.opened(gate.author.content(CALM))
    other = arena.another_host(world)
    world.open_session(other)
    gate.publish(gate.author.content(BUSY, number=2))
    world.clock.advance(1)
    assert codes(world.deliver(other.seal(), host=other)) == ["TOO_BUSY"]
    assert codes(world.window()) == ["TOO_BUSY"]


def test_the_engine_is_there_before_the_one_before_goes(gate: PolicyGate) -> None:
    events: list[str] = []

    class Told:
        def __init__(self, policy: PolicySet, prepared: Prepared) -> None:
            self.most, self.prepared = dict(policy.files)["data.json"].decode(), prepared
            events.append(f"load {self.most}")

        def decide(self, document: PolicyInput) -> Decision:
            return self.prepared.decide(document)

        def close(self) -> None:
            events.append(f"close {self.most}")

        def __enter__(self) -> Self:
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            self.close()

    gate.publish(gate.author.content(CALM))
    policies = gate.start(load=lambda policy: Told(policy, gate.load(policy)))
    gate.publish(gate.author.content(BUSY, number=2))
    gate.world.verifier.refresh()
    gate.world.verifier.refresh()
    policies.close()
    assert events == ['load {"most": 1}', 'load {"most": 0}', 'close {"most": 1}', 'close {"most": 0}']


# -- what is not taken -------------------------------------------------------------------------------------------------


def _edited(gate: PolicyGate) -> bytes:
    return signed(gate, BUSY, number=8).replace(b"too many", b"too  few")


def _mallory(gate: PolicyGate) -> bytes:
    return Author("Mallory").sign(gate.author.content(number=8))


def signed(gate: PolicyGate, files: dict[str, bytes] | None = None, *, number: int = 9, **changes: str) -> bytes:
    return gate.author.sign(replace(gate.author.content(files, number=number), **changes))  # type: ignore[arg-type] # a test names fields


LIBRARY = {"a.rego": b"package weighbridge.lib\n"}
WANTING = {"a.rego": ADMITS + b"\nallow := 3\n"}
BAD: dict[str, tuple[Callable[[PolicyGate], bytes], Code]] = {
    "no bundle": (lambda _: ADMITS, Code.NOT_CBOR),
    "empty": (lambda _: b"", Code.NOT_CBOR),
    "another key": (_mallory, Code.CHAIN_UNTRUSTED),
    "a byte edited": (_edited, Code.COSE_SIGNATURE),
    "an older one": (lambda gate: signed(gate, number=6), Code.POLICY_ROLLBACK),
    "another of its number": (lambda gate: signed(gate, number=7), Code.POLICY_ROLLBACK),
    "another policy": (lambda gate: signed(gate, name="x"), Code.POLICY_ROLLBACK),
    "a tenant's": (lambda gate: signed(gate, tenant="tenant-a"), Code.POLICY_ROLLBACK),
    "no Rego": (lambda gate: signed(gate, {"a.rego": b"package"}), Code.POLICY_INVALID),
    "the library": (lambda gate: signed(gate, LIBRARY), Code.POLICY_INVALID),
    "checked and found wanting": (lambda gate: signed(gate, WANTING), Code.POLICY_INVALID),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_policy_is_refused_and_the_one_before_stays(gate: PolicyGate, how: str) -> None:
    """A64: for a window already, and told once, not at every window."""
    make, code = BAD[how]
    world = gate.world
    gate.opened(gate.author.content(CALM, number=7))
    gate.put(make(gate))
    before = len(gate.lines)
    for _ in range(3):
        answer = world.window()
        assert answer.verdict.opens
        assert number(answer) == 7
    (told,) = [line for line in gate.lines[before:] if "is not taken" in line]
    assert code in told
    # A verifier that is told to begin with it does not begin, but where its operator may choose: another line.
    if how not in {"another policy", "a tenant's"}:
        assert code_of(gate.start) is code


def test_one_that_does_not_load_takes_nobody_the_way_back(gate: PolicyGate) -> None:
    gate.opened(gate.author.content(CALM, number=7))
    good = gate.path().read_bytes()
    gate.publish(gate.author.content({"a.rego": b"package"}, number=8))
    gate.world.verifier.refresh()
    gate.put(good)
    gate.start()
    gate.world.open_session()
    assert gate.world.window().verdict.opens


def test_a_verifier_remembers_what_judged(gate: PolicyGate) -> None:
    gate.opened(gate.author.content(BUSY | {"data.json": b'{"most": 9}'}, number=7))
    gate.publish(gate.author.content(number=6))
    assert code_of(gate.start) is Code.POLICY_ROLLBACK


def test_a_file_that_is_gone_changes_nothing(gate: PolicyGate) -> None:
    gate.opened()
    gate.path().unlink()
    assert gate.world.window().verdict.opens
    assert "is not taken" in "".join(gate.lines)
    assert code_of(gate.start) is Code.FILE_UNREADABLE


def test_one_that_was_refused_may_be_taken_when_asked_again(gate: PolicyGate) -> None:
    """SIGHUP: after the machine had no time for it."""
    world, slow = gate.world, True

    def load(policy: PolicySet) -> Prepared:
        if slow and b'"most": 0' in dict(policy.files).get("data.json", b""):
            raise PolicyDenied(Code.POLICY_INVALID, "the policy does not load: no answer after 5.0 s")
        return gate.load(policy)

    gate.publish(gate.author.content(CALM))
    gate.start(load=load)
    world.open_session()
    gate.publish(gate.author.content(BUSY, number=2))
    assert world.window().verdict.opens
    slow = False
    assert world.window().verdict.opens
    watch = world.verifier._first._renewal
    assert watch is not None
    watch.ask()  # type: ignore[attr-defined] # what serve calls
    assert codes(world.window()) == ["TOO_BUSY"]


# -- validity ----------------------------------------------------------------------------------------------------------


def test_an_expired_policy_judges_nothing_and_nobody_is_to_blame(gate: PolicyGate) -> None:
    world = gate.world
    gate.opened(gate.author.content(CALM, not_after=world.clock.at + timedelta(seconds=1)))
    world.clock.advance(1)
    sealed = world.host.seal()
    size = world.ledger.size
    with pytest.raises(EnvironmentFault) as refusal:
        world.send(sealed.evidence)
    assert refusal.value.code is Code.POLICY_EXPIRED
    assert (world.ledger.size, gate.state()) == (size, SessionState.RUNNING)
    # The same window is judged by the author's next one.
    gate.publish(gate.author.content(CALM, number=2))
    assert world.deliver(sealed).verdict.opens


def test_a_policy_that_is_not_valid_yet_judges_nothing_yet(gate: PolicyGate) -> None:
    world = gate.world
    gate.publish(gate.author.content(not_before=world.clock.at + DAY))
    gate.start()
    assert "NOT VALID NOW" in gate.lines[-1]
    world.open_session()
    assert code_of(world.window) is Code.POLICY_EXPIRED


def test_invariants_need_no_policy(gate: PolicyGate) -> None:
    """A window that no policy could admit fails its session, be there one in force or not."""
    world = gate.world
    gate.opened(gate.author.content(not_after=world.clock.at + timedelta(seconds=1)))
    world.host.log.load(manifest("other", weights=b"other"))
    assert Code.MODEL_UNDECLARED in codes(world.window())
    assert gate.state() is SessionState.FAILED


# -- this machine ------------------------------------------------------------------------------------------------------


def test_while_the_store_is_at_fault_nothing_is_judged(gate: PolicyGate) -> None:
    world = gate.world
    gate.opened(gate.author.content(CALM))
    gate.publish(gate.author.content(BUSY, number=2))
    world.clock.advance(1)
    sealed = world.host.seal()
    fault = EnvironmentFault(Code.DISK_FULL, "no space left")
    with mock.patch.object(owners.Owners, "see", side_effect=fault):
        for _ in range(2):
            assert code_of(lambda: world.send(sealed.evidence)) is Code.DISK_FULL
    assert codes(world.deliver(sealed)) == ["TOO_BUSY"]


def test_other_reference_values_reach_the_same_policy(gate: PolicyGate) -> None:
    """The engine is loaded anew for them, and only for them."""
    world = gate.world
    policies = gate.opened(gate.author.content(CALM))
    before, same = policies.in_force, Reference(world.reference.models, world.reference.gpu_measurements, {})
    assert policies.renew(world.reference, world.clock.at, asked=True) is before
    after = policies.renew(same, world.clock.at, asked=False)
    assert after is not before
    found = after.of("anybody")
    assert (found.policy.reference, found.bundle) == (same, before.of("anybody").bundle)
    assert found.policy.digest == before.of("anybody").policy.digest


# -- tenants -----------------------------------------------------------------------------------------------------------

TENANT = Author("Tenant A", "tenant-a")
TELLS = b"""package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

deny contains d if {
	seen := concat(",", [key | some key, _ in data.author])
	d := lib.denial("SEEN", null, concat(" ", [input.session.tenant, seen]), null, null, null)
}
"""
"""Denies everything, with whose session it was and which data the policy saw."""


def two_tenants(gate: PolicyGate, *, others: bool = True, load: Callable[[PolicySet], Prepared] | None = None) -> None:
    """Tenant A writes its own policy; the relying party wrote one for everybody else."""
    gate.trusted.append(TENANT)
    paths = [gate.put(TENANT.sign(TENANT.content(BUSY, tenant="tenant-a")), "a.policy")]
    if others:
        paths.append(gate.publish(gate.author.content(CALM)))
    gate.start(*paths, load=load)


def serve(gate: PolicyGate, tenant: str) -> None:
    """The verifier demands another tenant's sessions, over the same stores and by the same policies."""
    world = gate.world
    watch, appraiser = world.verifier._first._renewal, world.verifier._first.appraiser
    assert watch is not None
    world.wanted, world.host.tenant = requirements(tenant=tenant), tenant
    world.restart(appraiser).follow(watch)
    world.open_session()


def test_each_tenants_sessions_are_judged_by_its_own_policy(gate: PolicyGate) -> None:
    two_tenants(gate)
    serve(gate, "tenant-b")
    answer = gate.world.window()
    assert answer.verdict.opens
    assert (named(answer) or {"tenant": "nobody's"})["tenant"] is None
    serve(gate, "tenant-a")
    answer = gate.world.window()
    assert codes(answer) == ["TOO_BUSY"]


def test_a_tenants_new_policy_leaves_the_others_alone(gate: PolicyGate) -> None:
    two_tenants(gate)
    gate.put(TENANT.sign(TENANT.content({"gate.rego": TELLS}, tenant="tenant-a", number=2)), "a.policy")
    loaded = len(gate.loaded)
    serve(gate, "tenant-b")
    assert gate.world.window().verdict.opens
    # One engine was loaded, tenant A's; the other one went on.
    assert len(gate.loaded) == loaded + 1
    serve(gate, "tenant-a")
    assert codes(gate.world.window()) == ["SEEN"]


def test_a_tenant_that_is_not_served_is_told_of(gate: PolicyGate) -> None:
    """Names are compared as they are: of a bundle for ``Tenant-A`` nobody else would say that it judges nothing."""
    two_tenants(gate)
    in_force = gate.world.verifier._first.appraiser.policy
    assert isinstance(in_force, PoliciesInForce)
    assert in_force.besides("tenant-a") == ()
    assert in_force.besides("Tenant-A") == in_force.besides("") == ("tenant-a",)
    assert in_force.of("Tenant-A") is in_force.of("tenant-b")
    assert in_force.of("Tenant-A") is not in_force.of("tenant-a")


def test_without_a_policy_for_all_others_nothing_of_theirs_is_judged(gate: PolicyGate) -> None:
    two_tenants(gate, others=False)
    serve(gate, "tenant-b")
    assert code_of(gate.world.window) is Code.POLICY_ABSENT
    assert gate.state() is SessionState.ENROLLED


def test_an_engine_sees_its_own_tenants_windows_and_data_only(gate: PolicyGate) -> None:
    """In processes of their own: nothing that one of them remembers is there for another."""
    seen: dict[str, list[str]] = {}

    class Watched:
        def __init__(self, policy: PolicySet) -> None:
            self.prepared = RegorusEngine().load(policy)
            self.data = "" if policy.data is None else policy.data.text.decode()

        def decide(self, document: PolicyInput) -> Decision:
            seen.setdefault(self.data, []).append(document.session.tenant)
            return self.prepared.decide(document)

        def close(self) -> None:
            self.prepared.close()

        def __enter__(self) -> Self:
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            self.close()

    made: list[Watched] = []

    def load(policy: PolicySet) -> Prepared:
        made.append(Watched(policy))
        return made[-1]

    gate.trusted.append(TENANT)
    own = {"gate.rego": TELLS, "data.json": b'{"ours": 1}'}
    theirs = {"gate.rego": TELLS, "data.json": b'{"theirs": 1}'}
    gate.start(
        gate.put(TENANT.sign(TENANT.content(theirs, tenant="tenant-a")), "a.policy"),
        gate.publish(gate.author.content(own)),
        load=load,
    )
    told = []
    for tenant in ("tenant-b", "tenant-a"):
        gate.world.host = gate.world.another_host(tenant)
        serve(gate, tenant)
        told.append(gate.world.window().verdict.denials[0].message)
    assert told == ["tenant-b ours", "tenant-a theirs"]
    assert seen == {'{"ours": 1}': ["tenant-b"], '{"theirs": 1}': ["tenant-a"]}
    assert len(made) == 2
    for item in made:
        item.close()


def test_windows_asked_about_together_are_each_their_own_policys(gate: PolicyGate) -> None:
    """Tenant A's, everybody else's, one that no policy is for, one that comes when its policy is not valid any more."""
    two_tenants(gate)
    in_force, decide = gate.world.verifier._first.appraiser.policy, PoliciesInForce.decide
    assert isinstance(in_force, PoliciesInForce)
    asked: list[PolicyInput] = []

    def noted(policies: PoliciesInForce, document: PolicyInput) -> Decision:
        asked.append(document)
        return decide(policies, document)

    with mock.patch.object(PoliciesInForce, "decide", noted):
        for tenant in ("tenant-a", "tenant-b"):
            gate.world.host = gate.world.another_host(tenant)
            serve(gate, tenant)
            gate.world.window()
    ours, theirs = asked
    at, ns = instant(gate.world.clock.at + 4000 * DAY)
    late = replace(ours, received_at=at, received_ns=ns)
    first, second, expired, again = in_force.decide_all([ours, theirs, late, ours])
    assert [first, second] == [in_force.decide(ours), in_force.decide(theirs)]
    assert isinstance(first, Decision)
    assert isinstance(second, Decision)
    assert (first.outcome, second.outcome, again) == ("deny", "allow", first)
    assert isinstance(expired, EnvironmentFault)
    assert expired.code is Code.POLICY_EXPIRED
    alone = PoliciesInForce({"tenant-a": in_force.of("tenant-a")})
    absent, same = alone.decide_all([theirs, ours])
    assert isinstance(absent, EnvironmentFault)
    assert (absent.code, same) == (Code.POLICY_ABSENT, first)


@pytest.mark.parametrize(
    "package",
    ["weighbridge.lib", "weighbridge.policy.gate", "reference", "author", "weighbridge.reference", "weighbridge"],
)
def test_a_bundle_writes_to_no_package_but_its_own(gate: PolicyGate, package: str) -> None:
    """Neither the reference values nor the library nor another tenant's rules."""
    extra = f"package {package}\n\nimport rego.v1\n\nmodels := {{}}\n".encode()
    gate.publish(gate.author.content({"gate.rego": ADMITS, "more.rego": extra}))
    assert code_of(gate.start) is Code.POLICY_INVALID


def test_a_bundles_data_are_not_the_reference_values(gate: PolicyGate) -> None:
    """Whatever it calls itself: rules read it as ``data.author``, and the library reads ``data.reference``."""
    world = gate.world
    ours = world.reference
    world.reference = Reference({}, ours.gpu_measurements, ours.unchecked)
    data = strict.json_encode({"reference": ours.data(), "author": {}, "weighbridge": {"lib": {}}})
    gate.publish(gate.author.content({"gate.rego": ADMITS, "data.json": data}))
    gate.start()
    world.open_session()
    assert Code.REFERENCE_ABSENT in codes(world.window())


def test_two_policies_for_one_tenant(gate: PolicyGate) -> None:
    gate.publish(gate.author.content())
    other = gate.publish(gate.author.content(name="other"), "other.policy")
    assert code_of(lambda: gate.start(gate.path(), other)) is Code.DUPLICATE_KEY
    gate.own = policy_set.shipped("production", reference=Reference({}, {}, {}))
    assert code_of(gate.start) is Code.DUPLICATE_KEY


def test_a_policy_given_outright_is_everybodys_and_in_no_bundle(gate: PolicyGate) -> None:
    gate.trusted.append(TENANT)
    gate.own = policy_set.shipped("insecure_development", reference=Reference({}, {}, {}))
    gate.start(gate.put(TENANT.sign(TENANT.content(BUSY, tenant="tenant-a")), "a.policy"))
    serve(gate, "tenant-b")
    answer = gate.world.window()
    assert (answer.verdict.opens, named(answer)) == (True, None)


def test_policies_in_force_are_closed_by_their_watch_alone(gate: PolicyGate) -> None:
    policies = gate.opened()
    with policies.in_force as open_ones:
        open_ones.close()
    assert gate.world.window().verdict.opens
