"""Composition is data, groups follow their proofs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit import mechanisms
from dpkit.mechanisms import (
    Gaussian,
    Laplace,
    MixtureOfGaussians,
    PoissonSampled,
    UnsupportedViewError,
    ZeroConcentrated,
)
from examples import ADD, REPLACE, SPECIAL

ELEMENTARY = [Gaussian(1.0), Laplace(2.0), PoissonSampled(Gaussian(1.0), 0.1), ZeroConcentrated(0.5)]

TREES = st.recursive(
    st.sampled_from(ELEMENTARY),
    lambda inner: (
        st.tuples(inner, st.integers(0, 1_000)).map(lambda pair: mechanisms.repeat(*pair))
        | st.lists(inner, max_size=4).map(lambda several: mechanisms.compose(*several))
    ),
    max_leaves=8,
)


def totals(mechanism):
    result = {}
    for part, count in mechanism.parts():
        result[part] = result.get(part, 0) + count
    return result


@given(TREES, st.integers(0, 10**9))
def test_repeating_multiplies_every_count(tree, count):
    expected = {part: n * count for part, n in totals(tree).items() if n * count}
    assert totals(mechanisms.repeat(tree, count)) == expected


@given(TREES, TREES)
def test_composing_adds_counts(one, other):
    expected = totals(one)
    for part, count in totals(other).items():
        expected[part] = expected.get(part, 0) + count
    assert totals(mechanisms.compose(one, other)) == expected


def test_a_billion_repetitions_are_one_part():
    assert list(mechanisms.repeat(Gaussian(1.0), 10**9).parts()) == [(Gaussian(1.0), 10**9)]


def test_nothing_repeated_or_composed_has_no_parts():
    assert list(mechanisms.compose().parts()) == []
    assert list(mechanisms.repeat(Gaussian(1.0), 0).parts()) == []


@pytest.mark.parametrize("mechanism", ELEMENTARY)
def test_a_group_of_one_is_the_mechanism(mechanism):
    assert mechanisms.group(mechanism, 1) == mechanism


def test_groups():
    assert mechanisms.group(Gaussian(3.0), 3) == Gaussian(1.0)
    assert mechanisms.group(Laplace(3.0), 2) == Laplace(1.5)
    assert mechanisms.group(ZeroConcentrated(0.5), 3) == ZeroConcentrated(4.5)
    both = mechanisms.group(mechanisms.compose(Gaussian(3.0), mechanisms.repeat(Laplace(3.0), 5)), 3)
    assert list(both.parts()) == [(Gaussian(1.0), 1), (Laplace(1.0), 5)]


def test_a_group_of_sampled_gaussians_moves_the_sum_by_a_binomial_number():
    group = mechanisms.group(PoissonSampled(Gaussian(2.0), 0.25), 3)
    assert isinstance(group, MixtureOfGaussians)
    assert group.sensitivities == (0.0, 1.0, 2.0, 3.0)
    assert group.probabilities == pytest.approx((27 / 64, 27 / 64, 9 / 64, 1 / 64), rel=1e-15)


@pytest.mark.parametrize("relation", [ADD, SPECIAL])
def test_one_sampled_unit_is_the_binomial_case_of_one(relation):
    q, sigma = 0.3, 1.5
    mixture = MixtureOfGaussians(sigma, (0.0, 1.0), (1 - q, q))
    sampled = PoissonSampled(Gaussian(sigma), q)
    for a, b in zip(mixture.dominating_pairs(relation), sampled.dominating_pairs(relation), strict=True):
        for epsilon in (-0.3, -0.01, 0.0, 0.1, 0.3, 1.0, 5.0):
            assert a.delta(epsilon) == pytest.approx(b.delta(epsilon), rel=1e-11, abs=1e-300)
            np.testing.assert_allclose(a.sf(epsilon), b.sf(epsilon), rtol=1e-11, atol=1e-300)
    orders = [1.1, 2.0, 3.5, 32.0]
    assert mixture.rdp(orders, relation) == pytest.approx(sampled.rdp(orders, relation), rel=1e-10)


@pytest.mark.parametrize("size", [2, 5])
def test_a_group_that_is_always_sampled_is_a_gaussian_with_less_noise(size):
    grouped = mechanisms.group(PoissonSampled(Gaussian(3.0), 1.0), size)
    plain = Gaussian(3.0 / size)
    for a, b in zip(grouped.dominating_pairs(ADD), plain.dominating_pairs(ADD), strict=True):
        for epsilon in (-1.0, 0.0, 0.5, 3.0):
            assert a.delta(epsilon) == pytest.approx(b.delta(epsilon), rel=1e-11)
    assert grouped.rdp([1.5, 8.0], ADD) == pytest.approx(plain.rdp([1.5, 8.0], ADD), rel=1e-10)
    assert grouped.zcdp(ADD) == pytest.approx(plain.zcdp(ADD), rel=1e-14)


def test_a_group_that_is_never_sampled_tells_nothing():
    grouped = mechanisms.group(PoissonSampled(Gaussian(3.0), 0.0), 4)
    assert [pair.delta(0.0) for pair in grouped.dominating_pairs(ADD)] == [0.0, 0.0]


@pytest.mark.parametrize("size", [55, 2_000])
def test_huge_groups_are_bounded_or_refused_but_never_understated(size):
    # The chance that all members are drawn underflows; their joint effect must not vanish with it.
    try:
        grouped = mechanisms.group(PoissonSampled(Gaussian(1.0), 1e-6), size)
        rho = grouped.zcdp(ADD)
    except (UnsupportedViewError, ValueError):
        return
    assert rho >= size**2 / 2


@pytest.mark.parametrize(
    "mechanism",
    [mechanisms.RandomizedResponse(0.5, 2), PoissonSampled(Laplace(1.0), 0.1), PoissonSampled(Gaussian(0.0), 0.1)],
)
def test_groups_that_nobody_proved_are_refused(mechanism):
    with pytest.raises(UnsupportedViewError, match="group"):
        mechanisms.group(mechanism, 2)


def test_no_noise_tells_everything():
    for relation in (ADD, REPLACE, SPECIAL):
        for mechanism in (Gaussian(0.0), Laplace(0.0)):
            assert all(math.isinf(x) for x in mechanism.rdp([1.5, 2.0], relation))
            assert math.isinf(mechanism.zcdp(relation))
            assert [pair.delta(50.0) for pair in mechanism.dominating_pairs(relation)] == [1.0, 1.0]
