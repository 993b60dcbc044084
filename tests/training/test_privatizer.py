"""The noise that a plan adds is the noise that it accounts for."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from dpkit import factorization as fz
from dpkit import training
from factorization.oracle import scalar_sensitivity
from training.configs import changed

STEPS, MIN_SEP, SIZE = 8, 4, 20_000
KINDS = {
    "identity": {},
    "tree": {},
    "banded": {"strategy__num_bands": 3},
    "banded_toeplitz": {"strategy__num_bands": 3},
    "blt": {"strategy__num_buffers": 1},
    "square_root": {},
    "banded_square_root": {"strategy__num_bands": 3},
    "banded_inverse_square_root": {"strategy__num_bands": 3},
}


def plan(kind, **changes):
    return training.plan(
        training.TrainingConfig.parse(
            changed(
                **{
                    "training__epochs": None,
                    "training__iterations": STEPS,
                    "training__sampling": "min_sep",
                    "training__min_sep": MIN_SEP,
                    "mechanism__noise_multiplier": 1.5,
                    "mechanism__l2_clip_norm": 0.5,
                    "privacy__relation": "replace_special",
                    "strategy__kind": kind,
                    **KINDS.get(kind, {}),
                    **changes,
                }
            )
        )
    )


@functools.cache
def drawn(kind):
    """(STEPS, SIZE): what the transformation added to zeros."""
    transformation = plan(kind).privatizer(jax.random.key(20))
    zeros = jnp.zeros(SIZE)

    def step(state, _):
        noise, state = transformation.update(zeros, state)
        return state, noise

    _, noise = jax.lax.scan(step, transformation.init(zeros), length=STEPS)
    return np.asarray(noise, dtype=np.float64)


def covariance(kind):
    """Of the noise of all steps, from the definition: noise_multiplier, clip norm, brute-force sensitivity, dense C."""
    C = plan(kind).strategy.matrix(STEPS)
    sensitivity = scalar_sensitivity(C, fz.MinSep(STEPS, MIN_SEP))
    B = plan(kind).strategy.inverse_matrix(STEPS)
    return (1.5 * 0.5 * sensitivity) ** 2 * B @ B.T


def statistic(noise, covariance):
    """Chi-squared with STEPS * SIZE degrees of freedom, if the rows of `noise` have this covariance."""
    white = np.linalg.solve(np.linalg.cholesky(covariance), noise)
    return float(np.sum(white**2)), white


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_added_has_the_covariance_accounted_for(kind):
    square, white = statistic(drawn(kind), covariance(kind))
    # Two-sided at 1e-11, and 28 correlations of N(0, 1/SIZE) at 7.5 standard deviations (6e-14 each): with eight kinds
    # a false failure has probability below 1e-9.
    assert 0.5e-11 < stats.chi2(STEPS * SIZE).cdf(square) < 1 - 0.5e-11
    correlations = white @ white.T / SIZE
    assert np.max(np.abs(correlations - np.diag(np.diag(correlations)))) < 7.5 / math.sqrt(SIZE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_another_scale_would_be_noticed(kind, factor):
    square, _ = statistic(drawn(kind), factor**2 * covariance(kind))
    assert not 0.5e-11 < stats.chi2(STEPS * SIZE).cdf(square) < 1 - 0.5e-11


def test_without_a_strategy_it_is_dp_sgd():
    poisson = training.plan(training.TrainingConfig.parse(changed()))
    transformation = poisson.privatizer(jax.random.key(1))
    noise, _ = transformation.update(jnp.zeros(SIZE), transformation.init(jnp.zeros(SIZE)))
    # One-sample Kolmogorov-Smirnov; false failure with probability 1e-10.
    assert stats.kstest(np.asarray(noise, np.float64), stats.norm(scale=1.1).cdf).pvalue > 1e-10


def test_in_a_chain_and_for_means():
    run = plan("banded")
    sums = optax.chain(run.privatizer(jax.random.key(3)), optax.scale(0.25))
    means = run.privatizer(jax.random.key(3), expected_batch_size=4.0)
    total = {"w": jnp.arange(6.0).reshape(2, 3)}
    noisy, _ = sums.update(total, sums.init(total))
    mean = jax.tree.map(lambda x: x / 4, total)
    expected, _ = means.update(mean, means.init(mean))
    np.testing.assert_allclose(noisy["w"], expected["w"], rtol=1e-5)


def test_no_step_after_the_last():
    transformation = plan("blt").privatizer(jax.random.key(0))
    state = transformation.init(jnp.zeros(3))
    for _ in range(STEPS):
        _, state = transformation.update(jnp.zeros(3), state)
    with pytest.raises(ValueError, match="iterations"):
        transformation.update(jnp.zeros(3), state)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mechanism__l2_clip_norm": None}, "l2_clip_norm: missing, and the noise is proportional to it"),
        ({"mechanism__kind": "laplace", "strategy__kind": None}, "no stream of such noise"),
    ],
)
def test_what_has_no_noise_is_refused(changes, words):
    with pytest.raises(training.ConfigError, match=words):
        plan("identity", **changes).privatizer(jax.random.key(0))
    with pytest.raises(ValueError, match="expected_batch_size must be > 0"):
        plan("identity").privatizer(jax.random.key(0), expected_batch_size=0.0)
