"""The banded Toeplitz optimiser: gradients against differences, optima against a direct search, published values."""

import numpy as np
import pytest
from scipy import optimize as scipy_optimize

from dpkit.factorization import (
    Banded,
    BandedSquareRoot,
    BandedToeplitz,
    FixedEpoch,
    MinSep,
    SingleParticipation,
    cooldown_schedule,
    from_matrix,
    momentum_sgd,
    optimize,
    prefix_sum,
    toeplitz_solver,
)
from dpkit.factorization.row_scales import window_starts
from factorization.oracle import scalar_sensitivity

SCHEDULE = momentum_sgd(0.9, cooldown_schedule(8))
RNG = np.random.default_rng(0)


def finite_difference(f, c):
    step = 1e-6
    return np.array([(f(c + step * e) - f(c - step * e)) / (2 * step) for e in np.eye(len(c))])


@pytest.mark.parametrize("workload", [prefix_sum(), momentum_sgd(0.9, weight_decay=0.1), SCHEDULE], ids=str)
@pytest.mark.parametrize("objective", ["rmse", "max_error"])
@pytest.mark.parametrize("starts", [[0], [0, 3, 6]], ids=str)
@pytest.mark.parametrize("num_bands", [1, 3, 8])
def test_squared_error_and_gradient(workload, objective, starts, num_bands):
    n, c, weights = 8, np.append(1.0, 0.4 * RNG.uniform(size=num_bands - 1)), np.sort(RNG.uniform(size=len(starts)))
    if workload is SCHEDULE and objective == "max_error" and len(starts) > 1:
        with pytest.raises(ValueError, match="workload must be Toeplitz to scale windows for the max error"):
            toeplitz_solver.squared_error(workload, n, objective, np.array(starts))
        return
    error = toeplitz_solver.squared_error(workload, n, objective, np.array(starts))
    shares, gradient = error(c)
    squares = (workload.matrix(n) @ np.linalg.inv(BandedToeplitz(num_bands, c).matrix(n))) ** 2
    by_step = np.mean(squares, axis=0) if objective == "rmse" else squares[np.argmax(np.sum(squares, axis=1))]
    np.testing.assert_allclose(shares, np.add.reduceat(by_step, starts), rtol=1e-10)
    numeric = finite_difference(lambda c: weights @ error(c)[0], c)
    np.testing.assert_allclose(gradient(weights), numeric, rtol=1e-6, atol=1e-6 * np.max(np.abs(numeric)))


@pytest.mark.parametrize("num_bands", [80, 3000])
def test_gradient_of_a_long_run(num_bands):
    """The blocks of Fourier transforms against the plain sum over time, in the direction of a random change."""
    n, c = 7000, BandedSquareRoot(num_bands).first_column(num_bands)
    weights, direction = np.array([1.0, 1.5]), RNG.normal(size=num_bands) * c
    error = toeplitz_solver.squared_error(prefix_sum(), n, "rmse", np.array([0, 3500]))
    slope = weights @ (error(c + 1e-6 * direction)[0] - error(c - 1e-6 * direction)[0]) / 2e-6
    assert error(c)[1](weights) @ direction == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("schema", [MinSep(12, 4, 3), MinSep(11, 4), MinSep(12, 5, 2), FixedEpoch(12, 2)], ids=str)
@pytest.mark.parametrize("scaled", [False, True])
def test_sensitivities_and_gradients(schema, scaled):
    c, starts = np.sort(RNG.uniform(size=4))[::-1], window_starts(schema, scaled=scaled)
    weights = np.sort(RNG.uniform(size=len(starts)))[::-1]
    rows = np.repeat(weights, np.diff(starts, append=schema.iterations))
    C = np.sqrt(rows)[:, None] * BandedToeplitz(4, c).matrix(schema.iterations)
    for function in (toeplitz_solver.disjoint_sensitivity, toeplitz_solver.monotone_sensitivity):
        shares, gradient = function(c, schema, starts)
        assert weights @ shares == pytest.approx(scalar_sensitivity(C, schema) ** 2, rel=1e-12)
        numeric = finite_difference(lambda c, f=function: weights @ f(c, schema, starts)[0], c)
        np.testing.assert_allclose(gradient(weights), numeric, rtol=1e-7)


def test_signed_coefficients_where_columns_are_disjoint():
    schema, c = MinSep(12, 4, 3), np.array([1.0, -0.5, 2.0, 0.3])
    C = BandedToeplitz(4, c).matrix(12)
    shares, _ = toeplitz_solver.disjoint_sensitivity(c, schema, np.zeros(1, dtype=int))
    assert shares == pytest.approx(scalar_sensitivity(C, schema) ** 2)


