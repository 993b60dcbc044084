"""Dominating pairs of integer noise: a symmetric law on the integers, and the same law moved."""

import abc
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from dpkit.mechanisms.pair import Array, DominatingPair
from dpkit.numerics.gaussian_mixture import moment_excess
from dpkit.numerics.lattice_weights import RANGE
from dpkit.numerics.logspace import log_sum_exp

# Laws whose losses have more values are given to accountants as if they were continuous, which is never wrong.
_MOST_ATOMS = 4096
# Renyi divergences are rounded up by this much, and certified where what is not summed is a smaller part of a moment.
_OUTWARD, _LOG_NEGLIGIBLE = 1e-11, math.log(1e-13)


class IntegerLaw(abc.ABC):
    """A symmetric law on the integers. Implementations are frozen values.

    Its curvature 2 log f(k) - log f(k-1) - log f(k+1) must be positive and must not increase with |k|.
    """

    @abc.abstractmethod
    def weights(self) -> list[int]:
        """Weights of 0, 1, ..., as in `dpkit.numerics.lattice_weights`."""


@dataclasses.dataclass(frozen=True)
class LatticePair(DominatingPair):
    """X + shift against X for X of `law`, its own reverse; `shift` >= 1.

    The loss log f(y - shift) / f(y) increases with the outcome y because log f is concave. For the same reason shifts
    of a given sign increase in the likelihood-ratio order, so that this pair dominates every shift of at most `shift`
    in size (the other sign is a reflection).

    Values that the law takes with relative probability below 2^-1019 are not resolved: what P has of them, and of
    outcomes that Q takes with such a probability, counts as giving P away (`infinite_mass`).
    """

    law: IntegerLaw
    shift: int

    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        p, q, _ = self._table.above
        index, at_infinity = self._index(loss)
        return np.where(at_infinity, 0.0, p[index]), q[index]

    def advantage(self, loss: ArrayLike) -> Array:
        index, at_infinity = self._index(loss)
        return np.where(at_infinity, 0.0, self._table.above[2][index])

    def delta(self, epsilon: float) -> float:
        if math.isinf(epsilon):
            return 0.0 if epsilon > 0 else 1.0
        table = self._table
        first = int(np.searchsorted(table.losses, epsilon, side="right"))
        gains = table.present[first:] * -np.expm1(epsilon - table.losses[first:])
        return float(gains.sum()) + self.infinite_mass

    @property
    def loss_range(self) -> tuple[float, float]:
        return -math.inf, math.inf

    @property
    def atoms(self) -> tuple[float, ...]:
        losses = self._table.losses
        return tuple(losses.tolist()) if len(losses) <= _MOST_ATOMS else ()

    @property
    def infinite_mass(self) -> float:
        return float(self._table.above[0][-1])

    def _index(self, loss: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        loss = np.asarray(loss, dtype=np.float64)
        return np.searchsorted(self._table.losses, loss, side="right"), np.isposinf(loss)

    @property
    def _table(self) -> "_Table":
        return _tabulate(self.law, self.shift)


@dataclasses.dataclass(frozen=True)
class _Table:
    """Of the outcomes y = shift - K, ..., K, K the largest value of the law that is resolved (n,).

    `losses` ascend; `present` are the probabilities under P; `above` are P[Y >= y], Q[Y >= y] and their difference, one
    entry more than there are outcomes.
    """

    losses: Array
    present: Array
    above: tuple[Array, Array, Array]


def overlaps(law: IntegerLaw, shift: int) -> bool:
    """Whether the law and the law moved by `shift` have resolved outcomes in common."""
    return shift < len(_weights(law))


@functools.lru_cache(maxsize=32)
def _weights(law: IntegerLaw) -> list[int]:
    return law.weights()


@functools.lru_cache(maxsize=32)
def _tabulate(law: IntegerLaw, shift: int) -> _Table:
    weights = _weights(law)
    largest = len(weights) - 1
    both = weights[:0:-1] + weights
    # Beyond the table each weight is smaller than the last by at least the last ratio: log f is concave.
    rest = weights[-1] ** 2 // (weights[-2] - weights[-1]) + 1
    total = sum(both) + 2 * rest
    tails = list(itertools.accumulate(reversed(both), initial=0))[::-1]
    # tails[i] belongs to the outcome i - largest without the unit, and to that plus `shift` with it.
    absent, present = tails[shift:], tails[: len(tails) - shift]
    above = (
        np.array([(p + rest) / total for p in present]),
        np.array([q / total for q in absent]),
        np.array([(p + rest - q) / total for p, q in zip(present, absent, strict=True)]),
    )
    losses = np.array([_log_ratio(p, q) for p, q in zip(both[: len(both) - shift], both[shift:], strict=True)])
    assert len(losses) == 2 * largest + 1 - shift
    return _Table(losses, np.array([p / total for p in both[: len(both) - shift]]), above)


def _log_ratio(p: int, q: int) -> float:
    return math.log1p((p - q) / q) if p >= q else -math.log1p((q - p) / p)


def lattice_renyi(law: IntegerLaw, shift: int, orders: Array, sampling_probability: float = 1.0) -> Array:
    """D_order((1-q) Q + q P || Q) for P and Q of `LatticePair`; `inf` where that cannot be certified.

    A sum over the resolved outcomes. Past the last one, K, the terms are at most f(y - shift)^a f(y)^(1-a), a the
    order, and with g(k) = log f(k+1) - log f(k) the logarithm of that changes from y to y + 1 by
    g(y - shift) + (a-1) (g(y - shift) - g(y)), where g falls and its fall slows down: a geometric series bounds the
    rest, which is added. Before the first one P is the less likely and there is less than f of everything.

    Args:
        orders: > 1, or inf (n,).
        sampling_probability: q in (0, 1].

    Returns:
        Upper bounds within 1e-11 relative (n,).
    """
    if not overlaps(law, shift):
        return np.full(len(orders), math.inf)
    table = _tabulate(law, shift)
    # Moved to the right, the law is the mirror image of itself in place.
    log_q, losses = np.log(table.present[::-1]), table.losses
    rise, last = _rise(law, shift), (float(log_q[-1]), float(losses[-1]))
    if sampling_probability < 1:
        losses = np.log1p(sampling_probability * np.expm1(losses))
    result = np.full(len(orders), math.inf)
    for i, order in enumerate(orders.tolist()):
        if math.isinf(order) or not (growth := math.exp(min(rise(order), 1.0))) < 1:
            continue
        terms = log_q + order * losses
        log_moment, log_rest = log_sum_exp(terms), last[0] + order * last[1] + math.log(growth / (1 - growth))
        if log_rest > log_moment + _LOG_NEGLIGIBLE:
            continue
        if log_moment < 1:
            rest = math.exp(max(log_rest, -700.0)) + 2 * RANGE
            log_moment = math.log1p(float(moment_excess(log_q, losses, order).sum()) + rest)
        else:
            log_moment += math.exp(_LOG_NEGLIGIBLE)
        result[i] = log_moment / (order - 1) * (1 + _OUTWARD)
    return result


def _rise(law: IntegerLaw, shift: int) -> Callable[[float], float]:
    """By how much, at most, the logarithms of terms past the last resolved outcome grow per outcome, by the order."""
    weights = _weights(law)
    k = len(weights) - 1 - shift
    if k < 1:
        return lambda _: math.inf
    step = -_log_ratio(weights[k], weights[k + 1])
    curvature = _log_ratio(weights[k], weights[k + 1]) - _log_ratio(weights[k - 1], weights[k])
    return lambda order: step + (order - 1) * shift * (curvature + 1e-15 * abs(step))
