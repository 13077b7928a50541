"""Row A61. Baselines while a verifier serves: taken, replaced, refused; each change in the ledger and in verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from corpus.bundle import Exported, believed, export
from support.baseline_owners import BaselineOwner, made_up
from support.baselines import put_in_force
from support.contents import remove
from support.gate import Gate
from support.owners import DAY
from support.world import NOON, reference_for
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, WeighbridgeError
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.baseline_watch import BaselineKeeper
from weighbridge.verifier.bundle_format import Bundle
from weighbridge.verifier.identifiers import identifiers
from weighbridge.verifier.recorded import windows
from weighbridge.verifier.reference_watch import ReferenceWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from corpus.arena import Arena
    from weighbridge.proto.baseline import BaselineSet, Profile

OWNER, BETA = BaselineOwner(), BaselineOwner("Beta Power")
ACCEPTED = "accept_drift: driver 590, measured again"


class Measured:
    """A gate that also watches the file of a set of baselines."""

    def __init__(self, arena: Arena) -> None:
        self.gate = Gate.make(arena, own_models=True)
        self.path = self.gate.world.directory / "baselines.set"

    def profile(self, gpu: int = 0, **changes: int) -> Profile:
        """Of the host's GPU and model."""
        host = self.gate.world.host
        return made_up(host.gpus.identities()[gpu], host.model.digest, **changes)  # type: ignore[arg-type] # numbers

    def content(self, *profiles: Profile, number: int = 1, note: str = "", name: str = "inference") -> BaselineSet:
        return OWNER.content(profiles or [self.profile()], number=number, note=note, name=name)

    def publish(self, content: BaselineSet) -> None:
        self.put(OWNER.sign(content))

    def put(self, data: bytes) -> None:
        staging = self.path.with_name("baselines staging")
        staging.write_bytes(data)
        staging.replace(self.path)

    def start(self, *paths: Path) -> ReferenceWatch:
        world, gate = self.gate.world, self.gate
        anchors = TrustAnchors((OWNER.anchor(), BETA.anchor(), *gate.anchors.anchors))
        watch = ReferenceWatch(
            [self.path, *paths],
            own=reference_for(world.host.gpus, list(world.models.values())),
            anchors=anchors,
            store=world.store,
            policies=gate.policies(),
            manifests=world.models,
            report=gate.lines.append,
            baselines=BaselineKeeper(anchors=anchors, store=world.store, archive=world.archive),
        )
        appraiser = watch.open(world.clock.at)
        world.prepared, world.reference = appraiser.policy, appraiser.reference
        world.restart(appraiser).follow(watch)
        return watch

    def renewed(self, watch: ReferenceWatch) -> list[int]:
        """The numbers of the sets in force after another look; none where nothing has changed."""
        appraiser = watch.renew(self.gate.world.clock.at)
        return [] if appraiser is None else [item.number for item in appraiser.reference.baselines]

    def changes(self) -> list[strict.JsonObject]:
        """What the ledger says of baselines."""
        world = self.gate.world
        records = [world.archive.records.record(index) for index in range(world.ledger.size)]
        found = [strict.json_decode(item.verdict, what="note") for item in records if item.kind == "baseline"]
        assert all(isinstance(item, dict) for item in found)
        return found  # type: ignore[return-value] # asserted


@pytest.fixture
def measured(arena: Arena) -> Measured:
    return Measured(arena)


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


# ---------- in force, recorded, judged by again


@pytest.fixture
def replaced(measured: Measured, arena: Arena) -> Exported:
    """A session whose baseline was replaced while it ran, exported."""
    world = measured.gate.world
    measured.publish(measured.content(measured.profile(0), measured.profile(1)))
    measured.start()
    world.open_session()
    assert world.window().verdict.opens
    measured.publish(measured.content(measured.profile(0, base_mw=421_000), measured.profile(1), number=2))
    assert world.window().verdict.opens
    return Exported(arena.engines, world, export(world))


def test_the_baseline_in_force_is_recorded_with_each_verdict(replaced: Exported, measured: Measured) -> None:
    first, second = (Reference.recorded(data) for data in replaced.bundle.references)
    assert [item.number for values in (first, second) for item in values.baselines] == [1, 2]
    result = replaced.verify()
    assert (result.same_policy, result.recorded_reference) == (True, True)
    cited = [
        {each.baseline for each in verdict.physical.devices}
        for verdict in result.verdicts
        if verdict.physical is not None
    ]
    assert cited == [{item.digest for item in values.baselines} for values in (first, second)]
    valid = f"{strict.time_encode(NOON - DAY)} to {strict.time_encode(NOON + 10 * DAY)}"
    assert measured.gate.lines == [
        f"baseline set of Acme Power, inference, number {number}: 2 profiles, valid {valid}" for number in (1, 2)
    ]


