"""From real vectors to integer ones of bounded norm, which is what integer noise can hide."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit import validation

if TYPE_CHECKING:
    import jax

# After so many attempts a vector is rounded towards zero.
_MOST_ATTEMPTS = 1000


def rounded_l2_bound(l2_norm: float, dimension: int, beta: float = 0.0) -> float:
    """Norm that `conditional_round` enforces, the `l2_sensitivity` of integer noise.

    With c the norm before, `c + sqrt(d)` always holds, because no coordinate moves by more than 1. For beta > 0 the
    smaller `sqrt(c^2 + d/4 + sqrt(2 log(1/beta)) (c + sqrt(d)/2))` if that is smaller, which stochastic rounding meets
    with probability 1 - beta or more: it is a guarantee for `conditional_round`, not for `stochastic_round`.

    Args:
        l2_norm: norm before rounding, in units of the integers (clip norm times scale), > 0.
        dimension: number of coordinates, >= 1.
        beta: in [0, 1).

    Raises:
        ValueError: an argument is outside its range.

    References: Kairouz, Liu and Steinke (2021), on conditional rounding.

    >>> rounded_l2_bound(30.0, dimension=10_000), round(rounded_l2_bound(30.0, 10_000, beta=math.exp(-0.5)), 3)
    (130.0, 58.992)
    """
    norm, root = validation.positive("l2_norm", l2_norm), math.sqrt(validation.count("dimension", dimension, minimum=1))
    always = norm + root
    if not _checked_beta(beta):
        return always
    square = norm**2 + root**2 / 4 + math.sqrt(2 * math.log(1 / beta)) * (norm + root / 2)
    return min(always, math.sqrt(square))


def stochastic_round(value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
    """Each number to one of its two neighbouring integers, so that the expectation is the number: int32, same shape.

    The norm may grow by up to sqrt(d): `rounded_l2_bound(norm, d)`. Pure and jittable.

    >>> import jax
    >>> stochastic_round([3.0, -2.0], jax.random.key(0)).tolist()
    [3, -2]
    """
    import jax
    import jax.numpy as jnp

    numbers = _floating(value)
    below = jnp.floor(numbers)
    up = jax.random.uniform(key, numbers.shape, numbers.dtype) < numbers - below
    return below.astype(jnp.int32) + up


def conditional_round(value: "jax.typing.ArrayLike", key: "jax.Array", l2_norm: float, beta: float = 0.0) -> Any:
    """Stochastic rounding of one unit's vector, repeated until its norm is at most `rounded_l2_bound`.

    The vector (all of `value`, whatever its shape) is first clipped to `l2_norm`. The repetition biases the mean by a
    little, the more the larger `beta`. Pure and jittable; under `vmap` one vector per batch element.

    Args:
        value: real numbers, in units of the integers; NaN counts as 0.
        key: JAX PRNG key.
        l2_norm: clip norm in the same units, > 0.
        beta: in [0, 1); see `rounded_l2_bound`.

    Returns:
        int32 array shaped like `value` whose norm is at most the bound, with certainty and in spite of rounding here.
        After 1000 failures, of probability beta^1000, it is rounded towards zero.
    """
    import jax
    import jax.numpy as jnp

    vector = clip_l2(value, l2_norm)
    bound = rounded_l2_bound(l2_norm, max(vector.size, 1), beta)
    # Less what rounding takes from the product.
    square = round_down(bound * bound * (1 - 1e-15), vector.dtype)

    def fits(rounded: Any) -> Any:
        return squared_norm_above(rounded.astype(vector.dtype)) <= square

    def attempt(state: Any) -> Any:
        tries, key, _ = state
        key, use = jax.random.split(key)
        return tries + 1, key, stochastic_round(vector, use)

    start = attempt((0, key, None))
    last = jax.lax.while_loop(lambda s: ~fits(s[2]) & (s[0] < _MOST_ATTEMPTS), attempt, start)[2]
    return jnp.where(fits(last), last, jnp.trunc(vector).astype(jnp.int32))


def clip_l2(value: "jax.typing.ArrayLike", l2_norm: float, linf_norm: float = math.inf) -> Any:
    """One unit's vector, in float32 or wider, scaled down to norm `l2_norm` or less after clipping its entries.

    In exact arithmetic on what is returned both bounds hold. NaN counts as 0.
    """
    import jax.numpy as jnp

    vector = _floating(value)
    # No entry may exceed the norm anyway; this also makes infinities finite.
    largest = round_down(min(linf_norm, l2_norm), vector.dtype)
    vector = jnp.where(jnp.isnan(vector), 0, jnp.clip(vector, -largest, largest))
    limit = round_down(l2_norm, vector.dtype)
    # In units of the limit, so that squares neither overflow nor all vanish.
    square, room = squared_norm_above(vector / limit), 1 - 8 * jnp.finfo(vector.dtype).eps
    return jnp.where(square <= room, vector, vector * (room / jnp.sqrt(square)))


def squared_norm_above(value: Any) -> Any:
    """No less than the sum of squares of a floating-point array: halves are added, so errors grow with log2 only."""
    import jax.numpy as jnp

    terms = jnp.ravel(value * value)
    additions = 4
    while terms.size > 1:
        terms = jnp.pad(terms, (0, terms.size % 2))
        terms = terms[: terms.size // 2] + terms[terms.size // 2 :]
        additions += 1
    return jnp.sum(terms) * (1 + additions * jnp.finfo(value.dtype).eps)


def round_down(number: float, dtype: Any) -> Any:
    """The positive number as a scalar of this type, never larger than it is."""
    scalar = np.asarray(number, dtype)
    return scalar if float(scalar) <= number else np.nextafter(scalar, np.zeros((), dtype))


def _floating(value: "jax.typing.ArrayLike") -> Any:
    import jax.numpy as jnp

    value = jnp.asarray(value)
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))


def _checked_beta(beta: float) -> float:
    beta = validation.probability("beta", beta)
    if beta == 1:
        raise ValueError(f"beta must be below 1, got {beta}; at 1 no rounding may meet the bound")
    return beta
