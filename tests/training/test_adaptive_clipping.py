"""The split of the noise in exact arithmetic; the clip norm against the published update and a known quantile."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit import noise, training
from dpkit.factorization import BandedSquareRoot, Identity, MinSep

KEY = jax.random.key(11)


def pair_in_noise_units(split: training.NoiseSplit) -> Fraction:
    """Square of the most that one unit moves (sum of gradients / clip, count), each in units of its noise."""
    return 1 / Fraction(split.gradient) ** 2 + Fraction(1, 4) / Fraction(split.indicator) ** 2


@given(st.floats(1e-3, 1e3), st.floats(0.500001, 1e6))
def test_both_releases_are_one_gaussian(noise_multiplier, ratio):
    split = training.split_noise(noise_multiplier, indicator_stddev=ratio * noise_multiplier)
    allowed = 1 / Fraction(noise_multiplier) ** 2
    assert pair_in_noise_units(split) <= allowed
    # Not wasteful either; close to 1/2 the rounding is magnified.
    assert float(1 - pair_in_noise_units(split) / allowed) < 1e-14 * max(1, 1 / (ratio - 0.5))


def test_the_covariance_of_what_is_drawn():
    # 200,000 joint draws at z = 2, in noise units: the shift (clip, 1/2) has Mahalanobis length 1/z.
    split = training.split_noise(2.0, indicator_stddev=1.25)
    count = 200_000
    draws = [
        np.asarray(stream.step(stream.init(jnp.zeros(count)))[0], np.float64)
        for stream in (
            noise.stream(Identity(), stddev=split.gradient, key=KEY),
            noise.stream(Identity(), stddev=split.indicator, key=jax.random.key(12)),
        )
    ]
    shift = np.array([1.0, 0.5])
    length = math.sqrt(shift @ np.linalg.inv(np.cov(draws)) @ shift)
    # The estimated length has relative standard error about 1/sqrt(2 count) = 0.0016; 6.5 of them fail with < 1e-10.
    assert abs(length * 2.0 - 1) < 0.0105
    # Without the split, the gradient's noise at z, the pair would be 28 % too long, and be seen.
    draws[0] *= 2.0 / split.gradient
    assert abs(math.sqrt(shift @ np.linalg.inv(np.cov(draws)) @ shift) * 2.0 - 1) > 0.2


@pytest.mark.parametrize("indicator_stddev", [0.5, 0.49999, 0.1, math.nextafter(0.5, 1)])
def test_too_little_noise_for_the_counts_is_refused(indicator_stddev):
    with pytest.raises(ValueError, match="indicator_stddev must be above"):
        training.split_noise(1.0, indicator_stddev=indicator_stddev)


@pytest.mark.parametrize(
    ("z", "sigma"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (float("inf"), 1.0), (1.0, float("nan"))]
)
def test_bad_noise_is_refused(z, sigma):
    with pytest.raises(ValueError, match=r"noise_multiplier|indicator_stddev"):
        training.split_noise(z, indicator_stddev=sigma)


def counts(stddev, strategy=None, key=KEY):
    return noise.stream(strategy or Identity(), stddev=stddev, key=key)


def test_the_published_update():
    norms = np.array([0.1, 0.5, 2.0, -1.0, np.inf, 0.9999, 1.0, 1.0001], np.float32)
    adaptive = training.AdaptiveClipping(
        counts(0.0), expected_batch_size=10, initial_l2_clip_norm=1.0, target_quantile=0.3, learning_rate=0.7
    )
    state = jax.jit(adaptive.update)(norms, adaptive.init())
    # Four of seven are at most 1, which makes 4/2 - 3/2 over 10, plus 1/2.
    np.testing.assert_allclose(state.l2_clip_norm, math.exp(-0.7 * (0.05 + 0.5 - 0.3)), rtol=1e-6)


def test_one_unit_moves_the_count_by_one_half():
    adaptive = training.AdaptiveClipping(
        counts(0.0), expected_batch_size=1, initial_l2_clip_norm=1.0, learning_rate=1.0, target_quantile=0.5
    )
    norms = np.array([0.3, 5.0, np.inf, 0.7], np.float32)

    def count(norms):
        return -math.log(adaptive.update(jnp.asarray(norms), adaptive.init()).l2_clip_norm)

    for i in range(4):
        without = norms.copy()
        without[i] = -1
        np.testing.assert_allclose(abs(count(norms) - count(without)), 0.5, rtol=1e-5)
        np.testing.assert_allclose(count(np.delete(norms, i)), count(without), atol=1e-6)


def test_the_noise_of_the_counts_is_the_streams():
    strategy, schema = BandedSquareRoot(num_bands=4), MinSep(iterations=12, min_sep=4)
    stddev = 3.0 * strategy.sensitivity(schema)
    stream = noise.stream(strategy, stddev=stddev, key=KEY, iterations=12)
    adaptive = training.AdaptiveClipping(stream, expected_batch_size=20, initial_l2_clip_norm=2.0, learning_rate=0.1)
    state, expected, alone = adaptive.init(), math.log(2.0), stream.init(jnp.zeros(()))
    for _ in range(12):
        state = adaptive.update(jnp.full(20, -1.0), state)
        xi, alone = stream.step(alone)
        expected -= 0.1 * float(xi) / 20
    np.testing.assert_allclose(math.log(state.l2_clip_norm), expected, rtol=1e-5)


def test_the_clip_norm_finds_the_quantile():
    norms = jnp.asarray(np.random.default_rng(0).lognormal(size=400), jnp.float32)
    split = training.split_noise(1.0, indicator_stddev=20.0)
    for quantile in (0.2, 0.8):
        adaptive = training.AdaptiveClipping(
            counts(split.indicator), expected_batch_size=400, initial_l2_clip_norm=30.0, target_quantile=quantile
        )

        def step(state, _, adaptive=adaptive):
            state = adaptive.update(norms, state)
            return state, state.l2_clip_norm

        _, clips = jax.lax.scan(step, adaptive.init(), length=400)
        # log(clip) is a stable recursion whose noise is 0.2 * 20 / 400 a step; averaged over 200 steps it is within
        # 0.02 of the quantile's but for a chance far below 1e-9. Between the quantiles lies 1.68.
        found = float(np.mean(np.log(clips[200:])))
        assert abs(found - math.log(np.quantile(norms, quantile))) < 0.1


@pytest.mark.parametrize(
    ("name", "value"),
    [("expected_batch_size", 0), ("initial_l2_clip_norm", -1.0), ("target_quantile", 1.1), ("learning_rate", 0.0)],
)
def test_bad_arguments_are_refused(name, value):
    arguments = {"expected_batch_size": 10, "initial_l2_clip_norm": 1.0, name: value}
    with pytest.raises(ValueError, match=name):
        training.AdaptiveClipping(counts(1.0), **arguments)
