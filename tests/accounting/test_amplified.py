import math

import numpy as np
import pytest
from scipy import special

import strategies
from dpkit import accounting, mechanisms
from dpkit import factorization as fz
from dpkit.accounting import PldAccountant, RdpAccountant, amplified

BANDED = fz.Banded(num_bands=2, coefficients=[[0.8, 0.0], [0.8, -0.6], [1.0, 0.6], [0.5, 0.3], [0.9, 0.1], [1.0, 0.2]])


def rows(non_negative: bool):
    kept = []
    for row in strategies.ROWS:
        C = row.strategy.matrix(24)
        if C.shape == (24, 24) and (np.min(C) >= 0) == non_negative:
            kept.append(pytest.param(row.strategy, id=row.name))
    return kept


@pytest.mark.parametrize("strategy", rows(non_negative=True))
@pytest.mark.parametrize(("n", "b"), [(24, 5), (24, 24), (23, 1), (12, 4)])
def test_the_gram_matrix_is_that_of_the_sums_of_columns(strategy, n, b):
    C = strategy.matrix(n)
    M = np.zeros((n, b))
    for step in range(n):
        M[:, step % b] += C[:, step]
    found = amplified.balls_in_bins(strategy, n, b, noise_multiplier=1.5)
    largest = max(np.sum(C**2, axis=0))
    np.testing.assert_allclose(found.gram, M.T @ M / largest, rtol=1e-6, atol=1e-12)
    assert found.noise_multiplier == 1.5


def test_rows_are_not_few():
    assert len(rows(non_negative=True)) >= 8
    assert rows(non_negative=False)


@pytest.mark.parametrize("strategy", rows(non_negative=False))
def test_negative_entries_are_refused_for_bins_only(strategy):
    with pytest.raises(ValueError, match=r"has the negative entry -.*balls-in-bins"):
        amplified.balls_in_bins(strategy, 24, 4, 1.0)
    assert amplified.cyclic_poisson(strategy, 24, 24, 0.5, 1.0)


def test_plain_trees_are_refused():
    for make in (
        lambda tree: amplified.balls_in_bins(tree, 8, 2, 1.0),
        lambda tree: amplified.cyclic_poisson(tree, 8, 8, 0.1, 1.0),
        lambda tree: amplified.poisson(tree, 8, 0.1, 1.0),
    ):
        with pytest.raises(ValueError, match="not lower-triangular"):
            make(fz.Tree(8))


def test_dp_sgd_is_one_band_and_one_group():
    step = mechanisms.PoissonSampled(mechanisms.Gaussian(1.1), 0.01)
    expected = list(mechanisms.repeat(step, 50).parts())
    assert list(amplified.poisson(fz.Identity(), 50, 0.01, 1.1).parts()) == expected
    assert list(amplified.cyclic_poisson(fz.Identity(), 50, 1, 0.01, 1.1).parts()) == expected


