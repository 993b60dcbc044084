import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy import optimize, stats

from accounting.balls_in_bins_truth import two_modes
from dpkit import NeighboringRelation, accounting, mechanisms
from dpkit import factorization as fz
from dpkit.accounting import MonteCarloAccountant, PldAccountant, amplified, monte_carlo
from dpkit.mechanisms import BallsInBins, Gaussian, UnsupportedViewError

ADD, REPLACE, SPECIAL = NeighboringRelation
GRAM = np.array([[3.0, 1.0], [1.0, 2.0]])
ROUNDS, BETA = 200, 0.05
MOST_MISSES = 34


def make(samples: int, seed: int | None = 0, failure_probability: float = 1e-9, **kwargs) -> MonteCarloAccountant:
    return MonteCarloAccountant(samples=samples, failure_probability=failure_probability, seed=seed, **kwargs)


def delta_of(gram: np.ndarray, noise_multiplier: float, epsilon: float) -> float:
    if len(gram) == 1:
        return Gaussian(noise_multiplier / math.sqrt(gram[0, 0])).dominating_pairs(ADD)[0].delta(epsilon)
    return max(two_modes(gram, noise_multiplier, epsilon))


def epsilon_of(gram: np.ndarray, noise_multiplier: float, delta: float) -> float:
    return optimize.brentq(
        lambda e: math.log(max(delta_of(gram, noise_multiplier, e), 1e-300) / delta), 0, 50, xtol=1e-9
    )


def misses(bounds: list[accounting.Bounds], truth: float) -> int:
    return sum(not b.lower <= truth <= b.upper for b in bounds)


ONE = np.array([[1.0]])
CASES = [(ONE, 1.0), (GRAM, 1.0), (GRAM, 2.5), (np.diag([2.0, 2.0]), 0.8), (np.ones((2, 2)) + np.eye(2), 3.0)]


def test_the_number_of_misses_that_is_allowed_is_hardly_ever_reached_by_chance():
    assert stats.binom.sf(MOST_MISSES, ROUNDS, BETA) < 1e-9


@pytest.mark.parametrize(
    ("gram", "noise_multiplier", "epsilon"), [(*case, 0.7) for case in CASES] + [(GRAM, 1.0, 0.0), (GRAM, 1.0, 4.0)]
)
def test_deltas_are_bracketed_at_the_stated_confidence(gram, noise_multiplier, epsilon):
    truth, run = delta_of(gram, noise_multiplier, epsilon), BallsInBins(gram, noise_multiplier)
    found = [make(1_000, seed, BETA).delta(run, epsilon=epsilon) for seed in range(ROUNDS)]
    assert misses(found, truth) <= MOST_MISSES


@pytest.mark.parametrize(
    ("gram", "noise_multiplier", "delta"), [(ONE, 1.0, 1e-5), (GRAM, 1.0, 0.05), (GRAM, 2.5, 1e-5)]
)
def test_epsilons_are_bracketed_at_the_stated_confidence(gram, noise_multiplier, delta):
    truth, run = epsilon_of(gram, noise_multiplier, delta), BallsInBins(gram, noise_multiplier)
    found = [make(1_000, seed, BETA).epsilon(run, delta=delta) for seed in range(ROUNDS)]
    assert misses(found, truth) <= MOST_MISSES


def test_bounds_for_the_wrong_noise_are_caught():
    # Power: the very test above fails for noise that is 20 % off, for delta and for epsilon.
    wrong = BallsInBins(GRAM, 1.2)
    found = [make(10_000, seed, BETA).delta(wrong, epsilon=0.7) for seed in range(60)]
    assert misses(found, delta_of(GRAM, 1.0, 0.7)) > MOST_MISSES
    found = [make(10_000, seed, BETA).epsilon(wrong, delta=1e-5) for seed in range(40)]
    assert misses(found, epsilon_of(GRAM, 1.0, 1e-5)) > MOST_MISSES


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 6.0, 12.0])
def test_bounds_are_close_also_where_delta_is_tiny(epsilon):
    truth = delta_of(GRAM, 1.0, epsilon)
    # Truth is outside with probability 1e-9.
    bounds = make(50_000).delta(BallsInBins(GRAM, 1.0), epsilon=epsilon)
    assert 0.85 * truth < bounds.lower <= truth <= bounds.upper < 1.15 * truth


