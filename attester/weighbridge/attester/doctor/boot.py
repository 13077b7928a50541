"""What the boot left behind: firmware's, systemd's and IMA's logs, and whether the kernel keeps to what was measured.

Read as files; whether the logs lead to the quoted PCRs is the verifier's to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.attester.doctor.findings import Area, Finding, Status, fault, ok, skip, warn
from weighbridge.attester.doctor.host import Unreadable
from weighbridge.attester.wording import counted
from weighbridge.proto import limits
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.proto.eventlog import ima, systemd, tcg2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weighbridge.attester.doctor.host import Host

__all__ = ["AREA"]

_SECURE, _LOCKDOWN, _UEFI = "boot.secure-boot", "boot.lockdown", "boot.uefi-log"
_SYSTEMD, _POLICY, _LIST = "boot.systemd-log", "boot.ima-policy", "boot.ima-list"

_SECURITYFS: Final = "sys/kernel/security"
_EFIVARS: Final = "sys/firmware/efi/efivars"
_GLOBAL: Final = "8be4df61-93ca-11d2-aa0d-00e098032b8c"  # EFI_GLOBAL_VARIABLE, UEFI 2.10 §3.3
# Four bytes of attributes, then the value.
_ON: Final = b"\x01"
_UEFI_LOG: Final = f"{_SECURITYFS}/tpm0/binary_bios_measurements"
_SYSTEMD_LOG: Final = "run/log/systemd/tpm2-measure.log"
_IMA: Final = f"{_SECURITYFS}/ima"
_AS_ROOT: Final = (
    "Only root may read it: give the attester, and this, CAP_DAC_READ_SEARCH (systemd: AmbientCapabilities=)."
)
_MOUNT: Final = "Mount it: mount -t securityfs securityfs /sys/kernel/security."
# Kernel parameters by which a policy is chosen (Documentation/admin-guide/kernel-parameters.txt): one measures all that
# runs, the other lets nobody replace it without a signature.
_MEASURING, _FIXED = "tcb", "secure_boot"
_WANTED: Final = "ima_policy=tcb|secure_boot ima_hash=sha256 ima_template=ima-ng"
# A list of this length in percent of the protocol's bound is worth a word.
_LONG: Final = 50


def _examine(host: Host) -> Iterator[Finding]:
    yield _secure_boot(host)
    yield _lockdown(host)
    yield _parsed(_UEFI, lambda: _uefi_log(host))
    yield _parsed(_SYSTEMD, lambda: _systemd_log(host))
    yield _ima_policy(host)
    yield _parsed(_LIST, lambda: _ima_list(host))


def _parsed(check: str, examine: Callable[[], Finding]) -> Finding:
    """A log that is not well-formed is refused by every verifier; the attester itself can do without."""
    try:
        return examine()
    except MalformedEvidence as error:
        return fault(check, error, status=Status.WARN, todo="Update what writes it: no verifier can read it like this.")


AREA: Final = Area("boot", (_SECURE, _LOCKDOWN, _UEFI, _SYSTEMD, _POLICY, _LIST), _examine)


def _secure_boot(host: Host) -> Finding:
    if not host.exists("sys/firmware/efi"):
        return warn(_SECURE, "this system was not booted by UEFI", "Boot it by UEFI, with secure boot on.")
    secure, setup = (host.read(f"{_EFIVARS}/{name}-{_GLOBAL}") for name in ("SecureBoot", "SetupMode"))
    if isinstance(secure, Unreadable):
        return skip(
            _SECURE,
            f"the firmware's variables cannot be read: {secure.reason}",
            "mount -t efivarfs efivarfs /sys/firmware/efi/efivars",
        )
    if secure[4:] != _ON:
        return warn(_SECURE, "secure boot is off", "Switch it on in the firmware: what is booted is then signed.")
    if not isinstance(setup, Unreadable) and setup[4:] == _ON:
        return warn(_SECURE, "secure boot is in setup mode", "Enrol a platform key: as it is, anybody may change keys.")
    return ok(_SECURE, "secure boot is on")


def _lockdown(host: Host) -> Finding:
    text = host.text(f"{_SECURITYFS}/lockdown")
    if text is None:
        return _unsaid(host, _LOCKDOWN, "the kernel has no lockdown", "CONFIG_SECURITY_LOCKDOWN_LSM")
    mode = next((word[1:-1] for word in text.split() if word.startswith("[") and word.endswith("]")), "none")
    if mode == "none":
        return warn(
            _LOCKDOWN, "kernel lockdown is off", "Boot with lockdown=integrity: else root can change the kernel unseen."
        )
    return ok(_LOCKDOWN, f"kernel lockdown: {mode}")


def _unsaid(host: Host, check: str, found: str, option: str) -> Finding:
    if not host.names(_SECURITYFS):
        return warn(check, "securityfs is not mounted, or this user may not see it", _MOUNT)
    return warn(check, found, f"Use a kernel with {option}.")


def _uefi_log(host: Host) -> Finding:
    data = host.read(_UEFI_LOG, limit=limits.EVENT_LOG_MAX)
    if isinstance(data, Unreadable):
        return _no_log(host, _UEFI, data, "the firmware's log", "The kernel takes it over from a UEFI boot with a TPM.")
    log = tcg2.to_log(tcg2.parse(data))
    if not log.registers:
        return warn(
            _UEFI, f"{len(data)} bytes, and nothing in them was extended", "Boot by UEFI with its TPM support on."
        )
    banks = ", ".join(bank.name.lower() for bank in log.banks)
    return ok(_UEFI, f"{counted(len(log.events), 'event')}, {counted(len(data), 'byte')}, {banks}")


def _systemd_log(host: Host) -> Finding:
    data = host.read(_SYSTEMD_LOG, limit=limits.EVENT_LOG_MAX)
    if isinstance(data, Unreadable):
        return _no_log(
            host, _SYSTEMD, data, "systemd's log", "systemd writes one when it was booted by systemd-stub (a UKI)."
        )
    records = counted(len(systemd.parse(data)), "record")
    return ok(_SYSTEMD, f"{records}, {counted(len(data), 'byte')}")


def _no_log(host: Host, check: str, why: Unreadable, what: str, hint: str) -> Finding:
    if why.denied:
        return warn(check, f"{what} is there and cannot be read: {why.reason}", _AS_ROOT)
    if why.absent and check != _SYSTEMD and not host.names(_SECURITYFS):
        return warn(check, f"{what}: securityfs is not mounted", _MOUNT)
    return warn(check, f"{what} is not there" if why.absent else f"{what}: {why.reason}", hint)


def _ima_policy(host: Host) -> Finding:
    line = host.text("proc/cmdline")
    if line is None:
        return skip(_POLICY, "/proc/cmdline cannot be read")
    words = [word for word in line.split() if word.startswith("ima_")]
    said = " ".join(words)
    policies = {name for word in words if word.startswith("ima_policy=") for name in word.partition("=")[2].split("|")}
    if _MEASURING not in policies:
        return warn(
            _POLICY,
            f"the kernel's command line sets no policy that measures all that runs{f': {said}' if said else ''}",
            f"Add {_WANTED}: what runs here is then measured into PCR 10.",
        )
    if "ima_template=ima" in words:
        return warn(_POLICY, said, "The template ima is SHA-1 only: use ima_template=ima-ng.")
    if _FIXED not in policies:
        return warn(
            _POLICY,
            f"{said}: root can replace this policy",
            "With ima_policy=tcb|secure_boot a new policy must be signed, without which no verifier takes the "
            "attester's code for proven. Modules, firmware and kernels for kexec must then be signed, too.",
        )
    return ok(_POLICY, said)


def _ima_list(host: Host) -> Finding:
    if not host.names(_IMA):
        return _unsaid(host, _LIST, "the kernel has no IMA", "CONFIG_IMA")
    data = host.read(f"{_IMA}/binary_runtime_measurements", limit=limits.EVENT_LOG_MAX)
    if isinstance(data, Unreadable):
        if data.denied:
            return warn(_LIST, "IMA's list is there and cannot be read", _AS_ROOT)
        return warn(
            _LIST,
            f"IMA's list: {data.reason}",
            "More cannot be sent. A narrower policy, or digest_type=verity for large trees, keeps it short.",
        )
    log = ima.to_log(ima.parse(data))
    found = f"{counted(len(log.events), 'entry', 'entries')}, {counted(len(data), 'byte')}"
    if violations := log.violations:
        return warn(
            _LIST,
            f"{found}, {counted(len(violations), 'violation')}, the first of {violations[0].text}",
            "A file was written to while it was measured: find the writer, and restart the host.",
        )
    if len(data) * 100 > limits.EVENT_LOG_MAX * _LONG:
        return warn(
            _LIST,
            f"{found}: more than half of what can be sent ({limits.EVENT_LOG_MAX} bytes)",
            "Narrow the policy, or restart the host before the list is full.",
        )
    return ok(_LIST, found)
