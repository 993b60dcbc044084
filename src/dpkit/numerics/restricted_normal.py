"""The standard normal law restricted to an interval: mass, mean and variance to relative accuracy, at any distance."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2
# Where the density has fallen by e^-45 from its largest value, the rest of the interval no longer counts.
_TWICE_FALL = 90.0


class RestrictedNormal(NamedTuple):
    """N(0, 1) given that it lies in [low, low + width]; arrays shaped like `low`.

    Args:
        log_extent: log of the interval's mass over the largest density in it.
        peak: distance from 0 to the point of that density.
        from_low: mean, less the interval's low end.
        from_high: the interval's high end, less the mean.
        variance: of the restricted law.
    """

    log_extent: Array
    peak: Array
    from_low: Array
    from_high: Array
    variance: Array

    @property
    def log_mass(self) -> Array:
        """Log of the probability of the interval."""
        return np.minimum(self.log_extent - self.peak * self.peak / 2 - _HALF_LOG_TWO_PI, 0.0)


def restricted_normal(low: ArrayLike, width: ArrayLike) -> RestrictedNormal:
    """Moments of N(0, 1) restricted to [low, low + width], `width` > 0, to about 1e-13 relative.

    Sums of positive terms only: Gauss-Legendre on the part of the interval that matters, from its heavier end. There
    the exponent falls by at most 45, or the density is a whole normal one; 48 nodes integrate either to rounding.

    >>> law = restricted_normal(1e6, 1.0)
    >>> float(law.from_low), float(law.variance)
    (1e-06, 1e-12)
    """
    width = np.asarray(width, dtype=np.float64)
    y, weights, log_extent, peak, flip = _nodes(low, width)
    mean = (weights * y).sum(axis=-1)
    variance = (weights * (y - mean[..., None]) ** 2).sum(axis=-1)
    near, far = mean, width - mean
    return RestrictedNormal(log_extent, peak, np.where(flip, far, near), np.where(flip, near, far), variance)


def mean_decay(low: ArrayLike, width: ArrayLike, rate: ArrayLike) -> Array:
    """`E[1 - e^{-rate (X - low)}]` of the restricted law, 0 <= rate <= 1, to relative accuracy."""
    width = np.asarray(width, dtype=np.float64)
    y, weights, _, _, flip = _nodes(low, width)
    distance = np.where(flip[..., None], np.maximum(width[..., None] - y, 0.0), y)
    return (weights * -np.expm1(-np.asarray(rate)[..., None] * distance)).sum(axis=-1)


def mean_excess(low: Array, width: Array, rate: float) -> Array:
    """Mean of X - low under the restricted law reweighted by 1 - e^{-rate (X - low)}."""
    y, weights, log_extent, peak, flip = _nodes(low, width)
    distance = np.where(flip[..., None], np.maximum(width[..., None] - y, 0.0), y)
    if rate <= 1:
        weights = weights * -np.expm1(-rate * distance)
        return (weights * distance).sum(axis=-1) / weights.sum(axis=-1)
    # e^{-rate (X - low)} turns the law into the one restricted to [low + rate, low + rate + width].
    moved = restricted_normal(low + rate, width)
    exponent = (low + rate - moved.peak) * (low + rate + moved.peak) - (low - peak) * (low + peak)
    share = np.exp(moved.log_extent - log_extent + exponent / 2)
    return ((weights * distance).sum(axis=-1) - share * moved.from_low) / (1 - share)


def _nodes(low: ArrayLike, width: Array) -> tuple[Array, Array, Array, Array, NDArray[np.bool_]]:
    """Distances from the heavier end and their probabilities (..., 48), log extent, peak, whether that end is high."""
    low = np.asarray(low, dtype=np.float64)
    # Reflected so that the interval's middle is not negative, its low end is the one with the higher density.
    flip = low + width / 2 < 0
    near = np.where(flip, -(low + width), low)
    reach = math.sqrt(_TWICE_FALL)
    start = np.maximum(near, -reach)
    peak = np.maximum(start, 0.0)
    # y (2 start + y) = 90 beyond a peak at the start, or a distance of sqrt(90) beyond a peak at 0.
    tail = np.where(start > 0, _TWICE_FALL / (peak + np.sqrt(peak * peak + _TWICE_FALL)), reach - start)
    length = np.minimum(tail, width)
    y = length[..., None] * _NODES
    x = start[..., None] + y
    weights = np.exp(np.where(start[..., None] > 0, y * (x + start[..., None]), x * x) / -2) * _WEIGHTS
    total = weights.sum(axis=-1)
    return y + (start - near)[..., None], weights / total[..., None], np.log(total * length), peak, flip


def log_normal_interval(low: ArrayLike, width: ArrayLike) -> Array:
    """`log(Phi(low + width) - Phi(low))`, to relative accuracy of the probability, where that underflows too.

    >>> float(log_normal_interval(50.0, 1.0))
    -1254.8314
    """
    return restricted_normal(low, width).log_mass
