"""``weighbridge inspect log`` and ``weighbridge verify log``: an event log, looked at or replayed to quoted values.

``inspect`` parses, prints ``UNVERIFIED`` first, then every event and the values that the log leads to. ``verify``
compares these with values that a quote signs; whether a TPM signed them is not asked here.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, ExitCode, Indeterminate, MalformedEvidence
from weighbridge.proto.eventlog import (
    Binding,
    Format,
    Register,
    RegisterKind,
    Rule,
    read,
    replay,
    require,
    require_whole_boot,
)
from weighbridge.proto.tpm.constants import HashAlgorithm, digest_size
from weighbridge.verifier.commands.outcome import Outcome, usage
from weighbridge.verifier.commands.outcome import read as read_file
from weighbridge.verifier.commands.text import counted

if TYPE_CHECKING:
    from weighbridge.proto.eventlog import Event, EventLog

__all__ = ["configure_inspect", "configure_verify", "run_inspect", "run_verify"]

_INSPECT_SCHEMA: Final = "weighbridge/inspect-log/v1"
_VERIFY_SCHEMA: Final = "weighbridge/verify-log/v1"
_AUTO: Final = "auto"
_CCMRS: Final = range(1, 5)
# SHA-1 values can be looked at. No answer rests on them.
_BANKS: Final = {bank.name.lower(): bank for bank in HashAlgorithm if bank is not HashAlgorithm.SHA1}
_UNVERIFIED: Final = (
    "UNVERIFIED: anybody can write these bytes (weighbridge verify log compares what they lead to with a quote)"
)
_NOT_PROVEN: Final = (
    "that a TPM signed these values for a challenge of yours",
    "that what was measured is good: nothing is compared with reference values",
    "events of registers that were not compared",
)
_FORM_LIMITS: Final = {
    Format.TCG2: ("the type of an event: firmware's digests do not cover it",),
    Format.IMA: ("that the kernel measured all that mattered: its policy decides", "paths: they are hints"),
    Format.SYSTEMD: ("the type of an event, its boot and its time: no digest covers them",),
}
_OPAQUE: Final = "the description of events marked opaque: their digests are of something that the log does not hold"
_HELD: Final = {
    Binding.CONTENT: "content",
    Binding.OPAQUE: "opaque",
    Binding.VIOLATION: "violation",
    Binding.NONE: "-",
}


def configure_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect log`` to ``parser``."""
    _configure_log(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run_inspect)


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify log`` to ``parser``."""
    _configure_log(parser)
    parser.add_argument(
        "--pcr",
        metavar="N=HEX",
        action="append",
        default=[],
        type=_pcr,
        help="the log must lead PCR N to this value (several times)",
    )
    parser.add_argument(
        "--ccmr",
        metavar="N=HEX",
        action="append",
        default=[],
        type=_ccmr,
        help="the same for a measurement register of a confidential VM, 1 to 4: CCMR 4 is a TDX guest's RTMR 3",
    )
    parser.add_argument(
        "--start",
        metavar="N=HEX",
        action="append",
        default=[],
        type=_pcr,
        help="PCR N held this before the log's first event (default: as after a reset)",
    )
    parser.add_argument(
        "--bank", choices=tuple(_BANKS), default="sha256", help="the bank that the values are of (default: sha256)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=run_verify)


def run_inspect(arguments: argparse.Namespace) -> Outcome:
    """Parse, and say what is there and what it leads to in every bank.

    Raises:
        MalformedEvidence: as :func:`weighbridge.proto.eventlog.read`.
        NotAuthentic: ``LOG_GAP``.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    log = _read(arguments)
    values = {bank: replay(log, bank) for bank in log.banks} if log.registers else {}
    lines = [_UNVERIFIED, "", _summary(log), ""]
    lines += [_line(event) for event in log.events]
    for bank, found in values.items():
        lines += ["", f"leads to, in the {bank.name.lower()} bank, from what a reset leaves"]
        lines += [f"  {register!s:<8} {value.hex()}" for register, value in sorted(found.items())]
    document: strict.JsonObject = {
        "schema": _INSPECT_SCHEMA,
        "verified": False,
        "format": log.format.value,
        "locality": log.locality,
        "events": [_describe(event) for event in log.events],
        "violations": [event.number for event in log.violations],
        "values": {bank.name.lower(): _values(found) for bank, found in values.items()},
    }
    return Outcome("\n".join(lines) + "\n", document)


