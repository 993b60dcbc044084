"""Sums of biased coins against convolution in 60 digits."""

import functools
import math

import numpy as np
import pytest

from dpkit.numerics import coins
from mechanisms.exact import finite_renyi, mp

CASES = [(1, 0, 0.2), (3, 0, 0.49), (4, 8, 0.25), (5, 20, 1e-4), (2, 7, 0.4999), (3, 60, 0.1), (1, 30, 0.45)]
ORDERS = np.array([1.01, 1.5, 2.0, 8.0, 64.0, math.inf])


@functools.cache
def exact_law(heavy: int, light: int, theta: float) -> list:
    law = [mp.one]
    for i in range(heavy + light):
        one = mp.mpf("0.5") + (mp.mpf(theta) if i < heavy else -mp.mpf(theta))
        law = [a * (1 - one) + b * one for a, b in zip([*law, mp.zero], [mp.zero, *law], strict=True)]
    return law


def exact_pairs(trials: int, others: int, theta: float) -> list[list]:
    total = trials + others
    return [
        list(zip(exact_law(k + trials, others - k, theta), exact_law(k, total - k, theta), strict=True))
        for k in range(others + 1)
    ]


@pytest.mark.parametrize(("trials", "others", "theta"), CASES)
def test_renyi_is_the_largest_over_every_number_of_heavy_coins_in_either_direction(trials, others, theta):
    pairs = exact_pairs(trials, others, theta)
    found = coins.worst_coins_renyi(ORDERS, trials, others, theta)
    for order, value in zip(ORDERS.tolist(), found.tolist(), strict=True):
        if math.isinf(order):
            truth = max(mp.log(p / q) for pair in pairs for p, q in pair)
        else:
            both = [finite_renyi(order, pair) for pair in [*pairs, *([(q, p) for p, q in pair] for pair in pairs)]]
            truth = (mp.mpf(order) - 1) * max(both)
        assert value == pytest.approx(float(truth), rel=1e-12)


@pytest.mark.parametrize(("trials", "others", "theta"), CASES)
def test_profile_is_the_largest_over_every_number_of_heavy_coins(trials, others, theta):
    pairs = exact_pairs(trials, others, theta)
    largest = float(max(mp.log(p / q) for pair in pairs for p, q in pair))
    epsilons = largest * np.array([0.0, 1e-7, 0.1, 0.5, 0.9, 0.999])
    values, tails = coins.worst_coins_profile(epsilons, trials, others, theta)
    for epsilon, value, tail in zip(epsilons.tolist(), values, tails, strict=True):
        ratio = mp.exp(mp.mpf(epsilon))
        profiles = [mp.fsum(max(p - ratio * q, mp.zero) for p, q in pair) for pair in pairs]
        assert value == pytest.approx(float(max(profiles)), rel=1e-11)
        worst = pairs[profiles.index(max(profiles))]
        assert tail == pytest.approx(float(ratio * mp.fsum(q for p, q in worst if p > ratio * q)), rel=1e-9)


def test_plain_convolution_agrees():
    for (p, q), exact in zip(coins.worst_coins_reference(2, 5, 0.3), exact_pairs(2, 5, 0.3), strict=True):
        np.testing.assert_allclose(p, [float(a) for a, _ in exact], rtol=1e-13)
        np.testing.assert_allclose(q, [float(b) for _, b in exact], rtol=1e-13)


@pytest.mark.parametrize("theta", [1e-6, 0.25, 0.49])
def test_light_coins_are_binomial(theta):
    n = 500
    law = np.exp(coins.log_light_coins(n, theta))
    r = mp.mpf("0.5") - mp.mpf(theta)
    truth = [float(mp.binomial(n, k) * r**k * (1 - r) ** (n - k)) for k in range(0, n + 1, 7)]
    # The exponential of a logarithm of 600 loses three digits.
    np.testing.assert_allclose(law[::7], truth, rtol=5e-13, atol=1e-300)
