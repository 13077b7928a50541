"""Whether a symmetric matrix of whole numbers measures distances: positive definite, by the standard library alone."""

from __future__ import annotations

import math

__all__ = ["is_positive_definite"]


def is_positive_definite(triangle: tuple[int, ...], size: int) -> bool:
    """Whether it is, of the upper triangle, row by row: ``size * (size + 1) / 2`` numbers.

    By Cholesky's decomposition in doubles, with a margin far above their rounding and below any fit's shrinkage.
    """
    rows: list[list[float]] = []
    position = 0
    full = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i, size):
            full[j][i] = float(triangle[position])
            position += 1
    for i in range(size):
        row: list[float] = []
        for j in range(i):
            row.append((full[i][j] - math.fsum(a * b for a, b in zip(row, rows[j], strict=False))) / rows[j][j])
        rest = full[i][i] - math.fsum(a * a for a in row)
        if rest <= full[i][i] * 1e-12 or rest <= 0:
            return False
        rows.append([*row, math.sqrt(rest)])
    return True
