"""The Laplace mechanism."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dpkit import validation
from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.finite_pair import DISJOINT
from dpkit.mechanisms.pair import Array, DominatingPair
from dpkit.numerics.exponential import exp_remainder
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class LaplacePair(DominatingPair):
    """Laplace noise of scale 1 around `pure` against around 0, its own reverse.

    L = pure with P-probability 1/2 and -pure with P-probability exp(-pure)/2; between them the density of L under P is
    exp((L - pure)/2)/4.
    """

    pure: float

    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        loss = np.asarray(loss, dtype=np.float64)
        inside = np.clip(loss, -self.pure, self.pure)
        p = -np.expm1((inside - self.pure) / 2 - math.log(2))
        q = np.exp(-(inside + self.pure) / 2) / 2
        above, below = loss >= self.pure, loss < -self.pure
        return np.where(above, 0.0, np.where(below, 1.0, p)), np.where(above, 0.0, np.where(below, 1.0, q))

    def advantage(self, loss: ArrayLike) -> Array:
        loss = np.asarray(loss, dtype=np.float64)
        inside = np.clip(loss, -self.pure, self.pure)
        # 1 - e^((x-a)/2)/2 - e^-((x+a)/2)/2 = 1 - e^(-a/2) cosh(x/2), split into two positive terms.
        value = -np.expm1(-self.pure / 2) - 2 * math.exp(-self.pure / 2) * np.sinh(inside / 4) ** 2
        return np.where((loss >= self.pure) | (loss < -self.pure), 0.0, np.maximum(value, 0.0))

    def delta(self, epsilon: float) -> float:
        if epsilon >= self.pure:
            return 0.0
        if epsilon <= -self.pure:
            return -math.expm1(epsilon)
        return -math.expm1((epsilon - self.pure) / 2)

    @property
    def loss_range(self) -> tuple[float, float]:
        return -self.pure, self.pure

    @property
    def atoms(self) -> tuple[float, ...]:
        return -self.pure, self.pure


@dataclasses.dataclass(frozen=True)
class Laplace(Mechanism):
    """Adds Laplace noise of scale `noise_multiplier` to a scalar sum of contributions of size at most 1.

    Args:
        noise_multiplier: scale of the noise over the largest contribution of one unit, >= 0.

    Raises:
        ValueError: `noise_multiplier` is negative, NaN or infinite.

    Guarantees: pure epsilon = sensitivity / noise_multiplier, and the exact privacy loss distribution. Real-valued
    noise: a floating-point sampler is not covered (Mironov 2012).

    References: Mironov (2017), Proposition 6 for the Renyi divergence.

    >>> from dpkit import accounting
    >>> accounting.PldAccountant().epsilon(Laplace(4.0), delta=0.0).upper
    0.25
    """

    noise_multiplier: float

    def __post_init__(self):
        object.__setattr__(self, "noise_multiplier", validation.non_negative("noise_multiplier", self.noise_multiplier))

    def _pure(self, relation: NeighboringRelation) -> float:
        sensitivity = NeighboringRelation(relation).sensitivity
        return sensitivity / self.noise_multiplier if self.noise_multiplier else math.inf

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        pair = LaplacePair(self._pure(relation)) if self.noise_multiplier else DISJOINT
        return pair, pair

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        orders = np.asarray(orders, dtype=np.float64)
        pure = self._pure(relation)
        if math.isinf(pure):
            return np.full(orders.shape, math.inf)
        a = np.where(np.isinf(orders), 2.0, orders)
        grow = (a - 1) * pure
        large = pure + np.log1p((a - 1) / (2 * a - 1) * np.expm1(-(2 * a - 1) * pure)) / (a - 1)
        # The first-order terms of the two exponentials cancel exactly, so only their remainders are summed.
        with np.errstate(over="ignore"):
            excess = (a * exp_remainder(grow) + (a - 1) * exp_remainder(-a * pure)) / (2 * a - 1)
        return np.where(np.isinf(orders), pure, np.where(grow < 1, np.log1p(excess) / (a - 1), large))

    def zcdp(self, relation: NeighboringRelation) -> float:
        # Every epsilon-DP mechanism is epsilon tanh(epsilon/2)-zCDP (randomized response is the worst).
        pure = self._pure(relation)
        return pure * math.tanh(pure / 2)

    def grouped(self, size: int) -> "Laplace":
        return Laplace(self.noise_multiplier / size)

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        import jax
        import jax.numpy as jnp

        value = jnp.asarray(value)
        return value + self.noise_multiplier * jax.random.laplace(key, value.shape, value.dtype)
