"""Draws of privacy losses have the law of their pair, and no audit of them exceeds what is certified.

With n draws the largest distance between the empirical and the true distribution function exceeds t with probability at
most 2 exp(-2 n t^2) (Massart 1990); t is set where that is 1e-12. Keys are fixed, and fewer than 300 such comparisons
fail by chance with probability below 3e-10. The audits below are each wrong with probability at most 1e-12.
"""

import math

import numpy as np
import pytest
from scipy import stats

from dpkit import accounting, audit, mechanisms
from dpkit.accounting.direction import Direction
from dpkit.audit.losses import _attained_half, losses, total_losses
from dpkit.mechanisms import DominatingPair, UnsupportedViewError
from examples import ADD, ROWS, WITH_PAIRS, distinct_pairs, each_related

DRAWS, CONFIDENCE = 20_000, 1 - 1e-12
FAR = math.sqrt(math.log(2 / 1e-12) / (2 * DRAWS))
PAIRS = distinct_pairs()


def distance(pair: DominatingPair, drawn: np.ndarray, side: int) -> float:
    """Largest distance of the two survival functions, compared between the atoms."""
    finite = np.unique(drawn[np.isfinite(drawn)])
    points = np.append(finite[:: max(1, len(finite) // 2_000)] + 1e-9, [-1e9, 1e9])
    empirical = 1 - np.searchsorted(np.sort(drawn), points, side="right") / len(drawn)
    return float(np.max(np.abs(empirical - pair.sf(points)[side])))


@pytest.mark.parametrize("name", PAIRS)
def test_losses_have_the_law_of_their_pair(name):
    pair, rng = _attained_half(PAIRS[name]), np.random.default_rng(0)
    for side, present in ((0, True), (1, False)):
        drawn = total_losses(Direction.merge([(pair, 1)]), rng, DRAWS, present=present)
        assert distance(pair, drawn, side) < FAR
        assert not np.isnan(drawn).any()


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_another_law_is_noticed(mu):
    rng = np.random.default_rng(1)
    drawn = losses(mechanisms.GaussianPair(1.25 * mu), rng, DRAWS, present=True)
    assert distance(mechanisms.GaussianPair(mu), drawn, 0) > FAR
    assert distance(mechanisms.GaussianPair(1.25 * mu), drawn, 1) > FAR


class Halves(DominatingPair):
    """Surely tells P from Q with probability 1/2; otherwise a Gaussian pair."""

    gaussian = mechanisms.GaussianPair(1.0)

    def sf(self, loss):
        p, q = self.gaussian.sf(loss)
        return np.where(np.isposinf(loss), 0.0, (1 + p) / 2), q / 2

    def advantage(self, loss):
        raise NotImplementedError

    delta = advantage

    @property
    def loss_range(self):
        return -math.inf, math.inf


def test_any_other_pair_is_drawn_by_its_survival_functions():
    rng = np.random.default_rng(2)
    generic = losses.dispatch(object)
    for pair in (mechanisms.GaussianPair(0.7), mechanisms.LaplacePair(2.0), Halves()):
        for side, present in ((0, True), (1, False)):
            assert distance(pair, generic(pair, rng, DRAWS, present=present), side) < FAR
    # Binomial: 6 deviations of 70 around 10,000.
    assert abs(np.isposinf(losses(Halves(), rng, DRAWS, present=True)).sum() - DRAWS / 2) < 500
    assert abs(np.isneginf(losses(Halves(), rng, DRAWS, present=False)).sum() - DRAWS / 2) < 500


def test_compositions_add_up():
    rng, count = np.random.default_rng(3), 12
    gaussian = Direction.merge([(mechanisms.GaussianPair(0.3), 8), (mechanisms.GaussianPair(0.4), 4)])
    whole = mechanisms.GaussianPair(math.sqrt(8 * 0.09 + 4 * 0.16))
    assert distance(whole, total_losses(gaussian, rng, DRAWS, present=True), 0) < FAR
    # Randomized response: the number of true answers is binomial.
    (pair, _) = mechanisms.RandomizedResponse(0.5, 2).dominating_pairs("replace_one")
    drawn = total_losses(Direction.merge([(pair, count)]), rng, DRAWS, present=True)
    true = np.rint(drawn / math.log(3) + count) / 2
    expected = stats.binom.cdf(np.arange(count + 1), count, 0.75)
    assert np.max(np.abs(np.mean(true[:, None] <= np.arange(count + 1), axis=0) - expected)) < FAR
    # Step by step: with q = 1/2 and no noise to speak of, the loss counts how often the unit was drawn.
    sampled = mechanisms.SampledPair(mechanisms.GaussianPair(60.0), 0.5, adding=False)
    drawn = total_losses(Direction.merge([(sampled, count)]), rng, DRAWS, present=True)
    never = np.mean(np.abs(drawn - count * math.log(0.5)) < 1e-6)
    assert abs(never - 0.5**count) < FAR
    assert (drawn > count * math.log(0.5) - 1e-9).all()


@pytest.mark.parametrize(("row", "relation"), **each_related(WITH_PAIRS, distinct=True))
def test_no_mechanism_is_found_worse_than_certified(row, relation):
    for delta in (1e-3, 0.05):
        upper = accounting.PldAccountant(relation).epsilon(row.mechanism, delta=delta).upper
        found = audit.audit_losses(row.mechanism, relation, delta=delta, trials=DRAWS, confidence=CONFIDENCE)
        assert not found.contradicts(upper)


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
def test_a_sampled_run_is_found_nearly_as_bad_as_certified(relation):
    step = mechanisms.PoissonSampled(mechanisms.Gaussian(0.8), 0.05)
    run, delta = mechanisms.repeat(step, 100), 0.05
    bounds = accounting.PldAccountant(relation).epsilon(run, delta=delta)
    found = audit.audit_losses(run, relation, delta=delta, trials=60_000, confidence=CONFIDENCE)
    assert 0.6 * bounds.lower < found.epsilon_lower <= bounds.upper
    # An accountant that is off by 20 % of the noise is caught.
    wrong = mechanisms.repeat(mechanisms.PoissonSampled(mechanisms.Gaussian(0.8 / 0.8), 0.05), 100)
    assert found.contradicts(accounting.PldAccountant(relation).epsilon(wrong, delta=delta).upper)


def test_gdp_proves_more_of_a_gaussian_at_small_delta():
    run, delta = mechanisms.repeat(mechanisms.Gaussian(4.0), 16), 1e-6
    upper = accounting.PldAccountant().epsilon(run, delta=delta).upper
    plain, gdp = (
        audit.audit_losses(run, delta=delta, trials=DRAWS, confidence=CONFIDENCE, method=method)
        for method in ("threshold", "gdp")
    )
    assert plain.epsilon_lower < 0.5 * upper < 0.75 * upper < gdp.epsilon_lower <= upper
    assert "Gaussian DP" in gdp.assumption
    assert "Gaussian" not in plain.assumption


def test_what_tells_all_and_what_tells_nothing():
    for row, infinite in ((mechanisms.Gaussian(0.0), True), (mechanisms.compose(), False)):
        found = audit.audit_losses(row, delta=0.0, trials=1_000)
        assert found.epsilon_lower > 4 if infinite else found.epsilon_lower == 0


def test_a_seed_gives_the_same_again():
    one, same, other = (audit.audit_losses(mechanisms.Gaussian(1.0), delta=0.01, seed=seed) for seed in (4, 4, 5))
    assert one == same != other
    assert one.samples == 10_000


def test_pairs_that_are_only_bounds_are_said_to_be():
    (bounded,) = (row.mechanism for row in ROWS if row.name == "rectified")
    assert "says nothing about the run" in audit.audit_losses(bounded, delta=0.1, trials=100).assumption
    assert "nothing" not in audit.audit_losses(mechanisms.Gaussian(1.0), delta=0.1, trials=100).assumption


def test_bad_arguments_are_refused():
    with pytest.raises(UnsupportedViewError, match="dominating-pair"):
        audit.audit_losses(mechanisms.ZeroConcentrated(0.1), delta=0.1)
    for options, word in (({"trials": 3}, "trials"), ({"delta": 2}, "delta"), ({"confidence": 1}, "confidence")):
        with pytest.raises(ValueError, match=word):
            audit.audit_losses(mechanisms.Gaussian(1.0), ADD, **{"delta": 0.1, **options})
    with pytest.raises(ValueError, match="relation must be"):
        audit.audit_losses(mechanisms.Gaussian(1.0), "add", delta=0.1)
