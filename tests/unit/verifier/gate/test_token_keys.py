"""A gate takes keys for tokens by the word of the identity that it pinned, and by nobody else's."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from support.endorsed import FIRST, SECOND_KEY, endorsement, key_set
from support.relying import ANCHORS, NOON_NS, SECOND, STRANGER, A, B, Bench, gate_file, open_until, token
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.gate import token_keys as module
from weighbridge.verifier.gate.token_keys import KeyChange
from weighbridge.verifier.gate.verifiers import Verifiers
from weighbridge.verifier.result import issuing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec


def learned(*keys: tuple[ec.EllipticCurvePublicKey, bytes]) -> Bench:
    bench = Bench.make()
    bench.gate.learn(key_set(*keys))
    return bench


def kid(key: ec.EllipticCurvePrivateKey) -> bytes:
    return cose.thumbprint(key.public_key())


def test_a_key_that_the_identity_endorses_opens() -> None:
    bench = Bench.make()
    bench.affirm(key=FIRST)
    assert bench.code() == Code.TOKEN_SIGNATURE
    assert bench.gate.holder.lacks_key
    change = bench.gate.learn(key_set(endorsement(FIRST)))
    assert change == KeyChange(new=frozenset({kid(FIRST)}), gone=frozenset())
    # What was refused is not taken up again by itself: the verifier is asked anew.
    assert bench.code() == Code.TOKEN_SIGNATURE
    bench.affirm(key=FIRST)
    assert bench.code() is None
    assert not bench.gate.learn(key_set(endorsement(FIRST))).any


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        pytest.param([(FIRST.public_key(), b"")], Code.NOT_CBOR, id="an empty one"),
        pytest.param([endorsement(FIRST, by=STRANGER, forged=True)], Code.TOKEN_KEY_ENDORSEMENT, id="forged"),
        pytest.param([endorsement(FIRST, by=FIRST, forged=True)], Code.TOKEN_KEY_ENDORSEMENT, id="by itself"),
        pytest.param([(FIRST.public_key(), endorsement(SECOND_KEY)[1])], Code.TOKEN_MALFORMED, id="of another key"),
    ],
)
def test_a_set_with_a_false_statement_changes_nothing(
    keys: list[tuple[ec.EllipticCurvePublicKey, bytes]], code: Code
) -> None:
    bench = learned(endorsement(SECOND_KEY))
    with pytest.raises((NotAuthentic, MalformedEvidence)) as refusal:
        bench.gate.learn(key_set(*keys))
    assert refusal.value.code == code
    bench.affirm(key=FIRST)
    assert bench.code() == Code.TOKEN_SIGNATURE
    bench.affirm(seq=4, key=SECOND_KEY)
    assert bench.code() is None


def test_another_verifiers_key_and_one_without_a_statement_are_left_out() -> None:
    bench = Bench.make()
    assert not bench.gate.learn(key_set((FIRST.public_key(), None), endorsement(STRANGER, by=STRANGER))).any
    for key in (FIRST, STRANGER):
        bench.affirm(key=key)
        assert bench.code() == Code.TOKEN_SIGNATURE


def test_a_key_opens_only_in_its_period() -> None:
    bench = learned(endorsement(FIRST, since_ns=60 * SECOND, until_ns=120 * SECOND))
    bench.affirm(key=FIRST)
    assert bench.code() == Code.TOKEN_KEY_PERIOD
    bench.clocks.advance(60)
    bench.affirm(seq=4, key=FIRST)
    assert bench.code() is None
    bench.clocks.advance(61)
    bench.affirm(seq=5, key=FIRST)
    assert bench.code() == Code.TOKEN_KEY_PERIOD


def test_the_last_statement_about_a_key_counts() -> None:
    """The identity may say of a key that it ends sooner, and then later after all."""
    bench = learned(endorsement(FIRST, until_ns=120 * SECOND))
    bench.gate.learn(key_set(endorsement(FIRST, until_ns=30 * SECOND)))
    bench.clocks.advance(60)
    bench.affirm(seq=4, key=FIRST)
    assert bench.code() == Code.TOKEN_KEY_PERIOD
    change = bench.gate.learn(key_set(endorsement(FIRST, until_ns=120 * SECOND)))
    assert change == KeyChange(new=frozenset({kid(FIRST)}), gone=frozenset())
    bench.affirm(seq=5, key=FIRST)
    assert bench.code() is None


def test_a_key_whose_period_is_over_cannot_say_that_it_signed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has it signs an early time of issue, and a late expiry."""
    bench = learned(endorsement(FIRST, until_ns=0))
    bench.clocks.advance(121)
    monkeypatch.setattr(issuing, "expiry", lambda received, _: received + timedelta(hours=1))
    lasting = token(received_ns=NOON_NS, key=FIRST)
    told = open_until(bench.clocks.wall_ns, expires_ns=bench.clocks.wall_ns + 60 * SECOND)
    bench.hear(told, lasting)
    assert bench.code() == Code.TOKEN_KEY_PERIOD
    # Nor is it taken any more.
    assert Bench.make().gate.learn(key_set(endorsement(FIRST, until_ns=0))).new == {kid(FIRST)}
    late = Bench.make()
    late.clocks.advance(121)
    assert not late.gate.learn(key_set(endorsement(FIRST, until_ns=0))).any


