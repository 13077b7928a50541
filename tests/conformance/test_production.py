"""The production policy admits what its reader wrote down that it trusts, and no emulated platform ever.

A forged hierarchy, of TPM and GPU vendors of our own, is admitted when its anchors are passed in as genuine platforms:
only so can the admitting path of production be shown without such hardware. The emulated devices that come with the
package are never that: their platform has another name, and the anchors that are shipped know none of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from corpus.bundle import Exported, export
from corpus.policy import genuine
from support.world import EMULATED
from weighbridge.policy.values.reference import CHECKS
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.verifier import anchors, result_token
from weighbridge.verifier.anchors import EMULATED_PLATFORM

if TYPE_CHECKING:
    from corpus.arena import Arena, Options
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.core import Answer


def first_window(arena: Arena, options: Options) -> Answer:
    world = arena.world(**options)
    world.open_session()
    return world.window()


def codes(answer: Answer) -> set[str]:
    assert (answer.verdict.outcome, answer.token) == ("denied", None)
    return {denial.code for denial in answer.verdict.denials}


def test_a_forged_hierarchy_is_admitted_with_its_anchors_passed_in(arena: Arena) -> None:
    world = arena.settled(3, **genuine())
    answer = world.window()
    assert answer.verdict.opens
    assert answer.token is not None
    key = world.keys.signing.public_key()
    token = result_token.verify(answer.token, key, audience="relying-party", at=world.clock.at)
    # Never better while it is not proven which code attested the weights: the reason is in the token.
    assert token.status == "warning"
    token.require_upstream(world.host.cnf)
    assert Exported(arena.engines, world, export(world)).verify(policy="production").admitted


def test_what_is_not_proven_stands_in_every_token_by_its_written_reason(arena: Arena) -> None:
    answer = first_window(arena, genuine())
    decision = answer.verdict.decision
    assert decision is not None
    # Of a confidential machine there is nothing to judge.
    assert {item.check for item in decision.unchecked} == set(CHECKS) - {"platform_tcb"}
    assert {item.reason for item in decision.unchecked} == {"accepted in this test, for the test's sake"}


@pytest.mark.parametrize("platforms", [(EMULATED, "nvidia"), ("tpm", EMULATED), (EMULATED, EMULATED)])
def test_no_emulated_platform_is_admitted(arena: Arena, platforms: tuple[str, str]) -> None:
    assert EMULATED == EMULATED_PLATFORM
    assert codes(first_window(arena, genuine(platforms=platforms))) == {"PLATFORM_EMULATED"}


def test_no_emulated_sensor_is_admitted(arena: Arena) -> None:
    assert codes(first_window(arena, genuine(source="emulated"))) == {"PLATFORM_EMULATED"}


@pytest.mark.parametrize("platforms", [("another", "nvidia"), ("tpm", "another"), ("nvidia", "tpm"), ("", "")])
def test_a_platform_of_another_name_is_not_genuine_either(arena: Arena, platforms: tuple[str, str]) -> None:
    assert "PLATFORM_EMULATED" in codes(first_window(arena, genuine(platforms=platforms)))


@pytest.mark.parametrize("check", sorted(set(CHECKS) - {"platform_tcb"}))
def test_every_check_that_is_left_out_needs_its_reason(arena: Arena, check: str) -> None:
    def without(made: Reference) -> Reference:
        return replace(made, unchecked={key: text for key, text in made.unchecked.items() if key != check})

    expected = {"gpu_revocation": "GPU_REVOCATION_UNKNOWN", "telemetry_baseline": "TELEMETRY_NO_BASELINE"}
    assert codes(first_window(arena, genuine(reference=without))) == {expected.get(check, "UNPROVEN")}


def test_no_reference_value_is_a_denial(arena: Arena) -> None:
    """A63: of the GPU, and of the model."""
    for missing, code in (("gpu_measurements", "GPU_REFERENCE_ABSENT"), ("models", "REFERENCE_ABSENT")):
        options = genuine(reference=lambda made, missing=missing: replace(made, **{missing: {}}))
        assert codes(first_window(arena, options)) == {code}


def test_the_shipped_anchors_trust_no_emulated_hierarchy(arena: Arena) -> None:
    shipped = anchors.default()
    assert all(anchor.platform != EMULATED_PLATFORM for anchor in shipped.anchors)
    world = arena.world(**genuine(anchors=shipped))
    with pytest.raises(NotAuthentic) as refusal:
        world.host.enrol(world.verifier)
    assert refusal.value.code is Code.CHAIN_UNTRUSTED


def test_an_affirmed_session_of_development_is_nothing_to_production(arena: Arena) -> None:
    world = arena.settled(2)
    made = Exported(arena.engines, world, export(world))
    assert made.verify().admitted
    assert not made.verify(policy="production").admitted


def test_an_audit_admits_no_session_that_production_admits(arena: Arena) -> None:
    """And says of it what production says: nothing that it would deny, and whom it trusts."""
    world = arena.settled(2, **genuine())
    made = Exported(arena.engines, world, export(world))
    admitted, audited = made.verify(policy="production"), made.verify(policy="audit_only")
    assert (admitted.admitted, audited.admitted) == (True, False)
    for before, verdict in zip(admitted.verdicts, audited.verdicts, strict=True):
        assert [denial.code for denial in verdict.denials] == [Code.AUDIT_ONLY]
        assert before.decision is not None
        assert verdict.decision is not None
        assert verdict.decision.unchecked == before.decision.unchecked
        more = {*verdict.decision.warnings} - {*before.decision.warnings}
        assert [advice.code for advice in more] == [Code.HOST_TRUSTED]
