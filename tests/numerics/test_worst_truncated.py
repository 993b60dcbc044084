"""Worst pairs of truncated laws: no pair found by any search is worse, and some pair is nearly as bad."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import optimize

from dpkit.numerics.bounded_gaussian import truncated_hockey_stick, truncated_renyi
from dpkit.numerics.restricted_normal import restricted_normal
from dpkit.numerics.worst_truncated import EVERYWHERE, largest_variance, worst_profile, worst_renyi

ORDERS = [1.001, 1.5, 2.0, 7.3, 64.0, 1024.0]
SETTINGS = [
    (1.0, 2.0, EVERYWHERE),
    (1e-6, 2.0, EVERYWHERE),
    (0.01, 2.0, EVERYWHERE),
    (0.3, 8.0, EVERYWHERE),
    (3.0, 6.0, EVERYWHERE),
    (1.0, 30.0, EVERYWHERE),
    (0.5, 0.1, EVERYWHERE),
    (1.0, 6.0, (0.0, 6.0)),
    (1.0, 6.0, (4.0, 9.0)),
    (1e-4, 6.0, (4.0, 9.0)),
    (1.0, 4.0, (-3.0, -1.0)),
    (5.0, 4.0, (1.0, 2.5)),
]


def found_renyi(order, shift, width, reach):
    """The largest divergence that a search over all positions finds."""
    shift = min(shift, reach[1] - reach[0])
    best = 0.0
    for sign in (1, -1):
        # Q's positions; far out nothing happens.
        low = max(reach[0] + (shift if sign < 0 else 0.0), width / 2 - (order + 1) * shift - width)
        high = min(reach[1] - (shift if sign > 0 else 0.0), width / 2 + (order + 1) * shift + width)

        def loss(position, sign=sign):
            return -float(truncated_renyi(order, float(position), sign * shift, width))

        grid = np.linspace(low, high, 60)
        values = [loss(x) for x in grid]
        i = int(np.argmin(values))
        ends = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
        if ends[1] > ends[0]:
            values.append(optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-9}).fun)
        best = max(best, -min(values))
    return best


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_renyi_is_what_a_search_finds(order, setting):
    bound, found = float(worst_renyi(order, *setting)), found_renyi(order, *setting)
    assert bound >= found * (1 - 1e-12)
    # The search is as fine as the square root of rounding.
    assert bound <= found * (1 + 1e-7)


POSITION, WIDTH = st.floats(-12, 12), st.floats(-2, 1.3).map(lambda log: 10**log)


@given(
    st.floats(-2, 3), WIDTH, st.floats(-5, 0.7), st.floats(0, 1), st.sampled_from([-1, 1]), POSITION, st.floats(0, 10)
)
@example(0.0, 1.0, 0.0, 1.0, 1, 0.0, 0.0)
def test_no_pair_beats_the_worst_renyi(log_order, width, log_shift, part, sign, position, room):
    order, shift = 1 + 10**log_order, 10**log_shift
    change = (position + sign * part * shift) - position
    assume(0 < abs(change) <= shift)
    pair = float(truncated_renyi(order, position, change, width))
    assert pair <= float(worst_renyi(order, shift, width)) * (1 + 1e-12)
    ends = sorted([position, position + change])
    within = float(worst_renyi(order, shift, width, (ends[0], ends[1] + room)))
    assert pair <= within * (1 + 1e-11)
    assert within <= float(worst_renyi(order, shift, width)) * (1 + 1e-8)


@pytest.mark.parametrize(("shift", "width"), [(1.0, 2.0), (0.2, 5.0), (3.0, 1.0), (1e-3, 2.0)])
def test_bounds_in_closed_form(shift, width):
    values, variance = worst_renyi(ORDERS, shift, width), largest_variance(width)
    ceiling = np.array(ORDERS) * shift**2 / 2
    assert np.all(values <= ceiling * variance * (1 + 1e-15))
    assert variance <= min(1.0, width**2 / 12)
    assert np.all(values <= shift * width)
    assert worst_renyi(math.inf, shift, width) == shift * width
    # Riesz: no position of the triangle does better than a symmetric one about the middle; order 2 is that one.
    t, weights = np.polynomial.legendre.leggauss(200)
    for order, value in zip(ORDERS, values.tolist(), strict=True):
        if order * shift > 100:
            continue
        half = (t + 1) / 2 * order / 2
        kernel = weights / 2 * order / 2 * (1 - 2 * half / order)
        rearranged = 2 * shift**2 * kernel @ restricted_normal(-width / 2 - shift * half, width).variance
        assert value <= rearranged * (1 + 1e-8)
        if order == 2:
            assert value == pytest.approx(rearranged, rel=1e-10)


@pytest.mark.parametrize("reach", [(1.0, 1.0), (2.0, 2.0)])
def test_a_known_value_tells_nothing(reach):
    assert worst_renyi(2.0, 1.0, 3.0, reach) == 0
    assert worst_profile([0.0], 1.0, 3.0, reach).tolist() == [0.0]


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s[0] >= 1e-4 and s[1] < 20], ids=str)
def test_profile_is_what_a_search_finds(setting):
    shift, width, reach = setting
    shift = min(shift, reach[1] - reach[0])
    largest = float(worst_renyi(math.inf, shift, width, reach))
    away = 30 + 30 / width
    for share in (0.0, 0.03, 0.2, 0.5, 0.8):
        epsilon = share * largest
        bound = float(worst_profile([epsilon], shift, width, reach)[0])
        best = 0.0
        for sign in (1, -1):
            low = max(reach[0] + (shift if sign < 0 else 0.0), -shift - away)
            high = min(reach[1] - (shift if sign > 0 else 0.0), width + away)

            def loss(position, epsilon=epsilon, sign=sign):
                return -truncated_hockey_stick(epsilon, float(position), sign * shift, width)

            grid = np.linspace(low, high, 500)
            values = [loss(x) for x in grid]
            i = int(np.argmin(values))
            ends = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
            if ends[1] > ends[0]:
                values.append(optimize.minimize_scalar(loss, bounds=ends, method="bounded").fun)
            best = max(best, -min(values))
        assert best * (1 + 1e-9) <= bound <= best * (1 + 2e-5) + 1.1e-300


@given(WIDTH, st.floats(-4, 0.7), st.floats(0, 1), st.sampled_from([-1, 1]), POSITION, st.floats(0, 1))
def test_no_pair_beats_the_worst_profile(width, log_shift, part, sign, position, share):
    shift = 10**log_shift
    change = (position + sign * part * shift) - position
    assume(0 < abs(change) <= shift)
    epsilon = share * shift * width
    pair = truncated_hockey_stick(epsilon, position, change, width)
    assert pair <= float(worst_profile([epsilon], shift, width)[0])
