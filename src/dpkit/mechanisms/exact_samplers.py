"""Exact samplers of integer noise: integers from the operating system's secure generator, and rationals, nothing else.

Floating-point samplers leak through the low bits of what they return, and their laws are only nearly the stated ones
(Mironov 2012). Here every decision compares uniform integers with rational numbers, so that the laws are exact; arrays
are drawn together, which changes nothing about them. Not constant-time: how long a draw takes depends on it.

References: Canonne, Kamath and Steinke (2020), Algorithms 1 to 3, for the discrete Laplace and Gaussian laws.
"""

import math
import secrets
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Coins = NDArray[np.bool_]

_WORD = 62
_LARGEST_BOUND = 1 << _WORD


def uniform_words(count: int) -> Integers:
    """Uniform integers in [0, 2^62) (count,)."""
    words = np.frombuffer(secrets.token_bytes(8 * count), dtype=np.uint64)
    return (words >> np.uint64(64 - _WORD)).astype(np.int64)


def uniform_below(bound: int, count: int) -> Integers:
    """Uniform integers in [0, bound) (count,), bound <= 2^62: words beyond the last multiple of it are drawn again.

    >>> set(uniform_below(3, 500).tolist())
    {0, 1, 2}
    """
    if not 1 <= bound <= _LARGEST_BOUND:
        raise ValueError(f"bound must be in [1, 2^62], got {bound}")
    limit, result = _LARGEST_BOUND - _LARGEST_BOUND % bound, uniform_words(count)
    while len(again := np.flatnonzero(result >= limit)):
        result[again] = uniform_words(len(again))
    return result % bound


def bernoulli(probability: Fraction, count: int) -> Coins:
    """Independent coins that are True with exactly `probability` (count,).

    A uniform number in [0, 1) is compared with it 62 bits at a time, until they differ.
    """
    scaled = probability * _LARGEST_BOUND
    threshold = math.floor(scaled)
    words = uniform_words(count)
    result = words < threshold
    if (rest := scaled - threshold) and len(ties := np.flatnonzero(words == threshold)):
        result[ties] = bernoulli(rest, len(ties))
    return result


def bernoulli_exp(exponent: Fraction, count: int) -> Coins:
    """Independent coins that are True with probability exp(-exponent), exponent >= 0 (count,)."""
    result = np.ones(count, dtype=bool)
    for _ in range(math.floor(exponent)):
        alive = np.flatnonzero(result)
        if not len(alive):
            return result
        result[alive] = _bernoulli_exp_below_one(Fraction(1), len(alive))
    alive = np.flatnonzero(result)
    result[alive] = _bernoulli_exp_below_one(exponent % 1, len(alive))
    return result


def _bernoulli_exp_below_one(exponent: Fraction, count: int) -> Coins:
    """The number of coins of exponent/1, exponent/2, ... before the first failure is even with that probability."""
    result = np.ones(count, dtype=bool)
    alive, k = np.arange(count), 1
    while len(alive):
        alive = alive[bernoulli(exponent / k, len(alive))]
        result[alive] ^= True
        k += 1
    return result


def _geometric(ratio: Fraction, count: int) -> Integers:
    """Successes of a coin of probability `ratio` < 1 before its first failure (count,)."""
    result, alive = np.zeros(count, dtype=np.int64), np.arange(count)
    while len(alive := alive[bernoulli(ratio, len(alive))]):
        result[alive] += 1
    return result


def discrete_laplace(scale: int, count: int) -> Integers:
    """Draws with P(y) proportional to exp(-|y| / scale), an integer scale >= 1 (count,)."""
    return _redrawn(count, lambda n: _laplace_attempts(scale, n))


