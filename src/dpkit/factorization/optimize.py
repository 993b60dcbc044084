"""`optimize`: the best member of a family of strategies for a workload and a participation schema."""

from collections.abc import Callable
from typing import Literal, get_args

from dpkit.factorization.base import Strategy
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.workload import Workload

Objective = Literal["rmse", "max_error"]


def optimize(
    strategy: Strategy,
    workload: Workload,
    schema: ParticipationSchema,
    *,
    objective: Objective = "rmse",
    callback: Callable[[Progress], object] | None = None,
) -> Solution:
    """The member of a family of strategies with the least error at sensitivity 1.

    Args:
        strategy: the family (`Banded(num_bands=32)`, `BandedToeplitz(num_bands=32)`,
            `BufferedLinearToeplitz(num_buffers=3)`, `WindowScaled(Identity())`, DP-SGD with growing noise, `Dense()`),
            or a member of it to start from. One that leaves nothing to choose (`Tree(iterations=64)`) comes back as it
            is, with its errors.
        workload: the queries whose error counts.
        schema: how units take part; its iterations are the length of the run.
        objective: "rmse", or "max_error" for the largest error of any query.
        callback: called with a `Progress` now and then; a true return value stops the search.

    Returns:
        The best strategy found, its sensitivity and errors recomputed from the strategy alone. A search that was
        interrupted (Ctrl-C), stopped by the callback, or that made no more progress returns the best strategy so far
        with `converged=False` and says why in `message`.

    Raises:
        ValueError: `objective` is unknown, or the strategy cannot be optimised for this workload or schema.

    >>> from dpkit import factorization as fz
    >>> schema = fz.MinSep(iterations=64, min_sep=16, max_participations=4)
    >>> fz.optimize(fz.Banded(num_bands=16, column_norms="equal"), fz.prefix_sum(), schema).rmse
    4.585
    """
    if objective not in get_args(Objective):
        raise ValueError(f'objective must be "rmse" or "max_error", got {objective!r}')
    return strategy._optimized(workload, schema, objective, callback)
