"""The worst two locations of normal laws truncated to the same interval.

In units of the noise; locations are positions relative to the low end of the interval [0, width]. Every result is an
upper bound over all pairs of locations within `reach` that are at most `shift` apart, in either order.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.numerics.bounded_gaussian import (
    VarianceSums,
    mass_above,
    mean_distance,
    truncated_crossing,
    truncated_profile,
)
from dpkit.numerics.restricted_normal import mean_excess, restricted_normal

Array = NDArray[np.float64]
Reach = tuple[float, float]

EVERYWHERE: Reach = (-math.inf, math.inf)
# Half the length, in shifts, of the first interval about a stationary point; how much longer each next one is.
_FIRST_LENGTH, _LONGER = 1e-6, 8.0
# A difference of mean variances, relative to the largest one, whose sign is certain.
_CERTAIN = 1e-12
_BISECTIONS = 60
# A cell of positions is settled once its bound exceeds the best value found by no more than this, relatively.
_SETTLED = 1e-5
# Or once it is so narrow, in shifts, that its bound may as well count.
_NARROWEST = 1e-7
_FIRST_CELLS, _SMALLEST = 32, 1e-300


def largest_variance(width: float) -> float:
    """The variance of the law centred in the interval: no other location has a larger one (see `worst_renyi`)."""
    return float(restricted_normal(-width / 2, width).variance)


def worst_renyi(orders: ArrayLike, shift: float, width: float, reach: Reach = EVERYWHERE) -> Array:
    """Largest Renyi divergence for orders > 1 or inf, shaped like `orders`, to about 1e-9 relative.

    From a fixed location the divergence grows with the distance of the other one, so only pairs `shift` apart (or as
    far as `reach` allows) count. Theirs is shift^2 times an integral of the truncated variance V against a triangle of
    locations (`VarianceSums`).

    V falls away from the middle. Measured from there, let the interval be [-r, r], the location c >= 0 and f the
    density, with mean m: 0 <= m <= c. Then f(m + t) - f(m - t) has one change of sign, at t = r - m: before it the log
    of the ratio is 2 t (c - m) >= 0, beyond it f(m + t) = 0. Its first moment over t > 0 is 0, so its third, the third
    cumulant dV/dc, is not positive.

    So the triangle's best position reaches across the middle, and the divergence is unimodal in the position, because
    V is unimodal and triangles are log-concave (Ibragimov 1956). The stationary position is bisected, an interval
    around it is certified by the sign of the derivative at its ends, and a bound on the second derivative says by how
    much the maximum within can exceed the value found.
    """
    orders = np.asarray(orders, dtype=np.float64)
    shift = min(shift, reach[1] - reach[0])
    if shift <= 0:
        return np.zeros(orders.shape)
    worst = [max(_renyi(order, shift, width, way) for way in _ways(width, reach)) for order in orders.ravel().tolist()]
    return np.array(worst).reshape(orders.shape)


def _ways(width: float, reach: Reach) -> set[Reach]:
    """`reach` as it is and seen from the interval's other end, so that P may be taken to the right of Q."""
    return {reach, (width - reach[1], width - reach[0])}


def _renyi(order: float, shift: float, width: float, reach: Reach) -> float:
    if math.isinf(order):
        # The largest loss is that of the high end; it grows towards the left, to shift * width.
        return shift * (width if math.isinf(reach[0]) else mean_distance(reach[0], shift, width))
    ceiling = order * largest_variance(width) / 2
    middle = width / 2
    low = min(max(middle - order * shift, reach[0]), reach[1] - shift)
    high = max(min(middle, reach[1] - shift), reach[0])
    at = _stationary(order, shift, width, low, high)
    found = VarianceSums(at, shift, order, width)
    curvature = largest_variance(width) * order / (order - 1)
    length = _FIRST_LENGTH * shift * math.sqrt(min(1.0, order - 1))
    while True:
        # No location within `length` exceeds the value found by more than its slope and curvature allow.
        uphill = min(length, high - at if found.slope > 0 else at - low)
        bound = found.weighted + uphill / shift * abs(found.slope) + curvature * (length / shift) ** 2 / 2
        if bound >= ceiling or _brackets(at, length, order, shift, width, low, high):
            return max(shift * shift * min(bound if low < high else found.weighted, ceiling), 5e-324)
        length *= _LONGER


def _stationary(order: float, shift: float, width: float, low: float, high: float) -> float:
    """About where the mean variance beyond P equals that between Q and P, within [low, high]."""
    for _ in range(_BISECTIONS):
        at = (low + high) / 2
        places = np.array([at, at + shift, at + order * shift])
        # Integrals of the variance are differences of means; a mean is its location less the distance to an end.
        means = restricted_normal(-places, width).from_low
        before, beyond = np.diff(means)
        if beyond > before * (order - 1):
            low = at
        else:
            high = at
    return (low + high) / 2