def test_certain_participation_is_the_gaussian_with_the_schemas_sensitivity():
    # All columns of BandedSquareRoot but the last have the same norm, so the first group's composition is exact.
    n, groups, strategy = 20, 5, fz.BandedSquareRoot(4)
    run = amplified.cyclic_poisson(strategy, n, groups, sampling_probability=1.0, noise_multiplier=1.3)
    kappa = strategy.sensitivity(fz.SingleParticipation(n))
    whole = mechanisms.Gaussian(1.3 * kappa / strategy.sensitivity(fz.FixedEpoch(n, n // groups)))
    for accountant in (PldAccountant(), RdpAccountant()):
        amplified_bounds, bounds = (accountant.epsilon(m, delta=1e-5) for m in (run, whole))
        assert amplified_bounds.upper >= bounds.lower
        assert amplified_bounds.upper == pytest.approx(bounds.upper, rel=2e-3)


def simulated_delta(C, steps, q, stddev, epsilon, generator, count=200_000):
    """Delta and its standard error, for a unit with a coin at each of `steps`: all sums of columns, whole outcomes."""
    coins = np.array(np.meshgrid(*[[0, 1]] * len(steps))).reshape(len(steps), -1).T
    means = coins @ C[:, steps].T
    log_chances = coins.sum(axis=1) * math.log(q) + (len(steps) - coins.sum(axis=1)) * math.log1p(-q)
    drawn = generator.choice(len(coins), size=count, p=np.exp(log_chances))
    y = means[drawn] + stddev * generator.standard_normal((count, len(C)))
    ratios = (y @ means.T - np.sum(means**2, axis=1) / 2) / stddev**2 + log_chances
    terms = np.maximum(-np.expm1(epsilon - special.logsumexp(ratios, axis=1)), 0.0)
    return np.mean(terms), np.std(terms) / math.sqrt(count)


@pytest.mark.parametrize("strategy", [BANDED, fz.BandedSquareRoot(2)], ids=["banded", "square-root"])
@pytest.mark.parametrize("q", [0.2, 0.6])
def test_cyclic_poisson_covers_all_sums_of_columns(strategy, q):
    n, epsilon, noise = 6, 0.5, 1.5
    kappa = strategy.sensitivity(fz.SingleParticipation(n))
    upper = PldAccountant().delta(amplified.cyclic_poisson(strategy, n, 2, q, noise), epsilon=epsilon).upper
    found = []
    for group in range(2):
        steps = list(range(group, n, 2))
        generator = np.random.default_rng(group)
        mean, error = simulated_delta(strategy.matrix(n), steps, q, noise * kappa, epsilon, generator)
        # 7 standard errors: probability 2.6e-12 each.
        assert mean - 7 * error <= upper
        found.append(mean + 7 * error)
    if strategy is not BANDED:
        assert max(found) >= upper * (1 - 1e-3)  # the first group's columns all have the largest norm: it is exact
    # Power: the same bound for noise 20 % larger is broken.
    broken = PldAccountant().delta(amplified.cyclic_poisson(strategy, n, 2, q, 1.2 * noise), epsilon=epsilon).upper
    assert max(found) > broken


@pytest.mark.parametrize("q", [0.2, 0.6])
def test_poisson_covers_all_sums_of_columns(q):
    n, epsilon, noise, strategy = 6, 0.5, 1.5, fz.BandedSquareRoot(2)
    kappa = strategy.sensitivity(fz.SingleParticipation(n))
    upper = PldAccountant().delta(amplified.poisson(strategy, n, q, noise), epsilon=epsilon).upper
    generator = np.random.default_rng(3)
    mean, error = simulated_delta(strategy.matrix(n), list(range(n)), q, noise * kappa, epsilon, generator)
    assert mean - 7 * error <= upper
    # The grouping is needed: without it the bound would be too small.
    ungrouped = mechanisms.repeat(mechanisms.PoissonSampled(mechanisms.Gaussian(noise), q), n)
    assert mean - 7 * error > PldAccountant().delta(ungrouped, epsilon=epsilon).upper


@pytest.mark.parametrize(
    "strategy", [fz.SquareRoot(), fz.BufferedLinearToeplitz(theta=np.array([0.9]), omega=np.array([0.3]))]
)
def test_strategies_without_few_bands_are_refused_by_name(strategy):
    with pytest.raises(ValueError, match=r"num_groups must be >= num_bands=30 of (SquareRoot|Buffered)"):
        amplified.cyclic_poisson(strategy, 30, 10, 0.1, 1.0)


def test_more_bands_than_groups_are_refused():
    with pytest.raises(ValueError, match="num_groups must be >= num_bands=4"):
        amplified.cyclic_poisson(fz.BandedSquareRoot(4), 30, 3, 0.1, 1.0)
    # Diagonals of zeros are no bands.
    thin = fz.Banded(num_bands=3, coefficients=[[1.0, 0.0, 0.0]] * 5)
    assert next(amplified.cyclic_poisson(thin, 5, 1, 0.1, 1.0).parts())[1] == 5


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_bins must be at most iterations=5"):
        amplified.balls_in_bins(fz.Identity(), 5, 6, 1.0)
    for make in (amplified.balls_in_bins, lambda s, n, b, z: amplified.cyclic_poisson(s, n, b, 0.5, z)):
        for n, b, z in ((0, 1, 1.0), (5, 0, 1.0), (5, 2, -1.0)):
            with pytest.raises(ValueError, match="must be"):
                make(fz.Identity(), n, b, z)
    with pytest.raises(ValueError, match="probability"):
        amplified.poisson(fz.Identity(), 5, 1.5, 1.0)


def test_a_multiple_of_the_matrix_is_the_same_mechanism():
    C = fz.SquareRoot().matrix(12)
    one, other = (amplified.balls_in_bins(fz.Dense(a * C), 12, 3, 1.0) for a in (1.0, 7.0))
    np.testing.assert_allclose(one.gram, other.gram, rtol=1e-9)
    same = amplified.balls_in_bins(fz.SquareRoot(), 12, 3, 1.0)
    np.testing.assert_allclose(one.gram, same.gram, rtol=1e-9)


def test_more_bins_than_participations_amplify():
    # With one participation each, noise_multiplier 1 without sampling is the Gaussian mechanism.
    plain = PldAccountant().epsilon(mechanisms.Gaussian(1.0), delta=1e-3).lower
    run = amplified.balls_in_bins(fz.BandedSquareRoot(4), 16, 16, 1.0)
    accountant = accounting.MonteCarloAccountant(samples=20_000, failure_probability=1e-9, seed=1)
    assert accountant.epsilon(run, delta=1e-3).upper < 0.7 * plain
