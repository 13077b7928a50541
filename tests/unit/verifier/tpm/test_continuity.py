"""From quote to quote: not reset, not restarted, the clock goes on, the firmware stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.soft_tpm import SoftTpm
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.tpm import public
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.tpm.ak import AttestationKey, pinned
from weighbridge.verifier.tpm.continuity import check_continuity
from weighbridge.verifier.tpm.quote import VerifiedQuote, verify_quote

if TYPE_CHECKING:
    from fakes.enrolled_tpm import EnrolledTpm

OURS = b"H" * 32


def quote(enrolled: EnrolledTpm, **forged: object) -> VerifiedQuote:
    with enrolled.tpm.forging(**forged) as tpm:
        evidence = tpm.quote(enrolled.selection, OURS)
    return verify_quote(evidence, enrolled.ak, qualifying_data=OURS, selection=enrolled.selection)


def test_an_undisturbed_session(enrolled: EnrolledTpm) -> None:
    first, second, third = (quote(enrolled) for _ in range(3))
    check_continuity(first=first, previous=first, current=second)
    check_continuity(first=first, previous=second, current=third)
    # Counts are numbers, and no two of them the same object.
    many = [quote(enrolled, reset_count=70_000, restart_count=70_000) for _ in range(2)]
    check_continuity(first=many[0], previous=many[0], current=many[1])


def test_a_reset_and_the_same_pcrs_again(enrolled: EnrolledTpm) -> None:
    """A49."""
    first = quote(enrolled)
    pcrs = enrolled.tpm.pcrs
    enrolled.tpm.reset()
    enrolled.tpm.pcrs, enrolled.tpm.clock, enrolled.tpm.safe = pcrs, 9_000, True
    with pytest.raises(NotAuthentic) as caught:
        check_continuity(first=first, previous=first, current=quote(enrolled))
    assert caught.value.code is Code.TPM_RESET


@pytest.mark.parametrize(
    ("forged", "code"),
    [
        ({"reset_count": 2}, Code.TPM_RESET),
        ({"reset_count": 0}, Code.TPM_RESET),
        ({"restart_count": 1}, Code.TPM_RESET),
        ({"firmware": 1}, Code.TPM_FIRMWARE),
        ({"firmware": 2**64 - 1}, Code.TPM_FIRMWARE),
        ({"safe": 0}, Code.TPM_CLOCK),
        ({"clock": 1_010}, Code.TPM_CLOCK),
        ({"clock": 1_009}, Code.TPM_CLOCK),
        ({"clock": 0}, Code.TPM_CLOCK),
    ],
    ids=["reset", "reset-back", "restart", "firmware", "newer", "unsafe", "same", "back", "zero"],
)
def test_each_interruption(enrolled: EnrolledTpm, forged: dict[str, object], code: Code) -> None:
    """A49, A50: each signed by the AK itself."""
    first = quote(enrolled)
    assert first.clock == 1_010
    with pytest.raises(NotAuthentic) as caught:
        check_continuity(first=first, previous=first, current=quote(enrolled, **forged))
    assert caught.value.code is code


def test_the_clock_is_compared_with_the_last_quote(enrolled: EnrolledTpm) -> None:
    """A50: a snapshot restored to a time after the first quote, before the last."""
    first, second = quote(enrolled), quote(enrolled, clock=5_000)
    with pytest.raises(NotAuthentic) as caught:
        check_continuity(first=first, previous=second, current=quote(enrolled, clock=4_000))
    assert caught.value.code is Code.TPM_CLOCK


def test_quotes_of_two_tpms_are_misuse(enrolled: EnrolledTpm) -> None:
    other = SoftTpm("other")
    ak = public.parse(other.attestation_key())
    anchor = Anchor(
        purpose="attestation-key",
        name="other",
        platform="tpm",
        spki=ak.spki(),
        not_before=enrolled.tpm.authority.root.not_valid_before_utc,
        not_after=enrolled.tpm.authority.root.not_valid_after_utc,
        source="a test",
    )
    verified = pinned(AttestationKey(ak), TrustAnchors((anchor,)), at=anchor.not_before)
    foreign = verify_quote(
        other.quote(enrolled.selection, OURS), verified, qualifying_data=OURS, selection=enrolled.selection
    )
    with pytest.raises(ValueError, match="different attestation keys"):
        check_continuity(first=quote(enrolled), previous=foreign, current=foreign)
