"""The ChaCha20 block function of RFC 8439, vectorised: a stream of pseudorandom words at any position."""

import jax
import jax.numpy as jnp
from jax import lax

WORDS = 16
# "expand 32-byte k", as four little-endian words.
_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
# Blocks made together: their sixteen words stay in a core's cache through all the rounds.
_TILE = 8192


def block(key: jax.Array, counters: jax.Array, nonce: tuple[jax.Array, ...]) -> jax.Array:
    """The words (16, *shape) of the blocks with these counters; key (8,) and nonce (3 scalars) in 32-bit words."""
    head = [jnp.uint32(word) for word in _CONSTANTS] + list(key)
    start = [jnp.full(counters.shape, word) for word in head] + [counters]
    start += [jnp.full(counters.shape, jnp.asarray(word, jnp.uint32)) for word in nonce]
    rounds = lax.fori_loop(0, 10, lambda _, state: _double_round(state), start)
    return jnp.stack([a + b for a, b in zip(rounds, start, strict=True)])


def words(key: jax.Array, nonce: tuple[jax.Array, ...], count: int) -> jax.Array:
    """(count,) words, those of as many blocks as it takes from counter 0 on.

    Raises:
        ValueError: the counter has not enough bits for as many.
    """
    blocks = -(-count // WORDS)
    if blocks > 2**32:
        raise ValueError(f"params must have leaves of at most 2^36 words of randomness, got {count}; split the leaf")
    tile = min(_TILE, blocks)

    def body(first: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return first + jnp.uint32(tile), block(key, first + lax.iota(jnp.uint32, tile), nonce)

    _, tiles = lax.scan(body, jnp.uint32(0), length=-(-blocks // tile))
    return tiles.reshape(-1)[:count]


def _double_round(state: list[jax.Array]) -> list[jax.Array]:
    state = list(state)
    for a, b, c, d in _COLUMNS + _DIAGONALS:
        for left, right, other, distance in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[left] = state[left] + state[right]
            mixed = state[other] ^ state[left]
            state[other] = (mixed << jnp.uint32(distance)) | (mixed >> jnp.uint32(32 - distance))
    return state
