"""Policies written for other verifiers can refuse beside ours, and never admit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.adapters import claims
from weighbridge.policy.adapters.beside import beside
from weighbridge.policy.adapters.module import ForeignModule
from weighbridge.policy.authoring.trial import Trial
from weighbridge.policy.engine import DEFAULT_LIMITS, Decision, Limits, Prepared
from weighbridge.policy.engines.opa_go import OpaGoEngine
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicySet, recorded, shipped
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, PolicyDenied

Ask = Callable[..., Decision]

NVIDIA = """package policy
import rego.v1
default nv_match := false
nv_match if {
	count(input) > 0
	every claim in input { good(claim) }
}
good(claim) if {
	claim["x-nvidia-device-type"] == "gpu"
	claim.measres == "success"
	claim["x-nvidia-gpu-attestation-report-cert-chain"]["x-nvidia-cert-ocsp-status"] == "good"
}
"""
NVIDIA_V0 = """package policy
import future.keywords.every
default nv_match = false
nv_match {
	count(input) > 0
	every claim in input { claim.measres == "success" }
}
"""
TRUSTEE_CPU = """package policy
import rego.v1
default executables := 33
default hardware := 97
default configuration := 36
trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration}
executables := 3 if input["az-snp-vtpm"].measurement in query_reference_value("measurement")
hardware := 2 if input["az-snp-vtpm"].tpm.pcr00
configuration := 2 if input["az-snp-vtpm"].platform_smt_enabled == false
"""
TRUSTEE_GPU = """package policy
import rego.v1
default hardware := 97
default executables := 33
hardware := 2 if {
	input.nvidia.x_nvidia_gpu_attestation_report_cert_chain.x_nvidia_cert_ocsp_status == "good"
	input.nvidia.x_nvidia_gpu_attestation_report_signature_verified
}
executables := 3 if input.nvidia.x_nvidia_gpu_driver_rim_signature_verified
"""
VERAISON = """package policy
import future.keywords
executables = UNRECOGNIZED_RT { evidence.weights.log_length > 100 }
configuration = APPROVED_CONFIG { semver_cmp("1.2.3", "1.2.2") == 1; scheme == "WEIGHBRIDGE" }
"""
INTEL = """import rego.v1
default match := false
match if {
	input.tdx.tdx_is_debuggable == false
	input.tdx.attester_tcb_status == "UpToDate"
	input.nvgpu["x-nvidia-gpu-driver-version"] == "550"
}
"""


@pytest.fixture
def known(good: doc.PolicyInput) -> doc.PolicyInput:
    """Compared with its maker's manifests, nothing revoked."""
    manifests = tuple(
        doc.GpuManifest(owner, f"{owner}-id", "2026-01-01T00:00:00Z", "dd" * 32, "good")
        for owner in ("driver", "vbios")
    )
    gpus = tuple(replace(gpu, revocation="good", reference_by="manifests", manifests=manifests) for gpu in good.gpus)
    tee = replace(good.platform.tee, measurement="ee" * 48, smt=False)
    return replace(good, gpus=gpus, platform=replace(good.platform, tee=tee))


@pytest.fixture
def ask(reference: Callable[..., Reference]) -> Iterator[Ask]:
    """The decision of ``production`` with the foreign policies beside it."""
    opened: list[Prepared] = []

    def decide(
        document: doc.PolicyInput,
        modules: Mapping[str, str],
        *,
        values: dict[str, object] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Decision:
        prepared = RegorusEngine().load(policy_of(reference(), modules, values), limits)
        opened.append(prepared)
        return prepared.decide(document)

    yield decide
    for prepared in opened:
        prepared.close()


def policy_of(values: Reference, modules: Mapping[str, str], own: dict[str, object] | None = None) -> PolicySet:
    """``production`` with foreign files."""
    files = [*shipped("production", reference=values).files]
    files += [(name, text.encode()) for name, text in modules.items()]
    if own is not None:
        files.append(("foreign/values.json", json.dumps(own).encode()))
    return recorded(files, reference=values)


def codes(decision: Decision) -> list[str]:
    return [denial.code for denial in decision.denials]


def on_tdx(document: doc.PolicyInput, status: str) -> doc.PolicyInput:
    tee = doc.Tee("tdx", tcb_status=status, measurement="ab" * 48)
    return replace(document, platform=replace(document.platform, name="intel-tdx", tee=tee))


# -- what consents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("foreign/nvidia/rp.rego", NVIDIA, None),
        ("foreign/nvidia/v0/rp.rego", NVIDIA_V0, None),
        ("foreign/trustee-cpu/cpu.rego", TRUSTEE_CPU, {"measurement": ["ee" * 48]}),
        ("foreign/trustee-gpu/gpu.rego", TRUSTEE_GPU, None),
        ("foreign/veraison/v0/v.rego", VERAISON, None),
    ],
)
def test_one_that_consents_changes_nothing(
    ask: Ask, known: doc.PolicyInput, name: str, text: str, values: dict[str, object] | None
) -> None:
    alone = ask(known, {})
    assert alone.outcome == "allow"
    decision = ask(known, {name: text}, values=values)
    assert (decision.outcome, decision.denials, decision.trust_claims) == ("allow", (), alone.trust_claims)
    assert decision.policy_digest != alone.policy_digest


