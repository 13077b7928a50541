"""``weighbridge inspect gpu`` and ``weighbridge verify gpu``: one recorded report, looked at or verified.

``inspect`` parses and prints ``UNVERIFIED`` first. ``verify`` proves chain, signature and nonce; reference values and
revocation are not looked up, so its best answer is *indeterminate* (exit 6), with a statement of what was proven.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.spdm import report as spdm
from weighbridge.verifier import anchors as trust
from weighbridge.verifier import certs
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.gpu import (
    GPUS_AND_SWITCHES,
    check_architecture,
    check_nonce,
    verify_chain,
    verify_recorded_report,
)
from weighbridge.verifier.gpu.fwid import certified_fwid
from weighbridge.verifier.gpu.recorded import load_bytes, load_chain, load_report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.spdm.report import Report
    from weighbridge.verifier.gpu import VerifiedGpuReport

__all__ = ["configure_inspect", "configure_verify", "run_inspect", "run_verify"]

_INSPECT_SCHEMA: Final = "weighbridge/inspect-gpu/v1"
_VERIFY_SCHEMA: Final = "weighbridge/verify-gpu/v1"
_ANCHORS_MAX: Final = 2 * 1024 * 1024
_PLACE: Final = "a file, - for standard input, or WHEEL!MEMBER"

_NOT_VERIFIED: Final = (
    (Code.GPU_REFERENCE_ABSENT, "measurements are authentic, but there is no reference value to compare them with"),
    (Code.GPU_REVOCATION_UNKNOWN, "whether a certificate of the chain has been revoked was not asked"),
    (Code.UNPROVEN, "confidential mode: no signed field says that it is on"),
    (Code.UNPROVEN, "where the device is: a relayed report looks the same"),
)
_STATEMENT: Final = f"{Code.GPU_REFERENCE_ABSENT.value}: signed by this device over this nonce, not known to be good"
_RECORDED: Final = "recorded evidence: it shows what the device signed once, not what it is now"


def configure_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect gpu`` to ``parser``."""
    parser.add_argument("report", metavar="REPORT", help=f"SPDM report, raw or hexadecimal: {_PLACE}")
    parser.add_argument("--chain", metavar="FILE", help="its certificate chain, PEM, leaf first")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify gpu`` to ``parser``."""
    parser.add_argument("report", metavar="REPORT", help=f"SPDM report, raw or hexadecimal: {_PLACE}")
    parser.add_argument("--chain", metavar="FILE", required=True, help="its certificate chain, PEM, leaf first")
    parser.add_argument(
        "--nonce", metavar="HEX", required=True, type=_nonce, help="what the device was to sign: 64 hexadecimal digits"
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        required=True,
        type=given.time,
        help="judge validity at this time (2026-01-31T12:00:00Z, or now)",
    )
    parser.add_argument("--anchors", metavar="FILE", help="believe these roots instead of the ones shipped")
    parser.add_argument("--arch", metavar="NAME", help="refuse another architecture than this, such as GH100")
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")


def run_inspect(args: argparse.Namespace) -> int:
    """Parse and print; returns the exit status."""
    if _twice_stdin(args):
        return ExitCode.USAGE
    try:
        report = spdm.parse(load_report(args.report))
        chain = () if args.chain is None else load_chain(args.chain)
        listed = _describe_chain(chain)
        findings = _findings(report, chain)
    except WeighbridgeError as error:
        return _fail(error, _INSPECT_SCHEMA, json=args.json)
    if args.json:
        _print_json(
            {
                "schema": _INSPECT_SCHEMA,
                "verified": False,
                "report": _describe_report(report),
                "chain": list(listed) if chain else None,
                "findings": [{"code": code.value, "message": message} for code, message in findings],
            }
        )
        return ExitCode.AFFIRMED
    lines = [
        "UNVERIFIED: no signature was checked; anybody can write these bytes (weighbridge verify gpu checks them)",
        "",
    ]
    lines += _table(_describe_report(report))
    for number, certificate in enumerate(listed):
        lines.append(f"{f'chain[{number}]':<30} {certificate['subject']}")
    if chain:
        lines.append(f"{'claimed identity':<30} {listed[1]['key_sha256'] if len(listed) > 1 else '-'}")
    lines += [f"{'finding':<30} {code.value}: {message}" for code, message in findings]
    _print(lines)
    return ExitCode.AFFIRMED


def run_verify(args: argparse.Namespace) -> int:
    """Verify and print what was proven and what was not; returns the exit status, 6 at best."""
    if _twice_stdin(args):
        return ExitCode.USAGE
    try:
        verified, warnings = _verify(args)
    except WeighbridgeError as error:
        return _fail(error, _VERIFY_SCHEMA, json=args.json)
    proven = _describe_verified(verified, args.at)
    if args.json:
        _print_json(
            {
                "schema": _VERIFY_SCHEMA,
                "result": "indeterminate",
                "exit_code": int(ExitCode.INDETERMINATE),  # lenient: an IntEnum
                "code": Code.GPU_REFERENCE_ABSENT.value,
                "verified": proven,
                "not_verified": [{"code": code.value, "message": message} for code, message in _NOT_VERIFIED],
                "findings": [{"code": item.code.value, "message": item.message} for item in verified.findings],
                "warnings": list(warnings),
                "report": _describe_report(verified.report),
            }
        )
    else:
        lines = [f"INDETERMINATE: {_STATEMENT}", ""]
        lines += _table({f"verified {key}": value for key, value in proven.items()})
        lines += [f"{'finding':<30} {item.code.value}: {item.message}" for item in verified.findings]
        lines += [f"{'not verified':<30} {code.value}: {message}" for code, message in _NOT_VERIFIED]
        _print(lines)
    for warning in warnings:
        sys.stderr.write(f"weighbridge: warning: {warning}\n")
    return ExitCode.INDETERMINATE


def _verify(args: argparse.Namespace) -> tuple[VerifiedGpuReport, list[str]]:
    anchors = trust.default() if args.anchors is None else trust.load(load_bytes(args.anchors, limit=_ANCHORS_MAX))
    report = spdm.parse(load_report(args.report))
    chain = verify_chain(load_chain(args.chain), anchors, at=args.at, accept=GPUS_AND_SWITCHES)
    if args.arch is not None:
        check_architecture(chain, args.arch)
    verified = verify_recorded_report(report, chain, nonce=args.nonce)
    warnings = [_RECORDED]
    denied = _denied(args.nonce)
    if denied is not None:
        warnings.append(f"{denied}; a live session refuses it")
    if chain.platform == trust.EMULATED_PLATFORM:
        warnings.append("the device is emulated: anybody can make one")
    return verified, warnings


def _findings(report: Report, chain: Sequence[bytes]) -> list[tuple[Code, str]]:
    """What a reader of an unverified report should know before believing any of it."""
    findings: list[tuple[Code, str]] = []
    if report.trailing:
        findings.append((Code.TRAILING_BYTES, f"{len(report.trailing)} unsigned bytes follow the signature"))
    denied = _denied(report.nonce)
    if denied is not None:
        findings.append((Code.NONCE_DENIED, denied))
    if report.fwid is None:
        findings.append((Code.GPU_FWID, "the report names no firmware digest; drivers of 2023 did not"))
    elif chain and certified_fwid(certs.load_certificate(chain[0], "chain[0]"), where="chain[0]") != report.fwid:
        findings.append((Code.GPU_FWID, "report and leaf certificate name different firmware"))
    unknown = [field.name for field in report.opaque.fields if not field.is_named]
    if unknown:
        findings.append((Code.FIELD_UNKNOWN, f"opaque entries without a name here: {', '.join(unknown)}"))
    return findings


def _denied(nonce: bytes) -> str | None:
    try:
        check_nonce(nonce)
    except NotAuthentic as error:
        return error.message
    return None


def _describe_report(report: Report) -> strict.JsonObject:
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


def _describe_chain(chain: Sequence[bytes]) -> list[strict.JsonObject]:
    listed: list[strict.JsonObject] = []
    for number, der in enumerate(chain):
        certificate = certs.load_certificate(der, f"chain[{number}]")
        listed.append(
            {
                "subject": certificate.subject.rfc4514_string(),
                "not_before": strict.time_encode(certificate.not_valid_before_utc),
                "not_after": strict.time_encode(certificate.not_valid_after_utc),
                "sha256": sha256(der).hex(),
                "key_sha256": sha256(certs.spki_der(certificate)).hex(),
            }
        )
    return listed


def _describe_verified(verified: VerifiedGpuReport, at: datetime) -> strict.JsonObject:
    chain = verified.chain
    return {
        "platform": chain.platform,
        "chain": f"ends at an anchor for nvidia-device-root, valid at {strict.time_encode(at)}",
        "kind": chain.kind,
        "identity": chain.identity.hex(),
        "model": chain.model,
        "architecture": chain.architecture,
        "signature": "ECDSA P-384 with SHA-384 over request and response",
        "nonce": verified.nonce.hex(),
        "fwid": verified.fwid,
        "protected_pcie": verified.mode.protected_pcie,
        "feature": verified.mode.feature,
        "driver": verified.report.driver_version,
        "vbios": verified.report.vbios_version,
        "measurements_sha256": verified.measurements_digest.hex(),
    }


def _twice_stdin(args: argparse.Namespace) -> bool:
    if args.report != "-" or args.chain != "-":
        return False
    sys.stderr.write("weighbridge: error: REPORT and --chain cannot both be standard input\n")
    return True


def _fail(error: WeighbridgeError, schema: str, *, json: bool) -> int:
    if json:
        _print_json(
            {
                "schema": schema,
                "result": "refused",
                "exit_code": int(error.exit_code),  # lenient: an IntEnum
                "code": error.code.value,
                "error": dict(error.document()),
            }
        )
    sys.stderr.write(_printable(f"weighbridge: error: {error}") + "\n")
    if error.hint:
        sys.stderr.write(_printable(f"hint: {error.hint}") + "\n")
    return error.exit_code


def _table(rows: strict.JsonObject) -> list[str]:
    return [f"{key.replace('_', ' '):<30} {'-' if value is None else value}" for key, value in rows.items()]


def _print(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(map(_printable, lines)) + "\n")


def _printable(line: str) -> str:
    """Names in certificates are whatever their issuer wrote: no escape sequence reaches a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def _print_json(document: strict.JsonObject) -> None:
    sys.stdout.write(strict.json_encode(document, indent=2).decode() + "\n")


def _nonce(text: str) -> bytes:
    """Any length: a wrong one is refused by the verification, with its own code."""
    try:
        return strict.hex_decode(text.lower(), what="--nonce")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError("not hexadecimal") from error
