"""Moments after sampling against the binomial sum in 50 digits."""

import math

import numpy as np
import pytest
from mpmath import ctx_mp

from dpkit.numerics.binomial_moments import interpolated_divergence, sampled_log_moments

mp = ctx_mp.MPContext()
mp.dps = 50


@pytest.mark.parametrize("q", [1e-9, 0.01, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 30.0])
def test_binomial_sum(q, scale):
    n = 60
    log_moments = [scale * k * (k - 1) for k in range(n + 1)]
    found = sampled_log_moments(log_moments, q)
    for order in (2, 3, 17, n):
        chance = mp.mpf(q)
        terms = [
            mp.binomial(order, k) * chance**k * (1 - chance) ** (order - k) * mp.exp(mp.mpf(log_moments[k]))
            for k in range(order + 1)
        ]
        truth = float(mp.log(mp.fsum(terms)))
        assert truth * (1 - 1e-13) <= found[order] <= truth * (1 + 1e-10)
    assert found[0] == found[1] == 0


def test_order_1024_is_rounded_up():
    log_moments = np.arange(1025.0) * np.arange(-1.0, 1024.0) / 2e4
    found = sampled_log_moments(log_moments, 0.3)[1024]
    terms = [
        mp.binomial(1024, k) * mp.mpf(0.3) ** k * (1 - mp.mpf(0.3)) ** (1024 - k) * mp.exp(mp.mpf(log_moments[k]))
        for k in range(1025)
    ]
    truth = float(mp.log(mp.fsum(terms)))
    assert truth <= found <= truth * (1 + 1e-10)


def test_nobody_and_everybody():
    np.testing.assert_array_equal(sampled_log_moments([0.0, 0.0, 3.0], 0.0), [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(sampled_log_moments([0.0, 0.0, 3.0], 1.0), [0.0, 0.0, 3.0])


def test_infinite_moments_stay_infinite():
    assert sampled_log_moments([0.0, 0.0, math.inf, math.inf], 0.5)[3] == math.inf
    np.testing.assert_array_equal(
        interpolated_divergence([1.5, 2.0, 2.5], np.array([0.0, 0.0, 1.0, math.inf])), [1.0, 1.0, math.inf]
    )


def test_chords():
    orders = [1.25, 2.0, 2.5, 3.0, 3.5, math.inf]
    np.testing.assert_allclose(
        interpolated_divergence(orders, np.array([0.0, 0.0, 1.0, 4.0])),
        [1.0, 1.0, 2.5 / 1.5, 2.0, math.inf, math.inf],
        rtol=1e-15,
    )
