"""Gaussian noise conditioned on an output within a fixed box."""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dpkit import validation
from dpkit.mechanisms.bounded_output import BoundedOutput
from dpkit.mechanisms.envelope import pair_through
from dpkit.mechanisms.finite_pair import IDENTICAL, FinitePair
from dpkit.mechanisms.gaussian import GaussianBound, GaussianPair
from dpkit.mechanisms.pair import Array, DominatingPair
from dpkit.mechanisms.sampled_renyi import SampledRenyi
from dpkit.mechanisms.sampling import PoissonSampled, bounded_renyi
from dpkit.mechanisms.truncated_draws import draw
from dpkit.numerics import worst_truncated
from dpkit.numerics.bounded_gaussian import truncated_hockey_stick, truncated_renyi
from dpkit.numerics.gaussian_mixture import mixture_renyi
from dpkit.numerics.restricted_normal import restricted_normal
from dpkit.numerics.worst_truncated import Reach
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax

# Profiles of scalars are tabulated at so many points per standard deviation of the privacy loss, until they are below
# the last number; for boxes no wider (in noise) and losses no larger than this, beyond which it is the Gaussian's.
_POINTS_PER_DEVIATION, _NEGLIGIBLE, _CHUNK = 16, 1e-30, 16
_WIDEST, _LARGEST_LOSS = 13.0, 600.0


