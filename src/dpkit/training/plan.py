"""From a config to the run it describes: mechanism, sampler, participations and noise, derived together."""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

from dpkit import accounting, mechanisms
from dpkit.accounting.base import Bounds, PrivacyAccountant
from dpkit.mechanisms import Mechanism, UnsupportedViewError
from dpkit.relations import NeighboringRelation
from dpkit.training import assumptions, participation, runs
from dpkit.training.config import TrainingConfig
from dpkit.training.problems import ABSENT, ConfigError, Problem

if TYPE_CHECKING:
    import jax
    import optax

    from dpkit.factorization import Strategy


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """A training run with everything its privacy depends on. Made by `dpkit.training.plan`.

    Args:
        config: what it was derived from.
        mechanism: the whole run as one unit sees it.
        iterations: number of steps.
        iterations_rule: how that number came about.
        sampling_probability: that of a unit to be in a step; None where no amplification by sampling is claimed.
        participations: most steps one unit is in; None under random sampling, where any number is possible.
        noise_multiplier: noise over the clip norm, or over the clip norm times the sensitivity of the strategy where
            the noise is correlated; None where the mechanism has another measure of it.
        relation: when two data sets are neighbours.
        delta: of the guarantee.
        unit: who is protected.
        assumptions: what must be true of the code for the numbers to hold, in plain words.
        warnings: what a reader of the numbers must know.
    """

    config: TrainingConfig
    mechanism: Mechanism
    iterations: int
    iterations_rule: str
    sampling_probability: float | None
    participations: int | None
    noise_multiplier: float | None
    relation: NeighboringRelation
    delta: float
    unit: str
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    @functools.cached_property
    def strategy(self) -> "Strategy":
        """How the noise of the steps is correlated: read from its file, or optimized for the run on first use.

        Raises:
            ValueError: the file is not a valid one, or the kind of strategy cannot be had for this run.
            OSError: the file cannot be read.
        """
        # Loaded here, because most runs need no factorization.
        from dpkit.factorization import Identity
        from dpkit.training import correlation

        if not self.config.correlated:
            return Identity()
        return correlation.solved(self.config).strategy

    @property
    def stddev(self) -> float | None:
        """Standard deviation of one coordinate's fresh noise, where the config names the clip norm.

        Correlated noise is `strategy`'s C^{-1} times fresh noise of this standard deviation, which is the noise
        multiplier times the clip norm times the sensitivity of C under the run's participation schema.
        """
        clip = self.config.mechanism.l2_clip_norm
        if clip is None or self.noise_multiplier is None or self.config.mechanism.kind == "truncated_gaussian":
            return None
        if self.config.correlated:
            from dpkit.training import correlation

            return self.noise_multiplier * clip * self.strategy.sensitivity(correlation.schema(self.config))
        # Laplace noise of scale b has variance 2 b^2.
        return self.noise_multiplier * clip * (math.sqrt(2) if self.config.mechanism.kind == "laplace" else 1.0)

    def privatizer(
        self, key: "jax.Array", *, expected_batch_size: float = 1.0, **options: Any
    ) -> "optax.GradientTransformation":
        """The run's noise as an optax transformation, to be chained before the optimizer.

        `optax.chain(plan.privatizer(key), optax.sgd(0.1))` adds to the update of step t, the *sum* of the contributions
        clipped to the config's `l2_clip_norm`, row t of C^{-1} z, z of standard deviation `stddev`; C = `strategy`.

        Args:
            key: a JAX random key, which must stay secret.
            expected_batch_size: what the sums that are handed in were divided by already, as in `clipped_grad`.
            options: `memory`, `block_size`, `dtype` and `generator` of `dpkit.noise.add_correlated_noise`.

        Raises:
            ConfigError: the mechanism is not Gaussian, or the config has no `l2_clip_norm`.
            ValueError: an argument is out of range.

        Guarantees: the noise has the standard deviation that `epsilon` accounts for, and steps beyond `iterations` are
        refused, where every step's contributions are clipped and take part as `assumptions` say.
        """
        from dpkit import noise, validation

        if self.config.mechanism.kind != "gaussian":
            fault, remedy = "there is no stream of such noise", 'write kind = "gaussian"'
            raise ConfigError([Problem("mechanism.kind", self.config.mechanism.kind, fault, remedy)])
        if self.stddev is None:
            fault = "missing, and the noise is proportional to it"
            raise ConfigError([Problem("mechanism.l2_clip_norm", ABSENT, fault, "write l2_clip_norm = 1.0")])
        stddev = self.stddev / validation.positive("expected_batch_size", expected_batch_size)
        return noise.add_correlated_noise(self.strategy, stddev=stddev, key=key, iterations=self.iterations, **options)

    def accountant(self, name: str | None = None) -> PrivacyAccountant:
        """The accountant called `pld`, `rdp`, `zcdp` or `monte_carlo` (default: the config's), for the plan's relation.

        Raises:
            ValueError: there is no such accountant.
        """
        name = name or self.config.privacy.accountant
        classes = {
            "pld": accounting.PldAccountant,
            "rdp": accounting.RdpAccountant,
            "zcdp": accounting.ZcdpAccountant,
            "monte_carlo": self._monte_carlo,
        }
        if name not in classes:
            raise ValueError(f"accountant must be one of {', '.join(classes)}, got {name!r}")
        return classes[name](relation=self.relation)

    def _monte_carlo(self, relation: NeighboringRelation) -> PrivacyAccountant:
        privacy = self.config.privacy
        return accounting.MonteCarloAccountant(
            relation=relation,
            samples=privacy.samples,
            failure_probability=privacy.failure_probability,
            seed=privacy.seed,
        )

    def epsilon(self, accountant: str | None = None, delta: float | None = None) -> Bounds:
        """Bounds on epsilon for the whole run.

        Args:
            accountant: `pld`, `rdp` or `zcdp`; default: the config's.
            delta: default: the config's.

        Raises:
            ValueError: no such accountant, or `delta` is not in [0, 1].
            UnsupportedViewError: nothing is proved for this run in that accountant's terms.
        """
        return self.accountant(accountant).epsilon(self.mechanism, delta=self.delta if delta is None else delta)

    def epsilons(self) -> dict[str, Bounds | str]:
        """Bounds by every accountant at the config's delta, or the reason why one does not apply."""
        found: dict[str, Bounds | str] = {}
        for name in ("monte_carlo",) if self.config.training.sampling == "balls_in_bins" else ("pld", "rdp", "zcdp"):
            try:
                found[name] = self.epsilon(name)
            except UnsupportedViewError as error:
                found[name] = str(error)
        return found

    def epsilon_if_poisson(self) -> Bounds | None:
        """NOT a guarantee for this run: epsilon if the same batches had been drawn by Poisson sampling.

        None where the run is Poisson-sampled already, its expected batch size is not known, or nothing is proved.
        """
        # A zCDP accountant knows no amplification, so it has nothing to compare.
        if (
            self.config.correlated
            or self.config.training.sampling not in ("shuffle", "min_sep")
            or self.config.training.batch_size is None
            or self.config.privacy.accountant == "zcdp"
        ):
            return None
        step = mechanisms.PoissonSampled(runs.step(self.config), participation.sampling_probability(self.config))
        try:
            return self.accountant().epsilon(mechanisms.repeat(step, self.iterations), delta=self.delta)
        except UnsupportedViewError:
            return None

    def with_noise(self, amount: float) -> "TrainingPlan":
        """The same run with another amount of noise: the noise multiplier, or what the mechanism has in its place.

        Raises:
            ConfigError: it is negative or not finite, or the config declares a rho instead.
        """
        return plan(self.config.with_noise(amount))

    def calibrate(self, target_epsilon: float, target_delta: float | None = None) -> "TrainingPlan":
        """The same run with the least noise whose certified upper epsilon is at most the target.

        Raises:
            ConfigError: the config declares a rho, so there is no noise to choose.
            ValueError: no amount of noise is enough, or the target is not a positive number.
            UnsupportedViewError: nothing is proved for this run in the config's accountant's terms.
        """
        delta = self.delta if target_delta is None else target_delta
        amount = accounting.calibrate(
            lambda noise: self.with_noise(noise).mechanism,
            self.accountant(),
            target_epsilon=target_epsilon,
            target_delta=delta,
        )
        return plan(self.config.override(delta=delta).with_noise(amount))

    def calibrate_advantage(self, target_advantage: float) -> "TrainingPlan":
        """The same run with the least noise whose certified advantage, delta at epsilon 0, is at most the target.

        Args:
            target_advantage: in (0, 1); TPR - FPR of any membership attack.

        Raises:
            ConfigError: the config declares a rho, so there is no noise to choose.
            ValueError: no amount of noise is enough, or the target is not in (0, 1).
            UnsupportedViewError: nothing is proved for this run in the config's accountant's terms.
        """
        amount = accounting.calibrate_advantage(
            lambda noise: self.with_noise(noise).mechanism, self.accountant(), target_advantage=target_advantage
        )
        return self.with_noise(amount)


