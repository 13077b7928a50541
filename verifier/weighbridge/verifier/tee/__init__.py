"""Hardware reports of confidential virtual machines, verified: AMD SEV-SNP, Intel TDX, and the vTPM they vouch for.

Pure: bytes, times and anchors come in as arguments; nothing is fetched. :mod:`.snp` and :mod:`.tdx` each turn a signed
report into a :class:`VerifiedTee`, :mod:`.vtpm` takes Azure's report, which names a vTPM's attestation key, to the
hardware report that binds it, and :mod:`.crl` reads AMD's lists of revoked certificates. What Intel publishes is chosen
by :mod:`.dcap` and matched by :mod:`.qvl`, the one module that meets a foreign library.
"""

from __future__ import annotations

from weighbridge.verifier.tee.model import VerifiedTee

__all__ = ["VerifiedTee"]
