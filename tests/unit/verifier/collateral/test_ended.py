"""What has run out is forgotten, and no judgement gets better by it."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from fakes.ocsp_responder import AT, DAY, HOUR, Order, RevocableVendor, respond, revocation_list
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.verifier.collateral import Description, recognise
from weighbridge.verifier.collateral.ended import ended, taken
from weighbridge.verifier.gpu.revocation import Statements

VENDOR = RevocableVendor.create()
DEVICE = EmulatedH100.make(VENDOR.vendor)
CHAIN = [x509.load_der_x509_certificate(der) for der in DEVICE.keys.chain[1:3]]
SERIAL = CHAIN[0].serial_number


def piece(data: bytes) -> Description:
    (found,) = recognise(data, where="a test")
    return found


@cache
def response(status: str, begin: int, end: int | None, id_hash: str = "sha1", serial: int | None = None) -> Description:
    """What was said so many days before (or after) now, and until when."""
    until = None if end is None else AT + end * DAY
    order = Order(status=status, this_update=AT + begin * DAY, next_update=until, id_hash=id_hash, serial=serial)
    return piece(respond(CHAIN[0], VENDOR.provisioner, order))


@cache
def listed(begin: int, end: int, reason: x509.ReasonFlags | None = None) -> Description:
    revoked: dict[int, x509.ReasonFlags | None] = {} if reason is None else {SERIAL: reason}
    return piece(revocation_list(VENDOR.provisioner, revoked, this_update=AT + begin * DAY, next_update=AT + end * DAY))


GONE = response("good", -3, -2)
HOLD = x509.ReasonFlags.certificate_hold


@pytest.mark.parametrize(
    "beside",
    [
        (),
        (response("good", -1, 1),),
        (response("good", -9, 1),),
        (response("unknown", -1, 1),),
        (response("hold", -9, -8, serial=7),),
        (response("revoked", -2, -1),),
        (listed(-9, 9),),
    ],
)
def test_an_answer_that_is_over_goes(beside: tuple[Description, ...]) -> None:
    assert ended([GONE, *beside], AT) == (GONE,)
    assert ended([*beside, GONE], AT - 3 * DAY + HOUR) == ()


def test_what_has_no_end_or_takes_trust_away_stays() -> None:
    staying = [response("good", -3, None), response("hold", -3, -2), response("revoked", -3, -2), listed(-3, -2, HOLD)]
    assert ended(staying, AT) == ()
    manifests = [piece(data) for data in VENDOR.vendor.rims(DEVICE.firmware)]
    assert ended(manifests, AT + 10_000 * DAY) == ()


@pytest.mark.parametrize(
    ("own", "beside"),
    [
        # It ends a hold, however the certificate is named there.
        (GONE, response("hold", -9, -8)),
        (GONE, response("hold", -9, -8, id_hash="sha256")),
        (GONE, response("unknown", -9, 1)),
        # It hides what says good.
        (response("unknown", -3, -2), response("good", -9, 1)),
        (response("unknown", -3, -2), response("good", -3, 1)),
        (response("unknown", -3, -2), listed(-9, 9)),
        # The list has released what is on hold in another.
        (listed(-3, -2), listed(-9, -8, HOLD)),
    ],
)
def test_what_replaces_something_that_stays_does_so_when_it_is_over(own: Description, beside: Description) -> None:
    assert ended([own, beside, listed(-1, 1)], AT) == ()


def test_what_it_replaced_goes_too() -> None:
    unknown, good = response("unknown", -3, -2), response("good", -9, -1)
    assert ended([unknown, good], AT) == (good, unknown)
    # And stays with it, where something else stays.
    held = response("hold", -20, -19)
    assert ended([unknown, good, held], AT) == ()


def test_lists() -> None:
    old, older, newest = listed(-5, -4), listed(-7, -6), listed(-3, -2)
    assert ended([old, newest, older], AT) == (older, old)
    # What claims to be of tomorrow replaces nothing.
    assert ended([newest, listed(1, 30)], AT) == ()
    stranger = piece(revocation_list(VENDOR.root, this_update=AT - HOUR))
    assert ended([newest, stranger], AT) == ()
    assert ended([listed(-3, 3), listed(-1, 30)], AT) == ()


def test_a_naive_time() -> None:
    with pytest.raises(ValueError, match="naive"):
        ended([], datetime(2026, 6, 1))  # noqa: DTZ001 - the refusal


_DAYS = st.integers(-4, 2)
_RESPONSES = st.builds(
    lambda status, begin, length, id_hash: response(status, begin, begin + length, id_hash),
    st.sampled_from(["good", "unknown", "hold", "revoked"]),
    _DAYS,
    st.integers(1, 6),
    st.sampled_from(["sha1", "sha256"]),
)
_LISTS = st.builds(
    lambda begin, length, reason: listed(begin, begin + length, reason),
    _DAYS,
    st.integers(1, 6),
    st.sampled_from([None, HOLD, x509.ReasonFlags.key_compromise]),
)


@given(st.lists(_RESPONSES | _LISTS, max_size=6), st.integers(0, 4))
def test_no_judgement_gets_better(pieces: list[Description], later: int) -> None:
    """Nor is anybody refused by it who was not."""

    def judged(kept: list[Description], at: datetime) -> str:
        of = {kind: [each.item.data for each in kept if each.kind == kind] for kind in ("ocsp", "crl")}
        return Statements.of(of["ocsp"], of["crl"]).judge(CHAIN, at=at).links[0].status

    going = ended(pieces, AT)
    at = AT + later * DAY + timedelta(minutes=1)
    before = judged(pieces, at)
    after = judged([each for each in pieces if each not in going], at)
    assert after == before or (before in ("stale", "unknown") and after in ("stale", "unknown", "absent"))
    assert not any(taken(each, [other for other in pieces if other not in going]) for each in going)


# -- what a piece took away --------------------------------------------------------------------------------------------


def test_what_a_named_piece_took_away() -> None:
    assert taken(GONE, [response("hold", -9, -8)]) == ""
    assert taken(response("revoked", -3, -2), [GONE]) == "revoked"
    assert taken(response("hold", -3, -2), [GONE]) == "on hold"
    unknown = response("unknown", -3, -2)
    for hidden in (response("good", -9, 1), response("good", -9, 1, "sha256"), listed(-9, 9)):
        assert taken(unknown, [hidden]) == "unknown, which hid an older statement that may say good"
    manifest = piece(VENDOR.vendor.rims(DEVICE.firmware)[0])
    assert taken(unknown, [response("good", -1, 1), response("hold", -9, -8), listed(-1, 1), manifest]) == ""


def test_what_a_named_list_took_away() -> None:
    own = listed(-9, -8, HOLD)
    assert taken(own, [listed(-1, 1)]) == "number 7, 1 revoked"
    says_too = "number 7, 1 revoked, as the list of 2026-05-31 says too, if that is genuine"
    assert taken(own, [listed(-1, 1, HOLD)]) == says_too
    compromised = listed(-1, 1, x509.ReasonFlags.key_compromise)
    assert taken(own, [compromised]) == says_too
    # An older list, or one that only holds, does not say so.
    assert taken(compromised, [own]) == taken(compromised, [listed(-1, 1, HOLD)]) == "number 7, 1 revoked"


def test_what_a_manifest_took_away() -> None:
    newest, older = (piece(VENDOR.vendor.rims(DEVICE.firmware)[0]) for _ in range(2))
    newest, older = sorted((newest, older), key=lambda each: each.issued, reverse=True)
    assert taken(newest, [older]) == f"it replaced the issue of {older.issued:%Y-%m-%d}"
    assert taken(newest, []) == ""
