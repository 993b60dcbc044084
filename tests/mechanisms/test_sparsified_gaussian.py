"""The sparsified Gaussian against enumeration of masks, random search and the mechanisms it contains."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpkit import NeighboringRelation, accounting
from dpkit.mechanisms import Gaussian, PoissonSampled, SparsifiedGaussian, UnsupportedViewError
from dpkit.numerics.gaussian_mixture import mixture_renyi
from mechanisms.exact import mp

ADD, REPLACE, SPECIAL = NeighboringRelation
ORDERS = [1.01, 1.5, 2.0, 3.7, 10.0, 64.0]


def moment(order, vector, sigma, keep, q=1.0):
    """(order - 1) D of removing, at integer orders, by enumeration of the masks of `order` copies.

    E_Q[(P/Q)^a] is the sum over a-tuples of masks of their probabilities times exp(sum over pairs of <m x, m' x>).
    """
    masks = list(itertools.product((0, 1), repeat=len(vector)))
    keep, q, variance = mp.mpf(keep), mp.mpf(q), mp.mpf(sigma) ** 2
    worlds = [(1 - q, (0,) * len(vector))] + [(q * keep ** sum(m) * (1 - keep) ** (len(m) - sum(m)), m) for m in masks]
    total = mp.zero
    for chosen in itertools.product(worlds, repeat=order):
        weight, exponent = mp.one, mp.zero
        for i, (chance, mask) in enumerate(chosen):
            weight *= chance
            for _, other in chosen[:i]:
                exponent += sum(a * b * mp.mpf(x) ** 2 for a, b, x in zip(mask, other, vector, strict=True))
        total += weight * mp.exp(exponent / variance)
    return mp.log(total)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
@pytest.mark.parametrize("q", [1.0, 0.3])
@pytest.mark.parametrize("order", [2, 3])
def test_enumeration_of_masks(sigma, q, order):
    # c = 0.8: one coordinate of 0.8 and one of 0.6 are the worst vector.
    mechanism = SparsifiedGaussian(sigma, 0.4, 2, 0.8)
    bound = PoissonSampled(mechanism, q).rdp([float(order)], ADD)[0]
    truth = float(moment(order, (0.8, 0.6), sigma, 0.4, q) / (order - 1))
    assert truth * (1 - 1e-12) <= bound
    if q == 1:
        assert bound == pytest.approx(truth, rel=1e-9)
    for vector in [(1 / math.sqrt(2),) * 2, (0.8, 0.1), (0.7, 0.7)]:
        assert moment(order, vector, sigma, 0.4, q) <= bound * (order - 1)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=8),
    st.floats(0.05, 5.0),
    st.floats(0.001, 1.0),
    st.floats(0.1, 1.0),
    st.floats(1.005, 80.0),
)
def test_no_vector_is_worse(vector, sigma, keep, linf_clip, order):
    x = np.clip(vector, -linf_clip, linf_clip)
    x = x / max(1.0, float(np.linalg.norm(x)))
    total = sum(mixture_renyi([order], sigma, [0.0, abs(v)], [1 - keep, keep], reverse=False)[0] for v in x)
    backwards = sum(mixture_renyi([order], sigma, [0.0, abs(v)], [1 - keep, keep], reverse=True)[0] for v in x)
    bound = SparsifiedGaussian(sigma, keep, len(vector), linf_clip).rdp([order], ADD)[0]
    assert total <= bound * (1 + 1e-10)
    assert backwards <= bound * (1 + 1e-10)


@pytest.mark.parametrize("order", [1.01, 1.5, 2.0, 2.7, 3.5, 40.0])
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9])
def test_log_moments_are_convex_in_the_square(order, keep):
    t = np.linspace(0.01, 4.0, 120)
    values = np.array([mixture_renyi([order], 1.0, [0.0, math.sqrt(x)], [1 - keep, keep], reverse=False)[0] for x in t])
    assert np.all(np.diff(values, 2) >= -1e-10 * values[1:-1])


def test_what_it_contains():
    always = SparsifiedGaussian(0.7, 1.0, 100, 0.1)
    np.testing.assert_allclose(always.rdp(ORDERS, ADD), Gaussian(0.7).rdp(ORDERS, ADD), rtol=1e-10)
    sampled = PoissonSampled(Gaussian(0.7), 0.2)
    np.testing.assert_allclose(SparsifiedGaussian(0.7, 0.2, 100).rdp(ORDERS, ADD), sampled.rdp(ORDERS, ADD), rtol=1e-10)
    np.testing.assert_allclose(PoissonSampled(always, 0.2).rdp(ORDERS, ADD), sampled.rdp(ORDERS, ADD), rtol=1e-9)
    # Small clips: order * keep^2 / (2 sigma^2), from above.
    small = SparsifiedGaussian(0.7, 0.2, 10**8, 1e-4).rdp([2.0, 8.0], ADD)
    limit = np.array([2.0, 8.0]) * 0.2**2 / (2 * 0.7**2)
    assert np.all((small >= limit) & (small <= limit * (1 + 1e-4)))
    # Where both clips together allow less than norm 1.
    narrow = SparsifiedGaussian(0.7, 1.0, 4, 0.1)
    assert narrow.zcdp(ADD) == pytest.approx(4 * 0.01 / (2 * 0.49), rel=1e-10)
    np.testing.assert_allclose(narrow.rdp([3.0], ADD), [3 * narrow.zcdp(ADD)], rtol=1e-10)
    assert SparsifiedGaussian(0.7, 0.5, 4, 1e-200).rdp([2.0], ADD)[0] <= 1e-300


@pytest.mark.parametrize(("sigma", "keep", "linf_clip"), [(0.5, 0.3, 0.6), (1.0, 0.5, 0.75), (0.3, 0.1, 0.6)])
@pytest.mark.parametrize("q", [0.01, 0.2, 0.7])
def test_adding_a_sampled_client_on_a_grid(sigma, keep, linf_clip, q):
    """The direction without a binomial sum: in two coordinates by quadrature."""
    grid = np.arange(-9 * sigma, 9 * sigma + 2, sigma / 12)
    step = PoissonSampled(SparsifiedGaussian(sigma, keep, 2, linf_clip), q)

    def normal(centre):
        return np.exp(-((grid - centre) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))

    for x in [
        (linf_clip, min(linf_clip, math.sqrt(1 - linf_clip**2))),
        (linf_clip, 0.0),
        (linf_clip / 2, linf_clip / 2),
    ]:
        first, second = ((1 - keep) * normal(0) + keep * normal(v) for v in x)
        absent = np.outer(normal(0), normal(0))
        mixed = (1 - q) * absent + q * np.outer(first, second)
        for order in (1.5, 2.0, 5.0, 12.0):
            log_terms = order * np.log(absent) + (1 - order) * np.log(mixed)
            truth = math.log(float(np.exp(log_terms).sum()) * (sigma / 12) ** 2) / (order - 1)
            assert truth <= step.rdp([order], ADD)[0] * (1 + 1e-6)


def test_both_samplings_multiply():
    sparse, q = SparsifiedGaussian(1.0, 0.01, 10**6, 0.005), 0.01
    both = PoissonSampled(sparse, q).rdp([2.0, 4.0], ADD)
    leading = np.array([2.0, 4.0]) * (q * 0.01) ** 2 / 2
    np.testing.assert_allclose(both, leading, rtol=0.05)


def test_streaming_scales_by_the_largest_column():
    encoder = np.array([[1.0, 0, 0], [0.5, 1.0, 0], [0.25, 0.5, 1.0]])
    once = SparsifiedGaussian(2.0, 0.3, 10, 0.5).streaming(encoder)
    assert once.noise_multiplier == pytest.approx(2.0 / math.sqrt(1 + 0.25 + 0.0625), rel=1e-15)
    assert (once.keep_probability, once.linf_clip, once.dimension) == (0.3, 0.5, 10)
    with pytest.raises(UnsupportedViewError, match="no worst case is proved"):
        once.streaming(encoder, max_participations=2)


@pytest.mark.parametrize(
    "encoder",
    [np.ones((2, 2)), np.ones(3), np.ones((2, 3)), np.zeros((2, 2)), np.full((1, 1), np.nan), np.zeros((0, 0))],
)
def test_bad_encoders(encoder):
    with pytest.raises(ValueError, match="encoder must be"):
        SparsifiedGaussian(1.0, 0.5, 2).streaming(encoder)


def test_streaming_of_one_coordinate_by_enumeration():
    """E x is moved as a whole or not at all: a sampled Gaussian along the column."""
    encoder, sigma, keep = np.array([[1.0, 0.0], [0.75, 1.0]]), 0.8, 0.3
    column = float(np.hypot(1.0, 0.75))
    truth = mixture_renyi(ORDERS, sigma, [0.0, column], [1 - keep, keep], reverse=False)
    np.testing.assert_allclose(SparsifiedGaussian(sigma, keep, 1).streaming(encoder).rdp(ORDERS, ADD), truth, rtol=1e-9)


def test_nothing_is_claimed_where_nothing_is_proved():
    mechanism = SparsifiedGaussian(1.0, 0.5, 3)
    with pytest.raises(UnsupportedViewError, match="two masked vectors; use add_or_remove_one"):
        mechanism.rdp([2.0], REPLACE)
    with pytest.raises(UnsupportedViewError, match="rdp, zcdp"):
        mechanism.dominating_pairs(ADD)
    with pytest.raises(UnsupportedViewError):
        accounting.PldAccountant().epsilon(mechanism, delta=1e-6)


def test_cost_and_error():
    mechanism = SparsifiedGaussian(0.02, 0.1, 1000, 0.2)
    entropy = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert mechanism.bits_per_client(8) == pytest.approx(1000 * (0.8 + entropy), rel=1e-14)
    assert SparsifiedGaussian(1.0, 1.0, 10).bits_per_client() == 320
    assert mechanism.mean_squared_error(50) == pytest.approx(9 / 50 + 1000 * (0.02 / 5) ** 2, rel=1e-14)


def test_the_estimate_has_the_stated_error():
    clients, dimension = 20, 64
    mechanism = SparsifiedGaussian(0.3, 0.25, dimension, 0.2)
    vectors = jax.random.rademacher(jax.random.key(1), (clients, dimension), jnp.float32) / math.sqrt(dimension)

    def estimate(key):
        keys = jax.random.split(key, clients + 1)
        total = jax.vmap(mechanism.encode)(vectors, keys[1:]).sum(axis=0)
        return mechanism.privatize(total, keys[0]) / (clients * mechanism.keep_probability)

    runs = 4000
    estimates = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(2), runs))
    errors = np.asarray(((estimates - vectors.mean(axis=0)) ** 2).sum(axis=1))
    # The mean of 4000 errors is within 7 of its deviations but with a probability below 1e-11.
    assert abs(errors.mean() - mechanism.mean_squared_error(clients)) <= 7 * errors.std() / math.sqrt(runs)


def test_messages_are_clipped_and_sparse():
    mechanism = SparsifiedGaussian(1.0, 0.25, 10_000, 0.02)
    value = 100 * jax.random.normal(jax.random.key(3), (100, 100))
    message = np.asarray(jax.jit(mechanism.encode)(value, jax.random.key(4)), np.float64)
    assert message.shape == (100, 100)
    assert np.abs(message).max() <= 0.02
    assert np.linalg.norm(message) <= 1
    # Hoeffding at 1e-11.
    assert abs(np.mean(message != 0) - 0.25) <= math.sqrt(math.log(2e11) / 2e4)
    with pytest.raises(ValueError, match="dimension=10000"):
        mechanism.encode(jnp.zeros(9), jax.random.key(0))
