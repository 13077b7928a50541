"""Policies that their authors sign: nobody else's is taken, none that was replaced comes back, each is its tenant's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from corpus.bundle import Exported, export
from support.authors import ADMITS, Author, PolicyGate
from support.owners import Owner
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict

if TYPE_CHECKING:
    from corpus.arena import Arena
    from weighbridge.verifier.bundle import BundleVerdict
    from weighbridge.verifier.core import Answer

STRICT: Final = (
    ADMITS
    + b"""
deny contains d if {
	input.work.requests > 0
	d := lib.denial("POLICY_DENIED", null, "nobody is served today", null, null, null)
}
"""
)
TENANT: Final = Author("Tenant A", "tenant-a")
OTHER: Final = Author("Tenant B", "tenant-b")


def _closed(arena: Arena, *trusted: Author) -> PolicyGate:
    """A session under number 7 of a policy that admits nobody."""
    gate = PolicyGate.make(arena)
    gate.trusted.extend(trusted)
    gate.publish(gate.author.content({"gate.rego": STRICT}, number=7))
    gate.start()
    gate.world.open_session()
    return gate


def _judged(gate: PolicyGate, number: int = 7) -> Answer:
    """The next window; the verdict names revision ``number`` and the digest of its exact bytes."""
    answer = gate.world.window()
    decision = answer.verdict.decision
    assert decision is not None
    assert decision.revision is not None
    assert decision.revision.number == number
    assert decision.policy_digest in gate.world.verifier._first.appraiser.files
    assert gate.world.archive.records.record(answer.index).policy == decision.policy_digest
    return answer


def _replaced(arena: Arena, data: bytes, *trusted: Author) -> Answer:
    """The session's next window, after somebody has put ``data`` in the policy's place."""
    gate = _closed(arena, *trusted)
    gate.put(data)
    return _judged(gate)


def case_001_newer_policy_while_a_session_runs(arena: Arena) -> Answer:
    gate = PolicyGate.make(arena)
    gate.opened(gate.author.content(number=7))
    gate.publish(gate.author.content(number=8))
    return _judged(gate, 8)


def case_002_newer_policy_that_admits_nobody(arena: Arena) -> Answer:
    gate = PolicyGate.make(arena)
    gate.opened(gate.author.content(number=7))
    gate.publish(gate.author.content({"gate.rego": STRICT}, number=8))
    return _judged(gate, 8)


def case_003_unsigned_in_its_place(arena: Arena) -> Answer:
    return _replaced(arena, Author().content(number=8).encode())


def case_004_signed_by_a_stranger_in_the_authors_name(arena: Arena) -> Answer:
    mallory = Author("Mallory")
    return _replaced(arena, mallory.sign(Author().content(number=8)))


def case_005_signed_by_a_models_owner(arena: Arena) -> Answer:
    gate = _closed(arena)
    owner = Owner(gate.author.name)
    content = replace(gate.author.content(number=8), owner=owner.name)
    gate.put(owner.sign(content))  # type: ignore[arg-type] # an owner's key over an author's content
    return _judged(gate)


def case_006_older_revision_that_admits(arena: Arena) -> Answer:
    return _replaced(arena, Author().sign(Author().content(number=6)))


def case_007_another_of_the_same_number(arena: Arena) -> Answer:
    return _replaced(arena, Author().sign(Author().content(number=7)))


def case_008_another_policy_of_the_author(arena: Arena) -> Answer:
    return _replaced(arena, Author().sign(Author().content(name="laboratory", number=99)))


def case_009_everybodys_policy_by_a_tenants_author(arena: Arena) -> Answer:
    return _replaced(arena, TENANT.sign(TENANT.content(number=99)), TENANT)


def case_010_a_byte_edited(arena: Arena) -> Answer:
    strictest = STRICT.replace(b"requests > 0", b"requests > 9")
    signed = Author().sign(Author().content({"gate.rego": STRICT}, number=8))
    return _replaced(arena, signed.replace(STRICT, strictest))


def case_011_files_under_each_others_names(arena: Arena) -> Answer:
    one, other = ADMITS, b"package weighbridge.policy\n" + b"#" * (len(ADMITS) - 28) + b"\n"
    signed = Author().sign(Author().content({"a.rego": one, "b.rego": other}, number=8))
    spare = b"?" * len(one)
    return _replaced(arena, signed.replace(one, spare).replace(other, one).replace(spare, other))


def case_012_data_that_would_be_reference_values(arena: Arena) -> Answer:
    gate = PolicyGate.make(arena)
    accepting = gate.world.reference
    gate.world.reference = Reference({}, accepting.gpu_measurements, accepting.unchecked)
    data = strict.json_encode({"reference": accepting.data()})
    gate.publish(gate.author.content({"gate.rego": ADMITS, "data.json": data}))
    gate.start()
    gate.world.open_session()
    return _judged(gate, 1)


def case_013_module_in_the_librarys_package(arena: Arena) -> None:
    gate = PolicyGate.make(arena)
    more = b"package weighbridge.lib\n\nimport rego.v1\n\nalways := set()\n"
    gate.publish(gate.author.content({"gate.rego": ADMITS, "more.rego": more}))
    gate.start()


def case_014_module_in_the_reference_values(arena: Arena) -> None:
    gate = PolicyGate.make(arena)
    more = b'package reference\n\nimport rego.v1\n\nmodels := {"00": {"name": "anything"}}\n'
    gate.publish(gate.author.content({"gate.rego": ADMITS, "more.rego": more}))
    gate.start()


def case_015_older_revision_after_a_restart(arena: Arena) -> None:
    gate = _closed(arena)
    gate.publish(gate.author.content(number=6))
    gate.start()


def case_016_tenants_author_for_everybody_at_the_start(arena: Arena) -> None:
    gate = PolicyGate.make(arena)
    gate.trusted.append(TENANT)
    gate.put(TENANT.sign(TENANT.content()))
    gate.start()


def case_017_another_tenants_policy_admits(arena: Arena) -> Answer:
    gate = PolicyGate.make(arena)
    gate.trusted.append(OTHER)
    gate.publish(gate.author.content({"gate.rego": STRICT}, number=7))
    gate.start(gate.path(), gate.put(OTHER.sign(OTHER.content(tenant="tenant-b")), "b.policy"))
    gate.world.open_session()
    return _judged(gate)


def case_018_expired_while_a_session_runs(arena: Arena) -> Answer:
    gate = PolicyGate.make(arena)
    gate.opened(gate.author.content(not_after=gate.world.clock.at + timedelta(seconds=1)))
    return gate.world.window()


def case_019_proof_bundle_of_two_policies(arena: Arena) -> BundleVerdict:
    gate = PolicyGate.make(arena)
    gate.opened(gate.author.content(number=7))
    gate.publish(gate.author.content({"gate.rego": ADMITS + b"# newer\n"}, number=8))
    assert _judged(gate, 8).verdict.opens
    arena.forget()
    return Exported(arena.engines, gate.world, export(gate.world)).verify()


def case_020_proof_bundle_without_the_policy_that_refused(arena: Arena) -> BundleVerdict:
    gate = PolicyGate.make(arena)
    gate.opened(gate.author.content(number=7))
    gate.publish(gate.author.content({"gate.rego": STRICT}, number=8))
    gate.world.window()
    arena.forget()
    made = Exported(arena.engines, gate.world, export(gate.world))
    return made.verify(replace(made.bundle, policies=made.bundle.policies[:1]))
