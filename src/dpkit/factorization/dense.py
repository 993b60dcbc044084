"""Strategies given by a dense matrix, and the best of all strategies for a moderate number of iterations."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dpkit.factorization.base import Strategy, dense_size
from dpkit.factorization.forms import Form
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.sensitivity import gram_sensitivity
from dpkit.factorization.values import Array, check_scale, frozen_array
from dpkit.factorization.workload import Workload

if TYPE_CHECKING:
    from dpkit.factorization.solution import Progress, Solution


@dataclasses.dataclass(frozen=True, eq=False)
class Dense(Strategy):
    """Any lower-triangular C, for as many iterations as it has rows, or fewer (its leading block).

    `optimize(Dense(), workload, schema)` finds the best strategy there is under `SingleParticipation` and `FixedEpoch`,
    to compare others with: O(n^3) per step, some 20 steps, n up to about 2,000. The certified `gap` is with respect to
    every matrix C of any shape, its sensitivity being that to contributions of at least as many dimensions as there are
    participations; the optimum under `FixedEpoch(n, k)` is a lower bound also under `MinSep(n, n / k, k)`.

    Under `MinSep` with several participations `optimize` refuses; use `Banded(num_bands=min_sep)`, the largest family
    whose sensitivity is known exactly: every C for which X = C^T C has X_ij = 0 for |i - j| >= min_sep.

    Sensitivity: exact for one participation, and under `FixedEpoch` where no two columns of one pattern have a negative
    inner product; an upper bound otherwise. See `gram_sensitivity`.

    Args:
        coefficients: (n, n), lower-triangular with no zero on the diagonal; None for the family that `optimize` fits.

    Raises:
        ValueError: `coefficients` is not such a matrix.

    >>> Dense([[1.0, 0.0], [1.0, 2.0]]).inverse_matrix(2)
    array([[ 1. ,  0. ],
           [-0.5,  0.5]])
    """

    coefficients: Array | None = None

    def __post_init__(self):
        if self.coefficients is None:
            return
        C = frozen_array("coefficients", self.coefficients, ndim=2)
        if C.shape[0] != C.shape[1] or np.any(np.triu(C, 1)) or not np.all(np.diag(C)):
            raise ValueError(
                f"coefficients must be square, lower-triangular and have no zero on the diagonal, got shape {C.shape}; "
                "use the lower-triangular factor of C^T C, whose noise is the same"
            )
        check_scale("coefficients", C)
        object.__setattr__(self, "coefficients", C)

    def matrix(self, n: int) -> Array:
        if self.coefficients is None:
            raise ValueError("Dense() has no coefficients yet; call optimize, or give them")
        if dense_size(n) > len(self.coefficients):
            raise ValueError(f"n must be <= {len(self.coefficients)}, the iterations of this strategy, got {n}")
        return self.coefficients[:n, :n].copy()

    def form(self, iterations: int | None = None) -> Form:
        longest = None if self.coefficients is None else len(self.coefficients)
        return super().form(longest if iterations is None else iterations)

    def sensitivity(self, schema: ParticipationSchema) -> float:
        C = self.matrix(schema.iterations)
        return gram_sensitivity(C.T @ C, schema)

    def _optimized(
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,
        callback: "Callable[[Progress], object] | None",
    ) -> "Solution":
        from dpkit.factorization.dense_solver import solve

        return solve(workload, schema, objective, callback)
