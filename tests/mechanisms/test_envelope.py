"""The pair of a pointwise maximum: its profile is that maximum, from above and nowhere far above."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpkit.mechanisms.discretization import relative_error
from dpkit.mechanisms.envelope import envelope_pair
from dpkit.numerics.worst_pair import HOCKEY_STICK, Contest, worst_pair_reference, worst_profile
from mechanisms.test_pairs import check_consistency


def family(seed: int, count: int, outcomes: int, spread: float):
    """Laws compared with each other in both orders."""
    random = np.random.default_rng(seed)
    laws = np.exp(spread * random.normal(size=(count, outcomes)))
    logs = np.log(laws / laws.sum(axis=1, keepdims=True))
    return Contest.between(logs[0], logs - logs[0], logs - logs[0]), logs


def envelope(contest: Contest, logs: np.ndarray):
    largest = (logs[:, None] - logs[None]).max()
    return envelope_pair(lambda x, known: worst_profile([contest], x, known), largest * (1 + 1e-12), logs.shape[1])


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 9), st.sampled_from([1e-4, 0.1, 1.0, 6.0, 60.0]))
@example(seed=0, count=2, outcomes=2, spread=1.0)
@example(seed=0, count=2, outcomes=2, spread=400.0)
def test_the_profile_is_the_largest_of_all(seed, count, outcomes, spread):
    contest, logs = family(seed, count, outcomes, spread)
    pair = envelope(contest, logs)
    assert pair.loss_range[1] >= (logs[:, None] - logs[None]).max()
    # The laws sum to one only to rounding, which profiles of laws that are close to each other feel.
    rounding = 0.0 if spread >= 1 else 4e-16
    corners = np.unique(logs[:, None] - logs[None])
    for epsilon in [*corners[corners > 0][::3].tolist(), *np.linspace(0, 1.1 * corners[-1], 25).tolist()]:
        truth = worst_pair_reference(HOCKEY_STICK, epsilon, logs[0], logs - logs[0], logs - logs[0])[1]
        allowed = float(relative_error(np.array(max(truth, 1e-290))))
        assert pair.delta(epsilon) >= truth * (1 - allowed) - rounding
        # Where the profile ends, by the rounding of the largest loss.
        assert pair.delta(epsilon) <= truth * (1 + 1e-10) + 2e-12 * corners[-1] + rounding
        # Below 0 as well, where outcomes are not beyond exponentials.
        if epsilon < 600:
            below = worst_pair_reference(HOCKEY_STICK, -epsilon, logs[0], logs - logs[0], logs - logs[0])[1]
            assert pair.delta(-epsilon) >= below * (1 - 1e-14) - rounding
            assert pair.delta(-epsilon) <= below * (1 + 1e-10) + 2e-12 * corners[-1] + rounding


@pytest.mark.parametrize("seed", range(4))
def test_the_result_is_a_pair(seed):
    pair = envelope(*family(seed, 4, 6, 1.0))
    check_consistency(pair, np.linspace(*pair.loss_range, 40))
    p, losses = np.array(pair.probabilities), np.array(pair.losses)
    assert np.all(np.diff(losses) > 0)
    assert p.sum() == pytest.approx(1.0, abs=1e-14)
    assert np.sum(p * np.exp(-losses)) == pytest.approx(1.0, abs=3e-14)


def test_a_profile_that_underflows_keeps_its_largest_loss():
    # Beyond 0.745 the profile is below the least positive number.
    def profile(x: np.ndarray, _: np.ndarray):
        return np.maximum(1 - x, 0.0) * np.exp(-1000 * x), np.full(len(x), np.nan)

    pair = envelope_pair(profile, 1.0, 2)
    assert pair.losses[-1] == 1.0
    assert pair.probabilities[-1] > 0
