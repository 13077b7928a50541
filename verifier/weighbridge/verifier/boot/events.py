"""What the events of firmware's log say of a boot, and which of it their digests vouch for.

The log was replayed to quoted values: these digests, and no others, were extended, in this order within each register.
Neither the order between registers nor an event's type is covered, and everything after the boot can be extended by
whoever is root then. So what is said of a register is taken from where a later writer cannot reach:

* secure boot from the first event of PCR 7, which only firmware can have written;
* a command line from a text whose digest was recomputed, and every such text counts: a second one that was added
  later can spoil a verdict, never earn one. A text that GRUB may have measured as a command is taken for a command line
  wherever it looks like one, since the prefix that tells them apart is not hashed.

An event can be shown under a false description beside its genuine digest (``opaque``). Then it hides what was measured;
that is found by comparing registers with reference values, not here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, final

from weighbridge.proto.eventlog import tcg2, uefi
from weighbridge.proto.eventlog.events import Binding
from weighbridge.proto.tpm.constants import HashAlgorithm, digest

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterator, Sequence

    from weighbridge.proto.eventlog.tcg2 import BootEvent

__all__ = ["CommandLine", "Described", "Known", "LineSource", "Measured", "Revocations", "describe"]

Known = Literal["content", "opaque"]
LineSource = Literal["grub", "systemd-stub", "uki-section", "load-options"]

_IMAGES, _SECURE_BOOT, _GRUB, _FILES, _UKI, _STUB = 4, 7, 8, 9, 11, 12

_ON, _OFF = b"\1", b"\0"
_SECURE_BOOT_NAME: Final = "SecureBoot"
_MODES: Final = ("SetupMode", "AuditMode", "DeployedMode")

# GRUB 2.06 and later, and before that the patch of Fedora and Red Hat: not hashed, and neither is the final zero.
_KERNEL_PREFIXES: Final = (b"kernel_cmdline: ", b"grub_kernel_cmdline ")
_GRUB_PREFIXES: Final = (*_KERNEL_PREFIXES, b"grub_cmd: ", b"grub_cmd ", b"module_cmdline: ")
# How GRUB names a file: on a device, with an absolute path, or by its blocks. A kernel's command line begins with one.
_FILE_FIRST: Final = re.compile(rb"[(/0-9]")
_BOOT_IMAGE: Final = "BOOT_IMAGE="
# Linux drivers/firmware/efi/libstub/efi-stub-helper.c; the digest is of the options as UTF-16, the event has no text.
_LOAD_OPTIONS_TAG: Final = 0x8F3B22ED
# systemd-stub's words for archives that it makes of credentials and extensions (src/boot/stub.c).
_ARCHIVES: Final = frozenset(
    {
        "Credentials initrd",
        "Global credentials initrd",
        "System extension initrd",
        "Global system extension initrd",
        "Configuration extension initrd",
        "Global configuration extension initrd",
    }
)
_CMDLINE_SECTION: Final = ".cmdline"


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """A digest that was extended, of the quoted bank. ``text`` is what the log says of it, ``known`` how good that is.

    ``kind`` is the event's type, for a section of a unified kernel image its name.
    """

    pcr: int
    kind: str
    digest: bytes
    known: Known
    text: str


@final
@dataclass(frozen=True, slots=True)
class CommandLine:
    """A kernel's command line. Only of one that is ``content`` the text is what was measured."""

    pcr: int
    source: LineSource
    known: Known
    text: str


@final
@dataclass(frozen=True, slots=True)
class Revocations:
    """The list of forbidden boot images (dbx) that firmware used: SHA-256 of the variable's value, and its size."""

    digest: bytes
    size: int


@final
@dataclass(slots=True)
class Described:
    """What was found, as it is being put together."""

    secure_boot: bool | None = None
    modes: dict[str, bool] = field(default_factory=dict[str, bool])
    dbx: Revocations | None = None
    authorities: list[Measured] = field(default_factory=list[Measured])
    images: list[Measured] = field(default_factory=list[Measured])
    sections: list[Measured] = field(default_factory=list[Measured])
    lines: list[CommandLine] = field(default_factory=list[CommandLine])
    unmatched_options: int = 0


def describe(
    events: Sequence[BootEvent], bank: HashAlgorithm, registers: Container[int], *, texts: Collection[str]
) -> Described:
    """What ``events`` say of the registers that a quote explained.

    Args:
        events: of a log that was replayed.
        bank: the quoted one.
        registers: those that the log leads to; events of others are not looked at.
        texts: command lines that an owner expects, for digests whose text is not in the log.
    """
    found = Described()
    seen = [(event, dict(event.digests)[bank]) for event in events if event.binding is not Binding.NONE]
    for pcr, read in (
        (_SECURE_BOOT, _read_secure_boot),
        (_IMAGES, _read_images),
        (_GRUB, _read_grub),
        (_STUB, _read_stub),
    ):
        if pcr in registers:
            read([(event, value) for event, value in seen if event.pcr == pcr], bank, found)
    if _UKI in registers:
        _read_sections([(event, value) for event, value in seen if event.pcr == _UKI], bank, found, texts)
    if _FILES in registers:
        _read_load_options([(event, value) for event, value in seen if event.pcr == _FILES], bank, found, texts)
    return found


_Seen = list[tuple["BootEvent", bytes]]


