"""Randomized quantization beside the Poisson binomial mechanism at equal bits and equal variance, and what it takes.

    python benchmarks/quantization.py

Youn, Hu, Ziani and Abernethy (2023) claim that randomized quantization (RQM) has a lower Renyi divergence than the
Poisson binomial mechanism (PBM) at every order, for one client and for forty, at equal variance and communication. Here
both have m codes (RQM m levels, PBM m - 1 coins) and so the same bits for any number of clients, inputs in [-1, 1], and
PBM's theta is set so that its worst variance over all inputs is RQM's. Our divergences are worst cases over all inputs
of all clients; the paper's are those of the two ends, the other clients at one end. Both are printed: `ratio` is
RQM / PBM of worst cases, `ends` the same of the two ends. Below 1 the claim holds.

For several clients RQM's worst case over the others is enumerated for as many as `counted` of them and bounds the rest
from above; PBM's is exact. There only `ends` compares like with like.
"""

import functools
import math
import platform
import time

import numpy as np
from scipy import stats

from dpkit import NeighboringRelation
from dpkit.mechanisms import PoissonBinomial, RandomizedQuantization

REPLACE = NeighboringRelation.REPLACE_ONE
ORDERS = np.array([1.5, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, math.inf])
SETTINGS = [(16, 0.42, 1.0), (16, 0.57, 0.67), (16, 0.33, 1.33), (16, 0.1, 2.0), (8, 0.42, 1.0), (64, 0.1, 1.0)]


def worst_variance(mechanism: RandomizedQuantization) -> float:
    """Of one client's estimate. Quadratic and concave in the input between levels, so a fine grid finds its maximum."""
    estimates = mechanism.decode(np.arange(mechanism.levels))
    return max(float(mechanism.pmf(x) @ (estimates - x) ** 2) for x in np.linspace(0, mechanism.clip, 201))


def matched(quantization: RandomizedQuantization) -> PoissonBinomial | None:
    """The PBM of equal bits and equal worst variance 1 / (4 trials theta^2), if there is one."""
    trials = quantization.levels - 1
    theta = 1 / math.sqrt(4 * trials * worst_variance(quantization))
    return PoissonBinomial(trials, theta, 1.0) if theta < 0.5 else None


def renyi(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    held = (p > 0) & (q > 0)  # what float64 cannot hold counts for nothing in a comparison
    logs, loss = np.log(p[held]), np.log(p[held]) - np.log(q[held])
    finite = [np.logaddexp.reduce(logs + (a - 1) * loss) / (a - 1) for a in ORDERS[:-1]]
    return np.array([*finite, loss.max()])


def at_the_ends(high: np.ndarray, low: np.ndarray, clients: int) -> np.ndarray:
    """Divergences of the sum when one client goes from one end to the other and the others stay at one end."""
    worst = np.zeros(len(ORDERS))
    for others in (high, low):
        rest = functools.reduce(np.convolve, [others] * (clients - 1), np.ones(1))
        one, other = np.convolve(high, rest), np.convolve(low, rest)
        worst = np.maximum(worst, np.maximum(renyi(one, other), renyi(other, one)))
    return worst


def row(name: str, values: np.ndarray) -> None:
    print(f"  {name:8}" + "".join(f"{value:10.4f}" for value in values))


def compare(levels: int, keep: float, margin: float) -> None:
    quantization = RandomizedQuantization(levels, keep, margin, 1.0)
    coins = matched(quantization)
    print(f"\nRQM levels={levels} keep_probability={keep} margin={margin}; variance {worst_variance(quantization):.3f}")
    if coins is None:
        print("  no PBM of this variance: it would need a coin that always shows 1")
        return
    laws = [stats.binom.pmf(np.arange(levels), levels - 1, 0.5 + sign * coins.theta) for sign in (1, -1)]
    ends = [quantization.pmf(1.0), quantization.pmf(-1.0)]
    for clients in (1, 5, 40):
        ours, theirs = (type(m)(*_fields(m), clients=clients) for m in (quantization, coins))
        assert ours.bits == theirs.bits
        print(f"  PBM trials={levels - 1} theta={coins.theta:.4f}; clients={clients}; {ours.bits} bits")
        print("  order   " + "".join(f"{order:10g}" for order in ORDERS))
        a, b = ours.rdp(ORDERS, REPLACE), theirs.rdp(ORDERS, REPLACE)
        row("RQM", a)
        row("PBM", b)
        row("ratio", a / b)
        row("ends", at_the_ends(*ends, clients) / at_the_ends(*laws, clients))


def _fields(mechanism: RandomizedQuantization | PoissonBinomial) -> tuple:
    if isinstance(mechanism, PoissonBinomial):
        return mechanism.trials, mechanism.theta, mechanism.clip
    return mechanism.levels, mechanism.keep_probability, mechanism.margin, mechanism.clip


def seconds(name: str, action) -> None:
    began = time.perf_counter()
    action()
    print(f"  {name:56} {time.perf_counter() - began:8.2f}")


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for setting in SETTINGS:
        compare(*setting)
    print("\nseconds, compiled kernels loaded")
    orders = 1 + np.geomspace(0.01, 1000, 30)
    for keep in (0.003, 0.05, 0.42, 0.9):
        mechanism = RandomizedQuantization(1024, keep, 1.0, 1.0)
        seconds(f"RQM, 1,024 levels, keep {keep}: 30 orders", lambda m=mechanism: m.rdp(orders, REPLACE))
        seconds("  its privacy loss distribution", lambda m=mechanism: m.dominating_pairs(REPLACE))
    for clients in (64, 256):
        sent = PoissonBinomial(16, 0.25, 1.0, clients)
        seconds(f"PBM, {16 * clients} coins: 30 orders", lambda m=sent: m.rdp(orders, REPLACE))
        seconds("  its privacy loss distribution", lambda m=sent: m.dominating_pairs(REPLACE))


if __name__ == "__main__":
    main()
