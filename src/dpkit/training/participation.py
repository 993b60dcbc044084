"""How often one unit takes part in a run."""

import math
from fractions import Fraction
from typing import cast

from dpkit.training.config import TrainingConfig
from dpkit.training.fields import plain


def participations(config: TrainingConfig) -> int | None:
    """Most steps that one unit is in; None under random sampling, where it may be any number."""
    training = config.training
    if training.sampling in ("poisson", "fixed_size", "cyclic_poisson"):
        return None
    if training.sampling == "balls_in_bins":
        return math.ceil(Fraction(config.iterations, cast(int, training.num_bins)))
    if training.sampling == "full_batch":
        return config.iterations
    if training.sampling == "min_sep":
        apart = math.ceil(Fraction(config.iterations, cast(int, training.min_sep)))
        return apart if training.max_participations is None else min(apart, training.max_participations)
    if training.epochs is not None:
        return math.ceil(training.epochs)
    return passes(config)


def passes(config: TrainingConfig) -> int:
    """Most passes that a shuffled run of this many steps begins, if every pass drops its last, partial batch."""
    batches = config.data.population // cast(int, config.training.batch_size)
    return math.ceil(Fraction(config.iterations, batches))


def sampling_probability(config: TrainingConfig) -> float:
    """Probability with which random sampling of the configured batch size includes a unit in a step."""
    # Under cyclic sampling a step draws from one group of the units.
    groups = config.training.num_groups or 1
    return cast(int, config.training.batch_size) * groups / config.data.population


def probability_rule(config: TrainingConfig) -> str:
    """That probability, and how it came about, in words."""
    training = config.training
    if training.sampling == "balls_in_bins":
        return f"one of {training.num_bins:,} bins for the whole run"
    if participations(config) is not None:
        return "no amplification claimed"
    groups = "" if training.num_groups is None else f" x {training.num_groups:,}"
    rule = f"{training.batch_size:,}{groups} / {config.data.population:,}"
    return f"{sampling_probability(config):.6g} = {rule}"


def iterations_rule(config: TrainingConfig) -> str:
    """How the number of steps came about, in words."""
    training = config.training
    if training.epochs is None:
        return "given"
    epochs = f"{plain(training.epochs)} epoch{'' if training.epochs == 1 else 's'}"
    if training.batch_size is None:
        return f"ceil({epochs}), one step each"
    return f"ceil({epochs} x {config.data.population:,} / {training.batch_size:,})"
