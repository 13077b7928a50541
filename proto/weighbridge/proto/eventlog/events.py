"""What the event logs of all dialects come down to, and their replay to the registers that a quote signs.

::

    value_0 = the register's value when the log began, stated       value_n = H_bank(value_{n-1} || digest_n)

A replay to a value that a TPM signed proves which digests were extended, and in which order. It proves nothing of an
event whose digest was not recomputed from its content (``Binding.OPAQUE``): such a description is whatever somebody
wrote beside a genuine digest. That what was measured is good is not proven by any log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Binding",
    "Event",
    "EventLog",
    "Format",
    "Register",
    "RegisterKind",
    "check_gapless",
    "common_banks",
    "lead",
    "replay",
    "require",
    "start_value",
]

# PC Client Platform TPM Profile 1.05 §4.6.2: registers of a dynamic launch hold ones until there is one.
_DYNAMIC: Final = range(17, 23)


class Format(StrEnum):
    """The dialects that are read."""

    WEIGHBRIDGE = "weighbridge"
    CEL = "cel"
    TCG2 = "tcg2"
    IMA = "ima"
    SYSTEMD = "systemd"


class RegisterKind(StrEnum):
    """What kind of register an event extends."""

    PCR = "PCR"
    NV = "NV"
    CCMR = "CCMR"


@final
@dataclass(frozen=True, slots=True, order=True)
class Register:
    """A register: a PCR, an NV index, or a confidential VM's measurement register (CCMR 1 to 4 are RTMR 0 to 3)."""

    kind: RegisterKind
    index: int

    @classmethod
    def pcr(cls, index: int) -> Register:
        """The PCR ``index``."""
        return cls(RegisterKind.PCR, index)

    def __str__(self) -> str:
        """Such as ``PCR 7``."""
        return f"NV {self.index:#010x}" if self.kind is RegisterKind.NV else f"{self.kind} {self.index}"


class Binding(StrEnum):
    """What ties an event's description to its digests.

    ``CONTENT``: the digests are those of the content, recomputed; the dialect says whether that includes the kind of
    event (firmware's and IMA's do not). ``OPAQUE``: firmware or a boot loader hashed
    something that the log does not hold, so the description is only claimed. ``VIOLATION``: the kernel could not say
    what it measured and extended a mark instead. ``NONE``: the event extends nothing, so nothing vouches for it.
    """

    CONTENT = "content"
    OPAQUE = "opaque"
    VIOLATION = "violation"
    NONE = "none"


@final
@dataclass(frozen=True, slots=True)
class Event:
    """One event of any log, well-formed, as far as a replay needs it.

    ``number`` is the record's own where the dialect numbers them, else its place. ``digests`` pairs TPM_ALG_IDs, not
    all of them ours, with what is extended. ``kind`` and ``text`` are for people.
    """

    number: int
    register: Register
    digests: tuple[tuple[int, bytes], ...]
    binding: Binding
    kind: str
    text: str

    @property
    def extends(self) -> bool:
        """Whether a register was extended by it."""
        return self.binding is not Binding.NONE


@final
@dataclass(frozen=True, slots=True)
class EventLog:
    """A log of any dialect. ``locality`` is where firmware says that the boot began: it sets the start of PCR 0."""

    format: Format
    events: tuple[Event, ...]
    locality: int = 0

    @property
    def banks(self) -> tuple[HashAlgorithm, ...]:
        """The banks that every extending event has a digest for, ascending."""
        return common_banks(self.events)

    @property
    def registers(self) -> tuple[Register, ...]:
        """The registers that are extended, ascending."""
        return tuple(sorted({event.register for event in self.events if event.extends}))

    @property
    def violations(self) -> tuple[Event, ...]:
        """The events of which the kernel could not say what they measured."""
        return tuple(event for event in self.events if event.binding is Binding.VIOLATION)


def common_banks(events: Sequence[Event]) -> tuple[HashAlgorithm, ...]:
    """The banks that every extending event of ``events`` has a digest for, ascending."""
    common = set(HashAlgorithm)
    for event in events:
        if event.extends:
            have = {bank for bank, _ in event.digests}
            common = {bank for bank in common if bank in have}
    return tuple(sorted(common))


def start_value(register: Register, bank: HashAlgorithm, *, locality: int = 0) -> bytes:
    """What ``register`` holds in ``bank`` after a reset, before anything extends it.

    Args:
        register: the register.
        bank: the bank.
        locality: that of the boot's start, for PCR 0 (PC Client Platform Firmware Profile 1.06 §10.4.5.3).
    """
    size = digest_size(bank)
    if register.kind is RegisterKind.PCR and register.index in _DYNAMIC:
        return b"\xff" * size
    return bytes(size - 1) + bytes([locality if register == Register.pcr(0) else 0])