def _brackets(at: float, length: float, order: float, shift: float, width: float, low: float, high: float) -> bool:
    """Whether the divergence certainly rises before and falls after the interval `length` about `at`."""
    certain = _CERTAIN * largest_variance(width)

    def slope(position: float) -> float:
        return VarianceSums(position, shift, order, width).slope

    rises = at - length <= low or slope(at - length) > certain
    return rises and (at + length >= high or slope(at + length) < -certain)


def worst_profile(epsilons: ArrayLike, shift: float, width: float, reach: Reach = EVERYWHERE) -> Array:
    """Largest hockey-stick divergence for epsilons >= 0 (k,), to 1e-5 relative (and 1e-300 absolute).

    The family has monotone likelihood ratios: an event {output > y} gains P-mass when P moves up and Q-mass when Q
    does, so that again only pairs `shift` apart count. Cells of positions are bounded (`_bound`) and halved until none
    can matter.
    """
    epsilons = np.asarray(epsilons, dtype=np.float64)
    shift = min(shift, reach[1] - reach[0])
    if shift <= 0:
        return np.zeros(epsilons.shape)
    return np.max([_search(epsilons, shift, width, way) for way in _ways(width, reach)], axis=0)


def _search(epsilons: Array, shift: float, width: float, reach: Reach) -> Array:
    """Branch and bound over the position of Q, P being `shift` to its right, for every epsilon at once."""
    start = np.clip((width - shift) / 2, reach[0], reach[1] - shift)
    crossing = truncated_crossing(epsilons, start, shift, width)
    best = np.maximum(truncated_profile(epsilons, crossing, start, shift, width), _SMALLEST)
    # Beyond these positions the divergence is below what was just found. Total variation is at most shift/2 times
    # the standard deviation, which is at most the mean distance 1/u to the nearer end, u the distance outside; right
    # of the interval no loss exceeds shift/u; left of it the output exceeds epsilon/shift with probability below
    # e^{-u epsilon/shift}, u the distance of P.
    with np.errstate(divide="ignore", over="ignore"):
        far, per_loss = shift / (2 * best), shift / epsilons
        low = np.maximum(-shift - np.minimum(far, -np.log(best) * per_loss), reach[0])
    high = np.maximum(np.minimum(width + np.minimum(far, per_loss), reach[1] - shift), low)
    which = np.repeat(np.arange(len(epsilons)), _FIRST_CELLS)
    edges = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, _FIRST_CELLS + 1)
    left, right = edges[:, :-1].ravel(), edges[:, 1:].ravel()
    settled = best.copy()
    while len(which):
        value, bound = _bound(epsilons[which], left, right, shift, width)
        np.maximum.at(best, which, value)
        matters = bound > best[which] * (1 + _SETTLED)
        tiny = right - left < _NARROWEST * shift
        np.maximum.at(settled, which[matters & tiny], bound[matters & tiny])
        kept = matters & ~tiny
        which = np.repeat(which[kept], 2)
        left, middle, right = left[kept], (left[kept] + right[kept]) / 2, right[kept]
        left, right = np.column_stack([left, middle]).ravel(), np.column_stack([middle, right]).ravel()
    return np.maximum(settled, best) * (1 + _SETTLED)


def _bound(epsilons: Array, left: Array, right: Array, shift: float, width: float) -> tuple[Array, Array]:
    """Hockey-stick divergence with Q at `left`, and a bound on it with Q anywhere in [left, right].

    With h the density of what P has more than e^epsilon Q above the crossing y, the divergence H = int h changes with
    the position at the rate H (mean of h - mean of Q) - (mean of P - mean of Q) P[above y]. The means and y grow with
    the position, the mean of h with y too (monotone likelihood ratios), and the distance between the means is the
    integral of a variance that falls away from the middle.
    """
    length = right - left
    first, last = (truncated_crossing(epsilons, at, shift, width) for at in (left, right))
    value = truncated_profile(epsilons, first, left, shift, width)
    inside = last < width
    y = np.where(inside, np.maximum(last, 0.0), 0.0)
    ends = [restricted_normal(-at, width) for at in (left, left + shift, right, right + shift)]
    excess = np.where(inside, y + mean_excess(y - right - shift, width - y, shift), width) - ends[0].from_low
    apart = np.maximum(ends[1].from_low - ends[2].from_low, shift * np.minimum(ends[0].variance, ends[3].variance))
    above = np.where(inside, mass_above(y, left + shift, width), 0.0)
    with np.errstate(over="ignore"):
        rate = value * np.exp(excess * length) * excess - apart * above
    return value, value + np.maximum(rate, 0.0) * length
