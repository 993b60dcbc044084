"""Sums of probabilities held as logarithms."""

import math

import numpy as np
from numpy.typing import NDArray


def log_sum_exp(logs: NDArray[np.float64]) -> float:
    """`log(sum(exp(logs)))` of a one-dimensional array, without SciPy's cost for general shapes.

    >>> round(log_sum_exp(np.array([1000.0, 1000.0])), 9)
    1000.693147181
    """
    top = float(logs.max(initial=-math.inf))
    if not math.isfinite(top):
        return top
    return top + math.log(float(np.exp(logs - top).sum()))