@dataclasses.dataclass(frozen=True)
class TruncatedGaussian(BoundedOutput, SampledRenyi):
    """Replaces every coordinate by a draw from N(coordinate, noise_multiplier^2) conditioned on [lower, upper].

    Args:
        noise_multiplier: standard deviation before truncation over the L2 norm bound of one unit's contribution, > 0.
        lower: low end of the box, in units of that bound; fixed whatever the data.
        upper: high end of the box, likewise.
        coordinates: where given, the value has so many coordinates, and one unit contributes at most
            1/sqrt(coordinates) to each (an L-infinity bound); 1 for a number. Without it any number of coordinates.
        value_range: a public bound (least, largest) on every coordinate of the value, for every data set, in the same
            units; needs `coordinates`. The release clips to it.
        bounded: what the box bounds; only "output". Bounding the noise instead is refused with the reason.

    Raises:
        ValueError: a number is not finite, `noise_multiplier` is not positive, the box or the range is empty,
            `coordinates` is below 1, `value_range` comes without it, or `bounded` is "noise".

    Guarantees: with s the sensitivity over the noise and V the variance of N(0, 1) on a centred interval as wide as
    the box over the noise,

    - rho = s^2 V / 2, hence Renyi divergences of at most order * s^2 V / 2, in any dimension: a divergence is s^2 times
      a weighted mean of truncated variances, the largest of which is that in the middle
      (`dpkit.numerics.worst_truncated`). V is below 1 and below the box-width bounds 1/12 and 1/4 of width^2.
    - mu-GDP with mu = s in any dimension, hence the Gaussian's pair, also Poisson-sampled (Gopi, Lee and Liu 2022,
      Theorem 4.1: the density is log-concave on a convex set).
    - With `coordinates`: the exact largest Renyi divergence over all values (in `value_range`), per coordinate, within
      1e-9; finite also at order inf, s * width for each.
    - With `coordinates=1`: a pair through the largest hockey-stick divergences over all values, within 1e-5 where it
      is tabulated and connected from above between, where the box is no wider than 13 standard deviations.

    A box chosen from the data voids all of them, unless its choice has a budget of its own. The release is biased. For
    real-valued noise: a floating-point sampler is not covered (Mironov 2012).

    References: Hu, Mahloujifar, Smith, Chaudhuri and Guo (2024) for the divergences and the Fisher information.

    >>> release = TruncatedGaussian(noise_multiplier=2.0, lower=-1.0, upper=1.0)
    >>> release.zcdp(NeighboringRelation.ADD_OR_REMOVE_ONE)
    0.01007
    """

    noise_multiplier: float
    lower: float
    upper: float
    coordinates: int | None = None
    value_range: tuple[float, float] | None = None
    bounded: dataclasses.InitVar[str] = "output"

    def __post_init__(self, bounded: str):
        self._check_box(bounded)
        if self.coordinates is not None:
            object.__setattr__(self, "coordinates", validation.count("coordinates", self.coordinates, minimum=1))
        if self.value_range is None:
            return
        if self.coordinates is None:
            raise ValueError(
                f"value_range bounds each coordinate and needs coordinates, got value_range={self.value_range}"
            )
        least, largest = (validation.real("value_range", end) for end in self.value_range)
        if least > largest:
            raise ValueError(f"value_range must be (least, largest), got {self.value_range}")
        object.__setattr__(self, "value_range", (least, largest))

    def _shift(self, relation: NeighboringRelation) -> float:
        """How far one unit moves the value, in standard deviations: each coordinate where they are bounded."""
        return NeighboringRelation(relation).sensitivity / self.noise_multiplier / math.sqrt(self.coordinates or 1)

    @property
    def _reach(self) -> Reach:
        if self.value_range is None:
            return worst_truncated.EVERYWHERE
        least, largest = self.value_range
        return (least - self.lower) / self.noise_multiplier, (largest - self.lower) / self.noise_multiplier

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        shift = self._shift(relation)
        if self.coordinates == 1 and self._width <= _WIDEST and shift * self._width <= _LARGEST_LOSS:
            pair: DominatingPair = _worst_pair(shift, self._width, self._reach)
        else:
            pair = GaussianBound(NeighboringRelation(relation).sensitivity / self.noise_multiplier)
        return pair, pair

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        orders = np.asarray(orders, dtype=np.float64)
        if self.coordinates is None:
            return orders * self.zcdp(relation)
        each = worst_truncated.worst_renyi(orders, self._shift(relation), self._width, self._reach)
        return self.coordinates * each

    def sampled_rdp(self, orders: Array, sampling_probability: float, relation: NeighboringRelation) -> Array:
        sampled = PoissonSampled(self, sampling_probability)
        present, _ = self.dominating_pairs(relation)
        if isinstance(present, GaussianPair):
            q = sampling_probability
            return mixture_renyi(orders, 1 / present.mu, [0.0, 1.0], [1 - q, q], reverse=False)
        return np.maximum(*(bounded_renyi(sampled, orders, pair) for pair in sampled.dominating_pairs(relation)))

    def zcdp(self, relation: NeighboringRelation) -> float:
        shift, coordinates = self._shift(relation), self.coordinates or 1
        rho = coordinates * shift**2 * worst_truncated.largest_variance(self._width) / 2
        if self.coordinates is not None:
            # Every epsilon-DP mechanism is epsilon tanh(epsilon/2)-zCDP.
            pure = float(worst_truncated.worst_renyi(math.inf, shift, self._width, self._reach))
            rho = min(rho, coordinates * pure * math.tanh(pure / 2))
        return max(rho, 5e-324)

    def grouped(self, size: int) -> "TruncatedGaussian":
        reach = None if self.value_range is None else (self.value_range[0] / size, self.value_range[1] / size)
        return TruncatedGaussian(
            self.noise_multiplier / size, self.lower / size, self.upper / size, self.coordinates, reach
        )

    def _renyi(self, orders: Array, position: float, shift: float, width: float) -> Array:
        return truncated_renyi(orders, position, shift, width)

    def _hockey_stick(self, epsilon: float, position: float, shift: float, width: float) -> float:
        return truncated_hockey_stick(epsilon, position, shift, width)

    def _fisher(self, low: Array, width: float) -> Array:
        return restricted_normal(low, width).variance

    def _bounded_noise_delta(self) -> float:
        # What lies within the sensitivity of an end of the noise is out of reach from the neighbour.
        low, high = self._tails()
        near = special.ndtr(np.array([self.lower + 1, 1 - self.upper]) / self.noise_multiplier)
        return min(1.0, float(max(near[0] - low, near[1] - high)) / (1 - low - high))

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        import jax.numpy as jnp

        # Clipping moves no two values apart, so the sensitivity stays what it was.
        value = value if self.value_range is None else jnp.clip(jnp.asarray(value), *self.value_range)
        return draw(value, key, self.noise_multiplier, self.lower, self.upper)


@functools.lru_cache(maxsize=8)
def _worst_pair(shift: float, width: float, reach: Reach) -> FinitePair:
    """The pair through the largest hockey-stick divergences, which are the same in both directions."""
    largest = float(worst_truncated.worst_renyi(math.inf, shift, width, reach)) * (1 + 1e-12)
    if largest == 0:
        return IDENTICAL
    step = shift * math.sqrt(worst_truncated.largest_variance(width)) / _POINTS_PER_DEVIATION
    losses = np.arange(0.0, largest, step)
    values: list[float] = []
    for chunk in np.split(losses, range(_CHUNK, len(losses), _CHUNK)):
        values += worst_truncated.worst_profile(chunk, shift, width, reach).tolist()
        if values[-1] < _NEGLIGIBLE:
            break
    return pair_through(np.append(losses[: len(values)], largest), np.array([*values, 0.0]))
