"""What ``weighbridge-attester doctor`` does: looks at a host's prerequisites and says what to do about each.

=================  ==================================================================================================
``catalogue``      every check, with its name and its reason
``running``        :func:`diagnose`: runs them, each within a time limit
``findings``       :class:`Finding` and :class:`Report`
``host``           :class:`Host`: everything that is asked, and that tests replace
``tpm``            the TPM, its clock and banks; ``tpm_keys``: certificates, attestation key
``boot``           logs, secure boot, lockdown, IMA
``gpu``            NVIDIA GPUs; ``nvml``: how NVML is asked
``machine``        the CPU's TEE, software, wall clock
``disk``           state directory, model's directory, verifier
``tpm_commands``   the few TPM commands that are sent
=================  ==================================================================================================

Nothing is changed: no key stays in the TPM, no PCR is extended, no mode is set.
"""

from weighbridge.attester.doctor.findings import Finding, Report, Status
from weighbridge.attester.doctor.host import Host
from weighbridge.attester.doctor.running import diagnose

__all__ = ["Finding", "Host", "Report", "Status", "diagnose"]
