"""The banded Toeplitz strategy, given or optimised."""

import dataclasses
from collections.abc import Callable

import numpy as np

from dpkit import validation
from dpkit.factorization.forms import Form, PastOutputs
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.series import divide
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.toeplitz import ToeplitzStrategy
from dpkit.factorization.values import Array, check_scale, frozen_array
from dpkit.factorization.workload import Workload


@dataclasses.dataclass(frozen=True, eq=False)
class BandedToeplitz(ToeplitzStrategy):
    """C[t, s] = coefficients[t - s] for t - s < num_bands, and 0 otherwise; for any number of iterations.

    `optimize(BandedToeplitz(num_bands), workload, schema)` fits the coefficients by L-BFGS: at O(n log num_bands) per
    step to a Toeplitz workload, at O(n (num_bands + q)^2) to another whose inverse has q bands. More bands than min_sep
    pay only where a unit takes part less often than the run has room for; the result then is non-negative and
    non-increasing, which makes its sensitivity exact. Nothing is certified about the optimum (`gap` is None): the loss
    is smooth in the coefficients, but not known to be convex.

    Args:
        num_bands: diagonals of C, the main one included, >= 1.
        coefficients: (num_bands,), of moduli up to 1e100, the first at least 1e-100; None for the family that
            `optimize` fits.

    Raises:
        ValueError: an argument is out of range, or the two do not fit together.

    >>> BandedToeplitz(num_bands=2, coefficients=[1.0, 0.5]).inverse_first_column(4)
    array([ 1.   , -0.5  ,  0.25 , -0.125])
    """

    num_bands: int
    coefficients: Array | None = None

    def __post_init__(self):
        object.__setattr__(self, "num_bands", validation.count("num_bands", self.num_bands, minimum=1))
        if self.coefficients is None:
            return
        c = frozen_array("coefficients", self.coefficients)
        if len(c) != self.num_bands:
            raise ValueError(f"coefficients must have num_bands={self.num_bands} entries, got {len(c)}")
        if c[0] == 0:
            raise ValueError("coefficients must begin with a number other than 0: C would be singular")
        check_scale("coefficients", c)
        object.__setattr__(self, "coefficients", c)

    def form(self, iterations: int | None = None) -> Form:
        return PastOutputs(self._given()[None, :iterations], iterations=iterations)

    def first_column(self, n: int) -> Array:
        c = self._given()[:n]
        return np.concatenate([c, np.zeros(n - len(c))])

    def inverse_first_column(self, n: int) -> Array:
        return divide(np.eye(1, n)[0], self._given())

    def _given(self) -> Array:
        if self.coefficients is None:
            raise ValueError(f"{self} has no coefficients yet; call optimize, or give them")
        return self.coefficients

    def _optimized(
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,
        callback: Callable[[Progress], object] | None,
    ) -> Solution:
        from dpkit.factorization.toeplitz_solver import solve

        return solve(self, workload, schema, objective, callback, scaled=False)

    def _scaled_optimum(
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,
        callback: Callable[[Progress], object] | None,
    ) -> Solution:
        from dpkit.factorization.toeplitz_solver import solve

        return solve(self, workload, schema, objective, callback, scaled=True)
