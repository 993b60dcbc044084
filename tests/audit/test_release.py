"""Audits of `privatize` itself: right mechanisms pass, mechanisms whose noise is off by a fifth are caught.

Each audit is wrong with probability at most 1e-12, and there are fewer than 150.
"""

import dataclasses

import jax
import numpy as np
import pytest

from dpkit import accounting, audit, mechanisms
from dpkit.audit.release import released_scores
from dpkit.mechanisms import Mechanism, UnsupportedViewError
from dpkit.relations import NeighboringRelation
from examples import ADD, REPLACE, ROWS, SPECIAL, by_name

CONFIDENCE, TRIALS = 1 - 1e-12, 100_000
SILENT = ("mixture", "mixture-always-there", "sampled-group", "zero-concentrated")
RELEASING = [row for row in ROWS if row.name not in SILENT]


def certified(mechanism: Mechanism, relation: NeighboringRelation, delta: float) -> float:
    try:
        mechanism.dominating_pairs(relation)
    except UnsupportedViewError:
        return accounting.RdpAccountant(relation).epsilon(mechanism, delta=delta).upper
    return accounting.PldAccountant(relation).epsilon(mechanism, delta=delta).upper


@pytest.mark.parametrize("row", **by_name(RELEASING))
def test_no_release_is_found_worse_than_certified(row):
    # Replacing moves most, where it is supported.
    relation = REPLACE if REPLACE in row.relations else row.relations[0]
    present, absent = released_scores(row.mechanism, relation, 12_000, seed=0)
    for delta in (1e-3, 0.05):
        found = audit.audit_scores(present, absent, delta=delta, confidence=CONFIDENCE)
        assert not found.contradicts(certified(row.mechanism, relation, delta))


# Noise that is 0.8 times what is accounted for, and a delta that shows it. The power is nearly one: over seeds, the
# bound is above the certified epsilon by many times its standard deviation.
OFF = [
    ("gaussian", "noise_multiplier", 0.8, ADD, 0.2),
    ("gaussian", "noise_multiplier", 0.8, REPLACE, 0.4),
    ("laplace", "noise_multiplier", 0.8, ADD, 0.0),
    ("randomized-response", "noise_parameter", 0.8, REPLACE, 0.0),
    ("discrete-gaussian", "sigma", 0.8, SPECIAL, 0.1),
    ("skellam", "variance", 0.64, REPLACE, 0.2),
    ("truncated-number", "noise_multiplier", 0.8, REPLACE, 0.1),
    ("rectified", "noise_multiplier", 0.8, ADD, 0.2),
    ("sampled-gaussian-often", "mechanism", 0.8, ADD, 0.1),
]


@pytest.mark.parametrize(("name", "field", "factor", "relation", "delta"), OFF, ids=[f"{r[0]}-{r[3]}" for r in OFF])
def test_noise_off_by_a_fifth_is_caught(name, field, factor, relation, delta):
    (right,) = (row.mechanism for row in ROWS if row.name == name)
    value = getattr(right, field)
    less = mechanisms.Gaussian(0.8 * value.noise_multiplier) if field == "mechanism" else factor * value
    wrong = dataclasses.replace(right, **{field: less})
    found = audit.audit_release(wrong, relation, delta=delta, trials=TRIALS, confidence=CONFIDENCE)
    assert found.contradicts(certified(right, relation, delta))


class Forgetful(mechanisms.Gaussian):
    """Accounts for its noise, and adds it only where there is something to hide."""

    def privatize(self, value, key):
        noise = self.noise_multiplier * jax.random.normal(key, np.shape(value))
        return jax.numpy.where(value == 0, 0.0, value + noise)


def test_a_release_that_is_not_the_one_accounted_for_is_caught():
    found = audit.audit_release(Forgetful(2.0), delta=1e-5, trials=10_000)
    assert found.contradicts(accounting.PldAccountant().epsilon(Forgetful(2.0), delta=1e-5).upper)
    # Audits of the stated losses cannot see it.
    losses = audit.audit_losses(Forgetful(2.0), delta=1e-5, trials=10_000, confidence=CONFIDENCE)
    assert not losses.contradicts(accounting.PldAccountant().epsilon(Forgetful(2.0), delta=1e-5).upper)


def test_sampled_releases_are_of_the_units_that_are_drawn():
    step = mechanisms.PoissonSampled(mechanisms.Gaussian(1e-3), 0.25)
    present, absent = released_scores(step, ADD, 40_000, seed=1)
    assert (np.abs(absent) < 0.01).all()
    # Binomial: 7 deviations of 87 around 10,000.
    assert abs(np.count_nonzero(np.abs(present - 1) < 0.01) - 10_000) < 610
    fixed = mechanisms.FixedSizeSampled(mechanisms.Gaussian(1e-3), 1, 4)
    present, absent = released_scores(fixed, REPLACE, 40_000, seed=1)
    assert (np.abs(absent + 1) < 0.01).all()
    assert abs(np.count_nonzero(np.abs(present - 1) < 0.01) - 10_000) < 610


def test_gdp_and_the_seed():
    options = {"delta": 1e-6, "trials": 20_000, "confidence": CONFIDENCE}
    gdp = audit.audit_release(mechanisms.Gaussian(1.0), method="gdp", **options)
    upper = accounting.PldAccountant().epsilon(mechanisms.Gaussian(1.0), delta=1e-6).upper
    assert 0.7 * upper < gdp.epsilon_lower <= upper
    assert gdp == audit.audit_release(mechanisms.Gaussian(1.0), method="gdp", **options)
    assert gdp != audit.audit_release(mechanisms.Gaussian(1.0), method="gdp", seed=1, **options)
    assert gdp.method == "released values, error rates, read as Gaussian DP"


@pytest.mark.parametrize("row", **by_name([row for row in ROWS if row.name in SILENT]))
def test_what_makes_no_release_is_refused(row):
    with pytest.raises(UnsupportedViewError, match="audit_losses"):
        audit.audit_release(row.mechanism, delta=0.1)


def test_compositions_and_unproved_relations_are_refused():
    with pytest.raises(UnsupportedViewError, match="audit_losses"):
        audit.audit_release(mechanisms.repeat(mechanisms.Gaussian(1.0), 2), delta=0.1)
    with pytest.raises(UnsupportedViewError, match="replace_one"):
        audit.audit_release(mechanisms.PoissonBinomial(7, 0.2, 1.0), ADD, delta=0.1)
    with pytest.raises(ValueError, match="trials"):
        audit.audit_release(mechanisms.Gaussian(1.0), delta=0.1, trials=2)