def test_epsilons_are_close():
    for delta in (1e-3, 1e-6, 1e-12):
        truth = epsilon_of(GRAM, 1.0, delta)
        bounds = make(50_000).epsilon(BallsInBins(GRAM, 1.0), delta=delta)
        assert 0.97 * truth < bounds.lower <= truth <= bounds.upper < 1.03 * truth


def test_the_published_value_of_independent_noise_in_bins():
    # Simulated with standard error 1e-4: 0.0707 and 0.0323. Certified, the former is the delta.
    run = amplified.balls_in_bins(fz.Identity(), iterations=100, num_bins=10, noise_multiplier=2.0)
    bounds = make(200_000).delta(run, epsilon=1.0)
    assert bounds.lower < 0.0713
    assert bounds.upper > 0.0701
    assert bounds.upper < 1.05 * bounds.lower
    for proposal, published in zip(run.loss_proposals(ADD, 1.0), (0.0707, 0.0323), strict=True):
        losses, log_weights = proposal.sample(np.random.default_rng(0), 200_000)
        terms = np.exp(log_weights) * np.maximum(-np.expm1(1.0 - losses), 0.0)
        assert abs(np.mean(terms) - published) < 6.5 * math.hypot(np.std(terms) / math.sqrt(200_000), 1e-4)


@pytest.mark.parametrize("strategy", [fz.SquareRoot(), fz.BandedSquareRoot(2), fz.Identity()])
@pytest.mark.parametrize("iterations", [2, 3, 4])
def test_short_runs_by_quadrature(strategy, iterations):
    C = strategy.matrix(iterations)
    M = np.stack([C[:, ::2].sum(axis=1), C[:, 1::2].sum(axis=1)], axis=1) / np.max(np.linalg.norm(C, axis=0))
    run = amplified.balls_in_bins(strategy, iterations, num_bins=2, noise_multiplier=1.5)
    truth = delta_of(M.T @ M, 1.5, 1.0)
    bounds = make(20_000).delta(run, epsilon=1.0)  # Truth is outside with probability 1e-9.
    assert 0.8 * truth < bounds.lower <= truth <= bounds.upper < 1.2 * truth


def test_both_relations_with_an_absent_unit_agree():
    run = BallsInBins(GRAM, 1.0)
    one, other = (make(2_000, relation=relation).delta(run, epsilon=1.0) for relation in (ADD, SPECIAL))
    assert (one.lower, one.upper) == (other.lower, other.upper)


def test_the_same_question_has_the_same_answer():
    run = BallsInBins(GRAM, 1.0)
    for seed in (None, 0, 5):
        assert make(2_000, seed).delta(run, epsilon=1.0) == make(2_000, seed).delta(run, epsilon=1.0)
        assert make(2_000, seed).epsilon(run, delta=0.01) == make(2_000, seed).epsilon(run, delta=0.01)
    for one, other in itertools.combinations((None, 0, 5), 2):
        assert make(2_000, one).delta(run, epsilon=1.0).upper != make(2_000, other).delta(run, epsilon=1.0).upper
    # Nobody chooses a seed that is left out: another question draws others.
    assert make(2_000, None).delta(run, epsilon=1.0).note != make(2_001, None).delta(run, epsilon=1.0).note


def test_the_note_says_what_the_bounds_rest_on():
    note = make(12_345, seed=77, failure_probability=1e-7).epsilon(BallsInBins(GRAM, 1.0), delta=0.01).note
    assert note == (
        "Monte Carlo with 12,345 samples per direction, seed 77: these bounds are wrong with probability "
        "at most 1e-07, which comes on top of delta"
    )


def test_several_at_once():
    run, accountant = BallsInBins(GRAM, 1.0), make(2_000)
    assert accountant.delta(run, epsilon=[0.5, 1.0])[1] == accountant.delta(run, epsilon=1.0)
    assert accountant.epsilon(run, delta=[0.1, 1e-3])[1] == accountant.epsilon(run, delta=1e-3)


