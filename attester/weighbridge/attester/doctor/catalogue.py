"""Every check: its name for people, and why it is made. The areas say how; this order is that of the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weighbridge.attester.doctor import boot, gpu, tpm
from weighbridge.attester.doctor.disk import MODEL_AREA, STATE_AREA, VERIFIER_AREA
from weighbridge.attester.doctor.machine import CLOCK_AREA, CPU_AREA, SOFTWARE_AREA

__all__ = ["AREAS", "CHECKS", "Check"]


@dataclass(frozen=True, slots=True)
class Check:
    """``name`` is what is looked at; ``why`` is what depends on it."""

    name: str
    why: str


CHECKS: Final = {
    "tpm.device": Check("TPM device", "every window is signed by the TPM"),
    "tpm.maker": Check("TPM maker", "a verifier believes the keys of makers that it knows, and no emulator's"),
    "tpm.lockout": Check("TPM lockout", "keys of others may be refused while the TPM is locked out"),
    "tpm.clock": Check("TPM clock", "quotes are dated and ordered by it, and its counts betray a reset"),
    "tpm.banks": Check("PCR banks", "quotes are over SHA-256; a bank that is active and not extended can be forged"),
    "tpm.ek": Check(
        "endorsement certificate", "it says which maker's TPM this is; its chain is checked by the verifier"
    ),
    "tpm.kind": Check("kind of host", "a cloud vouches for the attestation key in its own way"),
    "tpm.ak": Check("attestation key", "it signs the quotes and certifies each session's key"),
    "boot.secure-boot": Check("secure boot", "production policies demand that only signed code was booted"),
    "boot.lockdown": Check("kernel lockdown", "without it root can replace the kernel that does the measuring"),
    "boot.uefi-log": Check("firmware's log", "it explains PCRs 0 to 7, value by value"),
    "boot.systemd-log": Check("systemd's log", "it explains PCRs 11 to 15: the kernel image, its parts, the phases"),
    "boot.ima-policy": Check("IMA policy", "it decides which programs are measured into PCR 10"),
    "boot.ima-list": Check("IMA list", "it explains PCR 10: every program that ran"),
    "cpu.tee": Check("CPU's TEE", "it keeps the host's operator out of this system"),
    "gpu.present": Check("GPU", "the model's work is attested where it happens"),
    "gpu.driver": Check("GPU driver", "reports and sensors are read through it"),
    "gpu.devices": Check("GPU kind", "reference values are for one chip, driver and VBIOS"),
    "gpu.persistence": Check("persistence mode", "counters go on while nothing uses the GPU"),
    "gpu.cc": Check("confidential computing", "only in this mode does the GPU attest, and keep the host out"),
    "gpu.ready": Check("ready state", "in that mode the GPU takes no work before it was attested"),
    "gpu.report": Check("attestation report", "the GPU's own signature, over a number chosen now"),
    "gpu.sensors": Check("GPU sensors", "the physics of the work are recorded in every window"),
    "software.python": Check("Python", "3.11 or newer is needed"),
    "software.packages": Check("packages", "TPM, GPU and the line to the verifier each need theirs"),
    "clock.synchronised": Check("wall clock", "a verifier refuses windows of the future"),
    "state.directory": Check("state directory", "keys and undelivered windows are in it"),
    "state.disk": Check("disk", "what is sealed has to survive a loss of power"),
    "state.keys": Check("keys", "the line to the verifier is opened with them"),
    "model.protection": Check("model's files", "verity keeps a file from changing after it was measured"),
    "verifier.reachable": Check("verifier", "whoever does not hear from this host believes nothing of it"),
}

AREAS: Final = (
    tpm.AREA,
    boot.AREA,
    CPU_AREA,
    gpu.AREA,
    SOFTWARE_AREA,
    CLOCK_AREA,
    STATE_AREA,
    MODEL_AREA,
    VERIFIER_AREA,
)