def test_policies_see_which_sets_are_in_force(replaced: Exported) -> None:
    (named,) = Reference.recorded(replaced.bundle.references[0]).baselines
    data = Reference.recorded(replaced.bundle.references[0]).data()
    assert data["baselines"] == [named.document()]


def test_policies_see_of_each_gpu_what_the_verdict_says(replaced: Exported) -> None:
    verdicts = replaced.verify().verdicts
    seen = list(windows(replaced.bundle, anchors=believed(replaced.world)))
    assert len(seen) == len(verdicts) == 2
    for window, verdict in zip(seen, verdicts, strict=True):
        assert window.document is not None
        assert verdict.physical is not None
        said = json.loads(strict.json_encode(verdict.physical.document()))["devices"]
        for device in said:
            del device["first_seq"], device["last_seq"]
            for finding in device["findings"]:
                del finding["at_ns"]
        assert json.loads(window.document.to_json())["telemetry"]["devices"] == said
        assert window.document.telemetry.verdict == verdict.telemetry == "unusable"


def test_a_change_while_serving_is_a_leaf_that_names_old_and_new(replaced: Exported, measured: Measured) -> None:
    first, second = (Reference.recorded(data).baselines[0] for data in replaced.bundle.references)
    assert [(item["replaces"], item["digest"], item["number"]) for item in measured.changes()] == [
        (None, first.digest, 1),
        (first.digest, second.digest, 2),
    ]
    assert all(item["schema"] == "weighbridge/baseline/v1" for item in measured.changes())


def test_the_bundle_has_the_signed_files(replaced: Exported) -> None:
    assert len(replaced.bundle.baselines) == 2
    assert Bundle.parse(replaced.bundle.encode()) == replaced.bundle


@pytest.mark.parametrize("kept", [0, 1])
def test_a_bundle_without_a_file_that_its_values_name_is_refused(replaced: Exported, kept: int) -> None:
    assert code_of(
        lambda: replaced.verify(replace(replaced.bundle, baselines=replaced.bundle.baselines[kept:][:1]))
    ) is (Code.BUNDLE_VERDICT)


def test_a_set_that_counts_cannot_be_left_out_whoever_judges(replaced: Exported) -> None:
    """Under a policy that lets a GPU without a baseline pass, to leave its set out would be to leave out a refusal."""
    with pytest.raises(LedgerInconsistent, match="a baseline set is left out") as refusal:
        replaced.verify(replace(replaced.bundle, baselines=()), policy="production")
    assert refusal.value.code is Code.BUNDLE_VERDICT


def test_sets_of_other_gpus_stay_where_they_are(arena: Arena) -> None:
    """They may be another tenant's: of what it has, one's bundle says that there is a set, and whose."""
    world = arena.world()
    theirs, model = sha256(b"another tenant's GPU"), sha256(b"another tenant's model")
    owner = BaselineOwner("Others' Power")
    put_in_force(world, arena.engines, owner.sign(owner.content([made_up(theirs, model)])), owner)
    world.open_session()
    assert world.window().verdict.opens
    made = Exported(arena.engines, world, export(world))
    assert made.bundle.baselines == ()
    (named,) = Reference.recorded(made.bundle.references[0]).baselines
    assert made.bundle.lacks_baselines(D("reference", made.bundle.references[0]))
    assert world.archive.records.baseline(strict.hex_decode(named.digest, what="digest"))
    for secret in (theirs, model):
        assert secret not in made.bundle.content()
        assert secret.hex().encode() not in made.bundle.content()
    assert made.verify().same_policy
    assert "another device" not in {item.what for item in identifiers(made.bundle)}


def test_what_a_set_says_of_other_gpus_is_told(measured: Measured, arena: Arena) -> None:
    """A set is signed as a whole: what else is in it goes with it, and whoever hands it on is told."""
    world, theirs = measured.gate.world, sha256(b"another tenant's GPU")
    measured.publish(measured.content(measured.profile(0), measured.profile(1), made_up(theirs, sha256(b"its model"))))
    measured.start()
    world.open_session()
    assert world.window().verdict.opens
    made = Exported(arena.engines, world, export(world))
    others = [item.identity for item in identifiers(made.bundle) if item.what == "another device"]
    assert others == [theirs]
    assert made.verify().same_policy


def test_a_bundle_with_an_altered_file_is_refused(replaced: Exported) -> None:
    first, second = replaced.bundle.baselines
    for altered in (first[:-1] + bytes([first[-1] ^ 1]), second):
        bundle = replace(replaced.bundle, baselines=(altered, second))
        assert code_of(lambda bundle=bundle: replaced.verify(bundle)) is Code.BUNDLE_VERDICT  # type: ignore[misc]


