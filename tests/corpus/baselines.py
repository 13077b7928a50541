"""Row A61: baselines are their owner's. Nobody else's counts, none is moved unseen, and no session moves one.

Where a file is exchanged while a session runs, its GPUs do hidden work that the baseline in force contradicts; the file
would excuse it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from corpus.telemetry import OWNER, UNIT, answers
from support.baseline_owners import BaselineOwner
from support.measured import HIDDEN, NUMBER, MeasuredGate, honest, poisoned
from support.owners import DAY, Owner
from support.world import NOON
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corpus.arena import Arena
    from weighbridge.proto.baseline import BaselineSet
    from weighbridge.proto.profile import Profile
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.core import Answer

_MOST: Final = 6 * UNIT
_HUNDRED: Final = 100
_ACCEPTED: Final = "accept_drift: measured again after the cooling was changed"
_STRANGER: Final = BaselineOwner("Mallory")
_OTHER: Final = BaselineOwner("Beta Power")


def _lenient(number: int = NUMBER + 1, *, note: str = "") -> BaselineSet:
    """A set by which the hidden work is what is always done."""
    return OWNER.content(poisoned(), number=number, note=note)


def _replaced(arena: Arena, data: bytes, code: Code, gate: MeasuredGate | None = None) -> Answer:
    """The window in which the hidden work is found, all the same, after somebody put ``data`` in the set's place.

    The operator is told, with ``code``, that it was not taken.
    """
    gate = gate or MeasuredGate.make(arena)
    gate.opened(undeclared=HIDDEN)
    strict_one = gate.in_force
    gate.window()
    gate.put(data)
    answer = answers(gate.world, _MOST)[-1]
    assert any(code.value in line for line in gate.gate.lines)
    assert answer.verdict.telemetry == "out_of_baseline"
    assert (gate.numbers, gate.in_force, gate.changes) == ([NUMBER], strict_one, 1)
    return answer


def _under(arena: Arena, profiles: Sequence[Profile], **changes: object) -> Answer:
    """The first window of an honest session under a set that is of no use for it."""
    gate = MeasuredGate.make(arena)
    gate.publish(OWNER.content(profiles, **changes))  # type: ignore[arg-type] # times
    gate.start()
    gate.serve()
    answer = gate.window()
    assert answer.verdict.telemetry == "no_baseline"
    return answer


def _starts(arena: Arena, content: BaselineSet) -> None:
    """The verifier comes up, with a set that its owner has signed with tools of his own."""
    gate = MeasuredGate.make(arena)
    gate.put(OWNER.sign_anyway(content))
    gate.start()


# -- whose word it is --------------------------------------------------------------------------------------------------


def case_001_newer_set_of_its_owner(arena: Arena) -> Answer:
    gate = MeasuredGate.make(arena)
    gate.opened()
    answers(gate.world, UNIT)
    gate.publish(OWNER.content(honest(), number=NUMBER + 1))
    answer = gate.window()
    assert (gate.numbers, gate.changes) == ([NUMBER + 1], 2)
    return answer


def case_002_unsigned_in_its_place(arena: Arena) -> Answer:
    return _replaced(arena, _lenient().encode(), Code.NOT_CBOR)


def case_003_signed_by_a_stranger_in_the_owners_name(arena: Arena) -> Answer:
    return _replaced(arena, _STRANGER.sign(_lenient()), Code.CHAIN_UNTRUSTED)


def case_004_signed_by_a_stranger_under_the_owners_key_name(arena: Arena) -> Answer:
    forger = BaselineOwner(OWNER.name)
    forger.key = _STRANGER.key
    mine, theirs = OWNER.sign(_lenient()), forger.sign(_lenient())
    return _replaced(arena, mine[:-64] + theirs[-64:], Code.COSE_SIGNATURE)


def case_005_signed_by_a_models_owner(arena: Arena) -> Answer:
    gate = MeasuredGate.make(arena)
    models = Owner(OWNER.name)
    gate.trusted.append(models.anchor())
    as_owner = BaselineOwner(OWNER.name)
    as_owner.key = models.key
    return _replaced(arena, as_owner.sign(_lenient()), Code.CHAIN_UNTRUSTED, gate)


def case_006_a_digit_edited(arena: Arena) -> Answer:
    signed = OWNER.sign(OWNER.content(honest(), number=NUMBER + 1))
    edited = signed.replace(b'"number":%d' % (NUMBER + 1), b'"number":%d' % (NUMBER + 2))
    assert edited != signed
    return _replaced(arena, edited, Code.COSE_SIGNATURE)


def case_007_another_owner_for_the_same_gpus(arena: Arena) -> None:
    gate = MeasuredGate.make(arena)
    gate.trusted.append(_OTHER.anchor())
    gate.publish(OWNER.content(honest()))
    gate.start(gate.put(_OTHER.sign(_OTHER.content(poisoned())), gate.world.directory / "other.baseline"))


# -- when, and of what -------------------------------------------------------------------------------------------------


def case_008_expired(arena: Arena) -> Answer:
    return _under(arena, honest(), not_after=NOON - timedelta(seconds=1))


def case_009_not_yet_valid(arena: Arena) -> Answer:
    return _under(arena, honest(), not_before=NOON + DAY)


def case_010_expires_while_a_session_runs(arena: Arena) -> Answer:
    gate = MeasuredGate.make(arena)
    gate.publish(OWNER.content(honest(), not_after=NOON + timedelta(seconds=UNIT)))
    gate.start()
    gate.serve()
    assert answers(gate.world, UNIT)[-1].verdict.opens
    return gate.window()


def case_011_of_another_gpu(arena: Arena) -> Answer:
    others = EmulatedGpus.create(2).identities()
    return _under(arena, [replace(made, device=other) for made, other in zip(honest(), others, strict=True)])


def case_012_of_another_model(arena: Arena) -> Answer:
    other = sha256(b"another model's manifest")
    return _under(arena, [replace(made, scope=replace(made.scope, model=other)) for made in honest()])


def case_013_of_another_driver(arena: Arena) -> Answer:
    return _under(arena, [replace(made, scope=replace(made.scope, driver="1.0")) for made in honest()])


def case_014_of_one_gpu_of_two(arena: Arena) -> Answer:
    return _under(arena, honest()[:1])


def case_015_two_profiles_of_a_gpu(arena: Arena) -> Answer:
    """Of two workloads: nobody could say which counts."""
    return _under(arena, [*honest(), *(replace(made, scope=replace(made.scope, workload="more")) for made in honest())])


# -- moved -------------------------------------------------------------------------------------------------------------


def case_016_older_number_in_its_place(arena: Arena) -> Answer:
    return _replaced(arena, OWNER.sign(_lenient(NUMBER - 1)), Code.REFERENCE_ROLLBACK)


def case_017_another_of_the_same_number(arena: Arena) -> Answer:
    return _replaced(arena, OWNER.sign(_lenient(NUMBER)), Code.REFERENCE_ROLLBACK)


def case_018_older_number_after_a_restart(arena: Arena) -> None:
    gate = MeasuredGate.make(arena)
    gate.opened()
    gate.publish(OWNER.content(honest(), number=NUMBER - 1))
    gate.start()


def case_019_drifted_without_its_owners_word(arena: Arena) -> Answer:
    return _replaced(arena, OWNER.sign(_lenient()), Code.BASELINE_DRIFT)


def case_020_drifted_under_another_name(arena: Arena) -> None:
    gate = MeasuredGate.make(arena)
    gate.publish(OWNER.content(honest()))
    other = OWNER.sign(OWNER.content(poisoned(), name="another"))
    gate.start(gate.put(other, gate.world.directory / "another.baseline"))


def case_021_drifted_by_its_owners_word(arena: Arena) -> Answer:
    """Whom the relying party believes can say so; the ledger tells of it."""
    gate = MeasuredGate.make(arena)
    gate.opened(undeclared=HIDDEN)
    gate.publish(_lenient(note=_ACCEPTED))
    answer = answers(gate.world, UNIT)[-1]
    assert (gate.numbers, gate.changes) == ([NUMBER + 1], 2)
    return answer


# -- figures that are none ---------------------------------------------------------------------------------------------


def case_022_precision_that_is_not_definite(arena: Arena) -> None:
    first, *rest = honest()
    _starts(arena, OWNER.content([replace(first, precision=(0,) * len(first.precision)), *rest]))


def case_023_precision_of_1e30(arena: Arena) -> None:
    first, *rest = honest()
    _starts(arena, OWNER.content([replace(first, precision=(10**30, *first.precision[1:])), *rest]))


def case_024_a_scale_of_nothing(arena: Arena) -> None:
    first, *rest = honest()
    _starts(arena, OWNER.content([replace(first, scale=(0, *first.scale[1:])), *rest]))


# -- sessions move none ------------------------------------------------------------------------------------------------


def case_025_hidden_work_that_grows_slowly(arena: Arena) -> Answer:
    """By a little with every window: what a baseline that learns would grow used to."""
    gate = MeasuredGate.make(arena)
    gate.publish(OWNER.content(honest(), number=NUMBER))
    gate.start()
    sensors, before = gate.serve(), gate.in_force

    def grown(source: Source) -> Source:
        sensors.tokens += HIDDEN // _HUNDRED // len(honest())
        return source

    answer = answers(gate.world, _HUNDRED, grown)[-1]
    assert (gate.numbers, gate.in_force, gate.changes) == ([NUMBER], before, 1)
    assert answer.verdict.telemetry == "out_of_baseline"
    return answer


def case_026_a_hundred_windows(arena: Arena) -> Answer:
    """What the verifier receives changes no baseline: the same bytes are in force, and none was taken since."""
    gate = MeasuredGate.make(arena)
    gate.opened()
    before = gate.in_force
    answer = answers(gate.world, _HUNDRED)[-1]
    assert (gate.numbers, gate.in_force, gate.changes) == ([NUMBER], before, 1)
    return answer