def check_gapless(log: EventLog) -> None:
    """Require that the events are numbered from 0 without a gap or a repetition.

    Raises:
        NotAuthentic: ``LOG_GAP``.
    """
    for expected, event in enumerate(log.events):
        if event.number != expected:
            raise NotAuthentic(
                Code.LOG_GAP,
                "record number out of sequence",
                where=f"log[{expected}]",
                expected=expected,
                got=event.number,
                clause="TCG CEL v1.0",
            )


def replay(
    log: EventLog, bank: HashAlgorithm, *, start: Mapping[Register, bytes] | None = None
) -> dict[Register, bytes]:
    """The values to which ``log`` leads in ``bank``, of every register that it extends or ``start`` names.

    Args:
        log: well-formed; its numbers are checked here.
        bank: any; a verdict rests on none but SHA-256 and longer.
        start: the registers that did not begin as after a reset, and what they held.

    Raises:
        NotAuthentic: ``LOG_GAP``; ``LOG_REPLAY`` for an event without a digest for the bank.
        ValueError: a start value of the wrong length.
    """
    check_gapless(log)
    values = _starts(bank, start)
    for event in log.events:
        if event.extends:
            _extend(values, event, bank, log.locality)
    return values


def require(
    log: EventLog,
    bank: HashAlgorithm,
    expected: Mapping[Register, bytes],
    *,
    start: Mapping[Register, bytes] | None = None,
) -> dict[Register, bytes]:
    """The values to which ``log`` leads in ``bank``, those of ``expected`` among them and as they are there.

    Registers that ``expected`` does not name are not compared with anything.

    Args:
        log: well-formed.
        bank: SHA-256 or longer.
        expected: the values that a quote signs; at least one.
        start: as for :func:`replay`.

    Raises:
        NotAuthentic: ``LOG_REPLAY`` for the first register that the log does not lead to, with a hint when the log
            leads there before its end; otherwise as :func:`replay`.
        ValueError: for the SHA-1 bank, an empty ``expected``, or a value of the wrong length.
    """
    if bank is HashAlgorithm.SHA1:
        raise ValueError("no verdict rests on the SHA-1 bank")
    if not expected:
        raise ValueError("no register to compare")
    for register, value in expected.items():
        _check_size(register, value, bank)
    values = replay(log, bank, start=start)
    for register, value in sorted(expected.items()):
        got = values.setdefault(register, start_value(register, bank, locality=log.locality))
        if got != value:
            raise NotAuthentic(
                Code.LOG_REPLAY,
                "the log leads to another value",
                where=f"{register}, {bank.name.lower()}",
                expected=value,
                got=got,
                hint=_hint(log, lead(log, bank, expected, start=start)),
            )
    return values


def lead(
    log: EventLog,
    bank: HashAlgorithm,
    expected: Mapping[Register, bytes],
    *,
    start: Mapping[Register, bytes] | None = None,
) -> int | None:
    """The largest number of first events that lead to all of ``expected``, or ``None``: then no part of the log does.

    Fewer than all of them is what a log that was read later than the quote looks like. Raises as :func:`replay`.
    """
    check_gapless(log)
    values = _starts(bank, start)
    for register in expected:
        values.setdefault(register, start_value(register, bank, locality=log.locality))
    differing = {register for register, value in expected.items() if values[register] != value}
    found = None if differing else 0
    for count, event in enumerate(log.events, start=1):
        if event.extends:
            _extend(values, event, bank, log.locality)
            if event.register in expected:
                same = values[event.register] == expected[event.register]
                (differing.discard if same else differing.add)(event.register)
        if not differing:
            found = count
    return found


def _starts(bank: HashAlgorithm, start: Mapping[Register, bytes] | None) -> dict[Register, bytes]:
    values = dict(start or {})
    for register, value in values.items():
        _check_size(register, value, bank)
    return values


def _extend(values: dict[Register, bytes], event: Event, bank: HashAlgorithm, locality: int) -> None:
    for algorithm, extended in event.digests:
        if algorithm == bank:
            before = values.get(event.register)
            if before is None:
                before = start_value(event.register, bank, locality=locality)
            values[event.register] = digest(bank, before, extended)
            return
    raise NotAuthentic(
        Code.LOG_REPLAY,
        "record has no digest for the bank",
        where=f"log[{event.number}]",
        expected=bank.name.lower(),
        hint="choose a bank that all records have: `weighbridge inspect log` names them",
    )


def _hint(log: EventLog, count: int | None) -> str:
    if count:
        return (
            f"the first {count} of {len(log.events)} events lead to it: was the log read later than the quote was made?"
        )
    return "no part of the log leads to it: another boot, another register, another start, or an edited log"


def _check_size(register: Register, value: bytes, bank: HashAlgorithm) -> None:
    if len(value) != digest_size(bank):
        raise ValueError(f"{register} has {digest_size(bank)} bytes in the {bank.name} bank, not {len(value)}")
