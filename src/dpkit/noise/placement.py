"""Where arrays lie: like the parameters, with axes in front that are not sharded."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import core, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def leaf(array: Any) -> jax.ShapeDtypeStruct:
    """Shape, type, and sharding over several devices if there is one, of a leaf of the parameters.

    Raises:
        ValueError: it is not of floating point.
    """
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"params must be of floating point, got a leaf of {dtype}; leave it out (optax.masked)")
    sharding = None if isinstance(array, core.Tracer) else getattr(array, "sharding", None)
    spread = isinstance(sharding, NamedSharding) and sharding.num_devices > 1
    return jax.ShapeDtypeStruct(jnp.shape(array), dtype, sharding=sharding if spread else None)


def everywhere(leaves: tuple[jax.ShapeDtypeStruct, ...]) -> NamedSharding | None:
    """A copy on each device of the mesh on which any of the leaves is sharded."""
    meshes = [like.sharding.mesh for like in leaves if like.sharding is not None]
    return NamedSharding(meshes[0], PartitionSpec()) if meshes else None


def behind(like: jax.ShapeDtypeStruct, axes: int) -> NamedSharding | None:
    """The sharding of arrays of this shape behind so many axes more."""
    if like.sharding is None:
        return None
    return NamedSharding(like.sharding.mesh, PartitionSpec(*[None] * axes, *like.sharding.spec))


def zeros(count: int, like: jax.ShapeDtypeStruct, dtype: jnp.dtype) -> jax.Array:
    """(count, *shape), made on the devices where it stays."""
    shape, sharding = (count, *like.shape), behind(like, 1)
    if sharding is None:
        return jnp.zeros(shape, dtype)
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()


def placed(value: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    return value if sharding is None else jax.device_put(value, sharding)


def constrained(value: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    """`value`, to be computed with this sharding; inside `automatic` if its mesh has explicit axes."""
    if sharding is None:
        return value
    return lax.with_sharding_constraint(value, sharding.spec if _explicit(sharding) else sharding)


def automatic(function: Callable[[Any], Any], everywhere: NamedSharding | None, results: Any) -> Callable[[Any], Any]:
    """`function`, with shardings inside it left to the compiler; those of the results (a pytree) are known.

    On explicit axes of a mesh every operation would have to say what becomes of its operands' shardings.
    """
    if everywhere is None or not _explicit(everywhere):
        return function
    return jax.sharding.auto_axes(function, axes=_explicit(everywhere), out_sharding=results)


def _explicit(sharding: NamedSharding) -> tuple[str, ...]:
    kinds = zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)
