"""What mechanisms that add integer noise to integers have in common."""

import abc
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.mechanisms.base import UnsupportedViewError
from dpkit.mechanisms.finite_pair import DISJOINT
from dpkit.mechanisms.lattice_pair import IntegerLaw, LatticePair, lattice_renyi, overlaps
from dpkit.mechanisms.pair import Array, DominatingPair
from dpkit.mechanisms.sampled_renyi import SampledRenyi
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax

# Standard deviations up to which the law is tabulated.
_LARGEST_TABLE = 5000.0


class Change:
    """How far one unit may move a sum of integer vectors, in several norms.

    A contribution has L2 norm at most `l2_sensitivity`; replacing it doubles that. The change is an integer vector, so
    that |x| <= x^2 in each of the at most `dimension` coordinates.
    """

    def __init__(self, l2_sensitivity: float, dimension: int, relation: NeighboringRelation):
        self.l2 = l2_sensitivity * NeighboringRelation(relation).sensitivity
        self.coordinates = min(float(dimension), self.l2**2)
        self.l1 = min(math.sqrt(dimension) * self.l2, self.l2**2)


class IntegerNoise(SampledRenyi):
    """Adds independent symmetric integer noise to every coordinate of a sum of integer vectors.

    Subclasses have the fields `l2_sensitivity` (the norm bound of one unit's integer contribution) and `dimension`.

    Poisson sampling: with f the law of the noise and s the shift, x -> s - x exchanges f(x) and f(x - s). Under such
    an involution removing is the worse direction at every order a > 1. For let r = f(x - s)/f(x), g(r) = 1 - q + q r:
    the involution gives E[h(r)] = E[h(r) + r h(1/r)] / 2, and with A = log g(r), B = -log g(1/r), r > 1, u = a - 1/2,
    what is claimed, E[g^a] >= E[g^(1-a)], reads e^(A/2) sinh(uA) >= r e^(-B/2) sinh(uB) term by term. At u = 1/2 the
    two sides are equal, because g(r) + r g(1/r) = 1 + r; g(r) g(1/r) >= 1, so A >= B; and sinh(uA)/sinh(A/2) grows
    with A for u > 1/2. (Mironov, Talwar and Zhang 2019, Theorem 5, for densities.) What is left is `_removing`.
    """

    floating_point_safe: ClassVar[bool] = True
    l2_sensitivity: float
    dimension: int

    @abc.abstractmethod
    def _renyi_bound(self, orders: Array, change: Change) -> Array:
        """Upper bounds at finite orders > 1."""

    @abc.abstractmethod
    def _law(self) -> tuple[IntegerLaw, float] | None:
        """The law of one coordinate and its standard deviation, None where it is not known exactly."""

    @abc.abstractmethod
    def _noise(self, key: "jax.Array", shape: tuple[int, ...]) -> Any:
        """int32 noise."""

    @abc.abstractmethod
    def _exact_noise(self, count: int) -> NDArray[np.int64]:
        """Noise from the operating system's generator, exactly distributed (count,)."""

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        relation = NeighboringRelation(relation)
        if self.dimension > 1:
            raise UnsupportedViewError(
                self, "dominating-pair", "no worst integer vector is known in several dimensions", ("rdp", "zcdp")
            )
        tabulated = self._tabulated()
        if tabulated is None:
            raise UnsupportedViewError(
                self,
                "dominating-pair",
                f"only laws of standard deviation {_LARGEST_TABLE:g} or less are tabulated,"
                " and no sums of several shares",
                ("rdp", "zcdp"),
            )
        shift = self._shift(relation)
        pair = LatticePair(tabulated, shift) if overlaps(tabulated, shift) else DISJOINT
        return pair, pair

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        orders, change = np.asarray(orders, dtype=np.float64), self._change(relation)
        finite = np.where(np.isinf(orders), 2.0, orders)
        bound = np.where(np.isinf(orders), math.inf, self._renyi_bound(finite, change))
        return np.minimum(bound, self._exact_renyi(orders, relation, 1.0))

    def sampled_rdp(self, orders: Array, sampling_probability: float, relation: NeighboringRelation) -> Array:
        result = self._exact_renyi(orders, relation, sampling_probability)
        unknown = np.isinf(result)
        result[unknown] = self._removing(orders[unknown], sampling_probability, relation)
        return result

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """Adds noise drawn by floating-point arithmetic to the integers in `value`, of any shape. Pure and jittable.

        Not floating-point safe, unlike `release_exactly`: the noise has the stated law only to the accuracy of
        `jax.random`. It is computed in 32 bits.

        Raises:
            ValueError: `value` does not hold integers; see `dpkit.mechanisms.rounding`.
        """
        import jax.numpy as jnp

        value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise ValueError(f"value must hold integers, got {value.dtype}; scale and round it with stochastic_round")
        return value + self._noise(key, value.shape).astype(value.dtype)

    def release_exactly(self, value: ArrayLike) -> NDArray[np.int64]:
        """Adds noise of exactly the stated law, from integers of the operating system's secure generator alone.

        Args:
            value: integers of any shape.

        Raises:
            ValueError: `value` does not hold integers.
        """
        value = np.asarray(value)
        if not np.issubdtype(value.dtype, np.integer):
            raise ValueError(f"value must hold integers, got {value.dtype}; scale and round it with stochastic_round")
        return value.astype(np.int64) + self._exact_noise(value.size).reshape(value.shape)

    def _change(self, relation: NeighboringRelation) -> Change:
        return Change(self.l2_sensitivity, self.dimension, relation)

    def _shift(self, relation: NeighboringRelation) -> int:
        return round(self._change(relation).l2)

    def _tabulated(self) -> IntegerLaw | None:
        law = self._law()
        return law[0] if law is not None and law[1] <= _LARGEST_TABLE else None

    def _exact_renyi(self, orders: Array, relation: NeighboringRelation, sampling_probability: float) -> Array:
        tabulated = self._tabulated()
        if self.dimension > 1 or tabulated is None:
            return np.full(orders.shape, math.inf)
        shift = self._shift(NeighboringRelation(relation))
        return lattice_renyi(tabulated, shift, orders.ravel(), sampling_probability).reshape(orders.shape)


def checked_sensitivity(l2_sensitivity: float, dimension: int) -> float:
    """An integer's L2 norm is an integer."""
    if dimension == 1 and l2_sensitivity != round(l2_sensitivity):
        raise ValueError(f"l2_sensitivity must be an integer in one dimension, got {l2_sensitivity}; round it down")
    return l2_sensitivity
