"""The tables of the verifier's durable state. :mod:`.store` says what they mean, and is the only one to use them.

The same on SQLite and PostgreSQL. Whoever changes them adds a step (:mod:`.versions`).
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

__all__ = [
    "SCHEMA_VERSION",
    "about",
    "challenges",
    "clearances",
    "counters",
    "endings",
    "fingerprints",
    "memory",
    "metadata",
    "origins",
    "owners",
    "pasts",
    "positions",
    "progress",
    "results",
    "session_gpus",
    "sessions",
    "shares",
    "spots",
    "subjects",
    "upkeep",
    "windows",
]

SCHEMA_VERSION: Final = 12

metadata: Final = sa.MetaData()

_DIGEST: Final = 32
_SESSION: Final = 16
# Given out by the database, ascending, of 64 bits: SQLite does so for this one type, PostgreSQL for any integer.
_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _octets(name: str, size: int, *, primary_key: bool = False, nullable: bool = True) -> sa.Column[bytes]:
    """A byte string of exactly ``size`` bytes: no database minds another length, we do."""
    exact = sa.CheckConstraint(f"length({name}) = {size}")
    return sa.Column(name, sa.LargeBinary(size), exact, primary_key=primary_key, nullable=nullable and not primary_key)


# One row, made with the tables: of which version they are, and whose.
about: Final = sa.Table(
    "about",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    # The ledger's name and key, as they are spelled: of whichever verifier was the first to open them.
    sa.Column("ledger", sa.String),
)

# One row, made with the tables: how many of the ledger's entries all else here knows of, entries behind that may be
# known as well; and the ledger's tree as it was then, by which one that was put back to an earlier state is found out.
progress: Final = sa.Table(
    "progress",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
    sa.Column("settled", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    _octets("root", _DIGEST, nullable=False),
)

# What outlives its sessions: an attestation key or a GPU. A failure sticks to it until somebody clears it.
subjects: Final = sa.Table(
    "subjects",
    metadata,
    sa.Column("kind", sa.String(8), sa.CheckConstraint("kind IN ('ak', 'gpu')"), primary_key=True),
    _octets("identity", _DIGEST, primary_key=True),
    sa.Column("failed_code", sa.String(64)),
    sa.Column("failed_ns", sa.BigInteger),
    _octets("failed_session", _SESSION),
    # Attestation keys only: the head of the chain of windows, and how far the measurement log was ledgered in a boot.
    _octets("head", _DIGEST),
    sa.Column("reset_count", sa.BigInteger),
    sa.Column("log_length", sa.BigInteger),
    _octets("log_head", _DIGEST),
    sa.CheckConstraint("(failed_code IS NULL) = (failed_ns IS NULL)"),
    sa.CheckConstraint("(log_length IS NULL) = (log_head IS NULL) AND (log_length IS NULL) = (reset_count IS NULL)"),
)

# Every failure that somebody cleared, and why. Rows are added, never changed.
clearances: Final = sa.Table(
    "clearances",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    _octets("identity", _DIGEST, nullable=False),
    sa.Column("failed_code", sa.String(64), nullable=False),
    sa.Column("failed_ns", sa.BigInteger, nullable=False),
    sa.Column("cleared_ns", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.ForeignKeyConstraint(["kind", "identity"], ["subjects.kind", "subjects.identity"]),
)

_LIVE: Final = "state NOT IN ('closed', 'failed', 'interrupted')"

sessions: Final = sa.Table(
    "sessions",
    metadata,
    _octets("id", _SESSION, primary_key=True),
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    # Always 'ak': half of the key to subjects.
    sa.Column("ak_kind", sa.String(8), sa.CheckConstraint("ak_kind = 'ak'"), nullable=False),
    _octets("ak", _DIGEST, nullable=False),
    sa.Column("opened_ns", sa.BigInteger, nullable=False),
    sa.Column("enrolment_index", sa.BigInteger, nullable=False, unique=True),
    # What the next window has to carry.
    sa.Column("next_seq", sa.BigInteger, nullable=False),
    _octets("prev", _DIGEST, nullable=False),
    sa.ForeignKeyConstraint(["ak_kind", "ak"], ["subjects.kind", "subjects.identity"]),
    # One live session per attestation key: its chain of windows has one head.
    sa.Index("one_live_session", "ak", unique=True, sqlite_where=sa.text(_LIVE), postgresql_where=sa.text(_LIVE)),
)

session_gpus: Final = sa.Table(
    "session_gpus",
    metadata,
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), primary_key=True),
    sa.Column("kind", sa.String(8), sa.CheckConstraint("kind = 'gpu'"), primary_key=True),
    sa.Column("identity", sa.LargeBinary(_DIGEST), primary_key=True),
    sa.ForeignKeyConstraint(["kind", "identity"], ["subjects.kind", "subjects.identity"]),
)

# Of sessions that ended long ago the last one is left.
windows: Final = sa.Table(
    "windows",
    metadata,
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    # H_k
    _octets("digest", _DIGEST, nullable=False),
    # Evidence and record are found through the leaf at this index, which names both.
    sa.Column("ledger_index", sa.BigInteger, nullable=False, unique=True),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("received_ns", sa.BigInteger, nullable=False),
)

# When sessions ended whose windows and challenges are still here: the row goes with the last of them (endings.py).
endings: Final = sa.Table(
    "endings",
    metadata,
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), primary_key=True),
    # Of those that had ended before version 12, when their last window was received, or they were opened.
    sa.Column("ended_ns", sa.BigInteger, nullable=False),
    sa.Index("endings_by_time", "ended_ns"),
)

# One row, made with the first removal: when whoever shares this store may take away some more.
upkeep: Final = sa.Table(
    "upkeep",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
    sa.Column("again_ns", sa.BigInteger, nullable=False),
)

# What relying parties may know of a session (standing.py): what its last affirmed, fresh window came to, or why its
# gate is shut since. No row before the first fresh window.
results: Final = sa.Table(
    "results",
    metadata,
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), primary_key=True),
    sa.Column("affirmed_seq", sa.BigInteger),
    # CBOR (affirmed.py): a token can be made of it anew.
    sa.Column("affirmed", sa.LargeBinary),
    sa.Column("shut_code", sa.String(64)),
    sa.Column("shut_reason", sa.String),
    sa.Column("shut_seq", sa.BigInteger),
    # One or the other: what is shut has nothing left of which a token could be made.
    sa.CheckConstraint("(affirmed IS NULL) = (affirmed_seq IS NULL) AND (shut_code IS NULL) = (shut_reason IS NULL)"),
    sa.CheckConstraint("(affirmed IS NULL) != (shut_code IS NULL)"),
)

# Where the chain of each session stood lately, for those who restore it (kept_position.py). No row is missed: without
# one, a session is replayed whole.
positions: Final = sa.Table(
    "positions",
    metadata,
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), primary_key=True),
    # SHA-256 of the content, against damage.
    _octets("digest", _DIGEST, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

# Every challenge that was issued in a session, with what it hashes. It serves one window because it names one ``seq``
# and a window of one number is recorded once; the last one issued is the outstanding one. Of sessions that ended long
# ago that one is left, with those that a spot challenge names.
challenges: Final = sa.Table(
    "challenges",
    metadata,
    _octets("digest", _DIGEST, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    _octets("ledger_root", _DIGEST, nullable=False),
    _octets("random", _DIGEST, nullable=False),
    sa.Column("issued_ns", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("session", "number"),
)

# Spot challenges with their answers, imported from their owners' pools: secret until they are spent. One is spent by
# leaving with the freshness challenge ``issued``, which says in which session, for which window and when; it is never
# given back.
_LEFT: Final = "issued IS NULL"
spots: Final = sa.Table(
    "spots",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True),
    sa.Column("id", sa.LargeBinary(_SESSION), sa.CheckConstraint("length(id) = 16"), nullable=False, unique=True),
    _octets("manifest", _DIGEST, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("challenge", sa.LargeBinary, nullable=False),
    _octets("mac", _DIGEST, nullable=False),
    sa.Column("issued", sa.LargeBinary(_DIGEST), sa.ForeignKey("challenges.digest"), unique=True),
    # When it left first: it may leave again, with a later one. Of those that were spent before version 11 nobody knows.
    sa.Column("asked_ns", sa.BigInteger),
    sa.Index("spots_left", "manifest", "number", sqlite_where=sa.text(_LEFT), postgresql_where=sa.text(_LEFT)),
)

# The newest set or policy that was ever taken of each line: of an owner's models, of one class of an owner's hosts, of
# an owner's baselines, of an author's policy for a tenant. An older one is not taken any more.
_PURPOSES: Final = "purpose IN ('model-owner', 'host-owner', 'baseline-owner', 'policy-author')"
owners: Final = sa.Table(
    "owners",
    metadata,
    sa.Column("purpose", sa.String(16), sa.CheckConstraint(_PURPOSES), primary_key=True),
    sa.Column("owner", sa.String, primary_key=True),
    # Of the class of hosts, of the baselines, or of the policy; empty for models.
    sa.Column("name", sa.String, primary_key=True),
    # For whose sessions a policy is; empty for every tenant's, and for all else.
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    # SHA-256 of the signed set.
    _octets("digest", _DIGEST, nullable=False),
    # Of baselines: the set from which this one may not be far, the first of the line or the last accepted drift.
    _octets("origin", _DIGEST),
    sa.Column("seen_ns", sa.BigInteger, nullable=False),
)

# The energy counter of each GPU as it was read last, in whatever session.
counters: Final = sa.Table(
    "counters",
    metadata,
    _octets("device", _DIGEST, primary_key=True),
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("wall_ns", sa.BigInteger, nullable=False),
    sa.Column("energy_mj", sa.BigInteger, nullable=False),
)

# What the record of each GPU has come to by each profile that it was judged by, over its sessions (telemetry/past.py).
pasts: Final = sa.Table(
    "pasts",
    metadata,
    _octets("device", _DIGEST, primary_key=True),
    _octets("profile", _DIGEST, primary_key=True),
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("evidence", sa.LargeBinary, nullable=False),
    # "row" is a word of SQL.
    sa.Column("in_row", sa.BigInteger, nullable=False),
    sa.Column("lapses", sa.BigInteger, nullable=False),
    sa.Column("remains_ns", sa.BigInteger, nullable=False),
    sa.Column("drawn_uj", sa.BigInteger, nullable=False),
    sa.Column("explained_uj", sa.BigInteger, nullable=False),
)

# Whose samples, in which session: named by each of their fingerprints.
origins: Final = sa.Table(
    "origins",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True),
    sa.Column("session", sa.LargeBinary(_SESSION), sa.ForeignKey("sessions.id"), nullable=False),
    _octets("device", _DIGEST, nullable=False),
    sa.UniqueConstraint("session", "device"),
    sa.Index("origins_of", "device"),
)

# Where each stretch of samples was seen first. Numbers ascend; rows are removed when there are more than the verifier
# is told to keep (fingerprint_memory.py).
fingerprints: Final = sa.Table(
    "fingerprints",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False, unique=True),
    sa.Column("origin", _NUMBER, sa.ForeignKey("origins.number"), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Index("fingerprints_of", "origin"),
)

# How many fingerprints there are: one row, made with the first.
memory: Final = sa.Table(
    "memory",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
    sa.Column("kept", sa.BigInteger, nullable=False),
)

# How many of them are each GPU's, and how many more it may have as of a time: millionths.
shares: Final = sa.Table(
    "shares",
    metadata,
    _octets("device", _DIGEST, primary_key=True),
    sa.Column("kept", sa.BigInteger, nullable=False),
    sa.Column("credit", sa.BigInteger, nullable=False),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Index("shares_by_size", "kept"),
)
