"""What was proven and judged is not changed afterwards: its classes are frozen, and take no more than their fields."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import is_dataclass
from typing import Final

import pytest

# Where a wrong bit admits somebody.
MODULES: Final = (
    "acceptance", "appraisal", "challenge", "enrolment", "gpu.chain", "gpu.report", "gpu_appraisal", "hearing",
    "host_appraisal", "invariants", "judging", "kept_position", "procedure", "session", "standing", "tpm.ak",
    "tpm.ak_certificate", "tpm.certify", "tpm.continuity", "tpm.credential", "tpm.ek", "tpm.provenance", "tpm.quote",
    "weights",
)  # fmt: skip
# What each stage of judging adds to, before there is a judgement.
UNDER_WAY: Final = "Hearing"


@pytest.mark.parametrize("name", MODULES)
def test_what_a_deciding_module_defines_stays_as_it_was_made(name: str) -> None:
    module = importlib.import_module(f"weighbridge.verifier.{name}")
    own = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    for kind in filter(is_dataclass, own):
        frozen = getattr(kind, "__dataclass_params__").frozen  # noqa: B009 - no name that dataclasses export
        assert frozen != (kind.__name__ == UNDER_WAY), kind
        assert "__slots__" in vars(kind), kind
