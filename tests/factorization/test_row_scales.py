"""The best scales of windows against a general convex solver, and the loss that eliminates them against differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize as scipy_optimize

from dpkit.factorization import FixedEpoch, MinSep
from dpkit.factorization.row_scales import UNSCALED, RowScales, best_squares, log_loss, window_starts

positive = st.floats(0.01, 10)
pairs = st.lists(st.tuples(positive, positive), min_size=1, max_size=5)


def product(errors, sensitivities, u):
    return (errors @ (1 / u)) * (sensitivities @ u)


@given(pairs)
def test_best_squares_are_not_beaten(values):
    errors, sensitivities = np.array(values).T
    u = best_squares(errors, sensitivities)
    assert u[0] == 1
    assert np.all(np.diff(u) <= 0)
    least = product(errors, sensitivities, u)
    assert least <= product(errors, sensitivities, np.ones(len(u))) * (1 + 1e-14)

    def of_descents(v):
        return np.log(product(errors, sensitivities, np.exp(-np.cumsum(v))))

    bounds = scipy_optimize.Bounds(np.zeros(len(u)), np.full(len(u), 20.0))
    found = scipy_optimize.minimize(of_descents, np.full(len(u), 0.1), method="L-BFGS-B", bounds=bounds)
    assert np.log(least) <= found.fun + 1e-12


def test_pools_by_hand():
    # The quotients 4, 1, 9 do not descend after the first: 1 and 9 pool to (1 + 9) / (1 + 1).
    np.testing.assert_allclose(best_squares(np.array([36.0, 1, 9]), np.array([1.0, 1, 1])), [1, *[(5 / 36) ** 0.5] * 2])
    # All rise: nothing to scale.
    np.testing.assert_array_equal(best_squares(np.array([1.0, 2, 3]), np.ones(3)), np.ones(3))


def test_log_loss_is_the_least_over_the_scales_and_its_gradient_the_envelope():
    rng = np.random.default_rng(0)
    A, B = rng.uniform(0.5, 1.5, (2, 4, 3))

    def shares(M):
        return lambda x: (np.exp(M @ x), lambda weights: (weights * np.exp(M @ x)) @ M)

    def loss(x):
        return log_loss(shares(A)(x), shares(B)(x))

    x = np.array([0.3, -0.2, 0.5])
    value, gradient = loss(x)
    errors, sensitivities = np.exp(A @ x), np.exp(B @ x)
    u = best_squares(errors, sensitivities)
    assert value == pytest.approx(np.log(product(errors, sensitivities, u)), rel=1e-14)
    numeric = [(loss(x + e)[0] - loss(x - e)[0]) / 2e-6 for e in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-7)


@pytest.mark.parametrize(("window", "squares", "n"), [(3, [1.0, 0.5, 0.2], 8), (3, [1.0, 0.5], 20), (5, [1.0, 0.5], 4)])
def test_row_scales(window, squares, n):
    scales = RowScales(window, np.array(squares))
    by_step = np.array([squares[min(t // window, len(squares) - 1)] for t in range(n)])
    np.testing.assert_array_equal(scales.at(np.arange(n)), by_step)
    noise = np.zeros(n)
    for start, increment in zip(*scales.noise_increments(n), strict=True):
        noise[start:] += increment
    np.testing.assert_allclose(noise, 1 / by_step, rtol=1e-15)
    assert list(scales.starts(n)) == [t for t in range(n) if t % window == 0 and t // window < len(squares)]


def test_no_scale_costs_nothing_in_a_long_run():
    starts, increments = UNSCALED.noise_increments(10**12)
    assert (list(starts), list(increments)) == ([0], [1.0])


def test_window_starts():
    assert list(window_starts(MinSep(10, 3, 2), scaled=True)) == [0, 3]
    assert list(window_starts(FixedEpoch(12, 3), scaled=True)) == [0, 4, 8]
    assert list(window_starts(MinSep(10, 3, 2), scaled=False)) == [0]
