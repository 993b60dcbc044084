"""Every strategy at one setting, and every published or independently computed value on record beside ours.

    python benchmarks/anchors.py [--quick]

The first table is the federated run of 2,052 rounds in which a device takes part at most six times, 342 rounds apart:
root mean error of the prefix sums at noise multiplier 1. `known` is the least value on record for the same strategy,
from the literature, from an independent prototype or from a peer. --quick leaves out what takes more than ten seconds.
"""

import argparse
import math
import time
from collections.abc import Callable

from dpkit import factorization as fz
from dpkit import mechanisms
from dpkit.accounting import PldAccountant, RdpAccountant

WORK = fz.prefix_sum()
ROUNDS = fz.MinSep(iterations=2_052, min_sep=342, max_participations=6)
SHORT = fz.MinSep(iterations=64, min_sep=16, max_participations=4)


def found(family: fz.Strategy, schema: fz.ParticipationSchema = ROUNDS, work=WORK, objective="rmse") -> float:
    solution = fz.optimize(family, work, schema, objective=objective)
    return solution.rmse if objective == "rmse" else solution.max_error


def tree_square(n: int, b: int, k: int) -> float:
    return fz.Tree(iterations=n).sensitivity(fz.MinSep(n, b, k)) ** 2


def gboard(accountant) -> float:
    schema = fz.MinSep(iterations=2_000, min_sep=314, max_participations=6)
    noise = 7 / fz.Tree(iterations=2_000).sensitivity(schema)
    return accountant.epsilon(mechanisms.Gaussian(noise), delta=1e-10).upper


def single(family: fz.Strategy, n: int, objective: str = "max_error") -> float:
    return found(family, fz.SingleParticipation(n), objective=objective)


