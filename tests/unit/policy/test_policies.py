"""The shipped policies: each rule denies and admits; no missing or strange field makes an admission of a denial."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.policy_cases import (
    ALWAYS,
    DIFFERENCE,
    EMULATED,
    PRODUCTION,
    SUBSTITUTES,
    Change,
    gpu,
    kind_at,
    mutate,
    places,
    platform,
    recorded,
    source,
    tee,
    telemetry,
    weights,
)
from weighbridge.policy import document as doc
from weighbridge.policy.claims import trust_claims
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicySet
from weighbridge.policy.values.reference import CHECKS, Reference
from weighbridge.proto.errors import Code

Prepare = Callable[..., PreparedPolicy]
ADMITTED: dict[str, Change] = {
    "as it is": lambda d: d,
    "mode on": gpu(cc_mode_host_claim="on"),
    "a switch between them": gpu(kind="switch", signed_locked=True, fwid="missing", driver=None),
    "a switch whose firmware is named": gpu(kind="switch", signed_locked=True),
    "the makers' word": gpu(
        reference_by="manifests", manifests=(doc.GpuManifest("driver", "550", "2026-01-01T00:00:00Z", "ee" * 32),)
    ),
    "everybody's word": gpu(reference_by="both"),
    "a measurement that nobody knows": gpu(uncovered=(42,)),
    "as new as is accepted": gpu(minimum="met"),
    "protected PCIe": gpu(signed_protected_pcie=True, signed_feature="ppcie"),
    "not reported in this window": gpu(reported_in_window=False),
    "telemetry of the host": source("host"),
    "no telemetry source": telemetry(sources=()),
    "telemetry in the baseline": recorded("in_baseline"),
    "telemetry that does not suffice": recorded("unusable"),
    "telemetry without a baseline": recorded("no_baseline"),
    "revocation known": gpu(revocation="good"),
    "revocation stale": gpu(revocation="stale"),
    "pinned key": platform(kind="tpm-pinned-ak", name="tpm", firmware=None, state_held_by="unknown", tee=doc.Tee()),
    "certified TPM": platform(kind="tpm-ek-credential", name="tpm", state_held_by="tpm", tee=doc.Tee()),
    "TDX": platform(name="intel-tdx", tee=doc.Tee("tdx", tcb_status="UpToDate")),
    "TDX with hardening": platform(name="intel-tdx", tee=doc.Tee("tdx", tcb_status="SWHardeningNeeded")),
    "Turin": tee(product="Turin", alias_check="complete"),
    "booted as accepted": platform(boot_reference="match", host="rack"),
    "the clock is not safe yet": platform(clock_safe=False),
    "what ran is known": lambda d: replace(d, runtime=doc.Runtime(present=True, entries=9)),
    "a gap": lambda d: replace(d, gap=doc.Gap(4, "2026-11-22T11:59:00Z")),
}


@pytest.mark.parametrize("change", ADMITTED.values(), ids=ADMITTED)
def test_production_admits(prepared: Prepare, good: doc.PolicyInput, change: Change) -> None:
    decision = prepared("production").decide(change(good))
    assert decision.outcome == "allow", decision
    assert decision.allowed


@pytest.mark.parametrize("change", ADMITTED.values(), ids=ADMITTED)
@pytest.mark.parametrize("which", ["good", "emulated"])
def test_development_admits(prepared: Prepare, request: pytest.FixtureRequest, which: str, change: Change) -> None:
    decision = prepared("insecure_development").decide(change(request.getfixturevalue(which)))
    assert decision.outcome == "allow", decision
    assert all(entry.reason.startswith("insecure: ") for entry in decision.unchecked)
    assert {entry.check for entry in decision.unchecked} >= {"attester_code", "host_binding", "secure_boot"}


@pytest.mark.parametrize(("code", "change"), (ALWAYS | PRODUCTION).values(), ids=ALWAYS | PRODUCTION)
def test_production_denies(prepared: Prepare, good: doc.PolicyInput, code: Code, change: Change) -> None:
    decision = prepared("production").decide(change(good))
    assert decision.outcome == "deny"
    assert code in {denial.code for denial in decision.denials}
    assert all(denial.window == 3 for denial in decision.denials)
    assert not decision.allowed


@pytest.mark.parametrize(("code", "change"), ALWAYS.values(), ids=ALWAYS)
def test_development_denies_all_that_is_not_about_platforms(
    prepared: Prepare, emulated: doc.PolicyInput, code: Code, change: Change
) -> None:
    decision = prepared("insecure_development").decide(change(emulated))
    assert decision.outcome == "deny"
    assert code in {denial.code for denial in decision.denials}


def test_a_denial_says_where_and_what(prepared: Prepare, good: doc.PolicyInput) -> None:
    (denial,) = prepared("production").decide(gpu(reference="mismatch")(good)).denials
    assert denial.device == good.gpus[1].identity
    assert (denial.expected, denial.got) == ("match", "mismatch")
    assert denial.hint is not None
    assert "gpu_measurements" in denial.hint


def test_absent_and_mismatching_references_are_different_denials(prepared: Prepare, good: doc.PolicyInput) -> None:
    """facts §6-4: who lacks a reference value must not be sent looking for a changed driver."""
    absent = prepared("production").decide(gpu(reference="absent")(good))
    assert [denial.code for denial in absent.denials] == [Code.GPU_REFERENCE_ABSENT]


def test_a_device_that_its_maker_contradicts_is_refused_by_index_owner_and_cause(
    prepared: Prepare, good: doc.PolicyInput
) -> None:
    """A19: what an operator needs to find out whether a driver was changed or a manifest is old."""
    other = replace(DIFFERENCE, index=9, owner="vbios", name="Vbios", got=None, causes="no measurement")
    document = gpu(reference="mismatch", mismatches=2, differences=(DIFFERENCE, other))(good)
    first, second = sorted(prepared("production").decide(document).denials, key=lambda denial: denial.message)
    assert first.message == "measurement 22 (Driver) is not what the driver's manifest says"
    assert (first.code, first.device) == (Code.GPU_MEASUREMENT_MISMATCH, good.gpus[1].identity)
    assert (first.expected, first.got) == ('["aa","bb"]', "cc")
    assert first.hint == "known causes: another build; or devtools"
    assert second.message == "measurement 9 (Vbios) is not what the vbios's manifest says"
    assert second.got is None


def test_what_is_too_old_is_said_with_its_versions(prepared: Prepare, good: doc.PolicyInput) -> None:
    (denial,) = prepared("production").decide(gpu(minimum="below")(good)).denials
    assert (denial.code, denial.got) == (Code.GPU_OUTDATED, "driver 550, VBIOS 96")
    assert denial.hint


def test_the_manifests_that_are_missing_are_named(prepared: Prepare, good: doc.PolicyInput) -> None:
    (denial,) = prepared("production").decide(gpu(reference="absent", missing=("NV_GPU_DRIVER_X",))(good)).denials
    assert "NV_GPU_DRIVER_X" in (denial.hint or "")
    assert "weighbridge collateral" in (denial.hint or "")


def test_development_names_the_emulated_platform(prepared: Prepare, emulated: doc.PolicyInput) -> None:
    entries = prepared("insecure_development").decide(emulated).unchecked
    assert "platform" in {entry.check for entry in entries}
    entries = prepared("insecure_development").decide(replace(emulated, gpus=emulated.gpus[:1])).unchecked
    assert "platform" in {entry.check for entry in entries}


@pytest.mark.parametrize("where", ["platform", "gpu", "telemetry"])
def test_one_emulated_part_is_named(prepared: Prepare, good: doc.PolicyInput, where: str) -> None:
    change = {"platform": platform(name=EMULATED), "gpu": gpu(platform=EMULATED), "telemetry": source(EMULATED)}[where]
    policy = prepared("insecure_development")
    assert "platform" in {entry.check for entry in policy.decide(change(good)).unchecked}
    assert "platform" not in {entry.check for entry in policy.decide(good).unchecked}


# ---------- unproven checks

Protection = Literal["none", "fs-verity", "dm-verity", "guarded"]

CODES = {
    "attester_code": Code.UNPROVEN,
    "secure_boot": Code.UNPROVEN,
    "host_binding": Code.UNPROVEN,
    "boot_reference": Code.UNPROVEN,
    "platform_tcb": Code.UNPROVEN,
    "gpu_revocation": Code.GPU_REVOCATION_UNKNOWN,
    "load_binding": Code.UNPROVEN,
    "telemetry_baseline": Code.TELEMETRY_NO_BASELINE,
}

PROVEN: dict[str, Change] = {
    "attester_code": lambda d: replace(d, attester_code=doc.AttesterCode("proven")),
    "secure_boot": platform(secure_boot="proven", kernel_lockdown="proven"),
    "host_binding": platform(host_binding="proven"),
    "boot_reference": platform(boot_reference="match", host="rack", host_binding="proven"),
    "platform_tcb": tee(alias_check="complete"),
    "gpu_revocation": lambda d: replace(d, gpus=tuple(replace(gpu, revocation="good") for gpu in d.gpus)),
    "load_binding": lambda d: bound(d, "guarded"),
    "telemetry_baseline": recorded("in_baseline"),
}


def bound(document: doc.PolicyInput, *protections: Protection) -> doc.PolicyInput:
    """With one loaded model for each protection."""
    (model,) = document.weights.loaded
    models = tuple(replace(model, protection=protection) for protection in protections)
    return replace(document, weights=replace(document.weights, loaded=models))


def others(check: str) -> dict[str, str]:
    return {other: f"left out for this test: {other}" for other in CHECKS if other != check}


@pytest.mark.parametrize("check", CHECKS)
def test_unproven_without_a_reason_is_denied(
    prepared: Prepare, reference: Callable[..., Reference], good: doc.PolicyInput, check: str
) -> None:
    policy = prepared("production", reference(unchecked=others(check)))
    decision = policy.decide(good)
    assert [denial.code for denial in decision.denials] == [CODES[check]]
    assert check in (decision.denials[0].hint or "")
    proven = policy.decide(PROVEN[check](good))
    assert proven.outcome == "allow", proven
    assert check not in {entry.check for entry in proven.unchecked}


WORDS: dict[doc.TelemetryVerdict, list[Code]] = {
    "in_baseline": [],
    "unusable": [Code.TELEMETRY_UNUSABLE],
    "no_baseline": [Code.TELEMETRY_NO_BASELINE],
    "out_of_baseline": [Code.TELEMETRY_OUT_OF_BASELINE],
    "implausible": [Code.TELEMETRY_IMPLAUSIBLE],
}


@pytest.mark.parametrize(("word", "codes"), WORDS.items())
def test_production_denies_for_the_record_by_its_word_alone(
    prepared: Prepare,
    reference: Callable[..., Reference],
    good: doc.PolicyInput,
    word: doc.TelemetryVerdict,
    codes: list[Code],
) -> None:
    """A verifier calls a window indeterminate by this: nothing but ``TELEMETRY_UNUSABLE`` may be against it."""
    policy = prepared("production", reference(unchecked=others("telemetry_baseline")))
    denials = policy.decide(recorded(word)(good)).denials
    assert sorted({denial.code for denial in denials}) == codes


@pytest.mark.parametrize("word", WORDS)
def test_one_gpu_of_several_is_enough(
    prepared: Prepare, reference: Callable[..., Reference], good: doc.PolicyInput, word: doc.TelemetryVerdict
) -> None:
    """Whatever the word over all of them: only where each is in its baseline is that proven."""
    policy = prepared("production", reference(unchecked=others("telemetry_baseline")))
    agreeing = recorded("in_baseline")(good)
    first, second = agreeing.telemetry.devices
    odd = replace(agreeing, telemetry=replace(agreeing.telemetry, devices=(first, replace(second, verdict=word))))
    assert policy.decide(odd).allowed == (word == "in_baseline")


def test_registers_of_a_machine_that_nobody_knows_prove_no_boot(
    prepared: Prepare, reference: Callable[..., Reference], good: doc.PolicyInput
) -> None:
    """A45: its owner makes up quotes as he likes; a TPM of its own needs no more than the values."""
    policy = prepared("production", reference(unchecked=others("boot_reference")))
    unknown = policy.decide(platform(boot_reference="match", host="rack", host_binding="unproven")(good))
    assert [denial.code for denial in unknown.denials] == [Code.UNPROVEN]
    certified = platform(boot_reference="match", host="rack", host_binding="unproven", tee=doc.Tee())(good)
    assert policy.decide(certified).outcome == "allow"


@pytest.mark.parametrize(
    ("protections", "outcome"),
    [
        (("guarded",), "allow"),
        (("fs-verity",), "allow"),
        (("dm-verity", "guarded"), "allow"),
        (("none",), "deny"),
        (("guarded", "none"), "deny"),
    ],
)
def test_every_loaded_model_must_be_bound(
    prepared: Prepare,
    reference: Callable[..., Reference],
    good: doc.PolicyInput,
    protections: tuple[Protection, ...],
    outcome: str,
) -> None:
    """A53: one model that could have been exchanged after it was measured is enough."""
    policy = prepared("production", reference(unchecked=others("load_binding")))
    assert policy.decide(bound(good, *protections)).outcome == outcome


@pytest.mark.parametrize("check", CHECKS)
def test_a_reason_stands_in_the_decision(prepared: Prepare, good: doc.PolicyInput, check: str) -> None:
    decision = prepared("production").decide(good)
    assert {entry.check: entry.reason for entry in decision.unchecked}[check] == f"accepted for this test: {check}"


@pytest.mark.parametrize("which", ["secure_boot", "kernel_lockdown"])
def test_half_a_proof_is_none(
    prepared: Prepare, reference: Callable[..., Reference], good: doc.PolicyInput, which: str
) -> None:
    policy = prepared("production", reference(unchecked=others("secure_boot")))
    assert policy.decide(platform(**{which: "proven"})(good)).outcome == "deny"


def test_one_unknown_revocation_among_good_ones(
    prepared: Prepare, reference: Callable[..., Reference], good: doc.PolicyInput
) -> None:
    policy = prepared("production", reference(unchecked=others("gpu_revocation")))
    for state in ("absent", "unknown", "stale"):
        document = replace(
            good, gpus=(replace(good.gpus[0], revocation="good"), replace(good.gpus[1], revocation=state))
        )
        assert [denial.code for denial in policy.decide(document).denials] == [Code.GPU_REVOCATION_UNKNOWN]


def test_an_unknown_revocation_of_a_manifests_signer(
    prepared: Prepare, reference: Callable[..., Reference], good: doc.PolicyInput
) -> None:
    """Measurements are right on a signer's word: of that too it has to be known that it was not revoked."""
    policy = prepared("production", reference(unchecked=others("gpu_revocation")))

    def decided(*states: Literal["absent", "good", "hold", "revoked", "stale", "unknown"]) -> list[str]:
        manifests = tuple(
            doc.GpuManifest("driver", "550", "2026-01-01T00:00:00Z", "ee" * 32, state) for state in states
        )
        first, *rest = (replace(each, revocation="good") for each in good.gpus)
        document = replace(good, gpus=(replace(first, reference_by="manifests", manifests=manifests), *rest))
        return [denial.code for denial in policy.decide(document).denials]

    assert decided("good", "good") == decided() == []
    for state in ("absent", "unknown", "stale", "hold", "revoked"):
        assert decided("good", state) == decided(state) == [Code.GPU_REVOCATION_UNKNOWN]


