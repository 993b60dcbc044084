"""Randomized quantization: its worst case, sums of clients, codes and estimates."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpkit import NeighboringRelation, accounting, mechanisms
from dpkit.mechanisms import PoissonSampled, RandomizedQuantization, UnsupportedViewError
from mechanisms.exact import finite_renyi, mp
from numerics.test_quantization import enumerated

ADD, REPLACE, SPECIAL = NeighboringRelation
ORDERS = [1.0001, 1.5, 2.0, 7.5, 64.0, 1024.0, math.inf]
# levels, keep_probability, margin, clip
SETTINGS = [
    (2, 0.3, 1.0, 1.0),
    (16, 0.42, 1.0, 1.0),
    (9, 0.1, 0.3, 2.0),
    (7, 0.9, 5.0, 0.1),
    (10, 0.5, 1e4, 1.0),
    (8, 0.0, 1, 1),
]
# All choices together fail by chance with probability below 1e-9.
FALSE_FAILURE = 1e-11
DRAWS = 200_000


def place(mechanism: RandomizedQuantization, value: float) -> Fraction:
    """The input in spacings above the lowest level, exactly."""
    top = Fraction(mechanism.clip) + Fraction(mechanism.margin)
    return (Fraction(value) + top) / (2 * top) * (mechanism.levels - 1)


def exact_law(mechanism: RandomizedQuantization, value: Fraction) -> list:
    law = enumerated(mechanism.levels, Fraction(mechanism.keep_probability), place(mechanism, value))
    return [mp.mpf(p.numerator) / p.denominator for p in law]


def exact_vertices(mechanism: RandomizedQuantization) -> list[Fraction]:
    clip, top = Fraction(mechanism.clip), Fraction(mechanism.clip) + Fraction(mechanism.margin)
    levels = [-top + 2 * top * i / (mechanism.levels - 1) for i in range(mechanism.levels)]
    return [-clip, *(x for x in levels if -clip < x < clip), clip]


def divergence(order: float, p: list, q: list):
    pairs = [(a, b) for a, b in zip(p, q, strict=True) if a or b]
    return max(mp.log(a / b) for a, b in pairs) if math.isinf(order) else finite_renyi(order, pairs)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s[0] < 16], ids=str)
def test_worst_case_over_all_vertices_against_sixty_digits(setting):
    mechanism = RandomizedQuantization(*setting)
    laws = [exact_law(mechanism, x) for x in exact_vertices(mechanism)]
    found = mechanism.rdp(ORDERS, REPLACE)
    for order, value in zip(ORDERS, found.tolist(), strict=True):
        truth = float(max(divergence(order, p, q) for p, q in itertools.permutations(laws, 2)))
        assert truth * (1 - 1e-13) <= value <= truth * (1 + 1e-10), order


@settings(max_examples=60)
@given(
    st.integers(2, 24),
    st.floats(0.01, 0.95),
    st.floats(0.05, 20.0),
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.sampled_from([1.01, 2.0, 5.0, 40.0]),
    st.floats(0, 4),
)
def test_no_pair_of_inputs_is_worse_than_the_vertices(levels, keep, margin, first, second, order, epsilon):
    mechanism = RandomizedQuantization(levels, keep, margin, 1.0)
    p, q = mechanism.pmf(first), mechanism.pmf(second)
    assert math.log(np.sum(p**order * q ** (1 - order))) / (order - 1) <= mechanism.rdp(order, REPLACE) + 1e-12 / (
        order - 1
    )
    pair, reverse = mechanism.dominating_pairs(REPLACE)
    assert pair == reverse
    for x in (epsilon, -epsilon):
        assert np.maximum(p - math.exp(x) * q, 0.0).sum() <= pair.delta(x) + 1e-13


def test_the_two_ends_are_not_always_the_worst():
    mechanism = RandomizedQuantization(16, 0.42, 1.0, 1.0)
    p, q = mechanism.pmf(1.0), mechanism.pmf(-1.0)
    ends = math.log(np.sum(p**32 * q**-31.0)) / 31
    assert mechanism.rdp(32.0, REPLACE) > ends + 0.01


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_two_levels_are_randomized_response(keep):
    mechanism = RandomizedQuantization(2, keep, 0.5, 2.0)
    assert mechanism.rdp(math.inf, REPLACE) == pytest.approx(math.log(1 + 2 * 2.0 / 0.5), rel=1e-11)
    assert RandomizedQuantization(9, 0.0, 0.5, 2.0).rdp(3.0, REPLACE) == mechanism.rdp(3.0, REPLACE)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_pure_epsilon_is_below_its_closed_form(setting):
    levels, keep, margin, clip = setting
    bound = math.log(2 * (clip + margin) / margin) - (levels - 2) * math.log1p(-keep)
    assert RandomizedQuantization(*setting).rdp(math.inf, REPLACE) <= bound * (1 + 1e-11)


def test_only_the_ratio_of_margin_and_clip_matters():
    one, other = (RandomizedQuantization(12, 0.4, 0.5 * scale, scale) for scale in (1.0, 1024.0))
    np.testing.assert_array_equal(one.rdp(ORDERS, REPLACE), other.rdp(ORDERS, REPLACE))
    assert one.dominating_pairs(REPLACE) == other.dominating_pairs(REPLACE)


def test_pld_and_renyi_accountants_agree_on_a_vector():
    vector = mechanisms.repeat(RandomizedQuantization(16, 0.05, 2.0, 1.0), 30)
    pld = accounting.PldAccountant(relation=REPLACE).epsilon(vector, delta=1e-6)
    rdp = accounting.RdpAccountant(relation=REPLACE).epsilon(vector, delta=1e-6)
    zcdp = accounting.ZcdpAccountant(relation=REPLACE).epsilon(vector, delta=1e-6)
    assert 0 < pld.upper < rdp.upper * 1.001
    assert rdp.upper < zcdp.upper


@pytest.mark.parametrize("setting", [(2, 0.0, 0.5, 1.0), (4, 0.4, 0.6, 1.0), (5, 0.6, 1.0, 1.0)], ids=str)
@pytest.mark.parametrize("clients", [2, 3])
def test_sums_of_clients_against_every_choice_of_the_others(setting, clients):
    mechanism = RandomizedQuantization(*setting, clients=clients)
    laws = [exact_law(mechanism, x) for x in exact_vertices(mechanism)]

    def add(one: list, other: list) -> list:
        total = [mp.zero] * (len(one) + len(other) - 1)
        for (i, a), (j, b) in itertools.product(enumerate(one), enumerate(other)):
            total[i + j] += a * b
        return total

    worlds = []
    for others in itertools.combinations_with_replacement(laws, clients - 1):
        rest = others[0]
        for law in others[1:]:
            rest = add(rest, law)
        worlds += list(itertools.permutations([add(law, rest) for law in laws], 2))
    for order, value in zip(ORDERS, mechanism.rdp(ORDERS, REPLACE).tolist(), strict=True):
        truth = float(max(divergence(order, p, q) for p, q in worlds))
        assert truth * (1 - 1e-13) <= value <= truth * (1 + 1e-10), order
    pair, _ = mechanism.dominating_pairs(REPLACE)
    for epsilon in (-0.3, 0.0, 0.1, 0.7, 1.5):
        ratio = mp.exp(mp.mpf(epsilon))
        profiles = (mp.fsum(max(a - ratio * b, mp.zero) for a, b in zip(p, q, strict=True)) for p, q in worlds)
        assert pair.delta(epsilon) == pytest.approx(float(max(profiles)), rel=1e-10, abs=1e-11)


def test_more_clients_never_cost_more_and_alone_bounds_all():
    found = [RandomizedQuantization(8, 0.3, 1.0, 1.0, clients=n).rdp(ORDERS, REPLACE) for n in (1, 2, 3, 4, 1000)]
    for more, fewer in itertools.pairwise(reversed(found)):
        assert np.all(more <= fewer * (1 + 1e-11))
    assert found[-1][2] < found[0][2]


def test_sums_too_small_for_float64_are_not_enumerated():
    mechanism = RandomizedQuantization(40, 0.9999, 0.2, 1.0, clients=3)
    assert np.all(np.isfinite(mechanism.rdp([2.0, math.inf], REPLACE)))


def test_a_thousand_levels():
    mechanism = RandomizedQuantization(1024, 0.01, 1.0, 1.0)
    found = mechanism.rdp(ORDERS, REPLACE)
    rows = [mechanism.pmf(x) for x in (1.0, 0.9, -0.9, -1.0)]
    assert sum(rows[0]) == pytest.approx(1.0, abs=1e-12)
    for p, q in itertools.permutations(rows, 2):
        assert np.log(np.sum(p**2 / q)) <= found[2] * (1 + 1e-12)
    assert np.all(np.diff(found) >= 0)


@pytest.mark.parametrize(
    ("levels", "clients", "bits"), [(2, 1, 1), (16, 1, 4), (17, 1, 5), (16, 40, 10), (1024, 1000, 20)]
)
def test_bits_hold_the_largest_sum(levels, clients, bits):
    mechanism = RandomizedQuantization(levels, 0.4, 1.0, 1.0, clients)
    assert mechanism.bits == bits == math.ceil(math.log2(clients * (levels - 1) + 1))


def rejects(codes: np.ndarray, law: np.ndarray) -> bool:
    """Chi-square at FALSE_FAILURE, outcomes expected fewer than ten times merged."""
    observed, expected = np.bincount(codes.ravel(), minlength=len(law)), law * codes.size
    often = expected >= 10
    observed = np.append(observed[often], observed[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    if expected[-1] == 0:
        if observed[-1]:
            return True
        observed, expected = observed[:-1], expected[:-1]
    statistic = np.sum((observed - expected) ** 2 / expected)
    return bool(statistic > stats.chi2.isf(FALSE_FAILURE, len(expected) - 1))


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("setting", [*SETTINGS, (1024, 0.02, 0.5, 1.0)], ids=str)
def test_codes_have_the_stated_law(setting, x64):
    mechanism = RandomizedQuantization(*setting)
    encode = jax.jit(mechanism.encode)
    with jax.enable_x64(x64):
        for i, share in enumerate((-1.0, 0.37, 1.0)):
            value = share * mechanism.clip
            codes = encode(jnp.full((DRAWS,), value, jnp.float64 if x64 else jnp.float32), jax.random.key(i))
            assert codes.dtype == jnp.int32
            assert not rejects(np.asarray(codes), mechanism.pmf(value))


def test_a_wrong_keep_probability_is_noticed():
    mechanism, wrong = (RandomizedQuantization(16, keep, 1.0, 1.0) for keep in (0.42, 0.40))
    assert rejects(np.asarray(wrong.encode(jnp.zeros(DRAWS), jax.random.key(0))), mechanism.pmf(0.0))


def test_estimates_are_unbiased_and_clipped_shaped_and_vmapped():
    mechanism = RandomizedQuantization(16, 0.42, 1.0, 1.5, clients=3)
    for value in (-1.5, -0.2, 1.5):
        alone = RandomizedQuantization(16, 0.42, 1.0, 1.5)
        assert alone.pmf(value) @ alone.decode(np.arange(16)) == pytest.approx(value, abs=1e-14)
    keys = jax.random.split(jax.random.key(1), 3)
    values = jnp.array([[1.5, 9.0], [jnp.nan, 0.0], [-jnp.inf, -1.5]])
    codes = jax.vmap(mechanism.encode)(values, keys)
    assert codes.shape == (3, 2)
    np.testing.assert_array_equal(codes[0], mechanism.encode(jnp.array([1.5, 1.5]), keys[0]))
    np.testing.assert_array_equal(codes[1], mechanism.encode(jnp.zeros(2), keys[1]))
    np.testing.assert_array_equal(codes[2], mechanism.encode(jnp.full(2, -1.5), keys[2]))
    assert mechanism.decode(codes.sum(axis=0)).shape == (2,)
    report = jax.jit(mechanism.privatize)(jnp.zeros((2, 1, 5)), keys[0])
    assert report.shape == (2, 1, 5)
    assert report.dtype == jnp.float32
    assert mechanism.privatize(0.5, keys[0]).shape == ()
    # The mean of all clients is the mean of their reports.
    each = jax.vmap(mechanism.privatize)(values, keys)
    np.testing.assert_allclose(mechanism.decode(codes.sum(axis=0)), each.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("relation", [ADD, SPECIAL])
def test_a_missing_report_is_not_covered(relation):
    mechanism = RandomizedQuantization(16, 0.42, 1.0, 1.0)
    for view in (mechanism.dominating_pairs, mechanism.zcdp, lambda r: mechanism.rdp([2.0], r)):
        with pytest.raises(UnsupportedViewError, match="replace_one"):
            view(relation)


@pytest.mark.parametrize("relation", NeighboringRelation)
def test_poisson_sampling_is_refused(relation):
    with pytest.raises(UnsupportedViewError):
        PoissonSampled(RandomizedQuantization(16, 0.42, 1.0, 1.0), 0.1).rdp([2.0], relation)


@pytest.mark.parametrize("value", [1.0001, -2.0, math.nan, math.inf])
def test_inputs_beyond_the_clip_have_no_law(value):
    with pytest.raises(ValueError, match="value must be") as error:
        RandomizedQuantization(16, 0.42, 1.0, 1.0).pmf(value)
    assert str(value) in str(error.value)
