"""Cuts and their mixtures against the least error that a general solver finds."""

import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit.factorization.banded_problem import Problem
from dpkit.factorization.column_norms import norm_set
from dpkit.factorization.lower_bounds import Cut, Cuts, _least_square_shares

SCHEMAS = [fz.SingleParticipation(16), fz.FixedEpoch(16, 4), fz.MinSep(16, 4)]


def problem_for(schema, column_norms, order):
    n = schema.iterations
    return Problem(fz.prefix_sum().inverse_bands(n), 4, norm_set(column_norms, schema), np.full(n, 1 / n), order)


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
@pytest.mark.parametrize("column_norms", ["equal", "optimal"])
@pytest.mark.parametrize("objective", ["rmse", "max_error"])
def test_no_cut_and_no_mixture_exceeds_what_members_of_the_family_reach(schema, column_norms, objective):
    problem = problem_for(schema, column_norms, 1.0 if objective == "rmse" else 16.0)
    best = fz.optimize(fz.Banded(4, column_norms), fz.prefix_sum(), schema, objective=objective)
    reached = getattr(best, objective) ** 2 / schema.max_participations
    x, rng, mixtures = problem.from_rows(best.strategy.rows(16)), np.random.default_rng(0), []
    for size in (1e-3, 1e-2, 1e-1):
        cuts = Cuts(problem.norms)
        for _ in range(20):
            trial = problem.with_prior(rng.random(16)) if objective == "max_error" else problem
            cut = trial.evaluate(x * (1 + size * rng.normal(size=len(x)))).cut()
            assert cut.least(problem.norms) <= reached * (1 + 1e-9)
            cuts.add(cut)
            mixtures.append(cuts.least())
    assert max(mixtures) <= reached * (1 + 1e-9)
    # Random weights of the rows prove nothing, and the uniform ones of the mean much.
    assert (max(mixtures) > 0) == (objective == "rmse")


def test_a_mixture_is_better_than_cuts_with_opposite_residuals():
    norms = norm_set("equal", fz.SingleParticipation(2))
    cuts = Cuts(norms)
    for sign in (-1, 1):
        cuts.add(Cut(1.0, np.array([[-0.5, 0.0], [-0.5, 0.1 * sign]])))
    assert cuts.least() == pytest.approx(1.0, rel=1e-9)
    assert Cut(1.0, np.array([[-0.5, 0.0], [-0.5, 0.1]])).least(norms) == pytest.approx(0.8)


def test_cuts_that_prove_nothing_say_zero():
    cuts = Cuts(norm_set("equal", fz.SingleParticipation(2)))
    cuts.add(Cut(1.0, np.array([[-0.5, 0.0], [-0.5, 3.0]])))
    assert cuts.least() == 0.0


def test_shares_are_a_distribution_and_near_the_least():
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 12):
        for _ in range(20):
            M = rng.normal(size=(count, 6)) + 0.5
            shares = _least_square_shares(M @ M.T)
            assert np.min(shares) >= 0
            assert np.sum(shares) == pytest.approx(1, abs=1e-12)
            alone = np.min(np.diag(M @ M.T))
            assert shares @ (M @ M.T) @ shares <= alone * (1 + 1e-6)
    np.testing.assert_allclose(_least_square_shares(np.zeros((3, 3))), 1 / 3)