@pytest.mark.parametrize("name", ["production", "insecure_development"])
def test_no_reference_models_is_a_denial(
    prepared: Prepare, reference: Callable[..., Reference], good: doc.PolicyInput, name: str
) -> None:
    """A63: a missing reference value never admits."""
    decision = prepared(name, reference(models={})).decide(good)
    assert {denial.code for denial in decision.denials} == {Code.REFERENCE_ABSENT}


def test_reasons_do_not_excuse_what_is_contradicted(prepared: Prepare, good: doc.PolicyInput) -> None:
    """A60: a reason for not knowing the revocation or the baseline is none for a revoked device or a contradiction."""
    assert prepared("production").decide(gpu(revocation="revoked")(good)).outcome == "deny"
    assert prepared("production").decide(telemetry(verdict="out_of_baseline")(good)).outcome == "deny"


def test_telemetry_never_vouches_for_weights(prepared: Prepare, good: doc.PolicyInput) -> None:
    """A60: in the baseline, and the weights differ: denied; and the reverse."""
    differing = weights(differences=(doc.WeightDifference("f", None, "file", "a", "b"),))
    decision = prepared("production").decide(differing(recorded("in_baseline")(good)))
    assert [denial.code for denial in decision.denials] == [Code.WEIGHTS_MISMATCH]
    assert decision.denials[0].message == "file f <nil>" or "file f" in decision.denials[0].message
    assert prepared("production").decide(telemetry(verdict="out_of_baseline")(good)).outcome == "deny"


