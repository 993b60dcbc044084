"""Epsilon of composed runs: dpkit's certified PLD against dp-accounting's at its default grid, in one process.

    python benchmarks/pld.py [REPEATS]

Prints medians of warm calls, both directions included, and their ratio; and for both the value found. dp-accounting's
is a pessimistic estimate on a grid of 1e-4; dpkit's is a certified interval of relative width 1e-3.
"""

import platform
import statistics
import sys
import time
from collections.abc import Callable

from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant

from dpkit import accounting
from dpkit.interop import dp_accounting as bridge

DELTA = 1e-5


def run(noise_multiplier: float, probability: float, count: int) -> dp_event.DpEvent:
    step = dp_event.PoissonSampledDpEvent(probability, dp_event.GaussianDpEvent(noise_multiplier))
    return dp_event.SelfComposedDpEvent(step, count)


RUNS = {
    "headline: sigma 1.1, q 256/60000, T 14,040": run(1.1, 256 / 60_000, 14_040),
    "sigma 1.5, q 0.02, T 300": run(1.5, 0.02, 300),
    "sigma 4, q 0.1, T 2,500": run(4.0, 0.1, 2_500),
    "sigma 0.8, q 0.001, T 10,000": run(0.8, 1e-3, 10_000),
    "sigma 1, q 0.3, T 1,000": run(1.0, 0.3, 1_000),
    "sigma 0.6, q 0.01, T 2,000": run(0.6, 0.01, 2_000),
    "Laplace 20, T 100": dp_event.SelfComposedDpEvent(dp_event.LaplaceDpEvent(20.0), 100),
    "headline + Gaussian 8 + Laplace 20": dp_event.ComposedDpEvent(
        [run(1.1, 256 / 60_000, 14_040), dp_event.GaussianDpEvent(8.0), dp_event.LaplaceDpEvent(20.0)]
    ),
}


def median(call: Callable[[], object], repeats: int) -> tuple[float, object]:
    """Median wall time of warm calls, and what the last one returned."""
    value = call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - began)
    return statistics.median(times), value


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ours = accounting.PldAccountant()
    ratios = []
    print(f"{platform.machine()}, Python {platform.python_version()}, medians of {repeats} warm calls")
    print(f"{'run':45} {'dpkit':>10} {'peer':>10} {'ratio':>6}  epsilon at delta 1e-5: dpkit, peer")
    for name, event in RUNS.items():
        mechanism = bridge.from_event(event)
        own_time, bounds = median(lambda m=mechanism: ours.epsilon(m, delta=DELTA), repeats)
        peer_time, peer = median(lambda e=event: PLDAccountant().compose(e).get_epsilon(DELTA), repeats)
        ratios.append(peer_time / own_time)
        assert isinstance(bounds, accounting.Bounds)
        print(
            f"{name:45} {own_time * 1e3:7.1f} ms {peer_time * 1e3:7.0f} ms {ratios[-1]:6.1f}  "
            f"[{bounds.lower:.5g}, {bounds.upper:.5g}], {peer:.5g}"
        )
    print(f"median ratio {statistics.median(ratios):.1f}, least {min(ratios):.1f}")


if __name__ == "__main__":
    main()
