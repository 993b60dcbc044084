"""Randomized quantization: the law of the output, exact and in O(m) for each input after O(m^2) for all levels.

Levels 0 and m - 1 are kept, each interior level independently with probability q (r = 1 - q), and an input is rounded
at random to one of the two kept levels around it, without bias. Inputs are measured in units of the level spacing from
the middle of the range.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def level_log_pmf(levels: int, keep_probability: float) -> Array:
    """Logarithms of the probabilities of each output, for inputs on the levels (inputs, outputs), both `levels` long.

    An input on level j is answered by i < j if i is the nearest kept level below, j itself is not kept, and of the
    pair (i, k), k the nearest kept level above, the lower one is drawn: with d = j - i and n = m - 1 - j,

        P(i) = w_i r^d [ sum over 1 <= u < n of q r^(u-1) u/(u+d)  +  r^(n-1) n/(n+d) ],    w_0 = 1, otherwise q.

    The sums over u are cumulative sums, shared by all inputs. All terms are positive: relative accuracy.
    """
    m, q = levels, keep_probability
    log_r = math.log1p(-q)
    below = _below(m, q, log_r)  # (input, output), output < input
    # The levels are symmetric about their middle.
    log_p = np.where(np.tri(m, k=-1, dtype=bool), below, below[::-1, ::-1])
    np.fill_diagonal(log_p, [0.0, *[_log(q)] * (m - 2), 0.0])
    return log_p


def _below(m: int, q: float, log_r: float) -> Array:
    d = np.arange(1, m)
    # sums[n, d - 1]: the bracket above, compensated so that long sums lose nothing.
    sums = np.zeros((m, m - 1))
    total, lost = np.zeros(m - 1), np.zeros(m - 1)
    for n in range(1, m):
        sums[n] = total + lost + math.exp((n - 1) * log_r) * (n / (n + d))
        term = q * math.exp((n - 1) * log_r) * (n / (n + d))
        larger = np.maximum(total, term)
        lost += (larger - (total + term)) + np.minimum(total, term)
        total = total + term
    log_weight = np.array([0.0, *[_log(q)] * (m - 1)])
    result = np.full((m, m), -math.inf)
    with np.errstate(divide="ignore"):
        log_sums = np.log(sums)
    for j in range(1, m):
        away = np.arange(j, 0, -1)
        result[j, :j] = log_weight[:j] + away * log_r + log_sums[m - 1 - j, away - 1]
    return result


def log_pmf(level_laws: Array, offset: Fraction) -> Array:
    """The law at an input `offset` spacings from the middle: affine in the input between two levels (outputs,)."""
    cell, share = _cell(len(level_laws), offset)
    with np.errstate(divide="ignore"):
        lower, upper = np.log(float(1 - share)), np.log(float(share))
    return np.logaddexp(level_laws[cell] + lower, level_laws[cell + 1] + upper)


def _cell(levels: int, offset: Fraction) -> tuple[int, Fraction]:
    """The level below the input and how far above it the input lies, in spacings."""
    place = Fraction(levels - 1, 2) + offset
    cell = min(max(math.floor(place), 0), levels - 2)
    return cell, place - cell


def vertices(levels: int, reach: Fraction) -> list[Fraction]:
    """The inputs -reach, reach and the levels strictly between, as offsets from the middle, ascending."""
    middle = Fraction(levels - 1, 2)
    inside = [j - middle for j in range(levels) if -reach < j - middle < reach]
    return [-reach, *inside, reach]


def log_ratios_to_middle(level_laws: Array, offsets: list[Fraction]) -> Array:
    """log(P / P_middle) for each input (offsets, outputs); an input near the middle keeps the digits of it."""
    m = len(level_laws)
    middle = log_pmf(level_laws, Fraction(0))
    rows = []
    for offset in offsets:
        row = log_pmf(level_laws, offset) - middle
        # In the cell of the middle, or in one that touches it, the law is the middle's plus a multiple of one slope.
        at, share = _cell(m, Fraction(0))
        at -= int(offset < 0 and not share)
        if _cell(m, offset)[0] == at:
            change = float(offset) * (np.exp(level_laws[at + 1] - middle) - np.exp(level_laws[at] - middle))
            row = np.where(np.abs(change) < 0.5, np.log1p(np.maximum(change, -0.5)), row)
        rows.append(row)
    return np.array(rows)


def _log(x: float) -> float:
    return math.log(x) if x else -math.inf
