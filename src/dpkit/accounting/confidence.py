"""Confidence bounds on the mean of independent variables in [0, B], by betting.

For terms X_1, ..., X_N of mean mu and a bet c < 1 / B fixed beforehand, 1 - c X is positive and has mean 1 - c mu, so
by Markov's inequality prod (1 - c X_i) < (1 - c mu)^N / beta with probability at least 1 - beta: then

    mu < (1 - (beta prod (1 - c X_i))^(1/N)) / c    for c > 0,        mu > the same    for c < 0.

A bound below needs no B. For variables that are 0 or B and the best c the upper bound is the Chernoff bound,
N KL(mean | mu) = log(1 / beta); where the variance is smaller it adapts, as a Bernstein bound does but with smaller
constants, and only the sum of log(1 - c X_i) has to be kept.

References: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting", for the idea;
with fixed bets it is the proof above.
"""

import math

import numpy as np

from dpkit.mechanisms.pair import Array

# Bets in units of 1 / B. The error of a bound is flat around the best bet.
_UPPER = 0.98 * 2.0 ** -np.arange(24)
_LOWER = -4.0 * 2.0 ** -np.arange(26)


def mean_bound(total: float, count: int, bet: float, failure_probability: float) -> float:
    """The bound on the mean, above for bet > 0 and below for bet < 0, from total = sum of log(1 - bet X_i)."""
    return -math.expm1((total + math.log(failure_probability)) / count) / bet


def choose_bet(
    pilot: Array, trials: int, largest: float, count: int, failure_probability: float, *, above: bool
) -> float:
    """The bet that would give the closest bound from `count` terms like those of a pilot.

    Args:
        pilot: the pilot's terms that are not 0 (k,). Must be independent of the terms the bet is made on.
        trials: how many terms the pilot had.
        largest: B.
        count: N.
        failure_probability: beta.
        above: for an upper bound.
    """
    bets = (_UPPER if above else _LOWER) / largest
    # A term of half the largest size that was not seen keeps bets from resting on a pilot in which nothing happened.
    terms = np.append(pilot, largest / 2)
    totals = count / (trials + 1) * np.sum(np.log1p(-np.multiply.outer(bets, terms)), axis=1)
    bounds = [mean_bound(total, count, bet, failure_probability) for total, bet in zip(totals, bets, strict=True)]
    return float(bets[np.argmin(bounds) if above else np.argmax(bounds)])