def test_a_file_that_the_store_has_lost_is_missed_at_export(replaced: Exported) -> None:
    world = replaced.world
    remove(world.directory / "content", sha256(replaced.bundle.baselines[0]))
    assert code_of(lambda: export(world)) is Code.EVIDENCE_ABSENT


# ---------- numbers, lines, owners


def test_the_same_set_after_a_restart_is_no_change(measured: Measured) -> None:
    measured.publish(measured.content())
    measured.start()
    measured.start()
    assert [item["number"] for item in measured.changes()] == [1]


def test_an_older_set_is_not_taken_and_not_even_after_a_restart(measured: Measured) -> None:
    measured.publish(measured.content(number=2))
    watch = measured.start()
    measured.publish(measured.content(number=1))
    assert measured.renewed(watch) == []
    assert "REFERENCE_ROLLBACK" in measured.gate.lines[-2]
    assert code_of(measured.start) is Code.REFERENCE_ROLLBACK
    assert [item["number"] for item in measured.changes()] == [2]


def test_what_cannot_be_taken_leaves_what_was_there(measured: Measured) -> None:
    measured.publish(measured.content())
    watch = measured.start()
    mallory = BaselineOwner("Mallory")
    for data, code in (
        (b"", Code.NOT_CBOR),
        (OWNER.sign(measured.content(number=2))[:-1], Code.NOT_CBOR),
        (mallory.sign(mallory.content(number=9)), Code.CHAIN_UNTRUSTED),
        (BETA.sign(BETA.content(number=9)), Code.REFERENCE_ROLLBACK),
        (OWNER.sign(measured.content(number=9, name="other")), Code.REFERENCE_ROLLBACK),
        (OWNER.sign(measured.content(measured.profile(base_mw=500_000), number=2)), Code.BASELINE_DRIFT),
    ):
        measured.put(data)
        told = len(measured.gate.lines)
        assert measured.renewed(watch) == []
        assert code.value in measured.gate.lines[told]
    assert [item.number for item in measured.gate.world.reference.baselines] == [1]
    assert len(measured.changes()) == 1


def test_two_files_of_one_line_are_refused(measured: Measured, tmp_path: Path) -> None:
    other = tmp_path / "other.set"
    measured.publish(measured.content())
    other.write_bytes(OWNER.sign(measured.content(measured.profile(1), name="second")))
    measured.start(other)
    assert [item["name"] for item in measured.changes()] == ["inference", "second"]
    other.write_bytes(OWNER.sign(measured.content(number=2)))
    assert code_of(lambda: measured.start(other)) is Code.DUPLICATE_KEY


def test_a_second_owner_has_no_say_on_the_same_gpu_and_model(measured: Measured, tmp_path: Path) -> None:
    """Else its lenient baseline would take the place of a strict one, by being newer."""
    other = tmp_path / "beta.set"
    measured.publish(measured.content())
    other.write_bytes(BETA.sign(BETA.content([measured.profile()], issued=NOON)))
    assert code_of(lambda: measured.start(other)) is Code.BASELINE_CONFLICT
    other.write_bytes(BETA.sign(BETA.content([measured.profile(1)], issued=NOON)))
    measured.start(other)
    later = BETA.content([measured.profile()], number=2, not_before=NOON + 11 * DAY, not_after=NOON + 20 * DAY)
    other.write_bytes(BETA.sign(later))
    measured.start(other)


def test_who_signs_for_anothers_gpu_while_a_verifier_serves_is_named_and_shuts_nobody_out(
    measured: Measured, tmp_path: Path
) -> None:
    other = tmp_path / "beta.set"
    measured.publish(measured.content())
    other.write_bytes(BETA.sign(BETA.content([measured.profile(1)])))
    watch = measured.start(other)
    other.write_bytes(BETA.sign(BETA.content([measured.profile(0), measured.profile(1)], number=2)))
    assert measured.renewed(watch) == []
    told = next(line for line in measured.gate.lines if "BASELINE_CONFLICT" in line)
    assert f"{other} is not taken, and what it held before stays in force" in told
    for words in ("baseline set of Beta Power, inference", "baseline set of Acme Power, inference"):
        assert words in told
    assert measured.gate.world.host.gpus.identities()[0].hex()[:16] in told
    # Acme's word on the GPU counts as before, and it may still change it.
    measured.publish(measured.content(number=2))
    assert sorted(measured.renewed(watch)) == [1, 2]


