"""A host that boots, in a few lines: it writes the logs that real ones write, and extends registers as it does.

Everything can be lied about: what a log says and what was extended are two arguments wherever they can differ.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence

from eventlog_support import ACTION, IPL, NO_ACTION, SEPARATOR, SHA256, boot_event, boot_log, ima_data, ima_entry
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.eventlog.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size

DRIVER_CONFIG, AUTHORITY, APPLICATION, EVENT_TAG = 0x80000001, 0x800000E0, 0x80000003, 0x6
CRTM_VERSION = 0x8
LOAD_OPTIONS_TAG, INITRD_TAG = 0x8F3B22ED, 0x8F3B22EC
EXITED = b"Exit Boot Services Returned with Success"
LINE = "root=/dev/mapper/root ro quiet"
# Everything that can be demanded of a command line.
STRICT_LINE = (
    f"root=/dev/mapper/root ro roothash={'5e' * 32} lockdown=integrity ima_policy=tcb|secure_boot "
    "sysctl.kernel.yama.ptrace_scope=3 sysctl.kernel.kexec_load_disabled=1 quiet"
)
SECTIONS = (".linux", ".osrel", ".initrd", ".uname")


def variable(name: str, value: bytes, guid: bytes = GLOBAL_VARIABLE) -> bytes:
    """UEFI_VARIABLE_DATA."""
    return guid + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


def image(path: str) -> bytes:
    """UEFI_IMAGE_LOAD_EVENT of a file."""
    name = path.encode("utf-16-le") + b"\0\0"
    nodes = struct.pack("<BBH", 4, 4, 4 + len(name)) + name + b"\x7f\xff\4\0"
    return struct.pack("<QQQQ", 0x1000, 0x2000, 0, len(nodes)) + nodes


def tag(number: int, content: bytes) -> bytes:
    """TCG_PCClientTaggedEvent."""
    return struct.pack("<II", number, len(content)) + content


def sha256_name(content: bytes) -> str:
    """How a file with this content is named in a closed set."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def record(
    register: Mapping[str, int], digests: Mapping[str, str], content: Mapping[str, object], /, **fields: object
) -> bytes:
    """A record of systemd's."""
    document = {**register, "digests": _listed(digests), "content_type": "systemd", "content": dict(content), **fields}
    return b"\x1e" + json.dumps(document).encode() + b"\n"


def _listed(digests: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"hashAlg": bank, "digest": value} for bank, value in digests.items()]


