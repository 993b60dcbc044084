"""Divergences of rectified and truncated laws against 30 digits and more."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpkit.numerics.bounded_gaussian import (
    log_tail_ratio,
    rectified_hockey_stick,
    rectified_renyi,
    truncated_hockey_stick,
    truncated_renyi,
)
from mechanisms import exact_bounded
from mechanisms.exact import mp
from mechanisms.exact_bounded import exactly

ORDERS = [1.5, 2.0, 7.3, 64.0, 1024.0]
SMALLEST = 1e-290
PLACES = st.one_of(st.floats(-7, 12), st.sampled_from([-2.0, 0.0, 3.0]), st.floats(-35, 35))
SHIFTS = st.builds(lambda log, sign: sign * 10**log, st.floats(-6.5, 0.9), st.sampled_from([-1, 1]))
WIDTHS = st.one_of(st.floats(-3, 1.5).map(lambda log: 10**log), st.just(3.0))


def relative(value: float, truth) -> float:
    return float(abs(mp.mpf(value) - truth) / truth)


@given(st.sampled_from(ORDERS), PLACES, SHIFTS, WIDTHS)
@example(1024.0, -30.0, 1e-6, 3.0)
@example(1.5, 33.0, -1e-6, 3.0)
@example(1024.0, 1.0, 5.0, 3.0)
@example(64.0, 3.0, 0.5, 1e-3)
def test_truncated_renyi(order, position, shift, width):
    first = position + shift
    truth = exactly(exact_bounded.truncated_renyi, order, first, position, width)
    value = float(truncated_renyi(order, position, first - position, width))
    assert relative(value, truth) < 1e-11


@given(st.sampled_from(ORDERS), PLACES, SHIFTS, WIDTHS)
@example(1024.0, -20.0, 1e-6, 3.0)
@example(1.5, 20.0, -1e-6, 3.0)
@example(1024.0, 1.0, 5.0, 3.0)
@example(64.0, 3.0, 0.5, 1e-3)
@example(2.0, 1.0, 1e-6, 30.0)
def test_rectified_renyi(order, position, shift, width):
    first = position + shift
    truth = exactly(exact_bounded.rectified_renyi, order, first, position, width, digits=350)
    value = float(rectified_renyi(order, position, first - position, width))
    if truth < SMALLEST:
        assert 0 < value <= 2 * SMALLEST
    else:
        assert relative(value, truth) < 1e-11


@pytest.mark.parametrize("distance", [1e4, 1e6, 1e9])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shift", [1e-6, 0.5, -3.0])
def test_truncated_renyi_far_outside(distance, order, shift):
    """So far that the box's other end is beyond e^-40000: half a line, whose normalizers are Mills ratios."""
    a, s, u = mp.mpf(order), mp.mpf(shift), mp.mpf(distance)

    def log_mills(t):
        # The continued fraction converges fast out here.
        x, fraction = u + t * s, mp.zero
        for k in range(60, 0, -1):
            fraction = k / (x + fraction)
        return -mp.log(x + fraction)

    with mp.workdps(80):
        truth = (log_mills(a) - a * log_mills(1) - (1 - a) * log_mills(0)) / (a - 1)
    assert relative(float(truncated_renyi(order, 4.0 + distance, shift, 4.0)), truth) < 1e-11


@given(st.floats(-3, 12), PLACES, SHIFTS, WIDTHS)
@example(0.0, 1.0, 1e-6, 3.0)
@example(1e-7, 1.0, 1e-6, 3.0)
@example(2.0, 0.0, 1.5, 3.0)
@example(-1.0, 0.0, 1.5, 3.0)
def test_hockey_sticks(epsilon, position, shift, width):
    first = position + shift
    # Epsilons on the scale of the loss as well as any.
    for scaled in (epsilon, epsilon * abs(first - position)):
        for ours, definition in (
            (truncated_hockey_stick, exact_bounded.truncated_profile),
            (rectified_hockey_stick, exact_bounded.rectified_profile),
        ):
            truth = exactly(definition, scaled, first, position, width, digits=350)
            value = ours(scaled, position, first - position, width)
            # An ulp of the crossing moves the tail by its distance from the location.
            distance = abs(scaled / (first - position)) + abs(position) + width
            if truth > SMALLEST:
                assert relative(value, truth) < 1e-10 + 2e-15 * min(distance, 60.0) ** 2, ours
            else:
                assert 0 <= value <= 2 * SMALLEST


@pytest.mark.parametrize("x", [-40.0, -5.0, 0.0, 3.0, 8.0, 30.0])
@pytest.mark.parametrize("shift", [1e-9, 0.3, 1.0, 1.1, 4.0, 50.0])
def test_log_tail_ratio(x, shift):
    with mp.workdps(800):
        truth = mp.log(mp.ncdf(mp.mpf(x) + mp.mpf(shift)) / mp.ncdf(x))
    if truth > SMALLEST:
        assert relative(log_tail_ratio(x, shift), truth) < 1e-11


@pytest.mark.parametrize("divergence", [truncated_renyi, rectified_renyi])
def test_identities(divergence):
    assert float(divergence(2.0, 1.0, 0.0, 3.0)) == 0
    # A wide box is none.
    np.testing.assert_allclose(divergence(ORDERS[:3], 50.0, 1.0, 100.0), np.array(ORDERS[:3]) / 2, rtol=1e-13)
    # Reflection.
    np.testing.assert_allclose(divergence(ORDERS, 0.7, 1.3, 3.0), divergence(ORDERS, 2.3, -1.3, 3.0), rtol=1e-12)
    # Below the Gaussian, growing with the order, to the largest loss.
    values = divergence([*ORDERS, 1e5, 1e7, math.inf], 2.8, 0.6, 3.0)
    assert np.all(values <= np.array([*ORDERS, 1e5, 1e7, math.inf]) * 0.18)
    assert np.all(np.diff(values) > 0)
    assert values[-1] == pytest.approx(values[-2], rel=1e-4)
    assert divergence(2.0, 2.8, 0.6, 3.0) != pytest.approx(float(divergence(2.0, 3.4, -0.6, 3.0)), rel=1e-3)


@given(st.sampled_from([1.01, *ORDERS]), PLACES, SHIFTS, WIDTHS, st.floats(1.0, 2.0))
def test_divergences_grow_with_the_change_at_either_fixed_end(order, position, shift, width, factor):
    for divergence in (truncated_renyi, rectified_renyi):
        near = float(divergence(order, position, shift, width))
        assert float(divergence(order, position, factor * shift, width)) >= near * (1 - 1e-10)
        moved = position - (factor - 1) * shift
        assert float(divergence(order, moved, factor * shift, width)) >= near * (1 - 1e-9)


@pytest.mark.parametrize(("position", "shift"), list(itertools.product([-1.0, 1.0, 6.0], [0.3, -2.0])))
def test_order_one_is_the_slope_of_the_moments(position, shift):
    # D_order is continuous at 1; the order's own rounding is all that is lost.
    for divergence in (truncated_renyi, rectified_renyi):
        near = divergence([1.001, 1.0001, 1.00001], position, shift, 4.0)
        assert near[2] == pytest.approx(near[1] - (near[0] - near[1]) / 10, rel=1e-5)
