"""The most distinguishable two of many discrete laws, by branch and bound.

Every divergence here is a sum over outcomes of a function of (P, Q) that is jointly convex and homogeneous of degree
one and vanishes where P = Q, such as (P - e^x Q)+ and P^a Q^(1-a) - a P + (a-1) Q. Over a box of (P, Q) such a
function is largest at one of the two corners where P and Q are furthest apart: so the largest and smallest probability
of each outcome over two groups of laws bound the divergence of every pair of one law from each group. Groups are the
nodes of two binary trees over the laws in their order; pairs of nodes whose bound is below a pair already known are
left alone. The result is the maximum over all pairs, to rounding, whatever was left alone.

Laws are held as logarithms relative to a reference law, so that laws that differ little keep the digits of their
difference.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.numerics.exponential import exp_remainder

Array = NDArray[Any]

RENYI, HOCKEY_STICK = 0, 1
# Pairs this much closer than the best one known are taken for equal: mirror images need not be looked at twice.
_EQUAL = 4e-15
# Terms below e^_NEGLIGIBLE are counted at that size instead of being computed.
_NEGLIGIBLE = -120.0
_FACTORIALS = 1 / np.array([float(math.factorial(k)) for k in range(2, 18)])

_compiled = numba.njit(cache=True, nogil=True)


@dataclasses.dataclass(frozen=True)
class Tree:
    """Laws in the leaves of a binary tree, each node with the least and greatest logarithms below it.

    `low` and `high` (nodes, outcomes); `children` (nodes, 2), negative in a leaf; `size` (nodes,) counts leaves. Node 0
    is the root.
    """

    low: Array
    high: Array
    children: Array
    size: Array

    @classmethod
    def over(cls, log_ratios: Array) -> "Tree":
        """The tree over laws (laws, outcomes)."""
        laws, outcomes = log_ratios.shape
        low, high = np.empty((2 * laws - 1, outcomes)), np.empty((2 * laws - 1, outcomes))
        children, size = np.full((2 * laws - 1, 2), -1), np.empty(2 * laws - 1, np.int64)
        free = 1
        pending = [(0, 0, laws)]
        visited = []
        while pending:
            node, first, last = pending.pop()
            visited.append(node)
            size[node] = last - first
            if last - first == 1:
                low[node] = high[node] = log_ratios[first]
                continue
            middle = (first + last) // 2
            children[node] = free, free + 1
            pending += [(free, first, middle), (free + 1, middle, last)]
            free += 2
        for node in reversed(visited):
            if size[node] > 1:
                left, right = children[node]
                np.minimum(low[left], low[right], out=low[node])
                np.maximum(high[left], high[right], out=high[node])
        return cls(low, high, children, size)

    def arrays(self, probabilities: Array) -> tuple[Array, Array, Array, Array, Array]:
        return self.low, self.high, self.children, self.size, probabilities


@dataclasses.dataclass(frozen=True)
class Contest:
    """Laws of the first world and of the second, as logarithms relative to a law whose logarithms are given."""

    log_reference: Array
    firsts: Tree
    seconds: Tree

    @classmethod
    def between(cls, log_reference: Array, firsts: Array, seconds: Array) -> "Contest":
        """Of laws (laws, outcomes) relative to a reference (outcomes,)."""
        return cls(log_reference, Tree.over(firsts), Tree.over(seconds))

    def worst(self, kind: int, parameter: float, floor: float) -> tuple[float, tuple[int, int] | None]:
        """The largest divergence of a first law from a second one, and its leaves; (floor, None) if none exceeds it.

        Args:
            kind: `RENYI` for (order - 1) * D_order, or D_inf at order inf; `HOCKEY_STICK` for H_{e^epsilon}.
            parameter: the order, or epsilon.
            floor: a value already known, >= 0.
        """
        p, q = self._probabilities if kind == HOCKEY_STICK else (self.firsts.high, self.seconds.low)
        firsts, seconds = self.firsts.arrays(p), self.seconds.arrays(q)
        value, *leaves = _search(kind, parameter, self.log_reference, firsts, seconds, floor)
        return value, (leaves[0], leaves[1]) if leaves[0] >= 0 else None

    @functools.cached_property
    def _probabilities(self) -> tuple[Array, Array]:
        """The largest probabilities of the first laws and the smallest of the second (nodes, outcomes)."""
        return np.exp(self.log_reference + self.firsts.high), np.exp(self.log_reference + self.seconds.low)

    def value(self, kind: int, parameter: float, leaves: tuple[int, int]) -> float:
        """The divergence of one pair."""
        first, second = self.firsts.low[leaves[0]], self.seconds.low[leaves[1]]
        return pair_value(kind, parameter, self.log_reference, first, first, second, second)

    def tail(self, epsilon: float, leaves: tuple[int, int]) -> float:
        """e^epsilon Q[L > epsilon] of one pair."""
        return pair_tail(epsilon, self.log_reference, self.firsts.low[leaves[0]], self.seconds.low[leaves[1]])


def worst_renyi(contests: Sequence[Contest], orders: ArrayLike) -> Array:
    """Largest Renyi divergence over all contests, to rounding, for orders > 1 or inf; shaped like `orders`."""
    orders = np.asarray(orders, dtype=np.float64)
    result = np.empty(orders.shape)
    # The worst pair of one order is a good first guess for the next.
    guess: tuple[Contest, tuple[int, int]] | None = None
    for i in np.argsort(orders, axis=None).tolist():
        order = float(orders.flat[i])
        value = guess[0].value(RENYI, order, guess[1]) if guess else 0.0
        for contest in contests:
            value, leaves = contest.worst(RENYI, order, value)
            guess = (contest, leaves) if leaves else guess
        result.flat[i] = value if math.isinf(order) else value / (order - 1)
    return result


def rounded_up(divergences: Array, orders: ArrayLike) -> Array:
    """Renyi divergences increased by more than their rounding, which the division by order - 1 magnifies."""
    return divergences * (1 + 1e-12 + 4 * 2.0**-52 / (np.asarray(orders, dtype=np.float64) - 1))


def worst_profile(contests: Sequence[Contest], epsilons: Array, floors: Array) -> tuple[Array, Array]:
    """Largest H_{e^epsilon} over all contests (k,), and e^epsilon Q[L > epsilon] of the pair that reaches it (k,).

    Where no pair exceeds the floor the result is (floor, NaN).
    """
    values, tails = floors.astype(np.float64), np.full(len(epsilons), math.nan)
    for i, epsilon in enumerate(epsilons.tolist()):
        for contest in contests:
            values[i], leaves = contest.worst(HOCKEY_STICK, epsilon, float(values[i]))
            if leaves:
                tails[i] = contest.tail(epsilon, leaves)
    return values, tails


@_compiled
def _search(kind, parameter, log_reference, firsts, seconds, floor):
    low1, high1, children1, size1, p = firsts
    low2, high2, children2, size2, q = seconds
    best, best1, best2 = floor, -1, -1
    capacity = 4 * (len(size1) + len(size2)) + 8
    stack = np.empty((capacity, 2), np.int64)
    bounds = np.empty(capacity)
    stack[0] = 0, 0
    bounds[0] = math.inf
    height = 1
    while height:
        height -= 1
        node1, node2 = stack[height]
        if bounds[height] <= best + _EQUAL * abs(best):
            continue
        if size1[node1] == 1 and size2[node2] == 1:
            value = pair_value(kind, parameter, log_reference, low1[node1], high1[node1], low2[node2], high2[node2])
            if value > best:
                best, best1, best2 = value, node1, node2
            continue
        start = height
        for side in range(2):
            if size1[node1] >= size2[node2]:
                child1, child2 = children1[node1, side], node2
            else:
                child1, child2 = node1, children2[node2, side]
            if kind == HOCKEY_STICK:
                bound = _rough_hockey_stick(parameter, p[child1], q[child2])
            else:
                bound = pair_value(
                    kind, parameter, log_reference, low1[child1], high1[child1], low2[child2], high2[child2]
                )
            if bound > best + _EQUAL * abs(best):
                stack[height] = child1, child2
                bounds[height] = bound
                height += 1
        # The more promising half is looked at first.
        if height == start + 2 and bounds[start] > bounds[start + 1]:
            bounds[start], bounds[start + 1] = bounds[start + 1], bounds[start]
            for column in range(2):
                stack[start, column], stack[start + 1, column] = stack[start + 1, column], stack[start, column]
    return best, best1, best2


@_compiled
def pair_value(kind, parameter, log_reference, low1, high1, low2, high2):
    if kind == HOCKEY_STICK:
        total = 0.0
        for i in range(len(log_reference)):
            loss = high1[i] - low2[i]
            if loss > parameter:
                total -= math.exp(log_reference[i] + high1[i]) * math.expm1(parameter - loss)
        return total
    if math.isinf(parameter):
        largest = -math.inf
        for i in range(len(log_reference)):
            largest = max(largest, high1[i] - low2[i])
        return largest
    return _log_moment(parameter, log_reference, low1, high1, low2, high2)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _rough_hockey_stick(epsilon, p, q):
    """Sum of (p - e^epsilon q)+, rounded up by more than the subtraction loses."""
    ratio, total = math.exp(min(epsilon, 700.0)), 0.0
    for i in range(len(p)):
        total += max(p[i] * (1 + 1e-14) - ratio * q[i], 0.0)
    return total * (1 + 1e-12) + 1e-300


@_compiled
def _log_moment(order, log_reference, low1, high1, low2, high2):
    """Logarithm of 1 + sum of Q f(log P/Q), f(x) = e^(ax) - 1 - a(e^x - 1), at each outcome's worst corner."""
    top = -math.inf
    for i in range(len(log_reference)):
        top = max(top, log_reference[i] + order * high1[i] - (order - 1) * low2[i])
    if top > 500:
        total = 0.0
        for i in range(len(log_reference)):
            exponent = log_reference[i] + order * high1[i] - (order - 1) * low2[i] - top
            if exponent > -60:
                total += math.exp(exponent)
        # What was left out weighs less than e^-60 for each outcome.
        return top + math.log(total + len(log_reference) * 1e-26)
    total, skipped, most = 0.0, 0, _NEGLIGIBLE - math.log(order)
    for i in range(len(log_reference)):
        grown = log_reference[i] + order * high1[i] - (order - 1) * low2[i]
        if grown < most and log_reference[i] + high2[i] < most:
            skipped += 1
            continue
        apart, back = high1[i] - low2[i], low1[i] - high2[i]
        term = 0.0
        if apart > 0:
            term = _renyi_term(order, apart, log_reference[i] + low2[i])
        if back < 0:
            term = max(term, _renyi_term(order, back, log_reference[i] + high2[i]))
        total += term
    return math.log1p(total + skipped * 2 * math.exp(_NEGLIGIBLE))


