"""Renyi divergences of integer noise against sums over the integers in 60 digits."""

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from dpkit import NeighboringRelation, accounting
from dpkit.mechanisms import (
    DiscreteGaussian,
    DistributedDiscreteGaussian,
    Gaussian,
    PoissonSampled,
    Skellam,
    UnsupportedViewError,
)
from dpkit.mechanisms.discrete_gaussian import DiscreteGaussianLaw
from dpkit.mechanisms.lattice_pair import LatticePair, lattice_renyi
from dpkit.mechanisms.skellam import SkellamLaw, largest_curvature
from mechanisms.exact import mass, mp

ADD, REPLACE, SPECIAL = NeighboringRelation
ORDERS = [1.01, 1.3, 1.5, 2.0, 2.5, 4.0, 7.7, 16.0]


def renyi(f, shift, order, q=1.0, reverse=False):
    """D_order((1-q) f + q f(. - shift) || f), or the reverse, by a sum outwards until terms no longer count."""
    a, q = mp.mpf(order), mp.mpf(q)

    def term(y):
        other = f(y)
        mixed = (1 - q) * other + q * f(y - shift)
        return other**a * mixed ** (1 - a) if reverse else mixed**a * other ** (1 - a)

    # Where terms are largest, about order times the shift; from there they fall on both sides.
    middle = 0 if reverse else int(order * shift)
    total = term(middle)
    for step in (1, -1):
        y, low = middle + step, 0
        while low < 8:
            value = term(y)
            total += value
            low = low + 1 if value < total * mp.mpf(10) ** -40 else 0
            y += step
    return mp.log(total) / (a - 1)


def check(bound, truth, tight=1e-10):
    assert truth * (1 - 1e-12) <= bound <= truth * (1 + tight) + 1e-300


@pytest.mark.parametrize(("sigma", "shift"), list(itertools.product([0.4, 1.0, 5.0], [1, 3])))
def test_discrete_gaussian(sigma, shift):
    f = mass(DiscreteGaussianLaw(sigma))
    bounds = DiscreteGaussian(sigma, float(shift)).rdp(ORDERS, ADD)
    for order, bound in zip(ORDERS, bounds.tolist(), strict=True):
        truth = float(renyi(f, shift, order))
        assert truth * (1 - 1e-12) <= bound
        if order == round(order) or sigma > 1:
            check(bound, truth)


@pytest.mark.parametrize(("variance", "shift"), list(itertools.product([0.1, 1.0, 30.0], [1, 2, 5])))
def test_skellam_in_one_dimension_is_exact(variance, shift):
    f = mass(SkellamLaw(variance))
    for relation, moved in ((ADD, shift), (REPLACE, 2 * shift)):
        bounds = Skellam(variance, float(shift)).rdp(ORDERS, relation)
        for order, bound in zip(ORDERS, bounds.tolist(), strict=True):
            check(bound, float(renyi(f, moved, order)))


@pytest.mark.parametrize(("variance", "shift"), list(itertools.product([0.1, 1.0, 30.0], [1, 2, 5])))
def test_closed_bounds_of_skellam_hold_and_are_near(variance, shift):
    """What vectors are accounted with: 1-dimensional changes are among those of 25 coordinates."""
    f = mass(SkellamLaw(variance))
    bounds = Skellam(variance, float(shift), dimension=25).rdp(ORDERS, ADD)
    for order, bound in zip(ORDERS, bounds.tolist(), strict=True):
        truth = float(renyi(f, shift, order))
        assert truth <= bound
        if variance == 30 and order in (2, 4):
            assert bound <= truth * 1.25


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=5).filter(any),
    st.floats(0.05, 60.0),
    st.floats(1.01, 30.0),
)
def test_no_integer_vector_beats_the_bounds(vector, variance, order):
    square = sum(x * x for x in vector)
    exact = sum((lattice_renyi(SkellamLaw(variance), abs(x), np.array([order]))[0] for x in vector if x), start=0.0)
    if math.isfinite(exact):
        noise = Skellam(variance, math.sqrt(square) * (1 + 1e-15), dimension=max(len(vector), 2))
        assert exact <= noise.rdp([order], ADD)[0] * (1 + 2e-11)
        assert exact <= noise.zcdp(ADD) * order * (1 + 2e-11)


