"""Sums of per-example or per-user clipped gradients."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from dpkit import validation
from dpkit.training.clipping import Tree, accumulator, checked, clipped_sum

Unit = Literal["example", "user"]


class PerExample(NamedTuple):
    """What came of each example, before clipping: private data that no guarantee covers.

    Attributes:
        losses: (batch,) in the order of the batch; meaningless where the mask is False.
        norms: (batch,) L2 norm of each unit's gradient as it was clipped; infinite where it was not finite, -1 where
            there is no unit. For examples in the order of the batch, for users from the largest to the smallest.
        aux: what the loss returned besides, stacked along a leading axis; None without `has_aux`.
    """

    losses: jax.Array
    norms: jax.Array
    aux: Tree


def clipped_grad(
    loss_fn: Callable[..., Any],
    l2_clip_norm: float | jax.Array,
    *,
    expected_batch_size: float,
    batch_argnums: int | Sequence[int] = 1,
    unit: Unit = "example",
    microbatch_size: int | None = None,
    pre_clipping_transform: Callable[[Tree], Tree] | None = None,
    has_aux: bool = False,
    return_per_example: bool = False,
) -> Callable[..., Any]:
    """Like `jax.grad` for the loss of one example, but the sum of clipped gradients over an expected batch size.

    Args:
        loss_fn: `loss_fn(params, example, ...)`, a scalar; the gradient is with respect to the first argument. It sees
            one example, without a batch axis. An example may hold its own random key.
        l2_clip_norm: the most that one unit's gradient may have as L2 norm over the whole pytree.
        expected_batch_size: the number of units to divide by, fixed beforehand. How many took part is private.
        batch_argnums: which arguments of `loss_fn` have a leading axis of examples. They may be pytrees.
        unit: whom to protect. "user": the gradients of a user's examples in the batch are averaged, then clipped.
        microbatch_size: so many per-example gradients are in memory at once; None: all. Results differ by rounding.
        pre_clipping_transform: applied to each unit's gradient before it is clipped, a function that must not depend
            on private data except through earlier noisy outputs. It keeps the pytree's structure and shapes.
        has_aux: `loss_fn` returns (loss, aux). Implies `return_per_example`.
        return_per_example: also return a `PerExample`.

    Returns:
        A function of the same positional arguments, and of two more by keyword: `mask`, (batch,) of bool, False for
        padding; `user_ids`, (batch,) of integers, for unit="user", in any order. (JAX cuts 64-bit integers to 32 bits
        at the border of `jit`, and two users of one number are one: pass `np.unique(ids, return_inverse=True)[1]`.) It
        returns the gradient, in float32 or wider whatever the parameters are, or (gradient, PerExample). It can be
        jitted; shapes do not depend on values.

    Raises:
        ValueError: an argument is out of range, or batch, mask and user_ids do not go together.

    Guarantees: every unit changes the sum by a vector of L2 norm at most `l2_clip_norm`, and so the result by
    l2_clip_norm / expected_batch_size, if added, removed or blanked out (twice that if replaced); in floating point
    too, as `clip_pytree` says. A unit whose gradient is not finite, like a masked example whatever its gradient,
    contributes exactly zero. The units are then added up in float32 (or wider): that sum is rounded, by at most
    batch * 6e-8 of the sum of their norms, which the bound does not cover (Casacuberta et al. 2022); in float64 it is
    negligible. Round to a narrower type only after noise was added. A loss sees one example, so none can mix them.

    References: Abadi et al. (2016); McMahan et al. (2018) for users.

    >>> loss = lambda w, example: 0.5 * (w - example) ** 2
    >>> gradient = clipped_grad(loss, l2_clip_norm=1.0, expected_batch_size=2)
    >>> round(float(gradient(0.0, jnp.array([0.5, -3.0, jnp.nan]))), 4)
    0.25
    """
    l2_clip_norm = checked(l2_clip_norm)
    expected = validation.positive("expected_batch_size", expected_batch_size)
    batched = (batch_argnums,) if isinstance(batch_argnums, int) else tuple(batch_argnums)
    if not batched or min(batched) < 1:
        raise ValueError(f"batch_argnums must be >= 1, because argument 0 is the parameters, got {batch_argnums}")
    if unit not in get_args(Unit):
        raise ValueError(f'unit must be "example" or "user", got {unit!r}')
    if microbatch_size is not None:
        microbatch_size = validation.count("microbatch_size", microbatch_size, minimum=1)
    evaluate = jax.value_and_grad(loss_fn if has_aux else lambda *args: (loss_fn(*args), None), has_aux=True)

    def contribution(gradients: Tree, present: jax.Array) -> tuple[Tree, jax.Array]:
        dtype = accumulator(gradients)
        if pre_clipping_transform is not None:
            gradients = jax.vmap(pre_clipping_transform)(gradients)
        total, norms = clipped_sum(jax.tree.map(lambda g: g.astype(dtype), gradients), present, l2_clip_norm)
        return total, jnp.where(present, norms, -1)

    def function(params: Tree, *args: Any, mask: jax.Array | None = None, user_ids: jax.Array | None = None) -> Any:
        if max(batched) > len(args):
            raise ValueError(f"batch_argnums={batched} names an argument that was not passed: {len(args) + 1} were")
        examples = jax.tree.map(jnp.asarray, {i: args[i - 1] for i in batched})
        size = _batch_size(examples, mask, user_ids, unit)
        mask = jnp.ones(size, bool) if mask is None else jnp.asarray(mask)

        def one(example: dict[int, Any]) -> tuple[tuple[jax.Array, Tree], Tree]:
            return evaluate(params, *(example.get(i, arg) for i, arg in enumerate(args, start=1)))

        accumulate = _over_examples if user_ids is None else _over_users
        batch = (examples, mask) if user_ids is None else (examples, mask, jnp.asarray(user_ids))
        zeros = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), accumulator(params)), params)
        total, per_example = accumulate(jax.vmap(one), contribution, zeros, batch, size, microbatch_size)
        gradient = jax.tree.map(lambda t: t / expected, total)
        return (gradient, per_example) if has_aux or return_per_example else gradient

    return function


def _over_examples(
    one: Callable, contribution: Callable, zeros: Tree, batch: Tree, size: int, microbatch_size: int | None
) -> tuple[Tree, PerExample]:
    def step(total: Tree, microbatch: Tree) -> tuple[Tree, PerExample]:
        (examples, present), exists = microbatch
        (losses, aux), gradients = one(examples)
        clipped, norms = contribution(gradients, present & exists)
        return jax.tree.map(jnp.add, total, clipped), PerExample(losses, norms, aux)

    total, per_example = jax.lax.scan(step, zeros, _microbatches(batch, size, microbatch_size))
    return total, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], per_example)


class _Open(NamedTuple):
    """The user whose examples, sorted by user, may go on in the next microbatch."""

    user: jax.Array
    examples: jax.Array
    gradient: Tree


def _over_users(
    one: Callable, contribution: Callable, zeros: Tree, batch: Tree, size: int, microbatch_size: int | None
) -> tuple[Tree, PerExample]:
    """Sorted by user, all but the last user of a microbatch are complete: memory does not grow with their number."""
    order = jnp.argsort(batch[-1])
    batch = jax.tree.map(lambda x: x[order], batch)

    def step(carry: tuple[Tree, _Open], microbatch: Tree) -> tuple[tuple[Tree, _Open], PerExample]:
        total, last = carry
        (examples, present, users), exists = microbatch
        present = present & exists
        (losses, aux), gradients = one(examples)
        segment = jnp.cumsum(users != jnp.concatenate([last.user[None], users[:-1]]))

        def by_user(values: jax.Array, start: jax.Array) -> jax.Array:
            values = jnp.where(present.reshape(-1, *[1] * (values.ndim - 1)), values, 0).astype(start.dtype)
            return jax.ops.segment_sum(values, segment, users.size + 1, indices_are_sorted=True).at[0].add(start)

        counts, sums = by_user(present, last.examples), jax.tree.map(by_user, gradients, last.gradient)
        clipped, norms = _averaged(contribution, sums, counts, jnp.arange(users.size + 1) < segment[-1])
        total = jax.tree.map(jnp.add, total, clipped)
        last = _Open(users[-1], counts[segment[-1]], jax.tree.map(lambda s: s[segment[-1]], sums))
        return (total, last), PerExample(losses, norms, aux)

    nobody = _Open(jnp.zeros((), batch[-1].dtype), jnp.zeros((), jnp.int32), zeros)
    (total, last), found = jax.lax.scan(step, (zeros, nobody), _microbatches(batch, size, microbatch_size))
    final = jax.tree.map(lambda x: x[None], last)
    clipped, norm = _averaged(contribution, final.gradient, final.examples, jnp.ones(1, bool))
    norms = jnp.sort(jnp.concatenate([found.norms.ravel(), norm]), descending=True)[:size]
    back = jnp.argsort(order)
    losses, aux = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[back], (found.losses, found.aux))
    return jax.tree.map(jnp.add, total, clipped), PerExample(losses, norms, aux)


def _averaged(contribution: Callable, sums: Tree, counts: jax.Array, complete: jax.Array) -> tuple[Tree, jax.Array]:
    """What the users whose gradients add up to `sums` contribute; nothing if they go on or have no example."""
    divisor = jnp.maximum(counts, 1)
    averages = jax.tree.map(lambda s: s / divisor.reshape(-1, *[1] * (s.ndim - 1)).astype(s.dtype), sums)
    return contribution(averages, complete & (counts > 0))


def _microbatches(batch: Tree, size: int, microbatch_size: int | None) -> tuple[Tree, jax.Array]:
    """`batch` with the leading axes (number, microbatch), filled up with copies, and where it is not a copy."""
    each = min(microbatch_size or size, size) or 1
    number = -(-size // each)
    index = np.arange(number * each)

    def split(x: jax.Array) -> jax.Array:
        x = x if number * each == size else x[np.minimum(index, size - 1)]
        return x.reshape(number, each, *x.shape[1:])

    return jax.tree.map(split, batch), jnp.asarray(index < size).reshape(number, each)


def _batch_size(examples: Tree, mask: jax.Array | None, user_ids: jax.Array | None, unit: Unit) -> int:
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(examples)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(f"the arguments of batch_argnums must have one leading axis of examples, got sizes {sizes}")
    ((size,),) = sizes
    if mask is not None and (jnp.shape(mask) != (size,) or jnp.result_type(mask) != jnp.bool_):
        raise ValueError(
            f"mask must be bool of shape ({size},), True for real examples, got {jnp.result_type(mask)} of shape "
            f"{jnp.shape(mask)}"
        )
    if (user_ids is not None) != (unit == "user"):
        needs = "needs" if unit == "user" else "goes without"
        raise ValueError(f'unit="{unit}" {needs} user_ids, the owner of each example')
    if user_ids is not None:
        _check_users(user_ids, size)
    return size


def _check_users(user_ids: jax.Array, size: int) -> None:
    dtype = jnp.result_type(user_ids)
    if jnp.shape(user_ids) != (size,) or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"user_ids must be integers of shape ({size},), got {dtype} of shape {jnp.shape(user_ids)}")
    # Two users of one number would be clipped as one, and their joint gradient depends on both.
    if not isinstance(user_ids, jax.Array) and np.any(np.asarray(user_ids).astype(dtype) != np.asarray(user_ids)):
        raise ValueError(f"user_ids must fit {dtype}; pass np.unique(user_ids, return_inverse=True)[1]")
