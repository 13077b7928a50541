"""Which code measured and sampled: whether that is shown, and what is missing if not.

That the attester's files were read on a host does not show that nothing else wrote its evidence. :data:`DEMANDS` is
what has to be shown besides, each by measurements that a quote vouches for; whatever cannot be seen is missing. Then
loads, counts and telemetry are the host's word. ``docs/attester-code.md`` says of each demand why it is there, how to
meet it, and what stays open.

**Not proven**, with all of it shown: that the programs of the closed set are free of holes, and that the kernel, the
initial RAM disk and the boot loader behave as they should: those rest on the owner's word for the registers that name
them. IMA's ``tcb`` policy leaves out files on tmpfs and reads by other users than root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, final

from weighbridge.verifier.boot.cmdline import Parameters, parse
from weighbridge.verifier.boot.runtime import boot_aggregate, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container

    from weighbridge.verifier.boot.facts import BootFacts
    from weighbridge.verifier.boot.runtime import RuntimeLog

__all__ = ["DEMANDS", "AttesterCode", "Demand", "judge"]


@final
@dataclass(frozen=True, slots=True)
class AttesterCode:
    """``proven`` if every demand is shown; else the keys of those that are not, in the order of :data:`DEMANDS`."""

    status: Literal["proven", "unproven"]
    missing: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class Demand:
    """One row of the table: ``key`` is stable, ``words`` what has to be shown, ``shown`` decides."""

    key: str
    words: str
    shown: Callable[[_Seen], bool]


@final
@dataclass(frozen=True, slots=True)
class _Seen:
    """What there is to decide by. ``lines`` are the command lines; none if any of them cannot be relied on."""

    facts: BootFacts | None
    runtime: RuntimeLog | None
    closed: Container[str]
    attester: Collection[str]
    known: Container[int]
    tpm: bool
    lines: tuple[Parameters, ...]

    def every(self, holds: Callable[[Parameters], bool]) -> bool:
        """Whether there is a measured command line, and ``holds`` of every one: which of several counted, is open."""
        return bool(self.lines) and all(map(holds, self.lines))


def judge(
    facts: BootFacts | None,
    runtime: RuntimeLog | None,
    *,
    closed: Container[str],
    attester: Collection[str],
    known: Container[int],
    tpm: bool,
) -> AttesterCode:
    """Whether it is shown which code measured and sampled.

    Args:
        facts: what booted, of the session's enrolment; ``None`` where no logs came.
        runtime: IMA's list up to the window; ``None`` where none came.
        closed: everything that may run or be read, by the owner's word, as IMA's list names it: ``sha256:hex``,
            ``verity:sha256:hex``. Empty where there is no reference.
        attester: those of it that are the attester's binary, interpreter and modules, and the weights, all of which
            must have been measured. None is no demand met.
        known: registers whose quoted value is one that the owner accepts.
        tpm: whether what made the quotes is a TPM of its own, or a guest's code that the relying party accepts.
    """
    seen = _Seen(facts, runtime, closed, attester, known, tpm, () if facts is None else _lines(facts))
    missing = tuple(demand.key for demand in DEMANDS if not demand.shown(seen))
    return AttesterCode("unproven" if missing else "proven", missing)


def _lines(facts: BootFacts) -> tuple[Parameters, ...]:
    """The measured command lines. None at all where one is only claimed, cannot be read, or is not all there is."""
    parsed = [parse(line.text) for line in facts.command_lines if line.known == "content"]
    read = tuple(line for line in parsed if line is not None)
    whole = len(read) == len(facts.command_lines) and not facts.unmatched_options
    return read if whole and not any(_open_ended(line) for line in read) else ()


def _open_ended(line: Parameters) -> bool:
    """Whether a line lets others add parameters to it, or take parts of the kernel out that it relies on."""
    return any(line.mentions(name) for name in ("bootconfig", "initcall_blacklist"))


# -- what booted

# Registers that say which code was started, by whom it was loaded, and with what: firmware, drivers of devices and
# those that a variable names, images and their files, command lines, sections of a unified image, credentials and
# extensions, and shim's list of keys. Secure boot would take every driver that somebody it trusts has signed.
_BOOT_CHAIN: Final = (0, 2, 4, 8, 9, 11, 12, 13, 14)
_IMAGES: Final = 4


def _boot_log(seen: _Seen) -> bool:
    return seen.facts is not None and bool(seen.facts.explained) and not seen.facts.unexplained


def _boot_chain(seen: _Seen) -> bool:
    facts = seen.facts
    if facts is None or _IMAGES not in facts.explained or not facts.kernel_images:
        return False
    return all(pcr in facts.untouched or (pcr in facts.explained and pcr in seen.known) for pcr in _BOOT_CHAIN)


def _secure_boot(seen: _Seen) -> bool:
    facts = seen.facts
    return facts is not None and facts.secure_boot is True and not facts.setup_mode and not facts.audit_mode


# -- the command line


def _has_module(line: Parameters, name: str) -> bool:
    """Whether the kernel still starts a security module: ``lsm=`` replaces the list that it was built with."""
    return all(value is not None and name in value.split(",") for value in line.values("lsm"))


def _lockdown(line: Parameters) -> bool:
    return line.always("lockdown", "integrity", "confidentiality") and _has_module(line, "lockdown")


def _policies(line: Parameters) -> frozenset[str]:
    """The built-in IMA policies that a line names; they add up."""
    values = [value for value in line.values("ima_policy") if value is not None]
    return frozenset(word for value in values for word in re.split(r"[ |\n]", value))


def _ima_policy(line: Parameters) -> bool:
    return "tcb" in _policies(line) and not line.mentions("ima_tcb") and "off" not in line.values("ima")


def _ima_fixed(line: Parameters) -> bool:
    enforced = all(value == "enforce" for value in line.values("ima_appraise"))
    return "secure_boot" in _policies(line) and enforced


_HASH: Final = frozenset({"sha256", "sha384", "sha512"})


def _ima_hash(line: Parameters) -> bool:
    return all(value in _HASH for value in line.values("ima_hash"))


def _ptrace(line: Parameters) -> bool:
    return line.always("sysctl.kernel.yama.ptrace_scope", "3") and _has_module(line, "yama")


def _kexec(line: Parameters) -> bool:
    return line.always("sysctl.kernel.kexec_load_disabled", "1")


_ROOT_HASH: Final = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{2})*")
_VERITY_ROOTS: Final = ("/dev/mapper/root", "gpt-auto", "dissect")
_KERNEL_ROOT: Final = "/dev/dm-0"
# The kernel's own way (dm-init.rst), and the one of Chromium OS and Container-Optimized OS: one device with one table,
# verified by a hash for which nobody finds a second content.
_KERNEL_VERITY: Final = (
    ("dm_mod.create", re.compile(r"[^,;]*,[^,;]*,[^,;]*,ro,0 \d+ verity (?=[^,;]*\bsha(?:256|512)\b)[^,;]*")),
    ("dm", re.compile(r"1 \S+ none ro 1,0 \d+ verity (?=[^,;]*\bsha(?:256|512)\b)[^,;]*")),
)
_NOT_VERITY: Final = (
    "rw",
    "overlayroot",
    "systemd.volatile",
    "systemd.verity",
    "rd.systemd.verity",
    "systemd.verity_root_options",
)


def _verity(line: Parameters) -> bool:
    if not line.values("ro") or any(line.mentions(name) for name in _NOT_VERITY):
        return False
    hashes = line.values("roothash")
    if hashes:
        same = len(set(hashes)) == 1 and hashes[0] is not None and bool(_ROOT_HASH.fullmatch(hashes[0]))
        return same and all(root in _VERITY_ROOTS for root in line.values("root"))
    made = [
        value is not None and bool(form.fullmatch(value))
        for name, form in _KERNEL_VERITY
        for value in line.values(name)
    ]
    return made == [True] and line.always("root", _KERNEL_ROOT)


_INITS: Final = frozenset({"/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"})
# Each gives somebody who sits at a console, or at a port, a shell, a debugger or another first program.
_SHELLS: Final = (
    "rdinit",
    "break",
    "rd.break",
    "rd.cmdline",
    "rescue",
    "emergency",
    "single",
    "s",
    "S",
    "1",
    "_s",
    "_b",
    "b",
    "rd.rescue",
    "rd.debug",
    "systemd.default_debug_tty",
    "systemd.run",
    "systemd.run_success_action",
    "systemd.setenv",
    "systemd.set_credential",
    "systemd.set_credential_binary",
    "kgdboc",
    "kgdbdbgp",
    "kgdbwait",
    "kgdbcon",
    "kdb",
    "sysrq_always_enabled",
)
# The same, unless they are switched off.
_SWITCHES: Final = (
    "rd.shell",
    "systemd.debug_shell",
    "rd.systemd.debug_shell",
    "systemd.crash_shell",
    "systemd.confirm_spawn",
    "systemd.getty_auto",
)
_OFF: Final = frozenset({"0", "no", "false", "off"})
_ENDINGS: Final = frozenset({"halt", "reboot", "poweroff"})
_UNITS: Final = ("systemd.unit", "rd.systemd.unit", "systemd.wants", "rd.systemd.wants")
_UNIT_OF_A_SHELL: Final = re.compile(r"rescue|emergency|debug|getty|ssh|runlevel[1S]|shell|console", re.IGNORECASE)
# By the end of the path that the kernel measured with them.
_LOGIN_PROGRAMS: Final = frozenset(
    {
        "agetty",
        "getty",
        "mingetty",
        "mgetty",
        "login",
        "sulogin",
        "busybox",
        "sshd",
        "sshd-session",
        "dropbear",
        "telnetd",
    }
)


def _no_shell(line: Parameters) -> bool:
    inits = all(item.value in _INITS for item in line.mentions("init"))
    units = not any(_UNIT_OF_A_SHELL.search(item.value or "") for name in _UNITS for item in line.mentions(name))
    sysrq = all(value == "0" for value in line.values("sysctl.kernel.sysrq"))
    switched_off = all(item.value in _OFF for name in _SWITCHES for item in line.mentions(name))
    endings = all(item.value in _ENDINGS for item in line.mentions("rd.emergency"))
    nothing_else = not any(line.mentions(name) for name in _SHELLS)
    return inits and units and sysrq and switched_off and endings and nothing_else


def _no_login(seen: _Seen) -> bool:
    runtime = seen.runtime
    return runtime is not None and not any(
        entry.path.rpartition("/")[2] in _LOGIN_PROGRAMS for entry in runtime.files.values()
    )


# -- what ran

_STRONG: Final = re.compile(r"(?:verity:)?sha(?:256|384|512):.*")


def _ima_start(seen: _Seen) -> bool:
    facts, runtime = seen.facts, seen.runtime
    if facts is None or runtime is None:
        return False
    return boot_aggregate(runtime, facts.before_kernel, facts.bank) == "fits"


def _strong(seen: _Seen) -> bool:
    runtime = seen.runtime
    return runtime is not None and seen.every(_ima_hash) and all(_STRONG.fullmatch(name) for name in runtime.files)


def _no_violation(seen: _Seen) -> bool:
    return seen.runtime is not None and seen.runtime.count > 0 and not seen.runtime.violations


def _all_known(seen: _Seen) -> bool:
    return seen.runtime is not None and bool(seen.runtime.files) and not unknown(seen.runtime, seen.closed)


def _attester(seen: _Seen) -> bool:
    runtime = seen.runtime
    if runtime is None or not seen.attester:
        return False
    return all(name in runtime.files and name in seen.closed for name in seen.attester)


DEMANDS: Final[tuple[Demand, ...]] = (
    Demand("tpm", "a TPM made the quotes, or a guest's code of an accepted measurement", lambda seen: seen.tpm),
    Demand("boot-log", "the boot's logs explain every quoted register", _boot_log),
    Demand(
        "boot-chain",
        "registers that name firmware, drivers, loaders, kernel and initial RAM disk hold what the owner accepts",
        _boot_chain,
    ),
    Demand("secure-boot", "firmware started signed images only", _secure_boot),
    Demand(
        "command-line", "the kernel's command line was measured, and it is all there is", lambda seen: bool(seen.lines)
    ),
    Demand("lockdown", "lockdown=integrity or confidentiality", lambda seen: seen.every(_lockdown)),
    Demand(
        "ima-policy",
        "ima_policy= with tcb: what runs, is mapped, or is read by root is measured",
        lambda seen: seen.every(_ima_policy),
    ),
    Demand(
        "ima-policy-fixed",
        "ima_policy= with secure_boot: another policy has to be signed, and is measured",
        lambda seen: seen.every(_ima_fixed),
    ),
    Demand("ima-start", "the kernel's list begins with this boot's registers", _ima_start),
    Demand("ima-hash", "every digest in the kernel's list is SHA-256 or longer", _strong),
    Demand("ima-violation", "the kernel always knew what it measured", _no_violation),
    Demand("closed-set", "everything that was measured is one of the owner's files", _all_known),
    Demand("attester-measured", "the attester's own files, and the weights, were measured", _attester),
    Demand(
        "verity",
        "the root file system is read-only and its blocks are verified by a measured hash",
        lambda seen: seen.every(_verity),
    ),
    Demand(
        "ptrace",
        "sysctl.kernel.yama.ptrace_scope=3: no process can look into another",
        lambda seen: seen.every(_ptrace),
    ),
    Demand(
        "kexec",
        "sysctl.kernel.kexec_load_disabled=1: no other kernel takes over unmeasured",
        lambda seen: seen.every(_kexec),
    ),
    Demand(
        "console",
        "no shell, debugger or login on a console or a port",
        lambda seen: seen.every(_no_shell) and _no_login(seen),
    ),
)
"""All that is demanded, in one place. An owner's word is needed for three of them; the rest is decided here."""
