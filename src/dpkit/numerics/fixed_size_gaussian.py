"""Renyi divergences of Gaussian noise on a sample of fixed size, one unit of which is replaced."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.numerics.gaussian_mixture import moment_excess
from dpkit.numerics.logspace import log_sum_exp

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
# Half the width of a panel, the end of the integrand beyond its last peak, and the most panels that are worth it.
_HALF, _REACH, _MOST_PANELS = 0.25, 40.0, 20_000
# Moments beyond e^_LARGE are summed as logarithms.
_LARGE = 600.0


def fixed_size_gaussian_renyi(orders: ArrayLike, mu: float, ratio: float) -> Array:
    """D_order of the pair whose profile is H((1-w)N(0,1) + wN(mu,1) || N(0,1)) from 1 on, and its own reverse.

    With r = 1 + w(e^(mu x - mu^2/2) - 1) the pair has likelihood ratio r at density phi(x) and 1/r at density r phi(x)
    under Q, x > mu/2, and 1 elsewhere. So E_Q of f(t) = t^a - 1 - a(t - 1) >= 0 is an integral of
    phi (f(r) + r f(1/r)).

    Orders of which the integral would be too long, and order inf, give inf. Shaped like `orders`; mu > 0 and
    0 < ratio < 1.
    """
    orders = np.asarray(orders, dtype=np.float64)
    return np.array([_divergence(float(order), mu, ratio) for order in orders.flat]).reshape(orders.shape)


def _divergence(order: float, mu: float, ratio: float) -> float:
    # The ratio is analytic within pi/mu of the real line.
    half = _HALF * min(1.0, 1 / mu)
    start, end = mu / 2, mu / 2 + order * mu + _REACH
    if not (end - start) / (2 * half) <= _MOST_PANELS:
        return math.inf
    panels = math.ceil((end - start) / (2 * half))
    half = (end - start) / (2 * panels)
    centres = start + half * (2 * np.arange(panels) + 1)
    x = (centres[:, None] + half * _NODES).ravel()
    log_weight = np.tile(np.log(half * _WEIGHTS), panels) - x**2 / 2 - math.log(2 * math.pi) / 2
    exponent = mu * (x - mu / 2)
    loss = np.logaddexp(math.log1p(-ratio), math.log(ratio) + exponent)
    # log r to relative accuracy where r is close to 1.
    near = exponent < 1
    loss[near] = np.log1p(ratio * np.expm1(exponent[near]))
    highest = log_weight + order * loss
    if highest.max() > _LARGE:
        # f(r) <= r^a and r f(1/r) <= a r.
        return log_sum_exp(np.logaddexp(highest, log_weight + math.log(order) + loss)) / (order - 1)
    excess = moment_excess(log_weight, loss, order) + moment_excess(log_weight + loss, -loss, order)
    return math.log1p(math.fsum(excess)) / (order - 1)