def test_findings_and_gaps_are_said_and_refuse_nothing(prepared: Prepare, good: doc.PolicyInput) -> None:
    document = replace(good, findings=(doc.Finding("RECORDED", None, "an old nonce"),), gap=doc.Gap(4, None))
    decision = prepared("production").decide(document)
    assert decision.outcome == "allow"
    assert {(advice.code, advice.message) for advice in decision.warnings} == {
        ("RECORDED", "an old nonce"),
        (Code.WINDOW_HELD, "4 windows were held back before this one"),
    }


@pytest.mark.parametrize(
    ("status", "freshness", "said"),
    [
        ("not_issued", "fresh", True),
        ("not_issued", "held", False),
        ("passed", "fresh", False),
        ("not_due", "fresh", False),
    ],
)
def test_a_spot_check_that_nobody_could_ask_is_said(
    prepared: Prepare,
    good: doc.PolicyInput,
    status: Literal["passed", "not_due", "not_issued"],
    freshness: Literal["fresh", "held"],
    said: bool,
) -> None:
    document = weights(spot_check=doc.SpotCheck(status, None))(good)
    document = replace(document, window=replace(document.window, freshness=freshness))
    decision = prepared("production").decide(document)
    assert decision.outcome == ("allow" if freshness == "fresh" else "deny")
    assert [advice.code for advice in decision.warnings] == ([Code.SPOT_POOL_EMPTY] if said else [])


