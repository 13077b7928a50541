"""A host is compared with host sets: which matches, and how the nearest differs."""

from __future__ import annotations

from datetime import datetime

from support.host_owners import HostOwner, accepted
from support.owners import DAY
from support.world import NOON
from weighbridge.policy.values.host_sets import HostSet
from weighbridge.proto.host_set import AcceptedFile
from weighbridge.verifier import host_set
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.host_match import Differing, HostMatch, matches

OWNER = HostOwner()
A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
QUOTED = {0: A, 4: B, 7: C, 10: A}


def match(hosts: list[HostSet], pcrs: dict[int, bytes], firmware: int, at: datetime) -> HostMatch:
    """The only answer there is."""
    (found,) = matches(hosts, pcrs, firmware, at)
    return found


def values(
    pcrs: dict[int, list[bytes]],
    *,
    name: str = "gpu-node",
    firmware: tuple[int, ...] | None = None,
    days: int = 10,
    files: tuple[AcceptedFile, ...] = (),
    number: int = 1,
) -> HostSet:
    content = OWNER.content(pcrs, name=name, firmware=firmware, not_after=NOON + days * DAY, files=files, number=number)
    return host_set.verify(OWNER.sign(content), anchors=TrustAnchors((OWNER.anchor(),))).values


def test_every_register_of_the_set_has_an_accepted_value() -> None:
    host = values({0: [A, B], 7: [C]}, firmware=(5, 6))
    found = match([host], QUOTED, 5, NOON)
    assert (found.status, found.host, found.differing, found.reasons()) == ("match", host, (), ())


def test_without_a_set_nothing_is_compared() -> None:
    found = match([], QUOTED, 5, NOON)
    assert (found.status, found.host) == ("absent", None)
    assert found.reasons() == ("there is no host set to compare with",)


def test_a_register_that_differs_or_was_not_quoted_is_named() -> None:
    host = values({0: [B, C], 7: [C], 9: [A]})
    found = match([host], QUOTED, 5, NOON)
    assert (found.status, found.host) == ("mismatch", host)
    assert found.differing == (Differing(0, (B, C), A), Differing(9, (A,), None))
    assert found.reasons() == (
        f"PCR 0 is {A.hex()}, not one of 2 accepted values",
        f"PCR 9 is not quoted, not {A.hex()}",
    )


def test_values_of_another_bank_match_nothing() -> None:
    assert match([values({0: [A]})], {0: A + A[:16]}, 5, NOON).status == "mismatch"


def test_firmware_and_time_are_compared_too() -> None:
    host = values({0: [A]}, firmware=(6,), days=1)
    found = match([host], QUOTED, 5, NOON + 2 * DAY)
    assert (found.status, found.differing, found.firmware, found.outside) == ("mismatch", (), 5, NOON + 2 * DAY)
    assert [reason.split()[0] for reason in found.reasons()] == ["the", "the"]
    assert found.expired is None
    late, other = match([host], QUOTED, 6, NOON + 2 * DAY), match([host], QUOTED, 5, NOON)
    assert (late.status, late.expired) == ("mismatch", host)
    assert (other.status, other.expired) == ("mismatch", None)
    assert match([host], {0: B}, 6, NOON + 2 * DAY).expired is None
    assert match([host], QUOTED, 6, NOON + DAY).status == "match"
    assert match([host], QUOTED, 6, NOON - 2 * DAY).status == "mismatch"


def test_the_nearest_explains() -> None:
    far, near = values({0: [C], 4: [C], 7: [A]}, name="far"), values({0: [A], 4: [C]}, name="near")
    assert match([far, near], QUOTED, 5, NOON).host == near
    assert match([near, far], QUOTED, 5, NOON).host == near
    # As near as each other: the one that says more.
    vague = values({4: [C]}, name="a")
    assert match([vague, near], QUOTED, 5, NOON).host == near


def test_every_set_that_matches_is_told_those_that_say_most_first() -> None:
    """Whatever the order of the sets: by what they say of a host, then by their names."""
    other, own = accepted("sh"), accepted("weighbridge", attester=True)
    ordered = [
        values({0: [A], 4: [B], 7: [C]}, name="z"),
        values({0: [A], 7: [C]}, name="y", files=(other, own)),
        values({0: [A], 7: [C]}, name="x", files=(other,)),
        values({0: [A], 7: [C]}, name="w", firmware=(5,)),
        values({0: [A]}, name="b", number=3),
        values({0: [A]}, name="b", number=2),
        values({7: [C]}, name="c"),
    ]
    mismatch = values({0: [A], 4: [B], 7: [A], 9: [A]}, name="a")
    for hosts in ([*ordered, mismatch], [mismatch, *reversed(ordered)]):
        found = matches(hosts, QUOTED, 5, NOON)
        assert [(each.status, each.host) for each in found] == [("match", host) for host in ordered]