def test_too_few_draws_cost_tightness_and_never_the_guarantee():
    # A delta that a thousand draws cannot certify where so many bins are amplified so strongly.
    run = BallsInBins(np.eye(300), 1.0)
    bounds = make(1_000).epsilon(run, delta=1e-8)
    assert bounds.upper == PldAccountant().epsilon(Gaussian(1.0), delta=1e-8).upper
    assert "because no test passed" in str(bounds.note)
    # A few more, and one of the epsilons far from the estimate passes.
    for samples, noise_multiplier in ((1_000, 1.5), (30_000, 1.0)):
        run = BallsInBins(np.eye(50), noise_multiplier)
        worst = PldAccountant().epsilon(Gaussian(noise_multiplier), delta=1e-8).upper
        bounds = make(samples).epsilon(run, delta=1e-8)
        assert "because no test passed" not in str(bounds.note)
        assert bounds.lower < bounds.upper < 0.9 * worst


@pytest.mark.parametrize("noise_multiplier", [1e-6, 0.01, 0.1, 0.3, 10.0, 1e3, 1e9])
def test_any_amount_of_noise_has_bounds(noise_multiplier):
    run, accountant = BallsInBins(GRAM, noise_multiplier), make(1_000)
    worst = Gaussian(noise_multiplier / math.sqrt(3))
    for delta in (0.0, 1e-300, 1e-12, 0.3, 1.0):
        bounds = accountant.epsilon(run, delta=delta)
        assert 0 <= bounds.lower <= bounds.upper <= PldAccountant().epsilon(worst, delta=delta).upper
    for epsilon in (0.0, 1e-9, 5.0, 1e3, 1e6):
        bounds = accountant.delta(run, epsilon=epsilon)
        assert 0 <= bounds.lower <= bounds.upper <= PldAccountant().delta(worst, epsilon=epsilon).upper


def test_memory_does_not_grow_with_the_samples(monkeypatch):
    monkeypatch.setattr(monte_carlo, "_MOST_PILOT", 2**13)  # which 2**17 samples reach
    run = BallsInBins(np.eye(8), 1.0)

    def peak(samples: int) -> int:
        tracemalloc.start()
        try:
            make(samples).epsilon(run, delta=1e-3)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(2**17)
    assert peak(2**19) < 1.05 * few < 64e6


def test_calibration_finds_the_noise():
    accountant = make(2_000)
    found = accounting.calibrate(
        lambda noise: BallsInBins(GRAM, noise), accountant, target_epsilon=2.0, target_delta=1e-3
    )
    assert epsilon_of(GRAM, found, 1e-3) < 2.0 < epsilon_of(GRAM, 0.85 * found, 1e-3)


def test_nothing_costs_nothing():
    nothing = mechanisms.repeat(BallsInBins(GRAM, 1.0), 0)
    assert make(1_000).epsilon(nothing, delta=1e-5).upper == 0
    assert make(1_000).delta(nothing, epsilon=0.0).upper == 0


def test_other_runs_are_refused():
    run = BallsInBins(GRAM, 1.0)
    with pytest.raises(UnsupportedViewError, match="accountants that work: pld, rdp, zcdp"):
        make(1_000).epsilon(Gaussian(1.0), delta=1e-5)
    for composed in (mechanisms.repeat(run, 2), mechanisms.compose(Gaussian(1.0), run)):
        with pytest.raises(UnsupportedViewError, match="compositions"):
            make(1_000).epsilon(composed, delta=1e-5)
    with pytest.raises(UnsupportedViewError, match="replace_one"):
        make(1_000, relation=REPLACE).epsilon(run, delta=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 999}, "samples must be >= 1000"),
        ({"samples": 1e6}, "samples must be an integer"),
        ({"failure_probability": 0.0}, "failure_probability must be in"),
        ({"failure_probability": 1.0}, "failure_probability must be in"),
        ({"failure_probability": 2.0}, "failure_probability must be a probability"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"relation": "other"}, "relation must be one of"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MonteCarloAccountant(**({"samples": 1_000, "failure_probability": 1e-6} | arguments))