# ---------- mutations


@pytest.mark.parametrize("name", ["production", "insecure_development"])
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_mutation_turns_a_denial_into_an_admission(
    prepared: Prepare, good: doc.PolicyInput, emulated: doc.PolicyInput, name: str, data: st.DataObject
) -> None:
    """facts §2.4: fields deleted, set to null or given another type, behind the back of the typed document."""
    policy = prepared(name)
    cases = (ALWAYS | PRODUCTION) if name == "production" else ALWAYS
    base = good if name == "production" else emulated
    _, change = cases[data.draw(st.sampled_from(sorted(cases)))]
    value = json.loads(change(base).to_json())
    own = {path: kind_at(value, path) for path in places(value)}
    count = 0
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(own)))
        count += mutate(value, path, data.draw(st.sampled_from((..., *SUBSTITUTES))), own=own[path])
    # The engine's answer alone: the typed document that bears the invariants is the good one.
    output = policy._evaluate(json.dumps(value).encode(), base)
    assert output.outcome != "allow", (count, value)


def test_no_single_deletion_turns_a_denial_into_an_admission(prepared: Prepare, good: doc.PolicyInput) -> None:
    """Every field of every denied document, one after the other."""
    policy = prepared("production")
    for _, change in (ALWAYS | PRODUCTION).values():
        document = change(good)
        for path in places(json.loads(document.to_json())):
            value = json.loads(document.to_json())
            if mutate(value, path, ...):
                assert policy._evaluate(json.dumps(value).encode(), good).outcome != "allow", path