def _read_secure_boot(events: _Seen, bank: HashAlgorithm, found: Described) -> None:
    del bank
    for number, (event, value) in enumerate(events):
        content = event.binding is Binding.CONTENT
        if tcg2.type_name(event.type) == "EV_EFI_VARIABLE_AUTHORITY":
            text = tcg2.describe(event.type, event.data)
            found.authorities.append(Measured(event.pcr, tcg2.type_name(event.type), value, _known(event), text))
        held = uefi.variable(event.data) if content else None
        if held is None or tcg2.type_name(event.type) != "EV_EFI_VARIABLE_DRIVER_CONFIG":
            continue
        if held.guid == uefi.GLOBAL_VARIABLE:
            if held.name == _SECURE_BOOT_NAME and number == 0:
                found.secure_boot = held.value == _ON
            elif held.name in _MODES and held.value in {_ON, _OFF}:
                found.modes.setdefault(held.name, held.value == _ON)
        elif held.guid == uefi.IMAGE_SECURITY and held.name == "dbx" and found.dbx is None:
            found.dbx = Revocations(digest(HashAlgorithm.SHA256, held.value), len(held.value))


def _read_images(events: _Seen, bank: HashAlgorithm, found: Described) -> None:
    """Everything in PCR 4 whose digest is not that of a text: images, whatever the log calls them."""
    del bank
    for event, value in events:
        if event.binding is not Binding.CONTENT:
            kind, path = tcg2.type_name(event.type), uefi.image_path(event.data)
            found.images.append(Measured(event.pcr, kind, value, "opaque", path))


def _read_grub(events: _Seen, bank: HashAlgorithm, found: Described) -> None:
    for event, value in events:
        prefix = next((prefix for prefix in _GRUB_PREFIXES if event.data.startswith(prefix)), b"")
        said = event.data[len(prefix) :]
        text = said.rstrip(b"\0")
        if b"\0" in text:
            # systemd-boot until v250 measured its command line here, as UTF-16. GRUB's texts end at their first zero.
            _add_utf16(event.data, value, bank, event.pcr, found)
            continue
        fits = value in {digest(bank, said), digest(bank, text)}
        if prefix in _KERNEL_PREFIXES or (fits and _FILE_FIRST.match(text)):
            found.lines.append(_grub_line(text, event.pcr, fits=fits))


def _grub_line(text: bytes, pcr: int, *, fits: bool) -> CommandLine:
    """A line with characters that cannot be shown is none to rely on."""
    shown = text.decode("ascii", "backslashreplace")
    plain = text.isascii() and shown.isprintable()
    if not plain:
        shown = shown.encode("unicode_escape").decode("ascii")
    return CommandLine(pcr, "grub", "content" if fits and plain else "opaque", shown)


def _read_stub(events: _Seen, bank: HashAlgorithm, found: Described) -> None:
    for event, value in events:
        if tcg2.type_name(event.type) == "EV_IPL" and not _add_utf16(event.data, value, bank, event.pcr, found):
            found.lines.append(CommandLine(event.pcr, "systemd-stub", "opaque", ""))


def _add_utf16(data: bytes, value: bytes, bank: HashAlgorithm, pcr: int, found: Described) -> bool:
    """Adds the command line that ``data`` is, if it is one; whether they are text at all."""
    text = uefi.utf16(data)
    if text is None:
        return False
    fits = value in set(_utf16_digests(text, bank))
    if fits or text not in _ARCHIVES:
        found.lines.append(CommandLine(pcr, "systemd-stub", "content" if fits else "opaque", text))
    return True


def _read_sections(events: _Seen, bank: HashAlgorithm, found: Described, texts: Collection[str]) -> None:
    """A section is two events with one description: the digest of its name and a zero, the digest of its content."""
    name = ""
    for event, value in events:
        text = uefi.utf16(event.data) or ""
        if name and text == name:
            found.sections.append(Measured(event.pcr, name, value, "content", name))
            if name == _CMDLINE_SECTION:
                found.lines += _embedded(value, bank, event.pcr, texts)
            name = ""
        else:
            name = text if text and value == digest(bank, text.encode() + b"\0") else ""


def _embedded(value: bytes, bank: HashAlgorithm, pcr: int, texts: Collection[str]) -> Iterator[CommandLine]:
    """The expected text that the section's digest is of; its end is a zero, a line feed, or nothing."""
    for text in texts:
        if any(value == digest(bank, text.encode() + end) for end in (b"", b"\0", b"\n", b"\n\0")):
            yield CommandLine(pcr, "uki-section", "content", text)
            return
    yield CommandLine(pcr, "uki-section", "opaque", "")


def _read_load_options(events: _Seen, bank: HashAlgorithm, found: Described, texts: Collection[str]) -> None:
    """What the kernel says it was given: the same as one of the lines, or a text that an owner expects."""
    # Hashed once: a log may hold thousands of lines, and as many events to compare with them.
    lines = [start + line.text for line in found.lines if line.known == "content" for start in ("", _BOOT_IMAGE)]
    known = {value for line in lines for value in _utf16_digests(line, bank)}
    expected = {value: text for text in texts for value in _utf16_digests(text, bank)}
    for event, value in events:
        held = uefi.tagged(event.data)
        if held is None or held[0] != _LOAD_OPTIONS_TAG or value in known:
            continue
        text = expected.get(value)
        if text is None:
            found.unmatched_options += 1
        else:
            found.lines.append(CommandLine(event.pcr, "load-options", "content", text))


def _utf16_digests(text: str, bank: HashAlgorithm) -> Iterator[bytes]:
    """With the final zero, as systemd's code does, and without, as its documentation says and GRUB does."""
    for end in ("\0", ""):
        yield digest(bank, (text + end).encode("utf-16-le"))


def _known(event: BootEvent) -> Known:
    return "content" if event.binding is Binding.CONTENT else "opaque"
