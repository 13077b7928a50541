"""GPU evidence for programs: what ``inspect gpu --json`` and ``verify gpu --json`` print.

Devices are known by their identity, a digest. Serial numbers and PDIs, which certificates and reports have, are not
shown of what was verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.commands.gpu_verdict import Facts

if TYPE_CHECKING:
    from weighbridge.proto.collateral import Collateral
    from weighbridge.proto.spdm.report import Report
    from weighbridge.verifier.commands.gpu_verdict import (
        Device,
        Facts,
        Judgement,
        Manifest,
        Question,
        Reason,
        Standing,
    )
    from weighbridge.verifier.gpu import VerifiedGpuReport

__all__ = ["VERIFY_SCHEMA", "WORDS", "describe_report", "judged"]

VERIFY_SCHEMA: Final = "weighbridge/verify-gpu/v1"
WORDS: Final = {
    ExitCode.AFFIRMED: "affirmed",
    ExitCode.INDETERMINATE: "indeterminate",
    ExitCode.DENIED: "denied",
    ExitCode.NOT_AUTHENTIC: "not authentic",
    ExitCode.MALFORMED: "malformed",
}


def judged(judgement: Judgement, question: Question, collateral: Collateral) -> strict.JsonObject:
    """The whole of a judgement."""
    worst = next(iter(judgement.reasons), None)
    return {
        "schema": VERIFY_SCHEMA,
        "result": WORDS[judgement.status],
        "exit_code": int(judgement.status),  # lenient: an IntEnum
        "code": None if worst is None else worst[1].code.value,
        "at": strict.time_encode(question.at),
        "nonce": None if question.nonce is None else question.nonce.hex(),
        "gpus": judgement.count("gpu"),
        "switches": judgement.count("switch"),
        "topology": judgement.topology,
        "reasons": [{"device": number, **_reason(reason)} for number, reason in judgement.reasons],
        "devices": [_device(device) for device in judgement.devices],
        "collateral": {
            "pieces": len(collateral.items),
            "digest": collateral.digest.hex() if collateral.items else None,
            "disbelieved": [{"sha256": item.digest.hex(), "reason": item.reason} for item in judgement.disbelieved],
        },
        "not_proven": list(judgement.not_proven),
    }


def describe_report(report: Report) -> strict.JsonObject:
    """What a report says, believed or not."""
    version = report.opaque.version
    return {
        "bytes": len(report.raw),
        "sha256": sha256(report.raw).hex(),
        "nonce": report.nonce.hex(),
        "slot": report.slot,
        "chip": report.chip,
        "driver": report.driver_version,
        "vbios": report.vbios_version,
        "project": report.project,
        "project_sku": report.project_sku,
        "chip_sku": report.chip_sku,
        "fwid": None if report.fwid is None else report.fwid.hex(),
        "protected_pcie": report.protected_pcie,
        "nvdec0": report.nvdec0,
        "feature": report.feature,
        "measurements": len(report.blocks),
        "measurements_zero": sum(1 for block in report.blocks if not any(block.value)),
        "measurements_sha256": report.measurements_digest.hex(),
        "opaque_format": report.opaque.format
        if version is None
        else f"{report.opaque.format} {'.'.join(map(str, version))}",
        "opaque_entries": len(report.opaque.fields),
        "trailing_bytes": len(report.trailing),
    }


def _device(device: Device) -> strict.JsonObject:
    facts = device.facts
    return {
        "number": device.number,
        "result": WORDS[device.status],
        "reasons": [_reason(reason) for reason in device.reasons],
        "claimed_arch": device.claimed_arch,
        "error": None if isinstance(device.found, Facts) else dict(device.found.document()),
        "verified": None if facts is None else _verified(facts.verified),
        "report": None if facts is None else describe_report(facts.verified.report),
        "measurements": None if facts is None else _measured(facts),
        "revocation": None if facts is None else _standing(facts.revocation),
        "findings": []
        if facts is None
        else [{"code": code.value, "message": message} for code, message in facts.findings],
    }


def _reason(reason: Reason) -> strict.JsonObject:
    return {"result": WORDS[reason.status], "code": reason.code.value, "message": reason.message}


def _verified(verified: VerifiedGpuReport) -> strict.JsonObject:
    chain = verified.chain
    return {
        "platform": chain.platform,
        "kind": chain.kind,
        "identity": chain.identity.hex(),
        "model": chain.model,
        "architecture": chain.architecture,
        "chain_sha256": chain.chain_digest.hex(),
        "nonce": verified.nonce.hex(),
        "fwid": verified.fwid,
        "protected_pcie": verified.mode.protected_pcie,
        "feature": verified.mode.feature,
        "driver": verified.report.driver_version,
        "vbios": verified.report.vbios_version,
        "measurements_sha256": verified.measurements_digest.hex(),
    }


def _measured(facts: Facts) -> strict.JsonObject:
    measured = facts.measured
    return {
        "status": measured.status,
        "compared": measured.compared,
        "wanted": list(measured.wanted),
        "manifests": [_manifest(item) for item in facts.manifests],
        "missing": [{"id": item.service_id, "why": item.why} for item in facts.missing],
        "mismatches": [
            {
                "index": item.index,
                "owner": item.owner,
                "name": item.name,
                "expected": [value.hex() for value in item.expected],
                "got": item.got.hex() or None,
                "causes": list(item.causes),
            }
            for item in measured.mismatches
        ],
        "conflicts": list(measured.conflicts),
        "uncovered": list(measured.uncovered),
        "skipped": list(measured.skipped),
    }


def _manifest(manifest: Manifest) -> strict.JsonObject:
    rim = manifest.rim
    return {
        "owner": manifest.owner,
        "id": rim.id,
        "issued": strict.time_encode(rim.issued),
        "not_after": strict.time_encode(rim.not_after),
        "measurements": len(rim.active),
        "sha256": rim.digest.hex(),
        "signer": _standing(manifest.signer),
    }


def _standing(standing: Standing) -> strict.JsonObject:
    return {
        "status": standing.status,
        "detail": None if standing.worst is None else f"{standing.worst.name}: {standing.worst.detail}",
        "until": None if standing.until is None else strict.time_encode(standing.until),
        "certificates": [
            {
                "name": link.name,
                "status": link.status,
                "detail": link.detail,
                "until": None if link.until is None else strict.time_encode(link.until),
                "statements": [digest.hex() for digest in link.used],
            }
            for link in standing.links
        ],
        "ignored": [{"sha256": item.digest.hex(), "reason": item.reason} for item in standing.ignored],
    }
