"""``weighbridge inspect gpu``: one recorded report, parsed and printed, ``UNVERIFIED`` first."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode, NotAuthentic, WeighbridgeError
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier import certs
from weighbridge.verifier.commands.gpu_document import describe_report
from weighbridge.verifier.commands.outcome import taken_for, usage
from weighbridge.verifier.gpu import (
    check_nonce,
)
from weighbridge.verifier.gpu.chain import without_number
from weighbridge.verifier.gpu.fwid import certified_fwid
from weighbridge.verifier.gpu.recorded import load_chain, load_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.spdm.report import Report

__all__ = ["configure_inspect", "run_inspect"]

_INSPECT_SCHEMA: Final = "weighbridge/inspect-gpu/v1"
_OF_SWITCHES: Final = (OpaqueType.LOCK_SWITCH_STATUS, OpaqueType.SWITCH_GPU_PDIS)
_WHOLE: Final = "is the file whole, and of a device that answers in SPDM 1.1?"
_PLACE: Final = "a file, - for standard input, or WHEEL!MEMBER"


def configure_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect gpu`` to ``parser``."""
    parser.add_argument("report", metavar="REPORT", help=f"SPDM report, raw or hexadecimal: {_PLACE}")
    parser.add_argument("--chain", metavar="FILE", help="its certificate chain, PEM, leaf first")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run_inspect)


def run_inspect(args: argparse.Namespace) -> int:
    """Parse and print; returns the exit status."""
    if args.report == "-" == args.chain:
        usage("REPORT and --chain cannot both be standard input", command="inspect gpu")
    try:
        data = load_report(args.report)
        with taken_for(args.report, what="an SPDM report", hint=_WHOLE):
            report = spdm.parse(data)
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
                "claimed_kind": _claimed_kind(report),
                "report": describe_report(report),
                "chain": list(listed) if chain else None,
                "findings": [{"code": code.value, "message": message} for code, message in findings],
            }
        )
        return ExitCode.AFFIRMED
    lines = [
        "UNVERIFIED: no signature was checked; anybody can write these bytes (weighbridge verify gpu checks them)",
        "",
    ]
    lines += _table({"claimed_kind": _claimed_kind(report), **describe_report(report)})
    for number, certificate in enumerate(listed):
        lines.append(f"{f'chain[{number}]':<30} {certificate['subject']}")
    if chain:
        lines.append(f"{'claimed identity':<30} {listed[1]['key_sha256'] if len(listed) > 1 else '-'}")
    lines += [f"{'finding':<30} {code.value}: {message}" for code, message in findings]
    _print(lines)
    return ExitCode.AFFIRMED


def _claimed_kind(report: Report) -> str | None:
    """By what a report has that those of the other kind have not: only certificates prove it."""
    if any(report.opaque.get(kind) is not None for kind in _OF_SWITCHES):
        return "switch"
    return "gpu" if report.driver_version is not None else None


def _findings(report: Report, chain: Sequence[bytes]) -> list[tuple[Code, str]]:
    """What a reader of an unverified report should know before believing any of it."""
    findings: list[tuple[Code, str]] = []
    if report.trailing:
        findings.append((Code.TRAILING_BYTES, f"{len(report.trailing)} unsigned bytes follow the signature"))
    denied = _denied(report.nonce)
    if denied is not None:
        findings.append((Code.NONCE_DENIED, denied))
    if report.fwid is None:
        findings.append((Code.GPU_FWID, "the report names no firmware digest; switches and drivers of 2023 do not"))
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


def _describe_chain(chain: Sequence[bytes]) -> list[strict.JsonObject]:
    listed: list[strict.JsonObject] = []
    for number, der in enumerate(chain):
        certificate = certs.load_certificate(der, f"chain[{number}]")
        listed.append(
            {
                "subject": without_number(certificate.subject),
                "not_before": strict.time_encode(certificate.not_valid_before_utc),
                "not_after": strict.time_encode(certificate.not_valid_after_utc),
                "sha256": sha256(der).hex(),
                "key_sha256": sha256(certs.spki_der(certificate)).hex(),
            }
        )
    return listed


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
