"""Strategies of every form, for runs of at most `ITERATIONS` steps."""

import numpy as np

from dpkit import factorization as fz

ITERATIONS = 21
_rng = np.random.default_rng(0)
_dense = np.tril(_rng.uniform(-0.5, 0.5, (ITERATIONS, ITERATIONS)), -1) + np.diag(_rng.uniform(0.5, 2, ITERATIONS))
_bands = np.hstack([_rng.uniform(0.5, 2, (ITERATIONS, 1)), _rng.uniform(-0.5, 0.5, (ITERATIONS, 4))])
_bands[np.arange(5) > np.arange(ITERATIONS)[:, None]] = 0
_blt = fz.BufferedLinearToeplitz(theta=[0.9, 0.5, 0.0], omega=[0.3, 0.2, 0.1])

STRATEGIES: dict[str, fz.Strategy] = {
    "identity": fz.Identity(),
    "banded": fz.Banded(5, coefficients=_bands),
    "one band": fz.Banded(1, coefficients=_bands[:, :1]),
    "banded Toeplitz": fz.BandedToeplitz(3, coefficients=[2.0, 0.5, -0.3]),
    "more bands than steps": fz.BandedToeplitz(30, coefficients=np.linspace(1, 0.1, 30)),
    "banded square root": fz.BandedSquareRoot(4, momentum=0.9),
    "banded inverse": fz.BandedInverseSquareRoot(4),
    "square root": fz.SquareRoot(),
    "dense": fz.Dense(_dense),
    "blt": _blt,
    "alternating blt": fz.BufferedLinearToeplitz(theta=[0.9, -0.5], omega=[0.3, 0.2]),
    "scaled identity": fz.WindowScaled(fz.Identity(), 4, [1.0, 0.5]),
    "scaled blt": fz.WindowScaled(_blt, 8, [1.0, 0.5, 0.25]),
    "full tree": fz.Tree(ITERATIONS, "full"),
}
for _decoder in ("plain", "online"):
    STRATEGIES |= {
        f"{_decoder} tree": fz.Tree(ITERATIONS, _decoder),
        f"{_decoder} trees of 6": fz.Tree(ITERATIONS, _decoder, restart_every=6),
        f"{_decoder} trees of 7, to the end": fz.Tree(ITERATIONS, _decoder, restart_every=7, completion=True),
        f"{_decoder} trees of 6, completed": fz.Tree(ITERATIONS, _decoder, restart_every=6, completion=True),
        f"{_decoder} trees of 8, completed": fz.Tree(ITERATIONS, _decoder, restart_every=8, completion=True),
        f"{_decoder} trees of 1": fz.Tree(ITERATIONS, _decoder, restart_every=1, completion=True),
    }


def is_square(strategy: fz.Strategy) -> bool:
    """Whether the stream's draws are those of C^{-1} one by one, and not only of the same law."""
    return not isinstance(strategy, fz.Tree) or strategy.decoder == "full"
