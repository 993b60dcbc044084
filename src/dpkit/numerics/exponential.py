"""Exponential functions that keep relative accuracy where their naive form cancels."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_COEFFICIENTS = np.array([1 / math.factorial(k) for k in range(17, 1, -1)])


def exp_remainder(x: ArrayLike) -> Array:
    """`e^x - 1 - x >= 0`, to relative accuracy.

    >>> f"{float(exp_remainder(1e-8)):.12e}"
    '5.000000016667e-17'
    """
    x = np.asarray(x, dtype=np.float64)
    small = np.abs(x) < 0.5
    series = np.polyval(_COEFFICIENTS, np.where(small, x, 0.0)) * x**2
    return np.where(small, series, np.expm1(x) - x)
