"""Result tokens: what is said of an affirmed, fresh window, in three serialisations, and what is taken for one.

A token is only ever made for an affirmed, fresh window; it expires by itself soon after the windows stop
(``docs/protocol.md`` §8). It says what was appraised and names the ledger leaf that commits to the whole record.

:mod:`.claims` has what a token says and how long it lives, :mod:`.serialisation` the one table of what each
serialisation calls it, :mod:`.tree` both put together; :mod:`.issuing` signs and :mod:`.verifying` verifies.
"""

from __future__ import annotations

from weighbridge.verifier.result.claims import STATUSES, Claims, expiry
from weighbridge.verifier.result.issuing import issue, issue_as
from weighbridge.verifier.result.serialisation import EAR_PROFILE, Serialisation
from weighbridge.verifier.result.verifying import ResultToken, verify, verify_any

__all__ = [
    "EAR_PROFILE",
    "STATUSES",
    "Claims",
    "ResultToken",
    "Serialisation",
    "expiry",
    "issue",
    "issue_as",
    "verify",
    "verify_any",
]
