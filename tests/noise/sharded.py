"""Run as a script: noise on a mesh of 8 devices against noise on one; arguments: number of processes, index, port."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dpkit import factorization as fz
from dpkit import noise

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast")
SHAPES = {"matrix": (16, 32), "columns": (3, 8), "bias": (5,)}
SPECS = {"matrix": P("a", "b"), "columns": P(None, ("a", "b")), "bias": P()}
BANDED = fz.Banded(3, coefficients=[[1, 0, 0], [1, 0.5, 0]] + [[1, 0.5, 0.2]] * 10)
FEW = [
    (fz.Identity(), {}),
    (BANDED, {}),
    (fz.BufferedLinearToeplitz(theta=[0.9, 0.5], omega=[0.3, 0.2]), {}),
]
MORE = [
    (BANDED, {"block_size": 4}),
    (BANDED, {"generator": "chacha20"}),
    (fz.BandedInverseSquareRoot(4), {}),
    (fz.BandedInverseSquareRoot(4), {"memory": "regenerate"}),
    (fz.Tree(12), {}),
]


def shares(array: jax.Array, whole: np.ndarray, exact: bool) -> None:
    for shard in array.addressable_shards:
        np.testing.assert_allclose(np.asarray(shard.data), whole[shard.index], rtol=0, atol=0 if exact else 1e-6)


def compare(strategy: fz.Strategy, arguments: dict, params: dict[str, jax.Array]) -> None:
    stream = noise.stream(strategy, stddev=0.5, key=jax.random.key(3), **arguments)
    single = stream.init({name: jnp.zeros(shape) for name, shape in SHAPES.items()})
    state = stream.init(params)
    for array, like in zip(state.buffers, jax.tree.leaves(params), strict=False):
        assert array.sharding.is_equivalent_to(
            NamedSharding(like.sharding.mesh, P(None, *like.sharding.spec)), array.ndim
        )
    takes = [jax.jit(stream.step)]
    if stream.block_size == 1:
        takes.append(jax.jit(lambda state: stream.block(state, 5)))
    for take in takes:
        text = take.lower(state).compile().as_text()
        assert not [name for name in COLLECTIVES if name in text], (strategy, arguments)
        for _ in range(2):
            sharded, state = take(state)
            whole, single = take(single)
            for name, array in sharded.items():
                spec = SPECS[name] if array.ndim == len(SHAPES[name]) else P(None, *SPECS[name])
                assert array.sharding.is_equivalent_to(NamedSharding(params[name].sharding.mesh, spec), array.ndim)
                shares(array, np.asarray(whole[name]), exact=isinstance(strategy, fz.Identity))


def main(processes: int, index: int, port: str) -> None:
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, index)
    assert jax.device_count() == 8
    devices = np.array(jax.devices()).reshape(4, 2)
    check(Mesh(devices, ("a", "b"), axis_types=(AxisType.Auto,) * 2), FEW + MORE if processes == 1 else FEW)
    check(Mesh(devices, ("a", "b"), axis_types=(AxisType.Explicit,) * 2), FEW[:2])
    print("same noise")


def check(mesh: Mesh, runs: list[tuple[fz.Strategy, dict]]) -> None:
    params = {
        name: jax.jit(lambda shape=shape: jnp.zeros(shape), out_shardings=NamedSharding(mesh, SPECS[name]))()
        for name, shape in SHAPES.items()
    }
    for strategy, arguments in runs:
        compare(strategy, arguments, params)
    with pytest.raises(ValueError, match="sharded"):
        noise.stream(fz.Identity(), stddev=1.0, key=jax.random.key(0), generator="rbg").init(params)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
