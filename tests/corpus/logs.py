"""Row A52: event logs in which something was left out, written twice, edited or cut, whatever they lead to."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from eventlog_support import ACTION, IPL, SEPARATOR, SHA256, boot_event, boot_log, old_event, startup
from weighbridge.proto import measurement_log
from weighbridge.proto.eventlog import Format, Register, read, replay, require, require_whole_boot
from weighbridge.proto.eventlog import records as exported
from weighbridge.proto.measurement_log import AttesterStart, ModelLoad
from weighbridge.proto.tpm.constants import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corpus.arena import Arena

_ZEROS = bytes(4)
_CLOSED = [boot_event(number, SEPARATOR, _ZEROS) for number in range(8)]
_KERNEL = boot_event(4, IPL, b"kernel", digests=[(SHA256, digest(SHA256, b"image"))])
_CALLED, _EXITED = (
    boot_event(5, ACTION, f"Exit Boot Services {what}".encode()) for what in ("Invocation", "Returned with Success")
)
_WHOLE = [startup(3), *_CLOSED, _KERNEL, _CALLED, _EXITED]


def _judge(events: Sequence[bytes], *, quoted: Sequence[bytes] | None = None) -> None:
    """Compare a boot log with what a TPM that was extended with ``quoted``, or with all of it, would quote."""
    _check(boot_log(*events), boot_log(*(events if quoted is None else quoted)))


def _check(data: bytes, genuine: bytes) -> None:
    compare(data, replay(read(genuine), SHA256))


def _malformed(data: bytes) -> None:
    """What is refused before anything is compared."""
    compare(data, {})


def compare(data: bytes, values: Mapping[Register, bytes]) -> None:
    """Require that ``data`` is a log, of a whole boot if it is one of firmware, that leads to ``values``."""
    log = read(data)
    require(log, SHA256, values)
    if log.format is Format.TCG2:
        require_whole_boot(log, log.registers)


def _ours() -> tuple[measurement_log.Record, ...]:
    events: list[measurement_log.Event] = [AttesterStart("0.1.0", bytes(16)), ModelLoad(bytes(32), "declared")]
    return tuple(
        measurement_log.make_record(event, recnum=number, pcr=15, algs=(SHA256,)) for number, event in enumerate(events)
    )


def case_001_whole_boot(_: Arena) -> None:
    _judge(_WHOLE)


def case_002_event_edited(_: Arena) -> None:
    """The data of an event whose digest vouches for them."""
    edited = boot_event(5, ACTION, b"Exit Boot Services Invocatiom", digests=[(SHA256, digest(SHA256, _ZEROS))])
    _malformed(boot_log(*_WHOLE[:-2], edited, _EXITED))


def case_003_digest_edited(_: Arena) -> None:
    other = boot_event(4, IPL, b"kernel", digests=[(SHA256, digest(SHA256, b"another image"))])
    _judge([*_WHOLE[:9], other, *_WHOLE[10:]], quoted=_WHOLE)


def case_004_event_left_out(_: Arena) -> None:
    _judge([*_WHOLE[:9], *_WHOLE[10:]], quoted=_WHOLE)


def case_005_events_exchanged(_: Arena) -> None:
    _judge([*_WHOLE[:-2], _EXITED, _CALLED], quoted=_WHOLE)


def case_006_boot_services_that_never_ended(_: Arena) -> None:
    """The log and the register, both without the event: something else runs in the firmware's place."""
    _judge(_WHOLE[:-2])


def case_007_separator_twice(_: Arena) -> None:
    """Who comes after the firmware closes the register once more, to have his own event look like the firmware's."""
    _judge([*_WHOLE, boot_event(7, SEPARATOR, _ZEROS)])


def case_008_separator_missing(_: Arena) -> None:
    _judge([event for event in _WHOLE if event is not _CLOSED[7]] + [boot_event(7, ACTION, b"Entering ROM")])


def case_009_cut_within_an_event(_: Arena) -> None:
    data = boot_log(*_WHOLE)
    _check(data[:-3], data)


def case_010_cut_behind_an_event(_: Arena) -> None:
    _judge(_WHOLE[:-1], quoted=_WHOLE)


def case_011_sha1_only(_: Arena) -> None:
    _malformed(old_event(0, SEPARATOR, _ZEROS))


def case_012_length_beyond_the_file(_: Arena) -> None:
    data = boot_log(*_WHOLE)
    size = struct.pack("<I", len(b"Exit Boot Services Returned with Success"))
    at = data.rindex(size)
    _check(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :], data)


def case_013_record_of_ours_edited(_: Arena) -> None:
    data = exported.to_cel(_ours())
    _check(data.replace(b"declared", b"Declared"), data)


def case_014_record_of_ours_left_out(_: Arena) -> None:
    first, second = _ours()
    compare(exported.to_cel((second,)), replay(exported.to_log((first, second)), SHA256))
