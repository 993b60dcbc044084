"""Epsilon of one record in one data set: a number of its own kind."""

import dataclasses
import math

import numpy as np

from dpkit import validation
from dpkit.accounting.conversions import epsilon_from_renyi
from dpkit.mechanisms.per_instance import PerInstance, PerInstanceRenyi


@dataclasses.dataclass(frozen=True)
class PerInstanceEpsilon(PerInstance):
    """The release of one data set and its neighbour without (or with) one record are (epsilon, delta)-close.

    Args:
        epsilon: upper bound, >= 0.
        delta: what it holds at.
        order: the Renyi order that gave it; inf for the max divergence, or where nothing did.
    """

    epsilon: float
    delta: float
    order: float


def per_instance_epsilon(divergences: PerInstanceRenyi, *, delta: float) -> PerInstanceEpsilon:
    """The least epsilon that the divergences imply at `delta`, over their orders.

    Raises:
        ValueError: `delta` is not in [0, 1], or `divergences` is not a `PerInstanceRenyi`.

    Guarantees: those of `PerInstanceRenyi`, which are no DP. Bound one release, or the budget of a `PerInstanceFilter`.

    References: Canonne, Kamath and Steinke (2020), Proposition 12.

    >>> from dpkit import mechanisms
    >>> release = mechanisms.TruncatedGaussian(noise_multiplier=1.0, lower=-1.0, upper=1.0)
    >>> per_instance_epsilon(release.per_instance_rdp(3.0, 1.0, [2.0, 8.0, 32.0]), delta=1e-5).epsilon
    1.632
    """
    if not isinstance(divergences, PerInstanceRenyi):
        raise ValueError(f"divergences must be a PerInstanceRenyi, got {divergences!r}")
    delta = validation.probability("delta", delta)
    orders, values = np.array(divergences.orders), np.array(divergences.divergences)
    finite = np.isfinite(orders)
    epsilons = np.where(finite, math.inf, values)
    if delta:
        # Rounded up by more than the divergences' accuracy.
        epsilons[finite] = epsilon_from_renyi(values[finite] * (1 + 1e-10), orders[finite], delta)
    best = int(np.argmin(epsilons))
    epsilon = float(epsilons[best])
    return PerInstanceEpsilon(max(0.0, epsilon), delta, float(orders[best]) if math.isfinite(epsilon) else math.inf)
