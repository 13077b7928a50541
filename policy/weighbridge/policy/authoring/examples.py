"""Documents that shipped policies admit, made up here: what authors begin from, and what tests of policies change.

Test modules read them as ``data.examples.<name>.input`` and ``data.examples.<name>.reference``, and change one thing at
a time: ``with input as`` the document with that one thing made wrong. Nothing in them was ever measured, no key of
them exists, and no verifier takes one for evidence: they show a document's form.

==========================  ============================================================================================
``azure_snp_h100``          a confidential machine on Azure (SEV-SNP, Genoa) with one H100; admitted by the policy of
                            that name, and by ``production``
``bare_metal_tpm_h100``     a host with a TPM of its own, eight H100 and the four switches between them; admitted by
                            the policy of that name, and by ``production``
``in_baseline``             the machine on Azure again; its GPU's physical record is that of its baseline, and no
                            reason leaves that check out
``emulated``                a software TPM, an emulated GPU; admitted by ``insecure_development`` alone
==========================  ============================================================================================

``insecure_development`` admits all of them, ``audit_only`` none, as it does of everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from weighbridge.policy import document as doc
from weighbridge.policy.values.baselines import NamedBaseline
from weighbridge.policy.values.reference import Check, GpuMinimum, Reference
from weighbridge.proto.digest import sha256

__all__ = ["EXAMPLES", "Example"]

_RECEIVED: Final = doc.instant(datetime(2026, 11, 22, 12, 0, 10, 250_000, tzinfo=UTC))
_PERIOD_NS: Final = 10_000_000_000
_ISSUED: Final = "2026-10-01T00:00:00Z"
_DRIVER: Final = "580.95.05"
_VBIOS: Final = "96.00.CF.00.02"
_SWITCH_BIOS: Final = "96.10.6D.00.01"
_EMULATED: Final = "insecure-emulated"
_CHANNELS: Final = ("energy", "power", "sm_clock", "temperature")
# As a host without surprises quotes them; 0 to 7 are the firmware's, 8 and 9 the loader's and the initial RAM disk's.
_BOOT_PCRS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14)


@dataclass(frozen=True, slots=True)
class Example:
    """A document, and the reference values under which it is admitted."""

    input: doc.PolicyInput
    reference: Reference


def _hex(label: str) -> str:
    """32 bytes that stand for the digest of something."""
    return sha256(label.encode()).hex()


MODEL: Final = _hex("manifest of the example model")
MEASUREMENT: Final = (_hex("launch measurement, first part") + _hex("launch measurement, second part"))[:96]


def _gpu(number: int) -> doc.Gpu:
    driver, vbios = f"NV_GPU_DRIVER_GH100_{_DRIVER}", "NV_GPU_VBIOS_1010_0200_886_9600CF0002"
    return doc.Gpu(
        identity=_hex(f"GPU {number}"),
        platform="nvidia",
        architecture="GH100",
        driver=_DRIVER,
        vbios=_VBIOS,
        measurements_digest=_hex("measurements of a GPU"),
        fwid="matches",
        reference="match",
        revocation="good",
        cc_mode_host_claim="on",
        reported_in_window=True,
        model="GH100 A01 GSP BROM",
        reference_by="manifests",
        manifests=(
            doc.GpuManifest("driver", driver, _ISSUED, _hex(driver), "good"),
            doc.GpuManifest("vbios", vbios, _ISSUED, _hex(vbios), "good"),
        ),
        minimum="met",
        signed_protected_pcie=False,
        signed_feature="spt",
    )


def _switch(number: int) -> doc.Gpu:
    name = "NV_SWITCH_BIOS_5612_0002_890_96106D0001"
    return replace(
        _gpu(number),
        identity=_hex(f"switch {number}"),
        kind="switch",
        architecture="LS_10",
        driver=None,
        vbios=_SWITCH_BIOS,
        measurements_digest=_hex("measurements of a switch"),
        fwid="missing",
        cc_mode_host_claim=None,
        model="LS_10 A01 FSP BROM",
        manifests=(doc.GpuManifest("vbios", name, _ISSUED, _hex(name), "good"),),
        signed_protected_pcie=None,
        signed_feature=None,
        signed_locked=True,
    )


def _sources(gpus: tuple[doc.Gpu, ...]) -> tuple[doc.TelemetrySource, ...]:
    measured = [gpu.identity for gpu in gpus if gpu.kind == "gpu"]
    return (
        *(doc.TelemetrySource(device, "nvml", "nvidia", _CHANNELS) for device in measured),
        doc.TelemetrySource(None, "proc", "host", ("utilisation",)),
    )


def _document(platform: doc.Platform, gpus: tuple[doc.Gpu, ...]) -> doc.PolicyInput:
    return doc.PolicyInput(
        received_at=_RECEIVED[0],
        received_ns=_RECEIVED[1],
        session=doc.Session(_hex("session")[:32], "acme", "https://models.example", "running", _PERIOD_NS),
        window=doc.Window(3, "fresh", _PERIOD_NS),
        platform=platform,
        attester_code=doc.AttesterCode("proven"),
        gpus=gpus,
        weights=doc.Weights(
            declared=(doc.DeclaredModel(MODEL, "example-8b-instruct", "model"),),
            loaded=(
                doc.LoadedModel(
                    MODEL, "example-8b-instruct", declared=True, recnum=1, protection="dm-verity", root=_hex("image")
                ),
            ),
            log_length=2,
            baseline="zero",
            differences=(),
            spot_check=doc.SpotCheck("passed", 3),
        ),
        telemetry=doc.Telemetry("no_baseline", _sources(gpus)),
        work=doc.Work(
            requests=12,
            tokens_in=5_210,
            tokens_out=3_977,
            batch_max=4,
            prefill_ns=410_000_000,
            decode_ns=18_300_000_000,
        ),
        findings=(),
        gap=doc.Gap(0, None),
        runtime=doc.Runtime(present=True, entries=1_742),
    )


def _platform() -> doc.Platform:
    """What a confidential machine on Azure and a host with a TPM of its own have in common."""
    return doc.Platform(
        kind="tpm-vtpm-report",
        name="amd-sev-snp",
        ak=_hex("attestation key"),
        anchor="CN=ARK-Genoa,O=Advanced Micro Devices,ST=CA,L=Santa Clara,C=US,OU=Engineering",
        boot_pcrs=tuple(doc.BootPcr(index, _hex(f"boot PCR {index}")) for index in _BOOT_PCRS),
        firmware="0x2020031200120003",
        secure_boot="proven",
        kernel_lockdown="proven",
        host_binding="proven",
        detail="sev-snp Genoa TCB 9.0.23.72 (matches)",
        state_held_by="guest",
        boot_reference="match",
        host="inference-h100",
        tee=doc.Tee(
            kind="sev-snp",
            product="Genoa",
            tcb="9.0.23.72",
            tcb_status="matches",
            revocation="good",
            smt=True,
            vmpl=0,
            measurement=MEASUREMENT,
        ),
    )


def _reference(unchecked: Mapping[Check, str], *gpus: doc.Gpu) -> Reference:
    """Values that know the model and the measurements of ``gpus``, and leave out what ``unchecked`` says."""
    return Reference(
        models=MappingProxyType({MODEL: "example-8b-instruct"}),
        gpu_measurements=MappingProxyType(
            {f"{gpu.architecture}/{gpu.driver}/{gpu.vbios}": (str(gpu.measurements_digest),) for gpu in gpus}
        ),
        unchecked=MappingProxyType(dict(unchecked)),
        tee_measurements=MappingProxyType({MEASUREMENT: "Azure's paravisor"}),
        gpu_minimum=MappingProxyType({"GH100": GpuMinimum(_DRIVER, None)}),
    )


def _azure_snp_h100() -> Example:
    unchecked: dict[Check, str] = {
        "platform_tcb": "Genoa does not say whether memory was checked for aliases",
        "telemetry_baseline": "the baseline of this model is not recorded yet",
    }
    return Example(_document(_platform(), (_gpu(0),)), _reference(unchecked))


def _in_baseline() -> Example:
    made = _azure_snp_h100()
    baseline = NamedBaseline(
        owner="Acme",
        name="inference-h100",
        number=4,
        digest=_hex("signed baseline set"),
        not_before=datetime(2026, 11, 1, tzinfo=UTC),
        not_after=datetime(2027, 2, 1, tzinfo=UTC),
    )
    unchecked = dict(made.reference.unchecked)
    del unchecked["telemetry_baseline"]
    device = doc.TelemetryDevice(
        device=made.input.gpus[0].identity,
        verdict="in_baseline",
        baseline=baseline.digest,
        units=3,
        score=812,
        threshold=1_940,
        p_ppb=413_000_000,
        e_log10_milli=-310,
        residual_mw=1_900,
        explained_mw=436_200,
        uncertainty_mw=2_600,
        smallest_deviation_mw=14_000,
    )
    return Example(
        replace(made.input, telemetry=replace(made.input.telemetry, verdict="in_baseline", devices=(device,))),
        replace(made.reference, unchecked=MappingProxyType(unchecked)).with_baselines([baseline]),
    )


def _bare_metal_tpm_h100() -> Example:
    platform = replace(
        _platform(),
        kind="tpm-ek-credential",
        name="tpm",
        anchor="CN=Infineon OPTIGA(TM) ECC Manufacturing CA 010,OU=OPTIGA(TM) TPM2.0,O=Infineon Technologies AG,C=DE",
        firmware="0x0007005500c8a200",
        host_binding="unproven",
        detail="",
        state_held_by="tpm",
        tee=doc.Tee(),
    )
    unchecked: dict[Check, str] = {
        "host_binding": "our own machines in our own cage: the host is trusted",
        "telemetry_baseline": "the baseline of this model is not recorded yet",
    }
    linked = [replace(_gpu(number), signed_protected_pcie=True, signed_feature="ppcie") for number in range(8)]
    gpus = (*linked, *(_switch(number) for number in range(4)))
    return Example(_document(platform, gpus), _reference(unchecked))


def _emulated() -> Example:
    gpu = replace(
        _gpu(0),
        identity=_hex("emulated GPU"),
        platform=_EMULATED,
        revocation="absent",
        cc_mode_host_claim=None,
        reference_by="relying-party",
        manifests=(),
        minimum="none",
        signed_feature=None,
        signed_protected_pcie=None,
    )
    platform = replace(
        _platform(),
        kind="tpm-ek-credential",
        name=_EMULATED,
        anchor="emulated TPM",
        firmware="0x2016051100162800",
        secure_boot="unproven",
        kernel_lockdown="unproven",
        host_binding="unproven",
        detail="",
        state_held_by="unknown",
        boot_reference="absent",
        host=None,
        tee=doc.Tee(),
    )
    made = _document(platform, (gpu,))
    document = replace(
        made,
        attester_code=doc.AttesterCode("unproven", ("boot-log", "boot-chain", "secure-boot")),
        runtime=doc.Runtime(),
        weights=replace(
            made.weights,
            loaded=(replace(made.weights.loaded[0], protection="none", root=None),),
            spot_check=doc.SpotCheck("not_due", None),
        ),
        telemetry=doc.Telemetry("no_baseline", (doc.TelemetrySource(gpu.identity, "emulated", _EMULATED, _CHANNELS),)),
    )
    return Example(document, _reference({}, gpu))


EXAMPLES: Final[Mapping[str, Example]] = MappingProxyType(
    {
        "azure_snp_h100": _azure_snp_h100(),
        "bare_metal_tpm_h100": _bare_metal_tpm_h100(),
        "in_baseline": _in_baseline(),
        "emulated": _emulated(),
    }
)
"""By name; see the module."""