ODD: tuple[object, ...] = (..., None, 0, "other", [], [None], {"x": 1})
GPU_CASES = [
    "a switch with other measurements",
    "the maker contradicts (A19)",
    "said to match, and differs from its manifest",
    "said to match, and differs nobody says where",
    "claimed by two manifests, said to match",
    "of an unknown age",
]


@pytest.mark.parametrize("case", GPU_CASES)
def test_no_odd_field_of_a_device_opens_anything(prepared: Prepare, good: doc.PolicyInput, case: str) -> None:
    """Every field of the device for which a document is denied: deleted, null, and of other types."""
    policy = prepared("production")
    document = ALWAYS[case][1](good).to_json()
    for path in places(json.loads(document)["gpus"][1]):
        for substitute in ODD:
            value = json.loads(document)
            if mutate(value, ("gpus", 1, *path), substitute):
                output = policy._evaluate(json.dumps(value).encode(), good)
                assert output.outcome != "allow", (path, substitute)


@pytest.mark.parametrize(
    "name", ["reference", "fwid", "revocation", "minimum", "conflicts", "mismatches", "differences"]
)
def test_a_field_that_decides_over_a_device_must_be_there(prepared: Prepare, good: doc.PolicyInput, name: str) -> None:
    """Of a document that is admitted as it is."""
    policy = prepared("production")
    for substitute in (..., *SUBSTITUTES):
        value = json.loads(good.to_json())
        if mutate(value, ("gpus", 1, name), substitute):
            assert policy._evaluate(json.dumps(value).encode(), good).outcome != "allow", substitute


# ---------- claims


def test_claims_say_no_more_than_the_evidence(good: doc.PolicyInput, emulated: doc.PolicyInput) -> None:
    claims = trust_claims(good)
    assert claims["tpm0"] == {"instance-identity": 2, "configuration": 0, "executables": 0, "hardware": 0}
    assert claims["weights0"] == {"executables": 32}
    assert claims["telemetry0"] == {"sourced-data": 0}
    assert claims["gpu0"] == {"instance-identity": 0, "configuration": 0, "executables": 2, "hardware": 2}
    assert set(claims) == {"tpm0", "weights0", "telemetry0", "gpu0", "gpu1"}
    claims = trust_claims(emulated)
    assert (claims["tpm0"]["hardware"], claims["tpm0"]["instance-identity"]) == (32, 0)
    assert claims["gpu0"]["hardware"] == 32


