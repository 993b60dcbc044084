"""Fits of buffered linear Toeplitz strategies against finite differences, dense matrices and known optima."""

import itertools

import numpy as np
import pytest

from dpkit.factorization import (
    BufferedLinearToeplitz,
    FixedEpoch,
    MinSep,
    SingleParticipation,
    blt_solver,
    momentum_sgd,
    optimize,
    prefix_sum,
)
from factorization.test_blt import WORKLOADS


def interlaced(d: int, seed: int) -> np.ndarray:
    return np.sort(np.exp(np.random.default_rng(seed).uniform(np.log(1e-3), np.log(0.9), 2 * d)))


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "given"])
@pytest.mark.parametrize("objective", ["rmse", "max_error"])
@pytest.mark.parametrize("schema", [SingleParticipation(60), MinSep(60, 7, 5), FixedEpoch(60, 60)])
@pytest.mark.parametrize("scaled", [False, True])
def test_loss_and_gradient(name, objective, schema, scaled):
    if scaled and objective == "max_error" and "schedule" in name and schema.max_participations > 1:
        with pytest.raises(ValueError, match="workload must be Toeplitz to scale windows"):
            blt_solver.LogLoss(WORKLOADS[name], schema, objective, scaled=scaled)
        return
    loss = blt_solver.LogLoss(WORKLOADS[name], schema, objective, scaled=scaled)
    for d in (1, 2, 3):
        x = interlaced(d, seed=d)
        u = blt_solver.unconstrained(x)
        value, gradient = loss(u)
        strategy = loss.strategy(x)
        assert np.exp(value / 2) == pytest.approx(getattr(strategy, objective)(WORKLOADS[name], schema), rel=1e-9)
        for i, step in enumerate(1e-4 * np.eye(2 * d)):
            # Fourth-order central differences: 1e-16 of truncation, 1e-11 of rounding.
            slope = (
                8 * (loss(u + step)[0] - loss(u - step)[0]) - loss(u + 2 * step)[0] + loss(u - 2 * step)[0]
            ) / 12e-4
            assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_parametrisation_is_one_to_one():
    x = interlaced(4, seed=9)
    np.testing.assert_allclose(blt_solver.complements(blt_solver.unconstrained(x)), x, rtol=1e-13)


def fit(num_buffers, schema, objective="rmse", workload=None):
    return optimize(BufferedLinearToeplitz(num_buffers), workload or prefix_sum(), schema, objective=objective)


@pytest.mark.parametrize(
    ("num_buffers", "schema", "objective", "published"),
    [
        (3, MinSep(2052, 342, 6), "rmse", 9.1713),
        (3, MinSep(10_000, 1000, 10), "rmse", np.sqrt(210.56)),
        # Single participation: two-buffer optimum of Dvijotham et al. (2024), and a scan over buffers.
        (2, SingleParticipation(10**5), "max_error", 5.296747),
        (1, SingleParticipation(1000), "max_error", 3.850205),
        (2, SingleParticipation(1000), "max_error", 3.321262),
        (3, SingleParticipation(1000), "max_error", 3.269918),
        (4, SingleParticipation(1000), "max_error", 3.265380),
    ],
)
def test_optimum_is_no_worse_than_known_values(num_buffers, schema, objective, published):
    solution = fit(num_buffers, schema, objective)
    assert solution.converged
    assert getattr(solution, objective) <= published * (1 + 5e-6)


def test_solution_is_that_of_dense_matrices():
    schema = MinSep(1026, 171, 6)
    solution = fit(3, schema)
    C = solution.strategy.matrix(1026)
    dense = np.linalg.norm(np.linalg.solve(C.T, np.triu(np.ones((1026, 1026)))).T, axis=1)
    sensitivity = np.linalg.norm(C[:, :: schema.min_sep].sum(axis=1))
    assert solution.sensitivity == pytest.approx(sensitivity, rel=1e-11)
    assert solution.rmse == pytest.approx(sensitivity * np.sqrt(np.mean(dense**2)), rel=1e-9)
    assert solution.max_error == pytest.approx(sensitivity * np.max(dense), rel=1e-9)
    assert solution.strategy.rmse(prefix_sum(), schema) == solution.rmse


