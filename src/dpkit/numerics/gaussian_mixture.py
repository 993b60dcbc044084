"""Renyi divergences between a location mixture of normals and the centred normal."""

import math
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from dpkit.numerics.exponential import exp_remainder
from dpkit.numerics.logspace import log_sum_exp

Array = NDArray[np.float64]

# The trapezoid rule below is accurate to about 1e-14; bounds are rounded up by this much.
_OUTWARD = 1e-11
_MAX_NODES = 2**18
# Orders integrated on the same nodes.
_SHARING = 8


def log_likelihood_ratio(x: ArrayLike, locations: Array, log_weights: Array) -> Array:
    """`log(dP/dQ)(x)` for P = sum_j w_j N(c_j, 1), Q = N(0, 1); `locations` (m,), shaped like `x`."""
    x = np.asarray(x, dtype=np.float64)[..., None]
    exponents = locations * x - locations * locations / 2
    large = cast(Array, special.logsumexp(exponents + log_weights, axis=-1))
    with np.errstate(over="ignore"):
        total = (np.exp(log_weights) * np.expm1(exponents)).sum(axis=-1)
    # log1p keeps the digits of a ratio near one; logsumexp serves everywhere else.
    return np.where(np.abs(total) < 0.5, np.log1p(np.clip(total, -0.5, 0.5)), large)


def log_likelihood_ratio_and_slope(x: Array, locations: Array, log_weights: Array) -> tuple[Array, Array]:
    """`log(dP/dQ)` at each x (n,), and its derivative, the mean location given x; see `log_likelihood_ratio`."""
    exponents = x[:, None] * locations - locations * locations / 2
    weighted = exponents + log_weights
    top = weighted.max(axis=1)
    parts = np.exp(weighted - top[:, None])
    total = parts.sum(axis=1)
    with np.errstate(over="ignore"):
        excess = (np.exp(log_weights) * np.expm1(np.minimum(exponents, 1.0))).sum(axis=1)
    near = (np.abs(excess) < 0.5) & (exponents.max(axis=1) < 1.0)
    log_ratio = np.where(near, np.log1p(np.clip(excess, -0.5, 0.5)), top + np.log(total))
    return log_ratio, (parts * locations).sum(axis=1) / total


def mixture_renyi(orders: ArrayLike, sigma: float, locations: ArrayLike, weights: ArrayLike, *, reverse: bool) -> Array:
    """Upper bound on D_order(P||Q), or on D_order(Q||P) with `reverse`, within 1e-11 relative of the exact value.

    P = sum_j w_j N(c_j, sigma^2) with 0 <= c_j, Q = N(0, sigma^2). With r = dP/dQ the divergence is
    `log E_Q[r^a] / (order - 1)`, a = order (a = 1 - order reversed). The integrand is analytic in the strip
    |Im x| < pi sigma^2 / max c and decays like a normal density, so the trapezoid rule converges exponentially
    (Trefethen and Weideman 2014, Theorem 5.1); the step keeps its error below 1e-15.

    Args:
        orders: real orders > 1, or inf (k,).
        sigma: standard deviation, in the units of `locations`.
        locations: component means (m,), >= 0.
        weights: component probabilities (m,), summing to 1.

    Returns:
        Divergences (k,); `inf` where they are infinite or overflow.
    """
    orders = np.atleast_1d(np.asarray(orders, dtype=np.float64))
    with np.errstate(divide="ignore", over="ignore"):
        scaled = np.asarray(locations, dtype=np.float64) / sigma
        log_weights = np.log(np.asarray(weights, dtype=np.float64))
    return _divergences(orders, scaled, log_weights, reverse) * (1 + _OUTWARD)


