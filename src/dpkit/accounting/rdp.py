"""The Renyi accountant."""

import dataclasses
import math

import numpy as np

from dpkit.accounting.base import Bounds, PrivacyAccountant
from dpkit.accounting.conversions import Array, Converted, RenyiCurve, renyi_delta, renyi_epsilon
from dpkit.mechanisms.base import Mechanism


@dataclasses.dataclass(frozen=True)
class RdpAccountant(PrivacyAccountant):
    """Composes Renyi divergences order by order and converts at the best real order.

    Args:
        relation: when two data sets are neighbours.

    Guarantees: `upper` holds for adaptive composition (Mironov 2017, Proposition 1) through the tight conversion of
    Canonne, Kamath and Steinke (2020). A Renyi bound says nothing from below, so `lower` is 0. `order` is the best
    order; `inf` means the sum of pure epsilons.

    >>> from dpkit import mechanisms
    >>> round(RdpAccountant().epsilon(mechanisms.Gaussian(1.0), delta=1e-5).upper, 3)
    4.728
    """

    def curve(self, mechanism: Mechanism) -> RenyiCurve:
        """The Renyi divergence of the whole mechanism as a function of orders (k,)."""
        parts = list(mechanism.parts())

        def total(orders: Array) -> Array:
            result = np.zeros(orders.shape)
            for part, count in parts:
                result = result + count * part.rdp(orders, self.relation)  # type: ignore[arg-type]
            return result

        return total

    def _epsilon(self, mechanism: Mechanism, delta: float) -> Bounds:
        return _bounds(renyi_epsilon(self.curve(mechanism), delta))

    def _delta(self, mechanism: Mechanism, epsilon: float) -> Bounds:
        return _bounds(renyi_delta(self.curve(mechanism), epsilon))


@dataclasses.dataclass(frozen=True)
class ZcdpAccountant(PrivacyAccountant):
    """Adds up rho and converts rho-zCDP at the best real order.

    Args:
        relation: when two data sets are neighbours.

    Guarantees: `upper` holds for adaptive composition (Bun and Steinke 2016, Lemma 2.3). Sampling does not lower rho,
    so sampled runs come out loose here. `lower` is 0.

    >>> from dpkit import mechanisms
    >>> round(ZcdpAccountant().epsilon(mechanisms.Gaussian(1.0), delta=1e-5).upper, 3)
    4.728
    """

    def rho(self, mechanism: Mechanism) -> float:
        """The rho of the whole mechanism."""
        relation = self.relation
        return math.fsum(count * part.zcdp(relation) for part, count in mechanism.parts())  # type: ignore[arg-type]

    def _epsilon(self, mechanism: Mechanism, delta: float) -> Bounds:
        return _bounds(renyi_epsilon(_linear(self.rho(mechanism)), delta))

    def _delta(self, mechanism: Mechanism, epsilon: float) -> Bounds:
        return _bounds(renyi_delta(_linear(self.rho(mechanism)), epsilon))


def _linear(rho: float) -> RenyiCurve:
    return lambda orders: rho * orders if rho else np.zeros(orders.shape)


def _bounds(converted: Converted) -> Bounds:
    return Bounds(0.0, converted.value, order=converted.order)
