"""Streams: correlated noise for a pytree of parameters, one step or one block at a time."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax

from dpkit import validation
from dpkit.factorization import Strategy, forms
from dpkit.noise import placement, randomness
from dpkit.noise.filters import Draw, Filter, filter_of

Memory = Literal["store", "regenerate"]
PyTree = Any


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("step", "key", "buffers", "block"), meta_fields=("leaves", "tree")
)
@dataclasses.dataclass(frozen=True)
class NoiseState:
    """What a stream keeps between steps: a pytree of arrays, to be saved and restored as a whole. It holds the key.

    Attributes:
        step: int32, the next step.
        key: uint32 words, a secret.
        buffers: for each leaf of the parameters (copies, *shape); none if nothing is kept.
        block: for each leaf (block_size, *shape), the noise of the block that contains the last step; none for blocks
            of one step.
        leaves: shapes, and shardings where there are any, of the parameters' leaves.
        tree: structure of the parameters.
    """

    step: jax.Array
    key: jax.Array
    buffers: tuple[jax.Array, ...]
    block: tuple[jax.Array, ...]
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    tree: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Noise stddev C^{-1} z for one run; see `stream`, which makes it."""

    filter: Filter
    stddev: float
    key: jax.Array
    block_size: int
    generator: randomness.Generator

    def init(self, params: PyTree) -> NoiseState:
        """The state before step 0, for arrays of the shapes and shardings of `params` (any pytree).

        Raises:
            ValueError: a leaf is not of floating point, or sharded where the generator is not partitionable.
        """
        arrays, tree = jax.tree.flatten(params)
        leaves = tuple(map(placement.leaf, arrays))
        everywhere = placement.everywhere(leaves)
        if everywhere is not None and self.generator == "rbg":
            raise ValueError('generator="rbg" draws by device: use "threefry" or "chacha20" for sharded parameters')
        return NoiseState(
            step=placement.placed(jnp.int32(0), everywhere),
            key=placement.placed(self.key, everywhere),
            buffers=self._zeros(leaves, self.filter.copies),
            block=self._zeros(leaves, self.block_size if self.block_size > 1 else 0),
            leaves=leaves,
            tree=tree,
        )

    def step(self, state: NoiseState) -> tuple[PyTree, NoiseState]:
        """(the noise of step `state.step`, a pytree like the parameters; the next state).

        Raises:
            ValueError: the run is over. Where the step is traced, the noise is NaN instead: see `check`.
        """
        self._refuse(state.step, 1)
        return self._step(state)

    def block(self, state: NoiseState, count: int) -> tuple[PyTree, NoiseState]:
        """(the noise of the next `count` steps with a leading axis, the next state); the very draws of single steps.

        Raises:
            ValueError: the run is over before so many steps, or the stream makes blocks by itself (block_size > 1).
        """
        count = validation.count("count", count, minimum=1)
        if self.block_size > 1:
            raise ValueError(f"block needs a stream of block_size=1, got {self.block_size}, which makes its own blocks")
        self._refuse(state.step, count)
        return self._block(state, count)

    def check(self, state: NoiseState) -> None:
        """Raises ValueError if `state` has handed out more steps than the run has: the last noise of it was NaN."""
        self._refuse(state.step, 0)

    def _refuse(self, step: jax.Array, count: int) -> None:
        limit = self.filter.form.iterations
        if limit is None:
            return
        first = 0 if isinstance(step, core.Tracer) else int(np.max(step))
        if first + count > limit:
            raise ValueError(
                f"iterations must be >= {first + count} for this many steps, got {limit}; the privacy of the run was "
                "computed for that many: plan and optimise for the longer run"
            )

    @functools.partial(jax.jit, static_argnums=0)
    def _step(self, state: NoiseState) -> tuple[PyTree, NoiseState]:
        return self._placed(self._one if self.block_size == 1 else self._from_block, state, 0)

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def _block(self, state: NoiseState, count: int) -> tuple[PyTree, NoiseState]:
        def take(state: NoiseState) -> tuple[PyTree, NoiseState]:
            rows, buffers = self._rows(state, count, self._scale(state.step + count))
            return self._result(state, rows, buffers, count)

        return self._placed(take, state, 1)

    def _placed(
        self, take: Callable[[NoiseState], tuple[PyTree, NoiseState]], state: NoiseState, axes: int
    ) -> tuple[PyTree, NoiseState]:
        everywhere = placement.everywhere(state.leaves)
        kept = tuple(placement.behind(like, 1) or everywhere for like in state.leaves)
        rows = [placement.behind(like, axes) or everywhere for like in state.leaves]
        after = dataclasses.replace(
            state,
            step=everywhere,
            key=everywhere,
            buffers=kept if state.buffers else (),
            block=kept if state.block else (),
        )
        return placement.automatic(take, everywhere, (jax.tree.unflatten(state.tree, rows), after))(state)

    def _one(self, state: NoiseState) -> tuple[PyTree, NoiseState]:
        scale = self._scale(state.step + 1)
        pairs = [
            self.filter.step(self._kept(state, i), state.step, self._draw(state, i, scale))
            for i in range(len(state.leaves))
        ]
        return self._result(state, [x for x, _ in pairs], [kept for _, kept in pairs], 1)

    def _rows(self, state: NoiseState, count: int, scale: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        pairs = [
            self.filter.block(self._kept(state, i), state.step, count, self._draw(state, i, scale))
            for i in range(len(state.leaves))
        ]
        return [rows for rows, _ in pairs], [kept for _, kept in pairs]

    def _from_block(self, state: NoiseState) -> tuple[PyTree, NoiseState]:
        t, size = state.step, self.block_size

        def refill(_: jax.Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            filled = dataclasses.replace(state, buffers=carry[0])
            rows, buffers = self._rows(filled, size, jnp.asarray(self.stddev, self.filter.work))
            return tuple(buffers) if state.buffers else (), tuple(rows)

        # A loop of one step or none, because its carry is changed in place where a conditional would copy.
        buffers, block = lax.fori_loop(0, jnp.where(t % size == 0, 1, 0), refill, (state.buffers, state.block))
        over = jnp.where(self._over(t + 1), jnp.nan, 1.0).astype(self.filter.dtype)
        rows = [lax.dynamic_index_in_dim(rows, t % size, keepdims=False) * over for rows in block]
        return self._result(dataclasses.replace(state, block=block), rows, list(buffers), 1)

    def _result(
        self, state: NoiseState, rows: list[jax.Array], buffers: list[jax.Array], count: int
    ) -> tuple[PyTree, NoiseState]:
        kept = tuple(buffers) if state.buffers else ()
        noise = jax.tree.unflatten(state.tree, rows)
        return noise, dataclasses.replace(state, step=state.step + count, buffers=kept)

    def _over(self, end: jax.Array) -> jax.Array | bool:
        return False if self.filter.form.iterations is None else end > self.filter.form.iterations

    def _scale(self, end: jax.Array) -> jax.Array:
        """The standard deviation, or NaN where the steps before `end` are not all of the run's."""
        return jnp.where(self._over(end), jnp.nan, self.stddev).astype(self.filter.work)

    def _draw(self, state: NoiseState, i: int, scale: jax.Array) -> Draw:
        leaf, scales = state.leaves[i], self.filter.form.scales

        def draw(t: jax.Array) -> jax.Array:
            z = randomness.normal(state.key, self.generator, i, t, leaf, self.filter.work)
            if scales is None:
                return scale * z
            table = jnp.asarray(1 / scales, self.filter.work)
            return scale * table[jnp.minimum(t // self.filter.form.window, len(table) - 1)] * z

        return draw

    def _kept(self, state: NoiseState, i: int) -> jax.Array:
        return state.buffers[i] if state.buffers else jnp.zeros((0, *state.leaves[i].shape), self.filter.dtype)

    def _zeros(self, leaves: tuple[jax.ShapeDtypeStruct, ...], count: int) -> tuple[jax.Array, ...]:
        return tuple(placement.zeros(count, like, self.filter.dtype) for like in leaves) if count else ()


def stream(
    strategy: Strategy,
    *,
    stddev: float,
    key: jax.Array,
    memory: Memory = "store",
    block_size: int = 1,
    dtype: Any = jnp.float32,
    generator: randomness.Generator = "threefry",
    iterations: int | None = None,
) -> Stream:
    """Noise stddev C^{-1} z for a pytree of parameters, to be added to the sums of clipped gradients step by step.

    `state = stream.init(params)`, then `xi, state = stream.step(state)` or, sixteen steps at once,
    `xs, state = stream.block(state, 16)`: pure functions for `jit` (donate the state), `lax.scan` and `vmap`. A run is
    traced once. State and noise are sharded like the parameters, and a step communicates nothing.

    Args:
        strategy: C.
        stddev: of z, >= 0: noise_multiplier * l2_clip_norm * strategy.sensitivity(schema).
        key: one key of jax.random or its uint32 words; a secret, for as long as the guarantee is to hold.
        memory: "store" keeps what `strategy.form()` says; "regenerate" nothing: past z are drawn again, each of them at
            every step that needs it. For strategies whose C^{-1} is banded or dense.
        block_size: steps whose noise `step` makes at once, to hand it out one by one; `block_size` more copies.
        dtype: of what is kept and handed out; sums are kept in float32 at least. In bfloat16 what is kept is rounded
            to 8 bits, and the noise is only as close to C^{-1} z.
        generator: "threefry", the draws of `jax.random`; "rbg", XLA's own, for one device; "chacha20", cryptographic
            (see `secret_key`), of which each device makes the words of all.
        iterations: the steps of the run; None: as many as the strategy was made for, or no limit if it has none.

    Raises:
        ValueError: an argument is out of range or does not fit the others.

    Guarantees: z of a (step, leaf, position) is a function of the key and of these alone, so that noise depends neither
    on blocks, nor on the number of devices, nor on restarts from a saved state. Steps past `iterations` are refused;
    where the counter is traced, and so cannot be looked at, their noise is NaN, which ends the training, and `check`
    raises. (To raise from compiled code takes a call from the device to the host, which would have to go through one
    device of many and would keep the step from being exported or cached.) Floating point: normal draws in
    float32 take 2^23 values and reach 5.4 standard deviations, as those of `jax.random`; the theory is of real numbers.

    A step that is repeated must be the very same, gradient included: fresh noise for a repeated step breaks the
    guarantee, and so does the same noise with another gradient, whose difference is then public. Save the state
    with the parameters, all of its arrays (they hold the key), and go on from both.

    >>> import jax
    >>> from dpkit import factorization as fz
    >>> noises = stream(fz.BandedSquareRoot(num_bands=4), stddev=0.5, key=jax.random.key(0), iterations=100)
    >>> state = noises.init({"bias": jax.numpy.zeros(3)})
    >>> xi, state = noises.step(state)
    >>> xs, state = noises.block(state, 16)
    >>> xi["bias"].shape, xs["bias"].shape, int(state.step)
    ((3,), (16, 3), 17)
    """
    if memory not in get_args(Memory):
        raise ValueError(f'memory must be "store" or "regenerate", got {memory!r}')
    if iterations is not None:
        iterations = validation.count("iterations", iterations, minimum=1)
    form = strategy.form(iterations)
    if memory == "regenerate" and form.copies and not isinstance(form, forms.PastInputs):
        raise ValueError(
            f'memory="regenerate" is for strategies whose noise is made of past draws, got {strategy}; use "store"'
        )
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be a floating-point type, got {dtype}")
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError('dtype=float64 needs jax.config.update("jax_enable_x64", True) before any array is made')
    if generator == "threefry" and not jax.config.jax_threefry_partitionable:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError("jax_threefry_partitionable must be True: otherwise noise depends on how it is sharded")
    return Stream(
        filter=filter_of(form, memory, dtype),
        stddev=validation.non_negative("stddev", stddev),
        key=randomness.key_words(key, generator),
        block_size=validation.count("block_size", block_size, minimum=1),
        generator=generator,
    )
