"""Verifies what a host booted: the logs of firmware and of systemd, by the registers that a quote signs.

The procedure of :func:`boot_facts`:

1. Each log is well-formed; digests that can be recomputed from their content are that content's.
2. Each quoted register among PCR 0 to 9 and 11 to 15 is what the logs lead to in the quoted bank: first firmware's
   events, then systemd's. One that no log extends holds what a reset leaves, or is named as unexplained.
3. Firmware's log tells of a whole boot (:mod:`weighbridge.proto.eventlog.boot_order`).
4. From the registers that are explained, what booted (:mod:`weighbridge.verifier.boot.events`).

Left to the caller: that a TPM signed the values for a challenge of ours; PCR 10, which is the kernel's list
(:mod:`weighbridge.verifier.boot.runtime`); the register of the measurement log, which starts at what the logs lead to
(:mod:`weighbridge.proto.eventlog.baseline`); that what booted is good. **Not proven**: anything that loaders do not
measure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn, final

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.eventlog import events as event_logs
from weighbridge.proto.eventlog import systemd, tcg2
from weighbridge.proto.eventlog.baseline import joined, numbered, replayed, value_of
from weighbridge.proto.eventlog.boot_order import require_whole_boot
from weighbridge.proto.eventlog.events import Binding, Event, EventLog, Format, Register
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.verifier.boot.events import CommandLine, Measured, Revocations, describe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from weighbridge.proto.boot import BootLogs
    from weighbridge.proto.strict import JsonObject

__all__ = ["IMA_PCR", "LOG_PCR", "BootFacts", "boot_facts"]

_SEAL: Final = object()

IMA_PCR: Final = 10
LOG_PCR: Final = 15
# Firmware's, the loaders', and systemd's. 16 and 23 can be reset by anybody, 17 to 22 are of a dynamic launch.
_OF_A_BOOT: Final = range(16)
_FIRMWARE: Final = range(8)
_UKI: Final = 11


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BootFacts:
    """What a host booted, as far as quoted registers vouch for it. Made by :func:`boot_facts`.

    The seal is a guard against mistakes, not against hostile code.

    Attributes:
        bank: the quoted one; digests are of it.
        explained: registers whose quoted value the logs lead to, ascending.
        untouched: those of them that hold what a reset leaves.
        unexplained: quoted registers that hold something, and no log says what.
        before_kernel: what firmware's log alone leads to, of the explained registers: what IMA's first entry is of.
        secure_boot: whether firmware checked what it started; ``None`` where nothing vouches for either.
        setup_mode: whether the platform's key could be replaced freely; likewise.
        audit_mode: whether firmware only reported what it would have refused; likewise.
        deployed_mode: whether the mode can be left by firmware's own means only; likewise.
        dbx: the list of forbidden images.
        authorities: whose signatures firmware and shim accepted.
        kernel_images: images that were started, by what PCR 4 holds. Their paths are claims.
        uki_sections: of a unified kernel image; ``kind`` is the section's name, ``digest`` that of its content.
        command_lines: those that were measured, and those that are only claimed. Every one counts: nothing tells which
            of several the kernel was started with.
        unmatched_options: how often the kernel measured a command line that is none of these.
        phases: boot phases that systemd measured, in order.
    """

    bank: HashAlgorithm
    explained: tuple[int, ...]
    untouched: tuple[int, ...]
    unexplained: tuple[int, ...]
    before_kernel: Mapping[int, bytes]
    secure_boot: bool | None
    setup_mode: bool | None
    audit_mode: bool | None
    deployed_mode: bool | None
    dbx: Revocations | None
    authorities: tuple[Measured, ...]
    kernel_images: tuple[Measured, ...]
    uki_sections: tuple[Measured, ...]
    command_lines: tuple[CommandLine, ...]
    unmatched_options: int
    phases: tuple[str, ...]
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("BootFacts are made by boot_facts only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("BootFacts cannot be pickled")

    def document(self) -> JsonObject:
        """The facts as JSON, for verdicts and for people."""
        return {
            "bank": self.bank.name.lower(),
            "explained": list(self.explained),
            "untouched": list(self.untouched),
            "unexplained": list(self.unexplained),
            "secure_boot": self.secure_boot,
            "setup_mode": self.setup_mode,
            "audit_mode": self.audit_mode,
            "deployed_mode": self.deployed_mode,
            "dbx": None if self.dbx is None else {"digest": self.dbx.digest.hex(), "size": self.dbx.size},
            "authorities": [_measured(item) for item in self.authorities],
            "kernel_images": [_measured(item) for item in self.kernel_images],
            "uki_sections": [_measured(item) for item in self.uki_sections],
            "command_lines": [
                {"pcr": line.pcr, "source": line.source, "known": line.known, "text": line.text}
                for line in self.command_lines
            ],
            "unmatched_options": self.unmatched_options,
            "phases": list(self.phases),
        }


def boot_facts(
    logs: BootLogs,
    quote_pcrs: Mapping[int, bytes],
    bank: HashAlgorithm,
    *,
    log_pcr: int | None = LOG_PCR,
    texts: Collection[str] = (),
) -> BootFacts:
    """What the host booted, by the procedure in the module's docstring.

    Args:
        logs: untrusted, as they were when the quote was made.
        quote_pcrs: register to value, as a verified quote signs them.
        bank: the quoted one; not SHA-1.
        log_pcr: the register that our measurement log continues; it is not compared here.
        texts: command lines that an owner expects: a unified kernel image's own is in no log, only its digest.

    Raises:
        MalformedEvidence: ``LOG_SHA1_ONLY``, ``LOG_DIGEST``, ``LOG_EVENT``, or another decoding code.
        NotAuthentic: ``BOOT_LOG`` naming the register to which the logs do not lead; ``LOG_EVENT`` for a separator of
            firmware that is missing or there twice.
        Indeterminate: ``LOG_EVENT`` when firmware's log ends before its boot services did.
        ValueError: for the SHA-1 bank, or a value of the wrong length.
    """
    if bank is HashAlgorithm.SHA1:
        raise ValueError("no verdict rests on the SHA-1 bank")
    # 1.
    firmware = tcg2.parse(logs.firmware) if logs.firmware else None
    firmware_log = EventLog(Format.TCG2, ()) if firmware is None else tcg2.to_log(firmware)
    userspace_log = systemd.to_log(systemd.parse(logs.userspace or b""))
    whole = joined(firmware_log, userspace_log)
    # 2.
    expected = {
        Register.pcr(pcr): value
        for pcr, value in sorted(quote_pcrs.items())
        if pcr in _OF_A_BOOT and pcr not in {IMA_PCR, log_pcr}
    }
    unexplained = _compare(whole, bank, expected, complete=firmware is not None)
    explained = tuple(register.index for register in expected if register not in unexplained)
    # 3.
    if firmware is not None:
        require_whole_boot(firmware_log, [Register.pcr(pcr) for pcr in explained if pcr in _FIRMWARE])
    # 4.
    found = describe(() if firmware is None else firmware.events, bank, explained, texts=texts)
    before = replayed(firmware_log, bank)
    return BootFacts(
        bank=bank,
        explained=explained,
        untouched=tuple(pcr for pcr in explained if Register.pcr(pcr) not in whole.registers),
        unexplained=tuple(register.index for register in unexplained),
        before_kernel=MappingProxyType(
            {pcr: value_of(before, Register.pcr(pcr), bank, firmware_log.locality) for pcr in explained}
        ),
        secure_boot=found.secure_boot,
        setup_mode=found.modes.get("SetupMode"),
        audit_mode=found.modes.get("AuditMode"),
        deployed_mode=found.modes.get("DeployedMode"),
        dbx=found.dbx,
        authorities=tuple(found.authorities),
        kernel_images=tuple(found.images),
        uki_sections=tuple(found.sections),
        command_lines=tuple(found.lines),
        unmatched_options=found.unmatched_options,
        phases=tuple(_phases(userspace_log.events) if _UKI in explained else ()),
        seal=_SEAL,
    )


def _compare(
    log: EventLog, bank: HashAlgorithm, expected: Mapping[Register, bytes], *, complete: bool
) -> tuple[Register, ...]:
    """The registers that no log explains; ``complete`` says that firmware's log is there, so that it must."""
    values = replayed(log, bank)
    extended = set(log.registers)
    unexplained: list[Register] = []
    for register, value in expected.items():
        got = value_of(values, register, bank, log.locality)
        if len(value) != len(got):
            raise ValueError(f"{register} has {len(got)} bytes in the {bank.name} bank, not {len(value)}")
        if got == value:
            continue
        if complete and register in extended:
            raise NotAuthentic(
                Code.BOOT_LOG,
                "the boot's logs lead to another value than was quoted",
                where=f"{register}, {bank.name.lower()}",
                expected=value,
                got=got,
                hint=_hint(log, bank, register, value),
            )
        unexplained.append(register)
    return tuple(unexplained)


def _hint(log: EventLog, bank: HashAlgorithm, register: Register, value: bytes) -> str:
    only = numbered(event for event in log.events if event.register == register)
    count = event_logs.lead(EventLog(log.format, only, log.locality), bank, {register: value})
    if count:
        return f"the first {count} of its {len(only)} events lead to it: read the logs before the quote is made"
    return "a log that is not of this boot or was edited, or something extended the register and wrote it nowhere"


def _phases(events: Iterable[Event]) -> list[str]:
    return [
        event.text
        for event in events
        if event.register == Register.pcr(_UKI) and event.kind == "phase" and event.binding is Binding.CONTENT
    ]


def _measured(item: Measured) -> JsonObject:
    return {"kind": item.kind, "digest": item.digest.hex(), "known": item.known, "text": item.text}
