"""Verified facts under the names that other verifiers give them.

Only what was verified here is laid out: a claim that this verifier cannot make is absent, and a policy that demands it
then refuses. Sources: NVIDIA attestation SDK, "Configuring attestation" (claims version 3); Trustee,
``ear_default_policy_cpu.rego`` and ``ear_default_policy_gpu.rego``; Intel Trust Authority, "Attestation policies V2".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from weighbridge.policy.document import Gpu, PolicyInput
    from weighbridge.proto import strict

__all__ = ["intel_tdx", "nvidia", "trustee_cpu", "underscored"]

# Their word for what ours say of certificates; `stale` and `absent` are nobody's answer.
_OCSP: Final = {"good": "good", "revoked": "revoked", "hold": "revoked"}
_PREFIX: Final = "x-nvidia"
# Intel TDX DCAP quoting library API, A.3.1: quotes of another kind are not parsed.
_TDX_TEE_TYPE: Final = "81000000"


def nvidia(gpu: Gpu) -> strict.JsonObject:
    """A device's claims as NVIDIA's SDK makes them; verified by us, under their names.

    ``secboot`` and ``dbgstat`` rest on no evidence of their own and follow ``measres``, as with NVIDIA. Nothing is said
    of OCSP nonces: responses are kept and have none.
    """
    kind = "switch" if gpu.kind == "switch" else "gpu"
    # Their manifests alone: what a relying party accepts beside is no word of NVIDIA's.
    good = gpu.reference == "match" and gpu.reference_by in {"manifests", "both"}
    claims: strict.JsonObject = {
        f"{_PREFIX}-device-type": "nvswitch" if kind == "switch" else "gpu",
        "hwmodel": gpu.model,
        "measres": "success" if good else "fail",
        f"{_PREFIX}-{kind}-attestation-report-parsed": True,
        f"{_PREFIX}-{kind}-attestation-report-signature-verified": True,
        f"{_PREFIX}-{kind}-attestation-report-nonce-match": True,
        f"{_PREFIX}-{kind}-attestation-report-cert-chain": _chain(gpu.revocation),
        f"{_PREFIX}-{kind}-attestation-report-cert-chain-fwid-match": gpu.fwid == "matches",
        f"{_PREFIX}-{kind}-arch-check": gpu.architecture is not None,
        f"{_PREFIX}-{kind}-vbios-index-no-conflict": not gpu.conflicts,
    }
    if good:
        claims |= {"secboot": True, "dbgstat": "disabled"}
    if gpu.driver is not None:
        claims[f"{_PREFIX}-gpu-driver-version"] = gpu.driver
    if gpu.vbios is not None:
        claims[f"{_PREFIX}-{'switch-bios' if kind == 'switch' else 'gpu-vbios'}-version"] = gpu.vbios
    for manifest in gpu.manifests:
        owner = "bios" if kind == "switch" else manifest.owner
        for word in ("fetched", "schema-validated", "signature-verified", "version-match", "measurements-available"):
            claims[f"{_PREFIX}-{kind}-{owner}-rim-{word}"] = True
        claims[f"{_PREFIX}-{kind}-{owner}-rim-cert-chain"] = _chain(manifest.revocation)
    if gpu.differences:
        claims[f"{_PREFIX}-mismatch-measurement-records"] = [
            {
                "index": difference.index,
                "measurementSource": difference.owner,
                "goldenValue": list(difference.expected),
                "runtimeValue": difference.got,
            }
            for difference in gpu.differences
        ]
    return claims


def underscored(claims: strict.JsonObject) -> strict.JsonObject:
    """The same with underscores for hyphens in every name: so Trustee hands NVIDIA's claims to policies."""
    return {
        name.replace("-", "_"): underscored(value) if isinstance(value, dict) else value
        for name, value in claims.items()
    }


def trustee_cpu(document: PolicyInput) -> strict.JsonObject:
    """The machine as Trustee calls it: ``az-snp-vtpm``, ``az-tdx-vtpm``, or ``tpm`` where there is no report."""
    platform, tee = document.platform, document.platform.tee
    registers: strict.JsonObject = {f"pcr{item.index:02}": item.sha256 for item in platform.boot_pcrs}
    if tee.kind == "sev-snp":
        measured: strict.JsonObject = {"measurement": tee.measurement, "tpm": registers}
        if tee.smt is not None:
            measured["platform_smt_enabled"] = tee.smt
        return {"az-snp-vtpm": measured}
    if tee.kind == "tdx":
        return {
            "az-tdx-vtpm": {
                "quote": {"header": {"tee_type": _TDX_TEE_TYPE}, "body": {"mr_td": tee.measurement}},
                "td_attributes": {"debug": False},
                "tcb_status": tee.tcb_status,
                "advisory_ids": list(tee.advisories),
                "tpm": registers,
            }
        }
    return {"tpm": registers}


def intel_tdx(document: PolicyInput) -> strict.JsonObject:
    """The machine as Intel Trust Authority's policies V2 call it; empty where it is not of TDX."""
    tee = document.platform.tee
    if tee.kind != "tdx":
        return {}
    return {
        "tdx": {
            "tdx_mrtd": tee.measurement,
            "tdx_is_debuggable": False,
            "attester_tcb_status": tee.tcb_status,
            "attester_advisory_ids": list(tee.advisories),
        }
    }


def _chain(
    revocation: Literal["absent", "good", "revoked", "hold", "unknown", "stale"],
) -> strict.JsonObject:
    chain: strict.JsonObject = {f"{_PREFIX}-cert-status": "revoked" if revocation in {"revoked", "hold"} else "valid"}
    if revocation != "absent":
        chain[f"{_PREFIX}-cert-ocsp-status"] = _OCSP.get(revocation, "unknown")
    return chain
