"""What verifiers may be unable to do: the words in a case's ``requires``, of which a driver says that it lacks one."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CAPABILITIES"]

CAPABILITIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "attester": "to judge a verifier's signed terms, as an attester does before it enrols (`terms`)",
        "baselines": "to compare telemetry with an owner's baselines (`baselines` of a `start`)",
        "boot-logs": "to judge what an enrolment shows of its host's boot",
        "confidential-machines": "to judge what an enrolment shows of SEV-SNP, TDX and virtual TPMs",
        "documents": "to read a file by its form (`read`)",
        "event-logs": "to judge a log of a boot by itself (`event-log`)",
        "gpu-reports": "to judge a GPU's report by itself (`gpu-report`)",
        "logs": "to watch a log, as a monitor does (`watch`)",
        "nras": "to judge answers of NVIDIA's attestation service (`nras`)",
        "owners-files": "to judge by owners' signed files, and to see that they are replaced (`owners` of a `start`)",
        "proof-bundles": "to judge a recorded session again from one file (`bundle`)",
        "published-collateral": "to judge by what makers published (`collateral` of a `start`)",
        "restarts": "to come up again over the state that an earlier `start` left",
        "result-tokens": "to judge a result token, as a relying party does (`token`)",
        "sessions": "to enrol hosts and to judge their windows (`open`, `prove`, `window`)",
        "spot-checks": "to ask for bytes of a model, from a pool of challenges (`spot-pool`)",
    }
)
"""Each with what a verifier that has it is able to do."""
