"""The rectified Gaussian: the Gaussian's guarantee, its own divergences, and the noise it really adds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dpkit import NeighboringRelation, mechanisms
from dpkit.accounting import PldAccountant, RdpAccountant
from dpkit.mechanisms import Gaussian, PoissonSampled, RectifiedGaussian
from mechanisms import exact_bounded
from mechanisms.exact import mp
from mechanisms.exact_bounded import exactly

# With n draws a Kolmogorov-Smirnov distance beyond t has probability at most 2 exp(-2 n t^2) (Massart 1990), and a
# binomial count is outside its interval with the stated one. Fewer than 40 comparisons: below 1e-9 together.
FALSE_FAILURE = 2e-11
DRAWS = 60_000
ADD = NeighboringRelation.ADD_OR_REMOVE_ONE


@pytest.mark.parametrize("relation", NeighboringRelation)
@pytest.mark.parametrize("sampling_probability", [0.1, 1.0])
def test_every_view_is_the_gaussians(relation, sampling_probability):
    box, line = (PoissonSampled(m, sampling_probability) for m in (RectifiedGaussian(1.3, -1.0, 0.5), Gaussian(1.3)))
    orders = [1.5, 8.0, 64.0]
    np.testing.assert_array_equal(box.rdp(orders, relation), line.rdp(orders, relation))
    assert box.zcdp(relation) == line.zcdp(relation)
    for one, other in zip(box.dominating_pairs(relation), line.dominating_pairs(relation), strict=True):
        assert [one.delta(x) for x in (-1.0, 0.0, 2.0)] == [other.delta(x) for x in (-1.0, 0.0, 2.0)]
    for kind in (PldAccountant, RdpAccountant):
        bounds = [kind(relation=relation).epsilon(m, delta=1e-5) for m in (box, line)]
        # From below nothing is known of the box: where it hides nothing at one epsilon, it does at another.
        assert bounds[0].lower == 0
        assert bounds[0].upper == pytest.approx(bounds[1].upper, rel=1e-3)


def test_the_worst_case_is_attained():
    # Where the loss crosses epsilon inside the box the profile is the Gaussian's.
    box = RectifiedGaussian(1.0, -2.0, 2.0)
    pair = Gaussian(1.0).dominating_pairs(ADD)[0]
    for epsilon in (-1.0, 0.0, 0.3, 1.2):
        assert box.hockey_stick(epsilon, 0.5, -0.5) == pytest.approx(pair.delta(epsilon), rel=1e-13)
        assert box.hockey_stick(epsilon, 4.0, 3.0) < pair.delta(epsilon)


@pytest.mark.parametrize("theta", [-3.0, 0.0, 1.875, 2.0, 5.0, 20.0])
@pytest.mark.parametrize("kappa", [2.0**-20, 0.5])
def test_divergences_in_units_of_the_sensitivity(theta, kappa):
    # Powers of two, so that the units change no digit.
    box, orders = RectifiedGaussian(0.5, -2.0, 2.0), [1.5, 2.0, 300.0, 1024.0]
    found = box.renyi_divergence(orders, theta + kappa, theta)
    places = [(theta + kappa + 2) * 2, (theta + 2) * 2]
    truth = [exactly(exact_bounded.rectified_renyi, a, *places, 8.0, digits=350) for a in orders]
    for value, expected in zip(found.tolist(), truth, strict=True):
        assert value > 0
        if expected > 1e-290:
            assert float(abs(value - expected) / expected) < 1e-10
    profile = float(exactly(exact_bounded.rectified_profile, 0.25, *places, 8.0, digits=350))
    assert box.hockey_stick(0.25, theta + kappa, theta) == pytest.approx(profile, rel=1e-10, abs=1e-290)


@pytest.mark.parametrize("theta", [-30.0, -3.0, 0.2, 1.0, 4.0])
def test_fisher_information_is_half_the_curvature_of_the_divergence(theta):
    box = RectifiedGaussian(1.0, -1.0, 1.0)
    information = float(box.fisher_information(theta))
    assert 0 < information <= 1
    for order in (2.0, 5.0):
        divergence = float(box.renyi_divergence([order], theta + 1e-6, theta)[0])
        assert information == pytest.approx(2 * divergence / order * 1e12, rel=1e-3)


def test_fisher_information_in_closed_form():
    edge = RectifiedGaussian(2.0, -1000.0, 3.0)
    assert float(edge.fisher_information(3.0)) == pytest.approx((0.5 + 1 / math.pi) / 4, rel=1e-13)
    wide = RectifiedGaussian(2.0, -1000.0, 1000.0)
    assert float(wide.fisher_information(1.0)) == pytest.approx(0.25, rel=1e-13)
    with mp.workdps(40):
        a, b = mp.mpf(-2), mp.mpf(1)
        parts = [mp.npdf(a) ** 2 / mp.ncdf(a), mp.npdf(b) ** 2 / mp.ncdf(-b), mp.ncdf(b) - mp.ncdf(a)]
        truth = mp.fsum(parts) + a * mp.npdf(a) - b * mp.npdf(b)
    assert float(RectifiedGaussian(1.0, -2.0, 1.0).fisher_information(0.0)) == pytest.approx(float(truth), rel=1e-13)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("theta", [0.0, 0.9, 3.0])
def test_release(dtype, theta):
    box = RectifiedGaussian(1.5, -1.0, 2.0)
    with jax.enable_x64(dtype == jnp.float64):
        draws = np.asarray(jax.jit(box.privatize)(jnp.full((DRAWS,), theta, dtype), jax.random.key(7)))
    assert draws.dtype == dtype
    law = stats.norm(theta, 1.5)
    for end, chance in ((-1.0, law.cdf(-1.0)), (2.0, law.sf(2.0))):
        low, high = stats.binom(DRAWS, chance).ppf([FALSE_FAILURE / 2, 1 - FALSE_FAILURE / 2])
        assert low <= np.count_nonzero(draws == end) <= high
    inside = draws[(draws > -1) & (draws < 2)].astype(np.float64)
    assert not rejects(inside, law, -1.0, 2.0)
    # A stddev wrong by a tenth is noticed.
    assert rejects(inside, stats.norm(theta, 1.2), -1.0, 2.0) or theta == 0.9


def rejects(draws, law, lower, upper):
    scale = law.cdf(upper) - law.cdf(lower)
    distance = stats.kstest(draws, lambda x: (law.cdf(x) - law.cdf(lower)) / scale).statistic
    return distance > math.sqrt(math.log(2 / FALSE_FAILURE) / (2 * len(draws)))


def test_groups():
    box = mechanisms.group(RectifiedGaussian(3.0, -3.0, 6.0), 3)
    assert box == RectifiedGaussian(1.0, -1.0, 2.0)
