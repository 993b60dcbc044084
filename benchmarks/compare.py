"""How a comparison of mechanisms scales from one local process to two.

    python benchmarks/compare.py

A dozen banded strategies of a run of 2,052 steps at five targets, every search to its certified gap and none ended by
its time limit. `cold` includes the start of the processes and their imports, `warm` finds them running; the cache is
empty each time. Every process has one thread for linear algebra. `busy` is how many searches ran at the same time on
average, which a machine with other work to do leaves alone: it is near 2 where no process waits for another.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import platform
import tempfile
import time

import numpy as np

from dpkit import training
from dpkit.training import planning, sweep
from dpkit.training.result_cache import ResultCache

TARGETS = (0.5, 1.0, 2.0, 4.0, 8.0)
TABLES = [{"kind": "banded", "num_bands": count} for count in range(8, 32, 2)]
CONFIG = {
    "data": {"examples": 60_000, "unit": "example"},
    "training": {"sampling": "min_sep", "min_sep": 342, "iterations": 2_052, "max_participations": 6},
    "mechanism": {"kind": "gaussian", "noise_multiplier": 1.0, "l2_clip_norm": 1.0},
    "privacy": {"delta": 1e-5, "relation": "replace_special"},
}


def measured(jobs: int) -> tuple[float, float]:
    """Wall time of the sweep, and how many searches ran at the same time on average."""
    config = training.TrainingConfig.parse(CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        results = list(sweep.sweep(config, TABLES, TARGETS, cache=ResultCache(folder), jobs=jobs))
        taken = time.perf_counter() - start
    found = [result.seconds for result in results if isinstance(result, sweep.Outcome)]
    assert len(found) == len(TABLES) * len(TARGETS), "a mechanism was refused"
    assert max(found) < planning._PATIENCE, "a search was ended by its time limit"
    return taken, sum(found) / len(TARGETS) / taken


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}")
    measured(1)  # Compiles what is not in numba's cache yet.
    for state in ("cold", "warm"):
        one, _ = measured(1)
        two, busy = measured(2)
        print(
            f"{state}: {one:.1f} s in one process, {two:.1f} s in two, {one / two:.2f} times as fast; busy {busy:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
