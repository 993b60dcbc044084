"""Renyi conversions against brute-force minimisation and published figures."""

import math

import numpy as np
import pytest
from mpmath import mp

from dpkit import accounting, mechanisms
from dpkit.accounting.conversions import epsilon_from_renyi, log_delta_from_renyi, renyi_delta, renyi_epsilon

RDP, ZCDP = accounting.RdpAccountant(), accounting.ZcdpAccountant()


def brute_epsilon(rho, delta):
    """Least epsilon over orders for the curve rho * order, by dense search in mpmath."""
    with mp.workdps(30):
        best = mp.inf
        for t in mp.linspace(-9, 12, 4001):
            a = 1 + mp.exp(t)
            best = min(best, rho * a + mp.log1p(-1 / a) - (mp.log(delta) + mp.log(a)) / (a - 1))
        return float(max(best, 0))


@pytest.mark.parametrize("rho", [1e-6, 1e-3, 0.05, 0.5, 2.63, 40.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 1e-2])
def test_epsilon_is_the_minimum_over_orders(rho, delta):
    converted = renyi_epsilon(lambda orders: rho * orders, delta)
    assert converted.value == pytest.approx(brute_epsilon(rho, delta), rel=2e-4, abs=1e-9)
    assert converted.value >= brute_epsilon(rho, delta) * (1 - 2e-5)


@pytest.mark.parametrize(
    ("rho", "delta", "epsilon"),
    [(0.81, 1e-10, 8.9222), (0.80612, 1e-10, 8.8985)],
)
def test_published_zcdp_figures(rho, delta, epsilon):
    assert ZCDP.epsilon(mechanisms.ZeroConcentrated(rho), delta=delta).upper == pytest.approx(epsilon, abs=6e-5)


@pytest.mark.parametrize(("noise", "epsilon"), [(1.145, 1.006), (0.637, 3.996), (0.468, 8.004)])
def test_published_provider_level_figures(noise, epsilon):
    """PFL-DocVQA baselines (q = 0.025, 5 rounds, delta 1e-5): a continuous order can only improve on their grid."""
    run = mechanisms.repeat(mechanisms.PoissonSampled(mechanisms.Gaussian(noise), 0.025), 5)
    assert epsilon - 0.011 < RDP.epsilon(run, delta=1e-5).upper <= epsilon + 5e-4


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0, 30.0])
def test_delta_and_epsilon_are_inverse(epsilon):
    gaussian = mechanisms.Gaussian(0.8)
    delta = RDP.delta(gaussian, epsilon=epsilon).upper
    if delta < 0.1:
        assert RDP.epsilon(gaussian, delta=delta).upper == pytest.approx(epsilon, rel=1e-5)


def test_conversion_formulas_are_inverse():
    orders, divergence = np.array([1.5, 3.0, 20.0]), np.array([0.3, 0.4, 2.0])
    epsilons = epsilon_from_renyi(divergence, orders, 1e-7)
    for order, r, epsilon in zip(orders, divergence, epsilons, strict=True):
        log_delta = log_delta_from_renyi(np.array([r]), np.array([order]), float(epsilon))[0]
        assert log_delta == pytest.approx(math.log(1e-7), rel=1e-12)


def test_small_divergence_gives_epsilon_zero():
    """Bretagnolle-Huber: sqrt(1 - e^-r) bounds total variation."""
    assert renyi_epsilon(lambda orders: 1e-9 * orders, 1e-4).value == 0
    assert renyi_epsilon(lambda orders: 1e-7 * orders, 1e-4).value > 0
    # 1e-8-zCDP: at least the total variation of the Gaussian with that rho, at most sqrt(1 - e^-1e-8).
    assert math.sqrt(2e-8) / math.sqrt(2 * math.pi) < renyi_delta(lambda orders: 1e-8 * orders, 0.0).value < 1.0001e-4


def test_pure_privacy_adds_up():
    run = mechanisms.repeat(mechanisms.Laplace(10.0), 3)
    assert RDP.epsilon(run, delta=0.0).upper == pytest.approx(0.3)
    assert RDP.epsilon(run, delta=0.0).order == math.inf
    assert RDP.epsilon(mechanisms.Gaussian(1.0), delta=0.0).upper == math.inf
    assert RDP.delta(run, epsilon=0.31).upper == 0


def test_best_order_is_reported():
    bounds = RDP.epsilon(mechanisms.Gaussian(1.0), delta=1e-5)
    # For rho * order the best order is near 1 + sqrt(log(1/delta) / rho).
    assert bounds.order == pytest.approx(1 + math.sqrt(math.log(1e5) / 0.5), rel=0.15)
    assert bounds.lower == 0
