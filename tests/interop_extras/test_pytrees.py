"""Flax and Equinox models are pytrees, and pytrees are all that noise and clipping ask for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from dpkit import factorization as fz
from dpkit import noise, training

CLIP, BATCH = 0.5, 6
NOISE = {"strategy": fz.BandedSquareRoot(num_bands=3), "stddev": 0.3, "key": jax.random.key(3), "iterations": 4}
STREAM = noise.stream(**NOISE)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(linen.tanh(linen.Dense(4)(x)))[..., 0]


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)
        self.calls = nnx.BatchStat(jnp.int32(0))  # No parameter: not to be noised.

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))[..., 0]


class Equinox(eqx.Module):
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear
    name: str = eqx.field(static=True)

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.hidden, self.out = eqx.nn.Linear(3, 4, key=first), eqx.nn.Linear(4, 1, key=second)
        self.name = "regression"

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))[0]


def linen_model():
    model = Linen()
    return model.init(jax.random.key(0), jnp.zeros(3)), model.apply


def nnx_model():
    graph, params, rest = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param, ...)
    return params, lambda params, x: nnx.merge(graph, params, rest)(x)


def equinox_model():
    params, static = eqx.partition(Equinox(jax.random.key(0)), eqx.is_inexact_array)
    return params, lambda params, x: eqx.combine(params, static)(x)


MODELS = {"linen": linen_model, "nnx": nnx_model, "equinox": equinox_model}


@pytest.fixture(params=MODELS)
def model(request):
    """(parameters, prediction from parameters and one input)"""
    return MODELS[request.param]()


def loss_of(predict):
    def loss(params, example):
        x, y = example
        return (predict(params, x) - y) ** 2

    return loss


def examples():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32), jnp.asarray(5 * rng.normal(size=BATCH), jnp.float32)


def test_noise_has_the_structure_of_the_parameters_and_is_that_of_their_leaves(model):
    params, _ = model
    state = STREAM.init(params)
    leaves = jax.tree.leaves(params)
    assert sorted(leaf.shape for leaf in leaves) in ([(1,), (1, 4), (4,), (4, 3)], [(1,), (3, 4), (4,), (4, 1)])
    plain = STREAM.init(leaves)
    for _ in range(4):
        xi, state = STREAM.step(state)
        expected, plain = STREAM.step(plain)
        assert jax.tree.structure(xi) == jax.tree.structure(params)
        for found, wanted in zip(jax.tree.leaves(xi), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_clipped_gradients_are_those_of_examples_one_by_one(model):
    params, predict = model
    loss, batch = loss_of(predict), examples()
    clipped = training.clipped_grad(loss, l2_clip_norm=CLIP, expected_batch_size=BATCH)
    found = jax.jit(clipped)(params, batch)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    total, norms = None, []
    for i in range(BATCH):
        leaves = jax.tree.leaves(jax.grad(loss)(params, jax.tree.map(lambda x, i=i: x[i], batch)))
        norms.append(float(np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in leaves))))
        part = [np.asarray(leaf, np.float64) * min(1.0, CLIP / norms[-1]) / BATCH for leaf in leaves]
        total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
    assert max(norms) > CLIP
    for leaf, wanted in zip(jax.tree.leaves(found), total, strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-7)


def test_private_training_moves_the_model_by_clipped_gradients_and_noise(model):
    params, predict = model
    clipped = jax.jit(training.clipped_grad(loss_of(predict), l2_clip_norm=CLIP, expected_batch_size=BATCH))
    optimizer = optax.chain(noise.add_correlated_noise(**NOISE), optax.sgd(0.1))
    state, noises = optimizer.init(params), STREAM.init(params)
    for _ in range(4):
        gradient = clipped(params, examples())
        updates, state = optimizer.update(gradient, state, params)
        xi, noises = STREAM.step(noises)
        expected = jax.tree.map(lambda p, g, x: p - 0.1 * (g + x), params, gradient, xi)
        params = optax.apply_updates(params, updates)
        for found, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert np.isfinite(predict(params, jnp.ones(3)))


def test_what_is_no_parameter_must_be_left_out():
    _, everything = nnx.split(Nnx(nnx.Rngs(0)))
    with pytest.raises(ValueError, match="got a leaf of int32; leave it out"):
        STREAM.init(everything)
