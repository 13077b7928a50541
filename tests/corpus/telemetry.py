"""Rows A57 and A58: telemetry of somebody else, telemetry that nobody attested signed, and what is no telemetry."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from forge.determined import determined
from support.baseline_owners import BaselineOwner
from support.baselines import put_in_force, signed_set
from support.forge import Forgery, interval, random_bytes, seal, with_telemetry
from support.world import WORK, manifest, software_key
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.proto import cbor, cose, zstd
from weighbridge.proto.digest import sha256
from weighbridge.proto.telemetry import VERSION, Telemetry
from weighbridge.proto.typed_array import TypedArray
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.core import Answer
    from weighbridge.verifier.requirements import Requirements


OWNER: Final = BaselineOwner()
# As long as a unit of samples is, in windows of a second.
UNIT: Final = 10
_CONTENT_MAX: Final = 1_000_000
# In the place of what our encoder has no word for.
_FLOAT: Final = "\N{DOUBLE DAGGER} a number"
# What GPUs are at work with in each second.
SERVING: Final = WorkSummary(root=sha256(b"leaf"), requests=8, tokens_in=2000, tokens_out=2000, batch_max=8)


@cache
def enrolled(work: WorkSummary = WORK) -> tuple[EmulatedGpus, bytes]:
    """Devices, and the signed set with their profiles at ``work``: recording and fitting them takes a second."""
    # The same devices whichever case asks for them first.
    with determined(f"devices at work {work}"):
        gpus = EmulatedGpus.create(2)
        return gpus, signed_set(gpus, manifest().digest, OWNER, work=work)


def baselined(
    arena: Arena, *, windows: int = UNIT, work: WorkSummary = WORK, wanted: Requirements | None = None
) -> World:
    """As many good windows into a session whose samples are compared with a baseline, which nothing excuses from.

    It is judged by the production policy; before the tenth window nothing is said of it.
    """
    gpus, signed = enrolled(work)
    world = arena.world(
        policy="production",
        platforms=("tpm", "nvidia"),
        source="nvml",
        gpus=gpus,
        reference=demanding,
        wanted=wanted,
    )
    put_in_force(world, arena.engines, signed, OWNER)
    world.host.work = work
    if windows:
        world.open_session()
    for _ in range(windows):
        assert world.window().verdict.outcome in {"affirmed", "indeterminate"}
    return world


def sensing(world: World, change: Callable[[Source], Source]) -> None:
    """The sensors of all devices read something else in the next window; it is signed like any other."""
    world.host.observe()
    key = world.host.session, world.host.seq
    world.host.sampled[key] = tuple(change(source) for source in world.host.sampled[key])


def answers(world: World, most: int, change: Callable[[Source], Source] | None = None) -> list[Answer]:
    """To the next windows, ``most`` of them, with ``change`` to what each reads; none follows one that is denied."""
    found: list[Answer] = []
    while len(found) < most and not (found and found[-1].verdict.outcome == "denied"):
        if change is not None:
            sensing(world, change)
        found.append(world.window())
    return found


def admitted_though(answer: Answer) -> Answer:
    """``answer`` is of a window that the record speaks for: it says all the same what is not proven."""
    verdict = answer.verdict
    assert verdict.opens
    assert verdict.telemetry == "in_baseline"
    said = verdict.document()["not_proven"]
    assert isinstance(said, list)
    assert "telemetry can contradict and corroborate; it can never vouch for weights" in said
    assert any("evasion-tuned workloads are out of reach" in str(line) for line in said)
    assert verdict.physical is not None
    for device in verdict.physical.devices:
        assert device.residual_mw is not None
    return answer


def demanding(made: Reference) -> Reference:
    reasons = dict(made.unchecked)
    del reasons["telemetry_baseline"]
    return replace(made, unchecked=reasons)


def _saying(arena: Arena, change: Callable[[Telemetry, World], Telemetry]) -> Answer:
    """A window whose telemetry was changed before its digest went into the header."""
    world = arena.settled()
    seen = world.host.observe()
    changed = change(Telemetry.parse(seen.telemetry), world).encode()
    return arena.submit(world, seal(world.host, observed=with_telemetry(changed, seen)))


def _by_a_software_key(arena: Arena, *, kid: bool) -> Answer:
    world = arena.settled()
    key = software_key("in no TPM")

    def signer(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    named = cose.thumbprint(key.public_key())
    forgery = Forgery(signer=signer, kid=(lambda _: named) if kid else (lambda session: session))
    return arena.submit(world, seal(world.host, forgery))


# -- A57 ---------------------------------------------------------------------------------------------------------------


def case_001_signed_by_an_unattested_key(arena: Arena) -> Answer:
    return _by_a_software_key(arena, kid=True)


def case_002_signed_in_the_name_of_the_key(arena: Arena) -> Answer:
    return _by_a_software_key(arena, kid=False)


def case_003_signed_by_another_hosts_key(arena: Arena) -> Answer:
    world = arena.settled()
    other = arena.another_host(world)
    other.enrol(world.verifier)
    assert other.terms is not None
    named = other.terms.terms.telemetry_key
    return arena.submit(world, seal(world.host, Forgery(signer=other.tpm.sign, kid=lambda _: named)))


def case_004_header_names_another_key(arena: Arena) -> Answer:
    world = arena.settled()
    forgery = Forgery(header=lambda header: replace(header, telemetry_key=random_bytes("another key")))
    return arena.submit(world, seal(world.host, forgery))


# -- A58 ---------------------------------------------------------------------------------------------------------------


def case_005_of_another_session(arena: Arena) -> Answer:
    return _saying(arena, lambda said, _: replace(said, session=random_bytes("session")[:16]))


def case_006_of_an_earlier_window(arena: Arena) -> Answer:
    world = arena.settled(1)
    old = world.host.observe()
    world.window()
    return arena.submit(world, seal(world.host, observed=with_telemetry(old.telemetry, world.host.observe())))


def case_007_of_another_host(arena: Arena) -> Answer:
    world = arena.settled()
    other = arena.another_host(world)
    other.enrol(world.verifier)
    theirs = Telemetry.parse(other.observe().telemetry)
    ours = replace(theirs, session=world.host.session, seq=world.host.seq).encode()
    return arena.submit(world, seal(world.host, observed=with_telemetry(ours, world.host.observe())))


def case_008_verbatim_from_another_host(arena: Arena) -> Answer:
    world = arena.settled()
    other = arena.another_host(world)
    other.enrol(world.verifier)
    return arena.submit(
        world, seal(world.host, observed=with_telemetry(other.observe().telemetry, world.host.observe()))
    )


def case_009_exchanged_on_the_way(arena: Arena) -> Answer:
    world = arena.settled()
    said = Telemetry.parse(world.host.observe().telemetry)
    other = replace(said, sources=tuple(replace(item, start_wall_ns=item.start_wall_ns + 1) for item in said.sources))
    return arena.submit(world, seal(world.host, Forgery(telemetry=lambda _: other.encode())))


def case_010_device_left_out(arena: Arena) -> Answer:
    return _saying(arena, lambda said, _: replace(said, sources=said.sources[:1]))


def case_011_device_added(arena: Arena) -> Answer:
    def added(said: Telemetry, _: World) -> Telemetry:
        stranger = replace(said.sources[0], device=random_bytes("a device elsewhere"))
        return replace(said, sources=(*said.sources, stranger))

    return _saying(arena, added)


def case_012_device_twice(arena: Arena) -> Answer:
    return _saying(arena, lambda said, _: replace(said, sources=(*said.sources, said.sources[0])))


def case_013_none_at_all(arena: Arena) -> Answer:
    return _saying(arena, lambda said, _: replace(said, sources=()))


# -- what is no record at all ------------------------------------------------------------------------------------------


def _written(arena: Arena, change: Callable[[dict[int, Any]], None], *, floats: bytes = b"") -> Answer:
    """A window in whose telemetry the first device's map was changed; a ``_FLOAT`` in it becomes these bytes."""
    world = arena.settled()
    seen = world.host.observe()
    sources: Any = cbor.decode(
        Telemetry.parse(seen.telemetry).content(), limit=_CONTENT_MAX, what="content", typed_arrays=True
    )
    change(sources[0])
    content = cbor.encode(sources).replace(cbor.encode(_FLOAT), floats)
    return _unpacking_to(arena, world, content, size=len(content))