@_compiled
def pair_tail(epsilon, log_reference, first, second):
    total = 0.0
    for i in range(len(log_reference)):
        if first[i] - second[i] > epsilon:
            total += math.exp(log_reference[i] + second[i] + epsilon)
    return total


@_compiled
def _renyi_term(order, loss, log_q):
    """Q (e^(order loss) - 1 - order (e^loss - 1)) >= 0, where none of the products overflows."""
    grown = order * loss
    if grown > 30:
        if (order - 1) * loss > 600:
            return math.exp(log_q + grown)
        return math.exp(log_q + loss) * (math.expm1(grown - loss) - (order - 1)) + (order - 1) * math.exp(log_q)
    return math.exp(log_q) * (_remainder(grown) - order * _remainder(loss))


@_compiled
def _remainder(x):
    """e^x - 1 - x."""
    if abs(x) >= 0.5:
        return math.expm1(x) - x
    total = 0.0
    for k in range(len(_FACTORIALS) - 1, -1, -1):
        total = total * x + _FACTORIALS[k]
    return total * x * x


def worst_pair_reference(
    kind: int, parameter: float, log_reference: Array, firsts: Array, seconds: Array
) -> tuple[Array, float]:
    """Every pair's value (firsts, seconds) in plain NumPy, and their maximum; laws are (laws, outcomes)."""
    losses = firsts[:, None, :] - seconds[None, :, :]
    if kind == HOCKEY_STICK:
        p = np.exp(log_reference + firsts)[:, None, :]
        values = np.sum(p * -np.expm1(np.minimum(parameter - losses, 0.0)), axis=-1)
    elif math.isinf(parameter):
        values = losses.max(axis=-1)
    else:
        excess = exp_remainder(parameter * losses) - parameter * exp_remainder(losses)
        values = np.log1p(np.sum(np.exp(log_reference + seconds)[None] * excess, axis=-1))
    return values, float(values.max())
