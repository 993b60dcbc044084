"""Renyi divergences between normal laws that are rectified to, or truncated to, the same interval.

In units of the noise throughout. The interval is [0, width] seen from its low end; the laws are centred at `position`
(Q) and `position + shift` (P), anywhere on the line, `shift` of either sign. All results come from sums of positive
terms, so that they keep their digits where the two laws nearly agree and where the interval is far away.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from dpkit.numerics.exponential import exp_remainder
from dpkit.numerics.normal import shifted_normal_delta
from dpkit.numerics.restricted_normal import mean_decay, restricted_normal

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2
# Below this share of its largest terms a difference is integrated instead.
_CANCELS = 1e-2
# Exponents may change by so much within a panel of quadrature.
_PANEL_FALL, _MOST_PANELS = 10.0, 400


def truncated_renyi(orders: ArrayLike, position: float, shift: float, width: float) -> Array:
    """D_order(P||Q) of truncated laws, orders > 1 or inf, shaped like `orders`.

    The truncated laws are an exponential family in their location; A, the logarithm of its normalizer, has the
    family's mean and variance V as first two derivatives. With m = order c1 - (order - 1) c2 the divergence is
    (A(m) - order A(c1) + (order - 1) A(c2)) / (order - 1), which integrated by parts is the weighted sum of variances
    of `VarianceSums`.
    """
    orders = np.asarray(orders, dtype=np.float64)
    if shift < 0:
        position, shift = width - position, -shift
    return np.array([_one_truncated(a, position, shift, width) for a in orders.ravel().tolist()]).reshape(orders.shape)


def _one_truncated(order: float, position: float, shift: float, width: float) -> float:
    if shift == 0:
        return 0.0
    if math.isinf(order):
        return shift * mean_distance(position, shift, width)
    return max(shift * shift * VarianceSums(position, shift, order, width).weighted, 5e-324)


def mean_distance(position: float, shift: float, width: float) -> float:
    """Distance from the truncated mean to the interval's high end, averaged over locations from Q's to P's."""
    t, weights = _panels(position, shift, 0.0, 1.0, width)
    return float(restricted_normal(-(position + t * shift), width).from_high @ weights)


def truncated_crossing(epsilons: Array | float, position: ArrayLike, shift: ArrayLike, width: float) -> Array:
    """Where the loss crosses epsilon, as a distance from the low end; to about 1e-14 / shift. Arguments broadcast."""
    position, shift = np.asarray(position, dtype=np.float64), np.asarray(shift, dtype=np.float64)
    first, second = restricted_normal(-position - shift, width), restricted_normal(-position, width)
    # With both locations on one side of the interval the squares in the normalizers cancel exactly.
    one_side = (position >= width) | (position + shift <= 0)
    gap = np.where(one_side, first.log_extent - second.log_extent, first.log_mass - second.log_mass)
    base = np.where(one_side, np.where(position >= width, width, 0.0), position + shift / 2)
    return base + (epsilons + gap) / shift


def truncated_profile(
    epsilons: ArrayLike, crossing: ArrayLike, position: ArrayLike, shift: ArrayLike, width: float
) -> Array:
    """H_{e^epsilon}(P||Q) of truncated laws whose loss crosses epsilon at `crossing`; shift > 0; arguments broadcast.

    It is the P-mass above the crossing, with the point z beyond it weighted by 1 - e^{-shift z}. For a long shift the
    two masses are far apart and subtracted instead.
    """
    epsilons, crossing, position, shift = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (epsilons, crossing, position, shift))
    )
    inside = (crossing > 0) & (crossing < width)
    y = np.where(inside, crossing, width / 2)
    log_p, log_q = (_log_mass_above(y, at, width) for at in (position + shift, position))
    gain = np.where(
        shift <= 1,
        mean_decay(y - position - shift, width - y, np.minimum(shift, 1.0)),
        -np.expm1(np.minimum(epsilons + log_q - log_p, 0.0)),
    )
    below = np.where(crossing <= 0, -np.expm1(np.minimum(epsilons, 0.0)), 0.0)
    return np.where(inside, np.exp(log_p) * gain, below)


def _log_mass_above(y: Array, position: Array, width: float) -> Array:
    """Log of the truncated law's probability of [y, width]."""
    whole, part = restricted_normal(-position, width), restricted_normal(y - position, width - y)
    # The densities at the points nearest to the location: the part's is y, unless that lies below the location.
    step = np.where(position <= 0, y, np.maximum(y - position, 0.0))
    return part.log_extent - whole.log_extent - step * (part.peak + whole.peak) / 2


