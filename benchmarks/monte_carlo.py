"""How close the Monte Carlo bounds for balls-in-bins sampling are, and what they cost, against the samples.

    python benchmarks/monte_carlo.py [--large]

For each setting, target and number of samples: the certified interval at failure probability 1e-9, its width relative
to its middle, and the seconds. `plain` is the width of the same confidence bounds without importance sampling: the
Chernoff interval for as many events of probability delta, of which no method that samples the mechanism itself gets
more.
"""

import argparse
import math
import platform
import time

import numpy as np
from scipy import optimize

from dpkit import factorization as fz
from dpkit.accounting import Bounds, MonteCarloAccountant, amplified
from dpkit.mechanisms import BallsInBins

FAILURE = 1e-9


def settings() -> list[tuple[str, BallsInBins]]:
    identity, root = fz.Identity(), fz.BandedSquareRoot(8)
    return [
        ("C = I, n 100, b 10, noise 2", amplified.balls_in_bins(identity, 100, 10, 2.0)),
        ("C = I, n 2,000, b 100, noise 2", amplified.balls_in_bins(identity, 2_000, 100, 2.0)),
        ("8 bands, n 2,052, b 342, noise 2", amplified.balls_in_bins(root, 2_052, 342, 2.0)),
    ]


def plain_width(delta: float, samples: int) -> float:
    """Relative width of the Chernoff interval around a mean of `delta` of so many events."""
    level = math.log(4 / FAILURE) / samples

    def excess(p: float) -> float:
        return delta * math.log(delta / p) + (1 - delta) * math.log((1 - delta) / (1 - p)) - level

    upper = optimize.brentq(excess, delta, 1 - 1e-12)
    lower = optimize.brentq(excess, 1e-300, delta) if excess(1e-300) > 0 else 0.0
    return (upper - lower) / delta


def report(name: str, target: str, samples: int, bounds: Bounds, seconds: float, plain: str) -> None:
    width = (bounds.upper - bounds.lower) / (bounds.upper + bounds.lower) * 2 if bounds.upper else math.nan
    print(
        f"{name:34} {target:14} {samples:11,} {bounds.lower:11.5g} {bounds.upper:11.5g} {width:8.2%} {plain:>9} "
        f"{seconds:8.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="ten times more samples")
    counts = [10_000, 100_000, 1_000_000] + [10_000_000] * parser.parse_args().large
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}\n")
    columns = ("setting", "question", "samples", "lower", "upper", "width", "plain", "seconds")
    print("{:34} {:14} {:>11} {:>11} {:>11} {:>8} {:>9} {:>8}".format(*columns))
    for name, run in settings():
        for samples in counts:
            accountant = MonteCarloAccountant(samples=samples, failure_probability=FAILURE, seed=1)
            for epsilon in (1.0, 6.0):
                start = time.perf_counter()
                bounds = accountant.delta(run, epsilon=epsilon)
                seconds = time.perf_counter() - start
                plain = f"{plain_width(bounds.upper, samples):.1%}"
                report(name, f"epsilon {epsilon:g}", samples, bounds, seconds, plain)
            start = time.perf_counter()
            bounds = accountant.epsilon(run, delta=1e-6)
            report(name, "delta 1e-06", samples, bounds, time.perf_counter() - start, "")


if __name__ == "__main__":
    main()