BLT, SCALED = fz.BufferedLinearToeplitz, fz.WindowScaled
# name, value on record, ours, whether it takes more than ten seconds
SETTING: list[tuple[str, float | None, Callable[[], float], bool]] = [
    ("independent noise", None, lambda: found(fz.Identity()), False),
    ("independent noise, scaled by window", None, lambda: found(SCALED(fz.Identity())), False),
    ("tree, plain", None, lambda: found(fz.Tree(2_052, decoder="plain")), False),
    ("tree, online Honaker", 19.275, lambda: found(fz.Tree(2_052)), False),
    ("tree, full Honaker", None, lambda: found(fz.Tree(2_052, decoder="full")), False),
    ("banded square root, 342 bands", None, lambda: found(fz.BandedSquareRoot(342)), False),
    ("banded inverse square root, 200 bands", None, lambda: found(fz.BandedInverseSquareRoot(200)), False),
    ("BLT, 3 buffers", 9.1713, lambda: found(BLT(3)), False),
    ("BLT, 3 buffers, scaled by window", None, lambda: found(SCALED(BLT(3))), False),
    ("banded Toeplitz, 342 bands", 8.8041, lambda: found(fz.BandedToeplitz(342)), False),
    ("banded Toeplitz, 342 bands, scaled", None, lambda: found(SCALED(fz.BandedToeplitz(342))), False),
    ("banded, 32 bands, equal norms", 15.917, lambda: found(fz.Banded(32, "equal")), False),
    ("banded, 32 bands, optimal norms", 15.314, lambda: found(fz.Banded(32)), False),
    ("banded, 342 bands, equal norms", 8.5952, lambda: found(fz.Banded(342, "equal")), True),
    ("banded, 342 bands, optimal norms", 8.474, lambda: found(fz.Banded(342)), True),
]
ANCHORS: list[tuple[str, float | None, Callable[[], float], bool]] = [
    ("square root, max, n = 1,024", 3.272554, lambda: single(fz.SquareRoot(), 1_024), False),
    ("square root, max, n = 2,052", 3.493850, lambda: single(fz.SquareRoot(), 2_052), False),
    ("square root, max, n = 1e6", 5.463889, lambda: single(fz.SquareRoot(), 10**6), False),
    ("dense, mean, n = 64", 2.099856, lambda: single(fz.Dense(), 64, "rmse"), False),
    ("dense, max (gamma_2), n = 64", 2.11137, lambda: single(fz.Dense(), 64), False),
    ("BLT, max, n = 1e5, 2 buffers", 5.296747, lambda: single(BLT(2), 10**5), False),
    ("BLT, max, n = 1,000, 1 buffer", 3.850205, lambda: single(BLT(1), 1_000), False),
    ("BLT, max, n = 1,000, 2 buffers", 3.321262, lambda: single(BLT(2), 1_000), False),
    ("BLT, max, n = 1,000, 3 buffers", 3.269918, lambda: single(BLT(3), 1_000), False),
    ("BLT, max, n = 1,000, 4 buffers", 3.265380, lambda: single(BLT(4), 1_000), False),
    (
        "BLT, mean, (1e4, k 10, b 1000), 3 buffers",
        math.sqrt(210.56),
        lambda: found(BLT(3), fz.MinSep(10**4, 1_000)),
        False,
    ),
    ("tree, squared sensitivity (8, k 1, b 8)", 4, lambda: tree_square(8, 8, 1), False),
    ("tree, squared sensitivity (9, k 3, b 4)", 11, lambda: tree_square(9, 4, 3), False),
    ("tree, squared sensitivity (7, k 3, b 3)", 9, lambda: tree_square(7, 3, 3), False),
    ("tree, squared sensitivity (24, k 8, b 3)", 88, lambda: tree_square(24, 3, 8), False),
    ("tree, squared sensitivity (2000, k 6, b 314)", 79, lambda: tree_square(2_000, 314, 6), False),
    ("tree, squared sensitivity (2052, k 6, b 342)", 118, lambda: tree_square(2_052, 342, 6), False),
    ("Gboard es-ES, epsilon by RDP", 8.8985, lambda: gboard(RdpAccountant()), False),
    ("Gboard es-ES, epsilon by PLD", 8.5261, lambda: gboard(PldAccountant()), False),
    ("(64, k 4, b 16) banded, equal norms, mean", 4.585236, lambda: found(fz.Banded(16, "equal"), SHORT), False),
    ("(64, k 4, b 16) banded Toeplitz, mean", 4.7001, lambda: found(fz.BandedToeplitz(16), SHORT), False),
    ("(64, k 4, b 16) banded square root 16, mean", 4.7214, lambda: found(fz.BandedSquareRoot(16), SHORT), False),
    ("(64, k 4, b 16) banded inverse root 8, mean", 4.9432, lambda: found(fz.BandedInverseSquareRoot(8), SHORT), False),
    ("FixedEpoch(64, 4), dense, mean", 4.407853, lambda: found(fz.Dense(), fz.FixedEpoch(64, 4)), False),
    (
        "(64, k 4, b 16) banded, equal, momentum 0.9",
        27.412236,
        lambda: found(fz.Banded(16, "equal"), SHORT, fz.momentum_sgd(0.9)),
        False,
    ),
]


def show(title: str, rows: list[tuple[str, float | None, Callable[[], float], bool]], quick: bool) -> None:
    print(f"\n{title}\n{'':46} {'dpkit':>12} {'known':>12} {'ratio':>10} {'seconds':>9}")
    for name, known, ours, slow in rows:
        if slow and quick:
            continue
        began = time.perf_counter()
        value = ours()
        against = f"{known:12.7g} {value / known:10.6f}" if known is not None else f"{'':12} {'':10}"
        print(f"{name:46} {value:12.7g} {against} {time.perf_counter() - began:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out what takes more than ten seconds")
    quick = parser.parse_args().quick
    show("2,052 rounds, at most 6 per device, 342 apart: root mean error", SETTING, quick)
    show("Values on record", ANCHORS, quick)


if __name__ == "__main__":
    main()
