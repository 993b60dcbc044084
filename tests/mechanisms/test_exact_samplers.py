"""Exact samplers against the laws they claim, fed by a generator with a fixed seed.

Chi-square statistics are compared with their quantile at 1e-11; there are fewer than fifty comparisons.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from dpkit.mechanisms import exact_samplers

FALSE_FAILURE = 1e-11
DRAWS = 40_000


@pytest.fixture(autouse=True)
def fixed_words(monkeypatch):
    generator = np.random.default_rng(7)
    monkeypatch.setattr(exact_samplers.secrets, "token_bytes", generator.bytes)


def rejects(draws: np.ndarray, pmf) -> bool:
    values = np.arange(draws.min(), draws.max() + 1)
    chances = np.array([pmf(int(value)) for value in values])
    common = chances * draws.size > 30
    counts = np.bincount(draws - draws.min())[common]
    counts = np.append(counts, draws.size - counts.sum())
    expected = np.append(chances[common], max(1 - chances[common].sum(), 1e-9)) * draws.size
    if expected[-1] < 5:
        assert counts[-1] < 60
        counts, expected = counts[:-1], expected[:-1]
    return bool(np.sum((counts - expected) ** 2 / expected) > stats.chi2.isf(FALSE_FAILURE, len(counts) - 1))


def gaussian_pmf(sigma: float):
    reach = int(12 * sigma) + 10
    total = math.fsum(math.exp(-k * k / (2 * sigma**2)) for k in range(-reach, reach + 1))
    return lambda k: math.exp(-k * k / (2 * sigma**2)) / total


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 1000, (1 << 61) + 1, 1 << 62])
def test_uniform(bound):
    draws = exact_samplers.uniform_below(bound, DRAWS)
    assert draws.min() >= 0
    assert draws.max() < bound
    buckets = min(bound, 10)
    assert not rejects((draws.astype(object) * buckets // bound).astype(np.int64), lambda _: 1 / buckets)


@pytest.mark.parametrize("bound", [0, -1, (1 << 62) + 1])
def test_bad_bounds_are_refused(bound):
    with pytest.raises(ValueError, match="bound must be in"):
        exact_samplers.uniform_below(bound, 1)


@pytest.mark.parametrize("probability", [0, Fraction(1, 3), Fraction(0.1), Fraction(999, 1000), 1])
def test_bernoulli(probability):
    draws = exact_samplers.bernoulli(Fraction(probability), DRAWS)
    # Hoeffding: 2 exp(-2 n t^2) = 1e-11.
    assert abs(draws.mean() - float(probability)) <= math.sqrt(math.log(2e11) / (2 * DRAWS)) * (0 < probability < 1)


def test_ties_are_settled_by_further_words(monkeypatch):
    # With every word at the threshold of 1/3, only what is left of it after 62 bits decides.
    monkeypatch.setattr(exact_samplers, "uniform_words", lambda n: np.full(n, (1 << 62) // 3))
    monkeypatch.setattr(exact_samplers, "bernoulli", lambda p, n: np.full(n, p == Fraction((1 << 62) % 3, 3)))
    plain = _original_bernoulli(Fraction(1, 3), 5)
    assert plain.all()


_original_bernoulli = exact_samplers.bernoulli


@pytest.mark.parametrize("exponent", [0, Fraction(1, 7), 1, Fraction(5, 2)])
def test_exponential_coins(exponent):
    draws = exact_samplers.bernoulli_exp(Fraction(exponent), DRAWS)
    assert not rejects(draws.astype(np.int64), lambda k: math.exp(-exponent) if k else -math.expm1(-exponent))


@pytest.mark.parametrize("scale", [1, 2, 9])
def test_discrete_laplace(scale):
    draws = exact_samplers.discrete_laplace(scale, DRAWS)
    ratio = math.exp(-1 / scale)
    assert not rejects(draws, lambda k: (1 - ratio) / (1 + ratio) * ratio ** abs(k))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.1, 8.0, 60.0])
def test_discrete_gaussian(sigma):
    draws = exact_samplers.discrete_gaussian(Fraction(sigma) ** 2, DRAWS)
    assert not rejects(draws, gaussian_pmf(sigma))
    assert rejects(draws, gaussian_pmf(1.1 * sigma))


@pytest.mark.parametrize("mean", [0.02, 0.7, 1.0, 3.3, 40.0, 900.5])
def test_poisson(mean):
    draws = exact_samplers.poisson(Fraction(mean), DRAWS)
    assert not rejects(draws, stats.poisson(mean).pmf)
    assert rejects(draws, stats.poisson(mean + 0.2 * math.sqrt(mean)).pmf)


@pytest.mark.parametrize("variance", [0.3, 9.0])
def test_skellam(variance):
    draws = exact_samplers.skellam(Fraction(variance), DRAWS)
    assert not rejects(draws, stats.skellam(variance / 2, variance / 2).pmf)
    assert rejects(draws, stats.skellam(0.6 * variance, 0.6 * variance).pmf)


def test_none_and_nothing():
    assert exact_samplers.discrete_gaussian(Fraction(2), 0).shape == (0,)
    np.testing.assert_array_equal(exact_samplers.poisson(Fraction(0), 3), [0, 0, 0])
