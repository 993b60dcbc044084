"""The ChaCha20 block function of RFC 8439, vectorised: a stream of pseudorandom words at any position."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WORDS = 16
_CONSTANTS = np.frombuffer(b"expand 32-byte k", "<u4").astype(np.uint32)
# Blocks made together: their words stay in a core's cache through all the rounds.
TILE = 4096

Rows = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def block(key: jax.Array, counters: jax.Array, nonce: jax.Array) -> jax.Array:
    """The words (16, m) of the blocks with these counters (m,); key (8,) and nonce (3,) in 32-bit words."""
    m = len(counters)
    last = jnp.vstack([counters, jnp.broadcast_to(nonce[:, None], (3, m))])
    constants = jnp.asarray(_CONSTANTS)
    head = (jnp.broadcast_to(words[:, None], (4, m)) for words in (constants, key[:4], key[4:]))
    start = (*head, last)
    rows = lax.fori_loop(0, 10, lambda _, rows: _double_round(rows), start)
    return jnp.vstack([a + b for a, b in zip(rows, start, strict=True)])


def words(key: jax.Array, nonce: jax.Array, count: int) -> jax.Array:
    """(count,) words of the blocks from counter 0 on: the first words of `TILE` blocks, then their second words, ...

    Raises:
        ValueError: the counter has not enough bits for as many.
    """
    blocks = -(-count // WORDS)
    if blocks > 2**32:
        raise ValueError(f"params must have leaves of at most 2^36 words of randomness, got {count}; split the leaf")
    tile = max(1, min(TILE, blocks))

    def body(first: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return first + jnp.uint32(tile), block(key, first + lax.iota(jnp.uint32, tile), nonce)

    _, tiles = lax.scan(body, jnp.uint32(0), length=-(-blocks // tile))
    return tiles.reshape(-1)[:count]


def _double_round(rows: Rows) -> Rows:
    """A round on the columns of the 4 by 4 words, whose rows these are (4, m), and one on the diagonals."""
    a, b, c, d = _quarter_rounds(*rows)
    a, b, c, d = _quarter_rounds(a, jnp.roll(b, -1, 0), jnp.roll(c, -2, 0), jnp.roll(d, -3, 0))
    return a, jnp.roll(b, 1, 0), jnp.roll(c, 2, 0), jnp.roll(d, 3, 0)


def _quarter_rounds(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> Rows:
    a = a + b
    d = _rotated(d ^ a, 16)
    c = c + d
    b = _rotated(b ^ c, 12)
    a = a + b
    d = _rotated(d ^ a, 8)
    c = c + d
    b = _rotated(b ^ c, 7)
    return a, b, c, d


def _rotated(x: jax.Array, distance: int) -> jax.Array:
    return (x << jnp.uint32(distance)) | (x >> jnp.uint32(32 - distance))
