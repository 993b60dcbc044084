"""Shorter runs: their schemas, and that what is alike in every block is so after the way back."""

import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit.factorization.coarsening import halved

CASES = [
    (fz.SingleParticipation(1_003), 8),
    (fz.MinSep(1_003, 200), 8),
    (fz.MinSep(1_003, 96), 8),
    (fz.MinSep(1_003, 100, 3), 4),
    (fz.MinSep(50, 60), 2),
    (fz.MinSep(500, 3, 1), 5),
    (fz.FixedEpoch(1_200, 4), 7),
]


@pytest.mark.parametrize(("schema", "b"), CASES, ids=str)
def test_a_shorter_run_of_the_same_kind(schema, b):
    coarsening = halved(schema, b)
    short, n = coarsening.schema, schema.iterations
    assert 0.5 * n <= short.iterations <= 0.75 * n
    assert short.max_participations == schema.max_participations
    assert short.min_sep >= b
    assert isinstance(short, fz.FixedEpoch) == isinstance(schema, fz.FixedEpoch)
    assert coarsening.steps.shape == (short.iterations,)
    assert coarsening.before.shape == coarsening.fractions.shape == (n,)
    assert np.all(np.diff(coarsening.steps) > 0)
    # The first block stays as it is, and the last one is not far off.
    np.testing.assert_array_equal(coarsening.steps[: b + 1], np.arange(b + 1))
    assert n - 2 * b < coarsening.steps[-1] <= n - 1


@pytest.mark.parametrize(("schema", "b"), CASES, ids=str)
def test_periodic_values_stay_so_and_weights_sum_to_one(schema, b):
    coarsening = halved(schema, b)
    fine, m = np.arange(schema.iterations), coarsening.schema.iterations
    if schema.max_participations == 1:
        np.testing.assert_allclose(coarsening.prolong((np.arange(m) % b) ** 2.0), (fine % b) ** 2.0, atol=1e-12)
    np.testing.assert_array_equal(coarsening.prolong(np.ones((m, 3))), np.ones((len(fine), 3)))
    # A ramp comes back as a function that rises from its first to its last value.
    ramp = coarsening.prolong(coarsening.steps.astype(float))
    assert ramp[0] == 0
    assert np.max(np.abs(ramp - fine)) <= 2 * b + 0.02 * len(fine)
    weights = coarsening.prolong_weights(np.random.default_rng(0).random(m))
    assert np.sum(weights) == pytest.approx(1, abs=1e-12)
    assert np.min(weights) >= 0


@pytest.mark.parametrize(("schema", "b"), [(fz.SingleParticipation(95), 8), (fz.MinSep(1_000, 95), 8)], ids=str)
def test_too_short_a_run_is_left_alone(schema, b):
    assert halved(schema, b) is None
