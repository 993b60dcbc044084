"""Banded strategies: the best C with a given number of diagonals."""

import dataclasses
from collections.abc import Callable
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from dpkit import validation
from dpkit.factorization.base import Strategy, dense_size
from dpkit.factorization.column_norms import ColumnNorms
from dpkit.factorization.forms import Form, PastOutputs
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.sensitivity import banded_sensitivity, gram_sensitivity
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.values import Array, check_scale, frozen_array
from dpkit.factorization.workload import Workload

_DENSE = 2_000


@dataclasses.dataclass(frozen=True, eq=False)
class Banded(Strategy):
    """C is lower-triangular with `num_bands` diagonals, each entry free. Streaming keeps num_bands - 1 past outputs.

    `Banded(num_bands=32)` is the family; `optimize` returns the member with the least error, and started from a member
    it goes on from there.

    Args:
        num_bands: diagonals of C, the main one included, >= 1; 1 is independent noise, with a schedule if norms differ.
        column_norms: what `optimize` may choose. "equal": all columns of C have norm 1, the convention of the
            literature. "optimal": only the largest sum of squared norms over a participation pattern counts, and early
            columns, whose noise is seen by more queries, take a larger share. No difference for one participation.
        coefficients: (n, num_bands), `coefficients[t, j]` = C[t, t - j]; 0 where t < j, > 0 where j = 0.

    Raises:
        ValueError: an argument is out of range or of the wrong shape.

    Guarantees: `sensitivity` is exact where num_bands <= min_sep or units take part once, for entries of any sign;
    otherwise it is that of `gram_sensitivity`, which says when it is exact, at the cost of an n-by-n matrix. Errors are
    exact, in time linear in n for a workload with a banded inverse. Fewer iterations than n use the leading block of C.

    References: Choquette-Choo et al. (2023), "(Amplified) Banded Matrix Factorization: A unified approach to private
    training", for the family and the sensitivity at equal norms.

    >>> from dpkit.factorization import SingleParticipation, prefix_sum
    >>> strategy = Banded(num_bands=2, coefficients=[[0.8, 0.0], [0.8, 0.6], [1.0, 0.6]])
    >>> strategy.matrix(3)
    array([[0.8, 0. , 0. ],
           [0.6, 0.8, 0. ],
           [0. , 0.6, 1. ]])
    >>> strategy.rmse(prefix_sum(), SingleParticipation(iterations=3))
    1.321398
    """

    num_bands: int
    column_norms: ColumnNorms = "optimal"
    coefficients: ArrayLike | None = None

    def __post_init__(self):
        object.__setattr__(self, "num_bands", validation.count("num_bands", self.num_bands, minimum=1))
        if self.column_norms not in get_args(ColumnNorms):
            raise ValueError(f'column_norms must be "optimal" or "equal", got {self.column_norms!r}')
        if self.coefficients is None:
            return
        C = frozen_array("coefficients", self.coefficients, ndim=2)
        if C.shape[1] != self.num_bands:
            raise ValueError(f"coefficients must have shape (iterations, num_bands={self.num_bands}), got {C.shape}")
        if np.min(C[:, 0]) <= 0:
            raise ValueError(f"coefficients[:, 0], the diagonal of C, must be > 0, got {np.min(C[:, 0])}")
        if np.any(C[np.arange(C.shape[1]) > np.arange(len(C))[:, None]]):
            raise ValueError("coefficients[t, j] must be 0 where t < j: there is no column before the first")
        check_scale("coefficients", C)
        object.__setattr__(self, "coefficients", C)

    def matrix(self, n: int) -> Array:
        rows = self.rows(dense_size(n))
        C = np.zeros((n, n))
        for j in range(min(n, self.num_bands)):
            C[range(j, n), range(n - j)] = rows[j:, j]
        return C

    def rows(self, n: int) -> Array:
        """The first n rows of `coefficients` (n, num_bands): the leading block of C."""
        if not isinstance(self.coefficients, np.ndarray):
            raise ValueError(f"{self} has no coefficients yet; call optimize, or give them")
        if not 1 <= n <= len(self.coefficients):
            raise ValueError(
                f"n must be between 1 and the {len(self.coefficients)} iterations this strategy was made for, got {n}; "
                "optimize for the longer run: its sensitivity is another one"
            )
        return self.coefficients[:n]

    def form(self, iterations: int | None = None) -> Form:
        given = 1 if self.coefficients is None else len(np.asarray(self.coefficients))
        C = self.rows(given if iterations is None else iterations)
        return PastOutputs(C[:, : len(C)], iterations=len(C))

    def squared_column_norms(self, n: int) -> Array:
        """(n,), those of the leading n-by-n block of C."""
        rows = self.rows(n)
        total = np.zeros(n)
        for j in range(min(n, self.num_bands)):
            total[: n - j] += rows[j:, j] ** 2
        return total

    def sensitivity(self, schema: ParticipationSchema) -> float:
        n = schema.iterations
        if schema.max_participations == 1 or self.num_bands <= schema.min_sep:
            return banded_sensitivity(self.squared_column_norms(n), self.num_bands, schema)
        C = self.matrix(n)
        return gram_sensitivity(C.T @ C, schema)

    def per_query_error(self, workload: Workload, n: int) -> Array:
        inverse = workload.inverse_bands(n)
        if inverse is None:
            return super().per_query_error(workload, n)
        from dpkit.numerics.autoregression import band_product, windowed_covariance

        return np.sqrt(windowed_covariance(band_product(self.rows(n)[:, :n], inverse))[:, 0])

    def _optimized(
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,
        callback: Callable[[Progress], object] | None,
    ) -> Solution:
        from dpkit.factorization.banded_solver import solve

        return solve(self, workload, schema, objective, callback)


def verify(found: Banded, variances: Array, workload: Workload, schema: ParticipationSchema) -> None:
    """Checks what a solver found by other routes than it took: the norms, and the squared errors (n,), all or three.

    Raises:
        RuntimeError: the sensitivity is above sqrt(max_participations), equal norms are not, or the errors differ.
    """
    n, k = schema.iterations, schema.max_participations
    unequal = np.max(np.abs(found.squared_column_norms(n) - 1)) if found.column_norms == "equal" else 0.0
    if found.sensitivity(schema) ** 2 > k * (1 + 1e-9) or unequal > 1e-9:
        raise RuntimeError(f"the column norms found do not have sensitivity sqrt({k}); please report this")
    inverse = workload.inverse_bands(n)
    if n <= _DENSE or inverse is None:
        steps = np.arange(n)
        rows = linalg.solve_triangular(found.matrix(n).T, workload.matrix(n).T)
    else:
        from dpkit.numerics.autoregression import band_product, band_solve

        # Row t of W^-1, W = C A^-1, solves W^T y = e_t.
        steps = np.array([0, n // 2, n - 1])
        units = (np.arange(n)[:, None] == steps).astype(np.float64)
        rows = band_solve(band_product(found.rows(n)[:, :n], inverse), units, transposed=True)
    if not np.allclose(np.sum(rows**2, axis=0), variances[steps], rtol=1e-8, atol=0):
        raise RuntimeError("the errors found differ from those of an independent computation; please report this")