def mass_above(y: Array, position: Array, width: float) -> Array:
    """The truncated law's probability of [y, width], 0 <= y < width."""
    return np.exp(_log_mass_above(y, position, width))


def truncated_hockey_stick(epsilon: float, position: float, shift: float, width: float) -> float:
    """H_{e^epsilon}(P||Q) of truncated laws, to relative accuracy for any real epsilon and shift of either sign."""
    if shift < 0:
        position, shift = width - position, -shift
    if shift == 0:
        return -math.expm1(min(epsilon, 0.0))
    crossing = width - mean_distance(position, shift, width) + epsilon / shift
    return float(truncated_profile(epsilon, crossing, position, shift, width))


def rectified_hockey_stick(epsilon: float, position: float, shift: float, width: float) -> float:
    """H_{e^epsilon}(P||Q) of rectified laws, to relative accuracy for any real epsilon and shift of either sign."""
    if shift < 0:
        position, shift = width - position, -shift
    if shift == 0:
        return -math.expm1(min(epsilon, 0.0))
    crossing = position + shift / 2 + epsilon / shift
    if 0 < crossing < width:
        return shifted_normal_delta(shift, epsilon)
    if epsilon < -log_tail_ratio(-position - shift, shift):
        return -math.expm1(epsilon)
    # All that exceeds epsilon is the high end, or everything but the low end: P = e^loss Q there.
    beyond = position - width if crossing >= width else position
    loss = log_tail_ratio(beyond, shift)
    return math.exp(float(special.log_ndtr(beyond)) + loss) * -math.expm1(epsilon - loss) if loss > epsilon else 0.0


class VarianceSums:
    """Integrals of the truncated variance V over the locations position + t shift, 0 <= t <= order; shift > 0.

    `weighted` is the integral of V(t) min(t, (order - t)/(order - 1)): the divergence over shift^2. `slope` is the
    mean of V over 1 < t < order less that over 0 < t < 1: its derivative in the position, times shift.
    """

    def __init__(self, position: float, shift: float, order: float, width: float):
        before, before_weights = _panels(position, shift, 0.0, 1.0, width)
        after, after_weights = _panels(position, shift, 1.0, order, width)
        t = np.concatenate([before, after])
        variance = restricted_normal(-(position + t * shift), width).variance
        first = variance[: len(before)] * before_weights
        second = variance[len(before) :] * after_weights / (order - 1)
        self.weighted = float(first @ before + second @ (order - after))
        self.slope = float(second.sum() - first.sum())


def _panels(position: float, shift: float, first: float, last: float, width: float) -> tuple[Array, Array]:
    """Nodes and weights in t for functions of location that vary on the scale of the distance to the interval's ends.

    The normalizer's zeros in the complex plane lie a few units from the ends, so panels of length one there, doubling
    with the distance, leave the poles outside ellipses on which 16 nodes converge to rounding.
    """
    start, stop = position + first * shift, position + last * shift
    steps = np.exp2(np.arange(0, 2 + max(0.0, math.ceil(math.log2(1 + max(abs(start), abs(stop)) + width)))))
    marks = np.concatenate([[0.0, width], steps, -steps, width + steps, width - steps])
    marks = np.unique(marks[(marks > start) & (marks < stop)])
    edges = np.concatenate([[first], (marks - position) / shift, [last]])
    lengths = np.maximum(np.diff(edges), 0.0)
    return (edges[:-1, None] + lengths[:, None] * _NODES).ravel(), (lengths[:, None] * _WEIGHTS).ravel()


def rectified_renyi(orders: ArrayLike, position: float, shift: float, width: float) -> Array:
    """D_order(P||Q) of rectified laws, orders > 1 or inf, shaped like `orders`.

    Each of the three outcomes (low end, inside, high end) contributes E_Q[e^{tL}] restricted to it at t = order. Where
    their sum is close to one, (order - 1) D = log1p(sum of E_Q[e^{aL} - 1 - a (e^L - 1)]), none of which is negative.
    """
    orders = np.asarray(orders, dtype=np.float64)
    if shift < 0:
        position, shift = width - position, -shift
    return np.array([_one_rectified(a, position, shift, width) for a in orders.ravel().tolist()]).reshape(orders.shape)


