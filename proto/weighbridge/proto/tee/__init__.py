"""What CPU hardware signs for a confidential virtual machine, and what a cloud's firmware wraps around it.

:mod:`.snp` parses AMD's SEV-SNP report, :mod:`.chip_certificate` the certificate of the chip's key that signed it,
:mod:`.td_quote` Intel's quote of a TDX machine, :mod:`.hcl` the report of Azure's paravisor, which names the keys of
its TPM. Nothing here is verified: that is the verifier's ``tee`` package.
"""

from __future__ import annotations

from weighbridge.proto.tee.chip_certificate import ChipCertificate
from weighbridge.proto.tee.hcl import HclReport
from weighbridge.proto.tee.snp import SnpReport, Tcb, TcbLayout
from weighbridge.proto.tee.td_quote import TdQuote

__all__ = ["ChipCertificate", "HclReport", "SnpReport", "Tcb", "TcbLayout", "TdQuote"]