def plan(config: TrainingConfig) -> TrainingPlan:
    """Derives the run that `config` describes.

    Amplification by sampling is claimed only for `poisson`, `fixed_size`, `cyclic_poisson` and `balls_in_bins`, for
    which it is proved. Under `shuffle` and `min_sep` each unit is charged for every step it may take part in, under
    `full_batch` for every step.
    With a `[strategy]` and no random sampling the whole run is one Gaussian mechanism: C G plus noise, also where
    contributions react to past outputs (Denisov et al. 2022).

    >>> from dpkit import training
    >>> run = training.plan(training.TrainingConfig.parse({
    ...     "data": {"users": 100, "unit": "user"},
    ...     "training": {"batch_size": 30, "iterations": 7, "sampling": "shuffle"},
    ...     "mechanism": {"kind": "gaussian", "noise_multiplier": 4.0, "l2_clip_norm": 0.5},
    ...     "privacy": {"delta": 1e-3, "relation": "replace_special"},
    ... }))
    >>> run.participations, run.sampling_probability, run.stddev
    (3, None, 2.0)
    """
    count = participation.participations(config)
    return TrainingPlan(
        config=config,
        mechanism=runs.whole(config),
        iterations=config.iterations,
        iterations_rule=participation.iterations_rule(config),
        sampling_probability=participation.sampling_probability(config) if count is None else None,
        participations=count,
        noise_multiplier=config.mechanism.noise_multiplier,
        relation=config.privacy.relation,
        delta=config.privacy.delta,
        unit=config.data.unit,
        assumptions=assumptions.assumptions(config),
        warnings=assumptions.warnings(config),
    )
