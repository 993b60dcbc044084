"""Strategies whose matrix is lower-triangular Toeplitz: everything from one column, without an n by n matrix."""

import abc
from collections.abc import Callable

import numpy as np
from scipy import linalg

from dpkit.factorization.base import MAX_DENSE, Strategy, dense_size
from dpkit.factorization.forms import Form, PastInputs
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.row_scales import UNSCALED, RowScales
from dpkit.factorization.sensitivity import rounded_up, shifted_sum, toeplitz_majorant
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.values import Array
from dpkit.factorization.workload import Workload


class ToeplitzStrategy(Strategy):
    """C[t, s] = c[t - s], and C^{-1}[t, s] = d[t - s], with c and d one another's reciprocal as power series.

    Sensitivity: exact if c is non-negative and non-increasing, or zero from some index <= min_sep on (also if
    each unit takes part once); otherwise that of the least non-increasing sequence above |c|, an upper bound.

    Everything holds for D C too, where the diagonal D does not increase (`WindowScaled`, which see for the proof); so
    the methods that compute take the row scales D, and C itself has none.
    """

    @abc.abstractmethod
    def first_column(self, n: int) -> Array:
        """c, the first column of C (n,)."""

    @abc.abstractmethod
    def inverse_first_column(self, n: int) -> Array:
        """d, the first column of C^{-1} (n,)."""

    def matrix(self, n: int) -> Array:
        return linalg.toeplitz(self.first_column(dense_size(n)), np.zeros(n))

    def inverse_matrix(self, n: int) -> Array:
        return linalg.toeplitz(self.inverse_first_column(dense_size(n)), np.zeros(n))

    def form(self, iterations: int | None = None) -> Form:
        if iterations is None:
            return super().form(iterations)
        return PastInputs(self.inverse_first_column(iterations)[None], iterations=iterations)

    def sensitivity(self, schema: ParticipationSchema) -> float:
        return self._sensitivity(schema, UNSCALED)

    def per_query_error(self, workload: Workload, n: int) -> Array:
        """(n,) standard deviations of the errors of A G at unit noise.

        No n by n matrix is made if the workload is Toeplitz, O(n log n), or if C and A^{-1} are banded, p bands
        together: O(n p^2).
        """
        return np.sqrt(self._variances(workload, n, UNSCALED))

    def _sensitivity(self, schema: ParticipationSchema, scales: RowScales) -> float:
        """Of D C: the pattern 0, min_sep, 2 min_sep, ... is the worst."""
        n, b, k = schema.iterations, schema.min_sep, schema.max_participations
        c = self.first_column(n)
        if k == 1 or num_bands(c) <= b:
            squares = shifted_sum(c**2, b, k)  # Columns of one pattern share no row.
        else:
            squares = shifted_sum(toeplitz_majorant(c), b, k) ** 2
        return rounded_up(float(scales.at(np.arange(n)) @ squares), n)

    def _variances(self, workload: Workload, n: int, scales: RowScales) -> Array:
        """(n,) squared row norms of A C^{-1} D^{-1}."""
        if workload.toeplitz(n) is not None:
            squares = np.cumsum(workload.apply(self.inverse_first_column(n)) ** 2)
            total = np.zeros(n)
            for start, increment in zip(*scales.noise_increments(n), strict=True):
                total[start:] += increment * squares[: n - start]
            return total
        c, inverse = self.first_column(n), workload.inverse_bands(n)
        if inverse is not None and num_bands(c) + inverse.shape[1] <= n:
            from dpkit.numerics.autoregression import band_product, windowed_covariance

            W = band_product(toeplitz_rows(c[: num_bands(c)], n), inverse)
            return windowed_covariance(np.sqrt(scales.at(np.arange(n)))[:, None] * W)[:, 0]
        return workload.apply(self.inverse_matrix(n)) ** 2 @ (1 / scales.at(np.arange(n)))

    def _squared_errors(self, workload: Workload, n: int, scales: RowScales = UNSCALED) -> tuple[float, float]:
        variances = self._variances(workload, n, scales)
        return float(np.mean(variances)), float(np.max(variances))

    def _scaled_optimum(  # The best `WindowScaled` of this family; here C is given and only the scales are free.
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,
        callback: Callable[[Progress], object] | None,  # noqa: ARG002
    ) -> Solution:
        from dpkit.factorization.toeplitz_solver import best_scaled

        n = schema.iterations
        if n * num_bands(self.first_column(n)) > MAX_DENSE**2 and workload.toeplitz(n) is None:
            dense_size(n)  # Raises: the entries of C's bands would take as much memory as too large a matrix.
        message = "no other scales are better for this strategy"
        return Solution.of(best_scaled(self, workload, schema, objective), workload, schema, message=message)


def num_bands(first_column: Array) -> int:
    """How many diagonals C has up to the last that is not zero."""
    return int(np.flatnonzero(first_column)[-1]) + 1


def toeplitz_rows(c: Array, n: int) -> Array:
    """The rows of C from the diagonal back (n, p): c (p,) in every row, 0 before the first column."""
    return np.where(np.arange(n)[:, None] >= np.arange(len(c)), c, 0.0)
