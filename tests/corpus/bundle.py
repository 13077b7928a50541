"""The proof bundle: what a tenant can check years later, and what an operator must not be able to hide in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from corpus.policy import genuine
from corpus.weights import OTHER
from fakes.ocsp_responder import DAY, Order, RevocableVendor
from support.forge import claim, random_bytes, seal
from support.world import NOON
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.policy import policy_set
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier import anchors as default_anchors
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.bundle import Bundle, BundleVerdict, assemble, ending, verify
from weighbridge.verifier.bundle_assembly import redact
from weighbridge.verifier.bundle_format import ShownRequest
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.ledger.reader import LedgerReader
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST, Record
from weighbridge.verifier.recorded_state import chain_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from datetime import datetime
    from types import TracebackType

    from corpus.arena import Arena
    from support.world import Engines, World
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, Prepared
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle import Entry


SALT = bytes(range(32))
"""Some tenant's."""


def believed(world: World) -> TrustAnchors:
    """The anchors of a relying party that trusts this verifier and the roots it trusts."""
    origin = "ledger.example/test"
    span = world.anchors.anchors[0]
    own = world.keys.anchors(
        name="the verifier", origin=origin, platform="test", not_before=span.not_before, not_after=span.not_after
    )
    return world.anchors.with_anchors(own)


def export(
    world: World,
    *,
    session: bytes | None = None,
    indices: Sequence[int] | None = None,
    withhold: Container[int] = frozenset(),
) -> Bundle:
    """The bundle of a session, the host's unless another one is named, as the operator writes it now.

    ``indices`` are put in the place of the ledger indices that it would have; of ``withhold`` it shows the leaves.
    """
    reader, recorded = indices_of(world, session or world.host.session)
    return assemble(
        world.archive.records,
        reader,
        indices or recorded,
        manifests=list(world.models.values()),
        withhold=withhold,
    )


def indices_of(world: World, session: bytes) -> tuple[LedgerReader, list[int]]:
    """The world's ledger, and where in it the judgements of ``session`` are."""
    with world.store.transaction() as tx:
        row = tx.session(session)
    assert row is not None
    reader = LedgerReader.open(world.directory / "ledger", key=world.ledger.key, origin=world.ledger.key.name)
    windows = chain_of(world.store, reader, session)
    chain = (row.enrolment_index, *windows)
    return reader, [*chain, *ending(reader, session, after=chain[-1], seq=len(windows))]


def redacted(
    world: World, *, session: bytes | None = None, salt: bytes = SALT, withhold: Container[int] = frozenset()
) -> Bundle:
    """The redacted bundle of a session, as :func:`export` names it; of ``withhold`` it says nothing."""
    reader, indices = indices_of(world, session or world.host.session)
    return redact(
        world.archive.records,
        reader,
        indices,
        salt=salt,
        issued_ns=nanoseconds(world.clock.at),
        kid=world.keys.thumbprint,
        signer=world.keys.sign,
        withhold=withhold,
    )


@dataclass(frozen=True)
class Exported:
    """A session's bundle and the world that it is from."""

    engines: Engines
    world: World
    bundle: Bundle

    def verify(
        self,
        bundle: Bundle | None = None,
        *,
        anchors: TrustAnchors | None = None,
        policy: policy_set.Shipped | None = None,
        published: Published | None = None,
        at: datetime | None = None,
    ) -> BundleVerdict:
        """As a relying party does, from the file's bytes; by what was recorded unless it has its own."""
        parsed = Bundle.parse((bundle or self.bundle).encode())

        def appraiser(bundle: Bundle, recorded: bytes, judged: bytes) -> Appraiser:
            reference = bundle.reference_named(recorded)
            files = () if policy is not None or judged == NO_DIGEST else bundle.policy_named(judged)
            recorded_policy = policy_set.recorded(files, reference=reference) if files else None
            chosen = recorded_policy or policy_set.shipped(policy or self.world.policy, reference=reference)
            return Appraiser(self.engines.load(chosen), reference, manifests, published or Published.nothing())

        manifests = {made.digest: made for made in map(Manifest.unpack, parsed.manifests)}
        result = verify(parsed, anchors=anchors or believed(self.world), appraiser=appraiser, at=at)
        result.require_recorded(policy=policy is None, reference=True)
        return result


def exported(arena: Arena, windows: int = 3) -> Exported:
    """A closed session of good windows, exported."""
    world = arena.settled(windows)
    arena.forget()
    return Exported(arena.engines, world, export(world))


def _with(bundle: Bundle, entries: Sequence[Entry]) -> Bundle:
    return replace(bundle, entries=tuple(entries))


def _edited(entry: Entry, **changes: object) -> Entry:
    record = replace(Record.parse(entry.record), **changes)  # type: ignore[arg-type] # a test names fields
    return replace(entry, record=record.encode())