def run_verify(arguments: argparse.Namespace) -> Outcome | int:
    """Replay, and compare with the given values; exit 0 when all are what the log leads to.

    Raises:
        NotAuthentic: ``LOG_REPLAY``, ``LOG_GAP``; ``LOG_EVENT`` for a separator of firmware that is missing or twice.
        Indeterminate: ``LOG_EVENT`` when firmware's log ends before the boot services did; ``LOG_VIOLATION`` when the
            values fit, but entries say of themselves that nobody knows what they measured.
        MalformedEvidence: as :func:`weighbridge.proto.eventlog.read`.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    bank = _BANKS[arguments.bank]
    given: list[tuple[Register, bytes]] = [*arguments.pcr, *arguments.ccmr]
    start: list[tuple[Register, bytes]] = arguments.start
    mistake = _mistake(given, start, bank)
    if mistake:
        usage(mistake, command="verify log")
    log = _read(arguments)
    expected = dict(given)
    values = require(log, bank, expected, start=dict(start))
    if log.format is Format.TCG2:
        require_whole_boot(log, expected)
    covered = [event for event in log.events if event.extends and event.register in expected]
    _check_violations(covered)
    others = sorted(set(log.registers) - set(expected))
    opaque = sum(event.binding is Binding.OPAQUE for event in covered)
    lines = [
        f"REPLAYS: {counted(len(covered), 'event leads', 'events lead')} to the given values",
        f"  log          {_summary(log)}",
        *(f"  {register!s:<12} {values[register].hex()}" for register in sorted(expected)),
        f"  content      {_vouched(len(covered), opaque)}",
        *(["  not compared " + ", ".join(map(str, others))] if others else []),
        *(f"  not proven   {line}" for line in _limits(log, opaque)),
    ]
    document: strict.JsonObject = {
        "schema": _VERIFY_SCHEMA,
        "result": "replays",
        "exit_code": int(ExitCode.AFFIRMED),  # lenient: an IntEnum
        "format": log.format.value,
        "bank": bank.name.lower(),
        "values": _values({register: values[register] for register in expected}),
        "start": _values(dict(start)),
        "events": len(covered),
        "opaque": opaque,
        "not_compared": [str(register) for register in others],
        "not_proven": list(_limits(log, opaque)),
    }
    return Outcome("\n".join(lines) + "\n", document)


def _configure_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="FILE", help="an event log: a file, or - for standard input")
    parser.add_argument(
        "--format",
        choices=(_AUTO, *(form.value for form in Format)),
        default=_AUTO,
        help="weighbridge: a session's log in CBOR; cel: TCG's Canonical Event Log in TLV; tcg2: firmware's "
        "binary_bios_measurements; ima: the kernel's binary_runtime_measurements; systemd: tpm2-measure.log "
        "(default: by how it begins)",
    )
    parser.add_argument(
        "--ima-rule",
        choices=tuple(rule.value for rule in Rule),
        default=Rule.REHASHED.value,
        help="what the kernel extends into banks other than sha1: rehashed since Linux 5.8, before that the sha1 "
        "digest padded with zeros (default: rehashed)",
    )


def _read(arguments: argparse.Namespace) -> EventLog:
    form = None if arguments.format == _AUTO else Format(arguments.format)
    return read(read_file(arguments.log, limit=limits.EVENT_LOG_MAX), form, rule=Rule(arguments.ima_rule))


def _mistake(
    given: list[tuple[Register, bytes]], start: list[tuple[Register, bytes]], bank: HashAlgorithm
) -> str | None:
    """What is wrong with the values on the command line."""
    if not given:
        return "name at least one value to compare with: --pcr N=HEX or --ccmr N=HEX"
    for pairs in (given, start):
        for register, value in pairs:
            if len(value) != digest_size(bank):
                return f"{register}: a value of the {bank.name.lower()} bank has {2 * digest_size(bank)} digits"
        if len(dict(pairs)) != len(pairs):
            return "a register is given twice"
    return None


def _check_violations(covered: list[Event]) -> None:
    bad = [event for event in covered if event.binding is Binding.VIOLATION]
    if bad:
        those = counted(len(covered), "entry is a violation", "entries are violations")
        raise Indeterminate(
            Code.LOG_VIOLATION,
            f"the log leads to the given values, but {len(bad)} of {those}",
            where=f"log[{bad[0].number}]",
            got=bad[0].text,
            hint="these files were open for writing or changed while the kernel read them: what they held is not known",
        )


def _vouched(covered: int, opaque: int) -> str:
    if not opaque:
        return "vouched for by the digests"
    return f"vouched for by the digests in {counted(covered - opaque, 'event')}; of {opaque} only the digest is proven"


def _limits(log: EventLog, opaque: int) -> tuple[str, ...]:
    return (*_NOT_PROVEN, *_FORM_LIMITS.get(log.format, ()), *((_OPAQUE,) if opaque else ()))


def _summary(log: EventLog) -> str:
    banks = " ".join(bank.name.lower() for bank in log.banks) if log.registers else "none"
    parts = [f"{log.format.value}, {counted(len(log.events), 'event')}, banks {banks}"]
    if log.locality:
        parts.append(f"boot began at locality {log.locality}")
    if log.violations:
        parts.append(f"{len(log.violations)} VIOLATIONS: what these entries measured is not known")
    return ", ".join(parts)


def _line(event: Event) -> str:
    return f"{event.number:>5} {event.register!s:<8} {_HELD[event.binding]:<9} {event.kind}  {event.text}".rstrip()


def _describe(event: Event) -> strict.JsonObject:
    names: dict[int, str] = {bank.value: bank.name.lower() for bank in HashAlgorithm}
    return {
        "number": event.number,
        "register": str(event.register),
        "binding": event.binding.value,
        "kind": event.kind,
        "text": event.text,
        "digests": {names.get(bank, f"{bank:#06x}"): value.hex() for bank, value in event.digests},
    }


def _values(found: dict[Register, bytes]) -> strict.JsonObject:
    return {str(register): value.hex() for register, value in sorted(found.items())}


def _pcr(text: str) -> tuple[Register, bytes]:
    """``N=HEX`` of a PCR."""
    return _value(text, RegisterKind.PCR, range(limits.PCRS_MAX))


def _ccmr(text: str) -> tuple[Register, bytes]:
    """``N=HEX`` of a confidential VM's measurement register."""
    return _value(text, RegisterKind.CCMR, _CCMRS)


def _value(text: str, kind: RegisterKind, numbers: range) -> tuple[Register, bytes]:
    number, found, value = text.partition("=")
    try:
        index = strict.decimal(number, what="the register")
        octets = strict.hex_decode(value.lower(), what="the value")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not N=HEX: {error.message}") from error
    if not found or index not in numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is not N=HEX with N from {numbers[0]} to {numbers[-1]}")
    return Register(kind, index), octets
