"""The Poisson binomial mechanism: its worst case, sums of clients, codes and estimates."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpkit import NeighboringRelation, accounting, mechanisms
from dpkit.mechanisms import PoissonBinomial, UnsupportedViewError
from mechanisms.exact import finite_renyi, mp
from mechanisms.test_randomized_quantization import rejects
from numerics.test_coins import exact_pairs

ADD, REPLACE, SPECIAL = NeighboringRelation
ORDERS = [1.0001, 1.5, 2.0, 7.5, 64.0, 1024.0, math.inf]
DRAWS = 100_000


@pytest.mark.parametrize(("trials", "theta"), [(1, 0.3), (7, 1e-5), (16, 0.25), (100, 0.499)])
def test_one_client_against_the_closed_form(trials, theta):
    p, r = mp.mpf("0.5") + mp.mpf(theta), mp.mpf("0.5") - mp.mpf(theta)
    mechanism = PoissonBinomial(trials, theta, 1.0)
    for order, value in zip(ORDERS, mechanism.rdp(ORDERS, REPLACE).tolist(), strict=True):
        truth = trials * (mp.log(p / r) if math.isinf(order) else finite_renyi(order, [(p, r), (r, p)]))
        assert float(truth) * (1 - 1e-13) <= value <= float(truth) * (1 + 1e-10), order
    pair, reverse = mechanism.dominating_pairs(REPLACE)
    assert pair == reverse
    for share in (-0.6, 0.0, 0.01, 0.3, 0.95):
        ratio = mp.exp(mp.mpf(share * pair.losses[-1]))
        heads = [mp.binomial(trials, k) for k in range(trials + 1)]
        both = [(c * p**k * r ** (trials - k), c * r**k * p ** (trials - k)) for k, c in enumerate(heads)]
        truth = mp.fsum(max(a - ratio * b, mp.zero) for a, b in both)
        assert pair.delta(share * pair.losses[-1]) == pytest.approx(float(truth), rel=1e-10, abs=1e-15)


@pytest.mark.parametrize(("trials", "theta", "clients"), [(3, 0.25, 2), (2, 0.45, 4), (5, 0.05, 3)])
def test_several_clients_against_sixty_digits(trials, theta, clients):
    mechanism = PoissonBinomial(trials, theta, 1.0, clients)
    pairs = exact_pairs(trials, (clients - 1) * trials, theta)
    pairs += [[(q, p) for p, q in pair] for pair in pairs]
    for order, value in zip(ORDERS, mechanism.rdp(ORDERS, REPLACE).tolist(), strict=True):
        each = (
            max(mp.log(p / q) for p, q in pair) if math.isinf(order) else finite_renyi(order, pair) for pair in pairs
        )
        truth = float(max(each))
        assert truth * (1 - 1e-13) <= value <= truth * (1 + 1e-10), order
    pair, _ = mechanism.dominating_pairs(REPLACE)
    for epsilon in (-0.4, 0.0, 0.05, 0.3, 1.0):
        ratio = mp.exp(mp.mpf(epsilon))
        truth = max(mp.fsum(max(p - ratio * q, mp.zero) for p, q in pair) for pair in pairs)
        assert pair.delta(epsilon) == pytest.approx(float(truth), rel=1e-10, abs=1e-11)


@settings(max_examples=60)
@given(
    st.integers(1, 6),
    st.floats(0.01, 0.48),
    st.lists(st.floats(-1, 1), min_size=2, max_size=5),
    st.sampled_from([1.01, 2.0, 5.0, 40.0]),
    st.floats(0, 4),
)
def test_no_inputs_of_any_client_are_worse(trials, theta, inputs, order, epsilon):
    """The first two are what one client may hold, the rest what the others hold: anything between the extremes."""
    one, other, *rest = (stats.binom.pmf(np.arange(trials + 1), trials, 0.5 + theta * x) for x in inputs)
    for law in rest:
        one, other = np.convolve(one, law), np.convolve(other, law)
    mechanism = PoissonBinomial(trials, theta, 1.0, clients=len(inputs) - 1)
    divergence = math.log(np.sum(one**order * other ** (1 - order))) / (order - 1)
    assert divergence <= mechanism.rdp(order, REPLACE) + 1e-12 / (order - 1)
    pair, _ = mechanism.dominating_pairs(REPLACE)
    for x in (epsilon, -epsilon):
        assert np.maximum(one - math.exp(x) * other, 0.0).sum() <= pair.delta(x) + 1e-13


def test_more_clients_never_cost_more_and_too_many_count_as_those_that_fit():
    found = [PoissonBinomial(8, 0.25, 1.0, n).rdp(ORDERS, REPLACE) for n in (1, 2, 5, 40)]
    for fewer, more in itertools.pairwise(found):
        assert np.all(more <= fewer * (1 + 1e-11))
    assert PoissonBinomial(2048, 0.25, 1.0, 3)._others == 2048
    assert PoissonBinomial(5000, 0.25, 1.0, 3)._others == 0
    # Published asymptotics (Chen, Ozgur and Kairouz 2022): 8 order theta^2 trials / (clients (1 - 4 theta^2)).
    small = PoissonBinomial(4, 0.02, 1.0, 100).rdp(2.0, REPLACE)
    assert small == pytest.approx(8 * 2 * 0.02**2 * 4 / (100 * (1 - 4 * 0.02**2)), rel=0.02)


def test_pld_renyi_and_zcdp_accountants_agree():
    run = mechanisms.repeat(PoissonBinomial(16, 0.1, 1.0, 10), 20)
    kinds = accounting.PldAccountant, accounting.RdpAccountant, accounting.ZcdpAccountant
    pld, rdp, zcdp = (kind(relation=REPLACE).epsilon(run, delta=1e-6).upper for kind in kinds)
    assert 0 < pld < rdp * 1.001
    assert rdp < zcdp


def test_a_client_of_many_coins_has_losses_beyond_exponentials():
    pair, _ = PoissonBinomial(2000, 0.4, 1.0).dominating_pairs(REPLACE)
    assert pair.losses[0] > -700
    assert pair.losses[-1] == pytest.approx(2000 * math.log(9), rel=1e-13)
    assert math.fsum(pair.probabilities) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(("trials", "theta"), [(1, 0.3), (16, 0.25), (200, 0.45)])
def test_codes_have_the_stated_law(trials, theta, x64):
    mechanism = PoissonBinomial(trials, theta, 2.0)
    encode = jax.jit(mechanism.encode)
    with jax.enable_x64(x64):
        for i, value in enumerate((-2.0, 0.3, 2.0)):
            codes = encode(jnp.full((DRAWS,), value, jnp.float64 if x64 else jnp.float32), jax.random.key(i))
            assert codes.dtype == jnp.int32
            assert not rejects(
                np.asarray(codes), stats.binom.pmf(np.arange(trials + 1), trials, 0.5 + theta * value / 2)
            )


def test_a_wrong_theta_is_noticed():
    codes = PoissonBinomial(16, 0.25, 1.0).encode(jnp.ones(DRAWS), jax.random.key(0))
    assert rejects(np.asarray(codes), stats.binom.pmf(np.arange(17), 16, 0.74))


def test_estimates_are_unbiased_and_clipped_shaped_and_vmapped():
    mechanism = PoissonBinomial(16, 0.25, 1.5, clients=2)
    for value in (-1.5, -0.2, 1.5):
        law = stats.binom.pmf(np.arange(17), 16, 0.5 + 0.25 * value / 1.5)
        alone = PoissonBinomial(16, 0.25, 1.5)
        assert law @ alone.decode(np.arange(17)) == pytest.approx(value, abs=1e-13)
        assert law @ (alone.decode(np.arange(17)) - value) ** 2 <= 1.5**2 / (4 * 16 * 0.25**2) * (1 + 1e-12)
    assert mechanism.bits == 6
    keys = jax.random.split(jax.random.key(1), 2)
    values = jnp.array([[1.5, 9.0], [jnp.nan, 0.0]])
    codes = jax.vmap(mechanism.encode)(values, keys)
    np.testing.assert_array_equal(codes[0], mechanism.encode(jnp.array([1.5, 1.5]), keys[0]))
    np.testing.assert_array_equal(codes[1], mechanism.encode(jnp.zeros(2), keys[1]))
    each = jax.vmap(mechanism.privatize)(values, keys)
    assert each.dtype == jnp.float32
    np.testing.assert_allclose(mechanism.decode(codes.sum(axis=0)), each.mean(axis=0), atol=1e-5)
    assert jax.jit(mechanism.privatize)(jnp.zeros((2, 0, 5)), keys[0]).shape == (2, 0, 5)


@pytest.mark.parametrize("relation", [ADD, SPECIAL])
def test_a_missing_report_is_not_covered(relation):
    mechanism = PoissonBinomial(16, 0.25, 1.0)
    for view in (mechanism.dominating_pairs, mechanism.zcdp, lambda r: mechanism.rdp([2.0], r)):
        with pytest.raises(UnsupportedViewError, match="replace_one"):
            view(relation)
