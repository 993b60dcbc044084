"""One unit of a Poisson sample replaced by another, under Gaussian noise."""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dpkit.mechanisms.pair import Array, DominatingPair
from dpkit.numerics.normal import normal_interval, shifted_normal_delta


@dataclasses.dataclass(frozen=True)
class ReplacedSamplePair(DominatingPair):
    """P = (1-q) N(0, 1) + q N(mu, 1) and Q = (1-q) N(0, 1) + q N(-mu, 1), their own reverse; 0 < q < 1.

    A unit's contribution x, |x| <= mu, is replaced by x', both drawn with the same probability q. For e^eps >= 1,
    P - e^eps Q = q N(x) - (e^eps - 1)(1-q) N(0) - e^eps q N(x') compares one normal law with a mixture of two whose
    centres are no further than mu and 2 mu from its own; for e^eps < 1 a mixture of two with N(x'), at the same
    distances. By Lemma 4.4 of Choquette-Choo et al. (2024) such a comparison is hardest on a line, with both centres
    on the same side and as far as they may be: x = mu and x' = -mu, for every eps.
    """

    mu: float
    sampling_probability: float

    def _threshold(self, loss: ArrayLike) -> Array:
        """The x at which log(dP/dQ) = loss: mu x = loss/2 + asinh((1-q)/q e^{mu^2/2} sinh(loss/2))."""
        loss = np.asarray(loss, dtype=np.float64)
        half = np.abs(loss) / 2
        log_scale = math.log1p(-self.sampling_probability) - math.log(self.sampling_probability) + self.mu**2 / 2
        with np.errstate(divide="ignore", over="ignore"):
            # sinh(h) = e^h (1 - e^-2h) / 2, in logarithms because e^{mu^2/2} and e^h may overflow.
            log_sine = half + np.log(-np.expm1(-2 * half)) - math.log(2) + log_scale
            root = np.where(log_sine > 300, log_sine + math.log(2), np.arcsinh(np.exp(np.minimum(log_sine, 300.0))))
        return np.copysign((half + root) / self.mu, loss)

    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        x, q = self._threshold(loss), self.sampling_probability
        still = (1 - q) * special.ndtr(-x)
        return still + q * special.ndtr(self.mu - x), still + q * special.ndtr(-self.mu - x)

    def advantage(self, loss: ArrayLike) -> Array:
        return self.sampling_probability * normal_interval(-self.mu - self._threshold(loss), 2 * self.mu)

    def delta(self, epsilon: float) -> float:
        if epsilon < 0:
            # The pair is its own reverse: P - e^eps Q = (1 - e^eps) + e^eps (Q - e^-eps P).
            return -math.expm1(epsilon) + math.exp(epsilon) * self.delta(-epsilon)
        x, q = float(self._threshold(epsilon)), self.sampling_probability
        # q N(mu) is split so that either part meets one component of e^eps Q at the threshold: nothing cancels.
        against_still, against_other = self.mu * x - self.mu**2 / 2, 2 * self.mu * x
        other = math.exp(epsilon - against_other) * q
        total = (q - other) * shifted_normal_delta(self.mu, against_still) if other < q else 0.0
        return total + other * shifted_normal_delta(2 * self.mu, against_other)

    @property
    def loss_range(self) -> tuple[float, float]:
        return -math.inf, math.inf


@dataclasses.dataclass(frozen=True)
class ReplacedSampleBound(ReplacedSamplePair):
    """The same laws where they are more than what is released."""

    @property
    def attained(self) -> bool:
        return False
