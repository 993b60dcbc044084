"""A clip norm that follows a quantile of the gradients' norms, by noised counts of how many are below it."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpkit import validation
from dpkit.noise import NoiseState, Stream


class NoiseSplit(NamedTuple):
    """The noise of both parts of a step: what `split_noise` returns.

    Attributes:
        gradient: noise multiplier of the sum of clipped gradients.
        indicator: standard deviation of the count of gradients below the clip norm.
    """

    gradient: float
    indicator: float


def split_noise(noise_multiplier: float, *, indicator_stddev: float) -> NoiseSplit:
    """The noise with which gradients and counts together are one Gaussian release of `noise_multiplier`.

    Args:
        noise_multiplier: z, what is accounted for, > 0.
        indicator_stddev: sigma_b of the count, > z / 2. A twentieth of the expected batch size is usual, and costs the
            gradients little: at z = 1 and sigma_b = 5 their noise grows by 0.5 %.

    Raises:
        ValueError: a number is not positive, or `indicator_stddev` leaves nothing for the gradients.

    Guarantees: a unit moves the sum of gradients by at most the clip norm and the count, from which half the number of
    units is taken off, by 1/2; in units of the noise the pair moves by at most 1 / noise_multiplier, rounded outward.

    References: Andrew, Thakkar, McMahan and Ramaswamy (2021), "Differentially Private Learning with Adaptive Clipping",
    Theorem 1.

    >>> split_noise(1.0, indicator_stddev=1.0)
    NoiseSplit(gradient=1.154701, indicator=1.0)
    """
    z = validation.positive("noise_multiplier", noise_multiplier)
    sigma = validation.positive("indicator_stddev", indicator_stddev)
    share = z / (2 * sigma)
    # Four roundings up to here and two below, none of more than 2^-53; near 1 the difference would magnify them.
    left = (1 - share) * (1 + share) - 2.0**-50
    if left <= 0:
        raise ValueError(
            f"indicator_stddev must be above noise_multiplier / 2 = {z / 2}, got {sigma}; the counts alone would "
            "use up the privacy of the step"
        )
    return NoiseSplit(z / math.sqrt(left) * (1 + 2.0**-50), sigma)


class AdaptiveClippingState(NamedTuple):
    """The clip norm of the next step, and the state of the counts' noise, which holds a key."""

    l2_clip_norm: jax.Array
    noise: NoiseState


@dataclasses.dataclass(frozen=True)
class AdaptiveClipping:
    """Multiplies the clip norm by exp(-learning_rate (noised fraction of norms below it - target_quantile)) each step.

    Args:
        indicator_noise: a `dpkit.noise.stream` of standard deviation `split_noise(...).indicator` times the sensitivity
            of its strategy. It must be the strategy of the gradients' noise, because only then are both parts one
            Gaussian release, and another key. `Identity()`, of sensitivity 1, for independent noise.
        expected_batch_size: the number of units the noised count is divided by, fixed beforehand.
        initial_l2_clip_norm: of the first step.
        target_quantile: what fraction of the units shall not be clipped, in [0, 1].
        learning_rate: of the logarithm of the clip norm.

    Raises:
        ValueError: an argument is out of range.

    Guarantees: a step's clip norm depends on earlier steps' noised counts only. So gradients clipped to it, noised *in
    units of it* with `split_noise(...).gradient` times the sensitivity of the strategy, form with the counts one
    Gaussian release of the accounted noise multiplier, the contributions being chosen adaptively. Noise that does not
    grow and shrink with the clip norm has another guarantee.

    References: Andrew, Thakkar, McMahan and Ramaswamy (2021), Algorithm 1 with the geometric update.

    >>> from dpkit import noise
    >>> from dpkit.factorization import Identity
    >>> split = split_noise(1.0, indicator_stddev=5.0)
    >>> counts = noise.stream(Identity(), stddev=split.indicator, key=jax.random.key(1))
    >>> adaptive = AdaptiveClipping(counts, expected_batch_size=100, initial_l2_clip_norm=1.0)
    >>> state = adaptive.init()
    >>> norms = jnp.full(100, 3.0)  # of a `PerExample`, where the gradients were clipped to `state.l2_clip_norm`
    >>> bool(adaptive.update(norms, state).l2_clip_norm > state.l2_clip_norm)
    True
    """

    indicator_noise: Stream
    expected_batch_size: float
    initial_l2_clip_norm: float
    target_quantile: float = 0.5
    learning_rate: float = 0.2

    def __post_init__(self):
        validation.positive("expected_batch_size", self.expected_batch_size)
        validation.positive("initial_l2_clip_norm", self.initial_l2_clip_norm)
        validation.probability("target_quantile", self.target_quantile)
        validation.positive("learning_rate", self.learning_rate)

    def init(self) -> AdaptiveClippingState:
        """The state before the first step."""
        clip = jnp.asarray(self.initial_l2_clip_norm, jnp.float32)
        return AdaptiveClippingState(clip, self.indicator_noise.init(clip))

    def update(self, norms: jax.Array, state: AdaptiveClippingState) -> AdaptiveClippingState:
        """The state after a step in which the units' gradients, clipped to `state.l2_clip_norm`, had these norms.

        Args:
            norms: (batch,) as in `PerExample`: negative where there is no unit.
        """
        indicators = jnp.where(norms <= state.l2_clip_norm, 0.5, -0.5)
        count = jnp.sum(jnp.where(norms >= 0, indicators, 0.0))
        noise, noise_state = self.indicator_noise.step(state.noise)
        fraction = (count + noise) / self.expected_batch_size + 0.5
        factor = jnp.exp(-self.learning_rate * (fraction - self.target_quantile))
        return AdaptiveClippingState(state.l2_clip_norm * factor, noise_state)
