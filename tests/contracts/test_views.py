"""What the views of every mechanism owe each other, under every relation they support."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import special

from dpkit import NeighboringRelation, mechanisms
from dpkit.mechanisms import DominatingPair, Mechanism, PoissonSampled, UnsupportedViewError
from examples import DIRECTIONS, ROWS, WITH_PAIRS, by_name, distinct_pairs, each_related

PAIRS = distinct_pairs()
VIEWS = {
    "pld": lambda mechanism, relation: mechanism.dominating_pairs(relation),
    "rdp": lambda mechanism, relation: mechanism.rdp([2.0], relation),
    "zcdp": lambda mechanism, relation: mechanism.zcdp(relation),
}


def nodes(pair: DominatingPair) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for integrals over the loss: Gauss-Legendre panels, broken at every kink, denser near 0."""
    low, high = (min(max(end, -800.0), 800.0) for end in pair.loss_range)
    breaks = sorted({low, 0.0, high, *(x for x in pair.atoms if low <= x <= high)})
    points, weights = np.polynomial.legendre.leggauss(16)
    scale = 1e-7
    all_nodes, all_weights = [], []
    for left, right in itertools.pairwise(breaks):
        edges = np.linspace(np.arcsinh(left / scale), np.arcsinh(right / scale), 401)
        half = np.diff(edges)[:, None] / 2
        t = edges[:-1, None] + half * (1 + points)
        all_nodes.append((scale * np.sinh(t)).ravel())
        all_weights.append((scale * np.cosh(t) * half * weights).ravel())
    return np.concatenate(all_nodes), np.concatenate(all_weights)


def renyi_from_survival(pair: DominatingPair, orders: np.ndarray) -> np.ndarray:
    """D_order(P||Q) by parts: with f(x) = e^(ax) - 1 - a(e^x - 1), E_Q[f(L)] is an integral of f' against Q's tails.

    f' is positive above 0, where it meets Q[L > x], and negative below, where it meets -Q[L <= x]: nothing cancels.
    """
    x, weight = nodes(pair)
    q = pair.sf(x)[1]
    result = []
    for order in orders.tolist():
        near = np.minimum(x, 1.0)
        with np.errstate(divide="ignore"):
            # |f'| = a e^x |e^((a-1)x) - 1|; far out its logarithm, because the moment itself may overflow.
            log_slope = np.where(
                x < 1,
                np.log(order * np.exp(near) * np.abs(np.expm1((order - 1) * near))),
                math.log(order) + order * x + np.log1p(-np.exp((1 - order) * np.maximum(x, 1.0))),
            )
            tail = np.where(x > 0, q, np.maximum(1 - q, 0.0))
            log_moment = special.logsumexp(log_slope + np.log(tail) + np.log(weight))
        result.append(
            float(np.logaddexp(0, log_moment) if log_moment > 0 else np.log1p(np.exp(log_moment))) / (order - 1)
        )
    return np.array(result)


@pytest.mark.parametrize(("row", "relation"), **each_related(WITH_PAIRS, distinct=True))
def test_rdp_view_is_the_divergence_of_the_pairs(row, relation):
    orders = np.array([1.1, 1.5, 2.0, 5.0, 12.0])
    # Beyond e^250 the tails that make up the moment are too small for float64.
    orders = orders[(orders - 1) * row.mechanism.rdp(orders, relation) < 250]
    both = [renyi_from_survival(pair, orders) for pair in row.mechanism.dominating_pairs(relation)]
    truth = np.maximum(*both)
    view = row.mechanism.rdp(orders, relation)
    assert view.shape == (len(orders),)
    assert np.all(view * (1 + row.pairs_slack) >= truth * (1 - 1e-7))
    assert np.all(view <= truth * (1 + 1e-7 + row.rdp_slack))


@pytest.mark.parametrize(("row", "relation"), **each_related(ROWS))
def test_rho_bounds_every_order(row, relation):
    orders = np.concatenate([[1.0001, 1.001], 1 + np.geomspace(0.01, 999, 60)])
    rho, divergences = row.mechanism.zcdp(relation), row.mechanism.rdp(orders, relation)
    assert np.all(divergences >= 0)
    assert np.all(divergences <= rho * orders * (1 + 1e-10))


@pytest.mark.parametrize(("row", "relation"), **each_related(ROWS))
def test_divergences_grow_with_the_order(row, relation):
    divergences = row.mechanism.rdp(1 + np.geomspace(1e-3, 100, 40), relation)
    assert np.all(np.isfinite(divergences))
    assert np.all(np.diff(divergences) >= -1e-9 * divergences[:-1] - 1e-15)


@pytest.mark.parametrize("row", **by_name(ROWS))
@pytest.mark.parametrize("view", VIEWS)
def test_unsupported_views_say_what_works(row, view):
    for relation in NeighboringRelation:
        if relation in row.relations and (row.has_pairs or view != "pld"):
            VIEWS[view](row.mechanism, relation)
            continue
        with pytest.raises(UnsupportedViewError) as error:
            VIEWS[view](row.mechanism, relation)
        alternatives = row.relations if relation not in row.relations else ("rdp", "zcdp")
        assert any(str(name) in str(error.value) for name in alternatives)


