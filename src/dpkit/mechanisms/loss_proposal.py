"""Privacy losses that can only be drawn: what a mechanism offers to a Monte Carlo accountant."""

import abc
import math
from typing import ClassVar

import numpy as np

from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.pair import Array
from dpkit.relations import NeighboringRelation


class LossProposal(abc.ABC):
    """Weighted draws of the privacy loss L = log(dP/dQ) of one direction, for outcomes from P.

    Draws come from another law than P, under which large losses are common; a draw's weight w makes up for it:
    E[w h(L)] = E_P[h(L)] for every h.

    Attributes:
        power: t >= 0 with w <= exp(log_constant - t L) for every outcome.
        log_constant: see power.
        width: how many random numbers a draw takes, which sets the memory of a batch.
    """

    power: float
    log_constant: float
    width: int

    @abc.abstractmethod
    def sample(self, generator: np.random.Generator, count: int) -> tuple[Array, Array]:
        """Losses and log weights of `count` independent draws, each (count,)."""

    def largest_weight(self, epsilon: float) -> float:
        """A bound on w where L > epsilon."""
        return _exp(self.log_constant - self.power * epsilon)

    def largest_term(self, epsilon: float) -> float:
        """A bound on the terms w (1 - exp(epsilon - L))_+, whose mean is the delta of this direction.

        w is at most a multiple of e^(-t L), and (1 - e^-x) e^(-t x) is largest at e^-x = t / (1 + t).
        """
        return _exp(self.log_constant - self.power * epsilon + log_largest_term(self.power))


class SampledLoss(Mechanism):
    """A mechanism whose privacy loss can be drawn: the view of the Monte Carlo accountant."""

    accountants: ClassVar[tuple[str, ...]] = ("monte_carlo",)

    @abc.abstractmethod
    def loss_proposals(self, relation: NeighboringRelation, epsilon: float) -> tuple[LossProposal, LossProposal]:
        """Proposals for losses above `epsilon` (unit present against absent, absent against present).

        Raises:
            UnsupportedViewError: nothing is proved under `relation`.
        """

    @property
    @abc.abstractmethod
    def worst_case(self) -> Mechanism:
        """A mechanism with dominating pairs that is never more private than this one."""


def log_largest_term(power: float) -> float:
    """log of the largest (1 - e^-x) e^(-t x), x >= 0: t^t / (1 + t)^(1 + t)."""
    return (power * math.log(power) if power else 0.0) - (1 + power) * math.log1p(power)


def _exp(exponent: float) -> float:
    return math.exp(exponent) if exponent < 700 else math.inf