def _divergences(orders: Array, locations: Array, log_weights: Array, reverse: bool) -> Array:
    largest = float(locations.max())
    still = float(np.exp(log_weights[locations == 0]).sum())
    step = min(1 / 8, 1 / (4 * largest)) if largest > 0 else 1 / 8
    # Quasi-convexity: never more than the worst component alone, which is close wherever it is needed.
    with np.errstate(over="ignore"):
        result = orders * largest * largest / 2
        within = orders * largest <= _MAX_NODES * step
    result[np.isinf(orders)] = -math.log(still) if reverse and still else math.inf
    # Orders of like size share their nodes, and with them the likelihood ratio.
    for some in np.array_split(np.flatnonzero(within), max(1, -(-int(within.sum()) // _SHARING))):
        if len(some):
            result[some] = _integrated(orders[some], locations, log_weights, reverse, step)
    return result


def _integrated(orders: Array, locations: Array, log_weights: Array, reverse: bool, step: float) -> Array:
    """The divergences by the trapezoid rule, from nodes that reach as far as the largest of the orders needs."""
    largest = float(orders.max())
    if reverse:
        # 1/r grows off the real line, by cos(theta/2)^-order at Im x = theta / max c: a strip of 1/sqrt(order) is safe.
        step /= max(1.0, math.sqrt(largest) / 2)
    reach = largest * float(locations.max())
    low, high = (-12 - reach, 12.0) if reverse else (-12.0, 12 + reach)
    x = np.arange(math.floor(low / step), math.ceil(high / step) + 1) * step
    powers = (1 - orders if reverse else orders)[:, None]
    log_ratio = log_likelihood_ratio(x, locations, log_weights)
    log_density = -(x**2) / 2 + math.log(step / math.sqrt(2 * math.pi))
    exponents = log_density + powers * log_ratio
    tops = exponents.max(axis=1)
    log_moments = tops + np.log(np.exp(exponents - tops[:, None]).sum(axis=1))
    small = log_moments < 1
    if small.any():
        log_moments[small] = np.log1p(moment_excess(log_density, log_ratio, powers[small]).sum(axis=1))
    return log_moments / (orders - 1)


def replaced_sample_renyi(orders: ArrayLike, mu: float, q: float) -> Array:
    """Upper bound on D_order of (1-q) N(0,1) + q N(mu,1) from (1-q) N(0,1) + q N(-mu,1), within 1e-11 relative.

    With r(x) = 1 - q + q e^{mu x - mu^2/2} it is `log E[r(x)^order r(-x)^(1-order)] / (order - 1)`, x standard normal,
    by the trapezoid rule. On Im x = theta / mu the integrand exceeds the real one by at most cos(theta/2)^-order, so a
    step of 1 / (4 mu sqrt(order)) leaves an error below e^-40.

    Args:
        orders: real orders > 1, or inf (k,).
        mu: distance of the centres from 0, > 0.
        q: in (0, 1).

    Returns:
        Divergences (k,); `inf` at the order inf.
    """
    orders = np.atleast_1d(np.asarray(orders, dtype=np.float64))
    return np.array([_replaced_sample_divergence(float(order), mu, q) for order in orders]) * (1 + _OUTWARD)


def _replaced_sample_divergence(order: float, mu: float, q: float) -> float:
    # Joint quasi-convexity: never more than without sampling.
    unsampled = 2 * order * mu * mu
    step = min(1 / 8, 1 / (4 * mu)) / max(1.0, math.sqrt(order))
    if math.isinf(order) or 3 * order * mu > 4 * _MAX_NODES * step:
        return unsampled
    x = np.arange(math.floor((-12 - order * mu) / step), math.ceil((12 + 2 * order * mu) / step) + 1) * step
    above, below = (np.logaddexp(math.log1p(-q), math.log(q) + sign * mu * x - mu * mu / 2) for sign in (1, -1))
    log_density = below - x**2 / 2 + math.log(step / math.sqrt(2 * math.pi))
    log_moment = log_sum_exp(log_density + order * (above - below))
    if log_moment < 1:
        near = np.abs(above - below) < 0.5
        # log(r(x)/r(-x)) through the difference of the two, which keeps its digits where they nearly agree.
        growth = q * math.exp(-mu * mu / 2) * 2 * np.sinh(np.where(near, mu * x, 0.0))
        log_ratio = np.where(near, np.log1p(growth / np.exp(np.where(near, below, 0.0))), above - below)
        log_moment = math.log1p(float(moment_excess(log_density, log_ratio, order).sum()))
    return min(log_moment / (order - 1), unsampled)


def moment_excess(log_density: Array, log_ratio: Array, power: ArrayLike) -> Array:
    """Terms of E[r^a] - 1 = E[r^a - 1 - a (r - 1)], all non-negative, because E[r] = 1."""
    power = np.asarray(power)
    near = np.abs(power * log_ratio) < 0.5
    close = np.where(near, log_ratio, 0.0)
    small = np.exp(log_density) * (exp_remainder(power * close) - power * exp_remainder(close))
    # Far from r = 1 the density joins the exponent, because r^a alone may overflow.
    density = np.exp(log_density)
    large = np.exp(log_density + power * log_ratio) - density - power * (np.exp(log_density + log_ratio) - density)
    return np.maximum(np.where(near, small, large), 0.0)
