"""GPU evidence: from parsed reports and chains to verified ones.

:mod:`.chain` proves whose attestation key it is, :mod:`.report` what that key signed and for which nonce, :mod:`.set`
that exactly the enrolled devices answered, :mod:`.topology` that those of a host in protected-PCIe mode are all there,
:mod:`.nonces` that a nonce is fit for a live session. Devices are GPUs, and where a caller says so NVSwitches.
Reference values and revocation are not compared in these.
"""

from __future__ import annotations

from weighbridge.verifier.gpu.chain import (
    GPUS,
    GPUS_AND_SWITCHES,
    ChainCache,
    Kind,
    VerifiedGpuChain,
    check_architecture,
    verify_chain,
)
from weighbridge.verifier.gpu.nonces import check_nonce
from weighbridge.verifier.gpu.report import (
    GpuFinding,
    SignedMode,
    VerifiedGpuReport,
    verify_recorded_report,
    verify_report,
)
from weighbridge.verifier.gpu.set import verify_gpus
from weighbridge.verifier.gpu.topology import Topology, check_topology

__all__ = [
    "GPUS",
    "GPUS_AND_SWITCHES",
    "ChainCache",
    "GpuFinding",
    "Kind",
    "SignedMode",
    "Topology",
    "VerifiedGpuChain",
    "VerifiedGpuReport",
    "check_architecture",
    "check_nonce",
    "check_topology",
    "verify_chain",
    "verify_gpus",
    "verify_recorded_report",
    "verify_report",
]
