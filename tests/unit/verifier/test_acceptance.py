"""What owners accept and revoke: one model's word is not another's, and time ends an acceptance but no revocation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from weighbridge.policy.values.host_sets import HostSet
from weighbridge.policy.values.owner_sets import ModelValue, OwnerSet, RevokedValue
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code
from weighbridge.verifier.acceptance import denials, host_denials, sticking

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LOW, MODEL, HIGH = ("10" * 32, "55" * 32, "f0" * 32)
NONE_OWN = Reference({}, {}, {})
LISTING = OwnerSet(
    owner="Acme",
    number=1,
    digest="11" * 32,
    not_before=AT - DAY,
    not_after=AT + DAY,
    models=tuple(ModelValue(item, "a model") for item in (LOW, MODEL, HIGH)),
    revoked=(),
)
EXPIRED = replace(LISTING, number=2, not_after=AT - timedelta(seconds=1))


def told(*sets: OwnerSet, own: Reference = NONE_OWN, at: datetime = AT) -> list[tuple[str, str | None]]:
    found = denials(own.with_sets(sets), [bytes.fromhex(MODEL)], at=at, window=7)
    assert all(item.window == 7 for item in found)
    return [(item.code, item.got) for item in found]


def test_a_model_is_revoked_and_not_its_neighbours() -> None:
    revoking = replace(LISTING, revoked=tuple(RevokedValue(item, "leaked", AT) for item in (HIGH, LOW)))
    assert told(revoking) == []
    revoking = replace(revoking, revoked=(*revoking.revoked, RevokedValue(MODEL, "leaked", AT)))
    assert told(revoking) == [(Code.MODEL_REVOKED, MODEL)]


def test_a_revocation_outlives_its_set_and_outweighs_everybody() -> None:
    revoking = replace(EXPIRED, owner="Beta", models=(), revoked=(RevokedValue(MODEL, "leaked", AT),))
    assert told(LISTING, revoking, own=Reference({MODEL: "ours"}, {}, {})) == [(Code.MODEL_REVOKED, MODEL)]


def test_of_several_revocations_the_first_is_told_and_its_reason_is_cut() -> None:
    first, second, third = (
        replace(LISTING, owner=owner, models=(), revoked=(RevokedValue(MODEL, reason, AT),))
        for owner, reason in (("Acme", "x" * 257), ("Beta", "leaked"), ("Zeta", "stolen"))
    )
    (denial,) = denials(NONE_OWN.with_sets([third, second, first]), [bytes.fromhex(MODEL)] * 2, at=AT, window=0)
    assert denial.message == f"Acme has revoked the model: {'x' * 244}… (257 chars)"
    whole = replace(first, revoked=(RevokedValue(MODEL, "x" * 256, AT),))
    (denial,) = denials(NONE_OWN.with_sets([whole]), [bytes.fromhex(MODEL)], at=AT, window=0)
    assert denial.message.endswith("x" * 256)


def test_an_acceptance_ends_with_the_last_set_that_lists_the_model() -> None:
    assert told(EXPIRED) == [(Code.MODEL_EXPIRED, "2026-06-01T00:00:00Z")]
    assert told(EXPIRED, LISTING) == []
    assert told(LISTING, at=LISTING.not_after) == []
    assert told(LISTING, at=LISTING.not_before - timedelta(seconds=1)) == [
        (Code.MODEL_EXPIRED, "2026-05-30T23:59:59Z"),
    ]


def test_an_expired_set_says_nothing_of_a_model_that_it_does_not_list() -> None:
    """Nobody lists it: whether it may run is the policy's business."""
    assert told(replace(EXPIRED, models=(ModelValue(LOW, "a"), ModelValue(HIGH, "b")))) == []
    assert told() == []


def test_what_the_relying_party_accepts_itself_does_not_expire() -> None:
    assert told(EXPIRED, own=Reference({MODEL: "ours"}, {}, {})) == []


def test_a_host_that_only_an_expired_set_accepts_is_refused() -> None:
    names = frozenset({"sha256:" + "aa" * 32})
    hosts = HostSet(
        owner="rack owner",
        name="rack",
        number=3,
        digest="22" * 32,
        not_before=AT - 2 * DAY,
        not_after=AT - DAY,
        pcrs={0: (bytes(32),)},
        firmware=None,
        files=names,
        attester=names,
    )
    (denial,) = host_denials(hosts, at=AT, window=7)
    assert (denial.code, denial.window, denial.got) == (Code.HOST_SET_EXPIRED, 7, "2026-06-01T00:00:00Z")
    assert denial.expected == "2026-05-30T00:00:00Z..2026-05-31T00:00:00Z"
    assert host_denials(None, at=AT, window=7) == ()


def test_the_first_code_that_speaks_against_the_host_sticks() -> None:
    """Neither what the policy says of something else, nor an owner who signs late: :data:`NOT_OF_THE_HOST`."""
    harmless = [("HOLIDAY", False), (Code.MODEL_EXPIRED.value, True)]
    assert sticking(harmless) is None
    assert sticking([*harmless, ("RUDE", True), ("LATER", True)]) == "RUDE"
