"""The append-only ledger on disk: its writer, its reader and its auditor.

The writer (:mod:`.log`) and the auditor (:mod:`.audit`) share nothing but the encodings in ``weighbridge.proto``.
"""

from __future__ import annotations

from weighbridge.verifier.ledger.audit import AuditReport, audit
from weighbridge.verifier.ledger.content import Content, ContentStore
from weighbridge.verifier.ledger.log import Appended, Ledger
from weighbridge.verifier.ledger.reader import LedgerReader

__all__ = ["Appended", "AuditReport", "Content", "ContentStore", "Ledger", "LedgerReader", "audit"]