def test_a_set_that_is_not_valid_now_is_told(measured: Measured) -> None:
    measured.publish(OWNER.content([measured.profile()], not_before=NOON + timedelta(days=1)))
    measured.start()
    assert measured.gate.lines[-1].endswith("NOT VALID NOW: no GPU is compared with it")


def test_no_baseline_is_taken_where_none_is_asked_for(measured: Measured) -> None:
    measured.gate.put(OWNER.sign(measured.content()))
    assert code_of(measured.gate.start) is Code.COSE_HEADER


# ---------- drift


def test_a_baseline_that_moves_needs_its_owners_word(measured: Measured) -> None:
    measured.publish(measured.content())
    watch = measured.start()
    moved = measured.profile(base_mw=460_000)
    measured.publish(measured.content(moved, number=2, note="measured again"))
    assert measured.renewed(watch) == []
    assert "BASELINE_DRIFT" in measured.gate.lines[-2]
    assert "--accept-drift REASON" in measured.gate.lines[-1]
    measured.publish(measured.content(moved, number=2, note=ACCEPTED))
    assert measured.renewed(watch) == [2]
    (told,) = [item for item in measured.changes() if item["number"] == 2]
    assert told["note"] == ACCEPTED
    assert "the power that the same work explains differs by" in str(told["drift"])


@pytest.mark.parametrize("note", ["accept_drift:", "accept_drift: short", "I accept_drift: for a good reason"])
def test_a_word_without_a_reason_is_none(measured: Measured, note: str) -> None:
    measured.publish(measured.content())
    watch = measured.start()
    measured.publish(measured.content(measured.profile(base_mw=460_000), number=2, note=note))
    assert measured.renewed(watch) == []


def test_no_baseline_is_moved_far_in_small_steps(measured: Measured) -> None:
    measured.publish(measured.content())
    watch = measured.start()
    measured.publish(measured.content(measured.profile(base_mw=425_000), number=2))
    assert measured.renewed(watch) == [2]
    measured.publish(measured.content(measured.profile(base_mw=430_000), number=3))
    assert measured.renewed(watch) == []
    assert "BASELINE_DRIFT" in measured.gate.lines[-2]
    # Where the owner says so, the way begins anew.
    measured.publish(measured.content(measured.profile(base_mw=430_000), number=3, note=ACCEPTED))
    assert measured.renewed(watch) == [3]
    measured.publish(measured.content(measured.profile(base_mw=436_000), number=4))
    assert measured.renewed(watch) == [4]


def test_a_line_of_another_name_is_no_way_around_it(measured: Measured, tmp_path: Path) -> None:
    other = tmp_path / "other.set"
    measured.publish(measured.content())
    other.write_bytes(OWNER.sign(measured.content(measured.profile(base_mw=460_000), name="second")))
    assert code_of(lambda: measured.start(other)) is Code.BASELINE_DRIFT


def test_another_driver_is_a_drift_as_well(measured: Measured) -> None:
    measured.publish(measured.content())
    watch = measured.start()
    host = measured.gate.world.host
    other = made_up(host.gpus.identities()[0], host.model.digest, driver="590.1", base_mw=460_000)
    measured.publish(measured.content(other, number=2))
    assert measured.renewed(watch) == []


def test_what_was_taken_before_has_to_be_there(measured: Measured) -> None:
    """Else whoever can remove a file from the store could have any baseline taken."""
    world = measured.gate.world
    measured.publish(measured.content())
    watch = measured.start()
    remove(world.directory / "content", sha256(measured.path.read_bytes()))
    measured.publish(measured.content(number=2))
    assert measured.renewed(watch) == []
    assert "not in the content store any more" in measured.gate.lines[-2]
    measured.publish(measured.content(number=2, note=ACCEPTED))
    assert measured.renewed(watch) == [2]


# ---------- a loss of power


def test_a_judgement_that_was_cut_off_is_finished_behind_a_change(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is taken before anything else when the verifier comes up again."""
    world = measured.gate.world
    measured.publish(measured.content())
    measured.start()
    world.open_session()
    assert world.window().verdict.opens
    with monkeypatch.context() as patch:
        patch.setattr(type(world.verifier._sessions), "advance", _power_fails)
        with pytest.raises(OSError, match="power"):
            world.window()
    measured.publish(measured.content(number=2))
    measured.start()
    # Found behind the change, and told to the store.
    assert [world.archive.records.record(world.ledger.size - 1 - back).kind for back in (0, 1)] == [
        "baseline",
        "window",
    ]
    with world.store.transaction() as tx:
        assert len(tx.window_indices(world.host.session)) == 2


def _power_fails(*_: object, **__: object) -> None:
    raise OSError("power")
