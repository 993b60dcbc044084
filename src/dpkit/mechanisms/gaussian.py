"""The Gaussian mechanism."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dpkit import validation
from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.finite_pair import DISJOINT
from dpkit.mechanisms.pair import Array, DominatingPair
from dpkit.numerics.normal import normal_interval, shifted_normal_delta
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class GaussianPair(DominatingPair):
    """N(mu, 1) against N(0, 1), its own reverse: L is N(mu^2/2, mu^2) under P and N(-mu^2/2, mu^2) under Q."""

    mu: float

    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        scaled = np.asarray(loss, dtype=np.float64) / self.mu
        return special.ndtr(self.mu / 2 - scaled), special.ndtr(-self.mu / 2 - scaled)

    def advantage(self, loss: ArrayLike) -> Array:
        return normal_interval(-self.mu / 2 - np.asarray(loss, dtype=np.float64) / self.mu, self.mu)

    def delta(self, epsilon: float) -> float:
        if math.isinf(epsilon):
            return 0.0 if epsilon > 0 else 1.0
        return shifted_normal_delta(self.mu, epsilon)

    @property
    def loss_range(self) -> tuple[float, float]:
        return -math.inf, math.inf


@dataclasses.dataclass(frozen=True)
class GaussianBound(GaussianPair):
    """The same laws where they are more than what is released."""

    @property
    def attained(self) -> bool:
        return False


@dataclasses.dataclass(frozen=True)
class Gaussian(Mechanism):
    """Adds N(0, noise_multiplier^2) to every coordinate of a sum of contributions of L2 norm at most 1.

    A scaled release (clip norm c, standard deviation noise_multiplier * c) is the same mechanism. Under `REPLACE_ONE`
    the sum moves by up to 2, which every view here accounts for.

    Args:
        noise_multiplier: standard deviation over the L2 norm bound of one unit's contribution, >= 0.

    Raises:
        ValueError: `noise_multiplier` is negative, NaN or infinite.

    Guarantees: exact mu-GDP with mu = sensitivity / noise_multiplier (Dong, Roth and Su 2022, Theorem 2.7); Renyi
    divergence order * mu^2 / 2; mu^2/2-zCDP. Zero noise is infinitely revealing. For real-valued noise: a
    floating-point sampler is not covered (Mironov 2012).

    >>> from dpkit import NeighboringRelation
    >>> Gaussian(noise_multiplier=2.0).zcdp(NeighboringRelation.REPLACE_ONE)
    0.5
    """

    noise_multiplier: float

    def __post_init__(self):
        object.__setattr__(self, "noise_multiplier", validation.non_negative("noise_multiplier", self.noise_multiplier))

    def _mu(self, relation: NeighboringRelation) -> float:
        sensitivity = NeighboringRelation(relation).sensitivity
        return sensitivity / self.noise_multiplier if self.noise_multiplier else math.inf

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        pair = GaussianPair(self._mu(relation)) if self.noise_multiplier else DISJOINT
        return pair, pair

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        orders, rho = np.asarray(orders, dtype=np.float64), self.zcdp(relation)
        return orders * rho if rho else np.zeros(orders.shape)

    def zcdp(self, relation: NeighboringRelation) -> float:
        mu = self._mu(relation)
        # Never rounded down to the zero of a release that depends on nothing.
        return max(mu * mu / 2, 5e-324) if mu else 0.0

    def grouped(self, size: int) -> "Gaussian":
        return Gaussian(self.noise_multiplier / size)

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        import jax
        import jax.numpy as jnp

        value = jnp.asarray(value)
        return value + self.noise_multiplier * jax.random.normal(key, value.shape, value.dtype)