def test_intels_needs_a_trust_domain(ask: Ask, known: doc.PolicyInput) -> None:
    modules = {"foreign/intel/td.rego": INTEL}
    assert ask(on_tdx(known, "UpToDate"), modules).outcome == "allow"
    refused = ask(known, modules)
    assert refused.outcome == "deny"
    assert codes(refused) == [Code.POLICY_FOREIGN] * 2
    assert {denial.device for denial in refused.denials} == {gpu.identity for gpu in known.gpus}


# -- what refuses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "values", "got"),
    [
        ("foreign/nvidia/rp.rego", NVIDIA.replace('"success"', '"other"'), None, "false"),
        ("foreign/nvidia/rp.rego", "package policy\nnv_match := 1\n", None, "1"),
        ("foreign/nvidia/rp.rego", 'package policy\nnv_match := "true"\n', None, '"true"'),
        ("foreign/nvidia/rp.rego", "package policy\nother := true\n", None, "undefined"),
        ("foreign/trustee-cpu/cpu.rego", TRUSTEE_CPU, {"measurement": ["00" * 48]}, "executables 33"),
        ("foreign/trustee-cpu/cpu.rego", TRUSTEE_CPU, {}, "executables 33"),
        ("foreign/trustee-cpu/cpu.rego", "package policy\ntrust_claims := {}\n", None, "no claim"),
        ("foreign/trustee-cpu/cpu.rego", 'package policy\ntrust_claims := {"hardware": 0}\n', None, "no claim"),
        ("foreign/trustee-cpu/cpu.rego", 'package policy\ntrust_claims := {"other": 2}\n', None, "other 2"),
        ("foreign/trustee-cpu/cpu.rego", 'package policy\ntrust_claims := {"hardware": "2"}\n', None, 'hardware "2"'),
        ("foreign/trustee-cpu/cpu.rego", "package policy\ntrust_claims := true\n", None, "true"),
        ("foreign/veraison/v0/v.rego", VERAISON.replace("> 100", "> 1"), None, "executables 33"),
        ("foreign/veraison/v0/v.rego", "package policy\nstatus = 96\n", None, "status 96"),
    ],
)
def test_one_that_does_not_consent_refuses(
    ask: Ask, known: doc.PolicyInput, name: str, text: str, values: dict[str, object] | None, got: str
) -> None:
    decision = ask(known, {name: text}, values=values)
    assert decision.outcome == "deny"
    assert set(codes(decision)) == {Code.POLICY_FOREIGN}
    assert got in {denial.got for denial in decision.denials}


def test_a_gpu_that_is_not_good_is_named(ask: Ask, known: doc.PolicyInput) -> None:
    first, second = known.gpus
    document = replace(known, gpus=(first, replace(second, revocation="stale")))
    decision = ask(document, {"foreign/trustee-gpu/gpu.rego": TRUSTEE_GPU})
    assert [(denial.device, denial.got) for denial in decision.denials] == [(second.identity, "hardware 97")]


def test_none_of_them_admits_what_ours_denies(ask: Ask, known: doc.PolicyInput) -> None:
    document = replace(known, gpus=())
    decision = ask(document, {"foreign/nvidia/rp.rego": "package policy\nnv_match := true\n"})
    assert decision.outcome == "deny"
    assert Code.GPU_MISSING in codes(decision)
    assert Code.POLICY_FOREIGN not in codes(decision)


@pytest.mark.peer
def test_opa_asks_them_as_well(opa_library: Path, reference: Callable[..., Reference], known: doc.PolicyInput) -> None:
    for text, outcome in (("package policy\nnv_match := true\n", "allow"), ("package policy\nnv_match := 1\n", "deny")):
        with OpaGoEngine(opa_library).load(policy_of(reference(), {"foreign/nvidia/rp.rego": text})) as prepared:
            assert prepared.decide(known).outcome == outcome


def test_so_do_authors_trials(reference: Callable[..., Reference], known: doc.PolicyInput) -> None:
    for text, outcome in (("package policy\nnv_match := true\n", "allow"), ("package policy\nnv_match := 1\n", "deny")):
        with Trial(policy_of(reference(), {"foreign/nvidia/rp.rego": text})) as trial:
            assert trial.decide(known).decision.outcome == outcome


# -- what gives no answer ----------------------------------------------------------------------------------------------


