"""What a host's driver says of confidential computing: NVML's ``nvmlSystemGetConfComputeState`` and ``…Settings``.

It is the host's word. No byte that a GPU signs says that confidential computing is on, so this can refuse (off,
development tools) and never admit.

CDDL::

    cc-state = [environment: 0..255, feature: "on" / "off", dev-tools: bool,
                multi-gpu: "none" / "protected_pcie" / "nvle"]

>>> CcState(environment=2, feature="on", dev_tools=False, multi_gpu="none").to_cbor()
[2, 'on', False, 'none']
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self, cast, get_args

from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["ENVIRONMENT_MAX", "ENVIRONMENT_PRODUCTION", "ENVIRONMENT_SIMULATION", "CcFeature", "CcState", "MultiGpu"]

CcFeature = Literal["on", "off"]
MultiGpu = Literal["none", "protected_pcie", "nvle"]

# nvml.h, NVML_CC_SYSTEM_ENVIRONMENT_*; 0 is "unavailable".
ENVIRONMENT_SIMULATION: Final = 1
ENVIRONMENT_PRODUCTION: Final = 2
ENVIRONMENT_MAX: Final = 255
_FIELDS: Final = 4
_FEATURES: Final = frozenset(get_args(CcFeature))
_MODES: Final = frozenset(get_args(MultiGpu))


@dataclass(frozen=True, slots=True, kw_only=True)
class CcState:
    """One answer. Not checked: that anything of it is true.

    ``environment`` is NVML's number, unknown ones included; ``feature`` is its ``ccFeature``; ``dev_tools`` says that
    the GPUs' memory can be looked into; ``multi_gpu`` is how GPUs talk to each other: not at all, through switches over
    protected PCIe, or over encrypted NVLink.
    """

    environment: int
    feature: CcFeature
    dev_tools: bool
    multi_gpu: MultiGpu

    def to_cbor(self) -> list[cbor.CborValue]:
        """The claim: ``[environment, feature, dev tools, multi-GPU mode]``."""
        return [self.environment, self.feature, self.dev_tools, self.multi_gpu]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self:
        """Read :meth:`to_cbor`.

        Raises:
            MalformedEvidence: ``FIELD_TYPE``, ``FIELD_RANGE`` or ``TOO_LARGE`` for anything that :meth:`to_cbor` would
                not have written.
        """
        fields = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=_FIELDS, size=_FIELDS))), where)
        return cls(
            environment=fields.integer(0, low=0, high=ENVIRONMENT_MAX),
            feature=cast("CcFeature", _one_of(fields, 1, _FEATURES)),
            dev_tools=fields.boolean(2),
            multi_gpu=cast("MultiGpu", _one_of(fields, 3, _MODES)),
        )


def _one_of(fields: cbor.Reader, key: int, known: frozenset[str]) -> str:
    text = fields.text(key, limit=max(map(len, known)))
    if text not in known:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "unknown value", where=fields.path(key), expected=", ".join(sorted(known)), got=text
        )
    return text
