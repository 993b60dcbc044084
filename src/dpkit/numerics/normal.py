"""Normal tail differences and the exact trade-off of two shifted normals, to relative accuracy."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_SQRT_TWO_PI = math.sqrt(2 * math.pi)
# Below this width quadrature of the density is more accurate than a difference of distribution functions.
_NARROW = 0.1


def normal_interval(low: ArrayLike, width: float) -> Array:
    """`Phi(low + width) - Phi(low)` for `width >= 0`, without cancellation.

    >>> float(normal_interval(0.0, 1e-9)) / 1e-9 * math.sqrt(2 * math.pi)
    1.0
    """
    low = np.asarray(low, dtype=np.float64)
    high = low + width
    if width < _NARROW:
        # exp(-(m+t)^2/2) = exp(-m^2/2) exp(-t (m + t/2)); beyond |m| = 40 the density is zero in float64.
        middle = np.clip(low + width / 2, -40.0, 40.0)
        offsets = width / 2 * _NODES
        ratio = np.exp(-offsets * (middle[..., None] + offsets / 2)) @ _WEIGHTS
        return np.exp(-(middle**2) / 2) / _SQRT_TWO_PI * ratio * (width / 2)
    # Take both tails on the lighter side.
    flip = low > 0
    return special.ndtr(np.where(flip, -low, high)) - special.ndtr(np.where(flip, -high, low))


def shifted_normal_delta(mu: float, epsilon: float) -> float:
    """`H_{e^epsilon}(N(mu,1) || N(0,1))`, to relative accuracy for any real epsilon.

    `Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)`, evaluated through Mills ratios where the two terms
    nearly agree (Balle and Wang 2018, Theorem 8).

    >>> round(shifted_normal_delta(1.0, 1.0), 12)
    0.126936737507
    """
    if mu == 0:
        return max(0.0, -math.expm1(epsilon)) if epsilon < 0 else 0.0
    u = epsilon / mu - mu / 2
    if epsilon < 0:
        # P - e^eps Q = (1 - e^eps) + e^eps (Q - e^-eps P): no cancellation on this side either.
        return -math.expm1(epsilon) + math.exp(epsilon) * shifted_normal_delta(mu, -epsilon)
    log_density = -u * u / 2 - math.log(_SQRT_TWO_PI)
    density = math.exp(log_density) if log_density > -745 else 0.0
    if u < -1:
        # Both terms are of order one and far apart; the second one is phi(u) R(u + mu), R the Mills ratio.
        return float(special.ndtr(-u)) - density * _mills(u + mu)
    return density * _mills_difference(u, mu) if density else 0.0


def _mills(x: float) -> float:
    """(1 - Phi(x)) / phi(x)."""
    return math.sqrt(math.pi / 2) * float(special.erfcx(x / math.sqrt(2)))


def _mills_difference(u: float, mu: float) -> float:
    """`R(u) - R(u + mu)` with R the Mills ratio, for u >= -1 and mu > 0."""
    if mu > 0.5 * (1 + abs(u)):
        return _mills(u) - _mills(u + mu)
    # R(x) is the integral of e^{-x t - t^2/2} over t > 0; in the difference every factor stays positive.
    scale = 1 / (1 + max(u, 0.0))
    t, weights = _half_line_nodes()
    t = t * scale
    values = np.exp(-u * t - t * t / 2) * -np.expm1(-mu * t)
    return float(values @ weights) * scale


def _half_line_nodes() -> tuple[Array, Array]:
    """Double-exponential nodes for integrals over (0, inf) of functions that decay like e^-t."""
    s = np.arange(-5.5, 4.0, 1 / 32)
    t = np.exp(s - np.exp(-s))
    return t, t * (1 + np.exp(-s)) / 32
