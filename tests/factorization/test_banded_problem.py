"""Where the search for a banded strategy begins, and what shapes its steps."""

import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit.factorization.banded_preconditioner import preconditioner
from dpkit.factorization.banded_problem import Problem, toeplitz_start
from dpkit.factorization.column_norms import norm_set


def problem_for(schema, num_bands, order=1.0):
    n = schema.iterations
    inverse = fz.momentum_sgd(momentum=0.5).inverse_bands(n)
    return Problem(inverse, num_bands, norm_set("optimal", schema), np.full(n, 1 / n), order)


@pytest.mark.parametrize("schema", [fz.SingleParticipation(40), fz.MinSep(40, 10), fz.FixedEpoch(40, 4)], ids=str)
@pytest.mark.parametrize("order", [1.0, 16.0])
def test_a_preconditioner_is_positive_definite_and_symmetric(schema, order):
    problem = problem_for(schema, 6, order)
    x = toeplitz_start(problem)
    apply = preconditioner(problem, x)
    rng = np.random.default_rng(0)
    free = np.abs(problem.evaluate(x).gradient) > 0
    for _ in range(10):
        u, v = (np.where(free, rng.normal(size=len(x)), 0) for _ in range(2))
        assert u @ apply(v) == pytest.approx(v @ apply(u), rel=1e-9)
        assert u @ apply(u) > 0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_preconditioner_makes_the_curvature_alike_in_all_directions(momentum):
    n, b, step = 96, 4, 1e-5
    inverse = fz.momentum_sgd(momentum=momentum).inverse_bands(n)
    problem = Problem(inverse, b, norm_set("equal", fz.SingleParticipation(n)), np.full(n, 1 / n))
    x = toeplitz_start(problem)
    ahead, behind = ([problem.evaluate(x + h * e).gradient for e in np.eye(n * b)] for h in (step, -step))
    H = (np.array(ahead) - np.array(behind)) / (2 * step)
    # Away from the ends of the run, along the spheres that the columns are on.
    free = np.zeros((n * b, 0))
    for t in range(n // 4, 3 * n // 4):
        sphere = np.linalg.svd(x[None, t * b : (t + 1) * b])[2][1:]
        free = np.hstack([free, np.vstack([np.zeros((t * b, b - 1)), sphere.T, np.zeros(((n - t - 1) * b, b - 1))])])
    apply = preconditioner(problem, x)
    P = np.array([apply(e) for e in np.eye(n * b)])
    raw = np.linalg.eigvalsh(free.T @ H @ free)
    shaped = np.sort(np.linalg.eigvals(free.T @ P @ free @ free.T @ H @ free).real)
    assert raw[0] > 0
    assert shaped[0] > 0
    assert raw[-1] / raw[0] > 12
    assert shaped[-1] / shaped[0] < 4


def test_the_start_has_columns_that_are_alike_and_no_such_x_near_it_is_better():
    problem = problem_for(fz.SingleParticipation(60), 4)
    x = toeplitz_start(problem)
    columns = x.reshape(60, 4)
    np.testing.assert_allclose(columns[:57], np.tile(columns[0], (57, 1)), rtol=1e-12)
    best = problem.evaluate(x).value
    assert best < problem.evaluate(problem.square_root()).value
    rng = np.random.default_rng(0)
    for _ in range(20):
        near = problem.from_columns(columns[0] + 0.05 * rng.normal(size=4), np.ones(60))
        assert problem.evaluate(near).value > best - 1e-6


def test_rows_and_columns_are_two_ways_to_say_the_same():
    problem = problem_for(fz.SingleParticipation(30), 3)
    trial = problem.evaluate(problem.square_root())
    np.testing.assert_allclose(problem.from_rows(trial.C), trial.x, atol=1e-14)


def test_a_prior_is_a_distribution_and_nowhere_zero():
    prior = problem_for(fz.SingleParticipation(30), 3).with_prior(np.eye(30)[3]).prior
    assert np.sum(prior) == pytest.approx(1, abs=1e-14)
    assert np.min(prior) > 0
    assert np.argmax(prior) == 3
