"""From a config to its correlated noise: the participation schema, the workload and the strategy."""

import functools
from collections.abc import Callable, Hashable
from typing import cast

from dpkit import factorization as fz
from dpkit.factorization.banded import ColumnNorms
from dpkit.factorization.optimize import Objective
from dpkit.factorization.toeplitz import ToeplitzStrategy
from dpkit.training.config import TrainingConfig
from dpkit.training.participation import participations
from dpkit.training.sections import OptimizerSection, StrategySection


def schema(config: TrainingConfig) -> fz.ParticipationSchema:
    """How one unit takes part in the run that `config` describes, as far as the sensitivity is concerned.

    Under cyclic Poisson and balls-in-bins sampling that is a single participation: how often a unit takes part is in
    the composition there, and the noise multiplier is over the largest norm of a column.

    Raises:
        ValueError: under Poisson sampling, where no two participations are any number of steps apart.
    """
    if config.training.sampling in ("cyclic_poisson", "balls_in_bins"):
        return fz.SingleParticipation(config.iterations)
    count = participations(config)
    if count is None:
        raise ValueError(
            f'sampling = "{config.training.sampling}" bounds neither how often nor how closely a unit takes part; '
            'correlated noise needs sampling = "min_sep", with a loop that keeps to it'
        )
    return fz.MinSep(config.iterations, min_sep=config.training.min_sep or 1, max_participations=count)


def workload(optimizer: OptimizerSection, iterations: int) -> fz.Workload:
    """The iterates of the optimizer that a config describes.

    Raises:
        ValueError: the weight decay takes away more than everything in a step.
    """
    rate = optimizer.learning_rate
    rates = rate * fz.cooldown_schedule(iterations, optimizer.cooldown) if optimizer.cooldown else rate
    return fz.momentum_sgd(optimizer.momentum, rates, optimizer.weight_decay)


def solve(
    strategy: StrategySection,
    optimizer: OptimizerSection,
    schema: fz.ParticipationSchema,
    callback: Callable[[fz.Progress], object] | None = None,
    start: fz.Strategy | None = None,
) -> fz.Solution:
    """The strategy that a config names: read from its file, or optimized for the run, from `start` where it is given.

    Raises:
        ValueError: the file is not a valid one, or the kind of strategy cannot be had for such a run.
        OSError: the file cannot be read.
    """
    work = workload(optimizer, schema.iterations)
    if strategy.file is not None and start is None:
        return fz.Solution.of(fz.load(strategy.file).strategy, work, schema, message="read from a file")
    family = start or _family(strategy, optimizer, schema)
    return fz.optimize(family, work, schema, objective=cast(Objective, strategy.objective), callback=callback)


def solved(config: TrainingConfig) -> fz.Solution:
    """The strategy of a config whose noise is correlated; one that has to be optimized is optimized once per process.

    Raises:
        ValueError: the file is not a valid one, or the kind of strategy cannot be had for such a run.
        OSError: the file cannot be read.
    """
    if config.strategy.file is not None:
        return solve(config.strategy, config.optimizer, schema(config))
    # Frozen models are hashable, which pydantic's types do not say.
    return _solved_before(cast(Hashable, config.strategy), cast(Hashable, config.optimizer), schema(config))


@functools.lru_cache(maxsize=8)
def _solved_before(
    strategy: StrategySection, optimizer: OptimizerSection, schema: fz.ParticipationSchema
) -> fz.Solution:
    return solve(strategy, optimizer, schema)


def _family(strategy: StrategySection, optimizer: OptimizerSection, schema: fz.ParticipationSchema) -> fz.Strategy:
    num_bands, num_buffers = cast(int, strategy.num_bands), cast(int, strategy.num_buffers)  # where the kind needs them
    column_norms = cast(ColumnNorms, strategy.column_norms or "optimal")
    makers = {
        "identity": fz.Identity,
        "tree": lambda: fz.Tree(schema.iterations),
        "banded": lambda: fz.Banded(num_bands, column_norms),
        "banded_toeplitz": lambda: fz.BandedToeplitz(num_bands),
        "blt": lambda: fz.BufferedLinearToeplitz(num_buffers),
        "square_root": lambda: fz.SquareRoot(**_poles(optimizer)),
        "banded_square_root": lambda: fz.BandedSquareRoot(num_bands, **_poles(optimizer)),
        "banded_inverse_square_root": lambda: fz.BandedInverseSquareRoot(num_bands, **_poles(optimizer)),
        "dense": fz.Dense,
    }
    family = makers[cast(str, strategy.kind)]()
    return fz.WindowScaled(cast(ToeplitzStrategy, family)) if strategy.window_scales else family


def _poles(optimizer: OptimizerSection) -> dict[str, float]:
    """The square root of the workload at the first learning rate."""
    return {"momentum": optimizer.momentum, "weight_decay": optimizer.weight_decay * optimizer.learning_rate}
