"""The banded solver against dense gradients, general-purpose solvers, closed forms and published values."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize as scipy_optimize

from dpkit import factorization as fz
from dpkit.factorization import banded_problem, banded_solver
from dpkit.factorization.column_norms import UnitNorms, norm_set

RATES = np.linspace(1.0, 0.1, 64)
WORKLOADS = {
    "prefix sum": fz.prefix_sum(),
    "momentum": fz.momentum_sgd(momentum=0.9),
    "everything": fz.momentum_sgd(momentum=0.95, learning_rates=RATES, weight_decay=0.01),
    "matrix": fz.from_matrix(np.tril(np.random.default_rng(0).random((64, 64))) + np.eye(64)),
}
SMALL = [fz.SingleParticipation(7), fz.FixedEpoch(8, 2), fz.MinSep(8, 3), fz.MinSep(8, 3, 2)]


def problem_for(workload, schema, num_bands, column_norms, order=1.0):
    n = schema.iterations
    prior = np.full(n, 1 / n)
    return banded_problem.Problem(workload.inverse_bands(n), num_bands, norm_set(column_norms, schema), prior, order)


def random_x(problem, schema, seed=0):
    """Columns near those of the square root, and norms within a factor of a few."""
    n, b, rng = schema.iterations, problem.num_bands, np.random.default_rng(seed)
    P = np.where(np.arange(n)[:, None] + np.arange(b) < n, 0.5 ** np.arange(b) * (1 + rng.normal(size=(n, b)) / 4), 0.0)
    v = problem.norms.start(np.ones(n))
    return np.append(P, v * (0.5 + rng.random(len(v))))


def dense(rows):
    n, b = rows.shape
    C = np.zeros((n, n))
    for j in range(min(n, b)):
        C[np.arange(j, n), np.arange(n - j)] = rows[j:, j]
    return C


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("num_bands", [1, 4, 10])
@pytest.mark.parametrize("order", [1.0, 16.0])
def test_loss_and_gradient_are_the_dense_ones(name, num_bands, order):
    n, workload = 30, WORKLOADS[name]
    schema = fz.MinSep(n, 10)
    problem = problem_for(workload, schema, num_bands, "optimal", order)
    point = problem.evaluate(random_x(problem, schema))
    C, A = dense(point.C), workload.matrix(n)
    B = A @ np.linalg.inv(C)
    variances = np.sum(B**2, axis=1)
    np.testing.assert_allclose(point.variances, variances, rtol=1e-10)
    F = np.mean(variances**order) ** (1 / order)
    assert math.exp(point.value) == pytest.approx(F, rel=1e-10)
    weights = (variances / F) ** (order - 1) / n
    gradient = -2 * B.T @ np.diag(weights) @ B @ np.linalg.inv(C).T
    expected = np.array([np.append(np.diag(gradient, -j), np.zeros(j)) for j in range(num_bands)]).T
    found = np.array([np.append(point.dC[j:, j], np.zeros(j)) for j in range(num_bands)]).T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.max(np.abs(expected)))


@pytest.mark.parametrize("schema", [fz.SingleParticipation(12), fz.FixedEpoch(12, 3), fz.MinSep(12, 5)], ids=str)
@pytest.mark.parametrize("order", [1.0, 16.0])
def test_the_gradient_in_all_unknowns_is_that_of_finite_differences(schema, order):
    problem = problem_for(WORKLOADS["momentum"], schema, 3, "optimal", order)
    x = random_x(problem, schema)
    gradient, numeric, step = problem.evaluate(x).gradient, np.zeros_like(x), 1e-5
    for i in range(len(x)):
        shift = step * (np.arange(len(x)) == i)
        numeric[i] = (problem.evaluate(x + shift).value - problem.evaluate(x - shift).value) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)


def test_a_trial_without_a_finite_error_is_refused():
    schema = fz.SingleParticipation(400)
    problem = problem_for(fz.prefix_sum(), schema, 2, "equal")
    x = np.tile([1e-3, 1.0], 400)
    x[-1] = 0
    assert problem.evaluate(x) is None


def best_by_general_solver(workload, schema, num_bands, column_norms, objective):
    """The least squared objective at sensitivity sqrt(k), by definition: dense matrices, one constraint a pattern."""
    n, k, A = schema.iterations, schema.max_participations, workload.matrix(schema.iterations)
    rows, columns = np.nonzero(np.tril(np.ones((n, n))) * (np.subtract.outer(np.arange(n), np.arange(n)) < num_bands))

    def matrix(x):
        C = np.zeros((n, n))
        C[rows, columns] = x[: len(rows)]
        return C

    def variances(x):
        return np.sum((A @ np.linalg.inv(matrix(x))) ** 2, axis=1)

    incidence = np.array([np.isin(np.arange(n), pattern) for pattern in schema.patterns()])
    slack = {
        "type": "ineq",
        "fun": lambda x: (
            1 - np.sum(matrix(x) ** 2, axis=0)
            if column_norms == "equal"
            else k - incidence @ np.sum(matrix(x) ** 2, axis=0)
        ),
    }
    if column_norms == "equal":
        slack["type"] = "eq"
    start = np.where(rows == columns, 0.8, 0.3)
    start = start / np.sqrt(np.bincount(columns, start**2))[columns]
    if objective == "rmse":
        found = scipy_optimize.minimize(
            lambda x: np.mean(variances(x)), start, constraints=[slack], options={"maxiter": 500, "ftol": 1e-13}
        )
    else:
        epigraph = {"type": "ineq", "fun": lambda x: x[-1] - variances(x)}
        found = scipy_optimize.minimize(
            lambda x: x[-1],
            np.append(start, np.max(variances(start))),
            constraints=[slack, epigraph],
            options={"maxiter": 500, "ftol": 1e-9},
        )
    assert found.success
    return found.fun


@pytest.mark.parametrize("schema", SMALL, ids=str)
@pytest.mark.parametrize("column_norms", ["equal", "optimal"])
@pytest.mark.parametrize("objective", ["rmse", "max_error"])
def test_the_optimum_is_that_of_a_general_solver_and_no_certificate_exceeds_it(schema, column_norms, objective):
    workload, num_bands = fz.momentum_sgd(momentum=0.5), 3
    truth = best_by_general_solver(workload, schema, num_bands, column_norms, objective)
    family = fz.Banded(num_bands, column_norms)
    solution = fz.optimize(family, workload, schema, objective=objective)
    reached = getattr(solution, objective) ** 2 / schema.max_participations
    # The general solver stops at about 1e-8; ours is certified.
    assert solution.converged
    assert truth * (1 - 1e-6) <= reached <= truth * (1 + 1e-6 + solution.gap)
    assert 0 <= solution.gap <= banded_solver.TOLERANCES[objective]
    problem = problem_for(workload, schema, num_bands, column_norms, 1.0 if objective == "rmse" else 16.0)
    for seed in range(20):
        cut = problem.evaluate(random_x(problem, schema, seed)).cut()
        assert cut.least(problem.norms) <= truth * (1 + 1e-6)


@pytest.mark.parametrize("column_norms", ["equal", "optimal"])
def test_certificates_near_the_optimum_are_positive_and_below_every_member(column_norms):
    schema, workload, num_bands = fz.MinSep(10, 4), fz.prefix_sum(), 4
    problem = problem_for(workload, schema, num_bands, column_norms)
    best = fz.optimize(fz.Banded(num_bands, column_norms), workload, schema)
    x = problem.from_rows(best.strategy.rows(10))
    rng, losses, bounds = np.random.default_rng(0), [], []
    for size in np.repeat([0.0, 1e-3, 1e-2, 1e-1], 10):
        point = problem.evaluate(x * (1 + size * rng.normal(size=len(x))))
        losses.append(problem.loss(point))
        bounds.append(point.cut().least(problem.norms))
    assert 0 < max(bounds) <= min(losses)


@pytest.mark.parametrize("epochs", [2, 4])
def test_independent_noise_with_a_schedule_has_a_closed_form(epochs):
    # With one band the error is sum_i (n - i) / d_i, and each class has a budget: d is proportional to sqrt(n - i).
    n = 16
    roots = np.sqrt(n - np.arange(n)).reshape(epochs, -1)
    squares = np.sum(np.sum(roots, axis=0) ** 2) / n
    solution = fz.optimize(fz.Banded(num_bands=1), fz.prefix_sum(), fz.FixedEpoch(n, epochs))
    assert solution.rmse == pytest.approx(math.sqrt(squares), rel=1e-4)


@pytest.mark.parametrize(
    ("schema", "num_bands", "column_norms", "workload", "rmse", "max_error"),
    [
        (fz.MinSep(64, 16, 4), 16, "equal", fz.prefix_sum(), 4.585236, 5.5619),
        (fz.MinSep(64, 16, 4), 16, "equal", fz.momentum_sgd(momentum=0.9), 27.412236, None),
        (fz.SingleParticipation(1_024), 32, "equal", fz.prefix_sum(), math.sqrt(23.9934), None),
        (fz.SingleParticipation(2_048), 8, "equal", fz.prefix_sum(), math.sqrt(136.555), None),
        (fz.MinSep(2_052, 342, 6), 32, "equal", fz.prefix_sum(), 15.917, None),
    ],
    ids=str,
)
def test_published_and_recorded_optima(schema, num_bands, column_norms, workload, rmse, max_error):
    solution = fz.optimize(fz.Banded(num_bands, column_norms), workload, schema)
    assert solution.converged
    assert solution.rmse == pytest.approx(rmse, rel=2e-5)
    if max_error is not None:
        assert solution.max_error == pytest.approx(max_error, rel=1e-3)
    assert solution.sensitivity == pytest.approx(math.sqrt(schema.max_participations), rel=1e-11)
    np.testing.assert_allclose(solution.strategy.squared_column_norms(schema.iterations), 1, atol=1e-12)


def test_unequal_norms_beat_one_scale_per_window():
    # 15.314 is the best that norms which are constant on windows of min_sep reach.
    schema = fz.MinSep(2_052, 342, 6)
    solution = fz.optimize(fz.Banded(32), fz.prefix_sum(), schema, callback=lambda progress: progress.gap < 1e-3)
    assert solution.rmse < 15.292
    assert solution.sensitivity <= math.sqrt(6) * (1 + 1e-11)


@pytest.mark.parametrize(
    "schema", [fz.FixedEpoch(60, 4), fz.MinSep(60, 15), fz.MinSep(60, 11), fz.MinSep(60, 11, 3)], ids=str
)
def test_optimal_norms_are_never_worse_than_equal_ones(schema):
    workload = WORKLOADS["everything"]
    equal, optimal = (fz.optimize(fz.Banded(8, norms), workload, schema) for norms in ("equal", "optimal"))
    assert optimal.converged
    assert equal.converged
    assert optimal.rmse < equal.rmse


def test_more_bands_than_steps_are_padded():
    solution = fz.optimize(fz.Banded(num_bands=9), fz.prefix_sum(), fz.SingleParticipation(4))
    assert solution.strategy.num_bands == 9
    dense_optimum = fz.optimize(fz.Banded(num_bands=4), fz.prefix_sum(), fz.SingleParticipation(4))
    assert solution.rmse == pytest.approx(dense_optimum.rmse, rel=1e-9)


def test_the_error_falls_with_the_bands():
    errors = [fz.optimize(fz.Banded(b), fz.prefix_sum(), fz.MinSep(60, 20)).rmse for b in (1, 2, 4, 8, 16, 20)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))


def test_progress_is_reported_and_a_true_answer_stops():
    seen = []
    schema = fz.SingleParticipation(4_096)
    solution = fz.optimize(
        fz.Banded(16), fz.prefix_sum(), schema, callback=lambda p: seen.append(p) or p.iterations >= 20
    )
    assert [p.iterations for p in seen] == [0, 10, 20]
    assert seen[-1].error == pytest.approx(solution.rmse, rel=1e-9)
    assert seen[0].gap >= seen[-1].gap == solution.gap
    assert not solution.converged
    assert "callback" in solution.message


@pytest.mark.parametrize("objective", ["rmse", "max_error"])
def test_an_interrupted_search_keeps_the_best_and_can_be_resumed(objective):
    schema, workload = fz.MinSep(128, 32), fz.prefix_sum()

    def interrupt(progress):
        if progress.iterations == 30:
            raise KeyboardInterrupt

    partial = fz.optimize(fz.Banded(16), workload, schema, objective=objective, callback=interrupt)
    assert not partial.converged
    assert "interrupted" in partial.message
    start = fz.optimize(fz.Banded(16), workload, schema, objective=objective, callback=lambda _: True)
    assert getattr(partial, objective) < getattr(start, objective)
    resumed = fz.optimize(partial.strategy, workload, schema, objective=objective)
    assert resumed.converged
    assert getattr(resumed, objective) < getattr(partial, objective)


def interrupt(*_):
    raise KeyboardInterrupt


def check_it_is_valid_but_unconverged(solution, schema):
    assert not solution.converged
    assert "interrupted" in solution.message
    assert solution.gap == 1
    assert solution.sensitivity == pytest.approx(math.sqrt(schema.max_participations), rel=1e-11)
    assert solution.sensitivity == solution.strategy.sensitivity(schema)
    B = np.linalg.inv(solution.strategy.matrix(schema.iterations)).cumsum(axis=0)
    rmse = math.sqrt(np.mean(np.sum(B**2, axis=1)))
    assert solution.rmse == pytest.approx(solution.sensitivity * rmse, rel=1e-10)


@pytest.mark.parametrize("column_norms", ["equal", "optimal"])
def test_a_search_interrupted_at_its_very_start_is_valid(column_norms, monkeypatch):
    monkeypatch.setattr(banded_solver, "toeplitz_start", interrupt)
    schema = fz.MinSep(64, 16)
    solution = fz.optimize(fz.Banded(8, column_norms), fz.prefix_sum(), schema)
    check_it_is_valid_but_unconverged(solution, schema)


def test_a_search_interrupted_in_the_shorter_run_is_valid():
    schema = fz.SingleParticipation(200)

    def at_once(progress):
        if progress.iterations == 10:
            raise KeyboardInterrupt

    solution = fz.optimize(fz.Banded(4), fz.prefix_sum(), schema, objective="max_error", callback=at_once)
    check_it_is_valid_but_unconverged(solution, schema)


def test_nothing_is_returned_that_was_not_verified(monkeypatch):
    monkeypatch.setattr(banded_solver, "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fz.optimize(fz.Banded(4), fz.prefix_sum(), fz.SingleParticipation(32))


@pytest.mark.parametrize("schema", [fz.SingleParticipation(600), fz.MinSep(300, 50), fz.FixedEpoch(256, 8)], ids=str)
def test_the_max_error_converges_from_a_shorter_run_and_the_last_rows_have_it(schema):
    solution = fz.optimize(fz.Banded(4), fz.prefix_sum(), schema, objective="max_error")
    assert solution.converged
    assert 0 <= solution.gap <= 1e-3
    mean = fz.optimize(fz.Banded(4), fz.prefix_sum(), schema)
    assert solution.max_error < mean.max_error
    assert mean.rmse < solution.rmse
    errors = solution.strategy.per_query_error(fz.prefix_sum(), schema.iterations)
    assert np.max(errors[-10:]) < 1.01 * np.min(errors[-10:])


def test_an_exhausted_search_says_so(monkeypatch):
    monkeypatch.setattr(banded_solver, "_MAX_ITERATIONS", 3)
    solution = fz.optimize(fz.Banded(8), fz.prefix_sum(), fz.SingleParticipation(64))
    assert (solution.converged, solution.iterations) == (False, 3)
    assert solution.message.startswith("stopped after 3 iterations")


def test_a_search_that_no_step_improves_ends_and_says_so(monkeypatch):
    monkeypatch.setitem(banded_solver.TOLERANCES, "rmse", -1.0)
    solution = fz.optimize(fz.Banded(3), fz.prefix_sum(), fz.SingleParticipation(6))
    assert not solution.converged
    assert "no step" in solution.message
    assert solution.gap < 1e-7


def test_a_search_of_one_point_ends():
    # One band of unit columns: C = I is all there is.
    for objective in ("rmse", "max_error"):
        schema = fz.MinSep(20, 5)
        solution = fz.optimize(fz.Banded(1, "equal"), fz.prefix_sum(), schema, objective=objective)
        np.testing.assert_array_equal(solution.strategy.matrix(20), np.eye(20))
        assert solution.converged


def test_time_and_memory_are_linear():
    # The recursion holds arrays of n times the bands only: an n-by-n matrix of this size would take 320 GB.
    schema = fz.SingleParticipation(200_000)
    problem = problem_for(fz.prefix_sum(), schema, 2, "equal")
    assert isinstance(problem.norms, UnitNorms)
    x = np.tile([1.0, 0.5], 200_000)
    x[-1] = 0
    point = problem.evaluate(x)
    assert point.cut().least(problem.norms) < problem.loss(point)


@pytest.mark.parametrize(
    ("strategy", "workload", "schema", "objective", "message"),
    [
        (fz.Banded(5), fz.prefix_sum(), fz.MinSep(12, 4), "rmse", "num_bands must be <= min_sep=4"),
        (fz.Banded(2), fz.from_matrix(np.diag([1.0, 0.0])), fz.SingleParticipation(2), "rmse", "invertible"),
        (fz.Banded(2), fz.prefix_sum(), fz.SingleParticipation(4), "mean", "objective must be"),
    ],
)
def test_what_cannot_be_optimised_is_refused(strategy, workload, schema, objective, message):
    with pytest.raises(ValueError, match=message):
        fz.optimize(strategy, workload, schema, objective=objective)
