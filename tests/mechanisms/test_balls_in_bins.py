import math

import numpy as np
import pytest
from scipy import stats

from accounting.balls_in_bins_truth import full_outcomes, two_modes
from dpkit import NeighboringRelation, accounting, mechanisms
from dpkit.mechanisms import BallsInBins, UnsupportedViewError
from dpkit.mechanisms.balls_in_bins import CopiesProposal, ShiftProposal

ADD, REPLACE, _ = NeighboringRelation
GRAM = np.array([[3.0, 1.0], [1.0, 2.0]])


def some_modes(rows: int, bins: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (rows, bins))


def every_proposal(mechanism: BallsInBins):
    one = mechanism.loss_proposals(ADD, 1.0)
    constants = [0.0]
    for k in range(1, 6):
        rho = np.max(np.mean(np.exp(k * mechanism.scaled_gram), axis=1))
        constants.append(constants[-1] + math.log(rho))
    copies = [CopiesProposal(mechanism, a + 1, constant) for a, constant in enumerate(constants)]
    return [(0, p) for p in (one[0], *copies)] + [
        (1, p) for p in (one[1], *(ShiftProposal(mechanism, t) for t in (0, 2)))
    ]


@pytest.mark.parametrize("present", [True, False])
def test_inner_products_with_the_modes_say_as_much_as_the_whole_outcome(present):
    # Two-sample Kolmogorov-Smirnov tests with fixed seeds: a p-value below 1e-9 has that probability.
    M, stddev, count = some_modes(7, 3), 1.3, 40_000
    whole = full_outcomes(M, stddev, present, count, np.random.default_rng(1))

    def drawn(noise_multiplier: float) -> np.ndarray:
        mechanism = BallsInBins(M.T @ M, noise_multiplier)
        proposal = CopiesProposal(mechanism, 1, 0.0) if present else ShiftProposal(mechanism, 0.0)
        losses, log_weights = proposal.sample(np.random.default_rng(2), count)
        assert np.all(log_weights == 0)
        return losses if present else -losses

    assert stats.ks_2samp(whole, drawn(stddev)).pvalue > 1e-9
    # Power: noise that is 20 % off is seen.
    assert stats.ks_2samp(whole, drawn(1.2 * stddev)).pvalue < 1e-9


@pytest.mark.parametrize("noise_multiplier", [0.7, 1.5])
@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_every_proposal_has_the_right_mean(noise_multiplier, epsilon):
    truth = two_modes(GRAM, noise_multiplier, epsilon)
    for i, (side, proposal) in enumerate(every_proposal(BallsInBins(GRAM, noise_multiplier))):
        losses, log_weights = proposal.sample(np.random.default_rng(100 + i), 60_000)
        terms = np.exp(log_weights) * np.maximum(-np.expm1(epsilon - losses), 0.0)
        # The terms lie in [0, B]: by Bernstein's inequality a false failure of one check has probability
        # 2 exp(-24) = 8e-11, and there are 54 of these in all.
        variance, bound = max(np.var(terms), 1e-300), proposal.largest_term(epsilon)
        allowed = math.sqrt(2 * 24 * variance / len(terms)) + 24 * bound / len(terms)
        assert abs(np.mean(terms) - truth[side]) < allowed


def test_a_mean_of_the_wrong_noise_is_seen():
    truth = two_modes(GRAM, 1.5, 1.0)[0]
    proposal = BallsInBins(GRAM, 1.8).loss_proposals(ADD, 1.0)[0]
    losses, log_weights = proposal.sample(np.random.default_rng(5), 60_000)
    terms = np.exp(log_weights) * np.maximum(-np.expm1(1.0 - losses), 0.0)
    assert abs(np.mean(terms) - truth) > math.sqrt(2 * 24 * np.var(terms) / 60_000) + 24 / 60_000


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise_multiplier", [0.4, 1.0, 3.0])
def test_weights_and_terms_never_exceed_their_bounds(seed, noise_multiplier):
    M = some_modes(6, 5, seed)
    for _, proposal in every_proposal(BallsInBins(M.T @ M, noise_multiplier)):
        losses, log_weights = proposal.sample(np.random.default_rng(seed), 5_000)
        assert np.all(log_weights <= proposal.log_constant - proposal.power * losses + 1e-9)
        for epsilon in (0.0, 0.5, 4.0):
            terms = np.exp(log_weights) * np.maximum(-np.expm1(epsilon - losses), 0.0)
            assert np.max(terms) <= proposal.largest_term(epsilon) * (1 + 1e-9)
            above = losses > epsilon
            assert np.all(np.exp(log_weights[above]) <= proposal.largest_weight(epsilon) * (1 + 1e-9))


def test_the_chosen_proposal_has_the_least_range():
    mechanism = BallsInBins(GRAM, 1.0)
    for epsilon in (0.0, 2.0, 8.0):
        best = mechanism.loss_proposals(ADD, epsilon)
        for side, proposal in every_proposal(mechanism):
            assert best[side].largest_term(epsilon) <= proposal.largest_term(epsilon) * (1 + 1e-6)


def test_the_worst_case_is_never_more_private():
    for noise_multiplier in (0.5, 1.0, 4.0):
        mechanism = BallsInBins(GRAM, noise_multiplier)
        for epsilon in (0.0, 1.0, 3.0):
            worst = mechanism.worst_case.dominating_pairs(ADD)[0].delta(epsilon)
            assert max(two_modes(GRAM, noise_multiplier, epsilon)) <= worst * (1 + 1e-9)


@pytest.mark.parametrize("relation", NeighboringRelation)
def test_other_accountants_refuse_by_name(relation):
    run = mechanisms.repeat(BallsInBins(GRAM, 1.0), 1)
    for kind in (accounting.PldAccountant, accounting.RdpAccountant, accounting.ZcdpAccountant):
        with pytest.raises(UnsupportedViewError, match="accountants that work: monte_carlo"):
            kind(relation=relation).epsilon(run, delta=1e-5)


def test_replacing_groups_and_releases_are_refused():
    mechanism = BallsInBins(GRAM, 1.0)
    with pytest.raises(UnsupportedViewError, match="replace_one"):
        mechanism.loss_proposals(REPLACE, 1.0)
    with pytest.raises(UnsupportedViewError, match="no exact group"):
        mechanisms.group(mechanism, 2)


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        ([[1.0, 2.0]], "square"),
        ([[1.0, math.nan], [math.nan, 1.0]], "finite"),
        ([[1.0, -0.1], [-0.1, 1.0]], "no negative entry"),
        ([[0.0, 0.0], [0.0, 0.0]], "not be 0"),
        ([[1.0, 0.5], [0.2, 1.0]], "symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "semi-definite"),
    ],
)
def test_a_gram_matrix_that_is_none_is_refused(gram, message):
    with pytest.raises(ValueError, match=f"gram must.*{message}"):
        BallsInBins(gram, 1.0)


def test_noise_must_be_positive():
    with pytest.raises(ValueError, match="noise_multiplier must be > 0"):
        BallsInBins(GRAM, 0.0)


def test_it_is_a_value():
    one, other = BallsInBins(GRAM, 1.0), BallsInBins(GRAM.copy(), 1.0)
    assert one == other
    assert hash(one) == hash(other)
    assert one != BallsInBins(GRAM, 2.0)
    assert one != BallsInBins(2 * GRAM, 1.0)
    assert one != "one"
    with pytest.raises(ValueError, match="read-only"):
        one.gram[0, 0] = 5.0
