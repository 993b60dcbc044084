"""Draws against `jax.random`, against the vectors of RFC 8439, and against one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit import noise
from dpkit.noise import chacha, randomness

GENERATORS = ("threefry", "rbg", "chacha20")


def draw(words, generator, leaf, step, shape, dtype="float32"):
    like = jax.ShapeDtypeStruct(shape, dtype)
    return randomness.normal(words, generator, leaf, jnp.int32(step), like, jnp.dtype(dtype))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4, 5), (0, 2)])
def test_threefry_draws_are_those_of_jax(shape, dtype):
    key = jax.random.key(5)
    expected = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 3), 9), shape, dtype)
    found = draw(jax.random.key_data(key), "threefry", 3, 9, shape, dtype)
    np.testing.assert_array_equal(found, expected, strict=True)


def test_rbg_draws_are_those_of_jax():
    key = jax.random.key(5, impl="rbg")
    expected = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 3), 9), (4, 5))
    np.testing.assert_array_equal(draw(randomness.key_words(key, "rbg"), "rbg", 3, 9, (4, 5)), expected)


def test_chacha_block_of_the_rfc():
    # RFC 8439, 2.3.2.
    key = jnp.asarray(np.frombuffer(bytes(range(32)), np.uint32))
    nonce = jnp.asarray(np.frombuffer(bytes.fromhex("000000090000004a00000000"), np.uint32))
    expected = """e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3
                  466482d2 09aa9f07 05d7c214 a2028bd9 d19c12b5 b94e16de e883d0cb 4e3c50a2"""
    found = chacha.block(key, jnp.asarray([1], jnp.uint32), nonce)
    assert [f"{word:08x}" for word in np.asarray(found)[:, 0]] == expected.split()


def test_chacha_key_stream_of_the_rfc():
    # RFC 8439, A.1, test vectors 1 and 2: key and nonce of zeros, blocks 0 and 1.
    found = chacha.block(jnp.zeros(8, jnp.uint32), jnp.arange(2, dtype=jnp.uint32), jnp.zeros(3, jnp.uint32))
    blocks = [np.asarray(found)[:, i].astype("<u4").tobytes().hex() for i in range(2)]
    assert blocks[0].startswith("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")
    assert blocks[1].startswith("9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed")


@pytest.mark.parametrize("count", [0, 1, 16, 100, 2 * 16 * chacha.TILE + 5])
def test_chacha_words_are_those_of_consecutive_blocks(count):
    key, nonce = jnp.arange(8, dtype=jnp.uint32), jnp.arange(3, dtype=jnp.uint32)
    found = np.asarray(chacha.words(key, nonce, count))
    tile = max(1, min(chacha.TILE, -(-count // 16)))
    tiles = -(-count // (16 * tile))
    every = np.asarray(chacha.block(key, jnp.arange(tiles * tile, dtype=jnp.uint32), nonce))
    every = every.reshape(16, tiles, tile).swapaxes(0, 1).reshape(-1)
    assert found.shape == (count,)
    np.testing.assert_array_equal(found, every[:count])


@pytest.mark.parametrize("generator", GENERATORS)
def test_draws_are_independent(generator):
    """Over 5 steps and 3 leaves of one shape: normal, uncorrelated, and without a common stretch."""
    m = 20_000
    words = randomness.key_words(jax.random.key(1, impl="rbg" if generator == "rbg" else None), generator)
    take = jax.jit(lambda t: jnp.stack([draw(words, generator, leaf, t, (m,)) for leaf in range(3)]))
    z = np.concatenate([np.asarray(take(t)) for t in range(5)]).astype(np.float64)
    products = z @ z.T / m
    # By Chernoff's bound each off-diagonal mean is beyond 8 / sqrt(m), and each mean of squares 8 sqrt(2 / m) from 1,
    # with probability <= 2 exp(-30): 120 of both fail with probability < 3e-11.
    assert np.max(np.abs(products - np.diag(np.diag(products)))) < 8 / np.sqrt(m)
    assert np.max(np.abs(np.diag(products) - 1)) < 8 * np.sqrt(2 / m)
    # Three consecutive draws have at least 60 bits; 45,000 stretches of the same law have one in common with
    # probability below 1e9 / 2^60 < 1e-9.
    windows = np.lib.stride_tricks.sliding_window_view(z[:, :3000], 3, axis=1).reshape(-1, 3)
    assert len(np.unique(windows, axis=0)) == len(windows)


@pytest.mark.parametrize("generator", GENERATORS)
def test_draws_are_normal(generator):
    m = 100_000
    words = randomness.key_words(jax.random.key(2, impl="rbg" if generator == "rbg" else None), generator)
    z = np.sort(np.asarray(draw(words, generator, 0, 0, (m,))).astype(np.float64))
    from scipy import special

    grid = np.arange(1, m + 1) / m
    distance = np.max(np.maximum(np.abs(special.ndtr(z) - grid), np.abs(special.ndtr(z) - grid + 1 / m)))
    # Dvoretzky-Kiefer-Wolfowitz: P[distance > 3.3 / sqrt(m)] <= 2 exp(-2 * 3.3^2) = 7e-10.
    assert distance < 3.3 / np.sqrt(m)
    scaled = np.max(np.abs(special.ndtr(1.05 * z) - grid))
    assert scaled > 3.3 / np.sqrt(m)


@pytest.mark.parametrize("generator", GENERATORS)
def test_streams_are_told_apart_by_their_keys(generator):
    first, second = (
        noise.stream(
            fz.Identity(),
            stddev=1.0,
            key=jax.random.key(seed, impl="rbg" if generator == "rbg" else None),
            generator=generator,
        )
        for seed in (0, 1)
    )
    like = jnp.zeros(1000)
    a, b = (np.asarray(stream.step(stream.init(like))[0], np.float64) for stream in (first, second))
    # 8 standard deviations of a mean of products: below 2 exp(-28) < 2e-12 by Chernoff's bound.
    assert abs(a @ b) / 1000 < 8 / np.sqrt(1000)


@pytest.mark.parametrize("generator", ["threefry", "chacha20"])
def test_typed_and_raw_keys_are_the_same(generator):
    key = jax.random.key(7)
    words = [
        randomness.key_words(k, generator)
        for k in (key, jax.random.key_data(key), np.asarray(jax.random.key_data(key)))
    ]
    np.testing.assert_array_equal(words[0], words[1])
    np.testing.assert_array_equal(words[0], words[2])


def test_a_secret_key_is_new_every_time():
    assert not np.array_equal(noise.secret_key(), noise.secret_key())


@pytest.mark.parametrize(
    ("key", "generator", "message"),
    [
        (0, "threefry", "key must be one key"),
        (jnp.zeros(2), "threefry", "key must be one key"),
        (jax.random.split(jax.random.key(0), 3), "threefry", "key must be one key"),
        (jax.random.key(0, impl="rbg"), "threefry", "key must have 2 words"),
        (jnp.zeros(9, jnp.uint32), "chacha20", "key must have 8 words"),
        (jax.random.key(0), "mersenne", "generator must be one of"),
    ],
)
def test_keys_that_do_not_fit(key, generator, message):
    with pytest.raises(ValueError, match=message):
        randomness.key_words(key, generator)
