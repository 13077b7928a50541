"""Which code measured: all demands shown together, each missed alone, and everything missing where nothing is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from eventlog_support import SHA256, ima_data
from fakes.boot_logs import STRICT_LINE, Boot, sha256_name
from weighbridge.proto.boot import BootLogs
from weighbridge.verifier.boot import boot_facts
from weighbridge.verifier.boot.attester_code import DEMANDS, AttesterCode, judge
from weighbridge.verifier.boot.runtime import RuntimeLog

FILES = {
    "/usr/lib/systemd/systemd": b"systemd",
    "/usr/bin/python3": b"python",
    "/usr/lib/python3/weighbridge/attester/cli.py": b"attester",
    "/models/model.safetensors": b"weights",
}
CLOSED = frozenset(sha256_name(content) for content in FILES.values())
ATTESTER = CLOSED - {sha256_name(b"systemd")}
KEYS = tuple(demand.key for demand in DEMANDS)
KNOWN = frozenset(range(16))


def booted(line: str = STRICT_LINE, files: Mapping[str, bytes] = FILES, **changes: Callable[[Boot], None]) -> Boot:
    boot = Boot()
    boot.uki(line)
    for change in (changes["before"],) if "before" in changes else ():
        change(boot)
    boot.kernel(files)
    for change in (changes["after"],) if "after" in changes else ():
        change(boot)
    return boot


def judged(
    boot: Boot,
    *,
    closed: frozenset[str] = CLOSED,
    attester: frozenset[str] = ATTESTER,
    known: frozenset[int] = KNOWN,
    tpm: bool = True,
) -> AttesterCode:
    facts = boot_facts(boot.logs(), boot.quoted(), SHA256)
    runtime = RuntimeLog.empty().extended(b"".join(boot.runtime), quoted=boot.values[SHA256, 10], bank=SHA256)
    return judge(facts, runtime, closed=closed, attester=attester, known=known, tpm=tpm)


def line_without(word: str, instead: str = "") -> str:
    assert word in STRICT_LINE
    return STRICT_LINE.replace(word, instead)


def test_all_of_it_is_shown() -> None:
    assert judged(booted()) == AttesterCode("proven", ())


def test_keys_are_stable_and_distinct() -> None:
    assert KEYS == (
        "tpm",
        "boot-log",
        "boot-chain",
        "secure-boot",
        "command-line",
        "lockdown",
        "ima-policy",
        "ima-policy-fixed",
        "ima-start",
        "ima-hash",
        "ima-violation",
        "closed-set",
        "attester-measured",
        "verity",
        "ptrace",
        "kexec",
        "console",
    )
    assert all(demand.words for demand in DEMANDS)


def test_each_is_explained_and_no_other(root: Path) -> None:
    text = (root / "docs" / "attester-code.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) == KEYS


def test_nothing_there_shows_nothing() -> None:
    expected = AttesterCode("unproven", KEYS)
    assert judge(None, None, closed=CLOSED, attester=ATTESTER, known=KNOWN, tpm=False) == expected
    facts = boot_facts(BootLogs(), {}, SHA256)
    runtime = RuntimeLog.empty().extended(b"", quoted=bytes(32), bank=SHA256)
    assert judge(facts, runtime, closed=CLOSED, attester=ATTESTER, known=KNOWN, tpm=False) == expected


LINES = [
    # Not there at all, there with another value, and there twice with one that is not good.
    ("lockdown", line_without("lockdown=integrity")),
    ("lockdown", line_without("lockdown=integrity", "lockdown=none")),
    ("lockdown", f"{STRICT_LINE} lockdown=none"),
    ("lockdown", f"{STRICT_LINE} lsm=landlock,yama,bpf"),
    ("lockdown", line_without("lockdown=integrity") + " -- lockdown=integrity"),
    ("ima-policy", line_without("tcb|")),
    ("ima-policy", line_without("ima_policy=tcb", "ima_tcb ima_policy=")),
    ("ima-policy", f"{STRICT_LINE} ima=off"),
    ("ima-policy-fixed", line_without("|secure_boot")),
    ("ima-policy-fixed", f"{STRICT_LINE} ima_appraise=fix"),
    ("ima-hash", f"{STRICT_LINE} ima_hash=sha1"),
    ("verity", line_without(" ro ", " ")),
    ("verity", f"{STRICT_LINE} rw"),
    ("verity", line_without("roothash=", "usrhash=")),
    ("verity", line_without("roothash=5e", "roothash=5E")),
    ("verity", f"{STRICT_LINE} roothash={'00' * 32}"),
    ("verity", line_without("root=/dev/mapper/root", "root=/dev/sda1")),
    ("verity", f"{STRICT_LINE} systemd.verity=no"),
    ("verity", f"{STRICT_LINE} systemd.volatile=overlay"),
    ("verity", f"{STRICT_LINE} systemd.verity_root_options=ignore-corruption"),
    ("ptrace", line_without("ptrace_scope=3", "ptrace_scope=2")),
    ("ptrace", f"{STRICT_LINE} sysctl.kernel.yama.ptrace_scope=0"),
    ("ptrace", f"{STRICT_LINE} sysctl/kernel/yama/ptrace_scope=0"),
    ("ptrace", line_without("yama.ptrace_scope", "yama.ptrace-scope")),
    ("ptrace", f"{STRICT_LINE} lsm=lockdown,landlock"),
    ("kexec", line_without("kexec_load_disabled=1", "kexec_load_disabled=0")),
    ("console", f"{STRICT_LINE} init=/bin/sh"),
    ("console", f"{STRICT_LINE} rdinit=/bin/sh"),
    ("console", f"{STRICT_LINE} rd.break"),
    ("console", f"{STRICT_LINE} single"),
    ("console", f"{STRICT_LINE} -- single"),
    ("console", f"{STRICT_LINE} -s"),
    ("console", f"{STRICT_LINE} 1"),
    ("console", f"{STRICT_LINE} emergency"),
    ("console", f"{STRICT_LINE} systemd.debug-shell=1"),
    ("console", f"{STRICT_LINE} systemd.unit=rescue.target"),
    ("console", f"{STRICT_LINE} systemd.wants=debug-shell.service"),
    ("console", f"{STRICT_LINE} kgdboc=ttyS0"),
    ("console", f"{STRICT_LINE} rd.shell"),
    ("console", f"{STRICT_LINE} rd.emergency=shell"),
    ("console", f"{STRICT_LINE} systemd.getty_auto=no systemd.getty_auto=yes"),
    ("console", f"{STRICT_LINE} sysctl.kernel.sysrq=1"),
]


@pytest.mark.parametrize(("key", "line"), LINES)
def test_one_word_of_the_command_line_is_missed_alone(key: str, line: str) -> None:
    assert judged(booted(line)) == AttesterCode("unproven", (key,))


@pytest.mark.parametrize(
    "line",
    [
        line_without("lockdown=integrity", "lockdown=confidentiality"),
        line_without("lockdown=integrity", 'lockdown="integrity" lsm=lockdown,yama,integrity'),
        line_without("ima_policy=tcb|secure_boot", 'ima_policy="tcb secure_boot" ima-policy=appraise_tcb'),
        f"{STRICT_LINE} ima_hash=sha512 ima_appraise=enforce",
        line_without("root=/dev/mapper/root "),
        f"{STRICT_LINE} init=/usr/lib/systemd/systemd systemd.unit=multi-user.target console=ttyS0",
        f"{STRICT_LINE} sysctl.kernel.sysrq=0 rd.shell=0 rd.emergency=reboot systemd.getty_auto=no",
        line_without(
            f"root=/dev/mapper/root ro roothash={'5e' * 32}",
            f'root=/dev/dm-0 ro dm-mod.create="v,,,ro,0 8 verity 1 8:1 8:2 4096 4096 1 1 sha256 {"5e" * 32} 00"',
        ),
        line_without(
            f"root=/dev/mapper/root ro roothash={'5e' * 32}",
            'root=/dev/dm-0 ro dm="1 vroot none ro 1,0 8 verity payload=PARTUUID=x hashstart=8 alg=sha256 '
            f'root_hexdigest={"5e" * 32} salt=00"',
        ),
    ],
)
def test_other_ways_to_say_the_same(line: str) -> None:
    assert judged(booted(line)) == AttesterCode("proven", ())


@pytest.mark.parametrize(
    "value",
    [
        'dm="1 vroot none ro 1,0 8 verity alg=sha1 root_hexdigest=00"',
        'dm="2 vroot none ro 1,0 8 verity alg=sha256, a none rw 1,0 8 linear /dev/sda 0"',
        'dm-mod.create="v,,,rw,0 8 verity 1 8:1 8:2 4096 4096 1 1 sha256 00 00"',
        'dm-mod.create="v,,,ro,0 8 verity 1 8:1 8:2 4096 4096 1 1 sha256 00 00,8 8 linear 8:1 0"',
        'dm-mod.create="v,,,ro,0 8 linear 8:1 0"',
        "dm-mod.create",
    ],
)
def test_a_mapping_that_is_not_verified_whole_is_none(value: str) -> None:
    line = line_without(f"root=/dev/mapper/root ro roothash={'5e' * 32}", f"root=/dev/dm-0 ro {value}")
    assert judged(booted(line)).missing == ("verity",)


OF_A_LINE = (
    "command-line",
    "lockdown",
    "ima-policy",
    "ima-policy-fixed",
    "ima-hash",
    "verity",
    "ptrace",
    "kexec",
    "console",
)


def of_a_line() -> AttesterCode:
    return AttesterCode("unproven", tuple(key for key in KEYS if key in OF_A_LINE))


@pytest.mark.parametrize(
    "line",
    [
        f"{STRICT_LINE} bootconfig",
        f"{STRICT_LINE} initcall_blacklist=init_ima",
        STRICT_LINE + " x" * 1000,
        f"{STRICT_LINE} a='",
    ],
)
def test_a_line_that_is_not_all_there_is_shows_nothing(line: str) -> None:
    assert judged(booted(line)) == of_a_line()


def test_a_claimed_line_shows_nothing() -> None:
    boot = Boot()
    boot.firmware_begins()
    boot.event(4, 0x80000003, b"", b"uki")
    boot.stub_line(STRICT_LINE, "quiet")
    boot.firmware_ends()
    boot.kernel(FILES)
    assert judged(boot) == of_a_line()


def test_a_claimed_line_beside_a_good_one_spoils_it() -> None:
    assert judged(booted(before=lambda boot: boot.stub_line(STRICT_LINE, "quiet"))) == of_a_line()


def test_a_line_the_kernel_got_and_nobody_knows_shows_nothing() -> None:
    assert judged(booted(before=lambda boot: boot.load_options("quiet"))) == of_a_line()


def test_a_good_line_added_after_the_boot_earns_nothing() -> None:
    boot = booted("quiet", before=lambda boot: boot.stub_line(STRICT_LINE))
    assert judged(boot).missing == ("lockdown", "ima-policy", "ima-policy-fixed", "verity", "ptrace", "kexec")


def test_a_host_that_measures_no_line_shows_none() -> None:
    boot = Boot()
    boot.firmware_begins()
    boot.event(4, 0x80000003, b"", b"vmlinuz")
    boot.firmware_ends()
    boot.kernel(FILES)
    assert judged(boot) == of_a_line()


def test_grub_may_show_it_too() -> None:
    boot = Boot()
    boot.grub(STRICT_LINE)
    boot.kernel(FILES)
    assert judged(boot) == AttesterCode("proven", ())


def test_secure_boot_off_is_missed() -> None:
    boot = Boot()
    boot.firmware_begins(secure_boot=b"\0")
    boot.event(4, 0x80000003, b"", b"uki")
    boot.stub_line(STRICT_LINE)
    boot.firmware_ends()
    boot.kernel(FILES)
    assert judged(boot).missing == ("secure-boot",)


@pytest.mark.parametrize("pcr", [0, 2, 4, 9, 11, 12])
def test_a_register_that_no_owner_accepts_is_missed(pcr: int) -> None:
    assert judged(booted(), known=KNOWN - {pcr}).missing == ("boot-chain",)


def test_a_tpm_of_unknown_code_is_missed() -> None:
    assert judged(booted(), tpm=False).missing == ("tpm",)


def test_registers_that_nothing_extended_need_no_owner() -> None:
    assert judged(booted(), known=frozenset({0, 2, 4, 9, 11, 12})).status == "proven"


def test_registers_that_no_log_explains_are_missed() -> None:
    boot = booted(before=lambda boot: boot.extend(14, b"?"))
    assert judged(boot).missing == ("boot-log", "boot-chain")


def test_registers_that_were_not_quoted_are_missed() -> None:
    boot = booted()
    facts = boot_facts(boot.logs(), boot.quoted([0, 7, 12]), SHA256)
    runtime = RuntimeLog.empty().extended(b"".join(boot.runtime), quoted=boot.values[SHA256, 10], bank=SHA256)
    missing = judge(facts, runtime, closed=CLOSED, attester=ATTESTER, known=KNOWN, tpm=True).missing
    assert missing == ("boot-chain", "ima-start")


# -- what ran


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda boot: boot.violate("/var/log/x"), ("ima-violation",)),
        (lambda boot: boot.measure("/usr/bin/nc", b"nc"), ("closed-set",)),
        (lambda boot: boot.measure("kexec-cmdline", b"quiet", template=b"ima-buf"), ("closed-set",)),
        (lambda boot: boot.entry(ima_data(b"/x", bytes(20), b"sha1")), ("ima-hash", "closed-set")),
        (lambda boot: boot.measure("/sbin/agetty", b"agetty"), ("closed-set", "console")),
    ],
)
def test_one_entry_is_missed_alone(change: Callable[[Boot], None], missing: tuple[str, ...]) -> None:
    assert judged(booted(after=change)).missing == missing


def test_a_login_that_the_owner_accepts_is_a_login() -> None:
    boot = booted(after=lambda boot: boot.measure("/usr/sbin/sshd", b"sshd"))
    assert judged(boot, closed=CLOSED | {sha256_name(b"sshd")}).missing == ("console",)


def test_the_attesters_files_must_have_been_measured() -> None:
    files = {path: content for path, content in FILES.items() if content != b"weights"}
    assert judged(booted(files=files)).missing == ("attester-measured",)


def test_an_attester_that_nobody_named_was_not_measured() -> None:
    assert judged(booted(), attester=frozenset()).missing == ("attester-measured",)
    assert judged(booted(), closed=frozenset()).missing == ("closed-set", "attester-measured")


def test_a_list_of_another_boot_is_missed() -> None:
    boot = Boot()
    boot.kernel(FILES)
    boot.uki()
    assert judged(boot).missing == ("ima-start",)


def test_an_empty_list_shows_nothing() -> None:
    boot = Boot()
    boot.uki()
    assert judged(boot).missing == ("ima-start", "ima-violation", "closed-set", "attester-measured")


def test_one_part_without_the_other_shows_its_own() -> None:
    boot = booted()
    facts = boot_facts(boot.logs(), boot.quoted(), SHA256)
    runtime = RuntimeLog.empty().extended(b"".join(boot.runtime), quoted=boot.values[SHA256, 10], bank=SHA256)
    of_runtime = ("ima-start", "ima-hash", "ima-violation", "closed-set", "attester-measured", "console")
    assert judge(facts, None, closed=CLOSED, attester=ATTESTER, known=KNOWN, tpm=True).missing == of_runtime
    missing = judge(None, runtime, closed=CLOSED, attester=ATTESTER, known=KNOWN, tpm=True).missing
    shown = {"tpm", "ima-violation", "closed-set", "attester-measured"}
    assert missing == tuple(key for key in KEYS if key not in shown)
