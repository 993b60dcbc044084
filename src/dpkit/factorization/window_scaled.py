"""Toeplitz strategies with a scale for every window of steps: noise that grows over the run."""

import dataclasses
from collections.abc import Callable

import numpy as np

from dpkit import validation
from dpkit.factorization.base import Strategy
from dpkit.factorization.forms import Form
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.row_scales import RowScales
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.toeplitz import ToeplitzStrategy
from dpkit.factorization.values import Array, frozen_array
from dpkit.factorization.workload import Workload

# The sensitivity is a sum of squares of scales times coefficients >= 1e-100, which must not underflow.
_LEAST = 1e-50


@dataclasses.dataclass(frozen=True, eq=False)
class WindowScaled(Strategy):
    """C = D T: row t of a Toeplitz strategy's matrix T times `scales[t // window]`, the last scale for all later steps.

    Where units take part several times, early steps deserve more of the sensitivity, because more queries see their
    noise. Streaming needs no more state than T: step t's noise is that of T with fresh noise z_t / scales[t // window].
    `WindowScaled(BufferedLinearToeplitz(num_buffers=3))` is the family that `optimize` fits, with one scale for each
    participation (windows of min_sep) and the parameters of T together; with `Identity` or a square root, whose T is
    given, it fits the scales alone, to their optimum: DP-SGD whose noise grows. The optimum is never worse than that
    without scales. The max error can be optimised for Toeplitz workloads only.

    Args:
        strategy: T, or its family: any Toeplitz strategy.
        window: steps of one scale, >= 1; given together with scales.
        scales: (m,) positive and non-increasing. Only their ratios matter for the error at a given privacy.

    Raises:
        ValueError: an argument is out of range, or only one of window and scales is given.

    Guarantees: with p <= q two steps of one pattern, the product of their columns is
        X_pq = sum_{t >= q} s_t^2 c_{t-p} c_{t-q} = sum_{u < n - q} s_{u+q}^2 c_{u+q-p} c_u.
    For c >= 0 and s and c non-increasing it is >= 0 and increases neither with q nor with the gap q - p. The i-th and
    j-th step of a pattern are at least i * min_sep and (j - i) * min_sep from the start and from one another, so 0,
    min_sep, 2 min_sep, ... (a pattern of every schema) is the worst, and `sensitivity` exact; for other c it is that of
    the least non-increasing sequence above |c|, an upper bound. If columns of one pattern share no row, X is diagonal
    there, and the same pattern is the worst for c of any sign. Errors are exact, in time linear in the steps, or in
    their logarithm where T's are. For Toeplitz workloads the last query's is the largest: sum_r y_r^2 / s_{t-r}^2,
    y the first column of A T^{-1}, does not decrease with t.

    >>> from dpkit import factorization as fz
    >>> schema = fz.FixedEpoch(iterations=1024, epochs=8)
    >>> fz.Identity().rmse(fz.prefix_sum(), schema)
    64.031242
    >>> solution = fz.optimize(fz.WindowScaled(fz.Identity()), fz.prefix_sum(), schema)
    >>> solution.rmse, solution.strategy.window, solution.strategy.scales[:3].round(3)
    (60.593324, 128, array([1.   , 0.965, 0.925]))
    """

    strategy: ToeplitzStrategy
    window: int | None = None
    scales: Array | None = None

    def __post_init__(self):
        if not isinstance(self.strategy, ToeplitzStrategy):
            raise ValueError(f"strategy must be a Toeplitz strategy, got {self.strategy}; Banded has norms of its own")
        if self.window is None or self.scales is None:
            if not (self.window is None and self.scales is None):
                raise ValueError("window and scales must be given together, or neither for the family")
            return
        scales = frozen_array("scales", self.scales)
        if np.any(np.diff(scales) > 0):
            raise ValueError(f"scales must not increase, or the sensitivity is not known exactly, got {scales}")
        if not _LEAST <= scales[-1] <= scales[0] <= 1 / _LEAST:
            raise ValueError(f"scales must be between {_LEAST} and {1 / _LEAST}, got {scales}; divide by the first one")
        object.__setattr__(self, "window", validation.count("window", self.window, minimum=1))
        object.__setattr__(self, "scales", scales)

    def matrix(self, n: int) -> Array:
        C = self.strategy.matrix(n)
        return np.sqrt(self._fitted().at(np.arange(n)))[:, None] * C

    def inverse_matrix(self, n: int) -> Array:
        inverse = self.strategy.inverse_matrix(n)
        return inverse / np.sqrt(self._fitted().at(np.arange(n)))

    def form(self, iterations: int | None = None) -> Form:
        self._fitted()
        return dataclasses.replace(self.strategy.form(iterations), window=self.window, scales=self.scales)

    def sensitivity(self, schema: ParticipationSchema) -> float:
        return self.strategy._sensitivity(schema, self._fitted())

    def per_query_error(self, workload: Workload, n: int) -> Array:
        return np.sqrt(self.strategy._variances(workload, n, self._fitted()))

    def _squared_errors(self, workload: Workload, n: int) -> tuple[float, float]:
        return self.strategy._squared_errors(workload, n, self._fitted())

    def _fitted(self) -> RowScales:
        if self.window is None or self.scales is None:
            raise ValueError(f"{self} has no scales yet; call optimize, or give window and scales")
        return RowScales(self.window, self.scales**2)

    def _optimized(
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,
        callback: Callable[[Progress], object] | None,
    ) -> Solution:
        return self.strategy._scaled_optimum(workload, schema, objective, callback)