def _one_rectified(order: float, position: float, shift: float, width: float) -> float:
    if shift == 0:
        return 0.0
    low, high = -position, position - width
    loss_low, loss_high = -log_tail_ratio(low - shift, shift), log_tail_ratio(high, shift)
    if math.isinf(order):
        return max(loss_high, 5e-324)
    inside = _Inside(position, shift, width)
    masses = float(special.log_ndtr(low)), float(special.log_ndtr(high))
    log_inside = float(inside.log_moment(np.array(order)))
    logs = [log_inside, masses[0] + order * loss_low, masses[1] + order * loss_high]
    log_total = float(special.logsumexp(logs))
    if log_total > 0.5:
        return log_total / (order - 1)
    excess = inside.excess(order) + _excess(order, masses[0], loss_low) + _excess(order, masses[1], loss_high)
    return max(math.log1p(excess) / (order - 1), 5e-324)


def log_tail_ratio(x: float, shift: float) -> float:
    """`log(Phi(x + shift) / Phi(x))` for shift > 0, to relative accuracy."""
    if shift <= 1:
        # Its derivative, the inverse Mills ratio, is smooth on this scale.
        mills = special.erfcx(-(x + shift * _NODES) / math.sqrt(2)) * math.sqrt(math.pi / 2)
        return float(shift * (_WEIGHTS @ (1 / mills)))
    if x + shift > 0:
        return float(special.log_ndtr(x + shift) - special.log_ndtr(x))
    mills = special.erfcx(np.array([-x - shift, -x]) / math.sqrt(2))
    return float(-shift * (x + shift / 2) + np.log(mills[0] / mills[1]))


def _excess(order: float, log_mass: float, loss: float) -> float:
    """Q (e^{order loss} - 1 - order (e^loss - 1)) for an outcome of Q-mass e^log_mass, where the first term is < 2."""
    if order * loss < 1:
        return math.exp(log_mass) * float(exp_remainder(order * loss) - order * exp_remainder(loss))
    grown = math.exp(log_mass + order * loss)
    return grown - order * math.exp(log_mass + loss) + (order - 1) * math.exp(log_mass)


class _Inside:
    """The outcomes strictly inside the interval: moments E_Q[e^{tL}; inside] of the loss there."""

    def __init__(self, position: float, shift: float, width: float):
        self.position, self.shift, self.width = position, shift, width

    def log_moment(self, t: Array) -> Array:
        """The moment is the mass of the interval under the location position + t shift, times e^{t(t-1) shift^2/2}.

        Where that location is outside, the large exponents cancel: then e^{tL} q at the nearer end takes their place.
        """
        return self._moments(t)[0]

    def _moments(self, t: Array) -> tuple[Array, Array]:
        """log E_Q[e^{tL}; inside] and E[L^2] under the law tilted by e^{tL}."""
        at = self.position + t * self.shift
        law = restricted_normal(-at, self.width)
        end = np.where(at > self.width / 2, self.width, 0.0) - self.position
        outside = t * self.shift * (end - self.shift / 2) - end * end / 2
        within = t * (t - 1) * self.shift**2 / 2
        log_moment = np.where(law.peak > 0, outside, within) - _HALF_LOG_TWO_PI + law.log_extent
        mean_loss = self.shift * (law.from_low - self.position - self.shift / 2)
        return log_moment, self.shift**2 * law.variance + mean_loss**2

    def excess(self, order: float) -> float:
        """E_Q[e^{aL} - 1 - a (e^L - 1); inside], a = order."""
        tilted, still, moved = np.exp(self.log_moment(np.array([order, 0.0, 1.0]))).tolist()
        direct = tilted + (order - 1) * still - order * moved
        if direct > _CANCELS * (tilted + (order - 1) * still + order * moved):
            return direct
        # The same as an integral of the moment's second derivative against the positive kernel of the difference.
        fall = self.shift * (10 + self.shift + min(abs(self.position), abs(self.position - self.width), 40.0))
        total = 0.0
        for first, last in ((0.0, 1.0), (1.0, order)):
            pieces = min(_MOST_PANELS, 1 + int(fall * (last - first) / _PANEL_FALL))
            edges = np.linspace(first, last, pieces + 1)
            t = (edges[:-1, None] + np.diff(edges)[:, None] * _NODES).ravel()
            weights = (np.diff(edges)[:, None] * _WEIGHTS).ravel()
            log_moment, square = self._moments(t)
            kernel = (order - 1) * t if last == 1.0 else order - t
            total += float((np.exp(log_moment) * square * kernel) @ weights)
        return total
