"""Clipped norms in exact arithmetic, against plain float64."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit import training
from dpkit.training import clipping


def exact_square(tree) -> Fraction:
    """The squared norm of stored numbers, without rounding."""
    return sum((Fraction(float(x)) ** 2 for leaf in jax.tree.leaves(tree) for x in np.ravel(leaf)), Fraction(0))


def bounded(clipped, l2_clip_norm: float) -> bool:
    return exact_square(clipped) <= Fraction(l2_clip_norm) ** 2


COMPILED = jax.jit(training.clip_pytree)
scales = st.floats(min_value=-30, max_value=30)


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 100, 300]),
    scales,
    scales,
    st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_no_clipped_norm_exceeds_the_bound(seed, size, scale, clip, dtype):
    random = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        values = jnp.asarray(random.standard_normal(size) * 10.0**scale * 10 ** random.uniform(-4, 4, size)).astype(
            dtype
        )
    clip = 10.0**clip
    clipped, norm = COMPILED({"a": values[: size // 2], "b": values[size // 2 :]}, clip)
    assert bounded(clipped, clip)
    if not np.isfinite(np.asarray(values, np.float64)).all():
        assert np.isinf(norm)
        assert exact_square(clipped) == 0
        return
    true = np.linalg.norm(np.asarray(values, np.float64))
    if 1e-10 < true < 1e37:
        np.testing.assert_allclose(norm, true, rtol=1e-5)
    if 1e-30 < true < 1e36 * clip:
        expected = np.asarray(values, np.float64) * min(1, clip / true)
        np.testing.assert_allclose(
            np.concatenate([clipped["a"], clipped["b"]]), expected, rtol=3e-5, atol=1e-37 + 1e-5 * min(clip, true)
        )


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e18, 1e19, 1e20, 1e30, 1e37])
@pytest.mark.parametrize("clip", [1e-30, 1e-11, 1.0, 0.1, 1e30])
def test_scales_whose_squares_overflow_or_vanish(scale, clip):
    values = scale * np.array([3.0, -4.0, 0.0], np.float32) / 5
    clipped, norm = COMPILED(values, clip)
    if scale >= 1e-10 or clip <= 1e-11:
        np.testing.assert_allclose(norm, scale, rtol=1e-6)
    else:
        assert 0 <= norm <= 1e-10
    assert bounded(clipped, clip)
    if scale < 1e37 * clip:
        np.testing.assert_allclose(clipped, values / scale * min(scale, clip), rtol=1e-5)


def test_a_gradient_inside_the_bound_is_not_touched():
    values = np.random.default_rng(0).standard_normal((17, 5)).astype(np.float32)
    clipped, norm = training.clip_pytree(values, 2 * float(np.linalg.norm(values)))
    np.testing.assert_array_equal(clipped, values)
    np.testing.assert_allclose(norm, np.linalg.norm(values.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_gradient_that_is_not_finite_becomes_zero(bad):
    clipped, norm = training.clip_pytree([jnp.array([1.0, bad]), jnp.ones(())], 1.0)
    assert np.isinf(norm)
    assert exact_square(clipped) == 0


@pytest.mark.parametrize("clip", [np.nan, np.inf, 0.0, 1e-38, 3e38])
def test_a_clip_norm_array_out_of_range_lets_nothing_through(clip):
    clipped, _ = training.clip_pytree(jnp.array([1.0, 2.0]), jnp.float32(clip))
    assert exact_square(clipped) == 0


def test_long_sums_do_not_stagnate():
    # 2^24 + 1 is not a float32, so a sum of ones, one after the other, would stop there and clip to sqrt(2) too much.
    size = 2**25
    clipped, norm = jax.jit(lambda x: training.clip_pytree(x, 1.0))(jnp.ones(size))
    np.testing.assert_allclose(norm, np.sqrt(size), rtol=1e-6)
    assert size * Fraction(float(clipped[0])) ** 2 <= 1
    assert float(jnp.max(clipped)) == float(jnp.min(clipped))


def test_sums_are_taken_in_blocks_after_compilation():
    # Merged into one reduction, nobody would promise its order.
    text = jax.jit(clipping._sum).lower(jnp.ones(2**18)).compile().as_text()
    assert text.count(" reduce-window(") >= 2


def test_float64_keeps_its_precision():
    with jax.enable_x64(True):
        values = np.random.default_rng(1).standard_normal(1000)
        clipped, norm = training.clip_pytree({"w": jnp.asarray(values), "b": jnp.ones(1, jnp.float32)}, 0.5)
        true = np.sqrt(np.sum(values**2) + 1)
        assert clipped["w"].dtype == clipped["b"].dtype == np.float64
        np.testing.assert_allclose(norm, true, rtol=1e-14)
        np.testing.assert_allclose(clipped["w"], values * 0.5 / true, rtol=1e-13)
        assert bounded(clipped, 0.5)


def test_jit_and_vmap_agree_with_single_calls():
    values = np.random.default_rng(2).standard_normal((6, 40)).astype(np.float32) * 10.0 ** np.arange(-2, 4)[:, None]
    clipped, norms = jax.jit(jax.vmap(lambda g: training.clip_pytree(g, 1.0)))(values)
    for i in range(6):
        one, norm = training.clip_pytree(values[i], 1.0)
        np.testing.assert_allclose(clipped[i], one, rtol=1e-6)
        np.testing.assert_allclose(norms[i], norm, rtol=1e-6)
        assert bounded(clipped[i], 1.0)


@pytest.mark.parametrize("clip", [0, -1.0, float("nan"), float("inf"), 1e-31, 1e31])
def test_bad_clip_norms_are_refused(clip):
    with pytest.raises(ValueError, match="l2_clip_norm must be"):
        training.clip_pytree(jnp.ones(3), clip)


@pytest.mark.parametrize("leaf", [np.arange(3), np.ones(3, complex)])
def test_leaves_that_are_not_real_numbers_are_refused(leaf):
    with pytest.raises(ValueError, match="real floating"):
        training.clip_pytree([leaf], 1.0)
