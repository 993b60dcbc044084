"""Restricted normal laws against quadrature with 40 digits."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpkit.numerics.restricted_normal import log_normal_interval, mean_decay, mean_excess, restricted_normal
from mechanisms.exact import mp
from mechanisms.exact_bounded import log_interval

PLACES = [(0.0, 1.0), (-3.0, 6.0), (-0.5, 1e-6), (2.0, 1e-3), (5.0, 40.0), (-45.0, 40.0), (30.0, 1.0), (-40.0, 80.0)]
PLACES += [(1e6, 1.0), (-1e6 - 1.0, 1.0), (-1e4, 2e4), (-9.5, 300.0), (0.1, 1e5), (-0.1, 9.58), (37.0, 1e-8)]


def weighted(low: float, width: float, functions):
    """Integrals of functions of the distance y from the low end, over e^{-(low + y)^2/2} up to a factor."""
    with mp.workdps(40):
        low, width = mp.mpf(low), mp.mpf(width)
        # The distance of the densest point, and how far from it e^-120 is reached.
        peak = min(max(-low, mp.zero), width)
        slope = abs(low + peak)
        length = 240 / (slope + mp.sqrt(slope**2 + 240))
        ends = max(peak - length, mp.zero), min(peak + length, width)
        points = mp.linspace(*ends, 25)

        def density(y):
            return mp.exp(-((low + y) ** 2 - (low + peak) ** 2) / 2)

        return [mp.quad(lambda y, f=f: f(y) * density(y), points) for f in functions]


@pytest.mark.parametrize(("low", "width"), PLACES)
def test_moments(low, width):
    one, first = weighted(low, width, [lambda _: 1, lambda y: y])
    mean = first / one
    (square,) = weighted(low, width, [lambda y: (y - mean) ** 2])
    law = restricted_normal(low, width)
    assert float(law.from_low) == pytest.approx(float(mean), rel=3e-13)
    assert float(law.from_high) == pytest.approx(float(mp.mpf(width) - mean), rel=3e-13)
    assert float(law.variance) == pytest.approx(float(square / one), rel=1e-13)
    assert float(law.log_extent) == pytest.approx(float(mp.log(one)), rel=1e-13, abs=1e-13)


@given(st.floats(-30, 30), st.floats(-6, 2))
@example(-1.0, np.log10(2.0))
def test_log_of_an_interval(low, log_width):
    width = 10**log_width
    with mp.workdps(60 + round(max(abs(low), abs(low + width), 10) ** 2 / 2)):
        truth = float(log_interval(mp.mpf(low), mp.mpf(low) + mp.mpf(width)))
    assert float(log_normal_interval(low, width)) == pytest.approx(truth, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("rate", [1e-9, 0.3, 1.0, 1.5, 20.0])
@pytest.mark.parametrize(("low", "width"), PLACES)
def test_decays(low, width, rate):
    s = mp.mpf(rate)
    with mp.workdps(40):
        one, decay, excess = weighted(
            low, width, [lambda _: 1, lambda y: -mp.expm1(-s * y), lambda y: -mp.expm1(-s * y) * y]
        )
    found = mean_excess(np.array(low), np.array(width), rate)
    # For long shifts two means are subtracted, where nothing depends on the last digits.
    assert float(found) == pytest.approx(float(excess / decay), rel=1e-12 if rate <= 1 else 1e-6)
    if rate <= 1:
        assert float(mean_decay(low, width, rate)) == pytest.approx(float(decay / one), rel=1e-12)


def test_moments_are_elementwise():
    low = np.array([[-1.0, 0.5], [30.0, -80.0]])
    whole = restricted_normal(low, 2.0)
    for index in np.ndindex(low.shape):
        one = restricted_normal(low[index], 2.0)
        assert [float(x[index]) for x in whole] == pytest.approx([float(x) for x in one], rel=1e-15)


@pytest.mark.parametrize("width", [1e-3, 1.0, 4.0, 30.0])
def test_variance_falls_away_from_the_middle(width):
    middle = -width / 2
    distances = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, 300)])
    right, left = (restricted_normal(middle + sign * distances, width).variance for sign in (1, -1))
    np.testing.assert_allclose(right, left, rtol=1e-12)
    assert np.all(np.diff(right) <= 1e-14 * right[:-1])
    assert right[0] <= min(1.0, width**2 / 12) * (1 + 1e-14)
