"""The covariance of few samples of many features, shrunk towards a sphere (Ledoit and Wolf 2004).

With as many features as samples an ordinary covariance cannot be inverted; this one can, and how much it is shrunk
follows from the samples alone. Agrees with scikit-learn's ``ledoit_wolf`` (a test compares them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["ledoit_wolf"]


def ledoit_wolf(samples: Floats) -> tuple[Floats, float]:
    """The shrunk covariance of ``samples`` (one a row), and how far it was shrunk: 0 not at all, 1 to a sphere.

    Ledoit and Wolf, *A well-conditioned estimator for large-dimensional covariance matrices*, J. Multivariate Analysis
    88 (2004), Lemma 3.2 to 3.4. The mean is taken out first.

    Raises:
        ValueError: for fewer than two samples.
    """
    count, width = samples.shape
    if count < 2:  # noqa: PLR2004 - one sample has no spread
        raise ValueError("a covariance takes two samples or more")
    centred = samples - samples.mean(axis=0)
    covariance = centred.T @ centred / count
    sphere = float(np.trace(covariance)) / width
    # d²: how far the sample covariance is from the sphere; b²: how much of that is the samples' own scatter.
    distance = float((covariance**2).sum()) / width - sphere**2
    squares = centred**2
    scatter = (float((squares.T @ squares).sum()) / count - float((covariance**2).sum())) / (count * width)
    shrinkage = min(1.0, max(0.0, scatter / distance)) if distance > 0 else 1.0
    shrunk = (1 - shrinkage) * covariance
    shrunk[np.diag_indices(width)] += shrinkage * sphere
    return shrunk, shrinkage
