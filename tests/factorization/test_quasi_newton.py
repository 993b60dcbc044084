"""The quasi-Newton method on functions whose minimum is known."""

import itertools

import numpy as np
import pytest

from dpkit.factorization.quasi_newton import Point, descend


def minimise(evaluate, x, precondition=np.copy):
    points = list(descend(evaluate, evaluate(np.asarray(x, dtype=float)), precondition))
    values = [point.value for point in points]
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))
    return points


def test_a_quadratic_function():
    rng = np.random.default_rng(0)
    M = rng.normal(size=(30, 30))
    H, x = M @ M.T + 0.1 * np.eye(30), rng.normal(size=30)
    points = minimise(lambda y: Point(y, float((y - x) @ H @ (y - x)), 2 * H @ (y - x)), np.ones(30))
    np.testing.assert_allclose(points[-1].x, x, atol=1e-5)


def test_an_exact_inverse_hessian_saves_steps():
    scales = np.logspace(0, 6, 40)

    def evaluate(y):
        return Point(
            y, float(np.sum(scales * (y - 1) ** 2 + scales * (y - 1) ** 4)), scales * (2 * (y - 1) + 4 * (y - 1) ** 3)
        )

    plain = minimise(evaluate, np.linspace(1.1, 2, 40))
    shaped = minimise(evaluate, np.linspace(1.1, 2, 40), lambda g: g / scales)
    np.testing.assert_allclose(shaped[-1].x, 1, atol=1e-6)
    assert len(shaped) < len(plain) / 2


def test_points_where_the_function_is_not_finite_are_avoided():
    def barrier(y):
        return Point(y, float(y[0] - np.log(y[0])), 1 - 1 / y) if y[0] > 0 else None

    for start in (1e-3, 0.5, 20.0):
        assert minimise(barrier, [start])[-1].x[0] == pytest.approx(1, abs=1e-6)


def test_it_does_not_leave_a_stationary_point():
    assert not minimise(lambda y: Point(y, float(y @ y), 2 * y), [0.0, 0.0])
