"""Moments of a likelihood ratio after Poisson sampling, from those before, at integer orders."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

# Rounding of the binomial coefficients up to order 1024, and more.
_OUTWARD = 1e-11


def sampled_log_moments(log_moments: ArrayLike, probability: float) -> Array:
    """log E[(1 - q + q r)^n] for n = 0, ..., N from `log_moments` = log E[r^n], of which the first two are 0 (N + 1,).

    (1 - q + q r)^n is a binomial sum; because its coefficients add up to 1, E = 1 + sum over k >= 2 of
    C(n, k) q^k (1-q)^(n-k) (E[r^k] - 1), which has no cancellation. Rounded up.

    >>> float(sampled_log_moments([0.0, 0.0, 1.0], 0.5)[2]) - math.log1p(math.expm1(1.0) / 4) < 1e-10
    True
    """
    log_moments = np.asarray(log_moments, dtype=np.float64)
    if probability == 0:
        return np.zeros(len(log_moments))
    if probability == 1:
        return log_moments
    n = np.arange(len(log_moments))
    k = n[2:]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        log_binomial = special.gammaln(n[:, None] + 1) - special.gammaln(k + 1) - special.gammaln(n[:, None] - k + 1)
        weights = log_binomial + k * math.log(probability) + (n[:, None] - k) * math.log1p(-probability)
        # log(e^m - 1); gammaln is inf where k > n, and such a term counts for nothing.
        rise = log_moments[2:] + np.log(-np.expm1(-log_moments[2:]))
        exponents = np.where(k <= n[:, None], weights + rise, -math.inf)
    total = special.logsumexp(exponents, axis=1) if len(k) else np.full(len(n), -math.inf)
    return np.where(n < 2, 0.0, np.logaddexp(0.0, total)) * (1 + _OUTWARD)


def interpolated_divergence(orders: ArrayLike, log_moments: Array) -> Array:
    """D_order <= chord / (order - 1): the logarithm of a moment is convex in its order, and 0 at 1.

    Args:
        orders: > 1, shaped anyhow.
        log_moments: upper bounds on (n - 1) D_n for n = 0, ..., N; those of 0 and 1 are 0.

    Returns:
        Upper bounds shaped like `orders`; `inf` beyond N.
    """
    orders = np.asarray(orders, dtype=np.float64)
    inside = orders <= len(log_moments) - 1
    finite = np.where(inside, orders, 1.0)
    low, high = np.floor(finite).astype(int), np.ceil(finite).astype(int)
    share = finite - low
    with np.errstate(invalid="ignore"):
        chord = np.where(share > 0, (1 - share) * log_moments[low] + share * log_moments[high], log_moments[low])
    return np.where(inside, chord / np.where(inside, orders - 1, 1.0), math.inf)
