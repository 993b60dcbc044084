"""Dominating pairs: a mechanism's worst case seen through its privacy loss."""

import abc
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class DominatingPair(abc.ABC):
    """Two distributions P and Q such that no pair of neighbouring inputs is easier to tell apart.

    `L = log(dP/dQ)` is the privacy loss. Everything an accountant needs follows from how L is distributed under P and
    under Q: `H_{e^x}(P||Q) = P[L > x] - e^x Q[L > x]`.

    Contract: the survival functions are right-continuous, and every probability (and `advantage`) carries a relative
    error of a few dozen units in the last place, growing at most with `-log P[L > x]`. Accountants round outwards by
    more than that (`dpkit.numerics.lattice.relative_error`).

    References: Zhu, Dong and Wang (2022), Definition 7 and Proposition 8.
    """

    @abc.abstractmethod
    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        """Survival functions `(P[L > loss], Q[L > loss])`, shaped like `loss`."""

    @abc.abstractmethod
    def advantage(self, loss: ArrayLike) -> Array:
        """`P[L > loss] - Q[L > loss]` to relative accuracy, also where the two nearly agree."""

    @abc.abstractmethod
    def delta(self, epsilon: float) -> float:
        """Hockey-stick divergence `H_{e^epsilon}(P||Q)` of one release, to relative accuracy, for any real epsilon."""

    @property
    @abc.abstractmethod
    def loss_range(self) -> tuple[float, float]:
        """Infimum and supremum of the finite values of L; either may be infinite."""

    @property
    def atoms(self) -> tuple[float, ...]:
        """Finite values that L takes with positive probability, ascending. Grids align with them where they can."""
        return ()

    @property
    def infinite_mass(self) -> float:
        """`P[L = inf]`: the probability of outcomes that only P can produce."""
        return 0.0


class SampledPair(DominatingPair):
    """A base pair after Poisson sampling, in one direction.

    With (P, Q) dominating the base, sampling with probability q gives `((1-q)Q + qP, Q)` when the unit is removed and
    `(Q, (1-q)Q + qP)` when it is added. `base` is (P, Q) for removal and (Q, P) for addition, so an asymmetric base
    brings its own pair for each direction.

    References: Zhu, Dong and Wang (2022), Theorem 11.
    """

    def __init__(self, base: DominatingPair, sampling_probability: float, *, adding: bool):
        self.base = base
        self.sampling_probability = sampling_probability
        self.adding = adding

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampledPair) and (self.base, self.sampling_probability, self.adding) == (
            other.base,
            other.sampling_probability,
            other.adding,
        )

    def __hash__(self) -> int:
        return hash((self.base, self.sampling_probability, self.adding))

    def _base_loss(self, loss: ArrayLike) -> Array:
        """The base loss at which the sampled loss equals `loss`.

        Removing, log(1-q + q e^x) = loss. Adding, -log(1-q + q e^-x) = loss, where x is the loss of (Q, P).
        """
        loss = np.asarray(loss, dtype=np.float64)
        q = self.sampling_probability
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # Dividing first keeps digits when both e^loss - 1 and q are small.
            inner = np.log1p(np.maximum(np.expm1(-loss if self.adding else loss) / q, -1.0))
        return -inner if self.adding else inner

    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        first, second = self.base.sf(self._base_loss(loss))
        q = self.sampling_probability
        if self.adding:
            return first, (1 - q) * first + q * second
        return (1 - q) * second + q * first, second

    def advantage(self, loss: ArrayLike) -> Array:
        return self.sampling_probability * self.base.advantage(self._base_loss(loss))

    def delta(self, epsilon: float) -> float:
        q = self.sampling_probability
        if self.adding:
            scale = -math.expm1(epsilon + math.log1p(-q)) if q < 1 else 1.0
            if scale <= 0:
                return 0.0
        else:
            scale = q
            if epsilon <= (math.log1p(-q) if q < 1 else -math.inf):
                return -math.expm1(epsilon)
        return scale * self.base.delta(float(self._base_loss(epsilon)))

    @property
    def loss_range(self) -> tuple[float, float]:
        low, high = (self._sampled_loss(x) for x in self.base.loss_range)
        return low, high

    @property
    def atoms(self) -> tuple[float, ...]:
        return tuple(self._sampled_loss(x) for x in self.base.atoms)

    @property
    def infinite_mass(self) -> float:
        # Adding: P is the world without the unit, and wherever it puts mass the mixture does too (q < 1).
        if self.adding:
            return self.base.infinite_mass if self.sampling_probability == 1 else 0.0
        return self.sampling_probability * self.base.infinite_mass

    def _sampled_loss(self, loss: float) -> float:
        q = self.sampling_probability
        if self.adding:
            return -self._mixture_log_ratio(-loss, q)
        return self._mixture_log_ratio(loss, q)

    @staticmethod
    def _mixture_log_ratio(x: float, q: float) -> float:
        if x > 700:
            return x + math.log(q)
        argument = q * math.expm1(x)
        return math.log1p(argument) if argument > -1 else -math.inf
