"""The result token of ``ear-04`` as a JWT: the names that most callers need of :mod:`weighbridge.verifier.result`."""

from __future__ import annotations

from weighbridge.verifier.result.claims import STATUSES, Claims, expiry
from weighbridge.verifier.result.issuing import issue
from weighbridge.verifier.result.serialisation import EAR_PROFILE
from weighbridge.verifier.result.verifying import ResultToken, verify

__all__ = ["EAR_PROFILE", "STATUSES", "Claims", "ResultToken", "expiry", "issue", "verify"]