@pytest.mark.parametrize("variance", [1e-6, 0.01, 0.5, 3.0, 50.0, 999.0, 1001.0, 1e5, 1e9])
def test_curvature(variance):
    with mp.workdps(80):
        truth = 2 * mp.log(mp.besseli(0, variance) / mp.besseli(1, variance))
        found = largest_curvature(variance)
        assert truth <= found <= truth * (1 + mp.mpf(2e-11 if variance < 1000 else 1e-6))
        # The largest: curvature falls with |k|.
        log_f = [mp.log(mp.besseli(k, variance)) for k in range(6)] if variance < 1e6 else [mp.zero] * 6
        curvatures = [2 * log_f[k] - log_f[k - 1] - log_f[k + 1] for k in range(1, 5)]
        assert all(a >= b for a, b in itertools.pairwise([truth, *curvatures]))


def test_our_skellam_bound_is_below_the_published_one():
    for variance, norm, dimension in itertools.product([1.0, 50.0, 1e4], [1.0, 10.0, 300.0], [2, 1000]):
        l1 = min(math.sqrt(dimension) * norm, norm**2)
        for order in (2, 3, 16, 64):
            extra = min(((2 * order - 1) * norm**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
            published = order * norm**2 / (2 * variance) + extra
            assert Skellam(variance, norm, dimension).rdp([float(order)], ADD)[0] <= published * (1 + 1e-10)


@pytest.mark.parametrize("law", [DiscreteGaussianLaw(0.7), DiscreteGaussianLaw(4.0), SkellamLaw(0.5), SkellamLaw(20.0)])
@pytest.mark.parametrize("q", [1e-4, 0.3, 0.95])
def test_removing_is_the_worse_direction_and_exact(law, q):
    f, orders = mass(law), [1.2, 2.0, 3.5, 9.0]
    for shift in (1, 3):
        found = lattice_renyi(law, shift, np.array(orders), q)
        for order, value in zip(orders, found.tolist(), strict=True):
            truth = renyi(f, shift, order, q)
            assert renyi(f, shift, order, q, reverse=True) <= truth
            assert math.isinf(value) or float(truth) * (1 - 1e-12) <= value <= float(truth) * (1 + 1e-10)
        assert np.isfinite(found[:2]).all()


def test_sampled_vectors_at_integer_orders_are_binomial_sums():
    step = PoissonSampled(DiscreteGaussian(20.0, 10.0, dimension=100), 0.1)
    continuous = PoissonSampled(Gaussian(2.0), 0.1).rdp([2.0, 3.0, 20.0], ADD)
    np.testing.assert_allclose(step.rdp([2.0, 3.0, 20.0], ADD), continuous, rtol=1e-9)
    assert step.rdp([5000.0], ADD) == [DiscreteGaussian(20.0, 10.0, dimension=100).rdp([5000.0], ADD)[0]]
    assert np.isinf(step.rdp([math.inf], ADD))


@pytest.mark.parametrize("sigma", [0.35, 0.5, 0.8])
@pytest.mark.parametrize("shares", [1, 2, 3, 6])
@pytest.mark.filterwarnings("ignore:tau")
def test_distributed_discrete_gaussian(sigma, shares):
    """The law of the sum by convolution: how it oscillates, and its divergences."""
    reach = int(20 * sigma) + 6
    one = {k: mp.exp(-(mp.mpf(k) ** 2) / (2 * mp.mpf(sigma) ** 2)) for k in range(-reach, reach + 1)}

    def add(left, right):
        result: dict = {}
        for (i, a), (j, b) in itertools.product(left.items(), right.items()):
            result[i + j] = result.get(i + j, mp.zero) + a * b
        return result

    law = functools.reduce(add, [one] * shares)
    total = mp.fsum(law.values())
    law = {k: p / total for k, p in law.items()}
    noise = DistributedDiscreteGaussian(sigma, shares)
    inner = range(-int(6 * sigma) - 3, int(6 * sigma) + 4)
    heights = [mp.log(law[k]) + mp.mpf(k) ** 2 / (2 * shares * mp.mpf(sigma) ** 2) for k in inner]
    assert max(heights) - min(heights) <= noise.tau + 1e-30
    if shares == 2:
        assert max(heights) - min(heights) >= 0.99 * noise.tau
    paper = 10 * sum(math.exp(-2 * (math.pi * sigma) ** 2 * k / (k + 1)) for k in range(1, shares))
    assert noise.tau <= paper
    for shift, order in itertools.product((1, 2), (1.1, 1.5, 2.0, 4.0)):
        moved = [(law.get(k - shift, mp.zero), p) for k, p in law.items() if k <= reach * shares // 2]
        truth = mp.log(mp.fsum(p**order * q ** (1 - order) for p, q in moved)) / (order - 1)
        mechanism = DistributedDiscreteGaussian(sigma, shares, float(shift))
        assert truth <= mechanism.rdp([order], ADD)[0] * (1 + 1e-12)
        assert truth <= mechanism.zcdp(ADD) * order


def test_one_share_is_the_discrete_gaussian():
    one = DistributedDiscreteGaussian(2.0, 1, 3.0, 10)
    assert one.tau == 0
    np.testing.assert_allclose(one.rdp(ORDERS, ADD), DiscreteGaussian(2.0, 3.0, 10).rdp(ORDERS, ADD), rtol=1e-11)


def test_the_three_way_minimum_of_the_paper_is_never_below():
    noise = DistributedDiscreteGaussian(1.1, 50, 20.0, 1000)
    sigma, tau = 1.1 * math.sqrt(50), 10 * sum(math.exp(-2 * (1.1 * math.pi) ** 2 * k / (k + 1)) for k in range(1, 50))
    u2, u1 = 20 / sigma, min(math.sqrt(1000) * 20, 400) / sigma
    for order in ORDERS:
        first = order * u2**2 / 2 + tau * 1000
        second = order / 2 * (u2**2 + 2 * u1 * tau + tau**2 * 1000)
        third = order / 2 * (u2 + math.sqrt(1000) * tau) ** 2
        assert second <= third
        assert noise.rdp([order], ADD)[0] <= min(first, second, third)


def test_coarse_shares_are_reported():
    with pytest.warns(UserWarning, match="do not add up to a discrete Gaussian"):
        DistributedDiscreteGaussian(0.5, 10, dimension=100)


@pytest.mark.parametrize(
    "noise",
    [
        DiscreteGaussian(1.0, 2.0, dimension=2),
        DiscreteGaussian(1e5),
        Skellam(1e10),
        DistributedDiscreteGaussian(2.0, 3),
    ],
)
def test_no_pair_where_none_is_known(noise):
    with pytest.raises(UnsupportedViewError, match="rdp, zcdp"):
        noise.dominating_pairs(ADD)
    assert math.isfinite(accounting.RdpAccountant().epsilon(noise, delta=1e-6).upper)


@pytest.mark.parametrize("noise", [DiscreteGaussian(0.01), DiscreteGaussian(1.0, 100.0), Skellam(1e-9, 200.0)])
def test_noise_next_to_nothing_is_infinitely_revealing(noise):
    assert accounting.PldAccountant().epsilon(noise, delta=0.5).upper == math.inf


@pytest.mark.parametrize("law", [DiscreteGaussianLaw(2.0), SkellamLaw(3.0), DiscreteGaussianLaw(0.5)])
def test_smaller_shifts_are_dominated(law):
    for epsilon in (-1.0, 0.0, 0.3, 1.0, 4.0):
        deltas = [LatticePair(law, shift).delta(epsilon) for shift in range(1, 8)]
        assert all(a <= b * (1 + 1e-13) for a, b in itertools.pairwise(deltas))


def test_the_discrete_profile_may_lie_above_the_continuous_one():
    deltas = [accounting.PldAccountant().delta(m, epsilon=0.3).lower for m in (DiscreteGaussian(1.0), Gaussian(1.0))]
    assert deltas[0] > deltas[1] * 1.001


def test_curvature_proof_starts_where_it_says():
    """largest_curvature: e^-h is below I_1/I_0 at 3."""
    h = 1 / 6 + 1 / 36 + 1 / 54
    assert math.exp(-h) < special.i1e(3.0) / special.i0e(3.0)


def test_one_dimension_needs_integers():
    with pytest.raises(ValueError, match=r"l2_sensitivity must be an integer in one dimension, got 1\.5"):
        DiscreteGaussian(1.0, 1.5)
    assert DiscreteGaussian(1.0, 1.5, dimension=2).l2_sensitivity == 1.5
