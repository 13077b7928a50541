"""The TPM itself: is it there, who made it, which PCR banks does it have, can its clock be relied on?

Asked by commands that change nothing. Not looked at: whether the verifier trusts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.attester.doctor import tpm_keys
from weighbridge.attester.doctor.findings import Area, Finding, fail, fault, guarded, ok, skip, warn
from weighbridge.attester.doctor.host import printable
from weighbridge.attester.doctor.tpm_commands import TpmAsked
from weighbridge.attester.tpm.transport import emulator_path
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.constants import HashAlgorithm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.attester.doctor.host import Host

__all__ = ["AREA"]

_DEVICE, _MAKER, _LOCKOUT, _CLOCK, _BANKS = "tpm.device", "tpm.maker", "tpm.lockout", "tpm.clock", "tpm.banks"

# TPM_PT, Part 2 §6.13.
_PT_FIXED: Final = 0x100
_PT_VARIABLE: Final = 0x200
_PT_COUNT: Final = 0x30
_PT_FAMILY: Final = 0x100
_PT_REVISION: Final = 0x102
_PT_MANUFACTURER: Final = 0x105
_PT_VENDOR_STRINGS: Final = range(0x106, 0x10A)
_PT_FIRMWARE_1: Final = 0x10B
_PT_FIRMWARE_2: Final = 0x10C
_PT_PERMANENT: Final = 0x200
_PT_STARTUP_CLEAR: Final = 0x201
_PT_LOCKOUT_COUNTER: Final = 0x20E
_PT_MAX_AUTH_FAIL: Final = 0x20F
_PT_LOCKOUT_INTERVAL: Final = 0x210
# TPMA_PERMANENT and TPMA_STARTUP_CLEAR, Part 2 §8.6 and §8.7.
_ENDORSEMENT_AUTH_SET: Final = 1 << 1
_IN_LOCKOUT: Final = 1 << 9
_ENDORSEMENT_ENABLED: Final = 1 << 2

_FAMILY: Final = "2.0"
# TCG TPM Vendor ID Registry 1.06.
_MAKERS: Final = {
    "AMD": "AMD",
    "ATML": "Atmel",
    "GOOG": "Google",
    "HISI": "HiSilicon",
    "IBM": "IBM",
    "IFX": "Infineon",
    "INTC": "Intel",
    "MSFT": "Microsoft",
    "NSM": "National Semiconductor",
    "NTC": "Nuvoton",
    "NTZ": "Nationz",
    "QCOM": "Qualcomm",
    "SMSN": "Samsung",
    "STM": "STMicroelectronics",
    "WEC": "Winbond",
}
# libtpms, which swtpm and the vTPMs of QEMU run.
_EMULATED: Final = ("IBM", "SW")
_SM3: Final = 0x0012
_NAMES: Final[dict[int, str]] = {**{known: known.name.lower() for known in HashAlgorithm}, _SM3: "sm3"}
_FIRMWARE_PCRS: Final = range(8)
_LOOK: Final = 0.25
# TPM 2.0 Part 1 §36.3.1: a TPM's clock may be off by 15 %; a look of a quarter of a second adds some.
_RATE: Final = (0.75, 1.25)


@dataclass(frozen=True, slots=True)
class _Properties:
    """What the TPM says of itself; empty where it does not answer."""

    fixed: Mapping[int, int]
    variable: Mapping[int, int]


def _examine(host: Host) -> Iterator[Finding]:
    try:
        channel = host.open_channel(host.tpm)
    except EnvironmentFault as error:
        yield _unreachable(host, error)
        for check in AREA.ids[1:]:
            yield skip(check, "no TPM to ask")
        return
    with TpmAsked(channel, sleep=host.sleep) as tpm:
        yield ok(_DEVICE, f"{host.tpm} can be opened")
        try:
            said = _Properties(tpm.properties(_PT_FIXED, _PT_COUNT), tpm.properties(_PT_VARIABLE, _PT_COUNT))
        except EnvironmentFault as error:
            yield fault(_MAKER, error)
            for check in AREA.ids[2:]:
                yield skip(check, "the TPM does not answer")
            return
        yield _maker(said.fixed, emulated=emulator_path(host.tpm) is not None)
        yield _lockout(said.variable)
        yield guarded(_CLOCK, lambda: _clock(host, tpm))
        yield guarded(_BANKS, lambda: _banks(tpm))
        yield guarded(tpm_keys.EK, lambda: tpm_keys.examine_ek(tpm))
        yield guarded(tpm_keys.KIND, lambda: tpm_keys.examine_kind(host, tpm))
    # An emulator serves one client: the AK is asked for when the connection above is closed.
    yield guarded(tpm_keys.AK, lambda: _ak(host, said.variable))


def _unreachable(host: Host, error: EnvironmentFault) -> Finding:
    if error.code is Code.TPM_ABSENT and host.tcti is None and not host.exists("dev/tpmrm0"):
        if host.exists("dev/tpm0"):
            return fail(
                _DEVICE,
                "there is /dev/tpm0 and no /dev/tpmrm0",
                "The kernel drives a TPM 1.2, or has no resource manager: a TPM 2.0 and a kernel from 4.12 are needed.",
            )
        return fail(
            _DEVICE,
            "there is no TPM: no /dev/tpmrm0",
            "Switch the TPM (also called fTPM or PTT) on in the firmware, give the virtual machine a vTPM, or load the "
            "driver: modprobe tpm_crb, tpm_tis. An emulator is named by --tcti swtpm:path=SOCKET.",
        )
    return fault(_DEVICE, error)


def _maker(fixed: Mapping[int, int], *, emulated: bool) -> Finding:
    maker = _letters(fixed.get(_PT_MANUFACTURER, 0))
    model = "".join(_letters(fixed.get(number, 0)) for number in _PT_VENDOR_STRINGS).strip()
    firmware = _words(fixed.get(_PT_FIRMWARE_1, 0)) + _words(fixed.get(_PT_FIRMWARE_2, 0))
    revision = fixed.get(_PT_REVISION, 0)
    found = (
        f"{_MAKERS.get(maker, maker or 'unknown maker')}{f' {model}' if model else ''}, firmware "
        f"{'.'.join(str(word) for word in firmware)}, TPM {_letters(fixed.get(_PT_FAMILY, 0)) or '?'} revision "
        f"{revision // 100}.{revision % 100:02}"
    )
    if _letters(fixed.get(_PT_FAMILY, 0)) != _FAMILY:
        return fail(_MAKER, found, "A TPM 2.0 is needed.")
    if emulated or (maker == _EMULATED[0] and model.startswith(_EMULATED[1])):
        return warn(
            _MAKER,
            f"{found}: an emulator",
            "Good for trying: whoever runs it holds its keys, so every production policy refuses it.",
        )
    return ok(_MAKER, found)


def _letters(value: int) -> str:
    """Four characters in an integer, as the TPM keeps them."""
    return printable(value.to_bytes(4).replace(b"\0", b"").decode("latin-1").strip())


def _words(value: int) -> tuple[int, int]:
    return value >> 16, value & 0xFFFF


def _lockout(variable: Mapping[int, int]) -> Finding:
    permanent = variable.get(_PT_PERMANENT, 0)
    counted, limit = variable.get(_PT_LOCKOUT_COUNTER, 0), variable.get(_PT_MAX_AUTH_FAIL, 0)
    wait = variable.get(_PT_LOCKOUT_INTERVAL, 0)
    if permanent & _IN_LOCKOUT:
        return warn(
            _LOCKOUT,
            f"locked out: {counted} wrong passwords of {limit}",
            "The attester's own keys work all the same. Find who guesses; then tpm2_dictionarylockout --clear-lockout"
            + (f", or wait: one less every {wait} s." if wait else "."),
        )
    return ok(_LOCKOUT, f"not locked out: {counted} wrong passwords of {limit}")


def _clock(host: Host, tpm: TpmAsked) -> Finding:
    began, first = host.monotonic_ns(), tpm.clock()
    host.sleep(_LOOK)
    ended, second = host.monotonic_ns(), tpm.clock()
    elapsed = (ended - began) / 1e6
    rate = (second.clock - first.clock) / elapsed if elapsed > 0 else 0.0
    counts = f"reset {second.reset_count}, restart {second.restart_count}"
    if (first.reset_count, first.restart_count) != (second.reset_count, second.restart_count):
        return fail(_CLOCK, f"the TPM was reset while it was looked at: {counts}", "Find out who resets it.")
    if not _RATE[0] <= rate <= _RATE[1]:
        return warn(
            _CLOCK,
            f"advances by {rate:.2f} s a second of this host's; {counts}",
            "Windows bear both clocks, and a verifier sees that they differ: check the host's clock source.",
        )
    if not second.safe:
        return warn(
            _CLOCK,
            f"not safe after a power failure; {counts}",
            "It becomes safe by itself, at the latest 70 minutes after the start. Until then no quote is dated by it.",
        )
    return ok(_CLOCK, f"safe, advances with this host's clock; {counts}")


def _banks(tpm: TpmAsked) -> Finding:
    banks = tpm.banks()
    names = ", ".join(_name(algorithm) for algorithm in sorted(banks))
    allocate = "Allocate SHA-256 and SHA-384 only, then reboot: tpm2_pcrallocate sha256:all+sha384:all."
    if HashAlgorithm.SHA256 not in banks:
        return fail(_BANKS, f"no SHA-256 bank; active: {names or 'none'}", allocate)
    if unknown := [_name(algorithm) for algorithm in sorted(banks) if algorithm not in set(HashAlgorithm)]:
        return fail(_BANKS, f"active: {names}; the attester cannot extend {', '.join(unknown)}", allocate)
    if missing := sorted(set(range(24)) - set(banks[HashAlgorithm.SHA256])):
        return warn(_BANKS, f"active: {names}; sha256 lacks PCR {', '.join(map(str, missing))}", allocate)
    silent = [algorithm for algorithm in sorted(banks) if not _extended(tpm, algorithm)]
    if HashAlgorithm.SHA256 in silent:
        return warn(
            _BANKS,
            f"active: {names}; PCRs 0 to 7 of sha256 are zero",
            "The firmware measured nothing: boot by UEFI with its TPM support on. An emulator has no firmware.",
        )
    if silent:
        return warn(
            _BANKS,
            f"active: {names}; the firmware does not extend {', '.join(map(_name, silent))}",
            "Whoever has the TPM can fill such a bank as he likes. " + allocate,
        )
    return ok(_BANKS, f"active and extended by the firmware: {names}")


def _extended(tpm: TpmAsked, algorithm: int) -> bool:
    return any(any(value) for value in tpm.pcr(algorithm, _FIRMWARE_PCRS).values())


def _name(algorithm: int) -> str:
    return _NAMES.get(algorithm, f"{algorithm:#06x}")


def _ak(host: Host, variable: Mapping[int, int]) -> Finding:
    if not variable.get(_PT_STARTUP_CLEAR, _ENDORSEMENT_ENABLED) & _ENDORSEMENT_ENABLED:
        return fail(
            tpm_keys.AK, "the endorsement hierarchy is disabled", "Enable it in the firmware's settings of the TPM."
        )
    if variable.get(_PT_PERMANENT, 0) & _ENDORSEMENT_AUTH_SET:
        return fail(
            tpm_keys.AK,
            "the endorsement hierarchy has a password",
            "The attester makes its key with the empty one: tpm2_changeauth -c e -p PASSWORD.",
        )
    return tpm_keys.examine_ak(host)


AREA: Final = Area(
    "TPM", (_DEVICE, _MAKER, _LOCKOUT, _CLOCK, _BANKS, tpm_keys.EK, tpm_keys.KIND, tpm_keys.AK), _examine
)
