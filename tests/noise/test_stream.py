"""Streams: the noise that comes out, under every transformation of JAX, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit import noise
from noise.strategies import ITERATIONS, STRATEGIES, is_square

KEY = jax.random.key(11)
PARAMS = {"matrix": jnp.zeros((3, 4)), "pair": (jnp.zeros(()), None)}
BANDED = STRATEGIES["banded"]


def whole_run(stream: noise.Stream, params, n: int = ITERATIONS):
    """Noise of n steps with a leading axis, and the state after them."""

    def body(state, _):
        xi, state = stream.step(state)
        return state, xi

    state, rows = jax.jit(lambda state: jax.lax.scan(body, state, length=n))(stream.init(params))
    return rows, state


def assert_trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


def test_independent_noise_is_that_of_jax():
    stream = noise.stream(fz.Identity(), stddev=0.5, key=KEY)
    xi, _ = stream.step(stream.init((jnp.zeros(3), jnp.zeros(5))))
    key = jax.random.fold_in(jax.random.fold_in(KEY, 1), 0)
    np.testing.assert_array_equal(xi[1], 0.5 * jax.random.normal(key, (5,)))


@functools.cache
def draws(m: int) -> np.ndarray:
    return np.asarray(whole_run(noise.stream(fz.Identity(), stddev=0.5, key=KEY), jnp.zeros(m))[0], np.float64)


@pytest.mark.parametrize("name", STRATEGIES)
def test_law_of_the_noise(name):
    """C^-1 times the very draws; and an empirical covariance of stddev^2 C^-1 C^-T: a stddev 10 % off would be seen."""
    strategy, m, n, stddev = STRATEGIES[name], 20_000, ITERATIONS, 0.5
    stream = noise.stream(strategy, stddev=stddev, key=KEY, iterations=n)
    x = np.asarray(whole_run(stream, jnp.zeros(m))[0], np.float64)
    inverse = strategy.inverse_matrix(n)
    if is_square(strategy):
        np.testing.assert_allclose(x, inverse @ draws(m), rtol=0, atol=3e-5)
    factor = np.linalg.cholesky(stddev**2 * inverse @ inverse.T)
    y = np.linalg.solve(factor, x)
    products = y @ y.T / m
    limits = np.where(np.eye(n), 8 * np.sqrt(2 / m), 8 / np.sqrt(m))
    # By Chernoff's bound each of 231 entries is beyond its limit with probability <= 2 exp(-30): 26 strategies fail
    # with probability < 1.2e-9 all together, and < 5e-11 each.
    assert np.all(np.abs(products - np.eye(n)) < limits)
    assert not np.all(np.abs(1.1**2 * products - np.eye(n)) < limits)


@pytest.mark.parametrize("generator", ["threefry", "rbg", "chacha20"])
def test_blocks_draw_what_steps_draw(generator):
    key = jax.random.key(0, impl="rbg") if generator == "rbg" else KEY
    stream = noise.stream(fz.Identity(), stddev=1.0, key=key, generator=generator)
    single, after = whole_run(stream, PARAMS, 12)
    state, parts = stream.init(PARAMS), []
    for count in (5, 5, 2):
        rows, state = stream.block(state, count)
        parts.append(rows)
    assert_trees_equal(jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts), single)
    assert_trees_equal(state, after)


@pytest.mark.parametrize(
    ("name", "memory"),
    [(name, "store") for name in ("banded", "banded inverse", "blt", "scaled blt", "online trees of 6, completed")]
    + [(name, "regenerate") for name in ("banded inverse", "dense")],
)
def test_blocks_and_steps_mix(name, memory):
    strategy = STRATEGIES[name]
    stream = noise.stream(strategy, stddev=0.5, key=KEY, iterations=ITERATIONS, memory=memory)
    params = jnp.zeros(5)
    single, _ = whole_run(stream, params)
    state, parts = stream.init(params), []
    for count in (3, 8, 3, 7):
        rows, state = stream.block(state, count)
        parts.append(rows)
    np.testing.assert_allclose(np.concatenate(parts), single, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [4, 32])
@pytest.mark.parametrize("name", ["identity", "banded", "banded inverse", "blt", "online trees of 6, completed"])
def test_blocks_handed_out_row_by_row(name, size):
    rows = []
    for block_size in (1, size):
        stream = noise.stream(STRATEGIES[name], stddev=0.5, key=KEY, iterations=ITERATIONS, block_size=block_size)
        found, state = whole_run(stream, jnp.zeros(5))
        rows.append(found)
        assert int(state.step) == ITERATIONS
    np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["banded", "banded inverse", "blt", "online tree"])
def test_compiled_is_eager_and_traced_once(name):
    stream = noise.stream(STRATEGIES[name], stddev=0.5, key=KEY, iterations=ITERATIONS)
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return stream.step(state)

    eager, compiled = stream.init(PARAMS), stream.init(PARAMS)
    for _ in range(ITERATIONS):
        a, eager = stream.step(eager)
        b, compiled = step(compiled)
        assert_trees_equal(a, b)
    assert_trees_equal(eager, compiled)
    assert len(traces) == 1


def test_vectorised_over_keys():
    def run(key):
        return whole_run(noise.stream(BANDED, stddev=0.5, key=key), jnp.zeros(5), 6)[0]

    keys = jax.random.split(KEY, 2)
    for together, key in zip(jax.vmap(run)(keys), keys, strict=True):
        np.testing.assert_allclose(together, run(key), rtol=0, atol=1e-6)


@pytest.mark.parametrize("block_size", [1, 4])
def test_vectorised_over_states(block_size):
    streams = [noise.stream(BANDED, stddev=0.5, key=key, block_size=block_size) for key in jax.random.split(KEY, 2)]
    states = [stream.init(PARAMS) for stream in streams]
    together = jax.tree.map(lambda *x: jnp.stack(x), *states)
    for _ in range(5):
        rows, together = jax.vmap(streams[0].step)(together)
        for i, stream in enumerate(streams):
            xi, states[i] = stream.step(states[i])
            for a, b in zip(jax.tree.leaves(rows), jax.tree.leaves(xi), strict=True):
                np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.usefixtures("x64")
def test_types(dtype):
    stream = noise.stream(BANDED, stddev=0.5, key=KEY, dtype=dtype)
    params = {"a": jnp.zeros(3, "bfloat16"), "b": jnp.zeros(3, "float32")}
    (xi, state), (rows, _) = stream.step(stream.init(params)), stream.block(stream.init(params), 3)
    assert {x.dtype for x in jax.tree.leaves((xi, rows, state.buffers))} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("block_size", [1, 4])
@pytest.mark.parametrize("name", ["banded", "online tree", "identity"])
def test_no_noise_past_the_end(name, block_size):
    n = ITERATIONS
    stream = noise.stream(STRATEGIES[name], stddev=0.5, key=KEY, iterations=n, block_size=block_size)
    rows, over = whole_run(stream, jnp.zeros(5), n + 3)
    assert np.all(np.isfinite(rows[:n]))
    assert np.all(np.isnan(rows[n:]))
    with pytest.raises(ValueError, match=f"iterations must be >= {n + 3}"):
        stream.check(over)
    _, state = whole_run(stream, jnp.zeros(5), n)
    stream.check(state)
    with pytest.raises(ValueError, match=f"iterations must be >= {n + 1} for this many steps, got {n}"):
        stream.step(state)


def test_no_block_past_the_end():
    stream = noise.stream(BANDED, stddev=0.5, key=KEY)
    with pytest.raises(ValueError, match="iterations must be >= 22"):
        jax.jit(lambda state: stream.block(state, 22)).lower(stream.init(PARAMS))
    _, state = stream.block(stream.init(PARAMS), 20)
    with pytest.raises(ValueError, match="iterations must be >= 22"):
        stream.block(state, 2)
    rows, _ = jax.jit(lambda state: stream.block(state, 2))(state)
    assert np.all(np.isnan(rows["matrix"]))


@pytest.mark.parametrize("memory", ["store", "regenerate"])
def test_what_is_kept(memory):
    stream = noise.stream(STRATEGIES["banded inverse"], stddev=0.5, key=KEY, memory=memory)
    state = stream.init(PARAMS)
    assert [x.shape for x in state.buffers] == ([(3, 3, 4), (3,)] if memory == "store" else [])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stddev": -1.0}, "stddev must be >= 0"),
        ({"stddev": float("nan")}, "stddev must be finite"),
        ({"memory": "disk"}, "memory must be"),
        ({"memory": "regenerate"}, "noise is made of past draws"),
        ({"block_size": 0}, "block_size must be >= 1"),
        ({"dtype": "int32"}, "dtype must be a floating-point type"),
        ({"dtype": "float64"}, "jax_enable_x64"),
        ({"iterations": 0}, "iterations must be >= 1"),
        ({"iterations": ITERATIONS + 1}, "n must be between 1 and the 21 iterations"),
        ({"generator": "dice"}, "generator must be one of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        noise.stream(BANDED, **{"stddev": 1.0, "key": KEY, **arguments})


def test_parameters_that_are_no_numbers():
    with pytest.raises(ValueError, match="floating point, got a leaf of int32"):
        noise.stream(BANDED, stddev=1.0, key=KEY).init({"steps": jnp.zeros((), jnp.int32)})


def test_blocks_of_blocks():
    stream = noise.stream(BANDED, stddev=1.0, key=KEY, block_size=4)
    with pytest.raises(ValueError, match="block_size=1"):
        stream.block(stream.init(PARAMS), 4)


def test_a_key_is_required():
    with pytest.raises(TypeError, match="key"):
        noise.stream(BANDED, stddev=1.0)  # pyright: ignore[reportCallIssue]


def test_another_threefry_is_refused():
    jax.config.update("jax_threefry_partitionable", False)
    try:
        with pytest.raises(ValueError, match="jax_threefry_partitionable"):
            noise.stream(BANDED, stddev=1.0, key=KEY)
    finally:
        jax.config.update("jax_threefry_partitionable", True)
