"""Preconditioners that act on each unit's gradient before it is clipped: AdaDPS and DP^2.

Clipping follows the preconditioner, so a step is a Gaussian release of a sum of sensitivity `l2_clip_norm`, as without
one, and is accounted for in the same way, with any strategy for the noise. That holds because the preconditioner is
fixed when the step begins: made of public data (AdaDPS), or of earlier steps' noised gradients (DP^2), which is
post-processing. The noised gradient is the preconditioned one; optimisers use it as it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dpkit import validation

Tree = Any


class Preconditioner(NamedTuple):
    """An optax-style transformation that passes updates on unchanged, and what its state makes of gradients.

    Attributes:
        init: params -> state.
        update: (updates, state, params=None) -> (updates, state).
        pre_clipping_transform: state -> the function of that name for `clipped_grad`.
    """

    init: Callable[[Tree], Any]
    update: Callable[..., tuple[Tree, Any]]
    pre_clipping_transform: Callable[[Any], Callable[[Tree], Tree]]


def adadps(decay: float = 0.9, epsilon_root: float = 1e-8) -> Preconditioner:
    """AdaDPS: gradients are divided by root second moments of *public* gradients before they are clipped.

    Each step, `update` with the mean gradient of a public batch at the present parameters; then take the private
    gradients with `pre_clipping_transform` of the new state. Never put this transformation behind private gradients
    that are not noised. Before the first `update` gradients are divided by `epsilon_root` alone.

    Args:
        decay: of the moving average of squares, in [0, 1).
        epsilon_root: added to the root, > 0.

    Raises:
        ValueError: an argument is out of range.

    References: Li, Zaheer, Reddi and Smith (2022), "Private Adaptive Optimization with Side Information", Algorithm 1
    with the RMSProp preconditioner.

    >>> side = adadps(decay=0.75)
    >>> _, state = side.update(jnp.array([4.0, 0.2]), side.init(jnp.zeros(2)))
    >>> side.pre_clipping_transform(state)(jnp.array([1.0, 1.0])).round(4).tolist()
    [0.5, 10.0]
    """
    decay = _decay(decay)
    epsilon_root = validation.positive("epsilon_root", epsilon_root)

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:  # noqa: ARG001
        return updates, _moving_average(state, updates, decay)

    def transform(state: Tree) -> Callable[[Tree], Tree]:
        return lambda gradient: jax.tree.map(lambda g, v: g / (jnp.sqrt(v) + epsilon_root), gradient, state)

    return Preconditioner(_zeros, update, transform)


class DelayedState(NamedTuple):
    """Number of steps done, sum of this cycle's noised SGD gradients, and the moving average of squares."""

    step: jax.Array
    total: Tree
    second_moment: Tree


def delayed_preconditioner(
    *,
    sgd_steps: int,
    adaptive_steps: int,
    decay: float = 0.9,
    epsilon_root: float = 1e-7,
    adaptive_scale: float = 1.0,
) -> Preconditioner:
    """DP^2: cycles of plain DP-SGD steps, and of steps preconditioned by what those had in common.

    The noised gradients of `sgd_steps` steps are averaged, which thins their noise, and the square of the average
    enters the second moment; for the next `adaptive_steps` steps each unit's gradient is divided by its root before it
    is clipped. Put it behind the noise, optax.chain(add_correlated_noise(...), delayed_preconditioner(...), sgd(...)):
    it must see noised gradients only.

    Args:
        sgd_steps: s1 >= 1, steps of a cycle without preconditioner.
        adaptive_steps: s2 >= 1, steps of a cycle with it.
        decay: of the moving average of squares, in [0, 1).
        epsilon_root: added to the root, > 0.
        adaptive_scale: > 0, multiplies preconditioned gradients before they are clipped. It is a second clip norm:
            l2_clip_norm / adaptive_scale for them, at adaptive_scale times the learning rate. (Give a learning-rate
            schedule for another rate in adaptive steps.)

    Raises:
        ValueError: an argument is out of range.

    References: Li, Zaheer, Liu, Reddi, McMahan and Smith (2023), "Differentially Private Adaptive Optimization with
    Delayed Preconditioners", Algorithm 1 (DP^2-RMSProp).

    >>> delayed = delayed_preconditioner(sgd_steps=1, adaptive_steps=1, decay=0.75)
    >>> state = delayed.init(jnp.zeros(2))
    >>> delayed.pre_clipping_transform(state)(jnp.array([1.0, 1.0])).tolist()
    [1.0, 1.0]
    >>> _, state = delayed.update(jnp.array([4.0, 0.2]), state)
    >>> delayed.pre_clipping_transform(state)(jnp.array([1.0, 1.0])).round(4).tolist()
    [0.5, 10.0]
    """
    sgd_steps = validation.count("sgd_steps", sgd_steps, minimum=1)
    cycle = sgd_steps + validation.count("adaptive_steps", adaptive_steps, minimum=1)
    decay, epsilon_root = _decay(decay), validation.positive("epsilon_root", epsilon_root)
    adaptive_scale = validation.positive("adaptive_scale", adaptive_scale)

    def init(params: Tree) -> DelayedState:
        return DelayedState(jnp.int32(0), _zeros(params), _zeros(params))

    def update(updates: Tree, state: DelayedState, params: Tree = None) -> tuple[Tree, DelayedState]:  # noqa: ARG001
        phase = state.step % cycle
        total = jax.tree.map(lambda t, u: jnp.where(phase == 0, 0, t) + u, state.total, updates)
        moment = _moving_average(state.second_moment, jax.tree.map(lambda t: t / sgd_steps, total), decay)
        moment = jax.tree.map(lambda new, old: jnp.where(phase == sgd_steps - 1, new, old), moment, state.second_moment)
        return updates, DelayedState(state.step + 1, total, moment)

    def transform(state: DelayedState) -> Callable[[Tree], Tree]:
        adaptive = state.step % cycle >= sgd_steps

        def divided(g: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.where(adaptive, g * adaptive_scale / (jnp.sqrt(v) + epsilon_root), g)

        return lambda gradient: jax.tree.map(divided, gradient, state.second_moment)

    return Preconditioner(init, update, transform)


def _zeros(params: Tree) -> Tree:
    return jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.result_type(p, jnp.float32)), params)


def _moving_average(moment: Tree, gradient: Tree, decay: float) -> Tree:
    return jax.tree.map(lambda v, g: decay * v + (1 - decay) * jnp.square(g.astype(v.dtype)), moment, gradient)


def _decay(decay: float) -> float:
    if not 0 <= validation.real("decay", decay) < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    return float(decay)
