"""A step of private descent into a box: its sensitivity, its units, the noise it adds."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit import NeighboringRelation
from dpkit.mechanisms import BoundedMean, Gaussian, RectifiedGaussian, TruncatedGaussian

RECTIFIED = BoundedMean(RectifiedGaussian(1e-6, -9.0, 9.0), linf_clip=0.5, coordinates=4, denominator=10)


def test_one_record_moves_the_sum_by_no_more_than_the_unit():
    key = jax.random.key(0)
    rng = np.random.default_rng(1)
    corners = np.array(list(itertools.product([-100.0, -0.5, 0.5, math.inf, math.nan], repeat=4)))
    others = rng.normal(size=(6, 4)) * 3
    without = np.asarray(RECTIFIED.privatize(others, key), np.float64)
    moved = max(
        float(np.linalg.norm(np.asarray(RECTIFIED.privatize(np.vstack([others, record]), key), np.float64) - without))
        for record in corners[rng.integers(0, len(corners), 60)]
    )
    assert RECTIFIED.unit == 1.0
    assert moved * 10 <= RECTIFIED.unit * (1 + 1e-5)
    assert moved * 10 > 0.9


def test_the_denominator_is_fixed_and_the_box_is_that_of_the_sum():
    records, key = jnp.full((7, 4), 0.25), jax.random.key(2)
    np.testing.assert_allclose(RECTIFIED.privatize(records, key), 7 * 0.25 / 10, rtol=1e-4)
    tight = BoundedMean(RectifiedGaussian(1e-6, -1.0, 1.5), linf_clip=0.5, coordinates=4, denominator=10)
    np.testing.assert_allclose(tight.privatize(records, key), 1.5 / 10, rtol=1e-6)
    np.testing.assert_allclose(tight.privatize(jnp.zeros((0, 4)), key), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    "mechanism", [RectifiedGaussian(0.5, -2.0, 2.0), TruncatedGaussian(0.5, -2.0, 2.0, coordinates=5000)]
)
def test_the_noise_is_the_mechanisms_in_its_units(mechanism):
    step = BoundedMean(mechanism, linf_clip=0.02, coordinates=5000, denominator=16)
    records, key = jnp.zeros((3, 5000)), jax.random.key(3)
    released = jax.jit(step.privatize)(records, key)
    expected = mechanism.privatize(jnp.zeros(5000), key) * step.unit / 16
    np.testing.assert_allclose(released, expected, rtol=1e-4, atol=1e-6)
    # stddev 0.5 units on the sum; 5000 draws are within 8 % of it but for a chance of 1e-14.
    assert np.std(released) * 16 / step.unit == pytest.approx(0.5, rel=0.08)


def test_bounded_coordinates_are_worth_something():
    relation, orders = NeighboringRelation.ADD_OR_REMOVE_ONE, [2.0, 32.0]
    step = BoundedMean(TruncatedGaussian(1.0, -1.0, 1.0, coordinates=4), 0.5, 4, 10)
    assert np.all(step.mechanism.rdp(orders, relation) < TruncatedGaussian(1.0, -1.0, 1.0).rdp(orders, relation))


BAD = [
    (lambda: BoundedMean(Gaussian(1.0), 0.5, 4, 10), "mechanism must be a RectifiedGaussian"),  # type: ignore[arg-type]
    (lambda: BoundedMean(RECTIFIED.mechanism, 0.0, 4, 10), "linf_clip must be > 0"),
    (lambda: BoundedMean(RECTIFIED.mechanism, 0.5, 0, 10), "coordinates must be >= 1"),
    (lambda: BoundedMean(RECTIFIED.mechanism, 0.5, 4, -1), "denominator must be > 0"),
    (lambda: BoundedMean(TruncatedGaussian(1.0, -1, 1, 3), 0.5, 4, 10), "coordinates must be the mechanism's 3, got 4"),
    (lambda: RECTIFIED.privatize(jnp.zeros((2, 3)), jax.random.key(0)), "records must be shaped"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
