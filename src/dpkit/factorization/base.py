"""What a strategy is: the matrix C whose noisy product is released in place of the per-step sums."""

import abc
import math
from collections.abc import Callable

import numpy as np
from scipy import linalg

from dpkit import validation
from dpkit.factorization.forms import Form, PastInputs, rows_from_diagonal
from dpkit.factorization.participation import ParticipationSchema, SingleParticipation
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.values import Array, ByValue
from dpkit.factorization.workload import Workload

MAX_DENSE = 16_384
"""The most iterations for which an n by n matrix is made (2 GiB)."""


class Strategy(ByValue, abc.ABC):
    """A frozen value: the strategy matrix C of a factorization A = B C of a workload A.

    The mechanism releases C G + noise, where row t of G (n, m) is the sum of the units' contributions at step t, and
    so A G + B noise with B = A C^{-1}. C is lower-triangular, so step t's noise, row t of C^{-1} noise, is known at
    step t, and the guarantee of the Gaussian mechanism holds also for contributions that react to past outputs
    (Denisov et al. 2022). A strategy may have more rows than columns (a tree has one per node); then C^{-1} is
    a left inverse.

    A family that still has to be fitted (`BandedToeplitz(num_bands=8)`) is the same class without its coefficients; to
    use it raises a ValueError that says to call `optimize`.
    """

    @abc.abstractmethod
    def matrix(self, n: int) -> Array:
        """C for n iterations, dense (rows, n), rows = n unless the class says otherwise. For tests and small n.

        Raises:
            ValueError: the strategy is not fitted, or not for as many as n iterations, or n is above 16,384.
        """

    def inverse_matrix(self, n: int) -> Array:
        """C^{-1}, dense (n, rows): `inverse_matrix(n) @ matrix(n)` is the identity. Its row t is step t's noise."""
        return linalg.solve_triangular(self.matrix(n), np.eye(n), lower=True)

    @abc.abstractmethod
    def sensitivity(self, schema: ParticipationSchema) -> float:
        """L2 sensitivity of C G: the most that one unit, each of its contributions of norm <= 1, can move it.

        Exact, or a proved upper bound, as the class says; rounded up. Zero-out adjacency: the unit's contributions
        are there or zero. Contributions may have any sign and direction.
        """

    def form(self, iterations: int | None = None) -> Form:
        """How the noise C^{-1} z of a run of so many steps is made step by step; by whole rows of C^{-1} if need be.

        Args:
            iterations: the steps of the run; None: as many as the strategy is good for.

        Raises:
            ValueError: the strategy is not fitted, or not for as many steps, or it is good for any number of them but
                what has to be kept depends on it.
        """
        if iterations is None:
            raise ValueError(f"iterations must be given for {self}: every step's noise is made of all draws before it")
        return PastInputs(rows_from_diagonal(self.inverse_matrix(iterations)), iterations=iterations)

    def per_query_error(self, workload: Workload, n: int) -> Array:
        """(n,) standard deviations of the errors of A G at unit noise: the norms of the rows of A C^{-1}."""
        return np.linalg.norm(workload.apply(self.inverse_matrix(n)), axis=1)

    def rmse(self, workload: Workload, schema: ParticipationSchema | int) -> float:
        """Root of the mean squared error over all queries at noise of standard deviation `sensitivity(schema)`.

        That is the error at 1-GDP (at noise multiplier 1), and does not change when C is scaled; multiply by the noise
        multiplier and the clipping norm. An int n in place of the schema means `SingleParticipation(n)`.
        """
        schema = as_schema(schema)
        return self.sensitivity(schema) * math.sqrt(self._squared_errors(workload, schema.iterations)[0])

    def max_error(self, workload: Workload, schema: ParticipationSchema | int) -> float:
        """The largest standard deviation of any query's error, at the same noise and with the same schema as `rmse`."""
        schema = as_schema(schema)
        return self.sensitivity(schema) * math.sqrt(self._squared_errors(workload, schema.iterations)[1])

    def _squared_errors(self, workload: Workload, n: int) -> tuple[float, float]:
        """(mean, largest) squared per-query error: the one place for closed forms of both."""
        squares = self.per_query_error(workload, n) ** 2
        return float(np.mean(squares)), float(np.max(squares))

    def _optimized(  # What `optimize` calls; see there. Families of more than one member override it.
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,  # noqa: ARG002
        callback: Callable[[Progress], object] | None,  # noqa: ARG002
    ) -> Solution:
        return Solution.of(self, workload, schema)


def as_schema(schema: ParticipationSchema | int) -> ParticipationSchema:
    """`schema`, or `SingleParticipation` of that many iterations."""
    return schema if isinstance(schema, ParticipationSchema) else SingleParticipation(schema)


def dense_size(n: int) -> int:
    """`n`, or `ValueError` if it is not a number of iterations for which a dense matrix is made."""
    n = validation.count("n", n, minimum=1)
    if n > MAX_DENSE:
        raise ValueError(f"n must be <= {MAX_DENSE} for a dense matrix, got {n}; errors and sensitivity need none")
    return n


def lower_factor(gram: Array) -> Array:
    """The lower-triangular C with C^T C = gram: a Cholesky factor of the reversed matrix, reversed."""
    return linalg.cholesky(gram[::-1, ::-1], lower=False)[::-1, ::-1]