def _laplace_attempts(scale: int, count: int) -> tuple[Integers, Coins]:
    # |y| = scale * quotient + remainder, where the remainder has probability proportional to exp(-remainder / scale).
    remainder = uniform_below(scale, count)
    accepted, alive, k = np.ones(count, dtype=bool), np.arange(count), 1
    while len(alive):
        # As in bernoulli_exp, with a numerator of its own for every draw.
        alive = alive[uniform_below(scale * k, len(alive)) < remainder[alive]]
        accepted[alive] ^= True
        k += 1
    quotient, more = np.zeros(count, dtype=np.int64), np.flatnonzero(accepted)
    while len(more := more[_bernoulli_exp_below_one(Fraction(1), len(more))]):
        quotient[more] += 1
    size, negative = remainder + scale * quotient, uniform_below(2, count) == 1
    return np.where(negative, -size, size), accepted & ~(negative & (size == 0))


def discrete_gaussian(variance: Fraction, count: int) -> Integers:
    """Draws with P(y) proportional to exp(-y^2 / (2 variance)), variance > 0 (count,).

    `variance` is the parameter of the law; its true variance is a little less.
    """
    scale = math.isqrt(math.floor(variance)) + 1

    def attempt(n: int) -> tuple[Integers, Coins]:
        draws = discrete_laplace(scale, n)
        accepted = np.empty(n, dtype=bool)
        sizes, groups = np.unique(np.abs(draws), return_inverse=True)
        order = np.argsort(groups, kind="stable")
        ends = np.cumsum(np.bincount(groups, minlength=len(sizes)))
        for size, members in zip(sizes.tolist(), np.split(order, ends[:-1]), strict=True):
            accepted[members] = bernoulli_exp((size - variance / scale) ** 2 / (2 * variance), len(members))
        return draws, accepted

    return _redrawn(count, attempt)


def poisson(mean: Fraction, count: int) -> Integers:
    """Poisson draws of a rational mean >= 0 (count,).

    With m = floor(mean), the probability of m + j is that of m times the product of mean / (m + i), i = 1, ..., j, and
    that of m - j is m's times the product of (m + 1 - i) / mean: rationals of at most 1. A proposal flat over
    |j| <= w and geometric beyond, with the largest of the factors there as its ratio, is accepted when a coin of every
    factor (beyond w, factor over ratio) succeeds. With w about sqrt(mean) more than half of all are.
    """
    middle = math.floor(mean)
    if mean == 0:
        return np.zeros(count, dtype=np.int64)
    width = math.isqrt(middle) + 1

    def factor(side: int, i: int) -> Fraction:
        return mean / (middle + i) if side > 0 else max(Fraction(middle + 1 - i), Fraction(0)) / mean

    ratios = {side: factor(side, width + 1) for side in (1, -1)}
    tails = {side: ratio / (1 - ratio) for side, ratio in ratios.items()}
    everything = 2 * width + 1 + tails[1] + tails[-1]

    def attempt(n: int) -> tuple[Integers, Coins]:
        beyond = bernoulli((tails[1] + tails[-1]) / everything, n)
        right = bernoulli(tails[1] / (tails[1] + tails[-1]), n)
        offset = uniform_below(2 * width + 1, n) - width
        for side, members in ((1, np.flatnonzero(beyond & right)), (-1, np.flatnonzero(beyond & ~right))):
            offset[members] = side * (width + 1 + _geometric(ratios[side], len(members)))
        accepted = np.ones(n, dtype=bool)
        for side in (1, -1):
            alive, i = np.flatnonzero(side * offset > 0), 1
            while len(alive := alive[side * offset[alive] >= i]):
                chance = factor(side, i) / (ratios[side] if i > width else 1)
                failed = ~bernoulli(chance, len(alive))
                accepted[alive[failed]] = False
                alive, i = alive[~failed], i + 1
        return middle + offset, accepted

    return _redrawn(count, attempt)


def skellam(variance: Fraction, count: int) -> Integers:
    """The difference of two Poisson variables of mean variance / 2 (count,)."""
    return poisson(variance / 2, count) - poisson(variance / 2, count)


def _redrawn(count: int, attempt: Callable[[int], tuple[Integers, Coins]]) -> Integers:
    """`count` accepted draws of `attempt(n) -> (draws, accepted)`."""
    result, missing = np.empty(count, dtype=np.int64), np.arange(count)
    while len(missing):
        draws, accepted = attempt(len(missing))
        result[missing[accepted]] = draws[accepted]
        missing = missing[~accepted]
    return result
