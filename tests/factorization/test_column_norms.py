"""Sets of column norms against every pattern and linear programs."""

import numpy as np
import pytest
from scipy import optimize as scipy_optimize

from dpkit import factorization as fz
from dpkit.factorization.column_norms import EpochNorms, UnitNorms, WindowNorms, norm_set
from dpkit.factorization.sensitivity import largest_pattern_sum

SCHEMAS = [
    fz.SingleParticipation(7),
    fz.FixedEpoch(12, 3),
    fz.MinSep(12, 4),
    fz.MinSep(11, 3, 2),
    fz.MinSep(10, 3),
    fz.MinSep(9, 2, 3),
    fz.MinSep(12, 5),
    fz.MinSep(12, 12),
    fz.MinSep(12, 1, 4),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_norm_sets_hold_feasible_norms_and_their_support_is_that_of_a_linear_program(schema):
    n, k, rng = schema.iterations, schema.max_participations, np.random.default_rng(0)
    norms = norm_set("optimal", schema)
    size = len(norms.start(np.ones(n)))
    for _ in range(20):
        d = norms.squared_norms(rng.normal(size=size) * (rng.random(size) < 0.7) + 1e-3)
        assert np.min(d) > 0
        assert largest_pattern_sum(d, schema) <= k * (1 + 1e-12)
    incidence = np.zeros((0, n))
    for pattern in schema.patterns():
        incidence = np.vstack([incidence, np.isin(np.arange(n), pattern)])
    for _ in range(10):
        weights = rng.random(n) ** 3
        program = scipy_optimize.linprog(-weights, A_ub=incidence, b_ub=np.full(len(incidence), k), bounds=(0, None))
        # All feasible d count here, not only those that the set parametrises: this is what the certificate needs.
        assert norms.largest(weights) == pytest.approx(-program.fun, rel=1e-9)


@pytest.mark.parametrize("norms", [EpochNorms(3), WindowNorms(12, 5, 3), WindowNorms(12, 3, 2), UnitNorms(12)], ids=str)
def test_pullback_is_the_gradient(norms):
    rng = np.random.default_rng(0)
    v, direction = rng.random(len(norms.start(np.ones(12)))) + 0.1, rng.normal(size=12)
    numeric = np.zeros_like(v)
    for i in range(len(v)):
        step = np.zeros_like(v)
        step[i] = 1e-6
        numeric[i] = direction @ (norms.squared_norms(v + step) - norms.squared_norms(v - step)) / 2e-6
    np.testing.assert_allclose(norms.pullback(v, direction), numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "schema", [fz.FixedEpoch(12, 3), fz.MinSep(12, 4), fz.MinSep(12, 5), fz.MinSep(12, 3, 2)], ids=str
)
def test_start_recovers_the_norms_it_is_given(schema):
    # The entries that keep v off the boundary shift the norms, but not by more than their share.
    norms = norm_set("optimal", schema)
    given = norms.squared_norms(np.random.default_rng(1).random(len(norms.start(np.ones(12)))) + 0.5)
    found = norms.squared_norms(norms.start(given))
    assert np.corrcoef(given, found)[0, 1] > 0.5
