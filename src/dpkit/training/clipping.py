"""Clipping to an L2 norm that holds in floating point too."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dpkit import validation

Tree = Any
_BLOCK = 64
_SMALLEST, _LARGEST = 1e-30, 1e30


def clip_pytree(gradient: Tree, l2_clip_norm: float | jax.Array) -> tuple[Tree, jax.Array]:
    """Scales a gradient down to a global L2 norm of at most `l2_clip_norm`; `jax.vmap` it for a batch of gradients.

    Args:
        gradient: any pytree of real floating arrays, taken together as one vector.
        l2_clip_norm: a positive number, or a scalar array where it changes from step to step.

    Returns:
        The clipped gradient, in float32 or wider, and its norm before: infinite if it is not finite; a norm below 1e-10
        may come out smaller where that is inside the bound anyway.

    Raises:
        ValueError: `l2_clip_norm` is a number but not between 1e-30 and 1e30, or a leaf is not real and floating.

    Guarantees: the norm of what is returned, computed in exact arithmetic, is at most `l2_clip_norm`, because the bound
    is lowered by all that rounding can amount to (1.3e-5 of it for 10^6 float32 parameters). A gradient whose squares
    overflow or vanish is rescaled first. One that is not finite (a NaN or an infinity in it, or a norm beyond 1e37 in
    float32), or that is more than 1e37 times `l2_clip_norm`, becomes zero; so does any under an `l2_clip_norm` array
    that is not between 1e-30 and 1e30.

    >>> clipped, norm = clip_pytree({"w": jnp.array([3.0, 4.0])}, l2_clip_norm=1.0)
    >>> clipped["w"].round(4).tolist(), float(norm)
    ([0.6, 0.8], 5.0)
    """
    l2_clip_norm = checked(l2_clip_norm)
    dtype = accumulator(gradient)
    gradient = jax.tree.map(lambda g: jnp.asarray(g, dtype), gradient)
    norms, factors = _factors(jax.tree.map(lambda g: g[None], gradient), l2_clip_norm)
    finite = jnp.isfinite(norms[0])
    return jax.tree.map(lambda g: jnp.where(finite, g * factors[0], 0), gradient), norms[0]


def accumulator(tree: Tree) -> Any:
    """float32, or float64 where a leaf is."""
    dtypes = [jnp.result_type(x) for x in jax.tree.leaves(tree)]
    if wrong := [str(dtype) for dtype in dtypes if not jnp.issubdtype(dtype, jnp.floating)]:
        raise ValueError(f"parameters and gradients must be real floating arrays, got {', '.join(wrong)}")
    return jnp.result_type(jnp.float32, *dtypes)


def checked(l2_clip_norm: float | jax.Array) -> float | jax.Array:
    if not isinstance(l2_clip_norm, int | float):
        return l2_clip_norm
    norm = validation.positive("l2_clip_norm", l2_clip_norm)
    if not _SMALLEST <= norm <= _LARGEST:
        raise ValueError(f"l2_clip_norm must be between {_SMALLEST} and {_LARGEST}, got {norm}; rescale the loss")
    return norm


def clipped_sum(gradients: Tree, present: jax.Array, l2_clip_norm: float | jax.Array) -> tuple[Tree, jax.Array]:
    """The sum of those of (batch, ...) gradients that are present, each clipped, and all norms."""
    norms, factors = _factors(gradients, l2_clip_norm)
    finite, factors = jnp.isfinite(norms), jnp.where(present, factors, 0)

    def total(gradients: Tree) -> Tree:
        # "highest": an accelerator's default precision would round the gradients.
        return jax.tree.map(lambda g: jnp.tensordot(factors, g, axes=1, precision="highest"), gradients)

    def total_of_finite(gradients: Tree) -> Tree:
        return total(jax.tree.map(lambda g: jnp.where(finite.reshape(-1, *[1] * (g.ndim - 1)), g, 0), gradients))

    return jax.lax.cond(jnp.all(finite), total, total_of_finite, gradients), norms


def _factors(gradients: Tree, l2_clip_norm: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """(batch,) norms, infinite where not finite, and what to multiply by; 0 where nothing may be contributed."""
    leaves = [g.reshape(g.shape[0], -1) for g in jax.tree.leaves(gradients)]
    dtype = leaves[0].dtype
    limit = jnp.asarray(l2_clip_norm, dtype)
    squares = _squares(leaves)
    # Squares below 2^-126 may have vanished, which matters for tiny norms only, and for them where the limit is tiny.
    exact = jnp.isfinite(squares) & ((squares >= 2.0**-70) | (limit >= 2.0**-34))
    norms = jax.lax.cond(
        jnp.all(exact),
        lambda _: jnp.sqrt(squares),
        lambda leaves: jnp.where(exact, jnp.sqrt(squares), _rescaled_norms(leaves)),
        leaves,
    )
    limited = limit * (1 - _rounding([x.shape[1] for x in leaves], dtype))
    factors = jnp.where(norms <= limited, 1, limited / norms)
    sound = (factors >= jnp.finfo(dtype).tiny) & (limit >= _SMALLEST) & (limit <= _LARGEST) & jnp.isfinite(norms)
    return norms, jnp.where(sound, factors, 0)


def _squares(leaves: Sequence[jax.Array]) -> jax.Array:
    """(batch,) squared norms of (batch, n) leaves taken together."""
    return sum((jax.vmap(_sum)(x * x) for x in leaves[1:]), jax.vmap(_sum)(leaves[0] * leaves[0]))


def _rescaled_norms(leaves: Sequence[jax.Array]) -> jax.Array:
    """(batch,) norms from entries over their largest, so that squares neither overflow nor vanish."""
    tiny = 4 * jnp.finfo(leaves[0].dtype).tiny
    largest = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(x), axis=1, initial=0) for x in leaves])
    divisor = jnp.clip(largest, tiny, 1 / tiny)
    norms = divisor * jnp.sqrt(_squares([x * (1 / divisor)[:, None] for x in leaves]))
    return jnp.where(largest <= 1 / tiny, jnp.maximum(norms, largest), jnp.inf)


def _sum(x: jax.Array) -> jax.Array:
    """The sum of (n,), of which no entry takes part in more than `_BLOCK` additions a level, in whatever order.

    Nobody promises the order of one reduction: entry after entry, 10^8 equal numbers in float32 add up to 10^7.2.
    """
    while x.size > _BLOCK:
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (_BLOCK,), (_BLOCK,), [(0, -x.size % _BLOCK)])
    return jnp.sum(x)


def _rounding(sizes: Sequence[int], dtype: Any) -> float:
    """At least twice what all roundings between a gradient and its clipped norm can amount to, relatively."""
    additions, size = len(sizes), max(sizes)
    while size > 1:
        additions, size = additions + min(_BLOCK, size), -(-size // _BLOCK)
    return (additions + 16) * float(jnp.finfo(dtype).eps) / 2
