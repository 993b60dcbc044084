"""Sums of geometric sequences and their derivatives: cost independent of the number of terms, stable for ratios near 1.

The ratio is given by its complement u = 1 - ratio in [0, 1], because a float next to 1 cannot say how far it is from 1.
A product of sequences with complements u and v is one with complement u + v - u v (`product_complement`), so sums of
products need nothing else.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Where terms * u < 1 the direct formulas cancel; there the j-th term of the series in u is below 1 / j!.
_SERIES_TERMS = 20
# Keeps the logarithm of a ratio of 0 finite; every power of e^-700 but the zeroth is as good as 0.
_LEAST_LOG = -700.0


def product_complement(first: ArrayLike, second: ArrayLike) -> Array:
    """1 - (1 - first)(1 - second), without cancellation."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return first + second * (1 - first)


def geometric_sum(terms: ArrayLike, complement: ArrayLike) -> tuple[Array, Array]:
    """`sum_{t < terms} (1 - u)^t` and its derivative in u, each to relative accuracy.

    Args:
        terms: number of terms, an integer >= 0 (as a float it may exceed 2^63); broadcasts.
        complement: u in [0, 1]; broadcasts.

    >>> value, slope = geometric_sum(4, 0.5)
    >>> float(value), float(slope)
    (1.875, -2.75)
    """
    n, u = np.broadcast_arrays(np.asarray(terms, dtype=np.float64), np.asarray(complement, dtype=np.float64))
    near_one = n * u < 1
    direct = np.where(near_one, 1.0, u)
    with np.errstate(divide="ignore"):
        log_ratio = np.maximum(np.log1p(-direct), _LEAST_LOG)
    value = -np.expm1(n * log_ratio) / direct
    slope = -(value - n * np.exp((n - 1) * log_ratio)) / direct
    small = np.where(near_one, u, 0.0)
    value = np.where(near_one, n * _hypergeometric(1 - n, 1, 2, small), value)
    slope_series = -(n - 1) * n / 2 * _hypergeometric(2 - n, 2, 3, small)
    return value, np.where(near_one, slope_series, slope)


def _hypergeometric(a: Array, b: int, c: int, u: Array) -> Array:
    """2F1(a, b; c; u) for -1 < a u <= 0: with a = -m, the binomial series of the sum above."""
    value = np.ones(u.shape)
    for j in range(_SERIES_TERMS - 1, -1, -1):
        value = 1 + (a + j) * (b + j) / ((c + j) * (1 + j)) * u * value
    return value
