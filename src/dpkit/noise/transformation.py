"""Correlated noise as a transformation of gradients, for `optax.chain`."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from dpkit.factorization import Strategy
from dpkit.noise.randomness import Generator
from dpkit.noise.stream import Memory, NoiseState, PyTree, stream

if TYPE_CHECKING:
    import optax


def add_correlated_noise(
    strategy: Strategy,
    *,
    stddev: float,
    key: jax.Array,
    memory: Memory = "store",
    block_size: int = 1,
    dtype: Any = jnp.float32,
    generator: Generator = "threefry",
    iterations: int | None = None,
) -> "optax.GradientTransformation":
    """An optax transformation that adds step t's noise of `stream`, of the same arguments, to the updates of step t.

    The first of a chain: updates are sums (or, with a `stddev` divided likewise, means) of clipped gradients. Its state
    is a `NoiseState`. The sum is made in the wider of both types and returned in that of the updates.

    Raises:
        ValueError: as `stream`; by `update` once the run is over, where the state is not traced.

    >>> import jax, optax
    >>> from dpkit import factorization as fz
    >>> noise = add_correlated_noise(fz.BandedSquareRoot(num_bands=4), stddev=0.5, key=jax.random.key(0))
    >>> optimizer = optax.chain(noise, optax.sgd(0.1, momentum=0.9))
    >>> state = optimizer.init(jax.numpy.zeros(3))
    >>> updates, state = optimizer.update(jax.numpy.ones(3), state)
    """
    import optax

    noises = stream(
        strategy,
        stddev=stddev,
        key=key,
        memory=memory,
        block_size=block_size,
        dtype=dtype,
        generator=generator,
        iterations=iterations,
    )

    def update(updates: PyTree, state: NoiseState, params: PyTree = None) -> tuple[PyTree, NoiseState]:
        del params
        xi, state = noises.step(state)
        return jax.tree.map(_add, updates, xi), state

    return optax.GradientTransformation(noises.init, update)  # pyright: ignore[reportArgumentType]


def _add(update: jax.Array, noise: jax.Array) -> jax.Array:
    wide = jnp.promote_types(update.dtype, noise.dtype)
    return (update.astype(wide) + noise.astype(wide)).astype(update.dtype)
