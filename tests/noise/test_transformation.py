"""The optax transformation inside a training loop, and what a saved and resumed run looks like."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpkit import noise
from noise.strategies import ITERATIONS, STRATEGIES

KEY = jax.random.key(4)
PARAMS = {"weights": jnp.ones((3, 2)), "bias": jnp.zeros(2)}


def optimizer(name: str, **arguments) -> optax.GradientTransformation:
    added = noise.add_correlated_noise(STRATEGIES[name], stddev=0.1, key=KEY, iterations=ITERATIONS, **arguments)
    return optax.chain(added, optax.sgd(0.1, momentum=0.9))


def trained(transformation, params, state, steps: int):
    def body(carry, _):
        params, state = carry
        gradients = jax.grad(lambda p: jnp.sum(p["weights"] ** 2) + jnp.sum(jnp.cos(p["bias"])))(params)
        updates, state = transformation.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda carry: jax.lax.scan(body, carry, length=steps)[0])((params, state))


@pytest.mark.parametrize("block_size", [1, 4])
@pytest.mark.parametrize("name", ["identity", "banded", "blt", "online tree", "dense"])
def test_noise_is_added_to_the_updates(name, block_size):
    arguments = {"stddev": 0.1, "key": KEY, "iterations": ITERATIONS, "block_size": block_size}
    stream = noise.stream(STRATEGIES[name], **arguments)
    added = noise.add_correlated_noise(STRATEGIES[name], **arguments)
    state, expected = added.init(PARAMS), stream.init(PARAMS)
    updates = jax.tree.map(lambda x: x + 2, PARAMS)
    for _ in range(5):
        noisy, state = jax.jit(added.update)(updates, state)
        xi, expected = stream.step(expected)
        for a, b, c in zip(*map(jax.tree.leaves, (noisy, updates, xi)), strict=True):
            np.testing.assert_allclose(a, b + c, rtol=0, atol=1e-6)


def test_updates_keep_their_type():
    added = noise.add_correlated_noise(STRATEGIES["blt"], stddev=0.1, key=KEY)
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(3, jnp.float16)}
    updates, _ = added.update(params, added.init(params))
    assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, params)


def test_leaves_that_are_left_out():
    params = {"weights": jnp.ones(3), "count": jnp.zeros((), jnp.int32)}
    added = noise.add_correlated_noise(STRATEGIES["blt"], stddev=0.1, key=KEY)
    masked = optax.masked(added, {"weights": True, "count": False})
    updates, _ = masked.update(params, masked.init(params))
    assert updates["count"] == 0
    assert np.all(updates["weights"] != 1)


def test_the_end_of_the_run():
    transformation = optimizer("banded")
    _, state = trained(transformation, PARAMS, transformation.init(PARAMS), ITERATIONS)
    with pytest.raises(ValueError, match="iterations must be >= 22"):
        transformation.update(PARAMS, state, PARAMS)
    params, _ = trained(transformation, PARAMS, transformation.init(PARAMS), ITERATIONS + 1)
    assert all(np.all(np.isnan(x)) for x in jax.tree.leaves(params))


def save_numpy(path: pathlib.Path, tree):
    np.savez(path / "run.npz", *jax.tree.leaves(tree))


def load_numpy(path: pathlib.Path, like):
    leaves, tree = jax.tree.flatten(like)
    with np.load(path / "run.npz") as arrays:
        # The view, because NumPy forgets what bfloat16 was.
        pairs = zip(arrays.files, leaves, strict=True)
        return jax.tree.unflatten(tree, [jnp.asarray(arrays[name].view(leaf.dtype)) for name, leaf in pairs])


def save_orbax(path: pathlib.Path, tree):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "run", tree)


def load_orbax(path: pathlib.Path, like):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    with checkpoint.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path / "run", like)


@pytest.mark.parametrize(("save", "load"), [(save_numpy, load_numpy), (save_orbax, load_orbax)], ids=["numpy", "orbax"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("identity", {}),
        ("banded", {}),
        ("banded", {"block_size": 4}),
        ("blt", {"dtype": jnp.bfloat16}),
        ("banded inverse", {"memory": "regenerate"}),
        ("online trees of 6, completed", {"generator": "chacha20"}),
    ],
)
def test_a_resumed_run_is_the_same(name, arguments, save, load, tmp_path):
    """Killed after a step inside a block, and resumed."""
    transformation = optimizer(name, **arguments)
    whole, _ = trained(transformation, PARAMS, transformation.init(PARAMS), ITERATIONS)
    save(tmp_path, trained(transformation, PARAMS, transformation.init(PARAMS), 6))
    del transformation
    resumed = optimizer(name, **arguments)
    params, state = load(tmp_path, (PARAMS, resumed.init(PARAMS)))
    assert int(state[0].step) == 6
    again, _ = trained(resumed, params, state, ITERATIONS - 6)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_the_state_holds_the_key():
    transformation = noise.add_correlated_noise(STRATEGIES["banded"], stddev=0.1, key=KEY)
    state = transformation.init(PARAMS)
    np.testing.assert_array_equal(state.key, jax.random.key_data(KEY))
    other = dataclasses.replace(state, key=state.key + 1)
    first, second = (transformation.update(PARAMS, s)[0] for s in (state, other))
    assert not np.any(first["weights"] == second["weights"])