def test_no_answer_in_time_judges_nothing_and_the_next_is_unharmed(
    reference: Callable[..., Reference], known: doc.PolicyInput
) -> None:
    text = """package policy
import rego.v1
nv_match if {
	input[0].hwmodel == "slow"
	count([1 | some a in numbers.range(1, 2000); some b in numbers.range(1, 2000); a * b > 0]) > 1
}
nv_match if input[0].hwmodel != "slow"
"""
    limits = replace(DEFAULT_LIMITS, decide_seconds=0.3)
    slow = replace(known, gpus=tuple(replace(gpu, model="slow") for gpu in known.gpus))
    with RegorusEngine().load(policy_of(reference(), {"foreign/nvidia/rp.rego": text}), limits) as prepared:
        decision = prepared.decide(slow)
        assert decision.outcome == "timeout"
        assert Code.POLICY_TIMEOUT in codes(decision)
        assert prepared.decide(known).outcome == "allow"


def test_an_error_of_its_own_refuses(ask: Ask, known: doc.PolicyInput) -> None:
    text = 'package policy\nnv_match := http.send({"method": "get", "url": "https://example.org"})\n'
    decision = ask(known, {"foreign/nvidia/rp.rego": text})
    assert decision.outcome == "deny"
    assert codes(decision) == [Code.POLICY_FOREIGN]


@pytest.mark.parametrize(
    "name",
    [
        "foreign/other/x.rego",
        "foreign/nvidia/x.txt",
        "foreign/nvidia/v1/x.rego",
        "foreign/x.rego",
        "foreign/nvidia/../x.rego",
    ],
)
def test_what_is_called_otherwise_is_no_foreign_policy(reference: Callable[..., Reference], name: str) -> None:
    with pytest.raises(PolicyDenied, match="no policy of another verifier"):
        policy_of(reference(), {name: NVIDIA})


def test_one_that_does_not_load_is_refused_with_a_hint(reference: Callable[..., Reference]) -> None:
    with pytest.raises(PolicyDenied) as refused:
        RegorusEngine().load(policy_of(reference(), {"foreign/nvidia/rp.rego": NVIDIA_V0}))
    assert refused.value.code is Code.POLICY_INVALID
    assert "foreign-v0" in refused.value.hint


def test_ours_cannot_reach_what_theirs_asks(policy_of_text: Callable[[str], PolicySet]) -> None:
    policy = policy_of_text(
        "package weighbridge.policy\nimport rego.v1\ndefault allow := false\n"
        'deny contains d if { d := query_reference_value("x") }\n'
    )
    with pytest.raises(PolicyDenied, match="is not a function"):
        RegorusEngine().load(policy)


@pytest.fixture
def policy_of_text(policy_of: Callable[[str], PolicySet]) -> Callable[[str], PolicySet]:  # the conftest's
    return policy_of


def test_nothing_is_put_beside_where_there_is_nothing(
    prepared: Callable[..., Prepared], reference: Callable[..., Reference]
) -> None:
    own = prepared("production")
    assert beside(own, policy_of(reference(), {}), DEFAULT_LIMITS) is own


# -- claims ------------------------------------------------------------------------------------------------------------


def test_claims_follow_what_was_found(known: doc.PolicyInput) -> None:
    gpu = known.gpus[0]
    good = claims.nvidia(gpu)
    assert (good["measres"], good["secboot"], good["dbgstat"]) == ("success", True, "disabled")
    assert good["x-nvidia-gpu-driver-rim-cert-chain"] == {
        "x-nvidia-cert-status": "valid",
        "x-nvidia-cert-ocsp-status": "good",
    }
    for worse in (
        replace(gpu, reference="mismatch"),
        replace(gpu, reference="absent"),
        replace(gpu, reference_by="relying-party"),
    ):
        told = claims.nvidia(worse)
        assert told["measres"] == "fail"
        assert not {"secboot", "dbgstat"} & told.keys()
    revoked = claims.nvidia(replace(gpu, revocation="revoked"))
    assert revoked["x-nvidia-gpu-attestation-report-cert-chain"] == {
        "x-nvidia-cert-status": "revoked",
        "x-nvidia-cert-ocsp-status": "revoked",
    }
    absent = claims.nvidia(replace(gpu, revocation="absent", manifests=(), driver=None, vbios=None))
    assert absent["x-nvidia-gpu-attestation-report-cert-chain"] == {"x-nvidia-cert-status": "valid"}
    assert not [name for name in absent if "rim" in name or "version" in name]


def test_a_switch_has_names_of_its_own(known: doc.PolicyInput) -> None:
    switch = replace(known.gpus[0], kind="switch", architecture="LS_10", driver=None)
    told = claims.nvidia(switch)
    assert told["x-nvidia-device-type"] == "nvswitch"
    assert told["x-nvidia-switch-bios-version"] == "96"
    assert not [name for name in told if name.startswith("x-nvidia-gpu")]


def test_a_machine_without_a_report_is_a_tpm(known: doc.PolicyInput) -> None:
    bare = replace(known, platform=replace(known.platform, tee=doc.Tee()))
    assert claims.trustee_cpu(bare) == {"tpm": {"pcr00": "00" * 32}}
    assert claims.intel_tdx(bare) == {}


def test_a_module_is_named_by_its_place() -> None:
    for name in ("foreign/nvidia/rp.rego", "foreign/veraison/v0/p.rego"):
        assert ForeignModule.of(name, b"x").name == name