def proven_telemetry(document: doc.PolicyInput) -> doc.PolicyInput:
    return PROVEN["attester_code"](telemetry(verdict="in_baseline")(document))


CLAIMS: list[tuple[Change, str, str, int]] = [
    (gpu(reference="mismatch"), "gpu1", "executables", 96),
    (gpu(reference="absent"), "gpu1", "executables", 0),
    (gpu(fwid="missing"), "gpu1", "executables", 96),
    (gpu(fwid="missing", kind="switch"), "gpu1", "executables", 2),
    (gpu(fwid="missing", kind="switch", reference="mismatch"), "gpu1", "executables", 96),
    (gpu(revocation="revoked"), "gpu1", "instance-identity", 96),
    (gpu(revocation="hold"), "gpu1", "instance-identity", 96),
    (gpu(revocation="good"), "gpu1", "instance-identity", 2),
    (gpu(revocation="good", platform=EMULATED), "gpu1", "instance-identity", 0),
    (gpu(cc_mode_host_claim="off"), "gpu1", "configuration", 96),
    (gpu(cc_mode_host_claim="devtools"), "gpu1", "configuration", 32),
    (gpu(cc_mode_host_claim="on"), "gpu1", "configuration", 0),
    (PROVEN["secure_boot"], "tpm0", "configuration", 2),
    (PROVEN["attester_code"], "tpm0", "executables", 2),
    (PROVEN["attester_code"], "weights0", "executables", 2),
    (ALWAYS["one bit of one tensor"][1], "weights0", "executables", 96),
    (ALWAYS["loaded and not declared"][1], "weights0", "executables", 33),
    (weights(loaded=()), "weights0", "executables", 0),
    (weights(declared=(), loaded=()), "weights0", "executables", 0),
    (telemetry(verdict="in_baseline"), "telemetry0", "sourced-data", 32),
    (proven_telemetry, "telemetry0", "sourced-data", 2),
    (telemetry(verdict="unusable"), "telemetry0", "sourced-data", 0),
    (telemetry(verdict="implausible"), "telemetry0", "sourced-data", 96),
    (telemetry(verdict="out_of_baseline"), "telemetry0", "sourced-data", 96),
]


@pytest.mark.parametrize(("change", "submodule", "claim", "value"), CLAIMS)
def test_each_claim_follows_its_evidence(
    good: doc.PolicyInput, change: Change, submodule: str, claim: str, value: int
) -> None:
    assert trust_claims(change(good))[submodule][claim] == value


def test_the_policy_in_the_readme_works(
    policy_of: Callable[[str], PolicySet], root: Path, good: doc.PolicyInput
) -> None:
    text = (root / "policy" / "README.md").read_text().split("```rego\n")[1].split("```")[0]
    with RegorusEngine().load(policy_of(text)) as policy:
        assert {denial.code for denial in policy.decide(good).denials} == {"NOT_OUR_TENANT"}
        assert policy.decide(replace(good, session=replace(good.session, tenant="acme"))).outcome == "allow"


def test_the_rule_on_devices_in_the_readme_works(
    policy_of: Callable[[str], PolicySet], root: Path, good: doc.PolicyInput
) -> None:
    blocks = [block.split("```")[0] for block in (root / "policy" / "README.md").read_text().split("```rego\n")[1:]]
    (fit,) = (block for block in blocks if "fit(gpu) if" in block)
    ours = replace(good, session=replace(good.session, tenant="acme"))
    manifest = doc.GpuManifest("driver", "GH100 driver 580.95.05", "2026-01-02T00:00:00Z", "00" * 32, "good")
    device = replace(
        good.gpus[0], minimum="met", signed_feature="spt", revocation="good", manifests=(manifest,), kind="gpu"
    )
    unspoken = replace(manifest, revocation="absent")
    changes: tuple[dict[str, Any], ...] = (
        {"minimum": "below"},
        {"minimum": "none"},
        {"signed_feature": None},
        {"revocation": "stale"},
        {"manifests": ()},
        {"manifests": (manifest, unspoken)},
    )
    with RegorusEngine().load(policy_of(blocks[0] + fit)) as policy:
        assert policy.decide(replace(ours, gpus=(device,))).outcome == "allow"
        for change in changes:
            decision = policy.decide(replace(ours, gpus=(device, replace(device, **change))))
            assert "GPU_NOT_FIT" in {denial.code for denial in decision.denials}, change
