"""Standard normal draws that are a function of the key, the leaf, the step and the position alone."""

import math
import secrets
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dpkit.noise import chacha, placement, threefry

Generator = Literal["threefry", "rbg", "chacha20"]
_WORDS = {"threefry": 2, "rbg": 4, "chacha20": 8}


def secret_key() -> jax.Array:
    """256 bits from the operating system, for `generator="chacha20"`. Whoever learns them can take the noise away.

    >>> secret_key().shape
    (8,)
    """
    return jnp.asarray(np.frombuffer(secrets.token_bytes(32), dtype=np.uint32))


def key_words(key: jax.Array, generator: Generator) -> jax.Array:
    """The key in as many 32-bit words as the generator takes, from a typed key or raw uint32.

    ChaCha20 takes keys of up to 8 words, shorter ones filled up with zeros: they are as hard to guess as before.

    Raises:
        ValueError: there is no such generator; `key` is not one key, or not of the generator's length.
    """
    if generator not in get_args(Generator):
        raise ValueError(f"generator must be one of {get_args(Generator)}, got {generator!r}")
    if jnp.issubdtype(getattr(key, "dtype", np.dtype(object)), jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    if getattr(key, "dtype", None) != jnp.uint32 or jnp.ndim(key) != 1:
        raise ValueError(f"key must be one key, got {key!r}; make it with jax.random.key, or with noise.secret_key")
    words, given = _WORDS[generator], len(key)
    if generator == "rbg" and given == 2:
        return jnp.tile(jnp.asarray(key), 2)  # As jax.random does with a seed.
    if given > words or (given < words and generator != "chacha20"):
        raise ValueError(f'key must have {words} words for generator="{generator}", got {given}')
    return jnp.pad(jnp.asarray(key), (0, words - given))


def normal(
    words: jax.Array,
    generator: Generator,
    leaf: int,
    step: jax.Array,
    like: jax.ShapeDtypeStruct,
    dtype: jnp.dtype,
) -> jax.Array:
    """z of this leaf and step, of the shape and sharding of `like`: independent N(0, 1) in `dtype`, float32 or float64.

    Threefry and rbg draws are `jax.random.normal(fold_in(fold_in(key, leaf), step))`; ChaCha20's nonce is (leaf, step).
    """
    width = jnp.finfo(dtype).bits
    if generator == "chacha20":
        z = _to_normal(_chacha_bits(words, leaf, step, like, width))
    else:
        key = jax.random.wrap_key_data(words, impl="rbg" if generator == "rbg" else "threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, leaf), step)
        if generator == "threefry" and threefry.fits(like.shape):
            z = _to_normal(threefry.bits(jax.random.key_data(key), like.shape, width))
        else:
            z = jax.random.normal(key, like.shape, dtype)
    return placement.constrained(z, like.sharding)


def _chacha_bits(words: jax.Array, leaf: int, step: jax.Array, like: jax.ShapeDtypeStruct, width: int) -> jax.Array:
    size = math.prod(like.shape)
    nonce = jnp.stack([jnp.uint32(leaf), step.astype(jnp.uint32), jnp.uint32(0)])
    bits = chacha.words(words, nonce, size * (width // 32))
    # Every device makes the whole leaf's words and keeps its own: the counters of blocks do not follow the shards.
    bits = placement.constrained(bits, placement.everywhere((like,)))
    if width == 64:
        bits = (bits[:size].astype(jnp.uint64) << jnp.uint64(32)) | bits[size:].astype(jnp.uint64)
    return bits.reshape(like.shape)


def _to_normal(bits: jax.Array) -> jax.Array:
    """The inverse normal distribution function at a uniform number: what `jax.random.normal` makes of the same bits."""
    dtype = np.dtype(f"float{bits.dtype.itemsize * 8}").type
    info = np.finfo(dtype)
    one = dtype(1).view(bits.dtype)
    unit = lax.bitcast_convert_type((bits >> bits.dtype.type(info.bits - info.nmant)) | one, dtype) - dtype(1)
    low = np.nextafter(dtype(-1), dtype(0))
    return dtype(np.sqrt(2)) * lax.erf_inv(jnp.maximum(low, unit * (1 - low) + low))