@pytest.mark.parametrize(
    "schema", [MinSep(2048, 128, 16), MinSep(500, 1), SingleParticipation(1), SingleParticipation(50)]
)
def test_more_buffers_are_never_worse(schema):
    errors = [fit(d, schema).rmse for d in (1, 2, 3, 4)]
    assert all(more <= fewer for fewer, more in itertools.pairwise(errors))


def test_optimum_approaches_the_best_toeplitz_matrix():
    """For the largest error of one participation the square root is the best Toeplitz C: sum of r_j^2."""
    n = 1024
    r = np.cumprod(np.append(1.0, (2 * np.arange(1, n) - 1) / (2 * np.arange(1, n))))
    best = np.sum(r**2)
    error = fit(6, SingleParticipation(n), "max_error").max_error
    assert best <= error * (1 + 1e-12)
    assert error <= best * 1.001


@pytest.mark.parametrize("objective", ["rmse", "max_error"])
@pytest.mark.parametrize("name", ["momentum", "schedule", "given"])
def test_other_workloads(name, objective):
    schema, workload = MinSep(60, 10), WORKLOADS[name]
    if name == "given":
        with pytest.raises(ValueError, match="workload must be Toeplitz, or its inverse have at most 8 bands"):
            fit(2, schema, objective, workload)
        return
    solution = fit(2, schema, objective, workload)
    # No nearby strategy and none of some hundred random ones is better.
    best = getattr(solution, objective)
    for seed in range(100):
        other = blt_solver.strategy_of(interlaced(2, seed))
        assert getattr(other, objective)(workload, schema) >= best * (1 - 1e-9)


def test_a_billion_steps():
    solution = fit(5, MinSep(10**9, 10**7, 100))
    assert solution.converged
    assert solution.rmse <= 123.8512
    assert solution.strategy.num_buffers == 5


@pytest.mark.parametrize("weight_decay", [0.0, 1e-4])
def test_a_billion_steps_with_momentum(weight_decay):
    """Momentum is a filter whose weights add up to 10, so the best error is at most ten times that without."""
    schema, workload = MinSep(10**9, 10**7, 100), momentum_sgd(0.9, weight_decay=weight_decay)
    solution = fit(3, schema, workload=workload)
    assert solution.converged
    plain = fit(3, schema, workload=momentum_sgd(0.0, weight_decay=weight_decay))
    assert 7 * plain.rmse < solution.rmse < 10 * plain.rmse
    assert solution.rmse <= plain.strategy.rmse(workload, schema)


def test_optimum_with_momentum_at_the_published_setting():
    solution = fit(3, MinSep(2052, 342, 6), workload=momentum_sgd(0.9))
    assert solution.converged
    assert solution.rmse <= 68.65251


def test_an_unconverged_fit_says_so(monkeypatch):
    monkeypatch.setattr(blt_solver, "_SCOUTING", 1)
    monkeypatch.setattr(blt_solver, "_FINISHING", 1)
    solution = fit(4, MinSep(2052, 342, 6))
    assert not solution.converged
    assert "LIMIT" in solution.message


def test_a_given_strategy_is_a_start():
    schema = MinSep(2052, 342, 6)
    given = fit(3, schema).strategy
    again = optimize(given, prefix_sum(), schema)
    assert again.rmse <= given.rmse(prefix_sum(), schema) * (1 + 1e-8)
    with pytest.raises(ValueError, match=r"omega >= 0 and sum\(omega / theta\) < 1"):
        optimize(given.inverse(), prefix_sum(), schema)


def test_callback_sees_progress_and_stops_the_search():
    seen = []

    def callback(progress):
        seen.append(progress)
        return len(seen) == 3

    schema = MinSep(2052, 342, 6)
    solution = optimize(BufferedLinearToeplitz(3), prefix_sum(), schema, callback=callback)
    assert [progress.iterations for progress in seen] == [10, 20, 30]
    assert solution.iterations == 30
    assert not solution.converged
    assert solution.message == "stopped by the callback; optimize the result to go on"
    assert solution.rmse == pytest.approx(seen[-1].error, rel=1e-9)


def test_an_interrupted_search_returns_its_best():
    def callback(_):
        raise KeyboardInterrupt

    solution = optimize(BufferedLinearToeplitz(2), prefix_sum(), MinSep(2052, 342, 6), callback=callback)
    assert not solution.converged
    assert solution.message.startswith("interrupted")
