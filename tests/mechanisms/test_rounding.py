"""Rounding: norms that hold with certainty, unbiased values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms.rounding import (
    clip_l2,
    conditional_round,
    round_down,
    rounded_l2_bound,
    squared_norm_above,
    stochastic_round,
)


def norm(vector) -> float:
    return math.sqrt(sum(int(x) ** 2 for x in np.asarray(vector).ravel()))


@pytest.mark.parametrize("value", [0.0, 0.25, -0.25, 2.5, -7.9, 1e6 + 0.25])
def test_stochastic_rounding_is_unbiased(value):
    draws = np.asarray(stochastic_round(jnp.full(100_000, value), jax.random.key(1)), dtype=np.int64)
    assert set(draws.tolist()) <= {math.floor(value), math.ceil(value)}
    # Hoeffding: the mean is off by more than this with probability 1e-11.
    assert abs(draws.mean() - value) <= math.sqrt(math.log(2e11) / 2e5)


def test_rounding_under_jit_and_any_shape():
    value, key = jnp.linspace(-2, 2, 12).reshape(3, 4), jax.random.key(2)
    np.testing.assert_array_equal(stochastic_round(value, key), jax.jit(stochastic_round)(value, key))
    assert stochastic_round(value, key).dtype == jnp.int32
    assert stochastic_round(1.5, key).shape == ()


@pytest.mark.parametrize("beta", [0.0, 0.99])
@pytest.mark.parametrize("dimension", [1, 7, 30_001])
@pytest.mark.parametrize("l2_norm", [0.3, 200.0])
def test_conditional_rounding_keeps_its_bound(beta, dimension, l2_norm):
    bound = rounded_l2_bound(l2_norm, dimension, beta)
    key, draw = jax.random.split(jax.random.key(dimension))
    worst = [
        jax.random.normal(draw, (dimension,)) * 1e3,
        jnp.full(dimension, l2_norm / math.sqrt(dimension)),
        jnp.zeros(dimension).at[0].set(-jnp.inf),
        jnp.full(dimension, jnp.nan),
    ]
    compiled = jax.jit(lambda value: conditional_round(value, key, l2_norm, beta))
    for value in worst:
        rounded = compiled(value)
        assert rounded.dtype == jnp.int32
        assert norm(rounded) <= bound


def test_bounds_of_rounding():
    # Any vector of norm 3 moves by less than 1 in each of 4 coordinates.
    assert rounded_l2_bound(3.0, 4) == 5.0
    assert rounded_l2_bound(3.0, 4, beta=1e-300) == 5.0
    square = 30.0**2 + 10_000 / 4 + math.sqrt(2 * math.log(1e3)) * (30 + 50)
    assert rounded_l2_bound(30.0, 10_000, beta=1e-3) == pytest.approx(math.sqrt(square), rel=1e-14)


def test_stochastic_rounding_meets_the_smaller_bound_as_often_as_stated():
    # At a norm whose fractional parts are all 1/2 rounding adds the most.
    dimension, beta = 400, 0.05
    value = jnp.full(dimension, 0.5)
    bound = rounded_l2_bound(10.0, dimension, beta)
    keys = jax.random.split(jax.random.key(3), 5000)
    norms = np.linalg.norm(np.asarray(jax.vmap(lambda key: stochastic_round(value, key))(keys)), axis=1)
    # Hoeffding at 1e-11.
    assert np.mean(norms > bound) <= beta + math.sqrt(math.log(1e11) / (2 * 5000))


def test_conditional_rounding_maps_over_a_batch():
    batch, keys = jnp.linspace(-3, 3, 40).reshape(8, 5), jax.random.split(jax.random.key(4), 8)
    rounding = jax.jit(lambda v, k: conditional_round(v, k, 2.0, 0.5))
    mapped = jax.vmap(rounding)(batch, keys)
    for value, key, row in zip(batch, keys, mapped, strict=True):
        np.testing.assert_array_equal(rounding(value, key), row)


@pytest.mark.parametrize("dimension", [1, 3, 1000, 65_537])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e25])
def test_clipping_holds_in_exact_arithmetic(dimension, scale):
    value = scale * jax.random.normal(jax.random.key(5), (dimension,))
    clipped = clip_l2(value, 0.7, 0.1)
    exact = np.asarray(clipped, np.float64)
    assert math.fsum(exact**2) <= 0.7**2
    assert np.abs(exact).max() <= 0.1
    if scale == 1e-20:
        np.testing.assert_array_equal(clipped, value)
    if scale == 1e25 and dimension > 50:
        assert math.fsum(exact**2) >= 0.7**2 * (1 - 1e-4)


def test_sums_of_squares_are_rounded_up():
    values = jax.random.normal(jax.random.key(6), (10_001,))
    truth = math.fsum(np.asarray(values, np.float64) ** 2)
    assert truth <= float(squared_norm_above(values)) <= truth * (1 + 1e-5)


@pytest.mark.parametrize("number", [0.1, 1.0, 1 / 3, 16_777_217.0])
def test_numbers_are_rounded_down(number):
    assert number * (1 - 1e-6) <= float(round_down(number, np.float32)) <= number
    assert round_down(number, np.float64) == number


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0.0, 1), "l2_norm"),
        ((math.nan, 1), "l2_norm"),
        ((1.0, 0), "dimension"),
        ((1.0, 1, 1.0), "beta"),
        ((1.0, 1, -0.1), "beta"),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=name):
        rounded_l2_bound(*arguments)
