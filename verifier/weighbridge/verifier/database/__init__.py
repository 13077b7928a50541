"""The databases in which the verifier's state may lie: a file of SQLite, or PostgreSQL for many replicas.

One set of tables (:mod:`.tables`) and of statements serves both. What differs is here: how a transaction begins so that
no two of them write at once, what a foreign error means, and how tables go from one version to the next.
"""

from weighbridge.verifier.database.address import Address, PostgresAddress, SqliteAddress
from weighbridge.verifier.database.conflict import Conflict
from weighbridge.verifier.database.interface import Database
from weighbridge.verifier.database.opening import database_at

__all__ = ["Address", "Conflict", "Database", "PostgresAddress", "SqliteAddress", "database_at"]