def _unpacking_to(arena: Arena, world: World, content: bytes, *, size: int) -> Answer:
    """A window whose telemetry is ``content``, and is said to be of ``size`` bytes."""
    data = {0: VERSION, 1: world.host.session, 2: world.host.seq, 3: size, 4: zstd.compress(content)}
    return arena.submit(world, seal(world.host, observed=with_telemetry(cbor.encode(data), world.host.observe())))


def _power(source: dict[int, Any], **fields: object) -> None:
    unit, deltas, missing, window = source[5]["power"]
    made = {"unit": unit, "deltas": deltas, "missing": missing, "window": window, **fields}
    source[5]["power"] = list(made.values())


def case_014_times_out_of_order(arena: Arena) -> Answer:
    return _written(arena, lambda source: source.update({4: TypedArray.of([0, 200, -100, *[100] * 7])}))


def case_015_a_time_twice(arena: Arena) -> Answer:
    return _written(arena, lambda source: source.update({4: TypedArray.of([0, 0, *[100_000_000] * 8])}))


def case_016_power_in_watts(arena: Arena) -> Answer:
    return _written(arena, lambda source: _power(source, unit="W"))


def case_017_ten_million_samples(arena: Arena) -> Answer:
    return _written(arena, lambda source: source.update({4: TypedArray(72, bytes([1]) * 10**7)}))


def case_018_a_reading_that_is_not_a_number(arena: Arena) -> Answer:
    return _written(arena, lambda source: _power(source, deltas=_FLOAT), floats=bytes.fromhex("f97e00"))


def case_019_a_reading_of_1e30(arena: Arena) -> Answer:
    return _written(arena, lambda source: _power(source, deltas=_FLOAT), floats=b"\xc2\x4d" + (10**30).to_bytes(13))


def case_020_readings_that_overflow(arena: Arena) -> Answer:
    return _written(arena, lambda source: _power(source, deltas=TypedArray.of([2**62] * 10)))


def case_021_unpacks_to_more_than_is_said(arena: Arena) -> Answer:
    return _unpacking_to(arena, arena.settled(), bytes(50_000_000), size=1000)


def case_022_a_window_of_no_length(arena: Arena) -> Answer:
    world = arena.settled()
    end = world.host.observe().interval.wall_end_ns
    return arena.submit(world, seal(world.host, interval(wall_start_ns=end)))


def case_023_a_name_that_a_terminal_obeys(arena: Arena) -> Answer:
    def obeyed(source: dict[int, Any]) -> None:
        source[5]["x\x1b[2J\nPASS all good"] = source[5]["utilisation"]

    return _written(arena, obeyed)
