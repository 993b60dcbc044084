"""Every strategy, one row each: the contract tests run on all of them."""

import dataclasses

import numpy as np

from dpkit import factorization as fz

LENGTH = 64
"""Iterations that every row can do."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A strategy and what it promises.

    Args:
        exact: whether its sensitivity is exact, to scalar contributions, under every schema of `SCHEMAS`.
    """

    name: str
    strategy: fz.Strategy
    exact: bool = True


def _time_varying(num_bands: int) -> np.ndarray:
    """Rows of a banded C with entries of both signs and column norms that differ."""
    t, j = np.arange(LENGTH)[:, None], np.arange(num_bands)
    rows = (1 + 0.5 * np.cos(t)) * (-0.6) ** j
    return np.where(t < j, 0.0, rows)


def _optimal(family: fz.Strategy) -> fz.Strategy:
    schema = fz.MinSep(iterations=LENGTH, min_sep=16, max_participations=4)
    return fz.optimize(family, fz.prefix_sum(), schema).strategy


ROWS = [
    Row("identity", fz.Identity()),
    Row("square-root", fz.SquareRoot()),
    Row("square-root-momentum", fz.SquareRoot(momentum=0.9, weight_decay=0.01)),
    Row("banded-square-root", fz.BandedSquareRoot(5)),
    Row("banded-inverse-square-root", fz.BandedInverseSquareRoot(4)),
    Row("banded", _optimal(fz.Banded(num_bands=8))),
    Row("banded-signed", fz.Banded(num_bands=3, coefficients=_time_varying(3)), exact=False),
    Row("banded-toeplitz", _optimal(fz.BandedToeplitz(num_bands=8))),
    Row("blt", fz.BufferedLinearToeplitz(theta=[0.97, 0.5], omega=[0.1, 0.2])),
    Row("window-scaled-identity", fz.WindowScaled(fz.Identity(), window=5, scales=[1.0, 0.8, 0.75])),
    Row("window-scaled-blt", _optimal(fz.WindowScaled(fz.BufferedLinearToeplitz(num_buffers=2)))),
    Row("tree-plain", fz.Tree(iterations=LENGTH, decoder="plain")),
    Row("tree-online", fz.Tree(iterations=LENGTH)),
    Row("tree-full", fz.Tree(iterations=LENGTH, decoder="full")),
    Row("tree-restarts", fz.Tree(iterations=LENGTH, restart_every=6, completion=True)),
    Row("dense", fz.Dense(fz.SquareRoot().matrix(LENGTH) + np.tri(LENGTH, k=-2) * 0.01), exact=False),
]

SCHEMAS = [
    fz.SingleParticipation(10),
    fz.FixedEpoch(10, 2),
    fz.FixedEpoch(9, 3),
    fz.MinSep(10, 4),
    fz.MinSep(9, 2, 3),
    fz.MinSep(7, 1, 3),
]


def by_name() -> dict:
    """Keyword arguments of `pytest.mark.parametrize` for a row."""
    return {"argvalues": ROWS, "ids": [row.name for row in ROWS]}