@pytest.mark.parametrize("schema", [SingleParticipation(8), MinSep(8, 3, 2), FixedEpoch(8, 2)], ids=str)
@pytest.mark.parametrize("objective", ["rmse", "max_error"])
@pytest.mark.parametrize("num_bands", [1, 3, 8])
@pytest.mark.parametrize("workload", [prefix_sum(), SCHEDULE], ids=["prefix sum", "schedule"])
def test_optimum_is_not_beaten_by_a_direct_search(schema, objective, num_bands, workload):
    solution = optimize(BandedToeplitz(num_bands), workload, schema, objective=objective)
    assert solution.converged, solution.message
    best = getattr(solution, objective)
    assert getattr(solution.strategy, objective)(workload, schema) == best

    def of(tail):
        strategy = BandedToeplitz(num_bands, np.append(1.0, tail))
        return getattr(strategy, objective)(workload, schema)

    start = BandedSquareRoot(num_bands).first_column(num_bands)[1:]
    assert best <= of(start) * (1 + 1e-9)
    if num_bands > 1:
        found = scipy_optimize.minimize(of, start, method="Nelder-Mead", options={"maxfev": 2000, "xatol": 1e-6})
        assert best <= found.fun * (1 + 1e-6)


@pytest.mark.parametrize(
    ("schema", "num_bands", "rmse"),
    [(MinSep(2052, 342, 6), 342, 8.8041), (MinSep(64, 16, 4), 16, 4.7001)],
)
def test_published_optima(schema, num_bands, rmse):
    solution = optimize(BandedToeplitz(num_bands), prefix_sum(), schema)
    assert solution.rmse == pytest.approx(rmse, abs=6e-5)
    assert solution.converged
    assert solution.gap is None


def test_more_bands_than_min_sep():
    # With room for all participations the best coefficients end at min_sep; with fewer participations they do not.
    full, few = MinSep(256, 32, 8), MinSep(256, 32, 2)
    for schema, helps in ((full, False), (few, True)):
        short = optimize(BandedToeplitz(32), prefix_sum(), schema)
        long = optimize(BandedToeplitz(128), prefix_sum(), schema)
        assert long.converged, long.message
        assert long.rmse <= short.rmse * (1 + 1e-9)
        assert (long.rmse < 0.95 * short.rmse) == helps
        c = long.strategy.coefficients
        assert np.all(np.diff(c) <= 0)
        assert c[-1] >= 0


def test_a_long_run():
    schema = MinSep(100_000, 128, 10)
    solution = optimize(BandedToeplitz(128), prefix_sum(), schema)
    assert solution.converged, solution.message
    assert solution.rmse < BandedSquareRoot(128).rmse(prefix_sum(), schema)
    # A family contains its smaller members.
    assert solution.rmse < optimize(BandedToeplitz(64), prefix_sum(), schema).rmse


def test_trial_steps_that_overflow_do_not_end_the_search():
    # The loss is nearly flat up to where C^{-1} grows exponentially, and here a trial step goes there.
    schema = MinSep(10**6, 1000, 10)
    solution = optimize(BandedToeplitz(16), prefix_sum(), schema, objective="max_error")
    assert solution.converged, solution.message


def test_progress_stop_and_resume():
    schema, seen = MinSep(256, 32, 2), []

    def callback(progress):
        seen.append(progress)
        return progress.iterations == 15

    stopped = optimize(BandedToeplitz(100), prefix_sum(), schema, callback=callback)
    assert not stopped.converged
    assert "callback" in stopped.message
    assert [p.iterations for p in seen] == list(range(1, 16))
    assert stopped.rmse == pytest.approx(seen[-1].error, rel=1e-9)
    resumed = optimize(stopped.strategy, prefix_sum(), schema)
    whole = optimize(BandedToeplitz(100), prefix_sum(), schema)
    assert resumed.rmse == pytest.approx(whole.rmse, rel=1e-5)


def test_not_longer_than_the_run():
    solution = optimize(BandedToeplitz(50), prefix_sum(), SingleParticipation(6))
    assert solution.strategy.num_bands == 6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BandedToeplitz(0), "num_bands"),
        (lambda: BandedToeplitz(2, [1.0]), "coefficients must have num_bands=2 entries"),
        (lambda: BandedToeplitz(2, [0.0, 1.0]), "singular"),
        (lambda: BandedToeplitz(1, [np.nan]), "coefficients must be finite"),
        (lambda: BandedToeplitz(2, [1e-170, 1e-170]), "coefficients must begin with .* got 1e-170 and 1e-170; rescale"),
        (lambda: BandedToeplitz(2, [1e-170, 1.0]), "coefficients must begin with .* got 1e-170 and 1.0; rescale"),
        (lambda: BandedToeplitz(2, [1.0, -1e101]), "coefficients must begin with .* got 1.0 and 1e.101; rescale"),
        (lambda: BandedToeplitz(2).matrix(3), "call optimize"),
        (lambda: BandedToeplitz(2).sensitivity(SingleParticipation(3)), "call optimize"),
        (
            lambda: optimize(BandedToeplitz(2), from_matrix([[1.0, 0.0], [2.0, 0.0]]), SingleParticipation(2)),
            "workload must be Toeplitz or invertible",
        ),
        (lambda: optimize(BandedToeplitz(2), prefix_sum(), SingleParticipation(8), objective="mean"), "objective"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_banded_is_at_least_as_good():
    schema = MinSep(64, 16, 4)
    banded = optimize(Banded(16), prefix_sum(), schema)
    assert banded.rmse <= optimize(BandedToeplitz(16), prefix_sum(), schema).rmse
