"""`privatize` draws the stated noise, under jit and vmap, for any shape.

Threshold: with n draws the largest distance between the empirical and the true distribution function exceeds t with
probability at most 2 exp(-2 n t^2) (Massart 1990); t is set where that is 3e-11. For buckets, the chi-square statistic
is compared with its quantile at 3e-11. Keys are fixed, and there are fewer than thirty such comparisons, which together
fail by chance with probability below 1e-9.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dpkit.mechanisms import Mechanism, UnsupportedViewError
from examples import ROWS, by_name

FALSE_FAILURE = 1e-11
DRAWS = 60_000
RELEASING = [row for row in ROWS if row.release]
ONE_OF_EACH = list({type(row.mechanism): row for row in RELEASING}.values())
SILENT = [row for row in ROWS if type(row.mechanism).privatize is Mechanism.privatize]


def rejects(row, draws: np.ndarray) -> bool:
    """Whether the draws are not distributed as the row states."""
    law = row.release(row.mechanism)
    if isinstance(law, np.ndarray):
        return unlikely(np.bincount(draws, minlength=len(law)), law)
    if hasattr(law, "pmf"):
        # Values that are expected fewer than thirty times count as one.
        reach = int(10 * law.std()) + 10
        values = np.arange(-reach, reach + 1)
        common = values[law.pmf(values) * draws.size > 30]
        counts = np.array([np.count_nonzero(draws == value) for value in common])
        chances = law.pmf(common)
        return unlikely(np.append(counts, draws.size - counts.sum()), np.append(chances, 1 - chances.sum()))
    distance = stats.kstest(draws, law.cdf).statistic
    return bool(distance > math.sqrt(math.log(2 / FALSE_FAILURE) / (2 * draws.size)))


def unlikely(counts: np.ndarray, chances: np.ndarray) -> bool:
    expected = chances * counts.sum()
    return bool(np.sum((counts - expected) ** 2 / expected) > stats.chi2.isf(FALSE_FAILURE, len(counts) - 1))


def kind(row) -> str:
    law = row.release(row.mechanism)
    return "buckets" if isinstance(law, np.ndarray) else "integers" if hasattr(law, "pmf") else "reals"


def zeros(row, shape) -> jax.Array:
    return jnp.zeros(shape, jnp.float32 if kind(row) == "reals" else jnp.int32)


@pytest.mark.parametrize("row", **by_name(RELEASING))
def test_the_noise_released_is_the_noise_stated(row):
    draws = np.asarray(row.mechanism.privatize(zeros(row, (DRAWS,)), jax.random.key(1)))
    assert not rejects(row, draws)


@pytest.mark.parametrize("row", **by_name(RELEASING))
def test_a_scale_wrong_by_a_fifth_is_noticed(row):
    field = dataclasses.fields(row.mechanism)[0].name
    for factor in (0.8, 1.2):
        wrong = dataclasses.replace(row.mechanism, **{field: factor * getattr(row.mechanism, field)})
        assert rejects(row, np.asarray(wrong.privatize(zeros(row, (DRAWS,)), jax.random.key(2))))


@pytest.mark.parametrize("shape", [(), (2, 1, 5), (0,)])
@pytest.mark.parametrize("row", **by_name(ONE_OF_EACH))
def test_any_shape_and_jit_changes_nothing(row, shape):
    value, key = zeros(row, shape), jax.random.key(3)
    eager, compiled = row.mechanism.privatize(value, key), jax.jit(row.mechanism.privatize)(value, key)
    assert eager.shape == shape
    assert eager.dtype == value.dtype
    np.testing.assert_allclose(eager, compiled, rtol=1e-6)


@pytest.mark.parametrize("row", **by_name(ONE_OF_EACH))
def test_vmap_over_keys_draws_independently(row):
    keys = jax.random.split(jax.random.key(4), DRAWS // 10)
    draws = jax.vmap(row.mechanism.privatize, in_axes=(None, 0))(zeros(row, (10,)), keys)
    assert draws.shape == (DRAWS // 10, 10)
    assert not rejects(row, np.asarray(draws).ravel())
    one_by_one = [row.mechanism.privatize(zeros(row, (10,)), key) for key in keys[:3]]
    np.testing.assert_allclose(draws[:3], np.stack(one_by_one), rtol=1e-6)


@pytest.mark.parametrize("row", **by_name([row for row in RELEASING if kind(row) == "integers"]))
def test_integer_noise_is_added_to_integers_only(row):
    value, key = jnp.arange(6).reshape(2, 3), jax.random.key(5)
    noise = row.mechanism.privatize(jnp.zeros((2, 3), jnp.int32), key)
    np.testing.assert_array_equal(row.mechanism.privatize(value, key), value + noise)
    for release in (lambda v: row.mechanism.privatize(v, key), row.mechanism.release_exactly):
        with pytest.raises(ValueError, match="value must hold integers"):
            release(np.zeros(3, np.float32))


@pytest.mark.parametrize("row", **by_name([row for row in RELEASING if kind(row) == "integers"]))
def test_exact_releases_have_the_same_law(row):
    value = np.full((DRAWS // 10, 10), 7, np.int8)
    released = row.mechanism.release_exactly(value)
    assert released.shape == value.shape
    assert row.mechanism.floating_point_safe
    assert not rejects(row, released.ravel() - 7)


@pytest.mark.parametrize("row", **by_name([row for row in RELEASING if kind(row) == "reals" and row.adds_noise]))
def test_noise_is_added_to_the_value(row):
    value, key = jnp.arange(6.0).reshape(2, 3), jax.random.key(5)
    noise = row.mechanism.privatize(jnp.zeros((2, 3)), key)
    np.testing.assert_allclose(row.mechanism.privatize(value, key), value + noise, rtol=1e-6)
    assert len(np.unique(np.asarray(noise))) == 6


@pytest.mark.parametrize("row", **by_name([row for row in RELEASING if kind(row) == "buckets"]))
def test_every_bucket_is_randomized_the_same_way(row):
    buckets = row.mechanism.num_buckets
    for true in range(buckets):
        reports = row.mechanism.privatize(jnp.full((DRAWS // 10,), true), jax.random.key(6 + true))
        relative_bucket = (np.asarray(reports) - true) % buckets
        assert not rejects(row, relative_bucket)


@pytest.mark.parametrize("row", **by_name(SILENT))
def test_descriptions_release_nothing(row):
    with pytest.raises(UnsupportedViewError, match="release"):
        row.mechanism.privatize(jnp.zeros(3), jax.random.key(0))
