"""Randomized response over finitely many buckets."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dpkit import validation
from dpkit.mechanisms.base import Mechanism, UnsupportedViewError
from dpkit.mechanisms.finite_pair import DISJOINT, IDENTICAL, FinitePair
from dpkit.mechanisms.pair import Array
from dpkit.numerics.exponential import exp_remainder
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class RandomizedResponse(Mechanism):
    """Reports one unit's bucket, or with probability `noise_parameter` a uniformly random one.

    Args:
        noise_parameter: probability of reporting a uniform bucket, in [0, 1].
        num_buckets: number of buckets, >= 2.

    Raises:
        ValueError: a parameter is outside its range.

    Guarantees: exact privacy loss distributions. Under `REPLACE_ONE` the unit's bucket changes; under
    `REPLACE_SPECIAL` the special record reports a uniform bucket; Poisson-sampled, so must every unit that was not
    drawn, because a missing report would show who was. Under `ADD_OR_REMOVE_ONE` a missing report would
    reveal the absence, so no view exists.

    References: Warner (1965); Kairouz, Oh and Viswanath (2014).

    >>> from dpkit import accounting
    >>> half = RandomizedResponse(noise_parameter=0.5, num_buckets=2)
    >>> bounds = accounting.PldAccountant(relation="replace_one").epsilon(half, delta=0.0)
    >>> abs(bounds.upper - math.log(3)) < 1e-12
    True
    """

    noise_parameter: float
    num_buckets: int = 2

    def __post_init__(self):
        object.__setattr__(self, "noise_parameter", validation.probability("noise_parameter", self.noise_parameter))
        object.__setattr__(self, "num_buckets", validation.count("num_buckets", self.num_buckets, minimum=2))

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[FinitePair, FinitePair]:
        relation, p, k = NeighboringRelation(relation), self.noise_parameter, self.num_buckets
        if relation is NeighboringRelation.ADD_OR_REMOVE_ONE:
            raise UnsupportedViewError(
                self,
                "dominating-pair",
                "a missing report shows that its unit is absent; use replace_one or replace_special",
            )
        if p == 1:
            return IDENTICAL, IDENTICAL
        # log of (probability of the true bucket) / (probability of another bucket).
        ratio = math.log1p(k * (1 - p) / p) if p else math.inf
        if relation is NeighboringRelation.REPLACE_ONE:
            if not p:
                return DISJOINT, DISJOINT
            other = p / k
            losses, masses = (-ratio, 0.0, ratio), (other, (k - 2) * other, 1 - p + other)
            pair = FinitePair(losses, masses) if k > 2 else FinitePair(losses[::2], masses[::2])
            return pair, pair
        true = 1 - p + p / k
        # Against the uniform report: the true bucket is likelier by `gain`, the others less likely by `loss`.
        gain = math.log1p((k - 1) * (1 - p))
        if not p:
            return FinitePair((gain,), (1.0,)), FinitePair((-gain,), (1 / k,), (k - 1) / k)
        loss = -math.log(p)
        present = FinitePair((-loss, gain), ((k - 1) * p / k, true))
        absent = FinitePair((-gain, loss), (1 / k, (k - 1) / k))
        return present, absent

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        both = [_finite_renyi(orders, pair) for pair in self.dominating_pairs(relation)]
        return np.maximum(*both)

    def zcdp(self, relation: NeighboringRelation) -> float:
        pure = max(_pure_epsilon(pair) for pair in self.dominating_pairs(relation))
        return pure * math.tanh(pure / 2)

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """Randomizes each bucket index in `value` (integers in [0, num_buckets)) independently."""
        import jax
        import jax.numpy as jnp

        value = jnp.asarray(value)
        coin, bucket = jax.random.split(key)
        random = jax.random.randint(bucket, value.shape, 0, self.num_buckets, value.dtype)
        return jnp.where(jax.random.bernoulli(coin, self.noise_parameter, value.shape), random, value)


def _pure_epsilon(pair: FinitePair) -> float:
    return math.inf if pair.infinite_probability else max(0.0, pair.losses[-1])


def _finite_renyi(orders: ArrayLike, pair: FinitePair) -> Array:
    """Renyi divergences of a finite pair (k,); order inf gives the largest loss."""
    orders = np.asarray(orders, dtype=np.float64)
    if pair.infinite_probability:
        return np.full(orders.shape, math.inf)
    losses, probabilities = np.array(pair.losses), np.array(pair.probabilities)
    a = np.where(np.isinf(orders), 2.0, orders)[:, None]
    # log E_P[e^{(a-1)L}], shifted by the largest loss; near zero, E_Q[e^{aL} - 1 - a(e^L - 1)], which cannot cancel.
    top = losses[-1]
    large = np.log(np.exp((a - 1) * (losses - top)) @ probabilities) + (a[:, 0] - 1) * top
    with np.errstate(over="ignore"):
        excess = (exp_remainder(a * losses) - a * exp_remainder(losses)) @ (probabilities * np.exp(-losses))
    small = np.log1p(excess)
    return np.where(np.isinf(orders), top, np.where(excess < 0.1, small, large) / (a[:, 0] - 1))
