"""What most tests of TPM evidence start from."""

from __future__ import annotations

import pytest

from fakes.enrolled_tpm import EnrolledTpm, enrol


@pytest.fixture
def enrolled() -> EnrolledTpm:
    """An enrolled software TPM."""
    return enrol()
