"""A turn's heart: it beats while the turn is on, and touches nothing that belongs to somebody else behind it."""

from __future__ import annotations

from unittest import mock

import psycopg
import sqlalchemy as sa

from weighbridge.verifier.database.turn import Turn


def test_a_beat_that_comes_after_the_end_leaves_the_connection_alone() -> None:
    connection, raw = mock.MagicMock(spec=sa.Connection), mock.MagicMock(spec=psycopg.Connection)
    connection.invalidated = raw.closed = False
    connection.in_transaction.return_value = False
    # The heart has read which turn is on.
    turn = Turn(connection, raw, where="db")
    turn.beat()
    raw.execute.assert_called_once_with("SELECT 1")
    turn.end(7)
    raw.reset_mock()
    # By now the pool may have given the connection to another transaction.
    turn.beat()
    assert raw.mock_calls == []
