"""Banded factorizations of prefix sums, Toeplitz ones too: time, root mean error and gap, beside JAX Privacy's.

    python benchmarks/factorization.py [--peer PYTHON] [--quick] [--growth]

PYTHON is an interpreter with `jax_privacy` 2.0.0 installed. It runs the same problems in a process of its own, at its
default of 100 steps, compilation included, and is given up after 150 seconds. Ours are run until the certified gap is
1e-3, one process after a first solve that loads the compiled kernels. `known` is the least error on record. `--growth`
fits seconds ~ n^exponent instead, to banded strategies of 16 bands at gap 1e-3 and to buffered ones.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import subprocess

import numpy as np

from dpkit import factorization as fz

PATIENCE = 150
PEER = """
import json, sys, time
import jax
import jax.numpy as jnp
from jax_privacy.matrix_factorization import banded, toeplitz
n, bands = int(sys.argv[1]), int(sys.argv[2])
began = time.perf_counter()
if sys.argv[3] == "toeplitz":
    c = jax.block_until_ready(toeplitz.optimize_banded_toeplitz(n, bands))
    seconds = time.perf_counter() - began
    error = float(jnp.mean(toeplitz.per_query_error(strategy_coef=c, n=n)) * jnp.sum(c**2))
    print(json.dumps([seconds, error]))
    sys.exit()
strategy = banded.optimize(n, bands=bands)
error = float(jnp.mean(jax.block_until_ready(banded.per_query_error(strategy))))
print(json.dumps([time.perf_counter() - began, error]))
"""


@dataclasses.dataclass(frozen=True)
class Row:
    num_bands: int
    schema: fz.ParticipationSchema
    column_norms: str = "optimal"
    objective: str = "rmse"
    known: float | None = None
    slow: bool = False
    toeplitz: bool = False

    @property
    def family(self) -> fz.Strategy:
        return fz.BandedToeplitz(self.num_bands) if self.toeplitz else fz.Banded(self.num_bands, self.column_norms)


TRAINING = fz.MinSep(iterations=2_052, min_sep=342, max_participations=6)
ROWS = [
    Row(32, fz.SingleParticipation(1_024), known=math.sqrt(23.9934)),
    Row(8, fz.SingleParticipation(2_048), known=math.sqrt(136.555)),
    Row(32, fz.SingleParticipation(4_096)),
    Row(64, fz.SingleParticipation(10_000), slow=True),
    Row(16, fz.SingleParticipation(100_000), slow=True),
    Row(32, TRAINING, "equal", known=15.917),
    Row(32, TRAINING, known=15.314),
    Row(32, fz.FixedEpoch(2_052, 6)),
    Row(342, TRAINING, "equal", known=8.5952, slow=True),
    Row(342, TRAINING, known=8.474, slow=True),
    Row(16, fz.MinSep(iterations=100_000, min_sep=10_000, max_participations=10), slow=True),
    Row(16, fz.FixedEpoch(iterations=100_000, epochs=10), slow=True),
    Row(8, fz.SingleParticipation(2_048), objective="max_error"),
    Row(32, fz.SingleParticipation(4_096), objective="max_error", slow=True),
    Row(32, TRAINING, "equal", "max_error", slow=True),
    Row(32, TRAINING, objective="max_error", slow=True),
    Row(16, fz.SingleParticipation(10_000), "equal", toeplitz=True),
    Row(128, fz.SingleParticipation(100_000), "equal", toeplitz=True),
    Row(1_000, fz.MinSep(iterations=1_000_000, min_sep=1_000, max_participations=10), "equal", toeplitz=True),
]


def solve(row: Row) -> fz.Solution:
    return fz.optimize(
        row.family,
        fz.prefix_sum(),
        row.schema,
        objective=row.objective,
        callback=lambda progress: (progress.gap or 1.0) < 1e-3 or progress.seconds > PATIENCE,
    )


def peer(python: str | None, row: Row) -> tuple[float, float] | None:
    """(seconds, root mean error) of JAX Privacy at the same sensitivity, or None: not asked for, or given up."""
    if python is None or (row.column_norms != "equal" and row.schema.max_participations > 1) or row.objective != "rmse":
        return None
    kind = "toeplitz" if row.toeplitz else "banded"
    arguments = [python, "-c", PEER, str(row.schema.iterations), str(row.num_bands), kind]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(arguments, capture_output=True, check=True, timeout=PATIENCE, env=environment)
    except subprocess.TimeoutExpired:
        return PATIENCE, math.nan
    seconds, error = json.loads(done.stdout)
    return seconds, math.sqrt(error * row.schema.max_participations)


def print_growth(name: str, iterations: list[int], seconds: list[float]) -> None:
    """One line: the times, and the exponent of the straight line of least squares through their logarithms."""
    exponent = np.polyfit(np.log(iterations), np.log(seconds), 1)[0]
    times = ", ".join(f"{n:.0e}: {s:.2f} s" for n, s in zip(iterations, seconds, strict=True))
    print(f"{name:8} seconds ~ n^{exponent:.2f} ({times})", flush=True)


def growth() -> None:
    sizes = [1_000, 3_000, 10_000, 30_000, 100_000]
    print_growth("banded", sizes, [solve(Row(16, fz.SingleParticipation(n))).seconds for n in sizes])
    sizes = [10**e for e in range(3, 10)]
    family = fz.BufferedLinearToeplitz(num_buffers=4)
    schemas = [fz.MinSep(iterations=n, min_sep=n // 10, max_participations=10) for n in sizes]
    fz.optimize(family, fz.prefix_sum(), schemas[0])
    print_growth("buffered", sizes, [fz.optimize(family, fz.prefix_sum(), schema).seconds for schema in schemas])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="an interpreter with jax_privacy 2.0.0")
    parser.add_argument("--quick", action="store_true", help="leave out the rows that take minutes")
    parser.add_argument("--growth", action="store_true", help="how the time grows with the iterations, nothing else")
    arguments = parser.parse_args()
    fz.optimize(fz.Banded(2), fz.prefix_sum(), fz.MinSep(8, 2))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if arguments.growth:
        growth()
        return
    print(f"{'bands, norms, schema':72} {'error':>10} {'known':>9} {'gap':>8} {'steps':>6} {'seconds':>8}  peer")
    for row in ROWS:
        if row.slow and arguments.quick:
            continue
        solution, other = solve(row), peer(arguments.peer, row)
        name = f"{row.num_bands} {'Toeplitz' if row.toeplitz else row.column_norms} {row.objective} {row.schema}"
        error = getattr(solution, row.objective)
        gap = math.nan if solution.gap is None else solution.gap
        line = f"{name[:72]:72} {error:10.5f} {row.known or math.nan:9.4f} {gap:8.1e} {solution.iterations:6}"
        line += f" {solution.seconds:8.2f}"
        if other is not None:
            line += f"  {other[0]:.0f} s ({other[0] / solution.seconds:.0f} x), error {other[1]:.5f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
