"""Draws from truncated normal laws in JAX: one uniform number each, at any distance of the box."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

_NEWTON_STEPS = 7
# From here on the Mills ratio is a continued fraction, of so many terms.
_FAR, _TERMS = 6.0, 12


def draw(value: "jax.typing.ArrayLike", key: "jax.Array", stddev: float, lower: float, upper: float) -> Any:
    """N(value, stddev^2) conditioned on [lower, upper], elementwise, by inverting its distribution function.

    Around a value in the box the normal quantile of the nearer tail is taken; from a value outside, Newton's method
    inverts the log-survival of the distance from the nearer end, which is increasing and convex, so that steps from
    above fall to the root.
    """
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import ndtr, ndtri

    value = jnp.asarray(value)
    value = value.astype(jnp.promote_types(value.dtype, jnp.float32))
    # Midpoints of the uniform grid: neither 0 nor 1.
    u = jax.random.uniform(key, value.shape, value.dtype) + jnp.finfo(value.dtype).eps / 2
    low, width = (lower - value) / stddev, (upper - lower) / stddev
    # Reflected so that the nearer end, or the one beyond which less lies, is the low one.
    flip = low + width / 2 < 0
    low = jnp.where(flip, (value - upper) / stddev, low)
    below, above = ndtr(low), ndtr(-low - width)
    mass = 1 - below - above
    from_below, from_above = below + u * mass, above + (1 - u) * mass
    inside = jnp.where(from_below < 0.5, ndtri(from_below), -ndtri(from_above))
    distance = _distance(u, jnp.maximum(low, 0.0), width)
    sign = jnp.where(flip, -1.0, 1.0).astype(value.dtype)
    near = jnp.where(flip, upper, lower)
    result = jnp.where(low < 0, value + sign * stddev * inside, near + sign * stddev * distance)
    return jnp.clip(result, lower, upper).astype(value.dtype)


def _distance(u: "jax.Array", low: "jax.Array", width: float) -> Any:
    """The u-quantile of the distance from `low` >= 0 of a standard normal in [low, low + width]."""
    import jax
    import jax.numpy as jnp

    mills = _mills(low)

    def log_survival(y, mills_there):
        return low * y + y * y / 2 + jnp.log(mills) - jnp.log(mills_there)

    target = -jnp.log1p(u * jnp.expm1(-log_survival(width, _mills(low + width))))
    start = jnp.minimum(target * mills, 2 * target / (low + jnp.sqrt(low * low + 2 * target)))
    start = jnp.minimum(start, width)

    def step(_, y):
        mills_there = _mills(low + y)
        return jnp.clip(y - (log_survival(y, mills_there) - target) * mills_there, 0.0, start)

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, start)


def _mills(x: "jax.Array") -> Any:
    """(1 - Phi(x)) / phi(x) for x >= 0."""
    import jax.numpy as jnp
    from jax.scipy.special import log_ndtr

    near = jnp.minimum(x, _FAR)
    fraction = x
    for term in range(_TERMS, 0, -1):
        fraction = x + term / jnp.maximum(fraction, _FAR)
    direct = jnp.exp(log_ndtr(-near) + near * near / 2) * jnp.sqrt(2 * jnp.pi)
    return jnp.where(x > _FAR, 1 / jnp.maximum(fraction, _FAR), direct)
