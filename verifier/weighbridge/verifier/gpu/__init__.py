"""GPU evidence: from parsed reports and chains to verified ones.

:mod:`.chain` proves whose attestation key it is, :mod:`.report` what that key signed and for which nonce, :mod:`.set`
that exactly the enrolled devices answered, :mod:`.nonces` that a nonce is fit for a live session. Reference values and
revocation are not compared here.
"""

from __future__ import annotations

from weighbridge.verifier.gpu.chain import ChainCache, VerifiedGpuChain, check_architecture, verify_chain
from weighbridge.verifier.gpu.nonces import check_nonce
from weighbridge.verifier.gpu.report import VerifiedGpuReport, verify_report
from weighbridge.verifier.gpu.set import verify_gpus

__all__ = [
    "ChainCache",
    "VerifiedGpuChain",
    "VerifiedGpuReport",
    "check_architecture",
    "check_nonce",
    "verify_chain",
    "verify_gpus",
    "verify_report",
]
