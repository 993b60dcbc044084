"""Special functions against 50 digits, tails and cancellation points included."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpkit.numerics.exponential import exp_remainder
from dpkit.numerics.gaussian_mixture import log_likelihood_ratio
from dpkit.numerics.normal import normal_interval, shifted_normal_delta
from mechanisms.exact import log_ratio, mp

SMALLEST = 1e-290


def relative(value: float, truth) -> float:
    return float(abs(mp.mpf(float(value)) - truth) / abs(truth))


@given(st.floats(-700, 700))
@example(0.5)
@example(-0.5)
@example(math.nextafter(0.5, 0))
@example(math.nextafter(-0.5, 0))
@example(1e-150)
@example(-1e-8)
def test_exp_remainder(x):
    with mp.workdps(400):
        truth = mp.expm1(x) - mp.mpf(x)
    if abs(truth) > SMALLEST:
        assert relative(float(exp_remainder(x)), truth) < 3e-15
    else:
        assert 0 <= float(exp_remainder(x)) <= 2 * SMALLEST


def test_exp_remainder_is_elementwise():
    x = np.array([[-1.0, 0.0], [1e-9, 2.0]])
    np.testing.assert_array_equal(exp_remainder(x), [[float(exp_remainder(v)) for v in row] for row in x])


@given(st.floats(-37, 37), st.floats(0, 30))
@example(0.0, 1e-300)
@example(5.0, 0.1)
@example(5.0, math.nextafter(0.1, 0))
@example(-0.05, 0.1)
@example(-0.05, 0.09999)
@example(37.0, 1e-12)
@example(-37.0, 0.09)
def test_normal_interval(low, width):
    sign = -1 if low > 0 else 1
    with mp.workdps(350):
        high = mp.mpf(low) + mp.mpf(width)
        truth = abs(mp.ncdf(sign * high) - mp.ncdf(sign * mp.mpf(low)))
    value = float(normal_interval(low, width))
    if truth > SMALLEST:
        # An ulp of x moves the density by x^2 ulps; from width 0.1 on, one of the endpoint moves the mass by 10 |x|.
        assert relative(value, truth) < 1e-15 * (5 + low**2 + (10 * abs(low) if width >= 0.1 else 0))
    else:
        assert 0 <= value <= 2 * SMALLEST


@given(st.floats(-9, 2.5), st.floats(-40, 40))
@example(-9.0, 0.0)
@example(0.0, 0.5)
@example(2.0, 0.0)
@example(-1.7, 30.0)
def test_shifted_normal_delta(log_mu, u):
    """Anywhere from where one world is sure to where delta is 1e-300, mu from 1e-9 to 300."""
    mu = 10**log_mu
    epsilon = mu * (u + mu / 2)
    if abs(epsilon) > 700:
        return
    x, shift = mp.mpf(epsilon), mp.mpf(mu)
    if epsilon >= 0:
        truth = mp.ncdf(shift / 2 - x / shift) - mp.exp(x) * mp.ncdf(-shift / 2 - x / shift)
    else:
        other = mp.ncdf(shift / 2 + x / shift) - mp.exp(-x) * mp.ncdf(-shift / 2 + x / shift)
        truth = -mp.expm1(x) + mp.exp(x) * other
    value = shifted_normal_delta(mu, epsilon)
    if truth > SMALLEST:
        # An ulp of epsilon moves u = epsilon/mu by an ulp of itself, and the tail by |u| times that.
        assert relative(value, truth) < 1e-14 * (10 + u**2)
    else:
        assert 0 <= value <= 2 * SMALLEST


@pytest.mark.parametrize("epsilon", [-800.0, -1.0, 0.0, 1.0, 800.0])
def test_identical_normals_differ_by_nothing(epsilon):
    assert shifted_normal_delta(0.0, epsilon) == pytest.approx(max(0.0, -math.expm1(min(epsilon, 0.0))), rel=1e-15)


@given(st.floats(0.01, 5), st.floats(0, 5))
def test_negative_epsilon_is_the_other_direction(mu, epsilon):
    # delta(-e) = 1 - e^-e + e^-e delta_reversed(e); a Gaussian pair is its own reverse.
    linked = -math.expm1(-epsilon) + math.exp(-epsilon) * shifted_normal_delta(mu, epsilon)
    assert shifted_normal_delta(mu, -epsilon) == pytest.approx(linked, rel=1e-13)


@pytest.mark.parametrize("components", [1, 2, 7, 50])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 50.0])
def test_log_likelihood_ratio(components, sigma):
    # Weights that are multiples of a power of two sum to 1 exactly.
    counts = np.diff(
        np.concatenate([[0], np.sort(np.random.default_rng(3).integers(1, 2**20, components - 1)), [2**20]])
    )
    weights, locations = counts / 2**20, np.arange(components) * 0.5 + 0.25
    scaled = locations / sigma
    x = np.concatenate([np.linspace(-40, 40, 9), [scaled[-1] / 2 + 1e-9, 1e-12]])
    values = log_likelihood_ratio(x, scaled, np.log(weights))
    exact = [mp.mpf(c) for c in scaled]
    for point, value in zip(x.tolist(), values.tolist(), strict=True):
        truth = log_ratio(mp.mpf(point), exact, [mp.mpf(w) for w in weights])
        # Relative accuracy, but for cancellation between the terms of one exponent.
        size = max(float(abs(c * point) + c * c / 2) for c in exact)
        assert abs(value - float(truth)) <= 4e-15 * abs(float(truth)) + 8e-16 * size, point
