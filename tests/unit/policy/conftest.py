"""A document that production admits, reference values that fit it, and prepared policies to judge with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.engine import Limits
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import LIBRARY, PolicyModule, PolicySet, Shipped, shipped
from weighbridge.policy.values.reference import CHECKS, Reference

MODEL = "aa" * 32
GPU = "01" * 32
Prepare = Callable[..., PreparedPolicy]


@pytest.fixture(scope="session")
def good() -> doc.PolicyInput:
    """Everything genuine and as expected; what no evidence proves yet is unproven."""
    at, ns = doc.instant(datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC))
    return doc.PolicyInput(
        received_at=at,
        received_ns=ns,
        session=doc.Session("00" * 16, "tenant", "audience", "running", 10_000_000_000),
        window=doc.Window(3, "fresh", 10_000_000_000),
        platform=doc.Platform(
            "tpm-vtpm-report",
            "amd-sev-snp",
            "bb" * 32,
            "ARK-Genoa",
            (doc.BootPcr(0, "00" * 32),),
            "0x1",
            state_held_by="guest",
            tee=doc.Tee("sev-snp", product="Genoa", tcb_status="matches"),
        ),
        attester_code=doc.AttesterCode(),
        gpus=tuple(
            doc.Gpu(
                f"{n:02x}" * 32, "nvidia", "HOPPER", "550", "96", "cc" * 32, "matches", "match", "absent", None, True
            )
            for n in (1, 2)
        ),
        weights=doc.Weights(
            declared=(doc.DeclaredModel(MODEL, "minilm", "model"),),
            loaded=(doc.LoadedModel(MODEL, "minilm", True, 1),),
            log_length=2,
            baseline="zero",
            differences=(),
            spot_check=doc.SpotCheck("not_due", None),
        ),
        telemetry=doc.Telemetry("no_baseline", (doc.TelemetrySource(GPU, "nvml", "nvidia", ("power",)),)),
        work=doc.Work(1, 2, 3, 4, 5, 6),
        findings=(),
        gap=doc.Gap(0, None),
    )


@pytest.fixture(scope="session")
def emulated(good: doc.PolicyInput) -> doc.PolicyInput:
    """The same from software: a software TPM, emulated GPUs, emulated telemetry."""
    name = "insecure-emulated"
    return replace(
        good,
        platform=replace(good.platform, name=name),
        gpus=tuple(replace(gpu, platform=name) for gpu in good.gpus),
        telemetry=replace(
            good.telemetry, sources=tuple(replace(source, platform=name) for source in good.telemetry.sources)
        ),
    )


def reference_of(**changed: object) -> Reference:
    """Reference values that know the model and leave out all that may be left out, with ``changed`` members."""
    members: dict[str, object] = {
        "schema": "weighbridge/reference/v1",
        "models": {MODEL: {"name": "minilm"}},
        "gpu_measurements": {"HOPPER/550/96": ["cc" * 32]},
        "unchecked": {check: f"accepted for this test: {check}" for check in CHECKS},
    }
    return Reference.parse(json.dumps({**members, **changed}).encode())


@pytest.fixture(scope="session")
def reference() -> Callable[..., Reference]:
    """Maker of reference values."""
    return reference_of


@pytest.fixture(scope="session")
def prepared() -> Iterator[Callable[..., PreparedPolicy]]:
    """A shipped policy, prepared once for each set of reference values."""
    made: dict[tuple[str, bytes], PreparedPolicy] = {}

    def prepare(name: Shipped, references: Reference | None = None) -> PreparedPolicy:
        values = references or reference_of()
        key = (name, values.digest)
        if key not in made:
            policy = RegorusEngine().load(shipped(name, reference=values), spares=0)
            assert isinstance(policy, PreparedPolicy)
            made[key] = policy
        return made[key]

    yield prepare
    for policy in made.values():
        policy.close()


@pytest.fixture(scope="session")
def policy_of() -> Callable[[str], PolicySet]:
    """A policy set of the shipped library and one module with this text."""
    library = shipped("production", reference=reference_of()).modules[0]

    def build(text: str) -> PolicySet:
        assert library.name == LIBRARY
        return PolicySet((library, PolicyModule("test.rego", text.encode())), reference_of())

    return build


@pytest.fixture
def prepare(policy_of: Callable[[str], PolicySet]) -> Iterator[Callable[..., PreparedPolicy]]:
    """Check and load rules; the package, the imports and a deny that never fires are added."""
    made: list[PreparedPolicy] = []

    def build(rules: str, limits: Limits | None = None) -> PreparedPolicy:
        policy = RegorusEngine().load(policy_of(HEAD + rules), limits or Limits())
        assert isinstance(policy, PreparedPolicy)
        made.append(policy)
        return policy

    yield build
    for policy in made:
        policy.close()


HEAD = """package weighbridge.policy

import rego.v1

default allow := false

deny contains d if {
	false
	d := {}
}

"""


@pytest.fixture(scope="session")
def head() -> str:
    """The beginning of every test policy."""
    return HEAD
