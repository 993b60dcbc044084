"""What every accountant owes every mechanism, under every relation the mechanism supports."""

import itertools
import math
from fractions import Fraction

import pytest

from dpkit import NeighboringRelation, accounting, mechanisms
from dpkit.accounting import Bounds, PldAccountant, RdpAccountant, ZcdpAccountant
from dpkit.mechanisms import UnsupportedViewError
from examples import ROWS, WITH_PAIRS, by_name, each_related

ACCOUNTANTS = [PldAccountant, RdpAccountant, ZcdpAccountant]
DELTA = 1e-4


def supporting(row) -> list[type[accounting.PrivacyAccountant]]:
    return [kind for kind in ACCOUNTANTS if row.has_pairs or kind is not PldAccountant]


def check(bounds: Bounds) -> Bounds:
    assert not math.isnan(bounds.lower)
    assert not math.isnan(bounds.upper)
    assert 0 <= bounds.lower <= bounds.upper
    return bounds


@pytest.mark.parametrize(("row", "relation"), **each_related(ROWS, distinct=True))
def test_repeating_is_composing_with_itself(row, relation):
    repeated = mechanisms.repeat(row.mechanism, 3)
    composed = mechanisms.compose(row.mechanism, row.mechanism, row.mechanism)
    for kind in supporting(row):
        one, other = (check(kind(relation=relation).epsilon(m, delta=DELTA)) for m in (repeated, composed))
        assert one.lower <= other.upper
        assert other.lower <= one.upper
        assert one.upper == pytest.approx(other.upper, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize(("row", "relation"), **each_related(ROWS, distinct=True))
def test_coarser_views_never_claim_more(row, relation):
    run = mechanisms.repeat(row.mechanism, 4)
    bounds = [check(kind(relation=relation).epsilon(run, delta=DELTA)) for kind in supporting(row)]
    for finer, coarser in itertools.pairwise(bounds):
        assert coarser.upper >= finer.lower
    rdp, zcdp = bounds[-2:]
    assert zcdp.upper >= rdp.upper * (1 - 1e-6)


@pytest.mark.parametrize(("row", "relation"), **each_related(ROWS, distinct=True))
def test_more_runs_less_noise_or_smaller_delta_never_cost_less(row, relation):
    run = mechanisms.repeat(row.mechanism, 2)
    dearer = {
        "count": (mechanisms.repeat(row.mechanism, 5), DELTA),
        "delta": (run, DELTA / 10),
    }
    if row.noisier:
        cheaper = mechanisms.repeat(row.noisier, 2)
    for kind in supporting(row):
        accountant = kind(relation=relation)
        base = check(accountant.epsilon(run, delta=DELTA))
        for mechanism, delta in dearer.values():
            assert check(accountant.epsilon(mechanism, delta=delta)).upper >= base.lower
        if row.noisier:
            assert check(accountant.epsilon(cheaper, delta=DELTA)).lower <= base.upper
        if kind is not PldAccountant:
            # Without an interval the bound itself must be monotone.
            for mechanism, delta in dearer.values():
                assert accountant.epsilon(mechanism, delta=delta).upper >= base.upper * (1 - 1e-9)
            if row.noisier:
                assert accountant.epsilon(cheaper, delta=DELTA).upper <= base.upper * (1 + 1e-9)


@pytest.mark.parametrize(("row", "relation"), **each_related(ROWS, distinct=True))
def test_delta_inverts_epsilon(row, relation):
    for kind in supporting(row):
        accountant = kind(relation=relation)
        epsilon = check(accountant.epsilon(row.mechanism, delta=DELTA))
        at_upper = check(accountant.delta(row.mechanism, epsilon=epsilon.upper))
        assert at_upper.lower <= DELTA * (1 + 1e-9)
        assert at_upper.upper <= DELTA * 1.05 or epsilon.upper == 0
        if epsilon.lower > 0:
            assert check(accountant.delta(row.mechanism, epsilon=epsilon.lower)).upper >= DELTA * (1 - 1e-9)


@pytest.mark.parametrize(("row", "relation"), **each_related(WITH_PAIRS, distinct=True))
def test_one_release_is_bracketed_by_its_own_profile(row, relation):
    accountant = PldAccountant(relation=relation)
    for epsilon in (0.0, 0.05, 1.0):
        truth = max(pair.delta(epsilon) for pair in row.mechanism.dominating_pairs(relation))
        bounds = check(accountant.delta(row.mechanism, epsilon=epsilon))
        assert bounds.lower <= truth * (1 + 1e-11)
        assert bounds.upper >= truth * (1 - 1e-11)
        assert bounds.upper <= truth * 1.05 + 1e-12


@pytest.mark.parametrize("row", **by_name(ROWS))
def test_nothing_costs_nothing(row):
    for nothing in (mechanisms.repeat(row.mechanism, 0), mechanisms.compose()):
        for kind in supporting(row):
            accountant = kind(relation=row.relations[0])
            assert accountant.epsilon(nothing, delta=1e-9).upper == 0
            assert accountant.delta(nothing, epsilon=0.0).upper == 0


@pytest.mark.parametrize("row", **by_name(ROWS))
def test_unsupported_relations_are_refused_by_every_accountant(row):
    run = mechanisms.compose(mechanisms.Gaussian(1.0), row.mechanism)
    for kind in ACCOUNTANTS:
        for relation in NeighboringRelation:
            if relation in row.relations and kind in supporting(row):
                continue
            with pytest.raises(UnsupportedViewError):
                kind(relation=relation).epsilon(run, delta=DELTA)


@pytest.mark.parametrize("kind", ACCOUNTANTS)
@pytest.mark.parametrize("relation", NeighboringRelation)
def test_no_noise_is_infinitely_revealing(kind, relation):
    run = mechanisms.compose(mechanisms.Gaussian(0.0), mechanisms.Laplace(1.0))
    assert kind(relation=relation).epsilon(run, delta=0.5).upper == math.inf
    assert kind(relation=relation).delta(run, epsilon=10.0).upper == 1.0


@pytest.mark.parametrize("noise_multiplier", [3.0, 7.0, 0.3, 10.0])
@pytest.mark.parametrize("count", [1, 3, 1000])
@pytest.mark.parametrize("kind", [PldAccountant, RdpAccountant])
def test_pure_epsilon_is_rounded_outwards(kind, noise_multiplier, count):
    run = mechanisms.repeat(mechanisms.Laplace(noise_multiplier), count)
    truth = count / Fraction(noise_multiplier)
    bounds = check(kind().epsilon(run, delta=0.0))
    assert Fraction(bounds.lower) <= truth <= Fraction(bounds.upper)
    assert bounds.upper == pytest.approx(float(truth), rel=1e-9)


def test_any_pure_mechanism_is_bounded_at_delta_zero():
    for row in WITH_PAIRS:
        for relation in row.relations:
            pairs = row.mechanism.dominating_pairs(relation)
            most = max(pair.loss_range[1] for pair in pairs)
            upper = PldAccountant(relation=relation).epsilon(row.mechanism, delta=0.0).upper
            # A pair that is only a bound is rounded outwards itself, and the Renyi bound may be the closer one.
            assert upper >= most * (1 if all(pair.attained for pair in pairs) else 1 - 1e-11)
            assert math.isinf(most) or upper == pytest.approx(most, rel=1e-3)
