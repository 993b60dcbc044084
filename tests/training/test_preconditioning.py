"""AdaDPS and DP^2 against plain loops in float64, and what they do to the sensitivity of a step: nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit import training

RANDOM = np.random.default_rng(5)
SHAPES = {"w": (3, 2), "b": (2,)}


def tree(scale=1.0):
    return {name: jnp.asarray(scale * RANDOM.standard_normal(shape), jnp.float32) for name, shape in SHAPES.items()}


def test_adadps_divides_by_the_root_mean_square_of_public_gradients():
    side = training.adadps(decay=0.8, epsilon_root=0.01)
    state, moment = side.init(tree()), {name: np.zeros(shape) for name, shape in SHAPES.items()}
    update = jax.jit(side.update)
    for _ in range(5):
        public, private = tree(), tree()
        same, state = update(public, state)
        transformed = side.pre_clipping_transform(state)(private)
        for name in SHAPES:
            moment[name] = 0.8 * moment[name] + 0.2 * np.asarray(public[name], np.float64) ** 2
            np.testing.assert_array_equal(same[name], public[name])
            np.testing.assert_allclose(transformed[name], private[name] / (np.sqrt(moment[name]) + 0.01), rtol=1e-5)


@pytest.mark.parametrize(("sgd_steps", "adaptive_steps"), [(1, 1), (2, 3), (3, 1)])
def test_delayed_preconditioner_against_the_published_loop(sgd_steps, adaptive_steps):
    delayed = training.delayed_preconditioner(
        sgd_steps=sgd_steps, adaptive_steps=adaptive_steps, decay=0.7, epsilon_root=0.05, adaptive_scale=2.0
    )
    state, update = delayed.init(tree()), jax.jit(delayed.update)
    total = moment = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for t in range(4 * (sgd_steps + adaptive_steps)):
        phase = t % (sgd_steps + adaptive_steps)
        if phase == 0:
            total = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        if phase == sgd_steps:
            moment = {name: 0.7 * moment[name] + 0.3 * (total[name] / sgd_steps) ** 2 for name in SHAPES}
        private, noised = tree(), tree()
        transformed = delayed.pre_clipping_transform(state)(private)
        for name in SHAPES:
            divisor = 1.0 if phase < sgd_steps else (np.sqrt(moment[name]) + 0.05) / 2.0
            np.testing.assert_allclose(transformed[name], private[name] / divisor, rtol=1e-5)
        same, state = update(noised, state, None)
        total = {name: total[name] + np.asarray(noised[name], np.float64) for name in SHAPES}
        for name in SHAPES:
            np.testing.assert_array_equal(same[name], noised[name])


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_sensitivity_of_a_step_is_the_clip_norm_whatever_the_preconditioner(adaptive):
    delayed = training.delayed_preconditioner(sgd_steps=1, adaptive_steps=1)
    state = delayed.init(tree())
    if adaptive:
        # Tiny noised gradients make a preconditioner that magnifies by 10^6.
        _, state = delayed.update(tree(1e-6), state)
    points = [tree(10.0**k) for k in range(-2, 4)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    gradient = training.clipped_grad(
        lambda p, x: sum(0.5 * jnp.sum((p[name] - x[name]) ** 2) for name in SHAPES),
        0.5,
        expected_batch_size=1,
        pre_clipping_transform=delayed.pre_clipping_transform(state),
    )
    whole = gradient(tree(0.0), batch)
    for i in range(6):
        without = gradient(tree(0.0), batch, mask=np.arange(6) != i)
        moved = np.sqrt(sum(np.sum((np.asarray(whole[n]) - np.asarray(without[n])) ** 2) for n in SHAPES))
        assert moved <= 0.5 * (1 + 1e-5)
        assert not adaptive or moved > 0.499


def test_delayed_preconditioner_makes_badly_scaled_coordinates_alike():
    # A quadratic with curvatures 1 and 1e-4: ten steps without noise, at the same learning rates.
    scales = jnp.array([1.0, 1e-4])
    delayed = training.delayed_preconditioner(sgd_steps=2, adaptive_steps=2, decay=0.0, epsilon_root=1e-9)

    def distance(preconditioned):
        params, state = jnp.array([1.0, 1.0]), delayed.init(jnp.zeros(2))
        for t in range(12):
            gradient = scales * params
            if preconditioned:
                gradient = delayed.pre_clipping_transform(state)(gradient)
            _, state = delayed.update(gradient, state)
            params = params - (0.1 if t % 4 < 2 else 0.2) * gradient
        return abs(float(params[1]))

    assert distance(True) < 0.5 < 0.99 < distance(False)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (training.adadps, {"decay": 1.0}, "decay"),
        (training.adadps, {"decay": -0.1}, "decay"),
        (training.adadps, {"epsilon_root": 0.0}, "epsilon_root"),
        (training.delayed_preconditioner, {"sgd_steps": 0, "adaptive_steps": 1}, "sgd_steps"),
        (training.delayed_preconditioner, {"sgd_steps": 1, "adaptive_steps": 0}, "adaptive_steps"),
        (training.delayed_preconditioner, {"sgd_steps": 1, "adaptive_steps": 1, "adaptive_scale": 0}, "adaptive_scale"),
    ],
)
def test_bad_arguments_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