def case_001_good(arena: Arena) -> BundleVerdict:
    return exported(arena).verify()


def case_002_default_anchors(arena: Arena) -> BundleVerdict:
    return exported(arena).verify(anchors=default_anchors.default())


def case_003_under_the_production_policy(arena: Arena) -> BundleVerdict:
    return exported(arena).verify(policy="production")


def case_004_window_dropped(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    enrolment, first, _, third = made.bundle.entries
    return made.verify(_with(made.bundle, [enrolment, first, third]))


def case_005_windows_exchanged(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    enrolment, first, second, third = made.bundle.entries
    return made.verify(_with(made.bundle, [enrolment, second, first, third]))


def case_006_enrolment_left_out(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    return made.verify(_with(made.bundle, made.bundle.entries[1:]))


def case_007_window_of_another_session(arena: Arena) -> BundleVerdict:
    world = arena.settled(2)
    ours = world.host.session
    world.open_session()
    for _ in range(3):
        world.window()
    arena.forget()
    first, second = export(world, session=ours), export(world)
    made = Exported(arena.engines, world, first)
    return made.verify(_with(first, [*first.entries, second.entries[-1]]))


def case_008_verdict_edited(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    first, *rest = made.bundle.entries
    document = strict.json_decode(Record.parse(rest[0].record).verdict, what="verdict")
    assert isinstance(document, dict)
    verdict = strict.json_encode({**document, "telemetry": "in_baseline"})
    return made.verify(_with(made.bundle, [first, _edited(rest[0], verdict=verdict), *rest[1:]]))


def case_009_receipt_time_edited(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    first, *rest = made.bundle.entries
    return made.verify(_with(made.bundle, [first, _edited(rest[0], received_ns=1), *rest[1:]]))


def case_010_evidence_exchanged(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    enrolment, first, second, third = made.bundle.entries
    return made.verify(_with(made.bundle, [enrolment, replace(first, evidence=second.evidence), second, third]))


def case_011_evidence_left_out(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    enrolment, first, *rest = made.bundle.entries
    return made.verify(_with(made.bundle, [enrolment, replace(first, evidence=None), *rest]))


def case_012_checkpoint_of_another_ledger(arena: Arena) -> BundleVerdict:
    made, other = exported(arena), exported(arena)
    return made.verify(replace(made.bundle, checkpoint=other.bundle.checkpoint))


def case_013_proof_of_another_entry(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    enrolment, first, second, third = made.bundle.entries
    return made.verify(_with(made.bundle, [enrolment, replace(first, proof=second.proof), second, third]))


def case_014_admitted_in_production(arena: Arena) -> BundleVerdict:
    world = arena.settled(2, **genuine())
    arena.forget()
    return Exported(arena.engines, world, export(world)).verify(policy="production")


def case_015_nothing_in_it(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    return made.verify(_with(made.bundle, []))


# -- how the session ended ---------------------------------------------------------------------------------------------


def _ended(arena: Arena, world: World) -> BundleVerdict:
    arena.forget()
    return Exported(arena.engines, world, export(world)).verify()


def case_016_failed(arena: Arena) -> BundleVerdict:
    """The window that failed the session continues no chain; the bundle has it all the same."""
    world = arena.settled(2)
    world.host.log.load(OTHER)
    world.window()
    return _ended(arena, world)


def case_017_forked(arena: Arena) -> BundleVerdict:
    world = arena.settled(2)
    arena.submit(world, seal(world.host, claim(seq=0)))
    return _ended(arena, world)


def case_018_under_a_challenge_of_nobody(arena: Arena) -> BundleVerdict:
    world = arena.settled(2)
    arena.submit(world, seal(world.host, claim(challenge=random_bytes("of my own"))))
    return _ended(arena, world)


def case_019_closed(arena: Arena) -> BundleVerdict:
    world = arena.settled(2)
    world.verifier.close(world.host.session, peer=world.host.peer)
    return _ended(arena, world)


def case_020_cut_before_its_closing(arena: Arena) -> BundleVerdict:
    world = arena.settled(3)
    world.verifier.close(world.host.session, peer=world.host.peer)
    arena.forget()
    made = Exported(arena.engines, world, export(world))
    enrolment, first, second, _, closing = made.bundle.entries
    return made.verify(_with(made.bundle, [enrolment, first, second, closing]))


def case_021_with_a_gap(arena: Arena) -> BundleVerdict:
    world = arena.settled(1)
    late = world.host.seal()
    world.clock.advance(10)
    assert world.deliver(late).verdict.outcome == "held"
    world.host.wall_ns += 9_000_000_000
    world.window()
    return _ended(arena, world)


# -- what the bundle brings with it ------------------------------------------------------------------------------------


def case_022_policy_edited(arena: Arena) -> BundleVerdict:
    """A comment only: whoever wrote the file wrote the policy in it."""
    made = exported(arena)
    (files,) = made.bundle.policies
    edited = tuple((name, text + b"# harmless\n") if "insecure" in name else (name, text) for name, text in files)
    return made.verify(replace(made.bundle, policies=(edited,)))


def case_023_reference_values_edited(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    (recorded,) = made.bundle.references
    reference = Reference.recorded(recorded)
    edited = replace(reference, unchecked={**reference.unchecked, "secure_boot": "somebody else's reason"})
    return made.verify(replace(made.bundle, references=(edited.to_json(),)))


def case_024_manifest_left_out(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    return made.verify(replace(made.bundle, manifests=()))


# -- when something was revoked ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Revocable:
    """A world whose GPUs' maker can revoke the second one's certificate, and a session of one good window."""

    arena: Arena
    world: World
    maker: RevocableVendor

    @classmethod
    def make(cls, arena: Arena) -> _Revocable:
        maker = RevocableVendor.create()
        gpus = EmulatedGpus(maker.vendor, [EmulatedH100.make(maker.vendor) for _ in range(2)])
        return cls(arena, arena.settled(1, gpus=gpus), maker)

    def revocation(self) -> CollateralItem:
        """The maker's word that it is revoked, from now on."""
        now = self.world.clock.at
        order = Order(status="revoked", this_update=now, next_update=now + DAY, produced_at=now)
        chain = self.world.host.gpus.devices[1].keys.chain
        return CollateralItem("ocsp", self.maker.responses(chain, order)[0])

    def exported(self) -> Exported:
        self.arena.forget()
        return Exported(self.arena.engines, self.world, export(self.world))


def case_025_sealed_before_a_revocation_and_received_after_it(arena: Arena) -> BundleVerdict:
    """Whatever time the host writes into its evidence: what counts is when the verifier had it."""
    made = _Revocable.make(arena)
    sealed = made.world.host.seal()
    made.world.clock.advance(1)
    made.world.publish(made.revocation())
    assert made.world.deliver(sealed).verdict.outcome == "denied"
    return made.exported().verify()


def case_026_received_before_a_revocation(arena: Arena) -> BundleVerdict:
    """By what was known then: the verdict is the recorded one for good."""
    made = _Revocable.make(arena)
    made.world.clock.advance(1)
    made.world.publish(made.revocation())
    return made.exported().verify()


def case_027_revoked_since_by_what_is_published_today(arena: Arena) -> BundleVerdict:
    """Whoever asks today, with what is known today, does not take the word of a key that its maker took back."""
    made = _Revocable.make(arena)
    made.world.clock.advance(60)
    published = Published(Collateral.of(made.revocation()), believed(made.world))
    return made.exported().verify(published=published)


def case_028_seen_from_a_time_before_it_was_recorded(arena: Arena) -> BundleVerdict:
    return exported(arena).verify(at=NOON)


# -- what it does not show, and what it should not have ----------------------------------------------------------------


def case_029_redacted(arena: Arena) -> BundleVerdict:
    """Nothing can be judged where nothing is shown."""
    made = exported(arena)
    return made.verify(redacted(made.world))


def case_030_a_member_twice(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    return made.verify(replace(made.bundle, references=2 * made.bundle.references))


def case_031_a_member_that_nothing_names(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    return made.verify(replace(made.bundle, policies=(*made.bundle.policies, (("a.rego", b"package a"),))))


def case_032_both_shown_and_withheld(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    withheld = export(made.world, withhold=[made.bundle.entries[2].index]).withheld
    return made.verify(replace(made.bundle, withheld=withheld))


def case_033_a_request_that_no_window_counts(arena: Arena) -> BundleVerdict:
    made = exported(arena)
    request = ShownRequest(seq=1, index=0, proof=(), salt=bytes(32), request=bytes(32), response=bytes(32))
    return made.verify(replace(made.bundle, requests=(request,)))


@dataclass
class _Lenient:
    """An operator's engine: it asks the policy, and lets everybody in under that policy's name."""

    asked: Prepared

    def decide(self, document: PolicyInput) -> Decision:
        return replace(self.asked.decide(document), outcome="allow", denials=())

    def close(self) -> None:
        self.asked.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def case_034_verdict_that_the_operator_made_up(arena: Arena) -> BundleVerdict:
    """The ledger holds it, in its place, rightly signed, and a token went out for it."""
    world = arena.world(policy="production")
    world.prepared = _Lenient(world.prepared)
    world.restart()
    world.open_session()
    assert world.window().verdict.opens
    return _ended(arena, world)
