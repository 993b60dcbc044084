"""Correlated noise against independent noise: time per step in units of one `jax.random.normal`, and memory in copies.

    python benchmarks/noise.py [--size N] [--generator NAME] [--only TEXT] [--peer PYTHON]

The unit of time is one jitted `jax.random.normal` of as many float32 as there are parameters, of the same generator
(for chacha20, which JAX lacks, of threefry), taken anew before every row; the best of several runs counts on both
sides. Blocks are timed as `Stream.block`, streaming as `Stream.step`, with the state donated. A copy is an array of the
parameters' size: kept between steps, and held by the compiled step at its peak, the state and the noise handed out
included. PYTHON is an interpreter with `jax_privacy` 2.0.0: it streams the same C
with the same normal draws in a process of its own; "peer" is its time over ours.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dpkit import factorization as fz
from dpkit import noise

PEER = """
import json, sys, time
import jax
import jax.numpy as jnp
from jax_privacy.matrix_factorization import banded, buffered_toeplitz, toeplitz
kind, size, numbers = json.loads(sys.argv[1])
if kind == "Banded":
    strategy = banded.ColumnNormalizedBanded.from_banded_toeplitz(512, jnp.array(numbers[0]))
    matrix = strategy.inverse_as_streaming_matrix()
elif kind == "BandedSquareRoot":
    matrix = toeplitz.inverse_as_streaming_matrix(jnp.array(numbers[0]))
else:
    built = buffered_toeplitz.BufferedToeplitz.build(*numbers, dtype=jnp.float32)
    matrix = built.inverse_as_streaming_matrix()
key, state = jax.random.key(0), matrix.init_multiply(jnp.zeros(size))
def take(state, t):
    return matrix.multiply_next(jax.random.normal(jax.random.fold_in(key, t), (size,)), state)
step = jax.jit(take, donate_argnums=0)
times = []
for t in range(7):
    began = time.perf_counter()
    x, state = step(state, t)
    jax.block_until_ready((x, state))
    times.append(time.perf_counter() - began)
print(min(times))
"""
STEPS = 512


def banded(num_bands: int) -> fz.Banded:
    """The banded square root with its columns normalised, and so coefficients that depend on the step."""
    column = fz.BandedSquareRoot(num_bands).first_column(num_bands)
    sums = np.cumsum(column**2)
    norms = np.sqrt(sums[np.minimum(STEPS - 1 - np.arange(STEPS), num_bands - 1)])
    columns = np.arange(STEPS)[:, None] - np.arange(num_bands)
    rows = np.where(columns >= 0, column / norms[np.maximum(columns, 0)], 0.0)
    return fz.Banded(num_bands, coefficients=rows)


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    strategy: fz.Strategy
    blocks: tuple[int, ...] = (1,)
    memory: noise.Memory = "store"
    peer: tuple[list[float], ...] | None = None


ALL = (1, 8, 16, 32)
THETA, OMEGA = [0.9999, 0.99, 0.9, 0.5], [0.01, 0.05, 0.1, 0.2]
ROWS = [
    Row("independent", fz.Identity()),
    Row("banded, b = 32", banded(32), ALL, peer=(fz.BandedSquareRoot(32).first_column(32).tolist(),)),
    Row("banded, b = 128", banded(128), ALL, peer=(fz.BandedSquareRoot(128).first_column(128).tolist(),)),
    Row("Toeplitz, b = 32", fz.BandedSquareRoot(32), ALL, peer=(fz.BandedSquareRoot(32).first_column(32).tolist(),)),
    Row("BLT, d = 4", fz.BufferedLinearToeplitz(theta=THETA, omega=OMEGA), ALL, peer=(THETA, OMEGA)),
    Row("inverse, p = 32", fz.BandedInverseSquareRoot(32), ALL),
    Row("inverse, p = 32", fz.BandedInverseSquareRoot(32), ALL, memory="regenerate"),
    Row("tree, online", fz.Tree(4096)),
]


def best(call: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of several calls, after one that compiles."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return min(times)


def unit(size: int, generator: str) -> float:
    key = jax.random.key(0, impl="rbg" if generator == "rbg" else "threefry2x32")
    draw = jax.jit(lambda key: jax.random.normal(key, (size,)))
    return best(lambda: draw(key))


@dataclasses.dataclass
class Run:
    """A stream in use: every call takes the next block, the state donated."""

    stream: noise.Stream
    size: int
    block: int

    def __post_init__(self):
        # Not at the start, where there is less to draw again.
        self.state = dataclasses.replace(self.stream.init(jnp.zeros(self.size)), step=jnp.int32(128))
        take = self.stream.step if self.block == 1 else lambda state: self.stream.block(state, self.block)
        self.compiled = jax.jit(take, donate_argnums=0).lower(self.state).compile()

    def __call__(self) -> jax.Array:
        noise, self.state = self.compiled(self.state)
        return noise

    def copies(self) -> float:
        memory = self.compiled.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        return (held - memory.alias_size_in_bytes) / (4 * self.size)


def peer(python: str, row: Row, size: int) -> float:
    """Seconds a step of JAX Privacy."""
    arguments = [python, "-c", PEER, json.dumps([type(row.strategy).__name__, size, row.peer])]
    environment = {**os.environ, "JAX_PLATFORMS": jax.default_backend()}
    return float(subprocess.run(arguments, capture_output=True, check=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=10**7)
    parser.add_argument("--generator", default="threefry", choices=["threefry", "rbg", "chacha20"])
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--peer", help="an interpreter with jax_privacy 2.0.0")
    arguments = parser.parse_args()
    size, generator = arguments.size, arguments.generator
    print(f"{platform.machine()}, {os.cpu_count()} cores, JAX {jax.__version__}, {jax.devices()[0].device_kind}")
    print(f"{size} float32 parameters, {generator}")
    print(
        f"{'strategy':18} {'memory':10} {'block':>5} {'seconds':>8} {'ratio':>6} {'kept':>5} {'copies':>7} {'peer':>6}"
    )
    for row in ROWS:
        for block in row.blocks if arguments.only in row.name else ():
            key = jax.random.key(0, impl="rbg" if generator == "rbg" else "threefry2x32")
            stream = noise.stream(row.strategy, stddev=1.0, key=key, memory=row.memory, generator=generator)
            base, run = unit(size, generator), Run(stream, size, block)
            seconds, copies = best(run) / block, run.copies()
            del run
            line = f"{row.name:18} {row.memory:10} {block:5} {seconds:8.4f} {seconds / base:6.2f}"
            line += f" {stream.filter.copies:5} {copies:7.1f}"
            if arguments.peer and row.peer:
                line += f" {peer(arguments.peer, row, size) / seconds:6.1f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
