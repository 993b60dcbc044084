"""Sums of coins of two kinds, told apart when some of them change: the worst case of the Poisson binomial mechanism.

A heavy coin shows 1 with probability p = 1/2 + theta, a light one with r = 1/2 - theta. T_j is the law of the sum of N
coins of which j are heavy: its generating function is (r + p z)^j (p + r z)^(N-j). What has to be compared is T_(k+t)
with T_k for every k, t of the N coins belonging to the client whose number changes.

With U the law of the N - 1 coins that T_j and T_(j+1) share and kappa_i = U_(i-1) / U_i,

    log T_(j+1)(i) / T_j(i) = log1p( (p - r) (kappa_i - 1) / (p + r kappa_i) ),

to relative accuracy. U satisfies a recursion of three terms, because (r + p z)(p + r z) U' is a linear function times
U, and with M = N - 1 its ratios satisfy

    r p (i+1) U_(i+1)/U_i = p^2 (j - i) + r^2 (M - j - i) + p r (M - i + 1) / (U_i/U_(i-1)),

which is a sum of positive terms while j p^2 + (M - j) r^2 > (p^2 + r^2) i; the same relation solved for the other end
is positive from there on. Both are contractions: every ratio is good to a few units in the last place.
"""

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from dpkit.numerics.worst_pair import RENYI, pair_value

Array = NDArray[Any]

_compiled = numba.njit(cache=True, nogil=True)


@_compiled
def worst_coins_renyi(orders: Array, trials: int, others: int, theta: float) -> Array:
    """The largest (order - 1) D_order(T_(k + trials) || T_k), or D_inf, over k = 0, ..., others; (n,) like the orders.

    Args:
        orders: > 1 or inf (n,).
        trials: coins that change from light to heavy.
        others: coins that do not change.
        theta: how far the coins are from fair, in (0, 1/2).
    """
    values = np.zeros(len(orders))
    state = _start(trials, others, theta)
    log_q, loss = state[0][0], state[0][1]
    still = np.zeros(len(log_q))
    for k in range(others + 1):
        for i in range(len(orders)):
            values[i] = max(values[i], pair_value(RENYI, orders[i], log_q, loss, loss, still, still))
        if k < others:
            _advance(state, k, trials, theta)
    return values


@_compiled
def worst_coins_profile(epsilons: Array, trials: int, others: int, theta: float) -> tuple[Array, Array]:
    """The largest H_{e^epsilon}(T_(k + trials) || T_k) over k, and e^epsilon T_k[L > epsilon] at that k; both (n,).

    The loss grows with the outcome. With G_i = e^(L_i) Q[L >= L_i], the profile at L_i is that at L_(i+1) plus
    G_(i+1) (1 - e^(L_i - L_(i+1))): sums of positive terms, then one search for each epsilon >= 0.
    """
    values, tails = np.zeros(len(epsilons)), np.zeros(len(epsilons))
    state = _start(trials, others, theta)
    log_q, loss = state[0][0], state[0][1]
    n = len(log_q) - 1
    profile, scaled = np.empty(n + 1), np.empty(n + 1)
    for k in range(others + 1):
        profile[n], scaled[n] = 0.0, math.exp(log_q[n] + loss[n])
        first = n
        while first > 0 and loss[first - 1] > 0:
            fall = loss[first - 1] - loss[first]
            profile[first - 1] = profile[first] - scaled[first] * math.expm1(fall)
            scaled[first - 1] = scaled[first] * math.exp(fall) + math.exp(log_q[first - 1] + loss[first - 1])
            first -= 1
        for i in range(len(epsilons)):
            above = first + np.searchsorted(loss[first:], epsilons[i], side="right")
            if above <= n:
                value = profile[above] - scaled[above] * math.expm1(epsilons[i] - loss[above])
                if value > values[i]:
                    values[i], tails[i] = value, scaled[above] * math.exp(epsilons[i] - loss[above])
        if k < others:
            _advance(state, k, trials, theta)
    return values, tails


