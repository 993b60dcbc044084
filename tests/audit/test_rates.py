import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from dpkit import audit
from training.truth import gaussian_epsilon


@pytest.mark.parametrize("confidence", [0.5, 0.95, 1 - 1e-11])
@pytest.mark.parametrize(("count", "trials"), [(0, 1), (0, 50), (3, 50), (49, 50), (7, 10**6), (999_000, 10**6)])
def test_clopper_pearson_is_where_so_few_become_improbable(count, trials, confidence):
    limit = float(audit.clopper_pearson_upper(count, trials, confidence=confidence))
    assert limit == pytest.approx(stats.beta.ppf(confidence, count + 1, trials - count), rel=1e-9)
    with mpmath.workdps(40):
        # P[Bin(trials, p) <= count] = I_{1-p}(trials - count, count + 1).
        left = mpmath.betainc(trials - count, count + 1, 0, 1 - mpmath.mpf(limit), regularized=True)
        # 1 - confidence has a relative error of 2^-53 / (1 - confidence), 1e-5 at the smallest.
        assert float(left) == pytest.approx(1 - confidence, rel=1e-7)


def test_clopper_pearson_covers():
    n, chances = 30, np.linspace(0, 1, 301)
    limits = audit.clopper_pearson_upper(np.arange(n + 1), n, confidence=0.9)
    assert limits[n] == 1
    assert (np.diff(limits) > 0).all()
    missed = [stats.binom.pmf(np.flatnonzero(limits < p), n, p).sum() for p in chances]
    assert max(missed) <= 0.1 + 1e-12
    assert max(missed) > 0.099  # and no larger than need be


def test_no_trials_say_nothing():
    assert audit.clopper_pearson_upper(0, 0, confidence=0.95) == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((5, 4, 0.95), "count"), ((-1, 4, 0.95), "count"), ((1, 4, 1.0), "confidence"), ((1, 4, math.nan), "confidence")],
)
def test_clopper_pearson_refuses(arguments, word):
    count, trials, confidence = arguments
    with pytest.raises(ValueError, match=word):
        audit.clopper_pearson_upper(count, trials, confidence=confidence)


def limits(positives, negatives, trials, confidence):
    beta = (1 - confidence) / 2
    return [stats.beta.ppf(1 - beta, k + 1, trials - k) for k in (positives, negatives)]


@pytest.mark.parametrize("delta", [0.0, 0.01, 0.3])
@pytest.mark.parametrize(("positives", "negatives"), [(12, 900), (900, 12), (300, 300), (0, 0), (0, 999), (700, 700)])
def test_counts_give_the_formula(positives, negatives, delta):
    found = audit.audit_counts(positives, 1_000, negatives, 1_000, delta=delta, confidence=0.9)
    fpr, fnr = limits(positives, negatives, 1_000, 0.9)
    gains = [(1 - delta - fnr) / fpr, (1 - delta - fpr) / fnr, 1.0]
    assert found.epsilon_lower == pytest.approx(math.log(max(gains)), rel=1e-9)
    assert (found.false_positive_rate, found.false_negative_rate) == pytest.approx((fpr, fnr), rel=1e-9)
    assert (found.delta, found.confidence, found.samples) == (delta, 0.9, 2_000)
    assert found.contradicts(found.epsilon_lower - 1e-9)
    assert not found.contradicts(found.epsilon_lower)


def test_exchanging_the_worlds_changes_nothing():
    one, other = (audit.audit_counts(*k, delta=1e-3).epsilon_lower for k in ((3, 50, 20, 80), (20, 80, 3, 50)))
    assert one == other > 0


def test_gdp_is_the_epsilon_of_mu():
    fpr, fnr = limits(50, 400, 1_000, 0.95)
    mu = stats.norm.isf(fpr) - stats.norm.ppf(fnr)
    found = audit.audit_counts(50, 1_000, 400, 1_000, delta=1e-5, method="gdp")
    truth = gaussian_epsilon(mu, 1e-5)
    assert truth * (1 - 1e-3) <= found.epsilon_lower <= truth
    assert "Gaussian" in found.assumption
    assert "Gaussian" not in audit.audit_counts(50, 1_000, 400, 1_000, delta=1e-5).assumption
    assert audit.audit_counts(600, 1_000, 600, 1_000, delta=1e-5, method="gdp").epsilon_lower == 0
    assert audit.audit_counts(1_000, 1_000, 0, 1_000, delta=1e-5, method="gdp").epsilon_lower == 0


@pytest.mark.parametrize(
    ("counts", "options", "word"),
    [
        ((1, 0, 1, 10), {}, "absent_trials"),
        ((1, 10, 1, 0), {}, "present_trials"),
        ((11, 10, 1, 10), {}, "count"),
        ((-1, 10, 1, 10), {}, "false_positives"),
        ((1, 10, 1.5, 10), {}, "false_negatives"),
        ((1, 10, 1, 10), {"delta": 1.5}, "delta"),
        ((1, 10, 1, 10), {"confidence": 0.0}, "confidence"),
        ((1, 10, 1, 10), {"method": "prv"}, "method"),
        ((1, 10, 1, 10), {"method": "gdp", "delta": 0.0}, "delta must be > 0"),
    ],
)
def test_counts_refuse(counts, options, word):
    with pytest.raises(ValueError, match=word):
        audit.audit_counts(*counts, **{"delta": 1e-5, **options})


def test_scores_choose_on_one_half_and_measure_on_the_other():
    rng = np.random.default_rng(0)
    present, absent = rng.normal(2, 1, 4_000), rng.normal(0, 1, 4_000)
    found = audit.audit_scores(present, absent, delta=0.01)
    assert found.samples == 4_000
    # A choice that never sees the second half: nothing to be found there, nothing found.
    same = rng.normal(0, 1, 2_000)
    nothing = audit.audit_scores(np.append(present[:2_000], same), np.append(absent[:2_000], same), delta=0.01)
    assert found.epsilon_lower > 2 > nothing.epsilon_lower == 0


@pytest.mark.parametrize("bad", [[1.0], [1.0, math.nan], [[1.0, 2.0]]])
def test_scores_refuse(bad):
    with pytest.raises(ValueError, match="absent must hold"):
        audit.audit_scores([1.0, 2.0], bad, delta=0.1)


def test_the_bound_covers_at_its_confidence():
    # 400 audits of randomized response with epsilon 1, each wrong with probability at most 0.1. More than 93 wrong ones
    # have probability below 1e-13 at 0.1 each. The best threshold is the only one, so that the bound is close.
    rng, truth, wrong = np.random.default_rng(1), math.e / (1 + math.e), 0
    for _ in range(400):
        present, absent = rng.random((2, 400)) < np.array([[truth], [1 - truth]])
        wrong += audit.audit_scores(present, absent, delta=0.0, confidence=0.9).epsilon_lower > 1
    assert wrong <= 93