def test_a_key_that_is_taken_out_closes_what_it_opened_and_nothing_else() -> None:
    bench = learned(endorsement(FIRST), endorsement(SECOND_KEY))
    bench.affirm(key=FIRST)
    bench.affirm(session=B, key=SECOND_KEY)
    assert bench.gate.learn(key_set(endorsement(SECOND_KEY))).gone == {kid(FIRST)}
    assert (bench.code(A), bench.code(B)) == (Code.TOKEN_SIGNATURE, None)
    bench.affirm(seq=4, key=FIRST)
    assert bench.code(A) == Code.TOKEN_SIGNATURE
    bench.affirm(seq=5)
    assert bench.code(A) is None, "the identity's own"


def test_an_old_key_set_brings_no_key_back() -> None:
    old = key_set(endorsement(FIRST))
    bench = Bench.make()
    bench.gate.learn(old)
    bench.gate.learn(key_set())
    assert not bench.gate.learn(old).any
    bench.affirm(key=FIRST)
    assert bench.code() == Code.TOKEN_SIGNATURE
    # Not by reading the gate's files again either, where nothing in them has changed.
    bench.gate.take(gate_file(), bench.verifiers)
    assert not bench.gate.learn(old).any


def test_a_replica_may_lack_a_key_before_its_time() -> None:
    announced = key_set(endorsement(FIRST, since_ns=60 * SECOND))
    bench = Bench.make()
    for expected in (True, False, True):
        bench.gate.learn(announced if expected else key_set())
        assert (kid(FIRST) in bench.gate.holder._trust.verifiers.keys) is expected


def test_learned_keys_stay_when_the_file_is_read_again_and_go_with_the_anchors() -> None:
    bench = learned(endorsement(FIRST))
    bench.affirm(key=FIRST)
    bench.gate.take(gate_file(), bench.verifiers)
    assert bench.code() is None
    bench.gate.take(gate_file(), Verifiers.of(ANCHORS, None))
    assert bench.code() == Code.RESULT_ABSENT
    bench.affirm(seq=4, key=FIRST)
    assert bench.code() == Code.TOKEN_SIGNATURE


def test_so_many_keys_are_taken_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 1)
    bench = learned(endorsement(FIRST))
    with pytest.raises(NotAuthentic) as refusal:
        bench.gate.learn(key_set(endorsement(FIRST), endorsement(SECOND_KEY)))
    assert refusal.value.code is Code.TOKEN_KEY_ENDORSEMENT
    bench.affirm(key=FIRST)
    assert bench.code() is None


def test_with_a_key_set_of_its_own_a_gate_asks_nobody() -> None:
    assert Bench.make().gate.asks_for_keys
    given = Verifiers.of(ANCHORS, key_set(endorsement(FIRST)))
    bench = Bench.make()
    bench.gate.take(gate_file(), given)
    assert not bench.gate.asks_for_keys
    bench.affirm(key=FIRST)
    assert bench.code() is None
