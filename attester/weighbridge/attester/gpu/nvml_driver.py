"""What one GPU, and the driver as a whole, are asked for evidence: one call after the other, each as long as it takes.

Threads and time limits are :mod:`weighbridge.attester.gpu.nvml`'s. Everything raises what it met: an
:class:`~weighbridge.attester.gpu.nvml_errors.NvmlFault` for an error of NVML, ``MalformedEvidence`` for bytes that are
neither report nor certificates, and ``EnvironmentFault`` where more is known.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.gpu.nvml_calls import integers
from weighbridge.attester.gpu.nvml_errors import FUNCTION_NOT_FOUND, NOT_SUPPORTED, UNKNOWN, NvmlFault
from weighbridge.proto import limits
from weighbridge.proto.cc_state import ENVIRONMENT_MAX, CcFeature, CcState, MultiGpu
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.x509 import pem_certificates

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from weighbridge.attester.gpu.nvml_calls import Nvml

    _T = TypeVar("_T")

__all__ = ["NvmlDevice", "NvmlDriver"]

# SPDM 1.1 GET_MEASUREMENTS: four bytes, then the nonce (DSP0274 1.1 §10.11).
_NONCE_AT: Final = slice(4, 4 + limits.NONCE_SIZE)
_STATE: Final = "nvmlSystemGetConfComputeState"
_SETTINGS: Final = "nvmlSystemGetConfComputeSettings"
_REPORT: Final = "nvmlDeviceGetConfComputeGpuAttestationReport"
_CERTIFICATE: Final = "nvmlDeviceGetConfComputeGpuCertificate"
# nvml.h: NVML_CC_SYSTEM_FEATURE_*, NVML_CC_SYSTEM_MULTIGPU_*.
_FEATURES: Final[dict[int, CcFeature]] = {0: "off", 1: "on"}
_MODES: Final[dict[int, MultiGpu]] = {0: "none", 1: "protected_pcie", 2: "nvle"}
# Drivers that do not know the settings, or this version of their structure.
_NOT_SAID: Final = frozenset({NOT_SUPPORTED, FUNCTION_NOT_FOUND, 25})
# No answer in time, in use: temporary by NVML's own word.
_TEMPORARY: Final = frozenset({10, 19})
_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class NvmlDevice:
    """One GPU: a name for people, the driver's, NVML's handle, and what its certificates claim to be, 32 bytes."""

    name: str
    uuid: str
    handle: object
    identity: bytes


@final
class NvmlDriver:
    """The questions. Safe to be used by several threads, as NVML is.

    Args:
        nvml: initialised.
        patience_s: for how long something that is temporarily refused is asked for again, seconds.
    """

    def __init__(self, nvml: Nvml, *, patience_s: float) -> None:
        self._nvml = nvml
        self._patience_s = patience_s

    def count(self) -> int:
        """How many GPUs there are: at least 1, and no more than a window carries.

        Raises:
            EnvironmentFault: ``GPU_ABSENT``, or ``GPU_FAILED`` for too many.
        """
        count = self._nvml.number("nvmlDeviceGetCount")
        if not 1 <= count <= limits.GPUS_MAX:
            raise EnvironmentFault(
                Code.GPU_ABSENT if count < 1 else Code.GPU_FAILED,
                "the driver has no GPU" if count < 1 else "the driver has more GPUs than a window carries",
                where="nvmlDeviceGetCount",
                expected=f"1..{limits.GPUS_MAX}",
                got=count,
                hint="nvidia-smi, and NVRM in the kernel's log, say why",
            )
        return count

    def device(self, index: int) -> NvmlDevice:
        """The GPU that NVML counts as ``index`` now. Its handle stays, whatever the order later."""
        handle = self._nvml.call("nvmlDeviceGetHandleByIndex", index)
        uuid = self._nvml.text("nvmlDeviceGetUUID", handle)
        name = f"GPU {index} ({uuid})"
        chain = self._patiently(lambda: self._chain(name, handle))
        return NvmlDevice(name, uuid, handle, GpuEvidence(b"", chain).claimed_identity)

    def attest(self, device: NvmlDevice, nonce: bytes) -> GpuEvidence:
        """A report over ``nonce`` with the device's certificates, both as they are.

        Checked: sizes, that the report bears the nonce, that the certificates are still this device's. Nothing is
        verified.
        """
        report = self._patiently(lambda: self._report(device, nonce))
        chain = self._patiently(lambda: self._chain(device.name, device.handle))
        evidence = GpuEvidence(report, chain)
        if evidence.claimed_identity != device.identity:
            raise EnvironmentFault(
                Code.GPU_FAILED,
                "the certificates are another GPU's than at the start",
                where=device.name,
                expected=device.identity,
                got=evidence.claimed_identity,
                hint="start the attester again: a session is bound to its GPUs",
            )
        return evidence

    def state(self) -> CcState | None:
        """What the driver says of confidential computing; ``None`` where it is older than the question.

        Raises:
            EnvironmentFault: ``GPU_FAILED`` for an answer of which no meaning is known, or two that differ.
        """
        try:
            environment, feature, tools = self._nvml.fields(_STATE, ("environment", "ccFeature", "devToolsMode"))
            settings = self._nvml.filled(_SETTINGS, "c_nvmlSystemConfComputeSettings_v1_t")
        except NvmlFault as fault:
            if fault.number in _NOT_SAID:
                return None
            raise
        again = integers(_SETTINGS, settings, ("environment", "ccFeature", "devToolsMode"))
        (mode,) = integers(_SETTINGS, settings, ("multiGpuMode",))
        known = feature in _FEATURES and tools in {0, 1} and mode in _MODES and 0 <= environment <= ENVIRONMENT_MAX
        if not known or again != (environment, feature, tools):
            raise EnvironmentFault(
                Code.GPU_FAILED,
                "what the driver says of confidential computing has no known meaning, or contradicts itself",
                where=_SETTINGS,
                got=f"{(environment, feature, tools)}, then {(*again, mode)}",
                hint="update weighbridge, or report it with the driver's version",
            )
        return CcState(
            environment=environment, feature=_FEATURES[feature], dev_tools=tools == 1, multi_gpu=_MODES[mode]
        )

    def refuse_off(self, where: str) -> None:
        """Require that the driver does not say that confidential computing is off. Outside of it no GPU signs a report.

        Raises:
            EnvironmentFault: ``GPU_CC_MODE``, or as :meth:`state`.
        """
        state = self.state()
        if state is not None and state.feature == "off":
            raise EnvironmentFault(
                Code.GPU_CC_MODE,
                "confidential computing is off, by the driver's word",
                where=where,
                expected="on",
                got="off",
                hint="Switch it on from the host: nvidia_gpu_tools.py --set-cc-mode=on --reset-after-cc-mode-switch, "
                "then start the confidential VM. Without it a GPU signs no report.",
            )

    def _report(self, device: NvmlDevice, nonce: bytes) -> bytes:
        structure = self._explained(device.name, lambda: self._nvml.call(_REPORT, device.handle, nonce))
        report = _filled(_REPORT, structure, size="attestationReportSize", data="attestationReport")
        if report[_NONCE_AT] != nonce:
            raise EnvironmentFault(
                Code.GPU_FAILED,
                f"a report of {len(report)} bytes does not bear the nonce",
                where=device.name,
                expected=nonce,
                got=report[_NONCE_AT],
                hint="Update the driver: a report that is cut or replayed proves nothing.",
            )
        return report

    def _chain(self, name: str, handle: object) -> tuple[bytes, ...]:
        structure = self._explained(name, lambda: self._nvml.call(_CERTIFICATE, handle))
        pem = _filled(_CERTIFICATE, structure, size="attestationCertChainSize", data="attestationCertChain")
        # The end of a C string may be counted in.
        return pem_certificates(pem.rstrip(b"\0"), what="gpu.chain")

    def _explained(self, name: str, ask: Callable[[], object]) -> object:
        """What ``ask`` returns. Where it is refused without a reason, the reason: NVML gives none outside of CC."""
        try:
            return ask()
        except NvmlFault as fault:
            if fault.number not in {NOT_SUPPORTED, UNKNOWN}:
                raise
            self.refuse_off(name)
            raise fault.environment_fault(
                name,
                hint="The driver says no more than this. H100 and newer GPUs attest, in confidential computing alone; "
                "look for NVRM in the kernel's log.",
            ) from fault

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        """What ``ask`` returns, asked again while NVML says that what hinders it is temporary."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return ask()
            except NvmlFault as fault:
                if fault.number not in _TEMPORARY or time.monotonic() + _PAUSE_S > deadline:
                    raise
            time.sleep(_PAUSE_S)


def _filled(call: str, structure: object, *, size: str, data: str) -> bytes:
    """The bytes that ``call`` says it has written into the array ``data`` of a structure.

    Raises:
        MalformedEvidence: ``TRUNCATED`` for none, ``TOO_LARGE`` for more than the array holds.
        NvmlFault: the structure has no such fields.
    """
    (count,) = integers(call, structure, (size,))
    held = bytes(getattr(structure, data, b""))
    if not 0 < count <= len(held):
        raise MalformedEvidence(
            Code.TRUNCATED if count <= 0 else Code.TOO_LARGE,
            "a size that cannot be",
            where=f"{call}.{size}",
            expected=f"1..{len(held)}",
            got=count,
        )
    return held[:count]