@pytest.mark.parametrize("row", **by_name(ROWS))
def test_mechanisms_are_frozen_values(row):
    copy = dataclasses.replace(row.mechanism)
    assert copy == row.mechanism
    assert hash(copy) == hash(row.mechanism)
    assert row.mechanism != row.noisier
    assert {row.mechanism: 1}[copy] == 1
    field = dataclasses.fields(row.mechanism)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(row.mechanism, field, 1.0)
    assert list(row.mechanism.parts()) == [(row.mechanism, 1)]


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_never_has_more_than_all_of_p(name):
    # E_Q[e^L; finite] = P[L < inf], by parts: an integral of e^x Q[L > x].
    pair = PAIRS[name]
    x, weight = nodes(pair)
    low, high = pair.loss_range
    q = pair.sf(x)[1]
    below = math.exp(low) * float(pair.sf(low - 1e-9 - 1e-9 * abs(low))[1]) if math.isfinite(low) else 0.0
    with np.errstate(divide="ignore"):
        total = below + np.sum(weight * np.exp(x + np.log(q)))
    assert total == pytest.approx(1 - pair.infinite_mass, rel=1e-8)
    assert high >= 0 or pair.infinite_mass


@pytest.mark.parametrize("name", PAIRS)
def test_profiles_fall_and_follow_from_the_survival_functions(name):
    pair = PAIRS[name]
    atoms = [x for x in pair.atoms if -6 < x < 20]
    losses = np.unique(np.concatenate([np.linspace(-3, 8, 45), np.linspace(-0.02, 0.02, 20), atoms]))
    # Slopes between neighbours that nearly agree are rounding errors.
    losses = losses[np.diff(losses, prepend=-math.inf) > 1e-7]
    p, q = pair.sf(losses)
    for tail in (p, q):
        assert np.all((tail >= 0) & (tail <= 1 + 1e-15))
        assert np.all(np.diff(tail) <= 1e-14)
    gain = pair.advantage(losses)
    np.testing.assert_allclose(gain, p - q, rtol=0, atol=1e-14)
    deltas = np.array([pair.delta(loss) for loss in losses.tolist()])
    np.testing.assert_allclose(deltas, gain - np.expm1(losses) * q, rtol=1e-9, atol=1e-13 * (1 + np.exp(losses)).max())
    assert np.all(np.diff(deltas) <= 1e-14)
    # Convex in e^epsilon.
    slopes = np.diff(deltas) / np.diff(np.exp(losses))
    assert np.all(np.diff(slopes) >= -1e-9 * (1 + np.abs(slopes[1:])))


@pytest.mark.parametrize(("row", "relation"), **each_related(WITH_PAIRS, distinct=True))
def test_the_two_directions_are_each_others_reverse(row, relation):
    present, absent = row.mechanism.dominating_pairs(relation)
    for epsilon in (1e-6, 0.003, 0.1, 0.7, 2.0, 5.0):
        for one, other in ((present, absent), (absent, present)):
            linked = -math.expm1(-epsilon) + math.exp(-epsilon) * other.delta(epsilon)
            assert one.delta(-epsilon) == pytest.approx(linked, rel=1e-10), DIRECTIONS


BASES = [row for row in ROWS if not isinstance(row.mechanism, PoissonSampled)]
ZEROED_OUT = [row for row in BASES if row.has_pairs and NeighboringRelation.REPLACE_SPECIAL in row.relations]


@pytest.mark.parametrize(("row", "relation"), **each_related(BASES))
def test_sampling_everyone_changes_nothing(row, relation):
    always = PoissonSampled(row.mechanism, 1.0)
    orders = [1.5, 3.0]
    np.testing.assert_array_equal(always.rdp(orders, relation), row.mechanism.rdp(orders, relation))
    assert always.zcdp(relation) == row.mechanism.zcdp(relation)
    if row.has_pairs:
        assert always.dominating_pairs(relation) == row.mechanism.dominating_pairs(relation)


@pytest.mark.parametrize("row", **by_name(ZEROED_OUT))
def test_sampling_nearly_everyone_changes_nearly_nothing(row):
    relation = NeighboringRelation.REPLACE_SPECIAL
    for one, other in zip(
        PoissonSampled(row.mechanism, 1 - 1e-9).dominating_pairs(relation),
        row.mechanism.dominating_pairs(relation),
        strict=True,
    ):
        for epsilon in (0.0, 0.1, 1.0):
            assert one.delta(epsilon) == pytest.approx(other.delta(epsilon), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("row", **by_name(BASES))
def test_sampling_nobody_tells_nothing(row):
    never: Mechanism = PoissonSampled(row.mechanism, 0.0)
    for relation in set(row.relations) - {NeighboringRelation.REPLACE_ONE}:
        np.testing.assert_array_equal(never.rdp([1.5, 3.0], relation), [0.0, 0.0])
        assert never.zcdp(relation) == 0
        if row.has_pairs:
            assert [pair.delta(0.0) for pair in never.dominating_pairs(relation)] == [0.0, 0.0]


@pytest.mark.parametrize("q", [1e-9, 0.1, 0.9])
@pytest.mark.parametrize("row", **by_name(ZEROED_OUT))
def test_sampling_never_hurts(row, q):
    relation = NeighboringRelation.REPLACE_SPECIAL
    for one, other in zip(
        PoissonSampled(row.mechanism, q).dominating_pairs(relation),
        row.mechanism.dominating_pairs(relation),
        strict=True,
    ):
        for epsilon in (0.0, 1e-3, 0.1, 1.0, 3.0):
            assert one.delta(epsilon) <= other.delta(epsilon) * (1 + 1e-12)


def test_sampled_pairs_under_replace_one_are_refused_by_name():
    with pytest.raises(UnsupportedViewError, match="add_or_remove_one or replace_special"):
        PoissonSampled(mechanisms.Laplace(1.0), 0.5).dominating_pairs(NeighboringRelation.REPLACE_ONE)
