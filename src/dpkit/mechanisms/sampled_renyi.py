"""Mechanisms that know the Renyi divergences of their Poisson-sampled selves."""

import abc
import math

import numpy as np

from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.pair import Array
from dpkit.numerics.binomial_moments import interpolated_divergence, sampled_log_moments
from dpkit.relations import NeighboringRelation

# Up to this order sampling is bounded through integer moments; beyond it counts as none.
_LARGEST_ORDER = 1024


class SampledRenyi(Mechanism):
    """A mechanism for which `PoissonSampled` has Renyi divergences without a bounded privacy loss."""

    @abc.abstractmethod
    def sampled_rdp(self, orders: Array, sampling_probability: float, relation: NeighboringRelation) -> Array:
        """Upper bounds on both directions after Poisson sampling, shaped like `orders`; `inf` where none is known.

        Args:
            orders: > 1, or inf.
            sampling_probability: in (0, 1).
            relation: `ADD_OR_REMOVE_ONE` or `REPLACE_SPECIAL`.
        """

    def _removing(self, orders: Array, sampling_probability: float, relation: NeighboringRelation) -> Array:
        """D_order((1-q) Q + q P || Q): at integer orders a binomial sum of the moments of P/Q, chords between."""
        reachable = orders[orders <= _LARGEST_ORDER]
        integers = np.arange(2, math.ceil(reachable.max(initial=2.0)) + 1, dtype=np.float64)
        log_moments = np.concatenate([[0.0, 0.0], (integers - 1) * self.rdp(integers, relation)])
        return interpolated_divergence(orders, sampled_log_moments(log_moments, sampling_probability))
