"""Samples of a fixed size: brute force over all samples, closed forms, and what is refused."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpkit import NeighboringRelation, accounting, mechanisms
from dpkit.mechanisms import (
    FinitePair,
    FixedSizePair,
    FixedSizeSampled,
    Gaussian,
    GaussianPair,
    Laplace,
    PoissonBinomial,
    RandomizedQuantization,
    RandomizedResponse,
    UnsupportedViewError,
    ZeroConcentrated,
)
from dpkit.mechanisms.envelope import envelope_pair
from dpkit.mechanisms.fixed_size import _integer_order_bound
from dpkit.numerics.fixed_size_gaussian import fixed_size_gaussian_renyi
from dpkit.numerics.worst_pair import Contest, worst_profile
from mechanisms.exact import mp
from mechanisms.test_pairs import check_consistency

ADD, REPLACE, SPECIAL = NeighboringRelation
ORDERS = np.array([1.01, 1.5, 2.0, 2.5, 3.0, 8.0, 33.3])


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(1, 4), st.sampled_from([0.2, 1.0, 3.0]))
def test_every_mechanism_on_every_pair_of_data_sets_is_dominated(seed, population, batch, spread):
    """Records are bits; what is released depends on the number of ones in the sample, in an arbitrary way."""
    batch = min(batch, population)
    random = np.random.default_rng(seed)
    laws = np.exp(spread * random.normal(size=(batch + 1, 4)))
    laws /= laws.sum(axis=1, keepdims=True)
    # Replacing a record of the sample moves the number of ones by at most one: all such pairs, in either order.
    logs = np.log(laws)
    contests = [
        Contest.between(logs[i], np.zeros((1, 4)), logs[[j]] - logs[i])
        for i, j in itertools.permutations(range(batch + 1), 2)
        if abs(i - j) == 1
    ]
    largest = max(np.max(logs[i] - logs[j]) for i, j in itertools.permutations(range(batch + 1), 2) if abs(i - j) == 1)
    base = envelope_pair(lambda x, known: worst_profile(contests, x, known), largest * (1 + 1e-12), 4)
    pair = FixedSizePair(base, batch / population) if batch < population else base

    def release(ones: int) -> np.ndarray:
        samples = list(itertools.combinations([1] * ones + [0] * (population - ones), batch))
        return np.mean([laws[sum(sample)] for sample in samples], axis=0)

    for ones in range(population):
        for p, q in itertools.permutations([release(ones), release(ones + 1)], 2):
            for epsilon in (-1.0, -0.2, -0.01, 0.0, 0.01, 0.1, 0.5, 2.0):
                assert np.maximum(p - math.exp(epsilon) * q, 0.0).sum() <= pair.delta(epsilon) + 1e-13
            for order in (1.5, 2.0, 7.0):
                x, weight = finite_law(pair)
                divergence = math.log(np.sum(p**order * q ** (1 - order))) / (order - 1)
                assert divergence <= math.log(weight @ np.exp((order - 1) * x)) / (order - 1) + 1e-10


def finite_law(pair) -> tuple[np.ndarray, np.ndarray]:
    """Losses and P-masses of a finite pair, from its survival function."""
    losses = np.array(pair.atoms)
    step = 1e-12 + 1e-12 * np.abs(losses)
    return losses, pair.sf(losses - step)[0] - pair.sf(losses + step)[0]


BASES = {
    "gaussian": GaussianPair(2.0),
    "little-noise": GaussianPair(6.0),
    "laplace": Laplace(1.0).dominating_pairs(REPLACE)[0],
    "response": RandomizedResponse(0.3, 5).dominating_pairs(REPLACE)[0],
    "quantization": RandomizedQuantization(6, 0.4, 1.0, 1.0).dominating_pairs(REPLACE)[0],
    "coins": PoissonBinomial(5, 0.2, 1.0, 3).dominating_pairs(REPLACE)[0],
    "disjoint": Gaussian(0.0).dominating_pairs(REPLACE)[0],
}


@pytest.mark.parametrize("ratio", [1e-4, 0.3, 0.99])
@pytest.mark.parametrize("name", BASES)
def test_it_is_a_pair_with_the_stated_profile_and_its_own_reverse(name, ratio):
    base, pair = BASES[name], FixedSizePair(BASES[name], ratio)
    losses = np.array([-3.0, -0.5, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.2, 1.0, 4.0])
    check_consistency(pair, losses)
    for epsilon in (1e-9, 1e-3, 0.2, 1.0, 4.0):
        stated = ratio * base.delta(math.log1p(math.expm1(epsilon) / ratio))
        assert pair.delta(epsilon) == pytest.approx(stated, rel=1e-12)
        reverse = -math.expm1(-epsilon) + math.exp(-epsilon) * stated
        assert pair.delta(-epsilon) == pytest.approx(reverse, rel=1e-11)
    assert pair.delta(0.0) == pytest.approx(ratio * base.delta(0.0), rel=1e-14)
    assert 0.0 in pair.atoms
    assert list(pair.atoms) == sorted(pair.atoms)
    assert pair == FixedSizePair(base, ratio)
    assert hash(pair) == hash(FixedSizePair(base, ratio))
    assert pair != FixedSizePair(base, ratio / 2)


@pytest.mark.parametrize(("mu", "ratio"), [(2.0, 0.01), (0.01, 0.5), (6.0, 1e-5), (1e-5, 0.1)])
def test_gaussian_renyi_against_quadrature(mu, ratio):
    w, shift = mp.mpf(ratio), mp.mpf(mu)
    for order in (1.1, 7.5, 30.0):
        a = mp.mpf(order)

        def integrand(x, a=a):
            r = 1 + w * mp.expm1(shift * (x - shift / 2))
            return mp.npdf(x) * (r**a - 1 - a * (r - 1) + r * (r**-a - 1 - a * (1 / r - 1)))

        panels = 10 + int(a * shift / 6)
        ends = [shift / 2 + (a * shift + 15) * i / panels for i in range(panels + 1)]
        with mp.workdps(30):
            truth = mp.log1p(mp.quad(integrand, ends)) / (a - 1)
        found = fixed_size_gaussian_renyi([order], mu, ratio)[0]
        assert found == pytest.approx(float(truth), rel=1e-10), order
        assert found >= float(truth) * (1 - 1e-12 - 1e-15 / (order - 1))


@pytest.mark.parametrize("ratio", [0.01, 0.3])
@pytest.mark.parametrize("base", [Laplace(2.0), RandomizedResponse(0.5, 4), Gaussian(1.5)], ids=str)
def test_renyi_follows_the_pair_and_never_exceeds_the_older_bound(base, ratio):
    sampled = FixedSizeSampled(base, round(ratio * 100), 100)
    found = sampled.rdp(ORDERS, REPLACE)
    assert np.all(found <= _integer_order_bound(base, ORDERS, ratio) * (1 + 1e-9))
    assert np.all(found <= base.rdp(ORDERS, REPLACE))
    assert np.all(np.diff(found) >= 0)
    assert sampled.zcdp(REPLACE) == base.zcdp(REPLACE)


@pytest.mark.parametrize("rho", [0.01, 0.5])
@pytest.mark.parametrize("pure", [math.inf, 0.7])
def test_older_bound_is_the_published_one(rho, pure):
    """Wang, Balle and Kasiviswanathan (2019), Theorem 9, for D_a = min(rho a, pure)."""

    class Known(ZeroConcentrated):
        def rdp(self, orders, relation):
            return np.minimum(super().rdp(orders, relation), pure)

    ratio, base = mp.mpf(1) / 50, Known(rho)
    found = FixedSizeSampled(base, 1, 50).rdp(np.array([2.0, 3.0, 9.0, 40.0, 8.5, math.inf]), REPLACE)

    def divergence(order: int):
        return min(mp.mpf(rho) * order, mp.mpf(pure))

    def truth(a: int):
        gap = mp.expm1(mp.mpf(pure))
        total = 1 + ratio**2 * mp.binomial(a, 2) * min(
            4 * mp.expm1(divergence(2)), mp.exp(divergence(2)) * min(mp.mpf(2), gap**2)
        )
        for j in range(3, a + 1):
            total += ratio**j * mp.binomial(a, j) * mp.exp((j - 1) * divergence(j)) * min(mp.mpf(2), gap**j)
        return mp.log(total)

    for order, value in zip((2, 3, 9, 40), found, strict=False):
        assert value == pytest.approx(float(min(truth(order) / (order - 1), divergence(order))), rel=1e-11)
    assert found[4] == pytest.approx(float((truth(8) + truth(9)) / 2 / mp.mpf("7.5")), rel=1e-11)
    assert found[5] == pytest.approx(float(mp.log1p(ratio * mp.expm1(mp.mpf(pure)))), rel=1e-12)


def test_vectors_share_a_sample():
    vector = mechanisms.repeat(RandomizedQuantization(8, 0.1, 3.0, 1.0), 10)
    sampled = FixedSizeSampled(vector, 1, 1000)
    assert np.all(sampled.rdp(ORDERS, REPLACE) < 10 * RandomizedQuantization(8, 0.1, 3.0, 1.0).rdp(ORDERS, REPLACE))
    with pytest.raises(UnsupportedViewError, match="rdp"):
        sampled.dominating_pairs(REPLACE)
    assert accounting.RdpAccountant(relation=REPLACE).epsilon(sampled, delta=1e-6).upper > 0


def test_sampling_everyone_changes_nothing_and_composition_costs_more():
    base = Gaussian(1.3)
    everyone = FixedSizeSampled(base, 7, 7)
    assert everyone.dominating_pairs(REPLACE) == base.dominating_pairs(REPLACE)
    np.testing.assert_array_equal(everyone.rdp(ORDERS, REPLACE), base.rdp(ORDERS, REPLACE))
    accountant = accounting.PldAccountant(relation=REPLACE)
    once, often = (
        accountant.epsilon(mechanisms.repeat(FixedSizeSampled(base, 10, 1000), n), delta=1e-5) for n in (1, 200)
    )
    assert 0 < 2 * once.upper < often.upper
    assert (
        often.upper
        < accounting.RdpAccountant(relation=REPLACE)
        .epsilon(mechanisms.repeat(FixedSizeSampled(base, 10, 1000), 200), delta=1e-5)
        .upper
    )


def test_no_noise_shows_whoever_is_drawn():
    sampled = FixedSizeSampled(Gaussian(0.0), 1, 100)
    assert sampled.dominating_pairs(REPLACE)[0].infinite_mass == 0.01
    assert np.all(np.isinf(sampled.rdp(ORDERS, REPLACE)))
    assert accounting.PldAccountant(relation=REPLACE).delta(sampled, epsilon=3.0).upper == pytest.approx(0.01)


@pytest.mark.parametrize("relation", [ADD, SPECIAL])
def test_populations_of_one_size_only(relation):
    sampled = FixedSizeSampled(Gaussian(1.0), 1, 10)
    for view in (sampled.dominating_pairs, sampled.zcdp, lambda r: sampled.rdp([2.0], r)):
        with pytest.raises(UnsupportedViewError, match="replace_one"):
            view(relation)


def test_a_pair_that_is_not_its_own_reverse_is_refused():
    class Lopsided(ZeroConcentrated):
        def dominating_pairs(self, relation):  # noqa: ARG002
            return FinitePair((-1.0, 1.0), (0.2, 0.8)), FinitePair((-1.0, 1.0), (0.3, 0.7))

    sampled = FixedSizeSampled(Lopsided(0.5), 1, 10)
    with pytest.raises(UnsupportedViewError, match="its own reverse"):
        sampled.dominating_pairs(REPLACE)
    assert sampled.rdp([2.0], REPLACE) > 0


@pytest.mark.parametrize(
    ("batch_size", "population", "message"),
    [
        (0, 10, "batch_size must be >= 1, got 0"),
        (11, 10, "at most population=10, got 11"),
        (1.0, 10, "batch_size"),
        (1, 0, "population must be >= 1, got 0"),
        (1, 2.5, "population must be an integer, got 2.5"),
    ],
)
def test_bad_sizes(batch_size, population, message):
    with pytest.raises(ValueError, match=message):
        FixedSizeSampled(Gaussian(1.0), batch_size, population)
