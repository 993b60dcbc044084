"""The whole run of a config as one mechanism: what a unit that takes part in it is seen through."""

from typing import cast

from dpkit import mechanisms
from dpkit.accounting import amplified
from dpkit.mechanisms import Mechanism
from dpkit.training import participation
from dpkit.training.config import TrainingConfig
from dpkit.training.kinds import KINDS


def step(config: TrainingConfig) -> Mechanism:
    """One step as a unit that takes part in it sees it."""
    return KINDS[config.mechanism.kind].mechanism(dict(config.mechanism))


def whole(config: TrainingConfig) -> Mechanism:
    """The run under the config's sampler.

    Raises:
        ValueError: the config's strategy is not one that is accounted for under the config's sampler.
    """
    training, count = config.training, participation.participations(config)
    if training.sampling == "balls_in_bins":
        return _in_bins(config)
    if count is not None:
        # Correlated noise is a single release: the schema's sensitivity is in the noise.
        return step(config) if config.correlated else mechanisms.repeat(step(config), count)
    if training.sampling == "fixed_size":
        batch_size = cast(int, training.batch_size)
        sampled = mechanisms.FixedSizeSampled(step(config), batch_size, config.data.population)
        return mechanisms.repeat(sampled, config.iterations)
    probability = participation.sampling_probability(config)
    if training.sampling == "cyclic_poisson" and config.strategy.file is not None:
        from dpkit.training import correlation

        # A file does not say how many bands its strategy has; the matrix does.
        solution, noise = correlation.solved(config), cast(float, config.mechanism.noise_multiplier)
        groups = cast(int, training.num_groups)
        return amplified.cyclic_poisson(solution.strategy, config.iterations, groups, probability, noise)
    draws = -(-config.iterations // (training.num_groups or 1))
    return mechanisms.repeat(mechanisms.PoissonSampled(step(config), probability), draws)


def _in_bins(config: TrainingConfig) -> Mechanism:
    # Loaded here, because most runs need no factorization.
    from dpkit.factorization import Identity
    from dpkit.training import correlation

    strategy = correlation.solved(config).strategy if config.correlated else Identity()
    noise, bins = cast(float, config.mechanism.noise_multiplier), cast(int, config.training.num_bins)
    return amplified.balls_in_bins(strategy, config.iterations, bins, noise)
