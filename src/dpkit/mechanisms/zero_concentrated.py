"""A release of which only a zCDP guarantee is known."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from dpkit import validation
from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.pair import Array
from dpkit.relations import NeighboringRelation


@dataclasses.dataclass(frozen=True)
class ZeroConcentrated(Mechanism):
    """Any mechanism that its authors proved rho-zCDP, under the relation they proved it for.

    Args:
        rho: Renyi divergence of every order a > 1 is at most `rho * a`, >= 0.

    Raises:
        ValueError: `rho` is negative, NaN or infinite.

    Guarantees: only what rho implies. There is no dominating pair, so `PldAccountant` refuses it.

    References: Bun and Steinke (2016), Definition 1.1.

    >>> from dpkit import accounting
    >>> round(accounting.ZcdpAccountant().epsilon(ZeroConcentrated(0.81), delta=1e-10).upper, 4)
    8.9222
    """

    rho: float

    def __post_init__(self):
        object.__setattr__(self, "rho", validation.non_negative("rho", self.rho))

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        orders, rho = np.asarray(orders, dtype=np.float64), self.zcdp(relation)
        return orders * rho if rho else np.zeros(orders.shape)

    def zcdp(self, relation: NeighboringRelation) -> float:
        NeighboringRelation(relation)
        return self.rho

    def grouped(self, size: int) -> "ZeroConcentrated":
        return ZeroConcentrated(self.rho * size**2)
