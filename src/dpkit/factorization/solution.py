"""What an optimisation found, and how good it is proved to be."""

import dataclasses
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from dpkit.factorization.base import Strategy
    from dpkit.factorization.participation import ParticipationSchema
    from dpkit.factorization.workload import Workload


@dataclasses.dataclass(frozen=True)
class Solution:
    """The result of `optimize`. Errors are root errors at sensitivity 1: they already contain the sensitivity.

    Args:
        strategy: the optimised strategy.
        rmse: sensitivity times the root mean of the squared per-query errors.
        max_error: sensitivity times the largest per-query error.
        sensitivity: of `strategy` under the participation schema it was optimised for, recomputed after the solve.
        gap: certified relative optimality gap. No strategy of the same family (bands and rule for column norms alike)
            has an objective, squared, below `1 - gap` times this one's, squared; so the objective itself is within
            about `gap / 2` of the least one. None where nothing is certified.
        iterations: steps that the optimiser took.
        seconds: wall time.
        converged: whether the optimiser met its tolerance. An unconverged strategy is valid, only not known to be best.
        message: why the optimiser stopped, in words.

    >>> from dpkit import factorization as fz
    >>> solution = fz.optimize(fz.Banded(num_bands=4), fz.prefix_sum(), fz.SingleParticipation(iterations=16))
    >>> solution.converged, solution.sensitivity
    (True, 1.0)
    """

    strategy: "Strategy"
    rmse: float
    max_error: float
    sensitivity: float
    gap: float | None
    iterations: int
    seconds: float
    converged: bool
    message: str

    @classmethod
    def of(
        cls,
        strategy: "Strategy",
        workload: "Workload",
        schema: "ParticipationSchema",
        *,
        gap: float | None = None,
        iterations: int = 0,
        seconds: float = 0.0,
        converged: bool = True,
        message: str = "nothing to optimise",
    ) -> Self:
        """`strategy` with its sensitivity and errors, computed from the strategy alone; the rest as in the class."""
        return cls(
            strategy=strategy,
            rmse=strategy.rmse(workload, schema),
            max_error=strategy.max_error(workload, schema),
            sensitivity=strategy.sensitivity(schema),
            gap=gap,
            iterations=iterations,
            seconds=seconds,
            converged=converged,
            message=message,
        )


@dataclasses.dataclass(frozen=True)
class Progress:
    """What an optimiser tells its callback.

    Args:
        iterations: steps taken so far.
        error: the objective now, "rmse" or "max_error", as `Solution` has it.
        gap: certified relative optimality gap now, as `Solution` has it; None where nothing is certified.
        seconds: wall time so far.
    """

    iterations: int
    error: float
    gap: float | None
    seconds: float
