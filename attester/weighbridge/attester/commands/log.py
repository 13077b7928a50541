"""``weighbridge-attester log show | export``: the newest measurement log of a state directory.

Works beside a running attester. No TPM is asked: whether the register holds what the log leads to, a quote says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.durable import write_file
from weighbridge.attester.weights.stored import StoredLog, read_newest
from weighbridge.attester.wording import counted
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.eventlog import records as exported
from weighbridge.proto.measurement_log import encode_records, head

if TYPE_CHECKING:
    from weighbridge.proto.tpm.constants import HashAlgorithm

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
examples:
  weighbridge-attester log show --state /var/lib/weighbridge
  weighbridge-attester log export --state /var/lib/weighbridge -o boot.cel
  weighbridge verify log boot.cel --pcr 15=HEX
"""

_SCHEMA: Final = "weighbridge/log/v1"
_FORMATS: Final = ("cel", "cbor")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``log`` to ``parser``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print the records, and what the register holds after them")
    export = actions.add_parser("export", help="write the records to a file that other programs read")
    for action in (show, export):
        action.allow_abbrev = False
        action.add_argument("--state", metavar="DIR", type=Path, required=True, help="the attester's state directory")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    export.add_argument(
        "--format",
        choices=_FORMATS,
        default=_FORMATS[0],
        help="cel: TCG's Canonical Event Log in TLV; cbor: as windows carry it (default: cel)",
    )
    export.add_argument("-o", "--output", metavar="FILE", type=_file, required=True, help="the file to write")


def run(args: argparse.Namespace) -> int:
    """Print or write the newest log.

    Raises:
        EnvironmentFault: as :func:`weighbridge.attester.weights.stored.read_newest`, or ``DISK_FULL``,
            ``FILE_UNWRITABLE``.
    """
    stored = read_newest(args.state)
    if args.action == "export":
        _export(stored, args.format, args.output)
    elif args.json:
        sys.stdout.write(strict.json_encode(_document(stored), indent=2).decode() + "\n")
    else:
        _show(stored)
    return ExitCode.AFFIRMED


def _export(stored: StoredLog, form: str, output: Path) -> None:
    data = exported.to_cel(stored.records) if form == "cel" else encode_records(stored.records)
    write_file(output, data, mode=0o644)
    sys.stdout.write(f"{output}: {counted(len(stored.records), 'record')}, {counted(len(data), 'byte')}\n")
    if not stored.from_reset:
        # The file says what happened, not what had been there: whoever replays it has to be told.
        starts = " ".join(f"{_name(bank)}:{value.hex()}" for bank, value in stored.start.items())
        sys.stdout.write(f"the register was not zero before them: replay with --start {stored.pcr}=HEX of {starts}\n")


def _show(stored: StoredLog) -> None:
    log = exported.to_log(stored.records)
    lines = [
        f"log      {stored.directory.name}, {counted(len(stored.records), 'record')}, PCR {stored.pcr}",
        f"head     {head(stored.records).hex()}",
        *(f"start    {_name(bank):<7} {value.hex()}" for bank, value in stored.start.items() if any(value)),
        *(f"{event.number:>5}    {event.kind}  {event.text}" for event in log.events),
        *(f"leads to {_name(bank):<7} {value.hex()}" for bank, value in stored.values().items()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _document(stored: StoredLog) -> strict.JsonObject:
    log = exported.to_log(stored.records)
    return {
        "schema": _SCHEMA,
        "log": stored.directory.name,
        "pcr": stored.pcr,
        "head": head(stored.records).hex(),
        "start": {_name(bank): value.hex() for bank, value in stored.start.items()},
        "records": [{"recnum": event.number, "event": event.kind, "text": event.text} for event in log.events],
        "values": {_name(bank): value.hex() for bank, value in stored.values().items()},
    }


def _name(bank: HashAlgorithm) -> str:
    return bank.name.lower()


def _file(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("name a file: standard output is for the summary")
    return Path(text)