class Boot:
    """Registers and logs of one boot. Nothing has happened yet."""

    def __init__(self, banks: Sequence[HashAlgorithm] = (SHA256,), *, locality: int = 0) -> None:
        self.banks = tuple(banks)
        begins = boot_event(0, NO_ACTION, b"StartupLocality\0" + bytes([locality]), banks=self.banks)
        self.firmware: list[bytes] = [begins] if locality else []
        self.userspace: list[bytes] = []
        self.runtime: list[bytes] = []
        self.values = {(bank, pcr): bytes(digest_size(bank)) for bank in self.banks for pcr in range(24)}
        for bank in self.banks:
            self.values[bank, 0] = bytes(digest_size(bank) - 1) + bytes([locality])

    # -- what happens

    def extend(self, pcr: int, hashed: bytes) -> None:
        """Extend every bank with its digest of `hashed`, and write nothing down."""
        for bank in self.banks:
            self.values[bank, pcr] = digest(bank, self.values[bank, pcr], digest(bank, hashed))

    def event(self, pcr: int, event_type: int, data: bytes, hashed: bytes | None = None) -> None:
        """An event of firmware's: its data, and what was hashed if that is something else."""
        hashed = data if hashed is None else hashed
        digests = [(bank, digest(bank, hashed)) for bank in self.banks]
        self.firmware.append(boot_event(pcr, event_type, data, digests=digests))
        self.extend(pcr, hashed)

    def systemd(self, pcr: int, kind: str, text: str, hashed: bytes | None = None) -> None:
        """A record of systemd's."""
        hashed = text.encode() if hashed is None else hashed
        digests = {bank.name.lower(): digest(bank, hashed).hex() for bank in self.banks}
        content = {"eventType": kind, "string": text, "bootId": "00" * 16, "timestamp": 1_000_000}
        self.userspace.append(record({"pcr": pcr}, digests, content))
        self.extend(pcr, hashed)

    def userspace_of(self, phase: str) -> bytes:
        """What systemd writes of a phase on this machine."""
        self.systemd(11, "phase", phase)
        return self.userspace[-1]

    def measure(self, path: str, content: bytes, *, template: bytes = b"ima-ng", pcr: int = 10) -> None:
        """An entry of IMA's for a file that was read."""
        rest = {b"ima-sig": (b"",), b"ima-buf": (content,)}.get(template, ())
        data = ima_data(path.encode(), hashlib.sha256(content).digest(), b"sha256", *rest)
        self.entry(data, template, pcr=pcr)

    def entry(self, data: bytes, template: bytes = b"ima-ng", *, pcr: int = 10) -> None:
        """An entry of IMA's, its template data as they are."""
        self.runtime.append(ima_entry(data, template, pcr=pcr))
        self.extend(pcr, data)

    def violate(self, path: str) -> None:
        """The kernel cannot say what it measured."""
        self.runtime.append(ima_entry(ima_data(path.encode(), bytes(32)), hashed=bytes(20)))
        for bank in self.banks:
            self.values[bank, 10] = digest(bank, self.values[bank, 10], b"\xff" * digest_size(bank))

    # -- what is seen of it

    def quoted(self, pcrs: Iterable[int] = range(16), bank: HashAlgorithm = SHA256) -> dict[int, bytes]:
        """The values that a quote would sign."""
        return {pcr: self.values[bank, pcr] for pcr in pcrs}

    def logs(self) -> BootLogs:
        """The logs as they are now."""
        return BootLogs(
            firmware=boot_log(*self.firmware, banks=self.banks) if self.firmware else None,
            userspace=b"".join(self.userspace) if self.userspace else None,
            runtime=b"".join(self.runtime) if self.runtime else None,
        )

    # -- what honest machines do, in their order

    def firmware_begins(self, *, secure_boot: bytes = b"\1", dbx: bytes = b"\7" * 76) -> None:
        """The firmware's own events, until it hands over."""
        self.event(0, CRTM_VERSION, b"1.0")
        self.event(7, DRIVER_CONFIG, variable("SecureBoot", secure_boot))
        for name, value, guid in (
            ("PK", b"pk", GLOBAL_VARIABLE),
            ("KEK", b"kek", GLOBAL_VARIABLE),
            ("db", b"db", IMAGE_SECURITY),
            ("dbx", dbx, IMAGE_SECURITY),
        ):
            self.event(7, DRIVER_CONFIG, variable(name, value, guid))
        for pcr in range(8):
            self.event(pcr, SEPARATOR, bytes(4))
        self.event(4, ACTION, b"Calling EFI Application from Boot Option")

    def firmware_ends(self) -> None:
        """The boot services end."""
        self.event(5, ACTION, EXITED)

    def grub(self, line: str = LINE) -> None:
        """shim, GRUB and a kernel, with the command line in PCR 8 and the kernel's own word for it in PCR 9."""
        self.firmware_begins()
        for path, content in ((r"\EFI\BOOT\BOOTX64.EFI", b"shim"), (r"\EFI\debian\grubx64.efi", b"grub")):
            self.event(4, APPLICATION, image(path), content)
        self.event(7, AUTHORITY, variable("db", b"microsoft", IMAGE_SECURITY))
        self.event(9, IPL, b"(hd0,gpt1)/grub/grub.cfg\0", b"grub.cfg")
        self.grub_says("grub_cmd: ", f"linux /vmlinuz {line}")
        self.event(4, APPLICATION, image(""), b"vmlinuz")
        self.grub_says("kernel_cmdline: ", f"/vmlinuz {line}")
        self.event(9, IPL, b"/initrd.img\0", b"initrd")
        self.load_options(f"BOOT_IMAGE=/vmlinuz {line}", end="")
        self.firmware_ends()

    def grub_says(self, prefix: str, text: str, hashed: str | None = None) -> None:
        """GRUB measures a text without its prefix and without the zero at its end."""
        self.event(8, IPL, f"{prefix}{text}\0".encode(), (text if hashed is None else hashed).encode())

    def load_options(self, line: str, *, end: str = "\0") -> None:
        """The kernel's EFI stub measures what it was given."""
        self.event(
            9, EVENT_TAG, tag(LOAD_OPTIONS_TAG, b"LOADED_IMAGE::LoadOptions\0"), (line + end).encode("utf-16-le")
        )

    def uki(self, line: str | None = STRICT_LINE, *, embedded: str | None = None) -> None:
        """A unified kernel image: its sections in PCR 11, a command line in PCR 12 or embedded, then systemd."""
        self.firmware_begins()
        self.event(4, APPLICATION, image(r"\EFI\Linux\uki.efi"), b"uki")
        for name in SECTIONS:
            self.section(name, f"content of {name}".encode())
        if embedded is not None:
            self.section(".cmdline", embedded.encode())
            self.load_options(embedded)
        if line is not None:
            self.stub_line(line)
            self.load_options(line)
        self.event(9, EVENT_TAG, tag(INITRD_TAG, b"Linux initrd\0"), b"initrd")
        self.firmware_ends()
        for phase in ("enter-initrd", "leave-initrd", "sysinit", "ready"):
            self.systemd(11, "phase", phase)
        self.systemd(15, "machine-id", f"machine-id:{'ab' * 16}")

    def section(self, name: str, content: bytes) -> None:
        """systemd-stub measures a section: its name, then its content."""
        shown = (name + "\0").encode("utf-16-le")
        self.event(11, IPL, shown, name.encode() + b"\0")
        self.event(11, IPL, shown, content)

    def stub_line(self, line: str, hashed: str | None = None) -> None:
        """systemd-stub measures a command line that it was given."""
        text = (line + "\0").encode("utf-16-le")
        self.event(12, IPL, text, text if hashed is None else (hashed + "\0").encode("utf-16-le"))

    def kernel(self, files: Mapping[str, bytes], *, upto: int = 10) -> None:
        """IMA begins with an aggregate of the registers before it, then measures `files`."""
        bank = self.banks[0]
        aggregate = digest(bank, *(self.values[bank, pcr] for pcr in range(upto)))
        self.entry(ima_data(b"boot_aggregate", aggregate, bank.name.lower().encode()))
        for path, content in files.items():
            self.measure(path, content)
