"""The truncated Gaussian: worst cases no pair of values exceeds, exact divergences, and the law it draws from."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpkit import NeighboringRelation, mechanisms
from dpkit.accounting import PldAccountant, RdpAccountant, ZcdpAccountant
from dpkit.mechanisms import (
    FinitePair,
    Gaussian,
    GaussianPair,
    PoissonSampled,
    RectifiedGaussian,
    TruncatedGaussian,
    UnsupportedViewError,
)
from dpkit.numerics.restricted_normal import log_normal_interval
from mechanisms import exact_bounded
from mechanisms.exact_bounded import exactly

# With n draws a Kolmogorov-Smirnov distance beyond t has probability at most 2 exp(-2 n t^2) (Massart 1990). Fewer than
# 40 comparisons: below 1e-9 together.
FALSE_FAILURE = 1e-11
DRAWS = 60_000
ADD, REPLACE, SPECIAL = NeighboringRelation
ORDERS = [1.1, 2.0, 7.5, 64.0, 1024.0]


@given(
    st.floats(-2, 0.5),
    st.floats(-2, 1),
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-1, 1)), min_size=1, max_size=6),
    st.sampled_from(ORDERS),
    st.sampled_from([ADD, REPLACE]),
)
def test_no_change_of_norm_one_exceeds_the_divergence(log_width, log_noise, values, order, relation):
    """Any values, any direction of change, any number of coordinates, in and far out of the box."""
    upper, noise = 10**log_width, 10**log_noise
    box = TruncatedGaussian(noise, -upper, upper)
    thetas, changes = np.array(values).T
    norm = np.linalg.norm(changes)
    if norm < 1e-3:
        return
    moved = thetas + changes / norm * relation.sensitivity
    pair = sum(float(box.renyi_divergence([order], a, b)[0]) for a, b in zip(moved, thetas, strict=True))
    assert pair <= float(box.rdp([order], relation)[0]) * (1 + 1e-9)
    assert pair <= box.zcdp(relation) * order * (1 + 1e-9)
    if len(values) == 1:
        number = TruncatedGaussian(noise, -upper, upper, coordinates=1)
        assert pair <= float(number.rdp([order], relation)[0]) * (1 + 1e-9)
        within = TruncatedGaussian(noise, -upper, upper, 1, (min(moved[0], thetas[0]), max(moved[0], thetas[0])))
        assert pair <= float(within.rdp([order], relation)[0]) * (1 + 1e-9)
        assert pair <= within.zcdp(relation) * order * (1 + 1e-9)
    bounded = TruncatedGaussian(noise, -upper, upper, coordinates=len(values))
    each = relation.sensitivity / math.sqrt(len(values)) * changes / np.abs(changes).max()
    pair = sum(float(box.renyi_divergence([order], t + c, t)[0]) for t, c in zip(thetas, each, strict=True))
    assert pair <= float(bounded.rdp([order], relation)[0]) * (1 + 1e-9)


@given(st.floats(-4, 4), st.sampled_from([-1, 1]), st.floats(0.01, 1), st.floats(0, 1.2))
def test_no_pair_of_numbers_exceeds_the_profile(theta, sign, part, epsilon):
    for box in (TruncatedGaussian(1.0, -1.5, 1.5, 1), TruncatedGaussian(0.5, -1.0, 2.0, 1)):
        pair = box.hockey_stick(epsilon, theta + sign * part, theta)
        for worst in box.dominating_pairs(ADD):
            assert pair <= worst.delta(epsilon) * (1 + 1e-12)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-1, 1)), min_size=2, max_size=2), st.floats(0, 1.2))
def test_two_coordinates_are_gaussian_private(values, epsilon):
    """delta of two coordinates' losses, each tabulated, is below the Gaussian's (Gopi, Lee and Liu 2022)."""
    box = TruncatedGaussian(1.0, -0.8, 0.8)
    thetas, changes = np.array(values).T
    norm = np.linalg.norm(changes)
    if norm < 1e-3:
        return
    moved = thetas + changes / norm
    x = np.linspace(-0.8, 0.8, 401)
    x = (x[1:] + x[:-1]) / 2

    def masses(theta):
        log_density = -((x - theta) ** 2) / 2
        density = np.exp(log_density - log_density.max())
        return density / density.sum()

    p, q = (masses(c[0])[:, None] * masses(c[1]) for c in (moved, thetas))
    delta = np.maximum(p - math.exp(epsilon) * q, 0).sum()
    assert delta <= box.dominating_pairs(ADD)[0].delta(epsilon) * (1 + 1e-3)


@pytest.mark.parametrize("theta", [-3.0, 0.0, 2.0, 5.0, 500.0])
@pytest.mark.parametrize("kappa", [2.0**-20, 0.5])
def test_divergences_in_units_of_the_sensitivity(theta, kappa):
    # Powers of two, so that the units change no digit.
    box, orders = TruncatedGaussian(0.5, -2.0, 2.0), [1.5, 2.0, 300.0, 1024.0]
    places = [(theta + kappa + 2) * 2, (theta + 2) * 2]
    for value, order in zip(box.renyi_divergence(orders, theta + kappa, theta).tolist(), orders, strict=True):
        truth = exactly(exact_bounded.truncated_renyi, order, *places, 8.0)
        assert float(abs(value - truth) / truth) < 1e-10
    profile = float(exactly(exact_bounded.truncated_profile, kappa / 32, *places, 8.0))
    assert box.hockey_stick(kappa / 32, theta + kappa, theta) == pytest.approx(profile, rel=1e-10, abs=1e-290)


@pytest.mark.parametrize("theta", [-30.0, -3.0, 0.2, 1.0, 4.0])
def test_fisher_information_is_half_the_curvature_of_the_divergence(theta):
    box = TruncatedGaussian(1.0, -1.0, 1.0)
    information = float(box.fisher_information(theta))
    assert 0 < information <= 1
    for order in (2.0, 5.0):
        divergence = float(box.renyi_divergence([order], theta + 1e-6, theta)[0])
        assert information == pytest.approx(2 * divergence / order * 1e12, rel=1e-4)


def test_fisher_information_in_closed_form():
    assert float(TruncatedGaussian(2.0, -1e3, 3.0).fisher_information(3.0)) == pytest.approx(
        (1 - 2 / math.pi) / 4, rel=1e-13
    )
    far = TruncatedGaussian(2.0, -1.0, 1.0).fisher_information([1e6, -1e6])
    np.testing.assert_allclose(far * 4, 4 / 1e12, rtol=1e-5)
    # The larger of the two bounded releases' and at most the Gaussian's.
    for theta in (-2.0, 0.0, 0.5):
        rectified, truncated = (
            m(1.0, -1.0, 1.0).fisher_information(theta) for m in (RectifiedGaussian, TruncatedGaussian)
        )
        assert truncated < rectified <= 1


@pytest.mark.parametrize("relation", NeighboringRelation)
def test_wide_boxes_are_none(relation):
    box, line = TruncatedGaussian(1.3, -40.0, 40.0, coordinates=1), Gaussian(1.3)
    np.testing.assert_allclose(box.rdp([1.5, 4.0], relation), line.rdp([1.5, 4.0], relation), rtol=1e-12)
    assert box.zcdp(relation) == pytest.approx(line.zcdp(relation), rel=1e-12)
    for one, other in zip(box.dominating_pairs(relation), line.dominating_pairs(relation), strict=True):
        assert [one.delta(x) for x in (-1.0, 0.0, 2.0)] == [other.delta(x) for x in (-1.0, 0.0, 2.0)]


def test_more_is_known_less_is_lost():
    """From any dimension to one number to a number in a range: never looser, in any view."""
    ranges = [(1,), (1, (-9.0, 9.0)), (1, (-1.0, 1.0)), (1, (0.0, 1.0)), (1, (0.5, 1.0))]
    forms = [TruncatedGaussian(1.0, -1.0, 1.0, *more) for more in ((), *ranges)]
    for looser, tighter in itertools.pairwise(forms):
        assert np.all(tighter.rdp(ORDERS, ADD) <= looser.rdp(ORDERS, ADD) * (1 + 1e-8))
        assert tighter.zcdp(ADD) <= looser.zcdp(ADD)
        for accountant in (PldAccountant(), RdpAccountant(), ZcdpAccountant()):
            epsilons = [accountant.epsilon(m, delta=1e-5).upper for m in (tighter, looser)]
            assert epsilons[0] <= epsilons[1] * (1 + 1e-6)
    assert isinstance(forms[0].dominating_pairs(ADD)[0], GaussianPair)
    assert isinstance(forms[1].dominating_pairs(ADD)[0], FinitePair)
    number, line = (PldAccountant().epsilon(m, delta=1e-5).upper for m in (forms[1], Gaussian(1.0)))
    assert number < 0.5 * line


@pytest.mark.parametrize("reach", [None, (-1.0, 2.0)])
def test_the_pair_is_the_worst_profile_where_it_is_tabulated(reach):
    box = TruncatedGaussian(0.8, -1.0, 1.5, 1, reach)
    pair = box.dominating_pairs(ADD)[0]
    positions = np.linspace(-1.0, 1.0, 401) if reach else np.linspace(-6.0, 6.0, 1201)
    for epsilon in (0.0, 0.2, 0.7, 1.5):
        found = max(box.hockey_stick(epsilon, *ends) for c in positions.tolist() for ends in ((c + 1, c), (c, c + 1)))
        assert found <= pair.delta(epsilon) <= found * (1 + 2e-3)


@pytest.mark.parametrize("coordinates", [None, 1, 16])
def test_sampled(coordinates):
    box = TruncatedGaussian(1.0, -1.0, 1.0, coordinates)
    sampled = PoissonSampled(box, 0.05)
    line = PoissonSampled(Gaussian(1.0), 0.05)
    for relation in (ADD, SPECIAL):
        assert np.all(sampled.rdp(ORDERS, relation) <= line.rdp(ORDERS, relation) * (1 + 1e-9))
        assert np.all(sampled.rdp(ORDERS, relation) <= box.rdp(ORDERS, relation))
        upper = PldAccountant(relation=relation).epsilon(mechanisms.repeat(sampled, 50), delta=1e-6).upper
        assert upper <= PldAccountant(relation=relation).epsilon(mechanisms.repeat(line, 50), delta=1e-6).upper * 1.002
    with pytest.raises(UnsupportedViewError, match="replace_one"):
        sampled.rdp(ORDERS, REPLACE)


def test_groups():
    box = TruncatedGaussian(3.0, -3.0, 6.0, 1, (-3.0, 3.0))
    assert mechanisms.group(box, 3) == TruncatedGaussian(1.0, -1.0, 2.0, 1, (-1.0, 1.0))


def distribution(x, theta, noise, lower, upper):
    """The cdf, from the side on which it keeps its digits."""
    low, width = (lower - theta) / noise, (upper - lower) / noise
    y = np.clip((x - lower) / noise, 1e-300, width * (1 - 1e-15))
    below = np.exp(log_normal_interval(low, y) - log_normal_interval(low, width))
    above = np.exp(log_normal_interval(low + y, width - y) - log_normal_interval(low, width))
    return np.where(theta > (lower + upper) / 2, 1 - above, below)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    ("noise", "theta"),
    [
        (0.1, 0.0),
        (0.1, 1.45),
        (0.1, 1.5),
        (0.1, -1.25),
        (1.0, 0.9),
        (1.0, -7.25),
        (1.0, 100.0),
        (30.0, 0.0),
        (30.0, 99.0),
    ],
)
def test_release(dtype, noise, theta):
    lower, upper = -1.0, 1.5
    box = TruncatedGaussian(noise, lower, upper)
    with jax.enable_x64(dtype == jnp.float64):
        draws = np.asarray(jax.jit(box.privatize)(jnp.full((DRAWS,), theta, dtype), jax.random.key(11)))
    assert draws.dtype == dtype
    draws = draws.astype(np.float64)
    assert np.all((draws >= lower) & (draws <= upper))
    values = distribution(draws, theta, noise, lower, upper)
    threshold = math.sqrt(math.log(2 / FALSE_FAILURE) / (2 * DRAWS))
    assert stats.kstest(values, "uniform").statistic <= threshold
    if noise < 30:
        wrong = distribution(draws, theta, 0.8 * noise, lower, upper)
        assert stats.kstest(wrong, "uniform").statistic > threshold


def test_values_are_clipped_to_their_range():
    key = jax.random.key(6)
    bounded, free = TruncatedGaussian(1.0, -1.0, 1.0, 1, (0.0, 0.5)), TruncatedGaussian(1.0, -1.0, 1.0, 1)
    values = jnp.array([-3.0, 0.0, 0.25, 0.5, 8.0])
    np.testing.assert_array_equal(bounded.privatize(values, key), free.privatize(jnp.clip(values, 0.0, 0.5), key))


def test_release_of_arrays():
    box, key = TruncatedGaussian(1.0, -1.0, 1.0), jax.random.key(5)
    value = jnp.linspace(-3, 3, 12).reshape(3, 4)
    released = jax.jit(box.privatize)(value, key)
    np.testing.assert_allclose(released, box.privatize(value, key), rtol=1e-4, atol=1e-6)
    keys = jax.random.split(key, 5)
    many = jax.vmap(box.privatize, in_axes=(None, 0))(value, keys)
    assert many.shape == (5, 3, 4)
    np.testing.assert_allclose(many[2], box.privatize(value, keys[2]), rtol=1e-4, atol=1e-6)
    assert box.privatize(3, key).dtype == jnp.float32


BAD = [
    (lambda: TruncatedGaussian(0.0, -1, 1), "noise_multiplier must be > 0"),
    (lambda: TruncatedGaussian(math.nan, -1, 1), "noise_multiplier must be finite"),
    (lambda: TruncatedGaussian(1.0, 1, 1), "lower must be below upper, got lower=1.0 and upper=1.0"),
    (lambda: TruncatedGaussian(1.0, 2, 1), "lower must be below upper"),
    (lambda: TruncatedGaussian(1.0, -math.inf, 1), "lower must be finite"),
    (lambda: TruncatedGaussian(1.0, -1, "1"), "upper must be a number"),
    (lambda: TruncatedGaussian(1.0, -1, 1, 0), "coordinates must be >= 1"),
    (lambda: TruncatedGaussian(1.0, -1, 1, value_range=(0, 1)), "needs coordinates"),
    (lambda: TruncatedGaussian(1.0, -1, 1, 1, (1, 0)), "least, largest"),
    (lambda: TruncatedGaussian(1.0, -1, 1, 1, (math.nan, 0)), "value_range must be finite"),
    (lambda: RectifiedGaussian(0.0, -1, 1), "noise_multiplier must be > 0"),
    (lambda: RectifiedGaussian(1.0, 1, -1), "lower must be below upper"),
    (lambda: RectifiedGaussian(1.0, -1, 1, bounded="both"), "bounded must be 'output', got 'both'"),
    (lambda: TruncatedGaussian(1.0, -1, 1).renyi_divergence([1.0], 0, 1), "orders must be numbers > 1"),
    (lambda: TruncatedGaussian(1.0, -1, 1).renyi_divergence([], 0, 1), "orders must be numbers > 1"),
    (lambda: TruncatedGaussian(1.0, -1, 1).renyi_divergence([2.0], math.nan, 1), "first must be finite"),
    (lambda: TruncatedGaussian(1.0, -1, 1).hockey_stick(math.inf, 0, 1), "epsilon must be finite"),
    (lambda: TruncatedGaussian(1.0, -1, 1).fisher_information([0.0, math.inf]), "theta must be finite"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("kind", "delta"),
    [
        (TruncatedGaussian, (stats.norm.cdf(3) - stats.norm.cdf(2)) / (2 * stats.norm.cdf(3) - 1)),
        (RectifiedGaussian, 2 * stats.norm.cdf(-3)),
    ],
)
def test_bounded_noise_is_refused_with_the_delta_it_has(kind, delta):
    with pytest.raises(ValueError, match=f"delta >= {delta:.3g} at every epsilon") as error:
        kind(1.0, -3.0, 3.0, bounded="noise")
    assert "moves its support with the value" in str(error.value)
    # The least that an attacker gains who looks for outputs that the neighbour cannot produce.
    noise = np.clip(np.random.default_rng(3).normal(size=400_000), -3, 3)
    if kind is TruncatedGaussian:
        noise = noise[np.abs(noise) < 3]
        assert np.mean(noise > 2.0) == pytest.approx(delta, rel=0.05)
    else:
        assert np.mean(np.abs(noise) == 3.0) == pytest.approx(delta, rel=0.15)
