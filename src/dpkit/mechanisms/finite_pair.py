"""Dominating pairs with finitely many outcomes."""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from dpkit.mechanisms.pair import Array, DominatingPair


@dataclasses.dataclass(frozen=True)
class FinitePair(DominatingPair):
    """Outcomes with losses `losses` (finite, strictly ascending) and P-probabilities `probabilities`.

    What `probabilities` lacks of 1 is `infinite_mass`, stated by the caller so that it is exact; Q puts
    `probability * exp(-loss)` on each outcome and the rest where P puts nothing.
    """

    losses: tuple[float, ...]
    probabilities: tuple[float, ...]
    infinite_probability: float = 0.0

    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        losses, p = np.array(self.losses), np.array(self.probabilities)
        loss = np.asarray(loss, dtype=np.float64)
        above = np.searchsorted(losses, loss, side="right")
        p_tail = _suffix_sums(p) + self.infinite_probability
        # P[L > inf] is zero: an outcome of infinite loss is above every finite threshold only.
        return np.where(np.isposinf(loss), 0.0, p_tail[above]), _suffix_sums(p * np.exp(-losses))[above]

    def advantage(self, loss: ArrayLike) -> Array:
        losses, p = np.array(self.losses), np.array(self.probabilities)
        gain = p * -np.expm1(-losses)
        loss = np.asarray(loss, dtype=np.float64)
        above = np.searchsorted(losses, loss, side="right")
        # From above while losses are positive, from below (what Q has more of) while they are negative.
        from_above = _suffix_sums(gain) + self.infinite_probability
        only_q = 1.0 - math.fsum(p * np.exp(-losses))
        only_q = only_q if only_q > 1e-12 else 0.0  # less is rounding
        from_below = np.concatenate([[0.0], np.cumsum(-gain)]) + only_q
        value = np.where(loss >= 0, from_above[above], from_below[above])
        return np.where(np.isposinf(loss), 0.0, value)

    def delta(self, epsilon: float) -> float:
        losses, p = np.array(self.losses), np.array(self.probabilities)
        above = losses > epsilon
        return self.infinite_probability + math.fsum(p[above] * -np.expm1(epsilon - losses[above]))

    @property
    def loss_range(self) -> tuple[float, float]:
        return (self.losses[0], self.losses[-1]) if self.losses else (0.0, 0.0)

    @property
    def atoms(self) -> tuple[float, ...]:
        return self.losses

    @property
    def infinite_mass(self) -> float:
        return self.infinite_probability


DISJOINT = FinitePair((), (), 1.0)
"""The pair of a release without noise: P and Q share no outcome."""

IDENTICAL = FinitePair((0.0,), (1.0,))
"""The pair of a release that does not depend on the data."""


def _suffix_sums(values: Array) -> Array:
    """`result[i] = sum(values[i:])`, one longer than `values`."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])
