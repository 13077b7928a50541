"""Spot checks: on the host, remembering where models lie and answering from their bytes; for owners, making pools."""

from __future__ import annotations

from weighbridge.attester.spot.directories import ModelDirectories
from weighbridge.attester.spot.pool import make_pool
from weighbridge.attester.spot.reader import SpotReader, read_answer

__all__ = ["ModelDirectories", "SpotReader", "make_pool", "read_answer"]
