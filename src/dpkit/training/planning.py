"""Which mechanism gives a run the least error at a target epsilon."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dpkit import factorization as fz
from dpkit.accounting.base import Bounds
from dpkit.training import correlation
from dpkit.training.config import TrainingConfig
from dpkit.training.plan import TrainingPlan
from dpkit.training.plan import plan as plan_of
from dpkit.training.problems import ConfigError, Problem

BANDS = (4, 16, 64, 256)
BUFFERS = (1, 2, 3, 4)
_GAP = 1e-3
_PATIENCE = 10.0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mechanism for a run, with the least noise that meets the target.

    Args:
        name: the kind of strategy and its bands or buffers.
        plan: the calibrated run; its config accounts to the same epsilon.
        epsilon: certified, at the plan's delta.
        rmse: root mean square over the steps of the iterates' noise, one coordinate, in clip norms of the summed
            contributions at learning rate as configured.
        max_error: the same for the step where it is largest.
        copies: arrays of the parameters' size that the noise keeps between steps.
        operations: multiplications and additions per parameter and step, besides drawing fresh noise.
        gap: certified relative gap of the squared error to the best of the kind; None where nothing is certified.
        seconds: that finding the strategy took.
    """

    name: str
    plan: TrainingPlan
    epsilon: Bounds
    rmse: float
    max_error: float
    copies: int
    operations: int
    gap: float | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "name": self.name,
            "noise_multiplier": self.plan.noise_multiplier,
            "epsilon": {"lower": self.epsilon.lower, "upper": self.epsilon.upper},
            "delta": self.plan.delta,
            "accountant": self.plan.config.privacy.accountant,
            "rmse": self.rmse,
            "max_error": self.max_error,
            "state_copies": self.copies,
            "operations": self.operations,
            "gap": self.gap,
            "seconds": self.seconds,
            "strategy": self.plan.config.tables()["strategy"],
        }


def strategies(config: TrainingConfig, memory: int | None = None) -> Iterator[dict[str, Any]]:
    """The `[strategy]` tables that are worth a try under the config's sampler, its own first; {}: independent noise.

    Args:
        config: the run.
        memory: most arrays of the parameters' size that the noise may keep; None: any number.

    Raises:
        ConfigError: the mechanism is not a Gaussian one, the only noise that can be correlated.
    """
    if config.mechanism.kind != "gaussian":
        remedy = 'write kind = "gaussian"; its noise_multiplier is chosen here'
        raise ConfigError([Problem("mechanism.kind", config.mechanism.kind, "cannot be planned for", remedy)])
    own = config.tables()["strategy"] if config.correlated else {}
    others = ({}, *_correlated(config, memory)) if config.training.sampling not in ("poisson", "fixed_size") else ({},)
    yield own
    yield from (table for table in others if table != own)


def _correlated(config: TrainingConfig, memory: int | None) -> Iterator[dict[str, Any]]:
    most, sampling = config.iterations if memory is None else memory, config.training.sampling
    if sampling != "cyclic_poisson":
        yield from ({"kind": "tree"},) if sampling != "balls_in_bins" else ()
        yield from ({"kind": "blt", "num_buffers": count} for count in BUFFERS if count <= most)
    # More bands than steps between participations have no exact sensitivity, unless columns are monotone.
    apart = {"cyclic_poisson": config.training.num_groups, "balls_in_bins": config.iterations}.get(sampling)
    apart = apart or config.training.min_sep or 1
    for count in (count for count in BANDS if count <= min(config.iterations, most + 1)):
        for kind in ("banded", "banded_toeplitz") if count <= apart else ():
            yield {"kind": kind, "num_bands": count}
        if count <= apart or sampling != "cyclic_poisson":
            yield {"kind": "banded_square_root", "num_bands": count}
        if sampling != "cyclic_poisson":
            yield {"kind": "banded_inverse_square_root", "num_bands": count}


def evaluate(
    config: TrainingConfig, table: Mapping[str, Any], target_epsilon: float, solution: fz.Solution | None = None
) -> Candidate:
    """The run with the strategy of `table` and the least noise that keeps it within the target at the config's delta.

    Args:
        config: the run; its own strategy and noise multiplier are replaced.
        table: a `[strategy]` table; {}: independent noise.
        target_epsilon: > 0.
        solution: of the strategy, where `solve` found it before.

    Raises:
        ValueError: the strategy cannot be had for such a run, or no amount of noise is enough.
    """
    tables = {name: keys for name, keys in config.tables().items() if name != "strategy"}
    accountant = "monte_carlo" if config.training.sampling == "balls_in_bins" else "pld"
    tables["privacy"] = {**tables["privacy"], "accountant": accountant}
    wanted = TrainingConfig.parse({**tables, "strategy": dict(table)} if table else tables)
    found = plan_of(wanted).calibrate(target_epsilon)
    solution = solution or solve(wanted, table)
    form = solution.strategy.form(wanted.iterations)
    noise = found.noise_multiplier or 0.0
    return Candidate(
        name=_name(found.config.tables().get("strategy", {})),
        plan=found,
        epsilon=found.epsilon(),
        rmse=noise * solution.rmse,
        max_error=noise * solution.max_error,
        copies=form.copies,
        operations=form.operations,
        gap=solution.gap,
        seconds=solution.seconds,
    )


def solve(
    config: TrainingConfig, table: Mapping[str, Any], callback: Callable[[fz.Progress], object] | None = None
) -> fz.Solution:
    """The strategy of a `[strategy]` table for a run, to a certified gap of 1e-3 or for ten seconds at most.

    Raises:
        ValueError: the strategy cannot be had for such a run.
    """

    def enough(progress: fz.Progress) -> bool:
        told = callback is not None and bool(callback(progress))
        return told or progress.seconds > _PATIENCE or (progress.gap is not None and progress.gap <= _GAP)

    work = correlation.workload(config.optimizer, config.iterations)
    if not table:
        # Whether a unit takes part once or often is in the noise multiplier.
        return fz.Solution.of(fz.Identity(), work, fz.SingleParticipation(config.iterations))
    wanted = TrainingConfig.parse({**config.tables(), "strategy": dict(table)})
    if config.training.sampling == "balls_in_bins":
        # There the accounting is about this very matrix.
        return correlation.solved(wanted)
    return correlation.solve(wanted.strategy, wanted.optimizer, correlation.schema(wanted), enough)


def _name(table: Mapping[str, Any]) -> str:
    kind = table.get("file") or table.get("kind", "independent")
    numbers = [f" {table[key]}" for key in ("num_bands", "num_buffers") if key in table]
    return f"{kind}{''.join(numbers)}"


def ranked(candidates: list[Candidate]) -> list[Candidate]:
    """The least error first; among errors that are the same, the fewest copies."""
    return sorted(candidates, key=lambda candidate: (candidate.rmse, candidate.copies))