@_compiled
def _start(trials, others, theta):
    """Rows log T_0 and log T_trials / T_0, what compensated sums owe them, and a ring of the last `trials` coins'."""
    n = trials + others
    rows, lost = np.zeros((2, n + 1)), np.zeros((2, n + 1))
    steps = np.empty((trials, n + 1))
    rows[0] = log_light_coins(n, theta)
    for j in range(trials):
        _one_coin(n, j, theta, steps[j])
        _add(rows[1], lost[1], steps[j], 1.0)
    return rows, lost, steps


@_compiled
def _advance(state, k, trials, theta):
    """From k to k + 1."""
    rows, lost, steps = state
    step = steps[k % trials]
    _add(rows[0], lost[0], step, 1.0)
    _add(rows[1], lost[1], step, -1.0)
    _one_coin(rows.shape[1] - 1, k + trials, theta, step)
    _add(rows[1], lost[1], step, 1.0)


@_compiled
def _add(total, lost, term, sign):
    """total += sign * term, compensated."""
    for i in range(len(total)):
        change = sign * term[i] - lost[i]
        result = total[i] + change
        lost[i] = (result - total[i]) - change
        total[i] = result


@_compiled
def _one_coin(n, j, theta, result):
    """log T_(j+1) / T_j of n coins (n + 1,)."""
    p, r = 0.5 + theta, 0.5 - theta
    m = n - 1
    turn = min(int((j * p * p + (m - j) * r * r) / (p * p + r * r)), m)
    # Not p - r, which is 2 theta to rounding of 1 only.
    result[n] = math.log1p(2 * theta / r)
    result[0] = -result[n]
    # kappa_1, ..., kappa_(turn + 1) from below, where U_(-1) = 0, and kappa_m, ..., kappa_(turn + 2) from above.
    kappa = 0.0
    for i in range(min(turn + 1, m)):
        balance = p * p * (j - i) + r * r * (m - j - i)
        kappa = r * p * (i + 1) / (balance + p * r * (m - i + 1) * kappa)
        result[i + 1] = _log_ratio(r + p * kappa, p + r * kappa, 2 * theta * (kappa - 1))
    inverse = 0.0
    for i in range(m, turn + 1, -1):
        balance = p * p * (j - i) + r * r * (m - j - i)
        inverse = p * r * (m - i + 1) / (r * p * (i + 1) * inverse - balance)
        result[i] = _log_ratio(r * inverse + p, p * inverse + r, 2 * theta * (1 - inverse))


@_compiled
def _log_ratio(numerator, denominator, difference):
    """log(numerator / denominator), by their difference where they are close."""
    if abs(difference) < 0.5 * denominator:
        return math.log1p(difference / denominator)
    return math.log(numerator / denominator)


@_compiled
def log_light_coins(n, theta):
    """Logarithms of T_0, the law of n light coins (n + 1,): summed from the most likely value outwards, compensated."""
    result, odds = np.zeros(n + 1), (0.5 - theta) / (0.5 + theta)
    top = int((n + 1) * (0.5 - theta))
    lost = 0.0
    for i in range(top, n):
        change = math.log((n - i) / (i + 1) * odds) - lost
        result[i + 1] = result[i] + change
        lost = (result[i + 1] - result[i]) - change
    lost = 0.0
    for i in range(top, 0, -1):
        change = -math.log((n - i + 1) / i * odds) - lost
        result[i - 1] = result[i] + change
        lost = (result[i - 1] - result[i]) - change
    return result - math.log(np.sum(np.exp(result)))


def worst_coins_reference(trials: int, others: int, theta: float) -> list[tuple[Array, Array]]:
    """The pairs (T_(k + trials), T_k), k = 0, ..., others, by plain convolution."""

    def heavy(j: int) -> Array:
        law, n = np.ones(1), trials + others
        for i in range(n):
            one = 0.5 + theta if i < j else 0.5 - theta
            law = np.convolve(law, [1 - one, one])
        return law

    return [(heavy(k + trials), heavy(k)) for k in range(others + 1)]
