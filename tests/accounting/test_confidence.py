import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from dpkit.accounting.confidence import choose_bet, mean_bound

BETA = 0.02
ROUNDS = 1_000


def bound(terms: np.ndarray, bet: float, beta: float = BETA) -> float:
    return mean_bound(float(np.sum(np.log1p(-bet * terms))), len(terms), bet, beta)


@pytest.mark.parametrize("bet", [0.9, 0.3, 0.01, -0.05, -0.9])
def test_the_formula_is_that_of_the_proof(bet):
    terms = np.random.default_rng(3).random(20)
    with mpmath.workdps(40):
        product = mpmath.fprod(1 - mpmath.mpf(bet) * mpmath.mpf(float(x)) for x in terms)
        exact = (1 - (mpmath.mpf(BETA) * product) ** (mpmath.mpf(1) / 20)) / mpmath.mpf(bet)
    assert bound(terms, bet) == pytest.approx(float(exact), rel=1e-12)


# Each round may miss with probability 0.02; more than 55 misses in 1,000 rounds have probability 2e-11.
MOST_MISSES = 55


@pytest.mark.parametrize(
    "law",
    [stats.uniform(), stats.bernoulli(0.01), stats.bernoulli(0.5), stats.beta(0.05, 2.0), stats.beta(8, 1)],
    ids=["uniform", "rare", "coin", "mostly-small", "mostly-large"],
)
@pytest.mark.parametrize("above", [True, False])
def test_bounds_miss_no_more_often_than_stated(law, above):
    assert stats.binom.sf(MOST_MISSES, ROUNDS, BETA) < 1e-9
    generator = np.random.default_rng(11)
    misses = 0
    for _ in range(ROUNDS):
        pilot, terms = law.rvs(size=30, random_state=generator), law.rvs(size=200, random_state=generator)
        bet = choose_bet(pilot[pilot > 0], 30, 1.0, 200, BETA, above=above)
        gap = bound(terms, bet) - law.mean()
        misses += gap < 0 if above else gap > 0
    assert misses <= MOST_MISSES


def test_a_bound_that_forgets_the_failure_probability_is_caught():
    # Power: the mean itself misses in about half of the rounds.
    generator = np.random.default_rng(11)
    means = [np.mean(generator.random(200)) for _ in range(ROUNDS)]
    assert sum(mean < 0.5 for mean in means) > MOST_MISSES


def test_the_best_bet_on_rare_events_is_as_good_as_the_chernoff_bound():
    count, hits, beta = 100_000, 40, 1e-6
    pilot = np.ones(5)
    bet = choose_bet(pilot, 12_500, 1.0, count, beta, above=True)
    terms = np.zeros(count)
    terms[:hits] = 1.0
    found, share = bound(terms, bet, beta), hits / count
    divergence = share * math.log(share / found) + (1 - share) * math.log((1 - share) / (1 - found))
    # No fixed bet beats N KL = log(1 / beta); a good one comes within a few per cent of it.
    assert 1 <= count * divergence / math.log(1 / beta) < 1.1
    # The exact (Clopper-Pearson) bound is smaller still.
    assert stats.beta.ppf(1 - beta, hits + 1, count - hits) < found


def test_nothing_seen_gives_nearly_the_rule_of_log_over_n():
    bet = choose_bet(np.zeros(0), 12_500, 2.0, 100_000, 1e-6, above=True)
    assert bound(np.zeros(100_000), bet, 1e-6) < 1.5 * 2.0 * math.log(1e6) / 100_000


def test_little_variance_gives_a_bound_far_below_chernoffs():
    terms = np.random.default_rng(5).uniform(0.49, 0.51, 10_000)
    bet = choose_bet(terms[:1000], 1000, 1.0, 9_000, 1e-6, above=True)
    found = bound(terms[1000:], bet, 1e-6)
    assert 0.5 < found < 0.505  # Chernoff's: 0.5 + sqrt(log(1e6) / 18,000) = 0.528
