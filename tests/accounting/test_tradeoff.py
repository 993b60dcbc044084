"""Attack readings against the closed forms of Gaussian differential privacy, computed in mpmath."""

import math

import numpy as np
import pytest
from mpmath import mp

from dpkit import accounting, mechanisms
from dpkit.accounting import advantage, trade_off, true_positive_rate

PLD = accounting.PldAccountant()
RATES = [1e-4, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9]


def quantile(x):
    with mp.workdps(30):
        return mp.sqrt(2) * mp.erfinv(2 * mp.mpf(x) - 1)


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 3.0])
def test_gaussian_trade_off(mu):
    """f(x) = Phi(Phi^-1(1 - x) - mu): never exceeded, and met to the grid's accuracy."""
    with mp.workdps(30):
        exact = np.array([float(mp.ncdf(quantile(1 - mp.mpf(x)) - mp.mpf(mu))) for x in RATES])
    found = trade_off(mechanisms.Gaussian(1 / mu), PLD, RATES)
    assert np.all(found <= exact * (1 + 1e-9))
    np.testing.assert_allclose(found, exact, atol=2e-3)


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("rate", [1e-3, 0.01, 0.1])
def test_gaussian_true_positive_rate(mu, rate):
    with mp.workdps(30):
        exact = float(mp.ncdf(mp.mpf(mu) + quantile(rate)))
    found = true_positive_rate(mechanisms.Gaussian(1 / mu), PLD, false_positive_rate=rate)
    assert exact * (1 - 1e-9) <= found <= exact + 3e-3


@pytest.mark.parametrize("mu", [1e-3, 0.5, 2.0])
def test_gaussian_advantage(mu):
    """2 Phi(mu / 2) - 1."""
    with mp.workdps(30):
        exact = 2 * mp.ncdf(mp.mpf(mu) / 2) - 1
        bounds = advantage(mechanisms.Gaussian(1 / mu), PLD)
        assert bounds.lower <= exact <= bounds.upper <= exact * (1 + mp.mpf("1e-8"))


def test_sampled_run_obeys_its_epsilons():
    """No attack on a run beats what its (epsilon, delta) pairs allow; nor does the bound claim less than advantage."""
    run = mechanisms.repeat(mechanisms.PoissonSampled(mechanisms.Gaussian(1.1), 0.01), 1000)
    rates = np.linspace(0.01, 0.99, 25)
    curve = trade_off(run, PLD, rates)
    assert np.all(np.diff(curve) <= 1e-12)
    worst = float(np.max(1 - rates - curve))
    assert worst <= advantage(run, PLD).upper * (1 + 1e-9)
    assert worst >= 0.9 * advantage(run, PLD).lower


def test_nothing_released_leaves_guessing():
    nothing = mechanisms.repeat(mechanisms.Gaussian(1.0), 0)
    np.testing.assert_allclose(trade_off(nothing, PLD, [0.0, 0.25, 1.0]), [1.0, 0.75, 0.0])
    assert advantage(nothing, PLD).upper == 0


def test_no_protection_leaves_no_error():
    assert trade_off(mechanisms.Gaussian(0.0), PLD, [0.0, 0.5]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan, "half"])
def test_bad_rate_is_named(rate):
    with pytest.raises(ValueError, match="false_positive_rate"):
        true_positive_rate(mechanisms.Gaussian(1.0), PLD, false_positive_rate=rate)
